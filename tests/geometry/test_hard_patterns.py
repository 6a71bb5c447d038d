"""What makes lattices hard to find: second nets, superlattices, few grey levels, lettering, crowded spots, hidden beams."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry._masks import find_margins
from napari_sadp.geometry._search import judge, shifted_net, weights
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import compressed, prepare_image
from napari_sadp.geometry.lattice import fit_lattice
from napari_sadp.geometry.nodes import inversion_agreement
from napari_sadp.geometry.results import SpotList
from napari_sadp.geometry.spots import spot_hypotheses
from napari_sadp.pattern import DiffractionPattern

BASIS = np.array([[24.0, 3.0], [-4.0, 30.0]])
CENTRE = np.array([127.5, 127.5])


def nodes(reach=4):
    m, n = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.column_stack([m.ravel(), n.ravel()])


def in_view(rc):
    return rc[np.all((rc > 4) & (rc < 251), axis=1)]


def as_spots(rc, intensity=None):
    rc = np.asarray(rc, float)
    intensity = np.full(len(rc), 1000.0) if intensity is None else np.asarray(intensity, float)
    return SpotList(rc, intensity, np.full(len(rc), 50.0), 1.5)


def frame_of(rc, height, sigma=2.0, shape=(256, 256), background=10.0):
    row, col = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, float(background))
    for (r, c), h in zip(rc, height, strict=True):
        image += h * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * sigma**2))
    return image


def same_lattice(lattice, basis):
    change = np.stack([lattice.g1_px, lattice.g2_px]) @ np.linalg.inv(basis)
    return abs(abs(np.linalg.det(change)) - 1) < 0.02 and np.abs(change - np.round(change)).max() < 0.02


@pytest.fixture
def two_nets():
    """A zero-order net near the beam and a net of the same periods around it, shifted by an odd fraction."""
    zero = CENTRE + nodes() @ BASIS
    zero = zero[np.linalg.norm(zero - CENTRE, axis=1) < 55]
    first = CENTRE + np.add(nodes(6), [0.31, 0.18]) @ BASIS
    radius = np.linalg.norm(first - CENTRE, axis=1)
    first = first[(radius > 70) & (radius < 115)]
    return zero, first


def test_a_shifted_net_is_seen_as_one(two_nets):
    zero, first = two_nets
    spots = as_spots(np.concatenate([zero, first]))
    fit = judge(spots.rc, weights(spots), CENTRE, BASIS)
    second, odds = shifted_net(spots.rc, fit)
    assert np.array_equal(np.flatnonzero(second), np.arange(len(zero), len(spots)))
    assert odds < -10


def test_the_lattice_is_that_of_the_net_through_the_beam(two_nets):
    zero, first = two_nets
    lattice = fit_lattice(as_spots(np.concatenate([zero, first])), centre_rc=CENTRE)
    assert same_lattice(lattice, BASIS)
    assert np.linalg.norm(lattice.node_rc(np.array([[0, 0]]))[0] - CENTRE) % 1 < 0.5
    assert lattice.indexed[: len(zero)].all()
    assert not lattice.indexed[len(zero) :].any()


def test_a_superlattice_is_no_second_net():
    main = in_view(CENTRE + nodes() @ BASIS)
    between = in_view(CENTRE + np.add(nodes(), [0.5, 0.5]) @ BASIS)
    spots = as_spots(
        np.concatenate([main, between]), np.r_[np.full(len(main), 1000.0), np.full(len(between), 60.0)]
    )
    fit = judge(spots.rc, weights(spots), CENTRE, BASIS)
    assert not shifted_net(spots.rc, fit)[0].any()
    lattice = fit_lattice(spots, centre_rc=CENTRE)
    assert same_lattice(lattice, np.array([[0.5, 0.5], [0.5, -0.5]]) @ BASIS)


def test_a_sixth_of_the_cell_is_found_from_a_few_strong_spots_and_many_weak_ones():
    fine = np.array([[12.0, 3.0], [-2.0, 14.0]])
    coarse = np.array([[3, 0], [0, 2]]) @ fine
    main = in_view(CENTRE + nodes() @ coarse)
    rng = np.random.default_rng(3)
    rest = in_view(CENTRE + nodes(9) @ fine)
    rest = rest[rng.permutation(len(rest))[:40]]
    rc = np.concatenate([main, rest])
    rc = rc[np.unique(np.round(rc), axis=0, return_index=True)[1]]
    assert same_lattice(fit_lattice(as_spots(rc + rng.normal(0, 0.1, rc.shape)), centre_rc=CENTRE), fine)


def test_few_grey_levels_do_not_hide_spots_on_a_flat_background():
    rc = in_view(CENTRE + nodes() @ BASIS)
    height = np.where(np.linalg.norm(rc - CENTRE, axis=1) < 1, 200.0, 4.0)
    row, col = np.mgrid[:256, :256]
    halo = 4 * np.exp(-np.hypot(row - CENTRE[0], col - CENTRE[1]) / 25)
    counts = np.random.default_rng(2).poisson(15 * (frame_of(rc, height, background=0.02) + halo))
    image = np.round(counts / 15)
    assert np.median(image) == 0
    geometry = analyse_pattern(DiffractionPattern(image.astype(np.float32)))
    assert same_lattice(geometry.lattice, BASIS)
    assert geometry.lattice.n_spots > 0.6 * len(rc)


def test_contours_of_a_slope_in_few_grey_levels_are_no_spots():
    row, col = np.mgrid[:256, :256]
    radius = np.hypot(row - 120, col - 130)
    image = np.round(12 * np.exp(-radius / 60)).astype(np.float32)
    spots = spot_hypotheses(prepare_image(DiffractionPattern(image)))[0]
    assert np.count_nonzero(np.linalg.norm(spots.rc - [120, 130], axis=1) > 12) == 0


def test_a_lettered_margin_is_masked_and_a_dark_short_exposure_is_not():
    rng = np.random.default_rng(1)
    image = rng.poisson(30.0, (200, 240)).astype(np.float32)
    image[:20] = 0.0
    image[6:11, 10:60:3] = 255.0  # a title
    image[:, -12:] = 0.0
    mask = find_margins(image)
    assert mask[:20].all()
    assert mask[:, -12:].all()
    assert not mask[20:, :-12].any()
    dark = rng.poisson(np.where(np.arange(200)[:, None] < 60, 0.15, 8.0) * np.ones((200, 240)))
    assert not find_margins(dark.astype(np.float32)).any()


def test_weak_spots_of_a_dense_pattern_are_seen_with_less_caution():
    basis = np.array([[11.0, 0.0], [0.0, 11.0]])
    rng = np.random.default_rng(0)
    index = nodes(5)[np.linalg.norm(nodes(5) @ basis, axis=1) < 58]
    half = len(index) // 2  # the nodes run from one to its inverse
    strong = rng.random(half) < 0.12
    strong = np.r_[strong, True, strong[::-1]]
    rc, height = CENTRE + index @ basis, np.where(strong, 400.0, 12.0)
    image = rng.poisson(frame_of(rc, height, sigma=2.6, background=20.0)).astype(np.float32)
    prepared = prepare_image(DiffractionPattern(image))
    cautious = max(len(spots) for spots in spot_hypotheses(prepared))
    bold = max(len(spots) for spots in spot_hypotheses(prepared, rough=False, seen_in=compressed(prepared)))
    assert bold > 1.3 * cautious
    assert same_lattice(analyse_pattern(DiffractionPattern(image)).lattice, basis)


def test_compression_is_linear_below_the_noise_and_logarithmic_above():
    image = frame_of([CENTRE], [1e5], sigma=3.0)
    image += np.random.default_rng(0).normal(0, 2.0, image.shape)
    prepared = prepare_image(DiffractionPattern(image.astype(np.float32)))
    small = compressed(prepared)
    ratio = prepared.signal / prepared.noise
    low = np.abs(ratio) < 0.5
    assert np.allclose(small.signal[low], ratio[low], atol=0.01)
    top = np.unravel_index(np.argmax(ratio), ratio.shape)
    assert small.signal[top] == pytest.approx(3 * np.log(2 * ratio[top] / 3), rel=0.01)


def test_intensities_of_all_nodes_tell_the_inversion_centre():
    rng = np.random.default_rng(5)
    index = nodes(5)
    rc = CENTRE + index @ BASIS
    keep = np.all((rc > 4) & (rc < 251), axis=1)
    index, rc = index[keep], rc[keep]
    mate = {tuple(max(tuple(i), tuple(-i))): float(rng.lognormal(6, 1.2)) for i in index}
    height = np.array([mate[tuple(max(tuple(i), tuple(-i)))] for i in index])
    image = rng.poisson(frame_of(rc, height, background=30.0)).astype(np.float32)
    geometry = analyse_pattern(DiffractionPattern(image), beam_rc=CENTRE)
    agreement, n_pairs = inversion_agreement(
        geometry.prepared, geometry.lattice, np.array([[0, 0], [1, 0], [0, 1]])
    )
    assert n_pairs.min() >= 12
    assert agreement[0] > 0.9
    assert agreement[1:].max() < 0.6
    assert np.linalg.norm(analyse_pattern(DiffractionPattern(image)).beam.rc - CENTRE) < 0.5
