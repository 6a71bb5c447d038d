"""A pattern without its faintest spots: what a camera of less dynamic range would have shown."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.geometry.lattice import refit_spots
from napari_sadp.geometry.refine import refine_lattice
from napari_sadp.labels.lattice2d import span

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import PatternGeometry


def without_faint(found: PatternGeometry, faintest: float) -> PatternGeometry:
    """Return the geometry of a pattern whose spots below a share of the strongest diffracted beam do not count.

    Weak spots tell an ordered crystal from its subcell, but double diffraction makes them too, and literature that calls a
    reflection absent seldom says down to which intensity. The lattice of the spots that are left may be coarser.

    Parameters
    ----------
    found : PatternGeometry
        What `analyse_pattern` found.
    faintest : float
        Intensity of the weakest spot that counts over that of the strongest diffracted beam, 0 to 0.5.

    Returns
    -------
    PatternGeometry
        The same where no spot is that faint, or the others span no lattice.

    Raises
    ------
    ValueError
        If `faintest` is out of range.
    """
    check_range("faintest", faintest, 0.0, 0.5)
    if faintest == 0:
        return found
    nodes, lattice = found.nodes, found.lattice
    shown = nodes.present & (np.isfinite(nodes.intensity) | (nodes.presence >= 0.9))
    known = shown & np.isfinite(nodes.intensity)
    if not known.any():
        return found
    least = faintest * float(nodes.intensity[known].max())
    # a saturated spot has no intensity, but is not faint
    faint = known & (nodes.intensity < least)
    if not faint.any():
        return found
    rest = span(nodes.indices[shown & ~faint])
    if rest is None:
        return found
    gone = {tuple(node) for node in nodes.indices[faint].tolist()}
    keep = np.array(
        [
            not use or tuple(node) not in gone
            for node, use in zip(lattice.indices.tolist(), lattice.indexed, strict=True)
        ],
        dtype=bool,
    )
    # spots on no node count by their own intensity
    strongest = lattice.spots.intensity[lattice.indexed & np.any(lattice.indices != 0, axis=1)]
    keep &= lattice.indexed | (lattice.spots.intensity >= faintest * strongest.max(initial=0.0))
    basis = rest.astype(float) @ np.stack([lattice.g1_px, lattice.g2_px])
    coarser = refit_spots(lattice, keep, basis)
    if coarser is None:
        return found
    prepared = found.prepared
    coarser = refine_lattice(prepared, coarser, move=False)
    # the height of the weakest that counts: all spots of a pattern have one profile
    height = faintest * _strongest_pixel(found, nodes.rc[known & ~faint])
    signal = np.where(prepared.signal < height, np.float32(0), prepared.signal)
    n = int(np.count_nonzero(faint))
    note = (
        f"left out {n} spot{'s' * (n > 1)} fainter than {100 * faintest:g} % of the strongest diffracted beam"
    )
    return replace(
        found,
        spots=coarser.spots,
        lattice=coarser,
        prepared=replace(prepared, signal=signal.astype(np.float32)),
        notes=(*found.notes, note),
    )


def _strongest_pixel(found: PatternGeometry, rc: np.ndarray) -> float:
    """Return the height of the strongest diffracted beam above the background [counts]."""
    signal = found.prepared.signal
    row, col = np.clip(np.round(rc).astype(int), 1, np.array(signal.shape) - 2).T
    around = [signal[row + i, col + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return float(np.max(around, initial=0.0))
