"""The last word on where spots and lattice are: the profile that the spots share, moved until it fits, neighbours taken off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry._meter import MIN_LIVE, meter_of
from napari_sadp.geometry.lattice import fit_to_places

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice

#: Uncertainty of any place [px], and over the size of a spot: no spot is quite like the profile of all.
_FLOOR, _FLOOR_SIZE = 0.03, 0.02
#: Where little of a spot is seen, the search does better: a fit more uncertain than the search by this factor does not count.
_MOST_ERROR = 2.0
#: Share of the uncertainty of the spot search that stays.
_OF_SEARCH = 0.3


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
    meter = meter_of(prepared, lattice)
    rc, by_search = spots.rc[use], spots.sigma_px / spots.snr[use]
    meter.learn_light(rc)
    place, error = meter.places(rc)
    _, _, live = meter.measure(rc)
    fits = (error <= _MOST_ERROR * by_search) & (live >= MIN_LIVE)
    place = np.where(fits[:, None] & move, place, rc)
    error = np.where(fits, np.hypot(error, _OF_SEARCH * by_search), by_search)
    variance = error**2 + (_FLOOR + _FLOOR_SIZE * spots.sigma_px) ** 2
    return fit_to_places(lattice, place, variance, reach_px=0.5 * min(prepared.mask.shape))
