"""Which zone axes patterns of one crystal can lie on, when the angles between them are known."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.labels.scheme import Zone

#: A joint orientation this much less likely than the best is not followed.
_FAINT = 1e-6


def family(zone: Zone) -> np.ndarray:
    """Return the axes of the family of a cubic zone axis, one of each pair of opposite ones.

    Parameters
    ----------
    zone : tuple of 3 int
        Zone axis.

    Returns
    -------
    (n, 3) ndarray of int
        Different axes of the family of point group m-3m; the first non-zero index is positive.
    """
    found = {
        tuple(int(s * i) for s, i in zip(signs, order, strict=True))
        for order in permutations(zone)
        for signs in product((1, -1), repeat=3)
    }
    return np.array(sorted(axis for axis in found if next(i for i in axis if i) > 0))


def oriented_states(
    zones: Sequence[Zone],
    tilt_deg: np.ndarray,
    error_deg: float,
    score: np.ndarray,
    *,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the zone axes that patterns may lie on together, with their probabilities by the angles alone.

    Parameters
    ----------
    zones : sequence of zone axes
        Representatives of the families, equally likely for each pattern.
    tilt_deg : (n, n) ndarray of float
        Angles between the patterns [deg]; NaN where not known.
    error_deg : float
        Standard deviation of an angle [deg].
    score : (n, n_zones) ndarray of float
        Largest likelihood of each axis for each pattern; what is out of the question need not be followed.
    limit : int
        Number of states to keep.

    Returns
    -------
    states : (m, n) ndarray of int
        Index of the zone axis of each pattern.
    chance : (m,) ndarray of float64
        Density of the angles for that state, over that of independent directions, times the prior of the axes.
    """
    n, n_zones = len(score), len(zones)
    families = [family(zone) for zone in zones]
    axes = np.concatenate(families).astype(float)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    owner = np.repeat(np.arange(n_zones), [len(f) for f in families])
    share = np.repeat([1 / len(f) for f in families], [len(f) for f in families]) / n_zones
    angle = np.degrees(np.arccos(np.clip(np.abs(axes @ axes.T), 0, 1)))
    relative = score / np.maximum(score.max(axis=1, keepdims=True), 1e-300)
    # the first pattern may lie on any axis of its family: one of each is enough
    first = np.array([np.flatnonzero(owner == z)[0] for z in range(n_zones)])
    members, weight = first[:, None], np.full(n_zones, 1 / n_zones)
    merit = weight * relative[0]
    keep = merit > _FAINT * merit.max()
    members, weight = members[keep], weight[keep]
    for i in range(1, n):
        new = weight[:, None] * share[None, :]
        for j in range(i):
            if np.isfinite(tilt_deg[i, j]):
                z = (angle[members[:, j]] - _acute(tilt_deg[i, j])) / error_deg
                # uniform directions have the density sin(angle) per radian
                uniform = np.radians(error_deg) * np.maximum(np.sin(np.radians(_acute(tilt_deg[i, j]))), 0.05)
                new = new * np.exp(-0.5 * z**2) / (np.sqrt(2 * np.pi) * uniform)
        merit = new * relative[i][owner][None, :]
        for j in range(i):
            merit = merit * relative[j][owner[members[:, j]]][:, None]
        order = np.argsort(-merit, axis=None)[: 20 * limit]
        order = order[merit.ravel()[order] > _FAINT * merit.max()]
        row, column = np.unravel_index(order, merit.shape)
        members = np.concatenate([members[row], column[:, None]], axis=1)
        weight = new[row, column]
    states, inverse = np.unique(owner[members], axis=0, return_inverse=True)
    chance = np.bincount(inverse.ravel(), weight, minlength=len(states))
    merit = chance * np.prod([relative[i][states[:, i]] for i in range(n)], axis=0)
    best = np.argsort(-merit)[:limit]
    return states[best], chance[best]


def _acute(angle_deg: float) -> float:
    """Return an angle between lines, 0 to 90 [deg]."""
    folded = abs(float(angle_deg)) % 180
    return min(folded, 180 - folded)
