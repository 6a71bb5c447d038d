"""Figures of merit from plain arrays of what is true and what was found.

References
----------
Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve (1982).
doi:10.1148/radiology.143.1.7063747
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from napari_sadp._validate import check_range

if TYPE_CHECKING:
    from collections.abc import Hashable

#: Resamplings behind an interval.
N_RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """A share of hits, with an interval.

    Parameters
    ----------
    value : float
        0 to 1; nan where nothing was counted.
    low, high : float
        Ends of the interval.
    n : int
        Patterns.
    n_structures : int
        Structures that they are of.
    """

    value: float
    low: float
    high: float
    n: int
    n_structures: int

    def __str__(self) -> str:
        if not self.n:
            return "-"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def share_of_hits(hits: np.ndarray, structures: np.ndarray, *, level: float = 0.95, seed: int = 0) -> Share:
    """Return the share of hits, with a bootstrap interval over *structures*.

    Patterns of one structure are alike, so that an interval over patterns would be too narrow.

    Parameters
    ----------
    hits : (n,) array_like of bool
        Whether each pattern was right.
    structures : (n,) array_like
        Structure of each.
    level : float
        Probability that the interval is to hold.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Share
        The interval is that of percentiles.

    Raises
    ------
    ValueError
        If the lengths differ or the level is out of range.
    """
    check_range("level", level, 0, 1)
    hits, structures = np.asarray(hits, dtype=float), np.asarray(structures)
    if hits.ndim != 1 or hits.shape != structures.shape:
        raise ValueError(
            f"hits and structures have shapes {hits.shape} and {structures.shape}, expected (n,) each"
        )
    if not len(hits):
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    names, member = np.unique(structures, return_inverse=True)
    right, count = np.bincount(member, weights=hits), np.bincount(member)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_RESAMPLES)
    means = (times @ right) / (times @ count)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Share(float(hits.mean()), float(low), float(high), len(hits), len(names))


def shares_by(
    keys: np.ndarray, hits: np.ndarray, structures: np.ndarray, **options: Any
) -> dict[Hashable, Share]:
    """Return the share of hits for each value of a key, in the order of the values.

    Parameters
    ----------
    keys : (n,) array_like
        What to split by.
    hits, structures
        See `share_of_hits`.
    **options
        Of `share_of_hits`.

    Returns
    -------
    dict
        One `Share` a value.
    """
    keys, hits, structures = np.asarray(keys), np.asarray(hits), np.asarray(structures)
    return {
        key: share_of_hits(hits[keys == key], structures[keys == key], **options)
        for key in np.unique(keys).tolist()
    }


def confusion_matrix(truth: np.ndarray, found: np.ndarray, n_classes: int) -> np.ndarray:
    """Count the patterns of each true class (rows) by the class found (columns).

    Parameters
    ----------
    truth, found : (n,) array_like of int
        Classes from 0.
    n_classes : int
        How many there are.

    Returns
    -------
    (n_classes, n_classes) ndarray of int
        Counts.

    Raises
    ------
    ValueError
        If a class is out of range.
    """
    truth, found = np.asarray(truth, dtype=int), np.asarray(found, dtype=int)
    for name, value in (("truth", truth), ("found", found)):
        if value.size and not (value.min() >= 0 and value.max() < n_classes):
            raise ValueError(
                f"{name} has classes {value.min()} to {value.max()}, expected 0 to {n_classes - 1}"
            )
    return np.bincount(truth * n_classes + found, minlength=n_classes**2).reshape(n_classes, n_classes)


def detection_auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the area under the curve of true against false alarms, as a score tells two groups apart.

    Parameters
    ----------
    inside : (n,) array_like of float
        Scores of what the score is to leave alone.
    outside : (m,) array_like of float
        Scores of what it is to find.

    Returns
    -------
    float
        Probability that one outside has the higher score than one inside, ties counting half; nan if either is empty.
    """
    inside, outside = np.asarray(inside, dtype=float), np.asarray(outside, dtype=float)
    if not (len(inside) and len(outside)):
        return float("nan")
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2) / (len(inside) * len(outside)))
