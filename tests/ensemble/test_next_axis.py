from __future__ import annotations

from math import log2

import numpy as np
import pytest

from napari_sadp.ensemble.combine import combine
from napari_sadp.ensemble.next_axis import (
    behaviour_probabilities,
    family_angles,
    group_probabilities,
    rank_next_axes,
)
from napari_sadp.labels.scheme import build_scheme

AFTER_001 = {221: 0.25, 225: 0.25, 227: 0.25, 229: 0.25}


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


def gains(posterior, scheme, **options):
    return {axis.zone: axis.gain_bits for axis in rank_next_axes(posterior, scheme, **options)}


def test_after_001_the_gains_by_hand(scheme):
    found = gains(AFTER_001, scheme)
    assert found[0, 1, 3] == pytest.approx(2.0)  # names all four
    assert found[0, 1, 1] == pytest.approx(1.5)  # 221 = 229 stay together: H(1/2, 1/4, 1/4)
    assert found[1, 1, 1] == pytest.approx(0.0)  # the same for all
    assert found[0, 0, 1] == pytest.approx(0.0)  # seen already
    # [012]: {221 225} are named as a pair, 227g alone, 229 with 227a and 227b: 1/4 and 2/12, one of 5/12
    left = -(0.6 * log2(0.6) + 0.4 * log2(0.4))
    assert found[0, 1, 2] == pytest.approx(2 - 0.5 * 1 - 5 / 12 * left)


def test_without_knowledge_013_is_best_and_worth_all_there_is(scheme):
    best = rank_next_axes(dict.fromkeys(scheme.groups, 1.0), scheme)[0]
    assert (best.zone, best.tilt_deg) == ((0, 1, 3), None)
    assert best.gain_bits == pytest.approx(log2(5))


def test_the_kinds_of_227_are_no_gain(scheme):
    assert max(gains({227: 1.0}, scheme).values()) == pytest.approx(0.0)
    # 225 or diamond: [011] tells; 225 or spinel: by one reflection less
    for kind in ("227a", "227b", "227g"):
        assert gains({"225": 0.5, kind: 0.5}, scheme)[0, 1, 1] == pytest.approx(1.0)


def test_no_gain_exceeds_the_entropy_or_is_negative(scheme):
    rng = np.random.default_rng(5)
    for _ in range(20):
        p = rng.dirichlet(np.full(5, 0.5))
        entropy = -(p * np.log2(p)).sum()
        values = np.array(list(gains(dict(zip(scheme.groups, p, strict=True)), scheme).values()))
        assert np.all(values >= 0)
        assert np.all(values <= entropy + 1e-9)
        assert np.all(np.diff(values) <= 1e-8)


def test_tilts_and_the_order_among_equals(scheme):
    found = rank_next_axes(AFTER_001, scheme, current_zone=(0, 0, -2))
    assert (0, 0, 1) not in {axis.zone for axis in found}
    assert found[0].tilt_deg == pytest.approx(18.435, abs=1e-3)
    equal = [axis.tilt_deg for axis in found if axis.gain_bits == pytest.approx(0.0)]
    assert len(equal) == 3
    assert equal == sorted(equal)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 1), (0, 1, 3), [18.43, 71.57, 90.0]),
        ((0, 1, 1), (1, 1, 2), [30.0, 54.74, 73.22, 90.0]),
        ((1, 1, 1), (1, 1, 1), [0.0, 70.53]),
        ((0, 0, 1), (0, 0, 1), [0.0, 90.0]),
        ((3, 0, -1), (0, 1, 1), [26.57, 47.87, 63.43, 77.08]),
    ],
)
def test_angles_between_families(first, second, expected):
    assert [round(x, 2) for x in family_angles(first, second)] == expected


def test_posterior_of_combine_is_taken_as_it_is(scheme):
    rows = np.eye(len(scheme))[[scheme.index_of["225", (0, 0, 1)]]]
    found = combine(rows, scheme, rule="mean")
    assert group_probabilities(found, scheme) == pytest.approx([0.0, 0.25, 0.25, 0.25, 0.25])
    assert rank_next_axes(found, scheme)[0].gain_bits == pytest.approx(2.0)


def test_behaviours_share_a_group(scheme):
    assert behaviour_probabilities({227: 3.0, "225": 1.0}, scheme) == pytest.approx(
        [0, 0, 0.25, 0.25, 0.25, 0.25, 0]
    )


def test_wrong_arguments_are_named(scheme):
    with pytest.raises(ValueError, match="posterior names 62"):
        rank_next_axes({62: 1.0}, scheme)
    with pytest.raises(ValueError, match="posterior of 225 is -1"):
        rank_next_axes({225: -1.0}, scheme)
    with pytest.raises(ValueError, match="zero for every group"):
        rank_next_axes({}, scheme)
    with pytest.raises(ValueError, match="zone is"):
        rank_next_axes(AFTER_001, scheme, current_zone=(0, 0, 0))
