"""Which spots get their Miller indices written beside them. Numbers and text only."""

from __future__ import annotations

import numpy as np

#: Width of a character and height of a line over the font size of the canvas [px/pt], measured on napari's font.
CHARACTER, LINE = 0.82, 1.5
_MARGIN = 1.1


def hkl_labels(hkl: np.ndarray) -> np.ndarray:
    """Return ``"-2 2 0"`` for each row of (n, 3) Miller indices, shape (n,) of str.

    Signs stand before the indices: the font of the viewer draws no overbars, it would show ``220`` for them.
    """
    return np.array([" ".join(map(str, row)) for row in np.asarray(hkl).tolist()], dtype=object)


def choose_labels(
    rc: np.ndarray, intensity: np.ndarray, texts: np.ndarray, *, count: int, font_size: float, zoom: float
) -> np.ndarray:
    """Choose the spots to label: the strongest whose labels do not overlap on the screen.

    Parameters
    ----------
    rc : (n, 2) ndarray of float
        Positions (row, col) [px].
    intensity : (n,) ndarray of float
        Intensities.
    texts : (n,) ndarray of str
        Labels, centred over each spot.
    count : int
        At most so many.
    font_size : float
        Size of the font [pt].
    zoom : float
        Pixels of the screen for one pixel of the pattern.

    Returns
    -------
    (n,) ndarray of bool
        True for the labelled ones.
    """
    width = CHARACTER * font_size * np.array([len(text) for text in texts]) / zoom * _MARGIN
    height = LINE * font_size / zoom * _MARGIN
    chosen = np.zeros(len(rc), dtype=bool)
    taken: list[int] = []
    # rounded, so that equal spots come in one order; the inner ones first
    distance = np.hypot(*(rc - rc.mean(axis=0)).T) if len(rc) else np.empty(0)
    for i in np.lexsort((distance.round(3), -np.round(intensity, 6))):
        if len(taken) == count:
            break
        near = np.abs(rc[taken] - rc[i])
        if not ((near[:, 0] < height) & (near[:, 1] < 0.5 * (width[taken] + width[i]))).any():
            taken.append(int(i))
    chosen[taken] = True
    return chosen
