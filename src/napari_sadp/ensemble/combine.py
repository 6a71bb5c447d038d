"""From class probabilities of several patterns to space-group probabilities of the crystal.

Takes probabilities, not networks. Two rules:

- ``"product"``: patterns are independent evidence about one crystal; likelihoods multiply, for each known structure of a
  group, and are then averaged over the structures, since what is too weak to see in one pattern is so in all.
- ``"mean"``: the mean of the posteriors of the single patterns by symmetry alone, as in the article. It is under-confident.

References
----------
Ra et al., RSC Adv. 11, 38307 (2021), section 3.2. doi:10.1039/d1ra07156d
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sadp._validate import check_option
from napari_sadp.ensemble.constants import PRIOR_NONE
from napari_sadp.ensemble.joint import Evidence, joint_posterior
from napari_sadp.labels.spacegroups import symbol

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme

Rule = Literal["product", "mean"]
RULES: tuple[str, ...] = ("product", "mean")

#: Bound on how much one pattern may say for or against "none".
_MAX_NONE_FACTOR = 1e3


@dataclass(frozen=True, eq=False)
class SpaceGroupPosterior:
    """Probabilities of the space groups of a scheme.

    Parameters
    ----------
    groups : tuple of int
        Space groups, most probable first.
    probabilities : (n_groups,) ndarray of float64
        Sum to 1, given that the crystal has one of the groups.
    rule : {"product", "mean"}
        How the patterns were combined.
    n_patterns : int
        Patterns used.
    none_of_these : float
        Probability that the crystal, taken as one, is none that the scheme knows.
    """

    groups: tuple[int, ...]
    probabilities: np.ndarray
    rule: str
    n_patterns: int
    none_of_these: float

    @property
    def symbols(self) -> tuple[str, ...]:
        """Short Hermann-Mauguin symbols in the order of `groups`."""
        return tuple(symbol(number) for number in self.groups)

    def probability(self, number: int) -> float:
        """Return the probability of one space group."""
        return float(self.probabilities[self.groups.index(number)])


def group_likelihood(
    class_probabilities: np.ndarray,
    scheme: PatternScheme,
    *,
    none_of_these: float = 0.0,
    surprise: float = 0.0,
) -> np.ndarray:
    """Return the likelihood of every space group given one pattern, by symmetry alone, up to a factor.

    Parameters
    ----------
    class_probabilities : (n_classes,) ndarray of float
        P(class | pattern) under an equal prior over the classes.
    scheme : PatternScheme
        The classes.
    none_of_these : float
        Probability that the pattern belongs to no class; that part says nothing about the groups.

    Returns
    -------
    (n_groups,) ndarray of float64
        ``sum_c P(class c | pattern) P(class c | group)``, zone axes of equal prior.

    Raises
    ------
    ValueError
        If the probabilities have the wrong shape, are negative, or all zero.
    """
    probability = _checked(class_probabilities, scheme)
    if not 0 <= none_of_these <= 1:
        raise ValueError(f"none_of_these is {none_of_these!r}, expected a probability")
    likelihood = scheme.class_given_group @ probability
    return (1 - none_of_these) * likelihood + none_of_these * likelihood.mean()


def _checked(class_probabilities: np.ndarray, scheme: PatternScheme) -> np.ndarray:
    """Return class probabilities of one pattern as a normalised array, or raise ValueError."""
    probability = np.asarray(class_probabilities, dtype=float)
    if probability.shape != (len(scheme),) or not np.all(probability >= 0) or probability.sum() <= 0:
        raise ValueError(
            f"class_probabilities has shape {probability.shape} and sum {probability.sum():g}, expected "
            f"({len(scheme)},) values >= 0, not all zero"
        )
    return probability / probability.sum()


def none_of_all(none: np.ndarray) -> float:
    """Return the probability that one crystal, which all patterns are of, is none of the scheme's.

    Parameters
    ----------
    none : (n_patterns,) ndarray of float
        That probability for each pattern alone.

    Returns
    -------
    float
        0 to 1; a single pattern says no more than a bounded factor.
    """
    prior = PRIOR_NONE / (1 - PRIOR_NONE)
    p = np.clip(none, 1e-9, 1 - 1e-9)
    factor = np.clip(p / (1 - p) / prior, 1 / _MAX_NONE_FACTOR, _MAX_NONE_FACTOR)
    odds = np.exp(np.log(prior) + np.log(factor).sum())
    return float(odds / (1 + odds))


def combine(
    class_probabilities: np.ndarray,
    scheme: PatternScheme,
    *,
    rule: Rule = "product",
    none_of_these: np.ndarray | None = None,
) -> SpaceGroupPosterior:
    """Combine patterns of one crystal on different zone axes.

    Parameters
    ----------
    class_probabilities : (n_patterns, n_classes) ndarray of float
        One row a pattern.
    scheme : PatternScheme
        The classes.
    rule : {"product", "mean"}
        How to combine.
    none_of_these : (n_patterns,) ndarray of float, optional
        For each pattern the probability that it belongs to no class; zero by default.

    Returns
    -------
    SpaceGroupPosterior
        Sorted by probability; equal prior over the groups, also when there is no pattern.

    Raises
    ------
    ValueError
        If the rule is unknown or the probabilities are none.

    Examples
    --------
    The article's example, [001] of a crystal of group 225 and then [013] with it:

    >>> import numpy as np
    >>> from napari_sadp.labels.scheme import build_scheme
    >>> scheme = build_scheme()
    >>> rows = np.eye(60)[[scheme.index_of["225", (0, 0, 1)], scheme.index_of["225", (0, 1, 3)]]]
    >>> found = combine(rows, scheme, rule="mean")
    >>> found.groups[0], found.probabilities.round(3).tolist()
    (225, [0.625, 0.125, 0.125, 0.125, 0.0])
    """
    check_option("rule", rule, RULES)
    rows = np.atleast_2d(np.asarray(class_probabilities, dtype=float))
    if rows.size == 0:
        rows = rows.reshape(0, len(scheme))
    none = np.zeros(len(rows)) if none_of_these is None else np.asarray(none_of_these, dtype=float)
    if len(none) != len(rows):
        raise ValueError(
            f"none_of_these has {len(none)} values, expected one for each of {len(rows)} patterns"
        )
    n_groups = len(scheme.groups)
    if len(rows) == 0:
        posterior = np.full(n_groups, 1 / n_groups)
    elif rule == "product":
        table = np.array([_checked(row, scheme) for row in rows])
        # a pattern that fits no class says nothing about the groups: all are as likely in its share
        table = (1 - none[:, None]) * table + none[:, None] / len(scheme)
        rest = none / len(scheme)
        evidence = [Evidence(np.append(row, last)) for row, last in zip(table, rest, strict=True)]
        posterior = joint_posterior(evidence, scheme).groups
    else:
        each = [group_likelihood(row, scheme, none_of_these=p) for row, p in zip(rows, none, strict=True)]
        posterior = np.mean([item / item.sum() for item in each], axis=0)
    return sorted_posterior(
        posterior, scheme, rule, len(rows), none_of_all(none) if len(none) else PRIOR_NONE
    )


def sorted_posterior(
    probabilities: np.ndarray, scheme: PatternScheme, rule: str, n_patterns: int, none_of_these: float
) -> SpaceGroupPosterior:
    """Return probabilities in the order of the scheme as a posterior, most probable group first.

    Parameters
    ----------
    probabilities : (n_groups,) ndarray of float
        Sum to 1.
    scheme : PatternScheme
        The classes.
    rule : str
        How the patterns were combined.
    n_patterns : int
        Patterns used.
    none_of_these : float
        Probability that the crystal is none that the scheme knows.

    Returns
    -------
    SpaceGroupPosterior
        Ties, exact but for rounding, in the order of the numbers.
    """
    order = np.lexsort((scheme.groups, -probabilities.round(12)))
    groups = tuple(scheme.groups[i] for i in order)
    return SpaceGroupPosterior(groups, probabilities[order], rule, n_patterns, none_of_these)
