"""A second crystal in a pattern: spots that the lattice leaves over, and a lattice of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry._first_fit import subset
from napari_sadp.geometry._search import Fit, search, shifted_net
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
    """

    share: float
    n_spots: int
    basis: np.ndarray | None = None
    log_nfa: float = 0.0


def leftover_spots(lattice: SpotLattice) -> Leftover:
    """Weigh the spots on no node: those of a second grain, twin or phase.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice, with the direct beam as origin.

    Returns
    -------
    Leftover
        Their share, and their own lattice. A net of the same periods beside the first one is that of a higher-order Laue zone, and
        does not count.
    """
    over, share = _left_over(lattice)
    own = _lattice_of_its_own(lattice, over, np.stack([lattice.g1_px, lattice.g2_px]))
    return Leftover(share, int(over.sum()), *((own.basis, own.log_nfa) if own is not None else (None, 0.0)))


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
    return _left_over(lattice)[1]


def _left_over(lattice: SpotLattice) -> tuple[np.ndarray, float]:
    """Return which spots are on no node (n,) bool, and their share of the amplitude."""
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
    return over, float(amplitude[over].sum() / max(amplitude[over | lattice.indexed].sum(), 1e-30))


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
