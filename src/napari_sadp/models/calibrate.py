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
    return calibration_error(probability.max(axis=1), probability.argmax(axis=1) == labels, n_bins)


def calibration_curve(
    confidence: np.ndarray, hits: np.ndarray, n_bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare stated probabilities with how often they are right.

    Parameters
    ----------
    confidence : (n,) ndarray of float
        Probability stated, 0 to 1.
    hits : (n,) ndarray of bool
        Whether it was right.
    n_bins : int
        Bins of equal width in confidence.

    Returns
    -------
    stated, right : (n_bins,) ndarray of float64
        Mean confidence and share of hits of each bin; nan in empty ones.
    counts : (n_bins,) ndarray of int
        Patterns in each.
    """
    bins = np.clip((np.asarray(confidence) * n_bins).astype(int), 0, n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    filled = np.where(counts, counts, np.nan)
    stated = np.bincount(bins, weights=confidence, minlength=n_bins) / filled
    right = np.bincount(bins, weights=np.asarray(hits, dtype=float), minlength=n_bins) / filled
    return stated, right, counts


def calibration_error(confidence: np.ndarray, hits: np.ndarray, n_bins: int = 15) -> float:
    """Return the mean distance of the two curves of `calibration_curve`, weighted by the counts; nan without patterns."""
    stated, right, counts = calibration_curve(confidence, hits, n_bins)
    if not counts.sum():
        return float("nan")
    return float(np.nansum(np.abs(stated - right) * counts) / counts.sum())


def calibration_error_by_chance(
    confidence: np.ndarray, n_bins: int = 15, *, draws: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Return the calibration error that probabilities show which are stated just right: few patterns in a bin are right too often or too seldom.

    Parameters
    ----------
    confidence : (n,) ndarray of float
        Probability stated, 0 to 1.
    n_bins : int
        Bins of equal width in confidence.
    draws : int
        How often the patterns are drawn.
    seed : int
        Of the draws.

    Returns
    -------
    mean, high : float
        Its mean, and what it exceeds in one of twenty cases; nan without patterns.
    """
    confidence = np.asarray(confidence, dtype=float)
    if not len(confidence):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    errors = [
        calibration_error(confidence, rng.random(len(confidence)) < confidence, n_bins) for _ in range(draws)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))
