"""A user who knows better than the search for beam stops, margins and bars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.samples import simulated_sample

BAR = slice(0, 14)


@pytest.fixture(scope="module")
def clean():
    return simulated_sample("Al", 225, (0, 0, 1), seed=2)


@pytest.fixture(scope="module")
def covered(clean):
    """With a title bar, and the shadow of a pointer from the right."""
    data = clean.data.copy()
    data[120:136, 118:] *= 0.02
    data[BAR] = data.max()
    return replace(clean, data=data)


def test_nothing_is_masked_but_what_is_given(covered):
    found = prepare_image(covered)
    assert found.mask[BAR].all()
    assert found.beam_stop.any()
    given = prepare_image(covered.with_given_covers())
    assert not given.mask.any()
    assert not given.beam_stop.any()
    assert not any("masked" in note for note in given.notes)
    own = np.zeros(covered.shape, bool)
    own[200:] = True
    assert np.array_equal(prepare_image(replace(covered, mask=own).with_given_covers()).mask, own)


def test_the_pattern_says_so(covered):
    assert covered.with_given_covers().notes[-1] == "beam stops, margins and bars are not looked for"
    assert covered.find_covers
    assert not covered.with_given_covers().find_covers


def test_where_nothing_covers_the_pattern_it_makes_no_difference(clean):
    one, other = (analyse_pattern(pattern) for pattern in (clean, clean.with_given_covers()))
    assert not one.mask.any()
    assert np.array_equal(one.lattice.g1_px, other.lattice.g1_px)
    assert np.array_equal(one.beam.rc, other.beam.rc)
