"""Other crystals in a pattern: spots that the lattice leaves over, the same lattice turned, or a lattice of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from napari_sadp.geometry._first_fit import subset
from napari_sadp.geometry._search import Fit, index_spots, log_tail, search, shifted_net
from napari_sadp.geometry.lattice import MIN_SPOTS
from napari_sadp.geometry.results import undistorted

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
#: Decimal logarithm of how often chance may turn a lattice on to as many of the spots, and the least share of them; opposite ones are one.
_TURNED_BY_CHANCE, _MOST_OF_THEM = -2.0, 0.5
#: Fewest spots of a turned lattice: two angles are no news.
_LEAST_TURNED = 3
#: Natural logarithm of the factor within which all spots of a second grain are weaker than those of the first.
_SAME_WEIGHT = 1.1
#: How far from a square or hexagonal lattice one still is one, for which turn is the smallest: ratio, and angle [deg].
_LIKE = (0.03, 1.5)
#: A lattice of their own is that of a second grain where its lengths (natural logarithm) and its angle [deg] differ by less; where they
#: do not, and it has fewer false alarms than this, that of another crystal.
_SAME_LENGTH, _SAME_ANGLE, _CERTAIN = 0.035, 2.0, -4.0
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
        of these spots: a second grain of the same crystal on the same zone axis, whose class is the same. None where it is not. It is
        the smallest that does; a square lattice has another every 90, a hexagonal one every 60 deg.
    foreign_share : float or None
        `share` of the spots that no such grain explains; None for all of them.
    """

    share: float
    n_spots: int
    basis: np.ndarray | None = None
    log_nfa: float = 0.0
    turned_deg: float | None = None
    foreign_share: float | None = None

    @property
    def unexplained_share(self) -> float:
        """The `share` of the spots that no second grain of the same crystal explains, of all of them where there is none."""
        return self.share if self.foreign_share is None else self.foreign_share


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
    congruent = own is not None and _are_congruent(own.basis, lattice)
    if own is not None and own.log_nfa < _CERTAIN and not congruent:
        return found
    grain = turned_lattice(lattice, over)
    if grain is None and congruent:
        of_own = np.zeros(len(over), bool)
        of_own[np.flatnonzero(over)[own.inlier]] = True
        grain = _turn_between(lattice, own.basis), of_own
    if grain is None:
        return found
    foreign = over & ~grain[1]
    return replace(found, turned_deg=grain[0], foreign_share=float(amplitude[foreign].sum() / total))


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
        or chance, at one of the angles that bring a node to a spot, does as well (binomial bound, as for the lattice itself; two
        opposite spots are one). All are weaker than those of the nodes by about the same factor.
    """
    nodes = _lit_nodes(lattice)
    which, number, spots = _in_question(lattice, over)
    distance, length = (np.linalg.norm(points.offset, axis=1) for points in (spots, nodes))
    spot, node = np.nonzero(np.abs(distance[:, None] - length) < spots.tolerance[:, None])
    if len(distance) < _LEAST_TURNED or not len(spot):
        return None
    azimuth = [np.arctan2(points.offset[:, 1], points.offset[:, 0]) for points in (spots, nodes)]
    angles = np.mod(azimuth[0][spot] - azimuth[1][node] + np.pi / 2, np.pi) - np.pi / 2
    angle, weight, hit = _best_turn(spots, nodes, np.unique(np.round(angles / _STEP)) * _STEP)
    # how much of the ring that a spot lies on is near to such a node: of one, a quarter of the tolerance over the radius on average
    weights = spots.light[spot] - nodes.light[node]
    on_ring = np.bincount(spot, np.abs(weights - weight) < _SAME_WEIGHT, len(distance))
    share = min(float(np.mean(on_ring * spots.tolerance / (4 * distance))), 1.0)
    trials = np.unique(np.round([angles / _ONE_ANGLE, weights / _SAME_WEIGHT]), axis=1).shape[1]
    # the spot that gave the angle is no news
    chance = np.log10(trials) + log_tail(int(hit.sum()) - 1, len(hit) - 1, share)
    if chance > _TURNED_BY_CHANCE or hit.sum() < max(_LEAST_TURNED, _MOST_OF_THEM * len(hit)):
        return None
    explained = np.zeros(len(over), bool)
    explained[which] = hit[number]
    return _smallest_turn(lattice, float(np.degrees(angle))), explained


class _Points(NamedTuple):
    """Nodes or spots: offsets (n, 2) from the direct beam and tolerances (n,) [px], and logarithms of their intensities (n,)."""

    offset: np.ndarray
    light: np.ndarray
    tolerance: np.ndarray


def _lit_nodes(lattice: SpotLattice) -> _Points:
    """Return the nodes that have a spot, or whose inverse has: a weak grain shows those that are strong in the first one."""
    use = lattice.indexed & np.any(lattice.indices != 0, axis=1)
    nodes = np.concatenate([lattice.indices[use], -lattice.indices[use]])
    nodes, number = np.unique(nodes, axis=0, return_inverse=True)
    light = _means(number.ravel(), np.tile(_logarithms(lattice)[use], 2))
    return _Points(nodes @ np.stack([lattice.g1_px, lattice.g2_px]), light, np.zeros(len(nodes)))


def _in_question(lattice: SpotLattice, over: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Points]:
    """Return which of some spots may be those of a turned lattice (m,), the number of each (m,), and what has these numbers.

    Opposite ones are one: they come together, and are one piece of news.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    unit = float(np.linalg.norm(basis[0]))
    offset = undistorted(lattice.spots.rc - lattice.beam_rc, lattice.radial_px2)
    distance = np.linalg.norm(offset, axis=1)
    tolerance = np.minimum(_NEAR * unit + _STRETCH * distance, _FARTHEST * unit)
    # what is as near to a node of the lattice as it is says nothing of a turn
    beside = index_spots(offset, np.zeros(2), basis)[1] > tolerance
    which = np.flatnonzero(over & beside & (distance > 0.5 * unit))
    if not len(which):
        return which, which, _Points(offset[which], distance[which], tolerance[which])
    pair, offset = _opposite_pairs(offset[which], tolerance[which])
    first, number = np.unique(pair, return_index=True, return_inverse=True)[1:]
    light = _means(number, _logarithms(lattice)[which])
    return which, number, _Points(offset[first], light, tolerance[which][first])


