"""Weak spots between the strong ones: a finer lattice that the spot search did not see.

Where an ordered crystal looks nearly like its subcell, the spots that tell are a hundred times weaker than their neighbours. One by
one they drown; but a finer lattice says where all of them are, and inversion through the direct beam that they come in pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry._meter import MIN_LIVE, REACH, SpotMeter, meter_of, nodes_in_view
from napari_sadp.geometry._search import finer_lattices, reduce_basis

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice

#: Largest index of a lattice in the finer one, in one step.
_MAX_INDEX = 3
#: Index of the lattice with half of both vectors: the three ways to halve one vector may show a pair each, and none of them enough.
_HALVED, _WAYS = 4, 3
#: Shortest vector over the size of a spot: closer ones run into each other.
_LEAST_GAP = 2.0
#: Signal to noise ratio of both spots of a pair together, and of each.
_PAIR, _EACH = 6.0, 3.5
#: Of each spot of the one pair that is enough for a lattice of index 2, and where nothing else is bright or dark in error: finer ones
#: add more nodes, and more chances to be fooled.
_SURE, _SURE_IN_CALM = 10.0, 7.0
_BRIGHT, _NEGATIVE = 5.0, -4.0
#: Fewer negative results tell nothing of the texture.
_LEAST_BELOW = 4
#: Pairs that show must weigh so much more than those that are dark.
_OVER_DARK = 3.0
#: Share of the pairs that several must be.
_LEAST_SHARE = 0.04
#: Most negative results beside a single pair.
_FEW_NEGATIVE = 2
#: A spot is at its node within so many of its uncertainties, and this share of its size. Those of a second grain, and the
#: arcs around bright spots, are beside it.
_MISS, _MISS_SIZE = 2.0, 0.45
#: Vectors are of one length within this share of it: elliptical distortion is about as large.
_SAME_LENGTH = 0.02
#: Of the pairs that are shown, the share at lengths of their own must be at least this part of their share of all pairs.
_LEAST_NEW = 0.5
#: Uncertainty of any position, over the size of a spot.
_PLACE_ERROR = 0.05


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
        for index, finer in [*finer_lattices(basis, _MAX_INDEX), (_HALVED, 0.5 * basis)]:
            finer = reduce_basis(finer)
            if np.linalg.norm(finer[0]) < max(_LEAST_GAP * lattice.spots.sigma_px, 4.0):
                continue
            evidence = search.evidence(basis, finer, index)
            if evidence > most:
                best, most = finer, evidence
        if best is None:
            break
        found = basis = best
    return found


def look_at_nodes(
    prepared: PreparedImage, lattice: SpotLattice, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Look for weak spots at nodes of a lattice that the spot search left empty.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        The lattice.
    indices : (n, 2) ndarray of int
        The nodes.

    Returns
    -------
    score : (n,) ndarray of float64
        Signal to noise ratio, that of the texture included; NaN where nothing is known.
    at_node : (n,) ndarray of bool
        Whether a score of more than `_EACH` is of a spot at the node, not beside it.
    """
    search, basis = _Search(prepared, lattice, 0.0), np.stack([lattice.g1_px, lattice.g2_px])
    score = search.scores(indices, basis)
    return score, search.at_node(indices, basis, score)


