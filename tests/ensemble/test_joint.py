"""Several patterns together: structures, scale, tilts, outliers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.ensemble.ceilings import ceiling
from napari_sadp.ensemble.joint import Evidence, joint_posterior
from napari_sadp.ensemble.next_axis import family_angles
from napari_sadp.ensemble.oriented import family, oriented_states
from napari_sadp.ensemble.views import symmetry_table, view_table
from napari_sadp.labels.lattice2d import gram
from napari_sadp.labels.scheme import build_scheme, present_basis
from napari_sadp.labels.spacegroups import behaviours


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


@pytest.fixture(scope="module")
def symmetry(scheme):
    return symmetry_table(scheme)


def said(scheme, name, zone, *, length=None, blur=1e-6):
    likelihood = np.full(len(scheme) + 1, blur)
    likelihood[scheme.index_of[name, zone]] = 1.0
    return Evidence(likelihood, length, 0.01)


def log_length(name, zone):
    """ln of the shortest vector of a crystal of edge 1."""
    behaviour = next(b for b in behaviours(int(name[:3])) if b.name == name)
    return 0.5 * np.log(gram(present_basis(behaviour, zone), np.eye(3, dtype=int))[0])


def thin(scheme, table, evidence, **options):
    return joint_posterior(evidence, scheme, table=table, thickness_nm=5.0, **options)


def test_symmetry_alone_is_the_posterior_of_the_enumeration(scheme, symmetry):
    """One certain class, thin, no outliers: Bayes' rule over groups, behaviours and axes."""
    for name, zone in [("225", (0, 0, 1)), ("227a", (0, 1, 1)), ("229", (0, 1, 4)), ("221", (1, 2, 2))]:
        found = thin(scheme, symmetry, [said(scheme, name, zone, blur=0.0)], surprise=0.0)
        expected = scheme.class_given_group[:, scheme.index_of[name, zone]]
        assert found.groups == pytest.approx(expected / expected.sum())


def test_accuracy_of_certain_classes_is_the_ceiling(scheme, symmetry):
    """Over every behaviour and axis, the first group is right as often as the ceiling of one pattern says."""
    right = 0.0
    for number in scheme.groups:
        kinds = behaviours(number)
        for kind in kinds:
            for zone in scheme.zones:
                p = thin(scheme, symmetry, [said(scheme, kind.name, zone, blur=0.0)], surprise=0.0).groups
                first = p > p.max() - 1e-9
                right += first[scheme.groups.index(number)] / first.sum() / len(kinds)
    assert right / (len(scheme.groups) * len(scheme.zones)) == pytest.approx(ceiling(1).accuracy, abs=1e-9)


def test_the_order_of_patterns_does_not_matter(scheme):
    items = [said(scheme, "227a", (0, 1, 1)), said(scheme, "225", (0, 0, 1)), said(scheme, "227a", (1, 1, 2))]
    first, second = joint_posterior(items, scheme), joint_posterior(items[::-1], scheme)
    assert second.groups == pytest.approx(first.groups)
    assert second.zones[::-1] == pytest.approx(first.zones)


def test_a_shared_camera_constant_tells_lattices_of_the_same_shape(scheme, symmetry):
    """Square and hexagon as 1 : 1 are body-centred, as 1 : sqrt 2 primitive or face-centred."""

    def pair(name):
        return [said(scheme, "225", z, length=log_length(name, z)) for z in [(0, 0, 1), (1, 1, 1)]]

    column = {number: i for i, number in enumerate(scheme.groups)}
    body = thin(scheme, symmetry, pair("229"), shared_scale=0.9)
    face = thin(scheme, symmetry, pair("225"), shared_scale=0.9)
    assert body.groups[column[229]] > 0.45 > 0.02 > body.groups[column[221]]
    assert face.groups[column[225]] > 0.3 > 0.02 > face.groups[column[229]]
    assert min(body.shared_scale, face.shared_scale) > 0.98
    # lengths that no pair of axes can have: the patterns do not share it, and nothing is concluded from it
    odd = [said(scheme, "225", (0, 0, 1), length=0.0), said(scheme, "225", (1, 1, 1), length=0.2)]
    free = thin(scheme, symmetry, odd)
    found = thin(scheme, symmetry, odd, shared_scale=0.9)
    assert found.shared_scale < 0.7
    assert found.groups == pytest.approx(free.groups, abs=0.1)