def _best_turn(spots: _Points, nodes: _Points, angles: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return the one of some angles [rad], made finer, that turns nodes on to most spots, weaker by one factor (its logarithm), and these."""
    tree = cKDTree(nodes.offset)
    best, weight, hit = 0.0, 0.0, np.zeros(len(spots.offset), bool)
    for angle in angles.tolist():
        miss, nearest = tree.query(spots.offset @ _turn(-angle))
        near = np.flatnonzero(miss <= spots.tolerance)
        ratio = spots.light[near] - nodes.light[nearest[near]]
        alike = np.abs(ratio[:, None] - ratio) < _SAME_WEIGHT
        if len(near) and alike.sum(axis=1).max() > hit.sum():
            most = int(np.argmax(alike.sum(axis=1)))
            best, weight, hit = angle, float(ratio[most]), np.isin(np.arange(len(hit)), near[alike[most]])
    back = (spots.offset @ _turn(-best))[hit]
    own = nodes.offset[tree.query(back)[1]]
    # the angle that brings all of them nearest
    best += float(np.arctan2((own[:, 0] * back[:, 1] - own[:, 1] * back[:, 0]).sum(), (own * back).sum()))
    return best, weight, hit


def _logarithms(lattice: SpotLattice) -> np.ndarray:
    """Return the logarithms of the intensities of the spots (n,)."""
    return np.log(np.maximum(lattice.spots.intensity, 1e-30))


def _means(number: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of the values of each number from 0."""
    return np.bincount(number, values) / np.bincount(number)


def _smallest_turn(lattice: SpotLattice, degrees: float) -> float:
    """Return the smallest turn that does the same as one [deg]: of 180 deg, and of less for a square or hexagonal lattice."""
    every = 180.0
    if lattice.ratio < 1 + _LIKE[0]:
        every = next((e for e in (90.0, 60.0) if abs(lattice.angle_deg - e) < _LIKE[1]), every)
    return (degrees + every / 2) % every - every / 2


def _opposite_pairs(offset: np.ndarray, tolerance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the first of each pair of opposite spots (n,), that of a spot alone its own, and their mean (n, 2)."""
    number, mean = np.arange(len(offset)), offset.copy()
    apart, other = cKDTree(-offset).query(offset)
    mutual = (other[other] == number) & (other != number) & (apart <= np.minimum(tolerance, tolerance[other]))
    mean[mutual] = 0.5 * (offset - offset[other])[mutual]
    return np.where(mutual, np.minimum(number, other), number), mean


def _are_congruent(basis: np.ndarray, lattice: SpotLattice) -> bool:
    """Tell whether a reduced basis has the lengths and the angle of a lattice: that of the same crystal on the same axis."""
    first, second = np.linalg.norm(basis, axis=1)
    cosine = abs(basis[0] @ basis[1]) / (first * second)
    ratios = np.log([first / np.linalg.norm(lattice.g1_px), second / np.linalg.norm(lattice.g2_px)])
    turn = np.degrees(np.arccos(min(cosine, 1.0))) - lattice.angle_deg
    return bool(np.abs(ratios).max() < _SAME_LENGTH and abs(turn) < _SAME_ANGLE)


def _turn_between(lattice: SpotLattice, basis: np.ndarray) -> float:
    """Return the smallest angle by which a lattice is turned on to a congruent one [deg]."""
    azimuth = np.degrees([np.arctan2(g[1], g[0]) for g in (lattice.g1_px, basis[0])])
    return _smallest_turn(lattice, float(azimuth[1] - azimuth[0]))


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
