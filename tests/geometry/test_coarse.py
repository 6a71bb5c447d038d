"""Copies in larger pixels: the same spots, lattice and intensities as the frame itself gives."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from napari_sadp.geometry import _finder
from napari_sadp.geometry._coarse import _COPIES, coarse_factors, coarser, factor_for, to_copy
from napari_sadp.geometry._finder import LatticeFinder
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.spots import SpotSizes
from napari_sadp.pattern import DiffractionPattern

SIZE, SIGMA = 512, 3.2
CENTRE = np.array([250.3, 262.7])
BASIS = np.array([[52.0, 7.0], [-9.0, 61.0]])


@pytest.fixture(scope="module")
def truth():
    """Places and heights of spots."""
    m, n = (a.ravel() for a in np.mgrid[-4:5, -4:5])
    rc = CENTRE + np.column_stack([m, n]) @ BASIS
    rc = rc[np.all((rc > 15) & (rc < SIZE - 16), axis=1)]
    distance = np.linalg.norm(rc - CENTRE, axis=1)
    # opposite spots alike
    height = 3000 * np.exp(-((distance / 130) ** 2)) * (1 + 0.3 * np.cos(distance)) + 60
    return rc, height


def frame(truth, sigma=SIGMA, size=SIZE):
    row, col = np.mgrid[:size, :size]
    image = np.full((size, size), 25.0)
    for (r, c), h in zip(*truth, strict=True):
        image += h * np.exp(-0.5 * ((row - r) ** 2 + (col - c) ** 2) / sigma**2)
    return np.random.default_rng(1).poisson(image).astype(np.float32)


def test_how_far_pixels_may_grow():
    assert coarse_factors((512, 600)) == [4, 2]
    assert coarse_factors((200, 512)) == []
    assert factor_for((512, 512), 3.2) == 2
    assert factor_for((512, 512), 1.5) == 1
    assert factor_for((2048, 2048), 9.0) == 8


def test_a_copy_keeps_light_and_is_made_once(truth):
    prepared = prepare_image(DiffractionPattern(frame(truth)))
    copy = coarser(prepared, 2)
    assert coarser(prepared, 2) is copy
    assert coarser(prepared, 1) is prepared
    assert copy.binning == 2
    assert copy.signal.sum() * 4 == pytest.approx(prepared.signal.sum(), rel=1e-3)
    # the noise of independent pixels falls with the root of their number
    assert np.median(copy.noise) == pytest.approx(np.median(prepared.noise) / 2, rel=0.25)
    spot = to_copy(CENTRE, 2)
    peak = np.unravel_index(np.argmax(copy.signal), copy.signal.shape)
    assert np.abs(spot - peak).max() < 1
    kept = len(_COPIES)
    del prepared, copy
    gc.collect()
    assert len(_COPIES) < kept


def test_masked_pixels_count_for_nothing(truth):
    data = frame(truth)
    mask = np.zeros(data.shape, bool)
    mask[100:201, 100:201] = True
    data[mask] = 1e6
    copy = coarser(prepare_image(DiffractionPattern(data, mask=mask)), 2)
    assert copy.mask[50:100, 50:100].all()
    assert copy.signal.max() < 1e4


def test_the_copy_gives_the_lattice_of_the_frame(truth, monkeypatch):
    pattern = DiffractionPattern(frame(truth))
    fast = analyse_pattern(pattern)
    assert len(coarse_factors(pattern.shape)) == 2
    monkeypatch.setattr(_finder, "coarse_factors", lambda shape: [])
    slow = analyse_pattern(pattern)
    for one, other in (
        (fast.lattice.g1_px, slow.lattice.g1_px),
        (fast.lattice.g2_px, slow.lattice.g2_px),
        (fast.beam.rc, slow.beam.rc),
    ):
        assert np.abs(one - other).max() < 0.05
    assert np.linalg.norm(fast.beam.rc - CENTRE) < 0.1
    assert fast.lattice.n_spots == slow.lattice.n_spots
    assert fast.spots.sigma_px == pytest.approx(SIGMA, rel=0.1)
    near = np.linalg.norm(fast.spots.rc[:, None] - slow.spots.rc, axis=2)
    assert near.min(axis=1).max() < 0.3
    ratio = fast.spots.intensity / slow.spots.intensity[near.argmin(axis=1)]
    # the apertures differ by fractions of a pixel, for all spots alike
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert np.std(ratio[slow.spots.snr[near.argmin(axis=1)] > 30]) < 0.02


def test_nodes_have_their_intensity_whatever_the_pixels(truth):
    rc, height = truth
    nodes = analyse_pattern(DiffractionPattern(frame(truth))).nodes
    away = np.linalg.norm(rc - CENTRE, axis=1) > 5
    near = np.linalg.norm(nodes.rc[:, None] - rc[away], axis=2)
    volume = 2 * np.pi * SIGMA**2 * height[away]
    measured = nodes.intensity[near.argmin(axis=0)]
    assert near.min(axis=0).max() < 0.6
    strong = volume > 0.02 * volume.max()
    assert np.allclose(measured[strong], volume[strong], rtol=0.08)


def test_sharp_spots_are_looked_for_in_the_frame_itself(truth, monkeypatch):
    pattern = DiffractionPattern(frame(truth, sigma=1.0))
    measured = []
    spots = SpotSizes.spots
    monkeypatch.setattr(
        SpotSizes, "spots", lambda self, *a: measured.append(self._prepared.binning) or spots(self, *a)
    )
    found = analyse_pattern(pattern)
    # in the copies they are as small as can be: none is measured there to see that
    assert measured == [1]
    assert found.spots.sigma_px == pytest.approx(1.0, rel=0.15)
    assert np.linalg.norm(found.beam.rc - CENTRE) < 0.1


def test_of_copies_that_were_not_measured_the_spots_count_too(truth):
    finder = LatticeFinder(prepare_image(DiffractionPattern(frame(truth, sigma=1.0))), 6.0, 0.6)
    assert finder._are_small(2)
    assert not finder._found
    assert finder.most_spots == len(finder._cautious(2)[0]) > 0
