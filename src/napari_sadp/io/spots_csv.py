"""Spot lists as CSV: one line a spot, columns with units in their names, written as a whole or not at all.

Columns come in the order ``row_px, col_px, m, n, g_inv_angstrom, intensity, snr``, then the caller's own; those that
are not known are left out. An empty cell means unknown (a spot off the lattice has no m and n).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.errors import UnreadableFileError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike


def write_spots(
    path: str | os.PathLike[str],
    rc: ArrayLike,
    *,
    indices: ArrayLike | None = None,
    indexed: ArrayLike | None = None,
    g_inv_angstrom: ArrayLike | None = None,
    intensity: ArrayLike | None = None,
    snr: ArrayLike | None = None,
    extra: Mapping[str, ArrayLike] | None = None,
) -> Path:
    """Write a list of spots.

    Parameters
    ----------
    path : path-like
        The CSV file; replaced only once the new one is complete.
    rc : (n, 2) array-like of float
        Positions (row, col) [px].
    indices : (n, 2) array-like of int, optional
        Lattice node (m, n) of each spot.
    indexed : (n,) array-like of bool, optional
        Where `indices` mean something; everywhere by default.
    g_inv_angstrom : (n,) array-like of float, optional
        Distance from the direct beam [1/Å].
    intensity : (n,) array-like of float, optional
        Integrated intensity [counts].
    snr : (n,) array-like of float, optional
        Signal to noise ratio.
    extra : mapping of str to (n,) array-like, optional
        Further columns.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If a column has another length than `rc`, or an extra column takes a name twice.
    OSError
        If the file cannot be written.
    """
    positions = (
        np.asarray(rc, dtype=float).reshape(-1, 2) if np.size(rc) == 0 else np.asarray(rc, dtype=float)
    )
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f"rc has shape {positions.shape}, expected (n, 2)")
    count = len(positions)
    columns: dict[str, np.ndarray] = {"row_px": positions[:, 0], "col_px": positions[:, 1]}
    if indices is not None:
        nodes = np.asarray(indices).reshape(-1, 2)
        known = np.ones(len(nodes), dtype=bool) if indexed is None else np.asarray(indexed, dtype=bool)
        if len(nodes) != count or known.shape != (count,):
            raise ValueError(
                f"indices and indexed have {len(nodes)} and {known.size} entries, expected {count}"
            )
        for k, name in enumerate("mn"):
            columns[name] = np.where(known, nodes[:, k], np.nan)
    measured = {"g_inv_angstrom": g_inv_angstrom, "intensity": intensity, "snr": snr}
    columns |= {name: np.asarray(values) for name, values in measured.items() if values is not None}
    for name, values in (extra or {}).items():
        if name in columns:
            raise ValueError(f"extra has a column {name!r}, which the list has already")
        columns[name] = np.asarray(values)
    for name, values in columns.items():
        if values.shape != (count,):
            raise ValueError(f"column {name} has shape {values.shape}, expected ({count},)")
    with atomic_write(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(map(_cell, values.tolist()) for values in columns.values()), strict=True))
    return Path(path)


def read_spots(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a list of spots.

    Parameters
    ----------
    path : path-like
        A CSV file as `write_spots` gives it; columns may be missing but for ``row_px`` and ``col_px``.

    Returns
    -------
    dict of str to (n,) ndarray
        Columns; float with NaN for empty cells where all cells are numbers, otherwise str.

    Raises
    ------
    UnreadableFileError
        If the file is missing, is no spot list, or has ragged lines.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path}: cannot be read as a spot list ({error})") from error
    lines = [line for line in csv.reader(text.splitlines()) if line]
    header = [name.strip() for name in lines[0]] if lines else []
    if not {"row_px", "col_px"} <= set(header) or len(set(header)) != len(header):
        raise UnreadableFileError(
            f"{path}: is no spot list, expected a header with the columns row_px and col_px"
        )
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise UnreadableFileError(f"{path}: line {number} has {len(line)} cells, expected {len(header)}")
    return {name: _column([line[k] for line in lines[1:]]) for k, name in enumerate(header)}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if not np.isfinite(value) else format(value, ".10g")
    return str(value)


def _column(cells: Sequence[str]) -> np.ndarray:
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells], dtype=float)
    except ValueError:
        return np.array(cells, dtype=str)
