"""Weak spots between the strong ones: a finer lattice that the spot search did not see.

Where an ordered crystal looks nearly like its subcell, the spots that tell are a hundred times weaker than their neighbours. One by
one they drown; but a finer lattice says where all of them are, and inversion through the direct beam that they come in pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry._meter import MIN_LIVE, SpotMeter, nodes_in_view, profile_spots
from napari_sadp.geometry._search import finer_lattices, reduce_basis

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice

#: Largest index of a lattice in the finer one, in one step.
_MAX_INDEX = 3
#: Shortest vector over the size of a spot: closer ones run into each other.
_LEAST_GAP = 2.0
#: Signal to noise ratio of both spots of a pair together, and of each.
_PAIR, _EACH = 5.0, 2.0
#: Of each spot of two pairs that are enough where nothing contradicts them.
_SURE = 5.5
_BRIGHT, _NEGATIVE = 5.0, -4.0
#: Difference in distance from the beam, relative, from which a ring cannot be what two pairs show.
_NO_RING = 0.08


def finer_basis(prepared: PreparedImage, lattice: SpotLattice, reach_px: float) -> np.ndarray | None:
    """Return the basis of a finer lattice that the pattern shows although the spot search missed its weak spots.

    Intensities are measured at the nodes that each finer lattice of index 2 and 3 would add, one after the other until none is
    left that shows more spots than texture would.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        Lattice with the direct beam as origin.
    reach_px : float
        Nodes are asked to this distance from the direct beam [px].

    Returns
    -------
    (2, 2) ndarray of float64 or None
        Rows are the vectors [px]; None where nothing is added.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    search = _Search(prepared, lattice, reach_px)
    found = None
    for _ in range(3):
        best, most = None, 0.0
        for _, finer in finer_lattices(basis, _MAX_INDEX):
            finer = reduce_basis(finer)
            if np.linalg.norm(finer[0]) < max(_LEAST_GAP * lattice.spots.sigma_px, 4.0):
                continue
            evidence = search.evidence(basis, finer)
            if evidence > most:
                best, most = finer, evidence
        if best is None:
            break
        found = basis = best
    return found


class _Search:
    """A pattern and what is known of its spots, to be asked for weak ones."""

    def __init__(self, prepared: PreparedImage, lattice: SpotLattice, reach_px: float) -> None:
        self.prepared, self.beam_rc, self.reach = prepared, lattice.beam_rc, reach_px
        self.sigma = lattice.spots.sigma_px
        self.strong = profile_spots(lattice)
        self.meters: dict[int, SpotMeter] = {}

    def _meter(self, half_gap: float) -> SpotMeter:
        """Return what measures spots that have so much room; one for all lattices of about the same spacing."""
        step = int(np.floor(4 * half_gap / self.sigma))
        if step not in self.meters:
            meter = SpotMeter(self.prepared, self.prepared.mask, self.sigma, step * self.sigma / 4)
            meter.learn_profile(self.strong)
            self.meters[step] = meter
        return self.meters[step]

    def _added_nodes(self, basis: np.ndarray, finer: np.ndarray) -> np.ndarray:
        """Return the nodes that a finer lattice adds (n, 2)."""
        indices = nodes_in_view(self.beam_rc, finer, self.prepared.mask.shape)
        old = np.round(indices @ finer @ np.linalg.inv(basis), 6)
        distance = np.linalg.norm(indices @ finer, axis=1)
        keep = (distance <= self.reach) & (distance > 3 * self.sigma)
        return indices[keep & np.any(np.abs(old - np.round(old)) > 1e-3, axis=1)]

    def evidence(self, basis: np.ndarray, finer: np.ndarray) -> float:
        """Return the sum of what the pairs of nodes show that a finer lattice adds, 0 where it may be texture."""
        indices = self._added_nodes(basis, finer)
        if len(indices) < 6:
            return 0.0
        meter = self._meter(0.5 * float(np.linalg.norm(finer[0])))
        intensity, error, live = meter.measure(self.beam_rc + indices @ finer)
        known = (live >= MIN_LIVE) & np.isfinite(error)
        score = np.full(len(indices), np.nan)
        score[known] = intensity[known] / error[known]
        return _evidence(score, indices, finer)


def _evidence(score: np.ndarray, indices: np.ndarray, finer: np.ndarray) -> float:
    """Return the sum over pairs of opposite nodes from the signal to noise ratio of each (n,), 0 where it may be texture."""
    if np.any(score < 0):
        score = score / max(1.0, 1.4826 * float(np.nanmedian(np.abs(score[score < 0]))))
    number = {tuple(node): row for row, node in enumerate(indices.tolist())}
    rows = [(row, number[-m, -n]) for (m, n), row in number.items() if (m, n) > (0, 0) and (-m, -n) in number]
    rows = np.array(rows, dtype=int).reshape(-1, 2)
    rows = rows[np.isfinite(score[rows]).all(axis=1)]
    pairs, distance = score[rows], np.linalg.norm(indices[rows[:, 0]] @ finer, axis=1)
    both = pairs.sum(axis=1) / np.sqrt(2)
    shown = (both > _PAIR) & (pairs.min(axis=1) > _EACH)
    dark = (both < -_PAIR) & (pairs.max(axis=1) < -_EACH)
    values = score[np.isfinite(score)]
    bright, negative = np.count_nonzero(values > _BRIGHT), np.count_nonzero(values < _NEGATIVE)
    # mates of bright ones that are bright themselves; what is bright on one side only is no spot of this lattice
    mates = pairs[pairs.max(axis=1) > _BRIGHT].min(axis=1)
    if len(mates) < 2 or np.mean(mates > 2.5) <= 0.7:
        return 0.0
    many = bright >= max(5, 5 * negative, 0.1 * len(values))
    many |= np.count_nonzero(shown) >= max(3, 3 * np.count_nonzero(dark), 0.05 * len(pairs))
    # few are enough where they are beyond doubt, and no ring
    sure = pairs.min(axis=1) > _SURE
    apart = np.count_nonzero(sure) >= 2 and np.ptp(distance[sure]) > _NO_RING * distance[sure].min()
    return float(both[shown].sum()) if many or (apart and not negative) else 0.0
