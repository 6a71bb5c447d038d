"""Which zone axis to tilt to next: the expected information about the space group, and the angle to get there.

A pattern on a chosen axis shows one class of the scheme; which one depends on the space group and its behaviour. The
expectation over the classes is exact, for a pattern that shows every allowed spot and no other: a real one gives less.

References
----------
Lindley, Ann. Math. Stat. 27, 986 (1956). doi:10.1214/aoms/1177728069
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_zone_axis
from napari_sadp.ensemble.combine import SpaceGroupPosterior

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme, Zone

#: Probabilities by space-group number, by behaviour name ("225", "227a"), or as `combine` returns them.
Posterior = SpaceGroupPosterior | Mapping[int, float] | Mapping[str, float]

#: From this probability on the zone axis of a pattern counts as known, so that tilt angles can be given from it.
ZONE_KNOWN = 0.9


@dataclass(frozen=True)
class NextAxis:
    """A zone axis to go to.

    Parameters
    ----------
    zone : tuple of 3 int
        Zone axis; any axis of its family will do, but for group 205 only with the indices in this cyclic order.
    gain_bits : float
        Expected decrease of the entropy of the space group [bit].
    tilt_deg : float or None
        Smallest angle between an axis of this family and the current axis [deg]; None where that is not known.
    """

    zone: Zone
    gain_bits: float
    tilt_deg: float | None = None


def family_angles(first: Zone, second: Zone) -> tuple[float, ...]:
    """Return the angles between one cubic zone axis and those of the family of another.

    Parameters
    ----------
    first, second : tuple of 3 int
        Zone axes [u, v, w].

    Returns
    -------
    tuple of float
        Different angles in ascending order, 0 to 90 [deg]; the family is that of point group m-3m.

    Raises
    ------
    ValueError
        If an axis is not three integers, or all are zero.

    Examples
    --------
    >>> [round(angle, 2) for angle in family_angles((0, 0, 1), (0, 1, 3))]
    [18.43, 71.57, 90.0]
    """
    axis, other = check_zone_axis(first), check_zone_axis(second)
    family = np.array(list(permutations(other)))[:, None] * np.array(list(product((1, -1), repeat=3)))
    dots = np.unique(np.abs(family @ axis))[::-1]
    norm = np.sqrt(np.dot(axis, axis) * np.dot(other, other))
    return tuple(np.degrees(np.arccos(np.minimum(1.0, dots / norm))).tolist())


def behaviour_probabilities(posterior: Posterior, scheme: PatternScheme) -> np.ndarray:
    """Return a posterior as probabilities of the behaviours of a scheme.

    Parameters
    ----------
    posterior : Posterior
        By group or by behaviour; what is not named has probability zero. The behaviours of a group share its probability
        equally where they are not given.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    (n_behaviours,) ndarray of float64
        In the order of ``scheme.all_behaviours``, sum 1.

    Raises
    ------
    ValueError
        If a key is no group or behaviour of the scheme, a value is negative or not finite, or all are zero.
    """
    table: Mapping = posterior
    if isinstance(posterior, SpaceGroupPosterior):
        table = dict(zip(posterior.groups, posterior.probabilities.tolist(), strict=True))
    items = scheme.all_behaviours
    allowed = {*scheme.groups, *(item.name for item in items)}
    for key, value in table.items():
        if key not in allowed:
            raise ValueError(f"posterior names {key!r}, expected one of {sorted(allowed, key=str)}")
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"posterior of {key} is {value!r}, expected a probability")
    share = {number: sum(item.number == number for item in items) for number in scheme.groups}
    weight = np.array([table.get(b.name, 0.0) + table.get(b.number, 0.0) / share[b.number] for b in items])
    if weight.sum() <= 0:
        raise ValueError("posterior is zero for every group of the scheme, expected a positive sum")
    return weight / weight.sum()


def group_probabilities(posterior: Posterior, scheme: PatternScheme) -> np.ndarray:
    """Return a posterior as probabilities of the groups of a scheme, (n_groups,) ndarray of float64 with sum 1.

    See `behaviour_probabilities` for parameters and errors.
    """
    return _by_group(behaviour_probabilities(posterior, scheme), scheme)


def _by_group(weight: np.ndarray, scheme: PatternScheme) -> np.ndarray:
    total = np.zeros(len(scheme.groups))
    np.add.at(total, [scheme.groups.index(b.number) for b in scheme.all_behaviours], weight)
    return total


def entropy_bits(probability: np.ndarray) -> float:
    """Return the entropy of a distribution [bit]; weights need not sum to 1."""
    p = probability[probability > 0] / probability.sum()
    return float(-(p * np.log2(p)).sum())


def rank_next_axes(
    posterior: Posterior, scheme: PatternScheme, *, current_zone: Zone | None = None
) -> tuple[NextAxis, ...]:
    """Rank the zone axes of a scheme by what a pattern on them is expected to tell about the space group.

    Parameters
    ----------
    posterior : Posterior
        Probabilities of the groups, by number, or of the behaviours, by name; see `behaviour_probabilities`.
    scheme : PatternScheme
        The classes.
    current_zone : tuple of 3 int, optional
        Where the crystal is now; its family is left out, since that pattern is there already.

    Returns
    -------
    tuple of NextAxis
        Highest gain first; among equals the smallest tilt, then the shortest axis.

    Raises
    ------
    ValueError
        If the posterior does not fit the scheme, or the axis is none.

    Notes
    -----
    The gain of an axis is the mutual information of space group and class on that axis,
    ``H(G) - sum_c P(c) H(G | c)``: the kinds of 227 count in the prediction of the class, telling them apart is no gain.

    Examples
    --------
    After [001] of an fcc metal, four groups are left, and [013] decides:

    >>> from napari_sadp.labels.scheme import build_scheme
    >>> left = {221: 0.25, 225: 0.25, 227: 0.25, 229: 0.25}
    >>> best = rank_next_axes(left, build_scheme(), current_zone=(0, 0, 1))[0]
    >>> best.zone, round(best.gain_bits, 3), round(best.tilt_deg, 2)
    ((0, 1, 3), 2.0, 18.43)
    """
    weight = behaviour_probabilities(posterior, scheme)
    column = [scheme.groups.index(b.number) for b in scheme.all_behaviours]
    before = entropy_bits(_by_group(weight, scheme))
    current = None if current_zone is None else check_zone_axis(current_zone)
    found = []
    for z, zone in enumerate(scheme.zones):
        tilt = None if current is None else family_angles(current, zone)[0]
        if tilt is not None and sorted(map(abs, current)) == sorted(map(abs, zone)):
            continue
        joint = np.zeros((len(scheme), len(scheme.groups)))
        np.add.at(joint, (scheme.class_table[:, z], column), weight)
        seen = joint[joint.any(axis=1)]
        after = sum(float(row.sum()) * entropy_bits(row) for row in seen)
        found.append(NextAxis(zone, max(0.0, before - after), tilt))
    # rounded, so that equal gains that differ in the last bit do not hide the nearer axis
    return tuple(
        sorted(found, key=lambda item: (-round(item.gain_bits, 9), item.tilt_deg or 0.0, np.dot(item.zone, item.zone)))
    )  # fmt: skip
