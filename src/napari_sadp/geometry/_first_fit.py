"""Which of the spots make the lattice: all, the strong ones, or those near the direct beam; and how fine it is.

Rings of higher-order Laue zones may outnumber the spots of the zero order, whose lattice is the one that counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

from napari_sadp.geometry._search import (
    MIN_SPOTS,
    Fit,
    finer_lattices,
    grow,
    index_spots,
    judge,
    one_spot_per_node,
    reduce_basis,
    search,
    weights,
)
from napari_sadp.labels.lattice2d import span

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotList

#: Shares of the spots, nearest to the direct beam first, that may lie on a lattice of their own, and how many are the least.
_INNER_SHARES = (0.6, 0.35)
_LEAST_INNER = 8
#: Intensities over the strongest diffracted beam from which spots are *strong*, and the largest share of all spots that these are.
_STRONG_SHARES = (0.1, 0.03, 0.01)
_MOST_STRONG = 0.8
#: Share of the strong spots that a lattice of all spots holds at least, unless theirs is another.
_LEAST_HELD = 0.65
#: Distance from the direct beam, over that of the outermost strong spot, beyond which spots alone ask for no finer lattice.
RING = 1.5
#: Largest index of a lattice in the finer one that spots left out may ask for.
_MAX_INDEX = 8
#: Spots on the added nodes over what they would be if all of these were as full as the nodes of the coarser lattice.
_LEAST_FILLED = 0.12


def first_fit(
    spots: SpotList, distance: np.ndarray, max_log_nfa: float, through_rc: np.ndarray | None
) -> Fit | None:
    """Return the lattice of the strong spots, of the inner ones, or of all, that goes through a place if one is given."""
    whole = search(spots, through_rc)
    return _strong_first(spots, distance, whole, max_log_nfa, through_rc) or _inner_first(
        spots, distance, whole, max_log_nfa, through_rc
    )


def _strong_first(
    spots: SpotList,
    distance: np.ndarray,
    whole: Fit | None,
    max_log_nfa: float,
    through_rc: np.ndarray | None,
) -> Fit | None:
    """Return the lattice that holds all strong spots, where that of all spots contradicts it, else None.

    A ring of weak spots of a higher-order Laue zone may outnumber a few strong ones around the direct beam: the lattice of all
    spots then leaves strong ones out, or is finer for the sake of the ring alone.
    """
    # the direct beam may be the brightest
    unit = np.sort(spots.intensity)[-2]
    for share in _STRONG_SHARES:
        strong = np.flatnonzero(spots.intensity >= share * unit)
        if len(strong) > _MOST_STRONG * len(spots):
            break
        if len(strong) < MIN_SPOTS:
            continue
        if whole is not None and whole.log_nfa <= max_log_nfa and _spanned_by(whole, strong):
            continue  # no coarser lattice holds them
        fit = search(subset(spots, strong), through_rc)
        if fit is None or fit.log_nfa > max_log_nfa - 0.5 or not fit.inlier.all():
            continue
        reach = RING * float(distance[strong].max())
        found = _indexed(spots, fit)
        # few spots fix a lattice too badly for its far nodes
        found = replace(found, inlier=found.inlier & (distance <= reach))
        if whole is None or whole.log_nfa > max_log_nfa:
            return found
        if np.count_nonzero(whole.inlier[strong]) < _LEAST_HELD * len(strong):
            return found
        # the same lattice, or a finer one that spots within reach ask for, is no contradiction
        finer = round(abs(float(np.linalg.det(fit.basis) / np.linalg.det(whole.basis)))) > 1
        added = distance[whole.inlier & ~found.inlier]
        if finer and added.size and added.min() > reach:
            return found
    return None


def _spanned_by(fit: Fit, which: np.ndarray) -> bool:
    """Tell whether some spots are all on a lattice, and on no coarser one."""
    if not fit.inlier[which].all():
        return False
    nodes = fit.nodes[which]
    basis = span(nodes - nodes[0])
    return basis is not None and abs(round(float(np.linalg.det(basis)))) == 1


def _inner_first(
    spots: SpotList,
    distance: np.ndarray,
    whole: Fit | None,
    max_log_nfa: float,
    through_rc: np.ndarray | None,
) -> Fit | None:
    """Return the lattice of the inner spots, where it contradicts that of all.

    Far from the direct beam the Ewald sphere meets higher-order Laue zones. Their nets are shifted against that of the zero
    order, so that all spots together lie on a finer lattice, or on none.
    """
    n = len(spots)
    if whole is not None and np.count_nonzero(whole.inlier) >= 0.9 * n:
        # a net that chance made finer than needed is mostly empty
        inside = distance[whole.inlier] <= np.quantile(distance[whole.inlier], 0.75)
        cells = np.pi * distance[whole.inlier][inside].max() ** 2 / abs(np.linalg.det(whole.basis))
        if np.count_nonzero(inside) >= 0.35 * cells:
            return whole
    order = np.argsort(distance, kind="stable")
    for share in _INNER_SHARES:
        count = round(share * n)
        if count < _LEAST_INNER:
            break
        inner = np.sort(order[:count])
        fit = search(subset(spots, inner), through_rc)
        if fit is None or fit.log_nfa > max_log_nfa - 1 or np.count_nonzero(fit.inlier) < 0.7 * count:
            continue
        if whole is not None and whole.log_nfa <= max_log_nfa:
            same = fit.basis @ np.linalg.inv(whole.basis)
            index = abs(np.linalg.det(same))
            commensurate = np.abs(same - np.round(same)).max() < 0.1
            if commensurate and index < 1.5:
                return whole
            held = np.count_nonzero(whole.inlier[inner])
            # another net among the inner spots, such as that of a second grain, must be surer than that of all
            if not commensurate and (held >= np.count_nonzero(fit.inlier) - 1 or fit.log_nfa > whole.log_nfa):
                continue
            if commensurate and np.count_nonzero(fit.inlier) < 0.9 * held:
                continue
        return _extended(spots, fit, fit.origin)
    return whole


def _extended(spots: SpotList, fit: Fit, start: np.ndarray) -> Fit:
    """Return a lattice of some spots with all spots indexed on it, its significance unchanged."""
    grown = grow(spots.rc, weights(spots), fit.basis, start)
    if grown is not None and np.abs(grown.basis @ np.linalg.inv(fit.basis) - np.eye(2)).max() < 0.05:
        return replace(grown, log_nfa=min(grown.log_nfa, fit.log_nfa))
    return _indexed(spots, fit)


def _indexed(spots: SpotList, fit: Fit) -> Fit:
    """Return a lattice of some spots, as it is, with all spots indexed on it."""
    nodes, miss = index_spots(spots.rc, fit.origin, fit.basis)
    nodes = nodes.astype(int)
    return replace(fit, nodes=nodes, inlier=one_spot_per_node(nodes, miss, fit.tolerance))


def refine_index(spots: SpotList, fit: Fit, inner: np.ndarray) -> Fit:
    """Go to a finer lattice where spots that were left out lie on its additional nodes, more than chance puts there.

    The number of false alarms alone would give up a few weak superlattice spots for a larger cell in direct space.
    """
    weight = weights(spots)
    for _ in range(2):
        rest = ~fit.inlier
        area = abs(np.linalg.det(fit.basis))
        miss = np.linalg.norm(spots.rc - fit.origin - fit.nodes @ fit.basis, axis=1)
        tolerance = float(np.clip(3 * np.sqrt(np.mean(miss[fit.inlier] ** 2)), 0.7, fit.tolerance + 0.2))
        best, best_log = None, -4.0
        finer_ones = finer_lattices(fit.basis, _MAX_INDEX)
        for index, finer in finer_ones:
            if np.linalg.norm(reduce_basis(finer)[0]) < spots.least_spacing_px:
                continue
            on_node = index_spots(spots.rc, fit.origin, finer)[1] <= tolerance
            hits = int(np.count_nonzero(on_node & rest))
            # a much finer lattice that a few spots ask for is chance, or another grain
            if (
                hits < max(3, _LEAST_FILLED * (index - 1) * np.count_nonzero(fit.inlier))
                or np.count_nonzero(on_node & rest & inner) < 2
            ):
                continue
            share = min(0.99, (index - 1) * np.pi * tolerance**2 / area)
            log_p = binom.logsf(hits - 1, int(rest.sum()), share) / np.log(10) + np.log10(len(finer_ones))
            if log_p < best_log:
                best, best_log = finer, log_p
        if best is None:
            break
        finer_fit = judge(spots.rc, weight, fit.origin, reduce_basis(best))
        if finer_fit is None:
            break
        fit = finer_fit
    return fit


def subset(spots: SpotList, keep: np.ndarray) -> SpotList:
    """Return some of the spots."""
    return replace(spots, rc=spots.rc[keep], intensity=spots.intensity[keep], snr=spots.snr[keep])
