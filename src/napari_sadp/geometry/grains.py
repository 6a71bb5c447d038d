"""Other crystals in a pattern: spots that the lattice leaves over, the same lattice turned, or a lattice of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_sadp.geometry._first_fit import subset
from napari_sadp.geometry._search import Fit, log_tail, search, shifted_net
from napari_sadp.geometry.lattice import MIN_SPOTS

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotLattice

#: Spots nearer to a node than this, over the shortest vector, may be its own, badly placed.
_OWN = 0.15
#: The same periods: the net of a higher-order Laue zone, not of another crystal.
_SAME = 0.06
#: Share of the spots of the lattice, nearest to the beam, that have spots of another crystal among them; farther out there are
#: those of higher-order Laue zones.
_INNER = 0.8
#: How near a spot is to a node of a turned lattice, over the shortest vector, and what distortion of the lens adds for each unit of its
#: distance from the direct beam; and at most.
_NEAR, _STRETCH, _FARTHEST = 0.1, 0.015, 0.25
#: Decimal logarithm of how often chance may turn a lattice on to as many of the spots, and the least share of them.
_TURNED_BY_CHANCE, _MOST_OF_THEM = -2.0, 0.5
#: Fewest spots of a turned lattice: two angles are no news.
_LEAST_TURNED = 3
#: Angles that are tried [rad], and that differ by so little that they are one trial.
_STEP, _ONE_ANGLE = 0.003, 0.03


@dataclass(frozen=True, eq=False)
class Leftover:
    """What a lattice leaves over.

    Parameters
    ----------
    share : float
        Amplitude of spots on no node over that of all, the direct beam left out, among the inner spots, 0 to 1.
    n_spots : int
        How many such spots there are.
    basis : (2, 2) ndarray of float64 or None
        Reduced vectors [px] of the lattice that they span themselves, None where there is none.
    log_nfa : float
        Decimal logarithm of the number of lattices as good as this one that random spots would make; 0.0 without one.
    turned_deg : float or None
        Angle from -90 to 90 [deg], positive from rows to columns, by which the lattice itself is turned about the direct beam on to most
        of these spots: a second grain of the same crystal on the same zone axis, whose class is the same. None where it is not.
    foreign_share : float or None
        `share` of the spots that no such grain explains; None for all of them.
    """

    share: float
    n_spots: int
    basis: np.ndarray | None = None
    log_nfa: float = 0.0
    turned_deg: float | None = None
    foreign_share: float | None = None


def leftover_spots(lattice: SpotLattice) -> Leftover:
    """Weigh the spots on no node: those of a second grain, twin or phase.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice, with the direct beam as origin.

    Returns
    -------
    Leftover
        Their share, their own lattice, and whether they are those of a second grain. A net of the same periods beside the first one is
        that of a higher-order Laue zone, and does not count.
    """
    over, amplitude, total = _left_over(lattice)
    own = _lattice_of_its_own(lattice, over, np.stack([lattice.g1_px, lattice.g2_px]))
    found = Leftover(float(amplitude[over].sum() / total), int(over.sum()))
    if own is not None:
        found = replace(found, basis=own.basis, log_nfa=own.log_nfa)
    turned = turned_lattice(lattice, over)
    if turned is None:
        return found
    foreign = over & ~turned[1]
    return replace(found, turned_deg=turned[0], foreign_share=float(amplitude[foreign].sum() / total))


def leftover_share(lattice: SpotLattice) -> float:
    """Return the `share` of `leftover_spots` alone, for maps: nobody looks for a lattice of their own.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice, with the direct beam as origin.

    Returns
    -------
    float
        0 to 1.
    """
    over, amplitude, total = _left_over(lattice)
    return float(amplitude[over].sum() / total)


def turned_lattice(lattice: SpotLattice, over: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Turn a lattice about the direct beam on to spots that it leaves over: a second grain of the same crystal.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice, with the direct beam as origin.
    over : (n,) ndarray of bool
        The spots in question.

    Returns
    -------
    tuple of float, (n,) ndarray of bool, or None
        The angle from -90 to 90 [deg], positive from rows to columns, and the spots on its nodes; None where they are less than half,
        or chance, at one of the angles that bring a node to a spot, does as well (binomial bound, as for the lattice itself).
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    unit = float(np.linalg.norm(basis[0]))
    offset = lattice.spots.rc - lattice.beam_rc
    distance = np.linalg.norm(offset, axis=1)
    which = np.flatnonzero(over & (distance > 0.5 * unit))
    # a weak grain shows the nodes that are strong in the first one
    lit = lattice.indices[lattice.indexed & np.any(lattice.indices != 0, axis=1)]
    lit = np.unique(np.concatenate([lit, -lit]), axis=0)
    if len(which) < _LEAST_TURNED or not len(lit):
        return None
    offset, distance = offset[which], distance[which]
    tolerance = np.minimum(_NEAR * unit + _STRETCH * distance, _FARTHEST * unit)
    vectors = lit @ basis
    length = np.linalg.norm(vectors, axis=1)
    spot, node = np.nonzero(np.abs(distance[:, None] - length) < tolerance[:, None])
    if not len(spot):
        return None
    angles = np.arctan2(offset[spot, 1], offset[spot, 0]) - np.arctan2(vectors[node, 1], vectors[node, 0])
    # the lattice is its own image by inversion
    angles = np.mod(angles + np.pi / 2, np.pi) - np.pi / 2
    # how much of the ring that a spot lies on is near to such a node: of one, a quarter of the tolerance over the radius on average
    share = np.bincount(spot, minlength=len(which)) * tolerance / (4 * distance)
    tree = cKDTree(vectors)
    best, hit = 0.0, np.zeros(len(which), bool)
    for angle in np.unique(np.round(angles / _STEP)) * _STEP:
        near = tree.query(offset @ _turn(-angle))[0] <= tolerance
        if near.sum() > hit.sum():
            best, hit = float(angle), near
    trials = len(np.unique(np.round(angles / _ONE_ANGLE)))
    # the spot that gave the angle is no news
    chance = np.log10(trials) + log_tail(int(hit.sum()) - 1, len(which) - 1, min(float(share.mean()), 1.0))
    if chance > _TURNED_BY_CHANCE or hit.sum() < max(_LEAST_TURNED, _MOST_OF_THEM * len(which)):
        return None
    explained = np.zeros(len(over), bool)
    explained[which[hit]] = True
    back = (offset @ _turn(-best))[hit]
    own = vectors[tree.query(back)[1]]
    # the angle that brings all of them nearest
    best += np.arctan2((own[:, 0] * back[:, 1] - own[:, 1] * back[:, 0]).sum(), (own * back).sum())
    return float(np.degrees(np.mod(best + np.pi / 2, np.pi) - np.pi / 2)), explained


def _turn(angle: float) -> np.ndarray:
    """Return the matrix that turns (row, col) from rows to columns, to be applied from the right."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s], [-s, c]])


