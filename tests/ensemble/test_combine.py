from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.ensemble.combine import combine, group_likelihood
from napari_sadp.labels.scheme import build_scheme


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


def rows(scheme, *members):
    return np.eye(len(scheme))[[scheme.index_of[m] for m in members]]


def test_the_article_s_example_by_the_mean_rule(scheme):
    """[001] of a 225 crystal: 25 % each for four groups; with [013]: 62.5 and 12.5 %."""
    one = combine(rows(scheme, ("225", (0, 0, 1))), scheme, rule="mean")
    assert one.groups == (221, 225, 227, 229, 213)
    assert one.probabilities == pytest.approx([0.25] * 4 + [0.0])
    both = combine(rows(scheme, ("225", (0, 0, 1)), ("225", (0, 1, 3))), scheme, rule="mean")
    assert both.groups[0] == 225
    assert both.probabilities == pytest.approx([0.625, 0.125, 0.125, 0.125, 0.0])


def test_the_product_rule_decides_the_same_example(scheme):
    found = combine(rows(scheme, ("225", (0, 0, 1)), ("225", (0, 1, 3))), scheme, rule="product")
    assert found.groups[0] == 225
    assert found.probability(225) > 0.95
    assert found.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("rule", ["product", "mean"])
def test_order_does_not_matter(scheme, rule):
    table = rows(scheme, ("227a", (0, 1, 1)), ("225", (0, 0, 1)), ("229", (1, 1, 1)))
    first, second = combine(table, scheme, rule=rule), combine(table[::-1], scheme, rule=rule)
    assert first.groups == second.groups
    assert first.probabilities == pytest.approx(second.probabilities)


def test_no_pattern_means_the_prior(scheme):
    found = combine([], scheme)
    assert found.n_patterns == 0
    assert found.probabilities == pytest.approx([0.2] * 5)


def test_a_pattern_that_fits_nothing_says_nothing(scheme):
    known = rows(scheme, ("225", (0, 1, 3)))
    alone = combine(known, scheme)
    table = np.concatenate([known, rows(scheme, ("229", (0, 1, 3)))])
    with_stranger = combine(table, scheme, none_of_these=[0.0, 1.0])
    assert with_stranger.groups[0] == alone.groups[0]
    assert with_stranger.probabilities == pytest.approx(alone.probabilities)
    assert with_stranger.none_of_these == 0.0


def test_one_wrong_pattern_among_three_does_not_decide(scheme):
    table = rows(scheme, ("225", (0, 1, 3)), ("225", (1, 1, 2)), ("229", (0, 1, 3)))
    assert combine(table, scheme).groups[0] == 225


def test_likelihood_of_a_certain_class_is_the_share_of_its_axes(scheme):
    likelihood = group_likelihood(rows(scheme, ("213", (0, 0, 1)))[0], scheme)
    assert likelihood == pytest.approx([1 / 16, 0, 0, 0, 0])


@pytest.mark.parametrize("bad", [np.zeros(60), np.full(60, -1.0), np.ones(59), np.full(60, np.nan)])
def test_wrong_probabilities_are_refused(scheme, bad):
    with pytest.raises(ValueError, match="class_probabilities"):
        group_likelihood(bad, scheme)


def test_wrong_options_are_refused(scheme):
    with pytest.raises(ValueError, match=r"rule is 'vote'.*'product', 'mean'"):
        combine(rows(scheme, ("225", (0, 0, 1))), scheme, rule="vote")
    with pytest.raises(ValueError, match="none_of_these"):
        combine(rows(scheme, ("225", (0, 0, 1))), scheme, none_of_these=[0.1, 0.2])
    with pytest.raises(ValueError, match="none_of_these"):
        group_likelihood(np.ones(60), scheme, none_of_these=1.5)
