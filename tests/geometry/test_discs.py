"""Discs by their edge, weak spots between strong ones, and the shadows of beam stops."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._beam_stop import find_beam_stop
from napari_sadp.geometry._local import pixel_noise
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import compressed, prepare_image
from napari_sadp.geometry.center import _at_tip
from napari_sadp.geometry.discs import disc_hypotheses
from napari_sadp.pattern import DiffractionPattern

SIZE = 256
BASIS = np.array([[33.0, 4.0], [-6.0, 36.0]])
CENTRE = np.array([126.3, 130.8])


def grid(shape=(SIZE, SIZE)):
    return np.mgrid[: shape[0], : shape[1]].astype(float)


def net(reach=3, basis=BASIS, centre=CENTRE):
    m, n = (a.ravel() for a in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    rc = centre + np.column_stack([m, n]) @ basis
    return rc[np.all((rc > 12) & (rc < SIZE - 13), axis=1)]


def disc_frame(rc, height, radius, *, slope=0.0, seed=0, background=20.0):
    """Discs with soft edges whose brightness changes by `slope` from the middle to the edge, away from the centre; counting noise."""
    row, col = grid()
    image = np.full((SIZE, SIZE), background)
    for (r, c), h in zip(rc, height, strict=True):
        dr, dc = row - r, col - c
        inside = 1 / (1 + np.exp(2 * (np.hypot(dr, dc) - radius)))
        out = np.array([r, c]) - CENTRE
        out = out / max(np.linalg.norm(out), 1.0)
        image += h * inside * (1 + slope * (dr * out[0] + dc * out[1]) / radius)
    return np.random.default_rng(seed).poisson(np.maximum(image, 0)).astype(float)


def heights(rc, top=900.0):
    distance = np.linalg.norm(rc - CENTRE, axis=1)
    return top * np.exp(-((distance / 70) ** 2)) + 25


def found_discs(frame):
    prepared = prepare_image(DiffractionPattern(frame))
    return disc_hypotheses(prepared, compressed(prepared))


@pytest.mark.parametrize("radius", [6.0, 9.0, 13.0])
def test_discs_are_found_with_their_radius_and_place(radius):
    rc = net()
    spots = found_discs(disc_frame(rc, heights(rc), radius))[0]
    miss = np.linalg.norm(spots.rc[:, None] - rc, axis=2)
    assert np.count_nonzero(miss.min(axis=0) < 0.5) >= 0.9 * len(rc)
    assert np.count_nonzero(miss.min(axis=1) > 2) <= 1
    assert 2 * spots.sigma_px == pytest.approx(radius, rel=0.12)


def test_discs_that_are_brighter_on_one_side_are_not_pulled_to_it():
    rc = net()
    spots = found_discs(disc_frame(rc, heights(rc, 3000), 9.0, slope=0.5))[0]
    miss = spots.rc[:, None] - rc
    nearest = np.linalg.norm(miss, axis=2).argmin(axis=1)
    offset = miss[np.arange(len(spots)), nearest]
    out = rc[nearest] - CENTRE
    away = np.linalg.norm(out, axis=1) > 5
    radial = np.einsum("ni,ni->n", offset, out)[away] / np.linalg.norm(out, axis=1)[away]
    # the centre of mass of such a disc lies slope * radius / 4 = 1.1 px off
    assert abs(np.median(radial)) < 0.25


def test_touching_discs_give_their_lattice():
    basis = np.array([[19.0, 1.0], [-2.0, 20.0]])
    rc = net(6, basis)
    frame = disc_frame(rc, heights(rc, 600), 9.0)
    lattice = analyse_pattern(DiffractionPattern(frame)).lattice
    change = np.stack([lattice.g1_px, lattice.g2_px]) @ np.linalg.inv(basis)
    assert np.abs(change - np.round(change)).max() < 0.01
    assert abs(np.linalg.det(change)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("angle", [0, 17, 60, 90, 130, 163, 200, 275])
def test_straight_edges_are_no_discs(angle):
    row, col = grid()
    across = np.cos(np.radians(angle)) * (row - 128) + np.sin(np.radians(angle)) * (col - 128)
    frame = np.random.default_rng(angle).poisson(np.where(across > 30, 400.0, 40.0)).astype(float)
    # also where the edge leaves the frame, and half of a rim is out of view
    assert sum(len(spots) for spots in found_discs(frame)) <= 2
    with pytest.raises(PatternRefusedError):
        analyse_pattern(DiffractionPattern(frame))


def test_noise_is_no_disc():
    assert not found_discs(np.random.default_rng(2).poisson(np.full((SIZE, SIZE), 50.0)).astype(float))


def test_turned_frames_give_turned_discs():
    rc = net()
    frame = disc_frame(rc, heights(rc), 9.0)
    here = found_discs(frame)[0].rc
    there = found_discs(np.rot90(frame).copy())[0].rc
    back = np.column_stack([there[:, 1], SIZE - 1 - there[:, 0]])
    miss = np.linalg.norm(back[:, None] - here, axis=2).min(axis=1)
    assert len(back) == len(here)
    assert miss.max() < 0.1


def spot_frame(rc, height, *, sigma=2.2, seed=0, background=60.0):
    row, col = grid()
    image = np.full((SIZE, SIZE), background)
    for (r, c), h in zip(rc, height, strict=True):
        image += h * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * sigma**2))
    return np.random.default_rng(seed).poisson(image).astype(float)


@pytest.mark.parametrize("weak", [0.0, 60.0])
def test_a_superlattice_is_found_where_it_is_and_only_there(weak):
    """Spots at the centres of the cells, each hardly above the noise, against none."""
    rc = net()
    between = net(3, BASIS, CENTRE + BASIS.sum(axis=0) / 2)
    inner = np.linalg.norm(between - CENTRE, axis=1) < 75
    frame = spot_frame(
        np.concatenate([rc, between[inner]]), np.concatenate([heights(rc, 4000), np.full(inner.sum(), weak)])
    )
    lattice = analyse_pattern(DiffractionPattern(frame)).lattice
    index = abs(np.linalg.det(BASIS) / np.linalg.det(np.stack([lattice.g1_px, lattice.g2_px])))
    assert index == pytest.approx(2 if weak else 1, abs=0.02)


def stopped(shape_of_stop):
    row, col = grid()
    r, c = row - 128, col - 128
    light = 30 + 900 / (1 + (np.hypot(r, c) / 30) ** 2)
    if shape_of_stop == "arm that ends in the dark":
        # beyond the halo there is nothing to shade
        light = 900 / (1 + (np.hypot(r, c) / 22) ** 4) + 2
        shade = (np.abs(r) < 10) & (c > -8)
    elif shape_of_stop == "arm":
        shade = (np.abs(r) < 9) & (c > -8)
    elif shape_of_stop == "pointer":
        shade = (np.abs(r) < 5 + 0.15 * c) & (c > -10)
    else:
        shade = np.hypot(r, c) < 14
    frame = np.random.default_rng(3).poisson(np.where(shade, 0.02 * light + 1, light)).astype(np.float32)
    return frame, shade & (light > 40)


@pytest.mark.parametrize("shape", ["arm", "arm that ends in the dark", "pointer", "head"])
def test_the_shadow_of_a_beam_stop_is_found(shape):
    frame, shade = stopped(shape)
    nothing = np.zeros(frame.shape, bool)
    mask = find_beam_stop(frame, nothing, pixel_noise(frame, nothing))
    assert mask[shade].mean() > 0.7
    assert (mask & ~shade).mean() < 0.06


def test_without_a_beam_stop_none_is_found():
    row, col = grid()
    light = 30 + 900 / (1 + (np.hypot(row - 128, col - 128) / 30) ** 2)
    frame = np.random.default_rng(4).poisson(light).astype(np.float32)
    nothing = np.zeros(frame.shape, bool)
    assert not find_beam_stop(frame, nothing, pixel_noise(frame, nothing)).any()


def test_a_stop_ends_at_the_direct_beam():
    arm, head = np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), bool)
    arm[121:136, 100:] = True
    row, col = grid()
    head[np.hypot(row - 90, col - 140) < 20] = True
    places = np.array([[128.0, 104.0], [128.0, 200.0], [60.0, 60.0], [90.0, 140.0]])
    at_arm, at_head = _at_tip(arm, places), _at_tip(head, places)
    assert at_arm[0] > 0.9
    assert at_arm[1:].max() < 0.2
    assert at_head[3] > 0.99
    assert at_head[:3].max() < 0.2
    assert not _at_tip(np.zeros_like(arm), places).any()
