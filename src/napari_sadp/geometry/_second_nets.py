"""A second net of spots beside that of the zero-order Laue zone: a shifted copy of it, taken apart from the lattice.

Higher-order Laue zones and second crystals make them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry._search import (
    MIN_SPOTS,
    Fit,
    grow,
    index_spots,
    one_spot_per_node,
    reduce_basis,
    shifted_net,
    weights,
)
from napari_sadp.labels.lattice2d import span, sublattices

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotList

#: How well the centre of the diffuse scattering is known [px].
_CENTRE_ERROR = 3.0
#: How far beyond the outermost spots others would still be seen [px].
_EDGE = 1.0
#: Share of the amplitude that the main coset of a lattice needs to stand alone.
_MAIN_COSET = 0.6


def without_copies(spots: SpotList, fit: Fit, distance: np.ndarray) -> tuple[Fit, np.ndarray]:
    """Go to a coarser lattice where the finer one only joins it to a shifted copy of itself.

    Spots of a higher-order Laue zone, or of a second crystal, repeat the net at a rational shift now and then; one
    finer lattice then fits both. A reciprocal lattice has with each node its inverse, so that a true finer lattice
    fills the cosets c and -c alike; a shifted copy fills only one of them. Spots whose inverse is out of view say nothing.

    Returns
    -------
    Fit, (n,) ndarray of bool
        The lattice to go on with, and the spots of the shifted copies.
    """
    nothing = np.zeros(len(spots), bool)
    weight = np.sqrt(spots.intensity)
    within = (distance <= np.median(distance)) & fit.inlier
    asked = fit.inlier & _with_inverse_in_view(spots.rc, distance)
    best, best_inside = None, 0.5
    for index in (3, 4, 5, 6):
        for sub in sublattices(index):
            key = np.round((fit.nodes @ np.linalg.inv(sub) % 1.0) * index).astype(int) % index
            verdict = _coset_verdict(key, weight, fit.inlier, asked, index)
            # near the direct beam there is the zero-order Laue zone only, or it outshines a second net
            if (
                verdict is not None
                and verdict[0] < _MAIN_COSET
                and within.any()
                and np.mean(verdict[1][within]) < 0.9
            ):
                continue
            # of those that hold nearly the same spots, the coarsest
            if verdict is not None and verdict[0] > best_inside:
                best, best_inside = (sub, verdict[1]), verdict[0] - 0.08
    if best is None:
        return fit, nothing
    sub, inside = best
    origin = spots.rc[inside][np.argmax(spots.intensity[inside])]
    coarse = grow(spots.rc[inside], weights(spots)[inside], reduce_basis(sub @ fit.basis), origin)
    if coarse is None or np.count_nonzero(coarse.inlier) < max(MIN_SPOTS, 0.8 * np.count_nonzero(inside)):
        return fit, nothing
    nodes = index_spots(spots.rc, coarse.origin, coarse.basis)[0].astype(int)
    inlier = nothing.copy()
    inlier[np.flatnonzero(inside)[coarse.inlier]] = True
    # what the union of net and copy says against chance, the net says
    log_nfa = min(coarse.log_nfa, fit.log_nfa)
    return replace(coarse, nodes=nodes, inlier=inlier, log_nfa=log_nfa), fit.inlier & ~inside


def zero_order_net(spots: SpotList, fit: Fit, middle: np.ndarray) -> tuple[Fit, np.ndarray]:
    """Of a lattice and a copy of it with the same periods, go to the one that the direct beam lies on.

    Returns
    -------
    Fit, (n,) ndarray of bool
        The lattice to go on with, and the spots of the other.
    """
    second, odds = shifted_net(spots.rc, fit)
    if not second.any():
        return fit, second
    fit = replace(fit, log_nfa=fit.log_nfa + odds)
    distance = np.linalg.norm(spots.rc - middle, axis=1)
    inside = np.flatnonzero(second)
    start = spots.rc[inside[np.argmin(distance[inside])]]
    # the direct beam lies on the net of the zero order, and most of its spots are nearer than those of the other
    miss = [_miss(middle, origin, fit.basis) for origin in (fit.origin, start)]
    if abs(miss[0] - miss[1]) > max(_CENTRE_ERROR, fit.tolerance):
        first = miss[0] < miss[1]
    else:
        first = np.median(distance[second]) >= np.median(distance[fit.inlier])
    if first:
        return _of_its_own_spots(fit, second)
    nodes, _ = index_spots(spots.rc, start, fit.basis)
    # both nets fix the periods: the new one only shifts them
    origin = start + np.median((spots.rc - start - nodes @ fit.basis)[inside], axis=0)
    nodes, miss = index_spots(spots.rc, origin, fit.basis)
    nodes = nodes.astype(int)
    inlier = one_spot_per_node(nodes, miss, fit.tolerance)
    if np.count_nonzero(inlier) < MIN_SPOTS:
        return fit, second
    found = replace(fit, origin=origin, nodes=nodes, inlier=inlier)
    return _of_its_own_spots(found, fit.inlier & ~inlier)


def _of_its_own_spots(fit: Fit, second: np.ndarray) -> tuple[Fit, np.ndarray]:
    """Go to the coarser lattice that the spots of the first net span, where only the second fills a finer one."""
    nodes = fit.nodes[fit.inlier]
    coarse = span(nodes - nodes[0])
    if coarse is None or abs(round(float(np.linalg.det(coarse)))) <= 1:
        return fit, second
    origin = fit.origin + nodes[0] @ fit.basis
    into = np.linalg.inv(coarse.astype(float))
    return replace(
        fit,
        origin=origin,
        basis=coarse @ fit.basis,
        nodes=np.round((fit.nodes - nodes[0]) @ into).astype(int),
    ), second


def _miss(rc: np.ndarray, origin: np.ndarray, basis: np.ndarray) -> float:
    """Return how far a place is from the nearest node [px]."""
    part = (rc - origin) @ np.linalg.inv(basis)
    return float(np.linalg.norm((part - np.round(part)) @ basis))


def _coset_verdict(
    key: np.ndarray, weight: np.ndarray, inlier: np.ndarray, asked: np.ndarray, index: int
) -> tuple[float, np.ndarray] | None:
    """Return (share of the main coset, its spots) if those of the others that are asked have no inverse counterpart, else None."""
    number = key[:, 0] * index + key[:, 1]
    total = np.bincount(number[inlier], weight[inlier], index**2)
    main = int(np.argmax(total))
    share = total[main] / total.sum()
    others = np.flatnonzero(total > 0)
    others = others[others != main]
    inverse = [
        ((2 * (main // index) - c // index) % index) * index + (2 * (main % index) - c % index) % index
        for c in others
    ]
    told = np.bincount(number[asked], weight[asked], index**2)
    unpaired = sum(max(0.0, told[c] - total[m]) for c, m in zip(others, inverse, strict=True))
    outside = told.sum() - told[main]
    count = np.count_nonzero(asked & (number != main))
    if share < 0.5 or count < 4 or unpaired < 0.7 * outside:
        return None
    return float(share), inlier & (number == main)


def _with_inverse_in_view(rc: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Tell of which spots the place opposite to the innermost one lies between the outermost ones (n,)."""
    mirror = 2 * rc[np.argmin(distance)] - rc
    return np.all((mirror >= rc.min(axis=0) - _EDGE) & (mirror <= rc.max(axis=0) + _EDGE), axis=1)
