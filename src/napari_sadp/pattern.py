"""The value that every step after reading works on: one diffraction pattern with what is known about it.

Coordinates are (row, col) [px] with integers at pixel centres, row 0 first in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Literal

import numpy as np

PatternKind = Literal["diffraction", "image", "unknown"]


@dataclass(frozen=True, eq=False)
class DiffractionPattern:
    """One two-dimensional diffraction pattern.

    Parameters
    ----------
    data : (n_rows, n_cols) ndarray of float32
        Intensities [counts], square pixels. Not finite values belong into `mask`.
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
    frame : int
        Flat index of the frame inside its file (0 for a single pattern).
    kind : {"diffraction", "image", "unknown"}
        What the file says that the data are.
    notes : tuple of str
        What was decided on the way (calibration dropped, margins trimmed ...), for the user.

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
    frame: int = 0
    kind: PatternKind = "unknown"
    notes: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.ndim != 2 or data.dtype.kind not in "buif":
            raise ValueError(f"data has shape {data.shape} and type {data.dtype}, expected a real 2-D array")
        bad = ~np.isfinite(data) if data.dtype.kind == "f" else None
        data = data.astype(np.float32)
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
        return f"{PurePath(self.source).name or 'pattern'}[{self.frame}]"

    def with_note(self, note: str, **changes: object) -> DiffractionPattern:
        """Return a copy with changed fields and one note more."""
        return replace(self, notes=(*self.notes, note), **changes)
