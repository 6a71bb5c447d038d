"""Reader, writer and sample data of the napari plugin: files and patterns to layer data and back.

Layers are in the units of the file, but for 1/Å, which become 1/nm. Calibrated diffraction patterns have the nominal
centre of the frame, pixel ``((n_rows - 1) / 2, (n_cols - 1) / 2)``, at the origin, so that distances from it read as |g|
for a centred beam; images keep the origin of their file, uncalibrated data count pixels. Nothing here loads napari.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.io.rosetta import PatternStack, StackAxis, read_stacks
from napari_sadp.io.spots_csv import write_spots as write_spot_list
from napari_sadp.report import contrast_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    LayerData = tuple[Any, dict[str, Any], str]

#: Formats that the plugin claims in napari: those of microscopes and their cameras, which napari itself does not open.
EXTENSIONS = (
    *(".dm3", ".dm4", ".emd", ".blo", ".mib", ".hspy", ".ser", ".emi"),
    *(".tvips", ".mrc", ".de5", ".app5", ".nxs", ".prz"),
)
#: Formats that `read_layers` opens too, and that are not claimed: napari opens files (and folders) of these names, and would ask
#: for every one of them which plugin is to do it, also for plain images. The *Identify* widget opens them.
MORE_EXTENSIONS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".h5", ".hdf5", ".npy", ".zspy")
#: Displayed intensity goes with the square root of the counts: weak spots beside strong ones.
DISPLAY_GAMMA = 0.5
#: Key of what the plugin keeps in the metadata of a layer.
METADATA_KEY = "sadp"

_SPOT_COLUMNS = ("m", "n", "g_inv_angstrom", "intensity", "snr")


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the function that reads a file, or None if it is not of a format that the plugin claims.

    Parameters
    ----------
    path : str or sequence of str
        One file, or several.

    Returns
    -------
    callable or None
        Function from the path to layer data.
    """
    paths = _as_list(path)
    if not paths or not all(isinstance(item, str | Path) for item in paths):
        return None
    return read_layers if all(Path(item).suffix.lower() in EXTENSIONS for item in paths) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Read one image layer for each two-dimensional signal of a file, or of several files.

    Parameters
    ----------
    path : str or sequence of str
        One file, or several, of any format that `napari_sadp.io.rosetta.read_stacks` knows.

    Returns
    -------
    list of LayerData
        Scans and series have their frames as leading axes, on disk until they are shown where the format allows it.

    Raises
    ------
    UnreadableFileError
        If a file cannot be read; the message is one line.
    """
    layers = []
    for item in _as_list(path):
        stacks = read_stacks(item)
        for number, stack in enumerate(stacks):
            name = Path(item).stem
            if len(stacks) > 1:
                name = f"{name} {stack.title or 'signal'} {number}"
            layers.append(layer_from_stack(stack, name))
    return layers


def layer_from_stack(stack: PatternStack, name: str, about: dict[str, Any] | None = None) -> LayerData:
    """Return the image layer of a stack.

    Parameters
    ----------
    stack : PatternStack
        Frames of one signal.
    name : str
        Name of the layer.
    about : dict, optional
        More for the metadata; plain values only.

    Returns
    -------
    LayerData
        Data as they are in the stack (numpy or dask), keywords, ``"image"``.

    Raises
    ------
    UnreadableFileError
        If one of the frames that set the contrast cannot be read.
    """
    axes = [_napari_axis(axis) for axis in stack.axes]
    centred = stack.pixel_size_inv_angstrom is not None and stack.kind != "image"
    translate = [
        -(axis.size - 1) / 2 * axis.scale
        if centred and i >= len(axes) - 2
        else (axis.offset if axis.units != "pixel" else 0.0)
        for i, axis in enumerate(axes)
    ]
    keywords = {
        "name": name,
        "scale": [axis.scale for axis in axes],
        "translate": translate,
        "units": [axis.units for axis in axes],
        "axis_labels": _axis_labels(axes),
        "colormap": "gray",
        "contrast_limits": _contrast_limits(stack),
        "gamma": 1.0 if stack.kind == "image" else DISPLAY_GAMMA,
        "metadata": {METADATA_KEY: _metadata(stack) | (about or {})},
    }
    return stack.data, keywords, "image"


def write_spots(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a points layer as a list of spots.

    Parameters
    ----------
    path : str
        The CSV file.
    data : (n, d) array-like of float
        Points; the last two columns are (row, col) [px], those before count the frames.
    meta : dict
        Keywords of the layer; its features become columns.

    Returns
    -------
    list of str
        The file written.
    """
    points = np.asarray(data, dtype=float)
    points = points.reshape(len(points), -1) if points.size else np.empty((0, 2))
    features = {str(key): np.asarray(values) for key, values in dict(meta.get("features", {})).items()}
    known = {key: features.pop(key) for key in _SPOT_COLUMNS if key in features}
    extra: dict[str, np.ndarray] = {}
    leading = points.shape[1] - 2
    for axis in range(leading):
        extra["frame" if leading == 1 else f"frame_{axis}"] = np.round(points[:, axis]).astype(int)
    reserved = {"row_px", "col_px", *_SPOT_COLUMNS, *extra}
    extra |= {
        key: values
        for key, values in features.items()
        if key not in reserved and values.shape == (len(points),)
    }
    nodes = [known.get("m"), known.get("n")]
    both = all(node is not None for node in nodes)
    written = write_spot_list(
        path,
        points[:, -2:],
        indices=np.column_stack(nodes) if both else None,
        indexed=np.asarray(extra["indexed"], dtype=bool) if both and "indexed" in extra else None,
        g_inv_angstrom=known.get("g_inv_angstrom"),
        intensity=known.get("intensity"),
        snr=known.get("snr"),
        extra=extra,
    )
    return [str(written)]