def test_the_common_unit_of_the_lengths_does_not_matter(scheme):
    def pair(shift):
        return [
            said(scheme, "225", z, length=log_length("225", z) + shift)
            for z in [(0, 0, 1), (0, 1, 1), (1, 1, 2)]
        ]

    first, second = (joint_posterior(pair(s), scheme, shared_scale=0.9).groups for s in (0.0, 3.7))
    assert second == pytest.approx(first, abs=2e-3)


def test_tilts_name_the_axes(scheme, symmetry):
    """[014] of 229 looks like [223] of 225: the angle to [001] tells."""
    items = [said(scheme, "229", (0, 0, 1)), said(scheme, "229", (0, 1, 4))]
    column = {number: i for i, number in enumerate(scheme.groups)}
    for angle, group, zone in [(14.04, 229, (0, 1, 4)), (43.31, 225, (2, 2, 3))]:
        tilt = np.array([[0, angle], [angle, 0]])
        found = thin(scheme, symmetry, items, tilt_deg=tilt)
        assert found.zones[1, scheme.zones.index(zone)] > 0.9
        assert found.groups[column[group]] > 0.25
        other = {229: 225, 225: 229}[group]
        assert found.groups[column[other]] < 0.1


def test_an_angle_that_fits_no_pair_makes_an_outlier(scheme, symmetry):
    items = [said(scheme, "225", (0, 0, 1)), said(scheme, "225", (0, 1, 3))]
    good = thin(scheme, symmetry, items, tilt_deg=np.array([[0, 18.43], [18.43, 0]]))
    bad = thin(scheme, symmetry, items, tilt_deg=np.array([[0, 40.0], [40.0, 0]]))
    assert good.outlier.max() < 0.1
    assert bad.outlier.sum() > 0.9
    assert good.groups.max() > bad.groups.max()


def test_oriented_states_find_the_exact_angles():
    zones = ((0, 0, 1), (0, 1, 1), (1, 1, 1))
    tilt = np.array([[0, 45.0, np.nan], [45.0, 0, 35.26], [np.nan, 35.26, 0]])
    states, chance = oriented_states(zones, tilt, 0.5, np.ones((3, 3)), limit=50)
    best = [tuple(int(i) for i in state) for state in states[chance > 0.1 * chance.max()]]
    for state in best:
        assert min(abs(a - 45.0) for a in family_angles(zones[state[0]], zones[state[1]])) < 0.1
        assert min(abs(a - 35.26) for a in family_angles(zones[state[1]], zones[state[2]])) < 0.1
    assert (0, 1, 2) in best
    assert [len(family(zone)) for zone in [(0, 0, 1), (0, 1, 1), (1, 1, 1), (1, 2, 3)]] == [3, 6, 4, 24]


def test_one_wrong_pattern_among_three_does_not_decide(scheme):
    """Two clear patterns of 225; the third is one that only 229 can show."""
    good = [said(scheme, "225", (0, 1, 3)), said(scheme, "225", (1, 1, 2))]
    for name, zone in [("229", (0, 1, 3)), ("229", (1, 2, 3))]:
        for place in range(3):
            items = [*good[:place], said(scheme, name, zone), *good[place:]]
            found = joint_posterior(items, scheme)
            assert scheme.groups[int(found.groups.argmax())] == 225, (name, zone, place)
            assert found.outlier.argmax() == place
            assert found.outlier[place] > 0.45


def test_a_prior_is_a_factor(scheme, symmetry):
    items = [said(scheme, "225", (0, 0, 1))]
    prior = np.array([0.0, 0.5, 0.5, 0.0, 0.0])
    found = thin(scheme, symmetry, items, group_prior=prior)
    assert found.groups == pytest.approx([0, 0.5, 0.5, 0, 0])


def test_thickness_lets_gaps_be_filled(scheme):
    """A pattern without gaps speaks for 225 in a thin crystal; in a thick one diamond shows the same."""
    item = [said(scheme, "225", (0, 1, 1))]
    column = scheme.groups.index(227)
    thin_one = joint_posterior(item, scheme, thickness_nm=3.0).groups[column]
    thick_one = joint_posterior(item, scheme, thickness_nm=60.0).groups[column]
    assert thick_one > 3 * thin_one
    # gaps that are there speak for diamond in either
    gaps = [said(scheme, "227a", (0, 1, 1))]
    for thickness in (3.0, 60.0):
        assert joint_posterior(gaps, scheme, thickness_nm=thickness).groups.argmax() == column


