"""The numbers of the article and those that follow from symmetry (60 classes, coincidences, ceilings)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from napari_sadp.labels.scheme import build_scheme, zone_axis_appearance
from napari_sadp.labels.spacegroups import CUBIC_GROUPS, CUBIC_ZONE_AXES, behaviours


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


def groups_with(scheme, name, zone):
    members = scheme.classes[scheme.index_of[name, zone]].members
    return {b.name for b, z in members}


def test_112_labels_become_60_classes(scheme):
    assert len(scheme.index_of) == 7 * 16 == 112
    assert len(scheme) == 60
    assert Counter(item.type for item in scheme.classes) == {"A": 2, "B": 30, "C": 1, "D": 27}
    assert len({item.appearance.shape for item in scheme.classes}) == 30
    assert sum(len({b.number for b, _ in item.members}) == 1 for item in scheme.classes) == 41


@pytest.mark.parametrize(("radius", "count"), [(2, 46), (3, 54), (4, 57), (6, 59), (7, 60), (10, 60)])
def test_classes_against_field_of_view(radius, count):
    assert len(build_scheme(field_of_view=radius)) == count


def test_chirality_adds_one_class_and_one_shape():
    chiral = build_scheme(chirality=True)
    assert len(chiral) == 61
    assert len({(c.appearance.shape, c.appearance.hand) for c in chiral.classes}) == 31
    # the mirror images are I and P lattices along [123]
    assert chiral.index_of["229", (1, 2, 3)] != chiral.index_of["221", (1, 2, 3)]


def test_coincidences(scheme):
    everything = {"213", "221", "225", "227a", "227b", "227g", "229"}
    assert groups_with(scheme, "225", (0, 0, 1)) == everything - {"213"}
    assert groups_with(scheme, "213", (0, 0, 1)) == {"213"}
    for zone in [(1, 1, 1), (1, 1, 3), (1, 3, 3)]:
        assert groups_with(scheme, "225", zone) == everything
    assert groups_with(scheme, "221", (0, 1, 1)) == {"221", "229"}
    assert groups_with(scheme, "225", (0, 1, 2)) == {"221", "225"}
    members = scheme.classes[scheme.index_of["229", (0, 1, 4)]].members
    assert {(b.name, z) for b, z in members} == {
        *((name, (0, 1, 4)) for name in ("229", "227a", "227b")),
        *((name, (2, 2, 3)) for name in ("213", "221", "225")),
    }


def test_the_shape_of_two_axes_and_what_222_tells(scheme):
    # rectangles of 2 : 9 with an angle: the shape that [014] and [223] share
    assert scheme.classes[scheme.index_of["229", (0, 1, 4)]].appearance.shape == (2, 1, 9)
    # LiGa (227a) and Zr4Pt2N (227g) on [112] differ by 222 and its like
    one, other = (scheme.classes[scheme.index_of[name, (1, 1, 2)]] for name in ("227a", "227g"))
    assert one.appearance.shape == other.appearance.shape
    # 222 is the spot of the plane nearest to the beam that 227g shows and 227a does not
    assert set(one.appearance.absent) > set(other.appearance.absent)


def test_013_alone_is_unique_for_every_group(scheme):
    def unique(zone):
        return all(
            {b.number for b, _ in scheme.classes[scheme.index_of[b0.name, zone]].members} == {b0.number}
            for number in scheme.groups
            for b0 in behaviours(number)
        )

    assert [zone for zone in CUBIC_ZONE_AXES if unique(zone)] == [(0, 1, 3)]


def test_groups_197_and_229_look_the_same_on_every_axis():
    for zone in CUBIC_ZONE_AXES:
        looks = {zone_axis_appearance(behaviours(n)[0], zone) for n in (197, 229)}
        assert len(looks) == 1


def test_36_cubic_groups_fall_into_17_extinction_classes():
    patterns = {}
    for number in CUBIC_GROUPS:
        general = behaviours(number)[-1]  # the general conditions of 227
        looks = tuple(zone_axis_appearance(general, zone, field_of_view=6) for zone in CUBIC_ZONE_AXES)
        patterns.setdefault(looks, set()).add(number)
    assert len(patterns) == 17
    assert {frozenset(v) for v in patterns.values()} >= {
        frozenset({195, 200, 207, 215, 221}),
        frozenset({197, 199, 204, 211, 217, 229}),
        frozenset({203, 227}),
        frozenset({212, 213}),
        frozenset({230}),
    }
    assert len({look for looks in patterns for look in looks}) == 132


def test_ceiling_of_one_pattern_is_55_percent(scheme):
    table = scheme.class_given_group
    assert table.sum(axis=1) == pytest.approx(1)
    assert table.max(axis=0).sum() / len(scheme.groups) == pytest.approx(0.55, abs=5e-4)


def test_labels_are_stable(scheme):
    """Weights depend on the order; a change of it needs a new SCHEME_VERSION."""
    assert scheme.version == "1:213,221,225,227,229:16:8:60"
    assert scheme.labels[:6] == ("A1-0", "A1-1", "B1-0", "B2-0", "B3-0", "B3-1")
    assert scheme.labels[-1] == "D12-3"
    assert scheme.labels[scheme.index_of["225", (0, 1, 1)]] == "D4-0"
    assert scheme.labels[scheme.index_of["227a", (0, 1, 1)]] == "D4-3"


def test_the_version_names_axes_that_are_not_the_sixteen():
    """Weights made for other axes must not pass for these, however many there are."""
    axes = ((0, 0, 1), (0, 1, 1)), ((0, 0, 1), (1, 1, 1))
    versions = [build_scheme((225,), zones).version for zones in axes]
    assert versions == ["1:225:0_0_1,0_1_1:8:2", "1:225:0_0_1,1_1_1:8:2"]


@pytest.mark.parametrize("groups", [(225, 62), (300,), ("225",)])
def test_non_cubic_groups_are_refused(groups):
    with pytest.raises(ValueError, match="expected a cubic one"):
        build_scheme(groups)


def test_appearance_does_not_depend_on_the_setting_of_the_axis():
    group = behaviours(225)[0]
    for zone in [(0, 1, 3), (3, 0, 1), (0, -1, 3), (-3, 1, 0)]:
        assert zone_axis_appearance(group, zone) == zone_axis_appearance(group, (0, 1, 3))
    assert np.array_equal(build_scheme().class_given_group, build_scheme().class_given_group)
