"""Calibration of class probabilities: temperature scaling, and how far confidence is from accuracy.

References
----------
Guo et al., On Calibration of Modern Neural Networks, ICML (2017). doi:10.48550/arXiv.1706.04599
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the negative log-likelihood.

    Parameters
    ----------
    logits : (n, n_classes) ndarray of float
        Outputs of the network.
    labels : (n,) ndarray of int
        True classes.

    Returns
    -------
    float
        0.2 to 20; divide the logits by it.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.2), np.log(20)), method="bounded").x))


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, temperature: float, n_bins: int = 15
) -> float:
    """Return the expected calibration error of the most probable class.

    Parameters
    ----------
    logits : (n, n_classes) ndarray of float
        Outputs of the network.
    labels : (n,) ndarray of int
        True classes.
    temperature : float
        Divides the logits.
    n_bins : int
        Bins of equal width in confidence.

    Returns
    -------
    float
        Mean distance of accuracy and confidence over the bins, weighted by their counts.
    """
    probability = np.exp(log_softmax(logits / temperature, axis=1))
    confidence, hit = probability.max(axis=1), probability.argmax(axis=1) == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gap = [abs(hit[bins == b].sum() - confidence[bins == b].sum()) for b in range(n_bins)]
    return float(sum(gap) / len(labels))
