"""Elements and candidates as prior knowledge; what does not exist is named, and the rest is used."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.ensemble.priors import group_prior
from napari_sadp.labels.scheme import build_scheme


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


def chance(prior, scheme, number):
    return prior.probabilities[scheme.groups.index(number)]


def test_nothing_known_is_an_equal_prior(scheme):
    found = group_prior(scheme)
    assert found.probabilities == pytest.approx(0.2)
    assert found.phases == found.messages == ()


def test_elements_weigh_groups_by_the_phases_that_can_be_made_of_them(scheme):
    found = group_prior(scheme, elements=["Si"])
    assert "Si (227)" in found.phases
    assert chance(found, scheme, 227) == found.probabilities.max()
    assert found.probabilities.min() > 0.02  # a phase that the catalogue lacks
    # order and case of the symbols do not matter
    assert np.array_equal(group_prior(scheme, elements=[" si "]).probabilities, found.probabilities)


def test_an_element_that_does_not_exist_is_named_and_the_rest_used(scheme):
    found = group_prior(scheme, elements=["Si", "Xx"])
    assert found.messages == ("element 'Xx' is no chemical element; it is left out",)
    assert np.array_equal(found.probabilities, group_prior(scheme, elements=["Si"]).probabilities)


def test_elements_without_a_known_phase_leave_all_equal(scheme):
    found = group_prior(scheme, elements=["At"])
    assert found.probabilities == pytest.approx(0.2)
    assert "no structure of these groups made of At alone" in found.messages[0]


@pytest.mark.parametrize(
    ("candidate", "groups"),
    [
        (225, {225}),
        ("225", {225}),
        ("Fm-3m", {225}),
        ("216", {225}),
        ("203", {227}),
        ("CsCl", {221, 225}),
        ("Si", {227}),
    ],
)
def test_candidates_by_number_symbol_phase_or_likeness(scheme, candidate, groups):
    found = group_prior(scheme, candidates=[candidate])
    left = {n for n in scheme.groups if chance(found, scheme, n) > 0}
    assert left <= groups
    assert left
    assert found.messages == ()


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("231", "there is no such space group, expected a number from 1 to 230"),
        ("205", "group 205 shows other patterns than the groups of the weights"),
        ("Nonsense", "is no space group and no structure of the catalogue"),
    ],
)
def test_a_candidate_that_cannot_be_used_is_named_and_the_rest_used(scheme, candidate, words):
    found = group_prior(scheme, candidates=[candidate, "225"])
    assert words in found.messages[0]
    assert chance(found, scheme, 225) == pytest.approx(1)
    alone = group_prior(scheme, candidates=[candidate])
    assert alone.probabilities == pytest.approx(0.2)
    assert "all groups are considered" in alone.messages[-1]
