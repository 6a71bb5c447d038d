"""The functions that signal methods map over frames: one array in, one array out, no HyperSpy.

`kind` and `scale` are what the signal's axes say, so that a map and `identify` see the same pattern: an image is refused, oblong
pixels are resampled, and positions are in px of the square frame.
"""

from __future__ import annotations

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.convention import to_training_image
from napari_sadp.io._pixels import resample_square
from napari_sadp.pattern import DiffractionPattern, PatternKind

#: Columns of the lattice signal; a refused frame has nan everywhere but in n_spots.
LATTICE_COLUMNS: tuple[str, ...] = (
    "beam_row_px", "beam_col_px", "g1_row_px", "g1_col_px", "g2_row_px", "g2_col_px",
    "ratio", "angle_deg", "rms_px", "n_spots",
)  # fmt: skip


def _pattern(frame: np.ndarray, kind: PatternKind, scale: tuple[float, float] | None) -> DiffractionPattern:
    """Return a frame as the package's own value; `scale` is that of oblong pixels, None for square ones."""
    return DiffractionPattern(frame if scale is None else resample_square(frame, *scale), kind=kind)


def lattice_row(
    frame: np.ndarray, *, kind: PatternKind, scale: tuple[float, float] | None, **options: object
) -> np.ndarray:
    """Return the values of `LATTICE_COLUMNS` for one frame (n_rows, n_cols)."""
    row = np.full(len(LATTICE_COLUMNS), np.nan)
    try:
        lattice = analyse_pattern(_pattern(frame, kind, scale), **options).lattice
    except PatternRefusedError:
        row[-1] = 0
        return row
    row[:6] = np.concatenate([lattice.beam_rc, lattice.g1_px, lattice.g2_px])
    row[6:] = lattice.ratio, lattice.angle_deg, lattice.rms_px, lattice.n_spots
    return row


def beam_row(
    frame: np.ndarray, *, kind: PatternKind, scale: tuple[float, float] | None, **options: object
) -> np.ndarray:
    """Return the direct beam (row, col) [px] of one frame, also of refused ones where it was found, else nan."""
    try:
        return np.asarray(analyse_pattern(_pattern(frame, kind, scale), **options).beam.rc, dtype=float)
    except PatternRefusedError as refusal:
        return np.full(2, np.nan) if refusal.beam is None else np.asarray(refusal.beam.rc, dtype=float)


def training_image(
    frame: np.ndarray,
    *,
    kind: PatternKind,
    scale: tuple[float, float] | None,
    conversion: str,
    size: int,
    **options: object,
) -> np.ndarray:
    """Return one frame in the image convention, zeros where it is refused."""
    try:
        geometry = analyse_pattern(_pattern(frame, kind, scale), **options)
    except PatternRefusedError:
        return np.zeros((size, size), dtype=np.float32)
    return to_training_image(geometry.image, geometry.lattice, conversion=conversion, size=size).data


def class_row(
    frame: np.ndarray,
    *,
    kind: PatternKind,
    scale: tuple[float, float] | None,
    weights: str | None,
    device: str,
    n_classes: int,
    **options: object,
) -> np.ndarray:
    """Return the class probabilities of one frame and, last, that of none of them; nan where it is refused."""
    from napari_sadp.identify import identify_pattern
    from napari_sadp.models.predict import load_classifier

    result = identify_pattern(_pattern(frame, kind, scale), load_classifier(weights, device), **options)
    if result.class_probabilities is None:
        return np.full(n_classes + 1, np.nan)
    return np.append((1 - result.none_of_these) * result.class_probabilities, result.none_of_these)