class _Search:
    """A pattern and what is known of its spots, to be asked for weak ones."""

    def __init__(self, prepared: PreparedImage, lattice: SpotLattice, reach_px: float) -> None:
        self.prepared, self.lattice, self.reach = prepared, lattice, reach_px
        self.beam_rc, self.sigma = lattice.beam_rc, lattice.spots.sigma_px
        self.meters: dict[int, SpotMeter] = {}

    def _meter(self, basis: np.ndarray) -> SpotMeter:
        """Return what measures spots of a lattice; one for all of about the same spacing."""
        # the light of the spots that are known is taken off; only added ones are left to disturb each other
        gap = float(np.linalg.norm(basis[0]))
        half_gap = max(0.5 * gap, min(2.0 * self.sigma, 0.8 * gap))
        step = int(np.floor(4 * min(half_gap / self.sigma, REACH)))
        if step not in self.meters:
            self.meters[step] = meter_of(self.prepared, self.lattice, step * self.sigma / 4)
        return self.meters[step]

    def _added_nodes(self, basis: np.ndarray, finer: np.ndarray) -> np.ndarray:
        """Return the nodes that a finer lattice adds (n, 2)."""
        indices = nodes_in_view(self.beam_rc, finer, self.prepared.mask.shape)
        old = np.round(indices @ finer @ np.linalg.inv(basis), 6)
        distance = np.linalg.norm(indices @ finer, axis=1)
        keep = (distance <= self.reach) & (distance > 3 * self.sigma)
        return indices[keep & np.any(np.abs(old - np.round(old)) > 1e-3, axis=1)]

    def evidence(self, basis: np.ndarray, finer: np.ndarray, index: int) -> float:
        """Return the sum of what the pairs of nodes show that a finer lattice adds, 0 where it may be texture."""
        indices = self._added_nodes(basis, finer)
        if len(indices) < 2:
            return 0.0
        score = self.scores(indices, finer)
        rows = _known_pairs(score, indices)
        if not _enough(score[rows], _shows(score[rows]), index):
            return 0.0  # whether spots are where the nodes are takes longer to find
        new = self._is_new(indices @ finer, basis)
        return _evidence(score, self.at_node(indices, finer, score), new, indices, rows, index)

    def _is_new(self, g: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Tell which vectors (n, 2) have a length that no vector of the coarser lattice has (n,)."""
        length = np.linalg.norm(g, axis=1)
        known = np.linalg.norm(nodes_in_view(self.beam_rc, basis, self.prepared.mask.shape) @ basis, axis=1)
        known = np.concatenate([[0.0], np.sort(known), [np.inf]])
        after = np.searchsorted(known, length)
        gap = np.minimum(length - known[after - 1], known[after] - length)
        return gap > _SAME_LENGTH * length

    def scores(self, indices: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Return the signal to noise ratio at nodes (n, 2), NaN where nothing is known (n,)."""
        intensity, error, live = self._meter(basis).measure(self.lattice.rc_of(indices @ basis))
        score = np.full(len(indices), np.nan)
        known = (live >= MIN_LIVE) & np.isfinite(error)
        score[known] = intensity[known] / error[known]
        below = -score[score < 0]
        if len(below) >= _LEAST_BELOW:
            score = score / max(1.0, 1.4826 * float(np.median(below)))
        return score

    def at_node(self, indices: np.ndarray, basis: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Tell which spots of some signal to noise ratio are where their nodes (n, 2) are, and not beside them (n,)."""
        bright, found = np.flatnonzero(score > _EACH), np.zeros(len(indices), bool)
        g = indices[bright] @ basis
        rc = self.lattice.rc_of(g)
        place, error = self._meter(basis).places(rc)
        miss = np.linalg.norm(place - rc, axis=1)
        part = g @ np.linalg.inv(np.stack([self.lattice.g1_px, self.lattice.g2_px]))
        covariance = self.lattice.covariance
        of_lattice = np.sqrt(
            sum(np.einsum("ni,ij,nj->n", part, covariance[k::2, k::2], part) for k in (0, 1)) / 2
        )
        allowed = np.sqrt(2) * _MISS * np.hypot(error, of_lattice + _PLACE_ERROR * self.sigma)
        found[bright] = np.isfinite(error) & (miss <= np.minimum(allowed, _MISS_SIZE * self.sigma))
        return found


def _known_pairs(score: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the rows of opposite nodes (n, 2) whose signal to noise ratios are known."""
    number = {tuple(node): row for row, node in enumerate(indices.tolist())}
    rows = [(row, number[-m, -n]) for (m, n), row in number.items() if (m, n) > (0, 0) and (-m, -n) in number]
    rows = np.array(rows, dtype=int).reshape(-1, 2)
    return rows[np.isfinite(score[rows]).all(axis=1)]


def _shows(pairs: np.ndarray) -> np.ndarray:
    """Tell which pairs of opposite nodes show two spots, by their signal to noise ratios (n, 2)."""
    return (pairs.sum(axis=1) / np.sqrt(2) > _PAIR) & (pairs.min(axis=1) > _EACH)


def _needed(n_pairs: int, index: int) -> float:
    """Return how many of some pairs must be shown to be several."""
    return max(_WAYS if index == _HALVED else index, _LEAST_SHARE * n_pairs)


def _enough(pairs: np.ndarray, shown: np.ndarray, index: int) -> bool:
    """Tell whether those of some pairs that are shown are enough for a finer lattice: several, or for index 2 one that is strong."""
    strong = index == 2 and np.any(pairs[shown].min(axis=1) > _SURE_IN_CALM)
    return bool(np.count_nonzero(shown) >= _needed(len(pairs), index) or strong)


def _evidence(
    score: np.ndarray,
    at_node: np.ndarray,
    new: np.ndarray,
    indices: np.ndarray,
    rows: np.ndarray,
    index: int,
) -> float:
    """Return the sum of the signal to noise ratios of pairs of opposite nodes that show spots, 0 where it may be texture.

    The spots of a twin lie on a finer lattice too, at vectors as long as those of the first crystal: as many of those shown
    must be `new` as would be by chance, or nearly.
    """
    pairs = score[rows]
    both, weaker = pairs.sum(axis=1) / np.sqrt(2), pairs.min(axis=1)
    shown = _shows(pairs) & at_node[rows].all(axis=1)
    dark = (both < -_PAIR) & (pairs.max(axis=1) < -_EACH)
    bright, negative = score > _BRIGHT, np.count_nonzero(score < _NEGATIVE)
    placed, beside = np.count_nonzero(bright & at_node), np.count_nonzero(bright & ~at_node)
    n_shown = np.count_nonzero(shown)
    if n_shown and np.mean(new[rows[shown, 0]]) < _LEAST_NEW * np.mean(new[rows[:, 0]]):
        return 0.0
    all_ways = index != _HALVED or len(np.unique(indices[rows[shown, 0]] % 2, axis=0)) == _WAYS
    calm = -_OVER_DARK * both[dark].sum() <= both[shown].sum()
    several = n_shown >= _needed(len(pairs), index) and all_ways and calm and placed >= beside
    sure = _SURE if negative or beside else _SURE_IN_CALM
    one = index == 2 and np.any(weaker[shown] > sure) and negative <= _FEW_NEGATIVE
    return float(both[shown].sum()) if several or one else 0.0
