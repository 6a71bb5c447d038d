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
    # multiple scattering may fill the gaps of 227, and ordered alloys (221) may hide their superlattice: no certainty
    assert set(found.groups[1:3]) == {221, 227}
    assert 0.5 < found.probability(225) < 0.99
    assert found.probabilities.sum() == pytest.approx(1)


def test_another_axis_decides_between_diamond_and_its_lookalikes(scheme):
    two = rows(scheme, ("227a", (0, 1, 1)), ("227a", (0, 1, 3)))
    three = np.concatenate([two, rows(scheme, ("227a", (1, 1, 2)))])
    assert combine(two, scheme).groups[0] == combine(three, scheme).groups[0] == 227
    assert combine(three, scheme).probability(227) > combine(two, scheme).probability(227) > 0.7


def test_symmetry_alone_where_the_table_does_not_cover_the_scheme():
    other = build_scheme((225, 229))
    table = np.eye(len(other))[[other.index_of["225", (0, 1, 3)]]]
    found = combine(table, other)
    assert found.groups == (225, 229)
    assert found.probability(225) > 0.9


def test_a_long_scan_does_not_underflow(scheme):
    table = np.repeat(rows(scheme, ("225", (0, 1, 3))), 1500, axis=0)
    assert np.isfinite(combine(table, scheme).probabilities).all()


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
    assert with_stranger.probabilities == pytest.approx(alone.probabilities, abs=0.02)


def test_none_is_judged_for_the_crystal_as_a_whole(scheme):
    table = rows(scheme, *[("225", (0, 1, 3))] * 4)
    assert combine(table, scheme, none_of_these=np.zeros(4)).none_of_these < 1e-6
    # many doubtful patterns do not add up to a sure one
    assert combine(table, scheme, none_of_these=np.full(4, 0.8)).none_of_these > 0.99
    # one stranger against one that fits leaves the prior
    assert combine(table[:2], scheme, none_of_these=[0.0, 1.0]).none_of_these == pytest.approx(0.05)


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
