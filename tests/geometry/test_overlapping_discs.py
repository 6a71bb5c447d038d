"""Discs that overlap, that the frame cuts off, and a direct beam that looks larger than the others: places and intensities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from napari_sadp.geometry._first_fit import subset
from napari_sadp.geometry._search import judge, weights
from napari_sadp.geometry._second_nets import without_copies
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import compressed, prepare_image
from napari_sadp.geometry.discs import disc_hypotheses
from napari_sadp.geometry.lattice import fit_lattice
from napari_sadp.geometry.results import SpotList
from napari_sadp.pattern import DiffractionPattern

SIZE = 256
CENTRE = np.array([126.3, 130.8])
ROW, COL = np.mgrid[:SIZE, :SIZE]


def nodes(reach):
    m, n = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return np.column_stack([m, n])


def frame(rc, height, radius, seed=0, top=np.inf):
    """Discs with soft edges on diffuse light, whose light adds up where they overlap; counting noise, and a largest count."""
    image = 30 + 60 * np.exp(-np.hypot(ROW - CENTRE[0], COL - CENTRE[1]) / 60)
    for (r, c), h, size in zip(rc, height, np.broadcast_to(radius, len(rc)), strict=True):
        image += h * ndtr(size - np.hypot(ROW - r, COL - c))
    return np.minimum(np.random.default_rng(seed).poisson(image).astype(float), top)


def dense(radius=14.0):
    """Return places, heights and basis of discs of which those of one row overlap."""
    basis = np.array([[1.4 * radius, 2.0], [0.3 * radius, 3.0 * radius]])
    hk = nodes(6)
    rc = CENTRE + hk @ basis
    distance = np.linalg.norm(rc - CENTRE, axis=1)
    # of unequal strength, as a crystal makes them, and inversion keeps
    height = 2500 * np.exp(-((distance / 60) ** 2)) * (((5 * hk[:, 0] ** 2 + 3 * hk[:, 1] ** 2 + 6) % 7) / 6)
    inside = np.all((rc > -radius) & (rc < SIZE + radius), axis=1) & (height > 15)
    return rc[inside], height[inside], basis


def change_of_basis(found, basis):
    return np.stack([found.lattice.g1_px, found.lattice.g2_px]) @ np.linalg.inv(basis)


# ---- overlap -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overlapping():
    rc, height, basis = dense()
    return rc, height, basis, analyse_pattern(DiffractionPattern(frame(rc, height, 14.0)))


def test_discs_that_overlap_give_their_lattice(overlapping):
    _, _, basis, found = overlapping
    change = change_of_basis(found, basis)
    assert abs(abs(np.linalg.det(change)) - 1) < 0.02
    assert np.abs(change - np.round(change)).max() < 0.01
    assert np.linalg.norm(found.beam.rc - CENTRE) < 0.3


def test_their_places_are_those_of_their_edges(overlapping):
    rc, _, _, found = overlapping
    lattice = found.lattice
    miss = np.linalg.norm(lattice.spots.rc[lattice.indexed][:, None] - rc, axis=2).min(axis=1)
    # of a radius of 14 px
    assert np.median(miss) < 0.5
    assert np.sqrt(np.mean(miss**2)) < 1.2


def test_their_intensities_are_their_own(overlapping):
    rc, height, _, found = overlapping
    measured = found.nodes
    apart = np.linalg.norm(measured.rc[:, None] - rc, axis=2)
    true = height[apart.argmin(axis=1)]
    inside = np.all((measured.rc > 16) & (measured.rc < SIZE - 17), axis=1)
    use = (apart.min(axis=1) < 2) & (true > 100) & np.isfinite(measured.intensity) & inside
    ratio = measured.intensity[use] / true[use]
    assert np.count_nonzero(use) >= 15
    assert np.mean(np.abs(ratio / np.median(ratio) - 1)) < 0.3


def test_spots_that_are_no_discs_make_no_lattice_so_dense():
    """What a blob detector sees as closer than it tells apart is texture."""
    rc, _, basis = dense()
    few = rc[np.linalg.norm(rc - CENTRE, axis=1) < 70]
    spots = SpotList(few, np.full(len(few), 100.0), np.full(len(few), 30.0), 7.0)
    assert spots.least_spacing_px == 21
    assert np.linalg.norm(fit_lattice(spots).g1_px) >= 21
    as_discs = SpotList(few, spots.intensity, spots.snr, 7.0, 2.4)
    assert np.linalg.norm(fit_lattice(as_discs).g1_px) == pytest.approx(np.linalg.norm(basis[0]), rel=0.01)
    assert subset(as_discs, np.arange(len(few)) < 3).closest == 2.4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beam", [900, 8000])
def test_what_is_left_of_strong_discs_is_no_superlattice(beam, seed):
    """Every node of a plain lattice shows a disc: halves of its vectors show none."""
    basis = np.array([[36.0, 3.0], [-3.0, 39.0]])
    hk = nodes(4)
    rc = CENTRE + hk @ basis
    height = 900 * np.exp(-np.sum((rc - CENTRE) ** 2, axis=1) / 150**2)
    height *= 1 + (5 * hk[:, 0] ** 2 + 3 * hk[:, 1] ** 2) % 7 / 7
    height[np.all(hk == 0, axis=1)] = beam
    found = analyse_pattern(DiffractionPattern(frame(rc, height + 25, 14.0, seed)))
    assert np.linalg.norm(found.lattice.g1_px) == pytest.approx(36.1, abs=0.3)


# ---- a larger direct beam ------------------------------------------------------------------------------------------


def test_a_direct_beam_that_looks_larger_is_in_its_middle():
    """A full detector spills over: the ring of the radius of the others fits the beam on all sides, and not in the middle."""
    basis = np.array([[33.0, 12.0], [-14.0, 36.0]])
    hk = nodes(3)
    rc = CENTRE + hk @ basis
    beam = np.all(hk == 0, axis=1)
    height = np.where(beam, 40000, 500 * np.exp(-np.sum((rc - CENTRE) ** 2, axis=1) / 90**2))
    for seed in range(3):
        prepared = prepare_image(
            DiffractionPattern(frame(rc, height, np.where(beam, 15.0, 13.0), seed, top=6000))
        )
        spots = disc_hypotheses(prepared, compressed(prepared))[0]
        near = np.linalg.norm(spots.rc - CENTRE, axis=1)
        assert near.min() < 1
        assert np.count_nonzero(near < 16) == 1


# ---- cut off -------------------------------------------------------------------------------------------------------


def test_discs_that_a_margin_cuts_off_do_not_stretch_the_lattice():
    basis = np.array([[41.0, 1.0], [0.5, 58.0]])
    hk = nodes(3)
    rc = CENTRE + hk @ basis
    height = 1500 * np.exp(-np.sum((rc - CENTRE) ** 2, axis=1) / 110**2)
    data = frame(rc, height, 12.0)
    # the middle of the outer discs is on the last columns that are seen
    edge = int(CENTRE[1] + 2 * 58.0) + 2
    data[:, edge:] = 0
    data[:, : int(CENTRE[1] - 2 * 58.0) - 1] = 0
    found = analyse_pattern(DiffractionPattern(data))
    change = change_of_basis(found, basis)
    assert np.abs(change - np.round(change)).max() < 0.004


# ---- what is in view -----------------------------------------------------------------------------------------------


def test_spots_whose_inverse_is_out_of_view_do_not_speak_for_a_second_net():
    """The inverse of a node of the finer lattice may lie beyond the frame: a coset that only looks unpaired is no second net."""
    basis = np.array([[64.0, 32.0], [101.0, -191.0]])
    hk = np.array(
        [[-3, 0], [3, 0], [1, 1], [-1, -1], [0, 0], [-2, 0], [2, 0], [-1, 0], [1, 0], [1, -1], [-2, -1]]
    )
    amplitude = np.array([884, 839, 1164, 1165, 1510, 345, 340, 172, 175, 1193, 1306.0])
    rc = np.array([256.0, 256.0]) + hk @ basis
    spots = SpotList(rc, amplitude**2, np.full(len(rc), 30.0), 8.6, 2.4)
    distance = np.linalg.norm(rc - 256.0, axis=1)
    fit = judge(rc, weights(spots), np.array([256.0, 256.0]), basis)
    kept, copies = without_copies(spots, fit, distance)
    assert not copies.any()
    assert abs(np.linalg.det(kept.basis)) == pytest.approx(abs(np.linalg.det(basis)), rel=1e-6)


def test_a_shifted_net_all_round_is_taken_apart_still():
    """A ring of a higher-order Laue zone at a third of a cell, all in view, is no part of the lattice."""
    basis = np.array([[24.0, 1.0], [-1.0, 25.0]])
    hk = nodes(8)
    net = CENTRE + hk @ basis
    far = np.linalg.norm(net - CENTRE, axis=1)
    shifted = net + basis.sum(axis=0) / 3
    ring = np.linalg.norm(shifted - CENTRE, axis=1)
    rc = np.concatenate([net[far < 55], shifted[(ring > 80) & (ring < 105)]])
    amplitude = np.r_[
        np.full(np.count_nonzero(far < 55), 40.0), np.full(len(rc) - np.count_nonzero(far < 55), 10.0)
    ]
    spots = SpotList(rc, amplitude**2, np.full(len(rc), 30.0), 2.0)
    joined = np.stack([basis.sum(axis=0) / 3, basis[0]])
    fit = judge(rc, weights(spots), CENTRE, joined)
    kept, copies = without_copies(spots, fit, np.linalg.norm(rc - CENTRE, axis=1))
    assert np.count_nonzero(copies) > 10
    assert abs(np.linalg.det(kept.basis)) == pytest.approx(abs(np.linalg.det(basis)), rel=0.01)