@pytest.fixture
def two_kinds(symmetry):
    """A table by symmetry in which 221 shows dark odd cosets on every axis, and all others do not."""
    contrast = np.zeros((*symmetry.label.shape, 4), dtype=np.float32)
    contrast[symmetry.behaviour == 1] = [1.0, -2.0, -2.0, 1.0]
    return replace(symmetry, contrast=contrast)


def test_intensities_tell_structures_that_show_the_same_spots(scheme, two_kinds):
    [item] = [said(scheme, "225", (0, 0, 1), blur=0.0)]
    column = scheme.groups.index(221)

    def probability(contrast):
        value = None if contrast is None else np.array(contrast)
        return thin(scheme, two_kinds, [replace(item, contrast=value)]).groups

    plain = probability(None)
    assert plain[column] == pytest.approx(0.25, abs=0.02)
    assert probability([1.0, -2.0, -2.0, 1.0])[column] > 0.75
    assert probability([0.0, 0.0, 0.0, 0.0])[column] < 0.05
    # what no known structure shows says nothing
    assert probability([-6.0, 4.0, -6.0, 4.0]) == pytest.approx(plain, abs=1e-3)


def test_intensities_do_not_change_how_well_classes_fit(scheme, two_kinds):
    """A spot pattern that only 229 shows stays one of 229, whatever its contrast."""
    item = replace(said(scheme, "229", (0, 1, 3), blur=1e-6), contrast=np.array([1.0, -2.0, -2.0, 1.0]))
    assert thin(scheme, two_kinds, [item]).groups.argmax() == scheme.groups.index(229)


def test_a_table_without_a_formula(scheme):
    table = view_table(scheme)
    formula = table.formula[0]
    rest = table.without(formula)
    assert len(rest.label) == len(table.label) - table.formula.count(formula)
    assert formula not in rest.formula
    assert np.bincount(rest.behaviour, rest.weight) == pytest.approx(1.0)
    assert rest.contrast.shape == (*rest.label.shape, 4)


def test_two_crystals_in_one_stack_are_told_and_the_rest_stands(scheme):
    """Two clear patterns each of 225 and of 229: the patterns contradict each other."""
    mixed = [
        *(said(scheme, "225", zone) for zone in [(0, 1, 3), (1, 1, 2)]),
        *(said(scheme, "229", zone) for zone in [(0, 1, 3), (1, 2, 3)]),
    ]
    found = joint_posterior(mixed, scheme)
    one = joint_posterior(mixed[:2], scheme)
    assert found.outlier.sum() > 1.5 > 10 * one.outlier.sum()
    assert found.groups.sum() == pytest.approx(1)
    both = [scheme.groups.index(225), scheme.groups.index(229)]
    assert set(np.argsort(-found.groups)[:2]) == set(both)
    assert found.groups[both].sum() > 0.7


def test_the_shipped_table_covers_the_scheme_of_the_network(scheme):
    table = view_table(scheme)
    assert table.thickness_nm[0] == 5.0
    assert len(table.label) > 400
    assert np.bincount(table.behaviour, table.weight) == pytest.approx(1.0)
    assert table.threshold_weights(None).sum() == pytest.approx(1)
    assert table.threshold_weights(1e-2).argmax() == list(table.thresholds).index(1e-2)
    # most structures show what symmetry says where almost everything is seen
    names = [b.name for b in scheme.all_behaviours]
    own = np.array([[scheme.index_of[names[b], z] for z in scheme.zones] for b in table.behaviour])
    seen = table.label[:, :, 0, 0] >= 0
    assert (table.label[:, :, 0, 0] == own)[seen].mean() > 0.85


def test_other_schemes_are_judged_by_symmetry():
    other = build_scheme((205, 225), ((0, 0, 1), (0, 1, 1), (0, 1, 3)))
    found = joint_posterior([said(other, "205", (0, 0, 1))], other)
    assert found.groups[0] > 0.9
