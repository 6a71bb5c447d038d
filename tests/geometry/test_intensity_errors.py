"""Stated uncertainties of the intensities of spots, against the scatter over frames of counted electrons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.draw import render_gaussians
from napari_sadp.geometry.results import PROFILE_ERROR
from napari_sadp.geometry.spots import find_spots
from napari_sadp.pattern import DiffractionPattern

SIZE, SIGMA, BEAM = 160, 1.8, np.array([80.3, 79.6])
BASIS = np.array([[29.0, 3.0], [-4.0, 31.0]])
FRAMES = 24


@pytest.fixture(scope="module", params=[1.0, 12.0], ids=["counts of electrons", "12 grey levels an electron"])
def measured(request):
    """True counts of the spots but the direct beam (n,), what frames say of them and its stated uncertainty, both (frames, n)."""
    rng = np.random.default_rng(0)
    nodes = np.mgrid[-4:5, -4:5].reshape(2, -1).T
    nodes = nodes[np.any(nodes != 0, axis=1)]
    rc = BEAM + nodes @ BASIS
    rc = rc[np.all((rc > 6) & (rc < SIZE - 7), axis=1)]
    counts = 10 ** rng.uniform(3.0, 5.2, len(rc))
    height = np.append(counts, 2e5) / (2 * np.pi * SIGMA**2)
    light = 4.0 + render_gaussians(np.vstack([rc, BEAM]), height, SIGMA, (SIZE, SIZE))
    intensity, error = [], []
    for _ in range(FRAMES):
        spots = analyse_pattern(DiffractionPattern(request.param * rng.poisson(light))).spots
        distance = np.linalg.norm(spots.rc[:, None] - rc, axis=2)
        assert distance.min(axis=0).max() < 1.0
        intensity.append(spots.intensity[distance.argmin(axis=0)])
        error.append(spots.intensity_error[distance.argmin(axis=0)])
    return counts, np.array(intensity) / request.param, np.array(error) / request.param


def test_counting_the_spot_itself_is_in_the_uncertainty(measured):
    _, intensity, error = measured
    of_noise = np.sqrt(np.mean(error**2 - (PROFILE_ERROR * intensity) ** 2, axis=0))
    scatter = intensity.std(axis=0, ddof=1)
    assert np.sqrt(np.mean((scatter / of_noise) ** 2)) == pytest.approx(1.0, abs=0.25)


def test_relative_intensities_are_as_uncertain_as_stated(measured):
    counts, intensity, error = measured
    share = np.median(intensity / counts)  # what the sums hold of every spot
    pull = (intensity / share - counts) / (error / share)
    assert 0.2 < np.sqrt(np.mean(pull**2)) < 1.2
    assert np.mean(np.abs(pull) < 2) > 0.95


def test_noise_of_the_readout_is_no_noise_of_counting():
    rng = np.random.default_rng(1)
    nodes = np.mgrid[-2:3, -2:3].reshape(2, -1).T
    height = np.where(np.any(nodes != 0, axis=1), 300.0, 3000.0)
    light = render_gaussians(BEAM + nodes @ BASIS, height, SIGMA, (SIZE, SIZE))
    frame = rng.poisson(light) + rng.normal(0, 3.0, light.shape)
    stated = []
    for constant in (0.0, 0.3, 1.0):
        spots = analyse_pattern(DiffractionPattern(frame + constant)).spots
        stated.append(np.median(spots.intensity_error / spots.intensity))
    assert max(stated) < 1.1 * min(stated)


def test_spots_found_without_a_lattice_state_the_same():
    rng = np.random.default_rng(2)
    light = 9.0 + render_gaussians(
        BEAM + np.array([[0.0, 0.0], [30.0, 20.0]]), np.array([3000.0, 900.0]), SIGMA, (SIZE, SIZE)
    )
    spots = find_spots(DiffractionPattern(rng.poisson(light)))
    of_noise = np.sqrt(spots.intensity_error**2 - (PROFILE_ERROR * spots.intensity) ** 2)
    assert len(spots) == 2
    np.testing.assert_allclose(of_noise, np.sqrt(spots.intensity), rtol=0.3)


def test_a_frame_under_its_mask_knows_no_gain():
    prepared = prepare_image(DiffractionPattern(np.random.default_rng(3).poisson(20.0, (64, 64))))
    assert replace(prepared, mask=np.ones_like(prepared.mask)).counting_gain == 0.0
