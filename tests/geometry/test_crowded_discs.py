"""Discs that crowd a pattern: the background between them, how well their light is known, and the weak ones among them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from napari_sadp.geometry._light import STEP, light_of_spots
from napari_sadp.geometry._meter import SpotMeter
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.superlattice import _evidence, _known_pairs
from napari_sadp.pattern import DiffractionPattern

CENTRE = np.array([127.3, 128.1])
ROW, COL = np.mgrid[:256, :256]
RADIUS = np.hypot(ROW - CENTRE[0], COL - CENTRE[1])


def grid(reach):
    m, n = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return np.column_stack([m, n])


def discs(rc, height, radius, edge=1.0):
    image = np.zeros(ROW.shape)
    for (r, c), h, size in zip(rc, *np.broadcast_arrays(height, radius * np.ones(len(rc))), strict=True):
        image += h * ndtr((size - np.hypot(ROW - r, COL - c)) / edge)
    return image


def camera(mean, seed=0):
    return DiffractionPattern(np.random.default_rng(seed).poisson(mean).astype(float))


def same_lattice(found, basis):
    change = np.stack([found.lattice.g1_px, found.lattice.g2_px]) @ np.linalg.inv(basis)
    return np.abs(change - np.round(change)).max() < 0.03 and abs(abs(np.linalg.det(change)) - 1) < 0.05


# ---- light ---------------------------------------------------------------------------------------------------------


def circle_of_spots():
    """Return places of spots that crowd a circle of radius 40, and of some outside of it."""
    angle = np.radians(np.arange(0, 360, 30))
    around = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return CENTRE + np.concatenate([[[0.0, 0.0]], 40 * around, 90 * around[::3]])


@pytest.mark.parametrize("depth", [0.0, -120.0])
def test_what_a_crowded_circle_lost_to_the_background_is_found(depth):
    sigma, rc = 3.0, circle_of_spots()
    height = np.r_[9000.0, np.full(len(rc) - 1, 1000.0)]
    moat = depth * np.exp(-0.5 * ((RADIUS - 40) / 6) ** 2)
    image = sum(
        h * np.exp(-0.5 * ((ROW - r) ** 2 + (COL - c) ** 2) / sigma**2)
        for (r, c), h in zip(rc, height, strict=True)
    )
    image = image + moat + np.random.default_rng(0).normal(0, 5, image.shape)
    live = np.ones(image.shape, bool)
    start = np.exp(-0.5 * (STEP * np.arange(20) / sigma) ** 2)
    between = light_of_spots(image, live, rc, height, sigma, start).between(image, live, CENTRE)
    assert np.abs(between - moat)[RADIUS > 12].max() < 20
    # turned about the centre, nothing changes
    assert between[127, 128 + 60] == pytest.approx(between[127 + 60, 128], abs=10)


def test_spots_without_room_between_them_leave_nothing_to_learn():
    rc = CENTRE + 6.0 * grid(22)
    light = light_of_spots(
        np.zeros(ROW.shape), np.ones(ROW.shape, bool), rc, np.ones(len(rc)), 3.0, np.ones(4)
    )
    assert light.between(np.zeros(ROW.shape), np.ones(ROW.shape, bool), CENTRE) is None


def test_light_is_known_as_well_as_it_fits():
    """Discs of one size are known better than discs whose sizes differ."""
    rc = CENTRE + grid(3) @ np.array([[30.0, 1.0], [-2.0, 31.0]])
    misfit = []
    for spread in (0.0, 0.25):
        radius = 6.0 * (1 + spread * (np.arange(len(rc)) % 3 - 1))
        prepared = prepare_image(camera(discs(rc, 3000.0, radius) + 50))
        meter = SpotMeter(prepared, 4.0, 15.0)
        meter.learn_profile(rc)
        misfit.append(meter.light_of(rc).misfit)
    assert misfit[0] <= 0.3 < misfit[1] <= 1


# ---- finer lattices ------------------------------------------------------------------------------------------------


def crowded(basis, weak, seed):
    """Return a frame of discs that nearly touch, those of odd nodes weak, on diffuse light."""
    nodes = grid(8)
    rc = CENTRE + nodes @ basis
    distance = np.linalg.norm(rc - CENTRE, axis=1)
    height = 1500 * np.exp(-((distance / 70) ** 2)) * np.where(nodes.sum(axis=1) % 2, weak, 1.0)
    height[distance == 0] = 4500
    return camera(discs(rc, height, 6.0) + 40 + 100 * np.exp(-RADIUS / 25), seed)


@pytest.mark.parametrize("seed", range(2))
def test_weak_discs_among_strong_ones_make_the_lattice_finer(seed):
    basis = np.array([[14.9, 1.0], [-1.2, 15.1]])
    assert same_lattice(analyse_pattern(crowded(basis, 0.05, seed)), basis)
    assert same_lattice(analyse_pattern(crowded(basis, 0.0, seed)), np.array([[1, 1], [1, -1]]) @ basis)


def evidence(scores, index=2, at_node=True):
    """Return the evidence of nodes with these scores, pairs in succession, on a lattice of an index."""
    n = len(scores) // 2
    if index == 4:
        half = np.array([[1, 0], [0, 1], [1, 1], [3, 0], [0, 3], [3, 3]])[:n]
    else:
        half = np.column_stack([np.arange(1, n + 1), np.ones(n, int)])
    indices = np.stack([half, -half], axis=1).reshape(-1, 2)
    score = np.array(scores, float)
    rows = _known_pairs(score, indices)
    return _evidence(score, (score > 3) & at_node, np.ones(2 * n, bool), indices, rows, index)


def test_one_pair_is_enough_where_all_else_is_calm():
    calm = [0.3, -0.5, 1.2, -1.0, 0.4, 0.1]
    assert evidence([8.0, 7.5, *calm]) > 0
    assert evidence([6.0, 5.5, *calm]) == 0
    # another bright place that may be anything, or a dark one, and the pair must be surer
    assert evidence([8.0, 7.5, *calm, -4.5, 0.0]) == 0
    assert evidence([12.0, 11.5, *calm, -4.5, 0.0]) > 0
    assert evidence([8.0, 7.5, *calm], at_node=False) == 0


def test_halves_of_both_vectors_need_a_pair_of_each_kind():
    three = [7.0, 6.5, 6.2, 6.8, 5.5, 5.9]
    assert evidence(three, index=4) > 0
    assert evidence([*three[:4], 0.0, 0.0], index=4) == 0
    # three pairs of two kinds
    assert evidence([*three[:4], 0.0, 0.0, *three[4:]], index=4) == 0


def test_pairs_must_outweigh_dark_ones():
    pairs = [9.0, 9.0, 8.0, 8.5, 7.0, 7.5]
    assert evidence([*pairs, -4.5, -4.6]) > 0
    assert evidence([*pairs, -9.0, -9.5, -8.0, -8.0]) == 0
