"""What any method can reach: how often spots and absences alone name the space group. Exact, by enumeration.

The groups are equally likely, and so are the extinction behaviours within a group (227 in thirds). A crystal keeps its
behaviour over all of its patterns. Patterns lie on different zone axes, every set of axes equally likely. A method sees
the class of every pattern, not the intensities; more than these figures can come only from typical structures.

Hypotheses about what is seen:

- ``"kinematic"``: every allowed spot and no other;
- ``"filled"``: multiple scattering lights every node that the allowed reflections span (the span rule), so that only the
  lattice is left.

What is known besides: ``"nothing"`` (every pattern of a scale of its own), ``"camera constant"`` (one unknown scale for
all patterns), ``"zones"`` (the zone axis of every pattern), ``"both"``.

References
----------
Ra et al., RSC Adv. 11, 38307 (2021), which gives 92.607 % over pattern classes. doi:10.1039/d1ra07156d
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sadp._validate import check_option
from napari_sadp.labels.lattice2d import gram
from napari_sadp.labels.scheme import build_scheme, present_basis

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme, Zone

Seen = Literal["kinematic", "filled"]
Known = Literal["nothing", "camera constant", "zones", "both"]
SEEN: tuple[str, ...] = ("kinematic", "filled")
KNOWN: tuple[str, ...] = ("nothing", "camera constant", "zones", "both")


@dataclass(frozen=True)
class Ceiling:
    """The best that can be reached.

    Parameters
    ----------
    n_patterns : int
        Patterns of one crystal.
    seen : {"kinematic", "filled"}
        Which spots are there.
    known : {"nothing", "camera constant", "zones", "both"}
        What is known besides the patterns.
    accuracy : float
        Share of crystals whose group the best rule names, in a tie by lot.
    confidence : float
        Mean posterior probability of the true group: what an honest method says.
    """

    n_patterns: int
    seen: str
    known: str
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class MeanRule:
    """What the mean of the posteriors of the single patterns reaches, kinematic, nothing known besides.

    Parameters
    ----------
    n_patterns : int
        Patterns of one crystal.
    accuracy : float
        Share of crystals whose group it ranks first, in a tie by lot.
    confidence : float
        Mean probability that it gives to the true group; the same for every number of patterns.
    """

    n_patterns: int
    accuracy: float
    confidence: float


def ceiling(
    n_patterns: int,
    *,
    scheme: PatternScheme | None = None,
    seen: Seen = "kinematic",
    known: Known = "nothing",
) -> Ceiling:
    """Compute how often the space group can be named.

    Parameters
    ----------
    n_patterns : int
        Patterns of one crystal on different zone axes.
    scheme : PatternScheme, optional
        Groups and axes; the article's by default.
    seen : {"kinematic", "filled"}
        Which spots are there.
    known : {"nothing", "camera constant", "zones", "both"}
        What is known besides the patterns.

    Returns
    -------
    Ceiling
        Exact but for rounding.

    Raises
    ------
    ValueError
        If there are fewer axes than patterns, or an option is unknown.

    Examples
    --------
    >>> round(ceiling(2).accuracy, 4), round(ceiling(2, seen="filled").accuracy, 4)
    (0.75, 0.505)
    """
    check_option("seen", seen, SEEN)
    check_option("known", known, KNOWN)
    scheme = build_scheme() if scheme is None else scheme
    joint = _joint(n_patterns, scheme, seen, known)
    return Ceiling(
        n_patterns,
        seen,
        known,
        accuracy=float(joint.max(axis=1).sum()),
        confidence=float((joint**2 / joint.sum(axis=1, keepdims=True)).sum()),
    )


def mean_rule(n_patterns: int, *, scheme: PatternScheme | None = None) -> MeanRule:
    """Compute what the mean rule of the article reaches with certain classes.

    Parameters
    ----------
    n_patterns : int
        Patterns of one crystal on different zone axes.
    scheme : PatternScheme, optional
        Groups and axes; the article's by default.

    Returns
    -------
    MeanRule
        Exact but for rounding.

    Raises
    ------
    ValueError
        If there are fewer axes than patterns.
    """
    scheme = build_scheme() if scheme is None else scheme
    axes = _axis_sets(n_patterns, len(scheme.zones))
    single = scheme.class_given_group / scheme.class_given_group.sum(axis=0)
    group, weight = _groups_and_weights(scheme)
    accuracy = confidence = 0.0
    for row, number, share in zip(scheme.class_table, group, weight, strict=True):
        mean = single[:, row[axes]].mean(axis=-1)  # (n_groups, n_sets)
        first = mean >= mean.max(axis=0) - 1e-12
        accuracy += share * float((first[number] / first.sum(axis=0)).mean())
        confidence += share * float(mean[number].mean())
    return MeanRule(n_patterns, accuracy, confidence)


def axis_ceilings(scheme: PatternScheme | None = None) -> dict[Zone, float]:
    """Return how often one kinematic pattern names the group, for each zone axis that it may lie on.

    Parameters
    ----------
    scheme : PatternScheme, optional
        Groups and axes; the article's by default.

    Returns
    -------
    dict of zone axis to float
        Share of crystals whose group the best rule names without knowing the axis, in a tie by lot; the mean over the
        axes is the ceiling of one pattern.
    """
    scheme = build_scheme() if scheme is None else scheme
    table = scheme.class_given_group
    first = table >= table.max(axis=0) - 1e-12
    group, weight = _groups_and_weights(scheme)
    hit = (first / first.sum(axis=0))[group[:, None], scheme.class_table]  # (n_behaviours, n_zones)
    return dict(zip(scheme.zones, (weight @ hit).tolist(), strict=True))


def _joint(n_patterns: int, scheme: PatternScheme, seen: str, known: str) -> np.ndarray:
    """Return the probability of every outcome together with every group, (n_outcomes, n_groups) ndarray, sum 1."""
    axes = _axis_sets(n_patterns, len(scheme.zones))
    kinds = _kinds(scheme, seen)[:, axes]  # (n_behaviours, n_sets, n_patterns)
    if known in ("camera constant", "both"):
        scale = _squared_scales(scheme)[:, axes]
        scale //= np.gcd.reduce(scale, axis=-1, keepdims=True)  # the length of the cell edge is unknown
        kinds = kinds * (scale.max() + 1) + scale
    if known in ("zones", "both"):
        which = np.broadcast_to(np.arange(len(axes)), kinds.shape[:2])
    else:
        # nobody knows which axis is which: patterns are a bag
        kinds, which = np.sort(kinds, axis=-1), np.zeros(kinds.shape[:2], dtype=int)
    outcomes = np.concatenate([which[..., None], kinds], axis=-1).reshape(-1, n_patterns + 1)
    _, outcome = np.unique(outcomes, axis=0, return_inverse=True)
    joint = np.zeros((outcome.max() + 1, len(scheme.groups)))
    group, weight = _groups_and_weights(scheme)
    np.add.at(
        joint, (outcome.reshape(-1), np.repeat(group, len(axes))), np.repeat(weight, len(axes)) / len(axes)
    )
    return joint


def _axis_sets(n_patterns: int, n_zones: int) -> np.ndarray:
    """Return every set of different axes, (n_sets, n_patterns) ndarray of int."""
    if isinstance(n_patterns, bool) or not isinstance(n_patterns, int) or not 1 <= n_patterns <= n_zones:
        raise ValueError(
            f"n_patterns is {n_patterns!r}, expected a whole number from 1 to {n_zones} zone axes"
        )
    return np.array(list(combinations(range(n_zones), n_patterns)))


def _groups_and_weights(scheme: PatternScheme) -> tuple[np.ndarray, np.ndarray]:
    """Return index of the group and prior probability of every behaviour, (n_behaviours,) ndarrays."""
    items = scheme.all_behaviours
    group = np.array([scheme.groups.index(b.number) for b in items])
    weight = np.array([1 / (len(scheme.behaviours_of(b.number)) * len(scheme.groups)) for b in items])
    return group, weight


def _kinds(scheme: PatternScheme, seen: str) -> np.ndarray:
    """Return a number for what every behaviour shows on every axis, (n_behaviours, n_zones) ndarray of int."""
    if seen == "kinematic":
        return scheme.class_table
    shapes: dict[tuple, int] = {}
    looks = [item.appearance for item in scheme.classes]
    number = np.array([shapes.setdefault((look.shape, look.hand), len(shapes)) for look in looks])
    return number[scheme.class_table]


@lru_cache(maxsize=8)
def _squared_scales(scheme: PatternScheme) -> np.ndarray:
    """Return the squared size of the present lattices, (n_behaviours, n_zones) ndarray of int.

    In units of the shape's Gram matrix over the squared edge of the reciprocal cell, hence whole numbers; between patterns
    of one crystal only their ratio is seen.
    """
    metric = np.eye(3, dtype=int)
    sizes = [
        [gram(present_basis(item, zone), metric) for zone in scheme.zones] for item in scheme.all_behaviours
    ]
    return np.gcd.reduce(np.array(sizes), axis=-1)
