"""What known structures show, so that an invisible superlattice does not count as proof of its absence.

By symmetry every reflection that is allowed is there. In a real structure some are too weak to see, and then the crystal looks
like another group on *every* axis: FeCo (221) like a body-centred metal. So the likelihood of a group is a mean over structures of the product over
patterns, not a product of means. The table of structures (training formulas of the catalogue at three visibility
thresholds) ships with the package.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from napari_sadp.labels.spacegroups import behaviours

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme


@lru_cache(maxsize=4)
def _table(version: str, n_zones: int) -> dict[str, np.ndarray] | None:
    """Return for each behaviour P(class | structure, threshold), (n, n_classes), or None for another scheme."""
    path = files("napari_sadp").joinpath("data/visible_classes.npz")
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as packed:
        if str(packed["version"]) != version:
            return None
        counts, names = packed["counts"].astype(float), packed["behaviour"]
    flat = counts.reshape(-1, counts.shape[-1])
    flat /= n_zones
    # on some axes a structure looks like no class of the scheme; what is taken for a class there may be any
    flat += (1 - flat.sum(axis=1, keepdims=True)) / flat.shape[1]
    owner = np.repeat(names, counts.shape[1])
    return {str(name): flat[owner == name] for name in np.unique(names)}


def joint_group_likelihood(
    class_probabilities: np.ndarray, scheme: PatternScheme, surprise: float
) -> np.ndarray:
    """Return the likelihood of every space group given all patterns of one crystal, up to a factor.

    Parameters
    ----------
    class_probabilities : (n_patterns, n_classes) ndarray of float
        P(class | pattern) under an equal prior over the classes; rows sum to 1.
    scheme : PatternScheme
        The classes.
    surprise : float
        Share of a uniform distribution in every pattern.

    Returns
    -------
    (n_groups,) ndarray of float64
        ``mean_k prod_i sum_c P(c | pattern i) P(c | structure k)`` over structures k of the group, the largest 1; from
        symmetry alone (one ideal structure per behaviour) where the table does not cover the scheme.
    """
    table = _table(scheme.version, len(scheme.zones))
    rows = (1 - surprise) * class_probabilities + surprise / class_probabilities.shape[1]
    logs = np.empty(len(scheme.groups))
    for index, number in enumerate(scheme.groups):
        parts = []
        for behaviour in behaviours(number):
            known = (
                scheme.class_given_behaviour[behaviour.name][None] if table is None else table[behaviour.name]
            )
            # a sum of logarithms, since the product over a long scan underflows
            each = np.log(known @ rows.T).sum(axis=1)
            parts.append(logsumexp(each) - np.log(len(each)))
        logs[index] = logsumexp(parts) - np.log(len(parts))
    return np.exp(logs - logs.max())
