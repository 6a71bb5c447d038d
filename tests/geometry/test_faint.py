"""Leaving out the faintest spots of a pattern."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.edit import Edits, analyse_edited
from napari_sadp.geometry.faint import without_faint
from napari_sadp.geometry.results import SpotList
from napari_sadp.pattern import DiffractionPattern

SIZE = 256
BASIS = np.array([[30.0, 3.0], [-4.0, 34.0]])
CENTRE = np.array([126.3, 130.8])
WEAK = 0.004  # of the strongest


@pytest.fixture(scope="module")
def found():
    """A lattice whose cells have a spot of 0.4 % of the strongest at their centre."""
    m, n = (a.ravel() for a in np.mgrid[-5:6, -5:6])
    strong = CENTRE + np.column_stack([m, n]) @ BASIS
    weak = strong + BASIS.sum(axis=0) / 2
    rc = np.concatenate([strong, weak])
    height = np.where(np.arange(len(rc)) < len(strong), 50_000.0, 50_000.0 * WEAK)
    row, col = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE), 20.0)
    for (r, c), h in zip(rc, height, strict=True):
        image += h * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * 2.0**2))
    return analyse_pattern(DiffractionPattern(np.random.default_rng(0).poisson(image).astype(float)))


def area(geometry):
    return abs(np.linalg.det(np.stack([geometry.lattice.g1_px, geometry.lattice.g2_px])))


def test_faint_spots_are_left_out_and_the_lattice_is_that_of_the_others(found):
    assert area(found) == pytest.approx(abs(np.linalg.det(BASIS)) / 2, rel=0.01)
    less = without_faint(found, 0.01)
    assert area(less) == pytest.approx(abs(np.linalg.det(BASIS)), rel=0.01)
    assert np.linalg.norm(less.lattice.beam_rc - found.lattice.beam_rc) < 0.1
    assert less.nodes.present.all()
    assert "fainter than 1 %" in less.notes[-1]
    # nothing of them is left in what the network sees
    weak = np.round(found.lattice.beam_rc + BASIS.sum(axis=0) / 2).astype(int)
    assert found.image[tuple(weak)] > 50
    assert less.image[tuple(weak)] == 0


@pytest.mark.parametrize("faintest", [0.0, 0.001])
def test_spots_above_the_limit_stay(found, faintest):
    assert without_faint(found, faintest) is found


@pytest.mark.parametrize("faintest", [-0.1, 0.9, np.nan])
def test_limits_that_make_no_sense_are_refused(found, faintest):
    with pytest.raises(ValueError, match="faintest is"):
        without_faint(found, faintest)


def test_a_lattice_that_was_given_without_spots_stays(found):
    none = SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 2.0)
    basis = np.stack([found.lattice.g1_px, found.lattice.g2_px])
    edits = Edits(beam_rc=found.lattice.beam_rc, spots=none, basis_px=basis)
    given = analyse_edited(found.pattern, edits)
    assert len(given.lattice.spots) == 0
    assert without_faint(given, 0.05).lattice.n_spots == 0
