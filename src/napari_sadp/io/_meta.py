"""Axes, units, beam energy and camera length out of the raw dictionaries of RosettaSciIO.

Lengths of the files are normalised here and nowhere else; what is absurd is dropped with a note for the user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_sadp._units import (
    is_real_space,
    normalise_unit,
    plausible_pixel_size,
    screen_to_inv_angstrom,
    to_inv_angstrom,
)

from ._load import as_mapping, dig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sadp.pattern import PatternKind

_LENGTH_IN_METRES = {"pm": 1e-12, "angstrom": 1e-10, "nm": 1e-9, "um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0}
_PLAUSIBLE_IMAGE_PIXEL_METRES = (1e-13, 1e-3)
_ANGLES = {"mrad", "rad"}
_ENERGIES = {"ev", "kev"}
_SPECTRA = ("EELS", "EDS", "EDX", "CL")
_SAME_SCALE = 5e-4  # relative; over a frame of 4096 px it moves the edge by one pixel
_MAX_ASPECT = 10.0
_MAX_OFFSET_PIXELS = 1e5
_VOLTAGE_KV = (1.0, 3000.0)
_VOLTS_ABOVE = 5000.0
_CAMERA_LENGTH_MM = (5.0, 1e5)
_STAGE_DEG = 90.0

_TAGS = ("ImageList", "TagGroup0", "ImageTags")
_SOURCE_TAGS = (*_TAGS, "source", "Tags at creation")
_VOLTAGE_PATHS = (
    (*_TAGS, "Microscope Info", "Voltage"),
    (*_SOURCE_TAGS, "Microscope Info", "Voltage"),
    ("ObjectInfo", "ExperimentalDescription", "High tension_kV"),
    ("ObjectInfo", "ExperimentalConditions", "MicroscopeConditions", "AcceleratingVoltage"),
    ("Optics", "AccelerationVoltage"),
    ("blockfile_header", "Beam_energy"),
    ("microscope", "voltage"),
    ("microscope", "beam_energy"),
    ("ImageDescription", "ElectronGun", "AccelerationVoltage"),
)
_CAMERA_PATHS = (  # with the factor to mm
    ((*_TAGS, "Microscope Info", "STEM Camera Length"), 1.0),
    ((*_SOURCE_TAGS, "Microscope Info", "STEM Camera Length"), 1.0),
    ((*_TAGS, "Microscope Info", "Camera Length"), 1.0),
    ((*_SOURCE_TAGS, "Microscope Info", "Camera Length"), 1.0),
    (("ObjectInfo", "ExperimentalDescription", "Camera length_m"), 1e3),
    (("Optics", "CameraLength"), 1e3),
    (("blockfile_header", "Camera_length"), 0.1),
    (("microscope", "camera_length"), 1.0),
)


@dataclass(frozen=True)
class StackAxis:
    """One axis of a stack.

    Parameters
    ----------
    name : str
        What the file calls it, or ``""``.
    size : int
        Number of pixels or frames.
    units : str
        Normalised unit (``"1/nm"``, ``"nm"``, ``"s"`` ...), ``"pixel"`` where the file gives none that makes sense.
    scale : float
        Size of a step [`units`].
    offset : float
        Position of the first element [`units`]; a nominal value, never the place of the direct beam.
    """

    name: str
    size: int
    units: str = "pixel"
    scale: float = 1.0
    offset: float = 0.0


def read_axes(raw: list[dict[str, Any]], shape: tuple[int, ...]) -> tuple[list[StackAxis], list[bool | None]]:
    """Return the axes in the order of the array, and whether the file calls each one navigation.

    The order is that of ``index_in_array`` where it agrees with the shape of the array, otherwise that of the list:
    plain images have the two swapped.
    """
    raw = [axis for axis in raw if isinstance(axis, dict)]
    indices = [axis.get("index_in_array") for axis in raw]
    if all(isinstance(i, int) for i in indices):
        ordered = sorted(raw, key=lambda axis: axis["index_in_array"])
        if _sizes(ordered) == shape:
            raw = ordered
    if _sizes(raw) != shape:
        return [StackAxis("", size) for size in shape], [None] * len(shape)
    axes = []
    for axis, size in zip(raw, shape, strict=True):
        # an axis without a scale (a non-uniform one) must not pass for one of scale 1
        scale, offset = _number(axis.get("scale"), math.nan), _number(axis.get("offset"), 0.0)
        axes.append(
            StackAxis(str(axis.get("name") or ""), size, normalise_unit(axis.get("units")), scale, offset)
        )
    return axes, [axis.get("navigate") for axis in raw]


def signal_axes(
    axes: list[StackAxis], navigate: list[bool | None]
) -> tuple[tuple[int, int] | None, list[str], bool]:
    """Return which two axes of the array are rows and columns, None for spectra, notes, and whether the file calls others so."""
    signal = [i for i, flag in enumerate(navigate) if flag is not None and not flag]
    if len(axes) < 2 or len(signal) == 1 or any(axes[i].units in _ENERGIES for i in signal):
        return None, [], False
    if len(signal) != 2:
        signal = [len(axes) - 2, len(axes) - 1]
    # Gatan writes some 4-D STEM sets with the scan as the fastest axes: the units tell
    other = [i for i in range(len(axes)) if i not in signal]
    if (
        len(other) == 2
        and all(is_real_space(axes[i].units) for i in signal)
        and all(is_reciprocal(axes[i].units) for i in other)
    ):
        names = " and ".join(axes[i].units for i in other)
        note = f"the axes in {names} taken as those of the pattern, although the file calls them the scan"
        return (other[0], other[1]), [note], True
    return (signal[0], signal[1]), [], False


def is_spectrum(signal: dict[str, Any]) -> bool:
    """Tell whether the metadata call the data spectra."""
    signal_type = str(dig(as_mapping(signal.get("metadata")), "Signal", "signal_type") or "")
    return signal_type.upper().startswith(_SPECTRA)


def is_reciprocal(unit: str) -> bool:
    """Tell whether a normalised unit belongs to a diffraction pattern (a reciprocal length or an angle)."""
    return unit in _ANGLES or to_inv_angstrom(1.0, unit) is not None


def beam_energy_kv(signal: dict[str, Any]) -> tuple[float | None, list[str]]:
    """Return the beam energy [kV] and the notes about it."""
    for value in _candidates(signal, "beam_energy", [(path, 1.0) for path in _VOLTAGE_PATHS]):
        kilovolts = value * 1e-3 if value >= _VOLTS_ABOVE else value
        if _VOLTAGE_KV[0] <= kilovolts <= _VOLTAGE_KV[1]:
            return kilovolts, []
    return None, []


def camera_length_mm(signal: dict[str, Any]) -> tuple[float | None, list[str]]:
    """Return the camera length [mm] and the notes about it."""
    for value in _candidates(signal, "camera_length", list(_CAMERA_PATHS)):
        if _CAMERA_LENGTH_MM[0] <= value <= _CAMERA_LENGTH_MM[1]:
            return value, []
        if _CAMERA_LENGTH_MM[0] <= value * 1e3 <= _CAMERA_LENGTH_MM[1]:
            # no microscope has a camera length below 5 mm; blo files and their copies give metres
            return value * 1e3, [f"camera length of {value:g} taken as metres"]
    return None, []


def stage_deg(signal: dict[str, Any]) -> tuple[float, float] | None:
    """Return the tilts alpha and beta of the stage [deg], None where the file does not give both."""
    stage = as_mapping(dig(as_mapping(signal.get("metadata")), "Acquisition_instrument", "TEM", "Stage"))
    found = dict(stage)
    original = as_mapping(signal.get("original_metadata"))
    for path, target in as_mapping(signal.get("mapping")).items():
        name = str(target[0]).rpartition(".TEM.Stage.")[2]
        if name in ("tilt_alpha", "tilt_beta"):
            found.setdefault(name, _apply(target[1], dig(original, *path.split("."))))
    alpha, beta = (_number(found.get(name), math.nan) for name in ("tilt_alpha", "tilt_beta"))
    if not (abs(alpha) <= _STAGE_DEG and abs(beta) <= _STAGE_DEG):
        return None
    # a stage that says 0, 0 is one that was never read out
    return (alpha, beta) if alpha or beta else None


def calibrate(
    rows: StackAxis,
    cols: StackAxis,
    signal: dict[str, Any],
    voltage_kv: float | None,
    length_mm: float | None,
) -> tuple[float | None, PatternKind, StackAxis, StackAxis, list[str]]:
    """Decide what the two signal axes mean.

    Returns
    -------
    pixel_size : float or None
        Size of the square pixel [1/Å] that frames are given with, None when uncalibrated.
    kind : {"diffraction", "image", "unknown"}
        What the file says that the data are.
    rows, cols : StackAxis
        The axes, without calibrations and offsets that make no sense.
    notes : list of str
        What was dropped and why.
    """
    notes: list[str] = []
    kind = _kind(rows, cols, signal)
    sizes = [_inv_angstrom(axis, voltage_kv, length_mm) for axis in (rows, cols)]
    pixel_size: float | None = None
    keep = kind == "image"
    if kind != "image" and all(sizes):
        reach = max(abs(size) * axis.size for size, axis in zip(sizes, (rows, cols), strict=True))
        aspect = abs(sizes[0] / sizes[1])
        if plausible_pixel_size(reach, 1) and 1 / _MAX_ASPECT < aspect < _MAX_ASPECT:
            pixel_size, keep = float(min(abs(sizes[0]), abs(sizes[1]))), True
            if rows.units != cols.units or to_inv_angstrom(1.0, rows.units) is None:
                if to_inv_angstrom(1.0, cols.units) is None:
                    notes.append(_how_calibrated(cols, pixel_size, voltage_kv, length_mm))
                rows, cols = (_in_inv_angstrom(a, s) for a, s in zip((rows, cols), sizes, strict=True))
        else:
            notes.append(
                f"calibration of {cols.scale:.4g} {cols.units} per pixel is implausible "
                f"(Nyquist frequency {reach / 2:.3g} 1/Å), treated as uncalibrated"
            )
    elif kind != "image" and (rows.units != "pixel" or cols.units != "pixel"):
        keep = kind == "diffraction" and rows.units == cols.units and _usable(rows) and _usable(cols)
        notes.append(_why_uncalibrated(cols if cols.units != "pixel" else rows, voltage_kv, length_mm))
    if not keep:
        rows, cols = _uncalibrated(rows, cols)
    rows, cols = (_checked_offset(axis, notes) for axis in (rows, cols))
    return pixel_size, kind, rows, cols, notes


def navigation_axis(axis: StackAxis) -> StackAxis:
    """Return an axis of a scan or series, counted in frames where its scale makes no sense."""
    return axis if _usable(axis) and math.isfinite(axis.offset) else StackAxis(axis.name, axis.size)


def oblong(rows: StackAxis, cols: StackAxis) -> bool:
    """Tell whether the pixels are to be resampled to square ones."""
    if rows.units != cols.units or not rows.scale or not cols.scale:
        return False
    aspect = abs(rows.scale / cols.scale)
    return abs(aspect - 1) > _SAME_SCALE and 1 / _MAX_ASPECT < aspect < _MAX_ASPECT


def _kind(rows: StackAxis, cols: StackAxis, signal: dict[str, Any]) -> PatternKind:
    units = {rows.units, cols.units} - {"pixel"}
    if any(is_reciprocal(unit) for unit in units) or units == {"cm"}:  # cm: on the screen of a blo file
        return "diffraction"
    low, high = _PLAUSIBLE_IMAGE_PIXEL_METRES
    if units and all(is_real_space(unit) for unit in units):
        metres = [abs(a.scale) * _LENGTH_IN_METRES[a.units] for a in (rows, cols) if a.units != "pixel"]
        if all(low <= value <= high for value in metres):
            return "image"
    if "diffraction" in str(dig(as_mapping(signal.get("metadata")), "Signal", "signal_type") or "").lower():
        return "diffraction"
    original = as_mapping(signal.get("original_metadata"))
    velox_unit = normalise_unit(dig(original, "BinaryResult", "PixelUnitX"))
    if not units and is_real_space(velox_unit):
        return "image"
    modes = [dig(original, *tags, "Microscope Info", "Operation Mode") for tags in (_TAGS, _SOURCE_TAGS)]
    # the mode of scanned images says STEM or SCANNING, so that it never gets here for them
    return "diffraction" if "DIFFRACTION" in modes or is_reciprocal(velox_unit) else "unknown"


def _usable(axis: StackAxis) -> bool:
    return math.isfinite(axis.scale) and axis.scale != 0


def _inv_angstrom(axis: StackAxis, voltage_kv: float | None, length_mm: float | None) -> float | None:
    if not _usable(axis):
        return None
    if axis.units == "cm" and voltage_kv and length_mm:
        return screen_to_inv_angstrom(axis.scale * 10, length_mm, voltage_kv)
    return to_inv_angstrom(axis.scale, axis.units, voltage_kv)


def _in_inv_angstrom(axis: StackAxis, size: float) -> StackAxis:
    """Turn angles, lengths on the screen and mixed units into 1/Å, given the size of a pixel [1/Å]."""
    offset = float(axis.offset * size / axis.scale)
    return replace(axis, units="1/angstrom", scale=float(size), offset=offset)


def _how_calibrated(
    axis: StackAxis, pixel_size: float, voltage_kv: float | None, length_mm: float | None
) -> str:
    """Say what an angle, or a length on the screen, became, and by which settings of the microscope."""
    settings = f"{voltage_kv:g} kV"
    if axis.units == "cm":
        settings += f" and a camera length of {length_mm:g} mm"
    return f"pixel size of {abs(axis.scale):.4g} {axis.units} turned to {pixel_size:.4g} 1/Å by {settings}"


def _why_uncalibrated(axis: StackAxis, voltage_kv: float | None, length_mm: float | None) -> str:
    told = f"pixel size of {axis.scale:.4g} {axis.units}"
    if axis.units in _ANGLES and not voltage_kv:
        return f"{told} needs the beam energy, which the file lacks: treated as uncalibrated"
    if axis.units == "cm" and not (voltage_kv and length_mm):
        return f"{told} on the screen needs beam energy and camera length, which the file lacks: uncalibrated"
    return f"{told} makes no sense, treated as uncalibrated"


def _uncalibrated(rows: StackAxis, cols: StackAxis) -> tuple[StackAxis, StackAxis]:
    """Drop units and scale but keep the ratio of the two, because binning may make pixels oblong."""
    same_unit = rows.units == cols.units
    ratio = abs(rows.scale / cols.scale) if rows.scale and cols.scale else math.nan
    if not same_unit or not (1 / _MAX_ASPECT < ratio < _MAX_ASPECT):
        ratio = 1.0
    scales = (max(ratio, 1.0), max(1 / ratio, 1.0))
    dropped = [
        replace(a, units="pixel", scale=s, offset=0.0) for a, s in zip((rows, cols), scales, strict=True)
    ]
    return dropped[0], dropped[1]


def _checked_offset(axis: StackAxis, notes: list[str]) -> StackAxis:
    if math.isfinite(axis.offset) and abs(axis.offset) <= _MAX_OFFSET_PIXELS * abs(axis.scale):
        return axis
    note = f"axis offset of {axis.offset:.4g} {axis.units} makes no sense, ignored"
    if note not in notes:
        notes.append(note)
    return replace(axis, offset=0.0)


def _candidates(
    signal: dict[str, Any], name: str, paths: list[tuple[tuple[str, ...], float]]
) -> Iterator[float]:
    """Yield what the file says about one setting, from the most to the least processed source."""
    value = dig(as_mapping(signal.get("metadata")), "Acquisition_instrument", "TEM", name)
    yield from _positive(value)
    original = as_mapping(signal.get("original_metadata"))
    for path, target in as_mapping(signal.get("mapping")).items():
        if str(target[0]).endswith(f".TEM.{name}"):
            yield from _positive(_apply(target[1], dig(original, *path.split("."))))
    for keys, factor in paths:
        for number in _positive(dig(original, *keys)):
            yield number * factor


def _apply(function: Any, value: object) -> object:
    if value is None or function is None:
        return value
    try:
        return function(value)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None  # a tag of an unexpected type is a missing tag


def _positive(value: object) -> Iterator[float]:
    number = _number(value, math.nan)
    if math.isfinite(number) and number > 0:
        yield number


def _number(value: object, default: float) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return default


def _sizes(axes: list[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(int(_number(axis.get("size"), -1)) for axis in axes)