# ---- sample data: one function for each menu entry ---------------------------------------------------------------


def sample_si() -> list[LayerData]:
    """Return patterns of silicon, group 227, on four zone axes."""
    return [sample_layer("si")]


def sample_al() -> list[LayerData]:
    """Return patterns of aluminium, group 225, on four zone axes."""
    return [sample_layer("al")]


def sample_fe() -> list[LayerData]:
    """Return patterns of bcc iron, group 229, on four zone axes."""
    return [sample_layer("fe")]


def sample_cscl() -> list[LayerData]:
    """Return patterns of caesium chloride, group 221, on four zone axes."""
    return [sample_layer("cscl")]


def sample_srsi2() -> list[LayerData]:
    """Return patterns of strontium disilicide, group 213, on four zone axes."""
    return [sample_layer("srsi2")]


def sample_layer(key: str) -> LayerData:
    """Return a simulated stack of zone-axis patterns as a layer.

    Parameters
    ----------
    key : str
        A key of `napari_sadp.samples.SAMPLES`.

    Returns
    -------
    LayerData
        (n_zones, 256, 256) counts of uint16, calibrated; the metadata say how they were made.
    """
    from napari_sadp.labels.spacegroups import symbol
    from napari_sadp.samples import SAMPLE_ZONES, SAMPLES, sample_stack

    sample, zones = SAMPLES[key], SAMPLE_ZONES
    patterns = sample_stack(sample, zones)
    first = patterns[0]
    size = first.pixel_size_inv_angstrom
    name = f"{sample.formula}, {len(zones)} zone axes, simulated, {first.voltage_kv:g} kV"
    pixels = (
        StackAxis(label, n, "1/nm", 10 * size) for label, n in zip(("row", "col"), first.shape, strict=True)
    )
    stack = PatternStack(
        np.stack([pattern.data for pattern in patterns]).astype(np.uint16),
        pixel_size_inv_angstrom=size,
        axes=(StackAxis("zone axis", len(zones)), *pixels),
        voltage_kv=first.voltage_kv,
        kind="diffraction",
        source=name,
        notes=tuple(dict.fromkeys(note for pattern in patterns for note in pattern.notes)),
    )
    about = {
        "formula": sample.formula,
        "space_group": f"{sample.space_group} {symbol(sample.space_group)}",
        "zone_axes": [list(zone) for zone in zones],
        "seed": sample.seed,
    }
    return layer_from_stack(stack, name, about)


# ---- parts -------------------------------------------------------------------------------------------------------


def _as_list(path: Any) -> list[Any]:
    if isinstance(path, str | Path):
        return [path]
    return list(path) if isinstance(path, list | tuple) else []


def _napari_axis(axis: StackAxis) -> StackAxis:
    """Return an axis whose unit napari can parse and whose scale it can draw."""
    if not np.isfinite(axis.scale) or axis.scale == 0:
        return StackAxis(axis.name, axis.size)
    if axis.units == "1/angstrom":
        # pint counts 1/Å in powers of a thousand: the scale bar would read "750 1/kÅ"
        return replace(axis, units="1/nm", scale=10 * axis.scale, offset=10 * axis.offset)
    return axis if _parsable(axis.units) else replace(axis, units="pixel", offset=0.0)


@lru_cache(maxsize=64)
def _parsable(unit: str) -> bool:
    import pint  # napari parses units with it

    if unit in ("", "px"):  # which pint takes for no unit, and for the pixel of style sheets
        return False
    try:
        pint.get_application_registry().Unit(unit)
    except (pint.errors.PintError, ValueError, TypeError, AttributeError, AssertionError):
        return False
    return True


def _axis_labels(axes: Sequence[StackAxis]) -> tuple[str, ...]:
    """Name the axes: rows and columns always so, the others as the file calls them."""
    leading = len(axes) - 2
    labels = []
    for i, axis in enumerate(axes[:leading]):
        label = axis.name or ("frame" if leading == 1 else f"frame {i}")
        labels.append(label if label not in (*labels, "row", "col") else f"{label} {i}")
    return (*labels, "row", "col")


def _contrast_limits(stack: PatternStack) -> tuple[float, float]:
    """Return limits that suit the first, the middle and the last frame; no other frame is loaded."""
    frames = [stack[i] for i in sorted({0, len(stack) // 2, len(stack) - 1})]
    limits = [contrast_limits(frame.data, frame.mask) for frame in frames]
    return min(low for low, _ in limits), max(high for _, high in limits)


def _metadata(stack: PatternStack) -> dict[str, Any]:
    return {
        "path": stack.source,
        "title": stack.title,
        "kind": stack.kind,
        "pixel_size_inv_angstrom": stack.pixel_size_inv_angstrom,
        "voltage_kv": stack.voltage_kv,
        "camera_length_mm": stack.camera_length_mm,
        "stage_deg": None if stack.stage_deg is None else list(stack.stage_deg),
        "notes": list(stack.notes),
    }
