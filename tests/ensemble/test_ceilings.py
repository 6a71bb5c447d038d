"""Every figure of what can be reached, exactly; an independent enumeration agrees."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from itertools import combinations

import pytest

from napari_sadp.ensemble.ceilings import KNOWN, axis_ceilings, ceiling, mean_rule
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.labels.spacegroups import behaviours

#: Percent for 1, 2, 3 patterns.
EXPECTED = {
    ("kinematic", "nothing"): (55.0, 75.0, 86.5),
    ("kinematic", "camera constant"): (55.0, 77.5, 88.1),
    ("kinematic", "zones"): (57.5, 77.2, 87.8),
    ("filled", "nothing"): (37.5, 50.5, 59.4),
    ("filled", "camera constant"): (37.5, 55.7, 65.0),
    ("filled", "zones"): (40.0, 54.0, 62.7),
}


@pytest.mark.parametrize(("seen", "known"), EXPECTED)
def test_accuracy_that_any_method_can_reach(seen, known):
    found = [round(100 * ceiling(n, seen=seen, known=known).accuracy, 1) for n in (1, 2, 3)]
    assert tuple(found) == EXPECTED[seen, known]


def test_one_pattern_by_its_axis():
    expected = {
        1.0: [(0, 1, 3)],
        0.8: [(0, 1, 1), (1, 1, 2), (1, 1, 4), (2, 3, 3)],
        2 / 3: [(0, 1, 2), (0, 2, 3)],
        0.6: [(1, 2, 3)],
        7 / 15: [(1, 2, 2), (1, 2, 4)],
        0.45: [(0, 1, 4)],
        0.4: [(0, 0, 1)],
        17 / 60: [(2, 2, 3)],
        0.2: [(1, 1, 1), (1, 1, 3), (1, 3, 3)],
    }
    found = axis_ceilings()
    assert found == {zone: pytest.approx(value) for value, zones in expected.items() for zone in zones}
    assert sum(found.values()) / len(found) == pytest.approx(ceiling(1).accuracy)


def test_what_an_honest_method_says_and_what_the_mean_rule_says():
    product = [ceiling(n).confidence for n in (1, 2, 3)]
    mean = [mean_rule(n) for n in (1, 2, 3)]
    assert [round(p, 2) for p in product] == [0.54, 0.74, 0.86]
    assert [round(m.confidence, 2) for m in mean] == [0.54, 0.54, 0.54]
    # it ranks well: with certain classes its first group is as often right as can be
    assert [round(100 * m.accuracy, 1) for m in mean] == [55.0, 75.0, 86.5]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("seen", ["kinematic", "filled"])
def test_a_shared_camera_constant_is_worth_more_than_the_axes(n, seen):
    value = {known: ceiling(n, seen=seen, known=known).accuracy for known in KNOWN}
    assert value["nothing"] < value["zones"] < value["camera constant"] < value["both"]


def test_against_an_enumeration_in_fractions():
    """Two patterns, scale-free, with exact arithmetic and dictionaries."""
    scheme = build_scheme()
    joint = defaultdict(lambda: defaultdict(Fraction))
    pairs = list(combinations(scheme.zones, 2))
    for number in scheme.groups:
        kinds = behaviours(number)
        for kind in kinds:
            for pair in pairs:
                seen = tuple(sorted(scheme.index_of[kind.name, zone] for zone in pair))
                joint[seen][number] += Fraction(1, len(kinds) * len(pairs) * len(scheme.groups))
    assert sum(max(row.values()) for row in joint.values()) == Fraction(3, 4)
    assert ceiling(2).accuracy == pytest.approx(0.75)


def test_two_groups_on_two_axes_by_hand():
    # [001] is the same square for 221 and 229; [013] differs: one pattern names half of the crystals on [013], and half
    # of the others by lot; two patterns name all
    scheme = build_scheme((221, 229), ((0, 0, 1), (0, 1, 3)))
    assert ceiling(1, scheme=scheme).accuracy == pytest.approx(0.75)
    assert ceiling(2, scheme=scheme).accuracy == pytest.approx(1.0)
    assert axis_ceilings(scheme) == pytest.approx({(0, 0, 1): 0.5, (0, 1, 3): 1.0})


def test_the_ratio_of_two_lattices_tells_groups_with_the_same_shapes():
    # [001] and [111] show a square and a hexagon for P, I and F; their spacings are as 1 : sqrt 2 (P), 1 : 1 (I), and
    # 1 : sqrt 2 (F), with P and F alike
    scheme = build_scheme((221, 225, 229), ((0, 0, 1), (1, 1, 1)))
    assert ceiling(2, scheme=scheme).accuracy == pytest.approx(1 / 3)
    assert ceiling(2, scheme=scheme, known="camera constant").accuracy == pytest.approx(2 / 3)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="n_patterns is 17, expected a whole number from 1 to 16"):
        ceiling(17)
    with pytest.raises(ValueError, match="n_patterns is 0"):
        mean_rule(0)
    with pytest.raises(ValueError, match=r"seen is 'all'.*'kinematic', 'filled'"):
        ceiling(1, seen="all")
    with pytest.raises(ValueError, match="known is 'axis'"):
        ceiling(1, known="axis")
