"""Figures of merit against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.evaluate.metrics import confusion_matrix, detection_auroc, share_of_hits, shares_by
from napari_sadp.models.calibrate import calibration_curve, calibration_error, calibration_error_by_chance


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 8, 60) / 8, rng.integers(2, 10, 40) / 8  # with ties
    pairs = [(o > i) + 0.5 * (o == i) for i in inside for o in outside]
    assert detection_auroc(inside, outside) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert detection_auroc([0, 1], [2, 3]) == 1
    assert detection_auroc([2, 3], [0, 1]) == 0
    assert np.isnan(detection_auroc([], [1]))


def test_confusion_matrix_has_truth_in_rows():
    assert confusion_matrix([0, 0, 2], [0, 1, 2], 3).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match="found has classes -1 to 0, expected 0 to 1"):
        confusion_matrix([0, 0], [-1, 0], 2)


def test_the_interval_is_over_structures():
    """Patterns of one structure that are all right or all wrong are worth one pattern."""
    rng = np.random.default_rng(1)
    right = rng.random(200) < 0.8
    single = share_of_hits(right, np.arange(200))
    repeated = share_of_hits(np.repeat(right, 25), np.repeat(np.arange(200), 25))
    assert repeated.value == pytest.approx(single.value)
    assert repeated.high - repeated.low == pytest.approx(single.high - single.low, rel=0.1)
    # that of a binomial distribution
    width = 2 * 1.96 * np.sqrt(single.value * (1 - single.value) / 200)
    assert single.high - single.low == pytest.approx(width, rel=0.1)
    assert (single.n, single.n_structures, repeated.n, repeated.n_structures) == (200, 200, 5000, 200)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        chance = rng.beta(6, 2, 60)  # structures differ
        hits = rng.random((60, 8)) < chance[:, None]
        share = share_of_hits(hits.ravel(), np.repeat(np.arange(60), 8), level=0.9, seed=seed)
        inside += share.low <= 0.75 <= share.high
    assert 0.83 < inside / 200 < 0.96


def test_shares_by_a_key():
    found = shares_by(np.array(["a", "b", "a"]), [1, 0, 0], ["x", "x", "y"])
    assert list(found) == ["a", "b"]
    assert found["a"].value == 0.5
    assert found["b"].n_structures == 1
    assert str(share_of_hits([], [])) == "-"
    with pytest.raises(ValueError, match="expected \\(n,\\) each"):
        share_of_hits([1, 0], [1])


def test_probabilities_that_are_just_right_show_an_error_on_few_patterns():
    # of one bin it is the mean absolute deviation of a binomial share, about sqrt(2 p (1 - p) / (pi n))
    mean, high = calibration_error_by_chance(np.full(400, 0.7))
    assert mean == pytest.approx(np.sqrt(2 * 0.7 * 0.3 / np.pi / 400), rel=0.1)
    assert high == pytest.approx(1.96 * np.sqrt(0.7 * 0.3 / 400), rel=0.15)
    # sure and right leaves nothing to chance; four times as many, half of it
    assert calibration_error_by_chance(np.ones(50)) == (0.0, 0.0)
    assert calibration_error_by_chance(np.full(1600, 0.7))[0] == pytest.approx(mean / 2, rel=0.15)
    assert np.isnan(calibration_error_by_chance(np.empty(0))).all()


def test_calibration_curve_by_hand():
    stated, right, counts = calibration_curve(np.array([0.1, 0.2, 0.9, 1.0]), np.array([0, 1, 1, 1]), 2)
    assert counts.tolist() == [2, 2]
    assert stated == pytest.approx([0.15, 0.95])
    assert right == pytest.approx([0.5, 1.0])
    assert calibration_error(np.array([0.1, 0.2, 0.9, 1.0]), np.array([0, 1, 1, 1]), 2) == pytest.approx(0.2)
    assert np.isnan(calibration_error(np.empty(0), np.empty(0, bool)))


def test_the_calibration_picture_joins_bins_of_few_patterns():
    from napari_sadp.evaluate.pictures import plot_calibration

    confidence = np.concatenate([np.linspace(0.2, 0.6, 6), np.full(12, 0.7), np.full(40, 0.95)])
    hits = np.concatenate([np.zeros(6), np.ones(12), np.ones(40)]).astype(bool)
    figure = plot_calibration({"chain": (confidence, hits), "none": (np.zeros(0), np.zeros(0, bool))})
    axes = figure.axes[0]
    chain, empty = (container.lines[0] for container in axes.containers)
    # six wrong and twelve right are one bin: two in three right, of a mean of 0.6
    assert chain.get_xdata() == pytest.approx([(confidence[:18]).mean(), 0.95])
    assert chain.get_ydata() == pytest.approx([12 / 18, 1.0])
    assert len(empty.get_xdata()) == 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["chain, 58", "none, 0"]
