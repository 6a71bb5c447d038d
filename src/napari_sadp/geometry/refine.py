"""The last word on where spots and lattice are: the profile that the spots share, moved until it fits, neighbours taken off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry._meter import MIN_LIVE, keep_light, meter_of, room_of_spots
from napari_sadp.geometry._search import least_squares, reduce_basis
from napari_sadp.geometry.lattice import covariance_of

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice

#: Uncertainty of any place [px], and over the size of a spot: no spot is quite like the profile of all.
_FLOOR, _FLOOR_SIZE = 0.03, 0.02
#: Where little of a spot is seen, the search does better: a fit more uncertain than the search by this factor does not count.
_MOST_ERROR = 2.0
#: Share of the uncertainty of the spot search that stays.
_OF_SEARCH = 0.3
#: Error of the search where no profile fits nearby, over the size of a spot.
_LOST = 0.5
#: Radius of what is fitted at least, over the size of a spot: the edge of a disc is at twice its size.
_ROOM = 3.0
#: Radial distortion of an ordinary projector system at the edge of the frame, root mean square, relative.
_RADIAL = 0.004
#: Rounds of a fit whose weights follow from what it leaves.
_REWEIGHTED = 10


def refine_lattice(prepared: PreparedImage, lattice: SpotLattice, *, move: bool = True) -> SpotLattice:
    """Measure the places of the spots of a lattice anew, and fit the lattice to them.

    The search takes the centroid of what is around a spot. Near the direct beam, at the edge of a beam stop and between close
    neighbours that is off by more than the noise says.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        Its lattice.
    move : bool
        Whether spots go where the profile fits; if not, they stay, as those that a user placed, and only how much each counts
        is found.

    Returns
    -------
    SpotLattice
        The same spots and nodes at better places.
    """
    use, spots = lattice.indexed, lattice.spots
    # the light of neighbours is taken off: what is fitted may reach into them
    meter = meter_of(prepared, lattice, room_of_spots(lattice, _ROOM))
    rc, by_search = spots.rc[use], spots.sigma_px / spots.snr[use]
    place, error = meter.places(rc)
    _, _, live = meter.measure(rc)
    fits = (error <= _MOST_ERROR * by_search) & (live >= MIN_LIVE)
    place = np.where(fits[:, None] & move, place, rc)
    # a spot that the frame cuts off may pull the profile far from where the search saw it
    lost = np.where(np.isfinite(error), 0.0, _LOST * spots.sigma_px)
    error = np.where(fits, np.hypot(error, _OF_SEARCH * by_search), np.hypot(by_search, lost))
    variance = error**2 + (_FLOOR + _FLOOR_SIZE * spots.sigma_px) ** 2
    refined = fit_to_places(lattice, place, variance, reach_px=0.5 * min(prepared.mask.shape))
    if refined.spots is not spots and meter.light is not None:
        keep_light(
            prepared, refined, meter.light_moved(meter.light, refined.spots.rc) if move else meter.light
        )
    return refined


def fit_to_places(
    lattice: SpotLattice, rc: np.ndarray, variance: np.ndarray, *, reach_px: float
) -> SpotLattice:
    """Fit a lattice, and the radial distortion about the beam, to better places of its spots.

    Spots that do not go with the others count little.

    Parameters
    ----------
    lattice : SpotLattice
        What was found, with the direct beam as origin.
    rc : (n, 2) ndarray of float
        Places of its indexed spots (row, col) [px].
    variance : (n,) ndarray of float
        Variance of either coordinate [px^2].
    reach_px : float
        Distance from the beam at which spots are displaced by 0.4 % of it, give or take, before any was seen [px].

    Returns
    -------
    SpotLattice
        The lattice with these places; the same one where they do not fix it.
    """
    use, nodes = lattice.indexed, lattice.indices[lattice.indexed]
    origin, fine, radial = lattice.beam_rc, np.stack([lattice.g1_px, lattice.g2_px]), 0.0
    weight = 1 / variance
    everyone = np.ones(len(rc), bool)
    for _ in range(_REWEIGHTED):
        g = nodes @ fine
        bulge = g * np.sum(g**2, axis=1, keepdims=True) / reach_px**2
        fitted = least_squares(rc - radial * bulge, weight, nodes, everyone)
        if fitted is None:
            return lattice
        origin, fine = fitted
        radial = _radial(rc - origin, nodes, weight, bulge)
        miss = rc - origin - nodes @ fine - radial * bulge
        # of a Cauchy distribution, in units of what most of them show
        z = np.linalg.norm(miss, axis=1) / np.sqrt(2 * variance)
        z /= max(1.0, 1.2 * float(np.median(z)) * np.sqrt(len(z) / max(1, len(z) - 3)))
        weight = 1 / (variance * (1 + z**2))
    basis = reduce_basis(fine)
    everywhere = lattice.spots.rc.copy()
    everywhere[use] = rc
    indices = np.round((everywhere - origin) @ np.linalg.inv(basis)).astype(int)
    indices[use] = np.round(nodes @ fine @ np.linalg.inv(basis)).astype(int)
    return replace(
        lattice,
        beam_rc=origin,
        g1_px=basis[0],
        g2_px=basis[1],
        covariance=covariance_of(indices[use], weight, miss, basis),
        rms_px=float(np.sqrt(np.mean(np.sum(miss**2, axis=1)))),
        spots=replace(lattice.spots, rc=everywhere),
        indices=indices,
        radial_px2=float(radial / reach_px**2),
    )


def _radial(step: np.ndarray, nodes: np.ndarray, weight: np.ndarray, bulge: np.ndarray) -> float:
    """Return how much of a bulge (n, 2) steps from the beam (n, 2) show beside a lattice of any basis."""
    root = np.sqrt(weight)[:, None]
    design = np.column_stack([np.ones(len(nodes)), nodes]) * root
    # what the lattice can take up of either says nothing of the bulge
    q, _ = np.linalg.qr(design)
    left, right = ((part * root) - q @ (q.T @ (part * root)) for part in (bulge, step))
    return float((left * right).sum() / ((left**2).sum() + _RADIAL**-2))
