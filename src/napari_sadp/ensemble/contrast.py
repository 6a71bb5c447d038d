"""What the intensities of a pattern say besides which spots are there: how bright its sublattices are.

The nodes of a lattice fall into four cosets by the parity of their indices. How bright these are against each other tells typical
structures apart that show the same spots: an ordered alloy (221) on [001] has a strong and a weak kind of spots, a simple metal
(225, 229) has not. That is knowledge about crystals, not symmetry; it needs examples (`napari_sadp.ensemble.views`) and can reach more
than spots and gaps alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry.results import PROFILE_ERROR

if TYPE_CHECKING:
    from napari_sadp.geometry.nodes import NodeMap

#: Spots of so many times the noise are seen.
SEEN_SNR = 6.0
#: Bounds of the weakest visible spot over the strongest: a pattern beyond them is taken for one at the bound.
_WEAKEST_RANGE = (1e-4, 0.3)
#: Distance that holds this share of the visible spots: farther out the mean would be one of noise.
REACH_QUANTILE = 0.9


def weakest_visible(nodes: NodeMap) -> float | None:
    """Return the intensity of the weakest spot that a pattern would show, over its strongest.

    Parameters
    ----------
    nodes : NodeMap
        Measured nodes with uncertainties.

    Returns
    -------
    float or None
        None where no intensity is known.
    """
    known = np.isfinite(nodes.sigma) & np.isfinite(nodes.intensity)
    intensity = nodes.intensity[known]
    strongest = float(np.max(intensity, initial=0.0))
    if strongest <= 0:
        return None
    # a strong spot's uncertainty is that of its profile, which says nothing about what is too weak to see
    own = PROFILE_ERROR * np.clip(intensity, 0, None)
    noise = np.sqrt(np.clip(nodes.sigma[known] ** 2 - own**2, 0, None))
    return float(np.clip(SEEN_SNR * np.quantile(noise, 0.25) / strongest, *_WEAKEST_RANGE))


def reach_of(square: np.ndarray) -> float:
    """Return the squared distance that holds most of the spots, from their squared distances; 0 without any."""
    if not len(square):
        return 0.0
    # the quantile by hand: numpy's takes longer than all the rest of a pattern
    place = np.arange(len(square))
    return float(np.interp(REACH_QUANTILE * (len(square) - 1), place, np.sort(square)))


def coset_contrast(
    indices: np.ndarray, intensity: np.ndarray, metric: np.ndarray, floor: float
) -> np.ndarray | None:
    """Return how bright each coset of a lattice is, by the parity of the indices.

    Parameters
    ----------
    indices : (n, 2) ndarray of int
        Nodes (m, n) in the reduced basis, without the origin; all nodes in view, dark ones too.
    intensity : (n,) ndarray of float
        Intensities.
    metric : (2, 2) ndarray of float
        Gram matrix of the basis.
    floor : float
        Intensity of the weakest spot that is seen.

    Returns
    -------
    (4,) ndarray of float64 or None
        Natural logarithm of the mean intensity of the nodes (even, even), (odd, even), (even, odd), (odd, odd), over that of all, out
        to the reach of the visible spots; 0 for a coset without a node there. None where no spot is seen.

    Examples
    --------
    >>> import numpy as np
    >>> nodes = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1), (2, 0), (-2, 0), (0, 2), (0, -2)])
    >>> bright = np.where(nodes.sum(axis=1) % 2, 0.1, 1.0)  # a weak superlattice
    >>> coset_contrast(nodes, bright, np.eye(2), 0.01).round(1).tolist()
    [0.4, -1.9, -1.9, 0.4]
    """
    seen = intensity > floor
    if not seen.any():
        return None
    square = ((indices @ metric) * indices).sum(axis=1)
    near = square <= reach_of(square[seen]) * (1 + 1e-9)
    # what is too weak to see is as good as half of what would be seen
    value = np.maximum(intensity[near], 0.5 * floor)
    coset = (indices[near] % 2) @ np.array([1, 2])
    number = np.bincount(coset, minlength=4)
    mean = np.bincount(coset, value, minlength=4) / np.maximum(number, 1)
    return np.where(number > 0, np.log(np.maximum(mean, 1e-300) / value.mean()), 0.0)


def measured_contrast(nodes: NodeMap, basis: np.ndarray) -> np.ndarray | None:
    """Return the contrast of a measured node map.

    Parameters
    ----------
    nodes : NodeMap
        Measured nodes.
    basis : (2, 2) ndarray of float
        Vectors of the lattice, rows.

    Returns
    -------
    (4,) ndarray of float64 or None
        See `coset_contrast`; None where nothing is seen.
    """
    known = np.isfinite(nodes.intensity)
    weakest = weakest_visible(nodes)
    if weakest is None:
        return None
    intensity = nodes.intensity[known]
    floor = weakest * float(intensity.max())
    return coset_contrast(nodes.indices[known], intensity, basis @ basis.T, floor)
