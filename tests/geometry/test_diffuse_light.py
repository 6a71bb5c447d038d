"""The direct beam by the diffuse light around it: halo and rings know where it is, whatever covers it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.center import diffuse_shares
from napari_sadp.pattern import DiffractionPattern

BEAM = np.array([120.0, 133.0])
BASIS = np.array([[4.0, 37.0], [31.0, -6.0]])
SIZE = 256


def distance_from(rc):
    row, col = np.mgrid[:SIZE, :SIZE]
    return np.hypot(row - rc[0], col - rc[1])


def halo(rc=BEAM):
    """A steep foot and a ring of matter without order."""
    r = distance_from(rc)
    return 150 * np.exp(-((r / 40) ** 2)) + 120 * np.exp(-(((r - 70) / 12) ** 2)) + 20


def camera(image, seed=0):
    return np.random.default_rng(seed).poisson(image).astype(float)


def places():
    m, n = (axis.ravel() for axis in np.mgrid[-2:3, -2:3])
    rc = BEAM + np.column_stack([m, n]) @ BASIS
    return rc[np.all((rc > 5) & (rc < SIZE - 6), axis=1)]


def test_the_light_is_round_about_the_beam_alone():
    shares = diffuse_shares(prepare_image(DiffractionPattern(camera(halo()))), places())
    here = np.linalg.norm(places() - BEAM, axis=1) < 1
    assert shares[here] > 0.8
    assert shares[~here].max() < shares[here] - 0.25
    assert shares.max() <= 1


@pytest.mark.parametrize("operation", [np.rot90, np.flipud, np.transpose])
def test_turning_the_camera_turns_the_answer(operation):
    frame = camera(halo())
    marks = np.zeros((SIZE, SIZE), int)
    rc = np.round(places()).astype(int)
    marks[tuple(rc.T)] = np.arange(len(rc)) + 1
    turned = operation(marks)
    order = np.argsort(turned[turned > 0])
    there = np.argwhere(turned > 0)[order].astype(float)
    before = diffuse_shares(prepare_image(DiffractionPattern(frame)), rc.astype(float))
    after = diffuse_shares(prepare_image(DiffractionPattern(operation(frame).copy())), there)
    assert after == pytest.approx(before, abs=0.02)


def test_scaling_the_counts_changes_little_and_noise_says_nothing():
    frame = camera(halo())
    one, ten = (diffuse_shares(prepare_image(DiffractionPattern(k * frame)), places()) for k in (1.0, 10.0))
    assert ten == pytest.approx(one, abs=1e-4)
    noise = diffuse_shares(prepare_image(DiffractionPattern(camera(np.full((SIZE, SIZE), 50.0)))), places())
    assert np.abs(noise).max() < 0.2


ROW = [(1, n) for n in range(-2, 3)]


@pytest.mark.parametrize(
    ("others", "shadow"),
    [
        ([(2, n) for n in range(-2, 3)] + [(0, n) for n in (-2, -1, 1, 2)], 0.03),
        ([(2, n) for n in (-1, 0, 1)] + [(0, n) for n in (-1, 1)], 0.03),
        ([(2, n) for n in (-1, 0, 1)], 1.0),
        ([(2, n) for n in range(-2, 3)] + [(0, n) for n in (-2, -1, 1, 2)], 1.0),
    ],
)
def test_a_beam_without_a_spot_is_where_the_light_is_round(others, shadow):
    """A tilted crystal: a bright row is symmetric about one of its own spots, and only the light tells that the beam is not there."""
    image = halo()
    for m, n in ROW + others:
        height = 900 if m == 1 else 540
        image += height * np.exp(-((distance_from(BEAM + np.array([n, m]) @ BASIS) / 3.5) ** 2))
    # a round stop on an arm, or a crystal so thick that the direct beam has faded
    row, col = np.mgrid[:SIZE, :SIZE]
    image[(distance_from(BEAM) < 11) | ((np.abs(row - BEAM[0]) < 3) & (col < BEAM[1]))] *= shadow
    found = analyse_pattern(DiffractionPattern(camera(image)))
    assert np.linalg.norm(found.beam.rc - BEAM) < 1.5
