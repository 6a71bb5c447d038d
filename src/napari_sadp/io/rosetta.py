"""Microscope files into `DiffractionPattern` values, by RosettaSciIO.

Two levels: `read_stacks` gives every two-dimensional signal of a file with its frames left on disk where the format
allows it; `read_patterns` loads all frames. Units are those of `napari_sadp._units`; what a file says and cannot be
true is dropped with a note. Axis offsets are never used for the direct beam: files put the nominal image centre, the
corner, or nonsense there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.errors import UnreadableFileError
from napari_sadp.pattern import DiffractionPattern, PatternKind

from . import _meta, _pixels
from ._load import as_mapping, dig, load, one_line, quiet
from ._meta import StackAxis
from ._slabs import slabs

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

__all__ = ["PatternStack", "StackAxis", "read_patterns", "read_stacks", "stack_from_signal"]

_MIN_SIDE = 2
_COLOUR_PLUGINS = {"Image", "TIFF", "numpy"}


@dataclass(frozen=True, eq=False)
class PatternStack:
    """The frames of one signal of a file, with what is known about all of them.

    Parameters
    ----------
    data : (*navigation_shape, n_rows, n_cols) array-like
        Real intensities [counts], numpy or dask; as in the file, so pixels may be oblong (see `axis_scale`).
    pixel_size_inv_angstrom : float, optional
        Size of the square pixels of the *frames* that indexing gives [1/Å], None when uncalibrated.
    axes : tuple of StackAxis, optional
        One for each axis of `data`; pixels by default.
    voltage_kv : float, optional
        Accelerating voltage [kV].
    camera_length_mm : float, optional
        Camera length [mm].
    kind : {"diffraction", "image", "unknown"}
        What the file says that the data are.
    source : str
        Path of the file.
    title : str
        Name that the file gives to the signal, or ``""``.
    notes : tuple of str
        What was decided upon reading, for the user.
    first_frame : int
        Number of frames that stand before this stack in its file.
    stage_deg : tuple of 2 float, optional
        Tilts alpha and beta of the stage [deg].
    transposed : bool
        Whether rows and columns are axes that the file calls those of the scan.
    find_covers : bool
        Whether beam stops, margins and bars are looked for in its frames.

    Raises
    ------
    ValueError
        If the data have fewer than two axes, or `axes` do not fit their shape.
    """

    data: Any
    pixel_size_inv_angstrom: float | None = None
    axes: tuple[StackAxis, ...] = ()
    voltage_kv: float | None = None
    camera_length_mm: float | None = None
    kind: PatternKind = "unknown"
    source: str = ""
    title: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)
    first_frame: int = 0
    stage_deg: tuple[float, float] | None = None
    transposed: bool = False
    find_covers: bool = True

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.data.shape)
        if len(shape) < 2:
            raise ValueError(f"data has shape {shape}, expected (*navigation, rows, cols)")
        axes = tuple(self.axes) or tuple(StackAxis("", size) for size in shape)
        if tuple(axis.size for axis in axes) != shape:
            raise ValueError(f"axes have sizes {tuple(axis.size for axis in axes)}, expected {shape}")
        object.__setattr__(self, "axes", axes)

    @property
    def navigation_shape(self) -> tuple[int, ...]:
        """Shape of the scan or series; empty for a single frame."""
        return tuple(int(n) for n in self.data.shape[:-2])

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame in the file [px]."""
        rows, cols = self.data.shape[-2:]
        return int(rows), int(cols)

    @property
    def axis_units(self) -> str:
        """Unit of rows and columns, normalised: a reciprocal unit, a length for images, or ``"pixel"``."""
        rows, cols = self.axes[-2:]
        return rows.units if rows.units == cols.units else "pixel"

    @property
    def axis_scale(self) -> tuple[float, float]:
        """Size of a pixel of `data` along rows and columns [`axis_units`]."""
        rows, cols = self.axes[-2:]
        return (rows.scale, cols.scale) if rows.units == cols.units else (1.0, 1.0)

    def __len__(self) -> int:
        return int(np.prod(self.navigation_shape, dtype=int))

    def __iter__(self) -> Iterator[DiffractionPattern]:
        if isinstance(self.data, np.ndarray):
            yield from (self[i] for i in range(len(self)))
            return
        # chunks of a file may span many frames: loading these one by one would read the file once for each
        done = 0
        for where in slabs(self.data.shape, self.data.chunks, self.data.dtype.itemsize):
            data = self._load(self.data[where], f"data from frame {done} on")
            axes = tuple(
                StackAxis(axis.name, n)
                for axis, n in zip(self.axes[-data.ndim : -2], data.shape, strict=False)
            )
            part = replace(
                self, data=data, axes=(*axes, *self.axes[-2:]), first_frame=self.first_frame + done
            )
            yield from (part[i] for i in range(len(part)))
            done += len(part)

    def __getitem__(self, index: int) -> DiffractionPattern:
        """Load one frame.

        Parameters
        ----------
        index : int
            Flat index in C order over `navigation_shape`; negative counts from the end.

        Returns
        -------
        DiffractionPattern
            With square pixels unless it is an image; `frame` is the index inside the file.

        Raises
        ------
        IndexError
            If there is no such frame.
        UnreadableFileError
            If the frame cannot be read from disk.
        """
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"frame {index} of a stack of {len(self)}")
        where = np.unravel_index(i, self.navigation_shape) if self.navigation_shape else ()
        frame = self._load(self.data[tuple(int(k) for k in where)], f"frame {i}")
        frame, notes = self._squared(frame)
        pattern = DiffractionPattern(
            frame,
            pixel_size_inv_angstrom=self.pixel_size_inv_angstrom,
            voltage_kv=self.voltage_kv,
            camera_length_mm=self.camera_length_mm,
            source=self.source,
            frame=self.first_frame + i,
            kind=self.kind,
            notes=(*self.notes, *notes),
            stage_deg=self.stage_deg,
        )
        return pattern if self.find_covers else pattern.with_given_covers()

    def _load(self, lazy: Any, what: str) -> np.ndarray:
        try:
            with quiet():
                return np.asarray(lazy)
        except Exception as error:  # lazy data fail like the reader behind them, with anything
            raise UnreadableFileError(
                f"{self.source}: {what} cannot be read ({one_line(error)}); the file was moved, is truncated or damaged"
            ) from error

    @property
    def oblong_scale(self) -> tuple[float, float] | None:
        """Size of a pixel along (row, col) where frames are resampled to square pixels, None where they are not."""
        rows, cols = self.axes[-2:]
        return (rows.scale, cols.scale) if self.kind != "image" and _meta.oblong(rows, cols) else None

    def _squared(self, frame: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        scale = self.oblong_scale
        if scale is None:
            return frame, ()
        squared = _pixels.resample_square(frame, *scale)
        note = (
            f"oblong pixels ({abs(scale[0]):.5g} x {abs(scale[1]):.5g} {self.axis_units}) resampled to square ones, "
            f"{frame.shape[0]}x{frame.shape[1]} to {squared.shape[0]}x{squared.shape[1]}; positions are in the square ones"
        )
        return squared, (note,)


def read_stacks(path: str | os.PathLike[str], *, lazy: bool = True) -> list[PatternStack]:
    """Read every two-dimensional signal of a microscope file.

    Parameters
    ----------
    path : path-like
        A file of any format that RosettaSciIO reads: dm3, dm4, emd (Velox and NCEM), hspy, blo, mib, emi, ser, tif,
        png, bmp, jpg and more.
    lazy : bool
        Whether frames stay on disk until they are asked for, where the format allows it.

    Returns
    -------
    list of PatternStack
        At least one; spectra are left out, and a note of the others says so.

    Raises
    ------
    UnreadableFileError
        If the file is missing, empty, damaged, of an unknown format, or holds no two-dimensional data. The message is
        one line.

    Examples
    --------
    >>> [stack] = read_stacks("scan.blo")  # doctest: +SKIP
    >>> stack.navigation_shape, stack[0].shape  # doctest: +SKIP
    ((3, 2), (144, 144))
    """
    path = Path(path)
    plugin, signals, heard = load(path, lazy)
    stacks: list[PatternStack] = []
    skipped: list[str] = []
    first = 0
    for number, signal in enumerate(signals):
        try:
            with quiet():
                found = _stack(signal, plugin, str(path))
        except Exception as error:  # a damaged file may give dictionaries of any content
            raise UnreadableFileError(
                f"{path}: signal {number} makes no sense ({one_line(error)}); the file is damaged or of an unknown variant"
            ) from error
        if isinstance(found, str):
            skipped.append(f"signal {number} left out: {found}")
            continue
        stacks.append(replace(found, first_frame=first))
        first += len(found)
    if not stacks:
        raise UnreadableFileError(f"{path}: holds no two-dimensional data ({'; '.join(skipped)})")
    extra = (*heard, *skipped)
    return [replace(stack, notes=(*stack.notes, *extra)) for stack in stacks]


def read_patterns(path: str | os.PathLike[str]) -> list[DiffractionPattern]:
    """Read all frames of all diffraction patterns of a microscope file into memory.

    Parameters
    ----------
    path : path-like
        See `read_stacks`.

    Returns
    -------
    list of DiffractionPattern
        Signals of kind "image" are left out, unless the file holds nothing else: then they are returned, so that the
        caller refuses them by their reason.

    Raises
    ------
    UnreadableFileError
        See `read_stacks`.
    """
    stacks = read_stacks(path)
    wanted = [stack for stack in stacks if stack.kind != "image"] or stacks
    if len(wanted) < len(stacks):
        note = f"{len(stacks) - len(wanted)} of {len(stacks)} signals of the file are images in real space, left out"
        wanted = [replace(stack, notes=(*stack.notes, note)) for stack in wanted]
    return [pattern for stack in wanted for pattern in stack]


def stack_from_signal(signal: dict[str, Any], source: str = "") -> PatternStack:
    """Return the frames of a signal that is in memory, as RosettaSciIO or HyperSpy describe one.

    Parameters
    ----------
    signal : dict
        With ``data``, ``axes`` (one dictionary for each axis of the data) and ``metadata``.
    source : str
        Path or name, for messages.

    Returns
    -------
    PatternStack
        The frames, calibrated by the same rules as those of a file.

    Raises
    ------
    ValueError
        If the signal holds no frames of real numbers.
    """
    found = _stack(signal, "", source)
    if isinstance(found, str):
        raise ValueError(f"signal {source or 'in memory'} cannot be used: {found}")
    return found


def _stack(signal: dict[str, Any], plugin: str, source: str) -> PatternStack | str:
    """Return one signal as a stack, or the reason why it is none."""
    # a signal in memory, such as HyperSpy's, keeps the tags of the file that it came from
    gatan = plugin == "DigitalMicrograph" or "ImageList" in as_mapping(signal.get("original_metadata"))
    data, notes = _pixels.to_real(signal["data"], unsigned_bytes=gatan)
    if data is None:
        return f"its values are no numbers (type {signal['data'].dtype})"
    if data.ndim < 2 or _meta.is_spectrum(signal) or len(signal.get("post_process") or ()) > 1:
        return "spectra"
    raw_axes = list(signal.get("axes") or ())
    if plugin in _COLOUR_PLUGINS and _pixels.last_axis_is_colour(data.shape, data.dtype):
        data = _pixels.colour_to_grey(data)
        raw_axes = raw_axes[:-1]
        notes = [*notes, "colour image turned to grey"]
    axes, navigate = _meta.read_axes(raw_axes, tuple(int(n) for n in data.shape))
    chosen, axes_notes, chosen_by_units = _meta.signal_axes(axes, navigate)
    if chosen is None:
        return "spectra"
    if min(axes[i].size for i in chosen) < _MIN_SIDE:
        return f"{axes[chosen[0]].size} x {axes[chosen[1]].size} pixels are no image"
    # scans of one frame lose that axis, so that a single pattern has an empty navigation shape
    others = [i for i in range(len(axes)) if i not in chosen]
    data = data.transpose([*others, *chosen])
    dropped = tuple(k for k, i in enumerate(others) if axes[i].size == 1)
    data = data.squeeze(axis=dropped) if dropped else data
    if 0 in data.shape:
        return "no frames"
    voltage, voltage_notes = _meta.beam_energy_kv(signal)
    length, length_notes = _meta.camera_length_mm(signal)
    size, kind, rows, cols, axis_notes = _meta.calibrate(
        axes[chosen[0]], axes[chosen[1]], signal, voltage, length
    )
    return PatternStack(
        data,
        pixel_size_inv_angstrom=size,
        axes=(*(_meta.navigation_axis(axes[i]) for i in others if axes[i].size != 1), rows, cols),
        voltage_kv=voltage,
        camera_length_mm=length,
        kind=kind,
        source=source,
        title=str(dig(as_mapping(signal.get("metadata")), "General", "title") or ""),
        notes=(*signal.get("notes", ()), *notes, *axes_notes, *voltage_notes, *length_notes, *axis_notes),
        stage_deg=_meta.stage_deg(signal),
        transposed=chosen_by_units,
    )