def _left_over(lattice: SpotLattice) -> tuple[np.ndarray, np.ndarray, float]:
    """Return which spots are on no node (n,) bool, what the amplitude of each counts (n,), and of all."""
    spots, basis = lattice.spots, np.stack([lattice.g1_px, lattice.g2_px])
    miss = np.linalg.norm(spots.rc - lattice.node_rc(lattice.indices), axis=1)
    unit = float(np.linalg.norm(basis[0]))
    over = ~lattice.indexed & (miss > _OWN * unit)
    first = Fit(lattice.beam_rc, basis, 0.1 * unit, lattice.log_nfa, lattice.indexed, lattice.indices)
    over &= ~shifted_net(spots.rc, first)[0]
    distance = np.linalg.norm(spots.rc - lattice.beam_rc, axis=1)
    # a lattice that the user placed may hold no spot at all: then every spot is on no node
    reach = distance[lattice.indexed] if lattice.indexed.any() else distance
    inner = distance <= np.quantile(reach, _INNER) if len(distance) else np.zeros(0, bool)
    amplitude = np.sqrt(np.clip(spots.intensity, 0, None)) * inner * (distance > 0.5 * unit)
    return over, amplitude, max(float(amplitude[over | lattice.indexed].sum()), 1e-30)


def _lattice_of_its_own(lattice: SpotLattice, over: np.ndarray, basis: np.ndarray) -> Fit | None:
    """Return the lattice of the spots left over, None where it is no other one."""
    if np.count_nonzero(over) < MIN_SPOTS:
        return None
    fit = search(subset(lattice.spots, over))
    if fit is None or fit.log_nfa > 0:
        return None
    # a multiple or part of the first one's periods is none of its own
    for change in (fit.basis @ np.linalg.inv(basis), basis @ np.linalg.inv(fit.basis)):
        if np.abs(change - np.round(change)).max() < _SAME * max(1.0, float(np.abs(change).max())):
            return None
    return fit
