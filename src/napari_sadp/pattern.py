"""The value that every step after reading works on: one diffraction pattern with what is known about it.

Coordinates are (row, col) [px] with integers at pixel centres, row 0 first in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Literal

import numpy as np

PatternKind = Literal["diffraction", "image", "unknown"]


#: Counts beyond this are those of a damaged file; float32 holds the squares of all others [counts].
_LARGEST = 1e18
#: Largest whole number up to which float32 tells every count from the next [counts].
_EXACT = 2**24
#: Share of the pixels that lie above half of the middle one where all stand on an offset.
_ON_OFFSET = 0.9


@dataclass(frozen=True, eq=False)
class DiffractionPattern:
    """One two-dimensional diffraction pattern.

    Parameters
    ----------
    data : (n_rows, n_cols) ndarray of float32
        Intensities [counts], square pixels. Values that are not finite, or beyond 1e18, are 0 and belong into `mask`. Of wider types, an
        offset so large that float32 would round the counts above it is taken off, and a note says so.
    pixel_size_inv_angstrom : float, optional
        Size of a pixel [1/Å], None when uncalibrated.
    mask : (n_rows, n_cols) ndarray of bool, optional
        True where the data mean nothing (beam stop, dead or saturated pixels, margins); None when nothing is known.
    voltage_kv : float, optional
        Accelerating voltage [kV].
    camera_length_mm : float, optional
        Camera length [mm].
    source : str
        Path of the file, or a name.
    frame : int or None
        Flat index of the frame inside its file (0 for a single pattern); None stands for the file as a whole.
    kind : {"diffraction", "image", "unknown"}
        What the file says that the data are.
    notes : tuple of str
        What was decided on the way (calibration dropped, margins trimmed ...), for the user.
    stage_deg : tuple of 2 float, optional
        Tilts alpha and beta of the stage [deg], None when unknown.
    find_covers : bool
        Whether beam stops, margins and bars are looked for; if not, `mask` holds all of them.

    Raises
    ------
    ValueError
        If the data are not two-dimensional and real, or the mask has another shape.
    """

    data: np.ndarray
    pixel_size_inv_angstrom: float | None = None
    mask: np.ndarray | None = None
    voltage_kv: float | None = None
    camera_length_mm: float | None = None
    source: str = ""
    frame: int | None = 0
    kind: PatternKind = "unknown"
    notes: tuple[str, ...] = field(default_factory=tuple)
    stage_deg: tuple[float, float] | None = None
    find_covers: bool = True

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.ndim != 2 or data.dtype.kind not in "buif":
            raise ValueError(f"data has shape {data.shape} and type {data.dtype}, expected a real 2-D array")
        may_be_huge = data.dtype.kind == "f" or data.dtype.itemsize > 4
        wide = data
        with np.errstate(over="ignore"):  # what float32 cannot hold is masked as not finite
            data = data.astype(np.float32)
        bad = ~(np.abs(data) <= _LARGEST) if may_be_huge else None
        if wide.dtype.itemsize >= 4 and wide.dtype != np.float32 and (offset := _large_offset(wide, bad)):
            with np.errstate(over="ignore"):
                data = (wide - np.float64(offset)).astype(np.float32)
            note = f"an offset of {offset:.0f} counts was taken off"
            object.__setattr__(self, "notes", (*self.notes, note))
        mask = None if self.mask is None else np.asarray(self.mask, dtype=bool)
        if mask is not None and mask.shape != data.shape:
            raise ValueError(f"mask has shape {mask.shape}, expected that of the data {data.shape}")
        if bad is not None and bad.any():
            mask = bad if mask is None else mask | bad
            data[bad] = 0.0
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "mask", mask)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.data.shape

    @property
    def name(self) -> str:
        """File name and frame, for tables and messages."""
        name = PurePath(self.source).name or "pattern"
        return name if self.frame is None else f"{name}[{self.frame}]"

    def with_note(self, note: str, **changes: object) -> DiffractionPattern:
        """Return a copy with changed fields and one note more."""
        return replace(self, notes=(*self.notes, note), **changes)

    def with_given_covers(self) -> DiffractionPattern:
        """Return a copy in which nothing is masked but what `mask` holds, and a note that says so."""
        return self.with_note("beam stops, margins and bars are not looked for", find_covers=False)

    def with_pixel_size(self, pixel_size_inv_angstrom: float) -> DiffractionPattern:
        """Return a copy with a pixel size [1/Å] that the user knows, and a note that says so."""
        note = f"pixel size {pixel_size_inv_angstrom:g} 1/Å as given"
        return self.with_note(note, pixel_size_inv_angstrom=pixel_size_inv_angstrom)


def _large_offset(data: np.ndarray, bad: np.ndarray | None) -> float:
    """Return the offset that most of the pixels stand on, where float32 would not hold the counts above it; else 0 [counts].

    Dead pixels and margins may be far below it, and hot ones and the direct beam far above, so that it is the smallest of the values
    above half of the middle one. Integers as large as their type allows stand for no value.
    """
    values = data.ravel() if bad is None or not bad.any() else data[~bad]
    if data.dtype.kind in "ui":
        values = values[values != np.iinfo(data.dtype).max]
    if 2 * len(values) <= data.size:
        return 0.0
    middle = float(np.median(values))
    if middle <= _EXACT:
        return 0.0
    above = values[values > middle / 2]
    # without an offset dark places are far below the middle
    return float(above.min()) if len(above) > _ON_OFFSET * len(values) else 0.0
