"""Which space groups no set of zone-axis patterns can tell apart, by spots and absences alone.

Screw axes, mirrors and centring leave the same absences in several groups (221, 195, 200, 207, 215 all show every spot);
the honest answer names the whole set. What separates its members is intensity, convergent-beam symmetry or chemistry.

References
----------
International Tables for Crystallography A (2016), section 1.6.4, extinction symbols.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from napari_sadp.ensemble.next_axis import group_probabilities
from napari_sadp.labels.scheme import PatternScheme, build_scheme
from napari_sadp.labels.spacegroups import CUBIC_GROUPS, behaviours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.ensemble.next_axis import Posterior


@dataclass(frozen=True)
class GroupSet:
    """Space groups with the same patterns on every axis.

    Parameters
    ----------
    groups : tuple of int
        The groups, in the order of the scheme.
    probability : float or None
        Probability that the crystal has one of them; None where no posterior was given.
    """

    groups: tuple[int, ...]
    probability: float | None = None


def indistinguishable(
    scheme: PatternScheme | Sequence[int], posterior: Posterior | None = None
) -> tuple[GroupSet, ...]:
    """Divide space groups into the sets that show the same patterns on every zone axis of a scheme.

    Parameters
    ----------
    scheme : PatternScheme or sequence of int
        The groups and axes; for cubic group numbers, the sixteen axes.
    posterior : Posterior, optional
        Probabilities of the groups, see `rank_next_axes`; the sets are then sorted by probability.

    Returns
    -------
    tuple of GroupSet
        Every group of the scheme is in exactly one of them.

    Raises
    ------
    ValueError
        If a group is not cubic, or the posterior does not fit the scheme.

    Notes
    -----
    Groups are compared by their general reflection conditions, 227 therefore by those of 227g: what special positions
    take away from Fd-3m (227) they take away from Fd-3 (203) as well.

    Examples
    --------
    >>> [found.groups for found in indistinguishable((212, 213, 225, 202))]
    [(212, 213), (225, 202)]
    """
    if not isinstance(scheme, PatternScheme):
        scheme = build_scheme(tuple(scheme))
    sets: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number in scheme.groups:
        general = behaviours(number)[-1].name
        sets[tuple(scheme.index_of[general, zone] for zone in scheme.zones)].append(number)
    if posterior is None:
        return tuple(GroupSet(tuple(groups)) for groups in sets.values())
    weight = dict(zip(scheme.groups, group_probabilities(posterior, scheme).tolist(), strict=True))
    found = [GroupSet(tuple(groups), sum(weight[g] for g in groups)) for groups in sets.values()]
    return tuple(sorted(found, key=lambda item: -item.probability))


@lru_cache(maxsize=1)
def _cubic_sets() -> dict[int, tuple[int, ...]]:
    return {g: found.groups for found in indistinguishable(CUBIC_GROUPS) for g in found.groups}


def same_patterns(number: int) -> tuple[int, ...]:
    """Return the other cubic space groups whose zone-axis patterns have the same spots and absences on every axis.

    Parameters
    ----------
    number : int
        A cubic space group.

    Returns
    -------
    tuple of int
        Groups that no set of such patterns tells from it.

    Raises
    ------
    ValueError
        If the group is not cubic.
    """
    sets = _cubic_sets()
    if number not in sets:
        raise ValueError(f"number is {number!r}, expected a cubic space group, 195 to 230")
    return tuple(g for g in sets[number] if g != number)
