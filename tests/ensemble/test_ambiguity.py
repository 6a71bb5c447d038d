from __future__ import annotations

from itertools import product

import gemmi
import numpy as np
import pytest

from napari_sadp import report
from napari_sadp.ensemble.ambiguity import indistinguishable, same_patterns
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.labels.spacegroups import _SPECIAL_ORBITS, CUBIC_GROUPS, Behaviour, is_allowed

#: The 17 extinction classes of the 36 cubic groups.
SEVENTEEN = [
    {195, 200, 207, 215, 221}, {196, 202, 209, 216, 225}, {197, 199, 204, 211, 217, 229}, {198, 208}, {201, 224},
    {203, 227}, {205}, {206}, {210}, {212, 213}, {214}, {218, 223}, {219, 226}, {220}, {222}, {228}, {230},
]  # fmt: skip


def test_the_seventeen_sets_of_the_cubic_groups():
    found = [set(item.groups) for item in indistinguishable(CUBIC_GROUPS)]
    assert sorted(found, key=min) == sorted(SEVENTEEN, key=min)


def test_two_axes_separate_all_seventeen():
    scheme = build_scheme(CUBIC_GROUPS, ((0, 0, 1), (1, 1, 2)))
    assert len(indistinguishable(scheme)) == 17


def test_fewer_axes_leave_larger_sets():
    scheme = build_scheme((213, 221, 225, 227, 229), ((0, 0, 1), (1, 1, 1)))
    assert [item.groups for item in indistinguishable(scheme)] == [(213,), (221, 225, 227, 229)]


def test_sets_are_sorted_by_probability():
    found = indistinguishable((212, 213, 225), {213: 0.25, 212: 0.5, 225: 0.25})
    assert [(item.groups, item.probability) for item in found] == [((212, 213), 0.75), ((225,), 0.25)]
    assert indistinguishable((225,))[0].probability is None


def test_one_group():
    assert same_patterns(221) == (195, 200, 207, 215)
    assert same_patterns(227) == (203,)
    assert same_patterns(230) == ()
    assert report.same_patterns is same_patterns


@pytest.mark.parametrize("number", [62, 0, "225"])
def test_other_groups_are_refused(number):
    with pytest.raises(ValueError, match="expected a cubic"):
        same_patterns(number)
    with pytest.raises(ValueError, match="expected a cubic"):
        indistinguishable((number,))


def test_203_shows_what_227_shows_also_on_special_positions():
    """8a, 8b and 48f of Fd-3 lack the reflections that those of Fd-3m lack, so that diamond's absences name no mirror."""
    hkl = np.array(list(product(range(-6, 7), repeat=3)))
    fd3 = gemmi.get_spacegroup_reference_setting(203).operations()
    for name, orbits in _SPECIAL_ORBITS.items():
        excited = np.zeros(len(hkl), dtype=bool)
        for orbit in orbits:
            positions = np.array([op.apply_to_xyz(list(orbit)) for op in fd3])
            excited |= np.abs(np.exp(2j * np.pi * (hkl @ positions.T)).mean(axis=1)) > 1e-9
        assert np.array_equal(excited, is_allowed(Behaviour(name, 227), hkl))
