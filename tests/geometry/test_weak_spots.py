"""Weak spots between strong ones: the light of neighbours taken off, finer lattices, places to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._light import STEP, light_of_spots
from napari_sadp.geometry._meter import SpotMeter
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.edit import Edits, analyse_edited
from napari_sadp.geometry.faint import without_faint
from napari_sadp.geometry.lattice import fit_lattice, on_finer_basis
from napari_sadp.geometry.refine import fit_to_places
from napari_sadp.geometry.results import SpotLattice, SpotList
from napari_sadp.pattern import DiffractionPattern

CENTRE = np.array([127.3, 128.1])


def gaussians(rc, height, sigma, shape=(256, 256)):
    row, col = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for (r, c), h in zip(rc, np.broadcast_to(height, len(rc)), strict=True):
        image += h * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * sigma**2))
    return image


def grid(reach=5):
    m, n = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return np.column_stack([m, n])


def in_view(rc, margin=6.0):
    return rc[np.all((rc > margin) & (rc < 255 - margin), axis=1)]


def camera(image, background=200.0, seed=0):
    # brighter in the middle, as light is that was scattered inelastically; flat frames with large spots have stops
    light = gaussians([CENTRE], background, 60.0, image.shape)
    return DiffractionPattern(np.random.default_rng(seed).poisson(image + background + light).astype(float))


def same_lattice(found, basis, tolerance=0.02):
    return of_basis(found.lattice, basis, tolerance)


def of_basis(lattice, basis, tolerance):
    change = np.stack([lattice.g1_px, lattice.g2_px]) @ np.linalg.inv(basis)
    whole = np.abs(change - np.round(change)).max() < tolerance
    return whole and abs(abs(np.linalg.det(change)) - 1) < 2 * tolerance


# ---- the light of known spots --------------------------------------------------------------------------------------


def test_overlapping_spots_are_told_apart():
    sigma, rc = 3.0, np.array([[60.0, 60.0], [60.0, 68.0], [67.0, 64.0], [90.3, 40.6]])
    height = np.array([1000.0, 300.0, 500.0, 800.0])
    image = gaussians(rc, height, sigma, (128, 128))
    live = np.ones(image.shape, bool)
    start = np.exp(-0.5 * (STEP * np.arange(20) / sigma) ** 2)
    light = light_of_spots(image, live, rc, np.full(4, 600.0), sigma, start)
    assert light.height == pytest.approx(height, rel=0.1)
    assert np.abs(light.image[0] - image).max() < 0.06 * height.max()


def test_the_light_at_a_spot_is_that_of_its_neighbours_only():
    sigma, rc = 3.0, np.array([[60.0, 60.0], [60.0, 69.0]])
    image = gaussians(rc, [1000.0, 400.0], sigma, (128, 128))
    start = np.exp(-0.5 * (STEP * np.arange(20) / sigma) ** 2)
    light = light_of_spots(image, np.ones(image.shape, bool), rc, np.array([1000.0, 400.0]), sigma, start)
    row, col = np.array([[60, 60]]), np.array([[60, 64]])
    neighbour = 400 * np.exp(-0.5 * (np.array([9.0, 5.0]) / sigma) ** 2)
    assert light.at(rc[:1], row, col)[0, 0] == pytest.approx(neighbour, abs=15)
    between = light.at(np.array([[60.0, 64.5]]), row, col)[0, 0]
    assert between == pytest.approx(image[60, [60, 64]], rel=0.03)


def test_tails_are_followed_beyond_the_core():
    # a spot in its own broad foot, as a strong beam has
    rc = np.array([[40.0, 40.0], [40.0, 90.0], [90.0, 40.0], [90.0, 90.0]])
    image = gaussians(rc, 1000.0, 2.5, (128, 128)) + gaussians(rc, 60.0, 6.0, (128, 128))
    start = np.exp(-0.5 * (STEP * np.arange(16) / 2.5) ** 2)
    light = light_of_spots(image, np.ones(image.shape, bool), rc, np.full(4, 1000.0), 2.5, start)
    assert light.image[0, 40, 50] == pytest.approx(image[40, 50], rel=0.25)
    assert image[40, 50] > 10  # the core alone would leave 0.3


def test_a_strong_beam_does_not_hide_the_tails_of_the_others():
    rc = np.array([[64.0, 64.0], [40.0, 40.0], [40.0, 90.0], [90.0, 40.0], [90.0, 90.0]])
    height = np.array([30000.0, 1000.0, 1000.0, 1000.0, 1000.0])
    image = gaussians(rc, height, 2.5, (128, 128)) + gaussians(rc, 0.06 * height, 6.0, (128, 128))
    start = np.exp(-0.5 * (STEP * np.arange(16) / 2.5) ** 2)
    light = light_of_spots(image, np.ones(image.shape, bool), rc, height, 2.5, start)
    assert light.image[0, 40, 100] == pytest.approx(image[40, 100], rel=0.3)


def test_a_dark_node_beside_a_bright_spot_measures_nothing():
    sigma = 4.0
    bright = in_view(CENTRE + grid() @ np.array([[30.0, 0.0], [0.0, 30.0]]))
    pattern = camera(gaussians(bright, 4000.0, sigma) + gaussians(bright, 250.0, 2 * sigma))
    prepared = prepare_image(pattern)
    dark = bright[[20, 25, 30]] + [15.0, 0.0]
    meter = SpotMeter(prepared, sigma, 7.5)
    meter.learn_profile(bright)
    before, error, _ = meter.measure(dark)
    meter.light = meter.light_of(bright)
    after, error_after, _ = meter.measure(dark)
    assert np.all(before < -5 * error)  # the tails of two neighbours bend the plane below it
    assert np.all(np.abs(after) < 4 * error_after)


# ---- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1.5, 3.0, 5.0])
def test_a_place_is_found_to_what_the_noise_allows(sigma):
    basis = np.array([[11.0, 1.0], [-2.0, 12.0]]) * sigma
    rc = in_view(CENTRE + grid(3) @ basis, 4 * sigma)
    prepared = prepare_image(camera(gaussians(rc, 2000.0, sigma)))
    meter = SpotMeter(prepared, sigma, 4 * sigma)
    meter.learn_profile(rc)
    rng = np.random.default_rng(1)
    place, error = meter.places(rc + rng.normal(0, 0.15 * sigma, rc.shape))
    miss = (place - rc) / error[:, None]
    assert np.isfinite(error).all()
    assert error.max() < 0.05 * sigma
    assert 0.5 < np.sqrt(np.mean(miss**2)) < 2.0


@pytest.mark.parametrize("seed", range(3))
def test_a_place_on_the_slope_of_a_neighbour_is_found(seed):
    sigma, rc = 4.0, np.array([[127.0, 120.0], [127.0, 134.0], [60.0, 60.0], [60.0, 180.0], [190.0, 60.0]])
    image = gaussians(rc, [4000.0, 400.0, 4000.0, 4000.0, 4000.0], sigma)
    prepared = prepare_image(camera(image, seed=seed))
    meter = SpotMeter(prepared, sigma, 7.0)
    meter.learn_profile(rc[[2, 3, 4]])
    _, error = meter.places(rc[1:2])
    assert not np.isfinite(error[0])  # it slides down to the neighbour
    meter.light = meter.light_of(rc)
    place, error = meter.places(rc[1:2])
    assert np.linalg.norm(place - rc[1]) < 0.2 * sigma
    assert error[0] < 0.3


def test_where_there_is_no_spot_there_is_no_place():
    rc = np.array([[60.0, 60.0], [60.0, 180.0], [190.0, 60.0], [190.0, 190.0]])
    prepared = prepare_image(camera(gaussians(rc, 3000.0, 2.0)))
    meter = SpotMeter(prepared, 2.0, 8.0)
    meter.learn_profile(rc)
    start = np.array([[128.0, 128.0], [-40.0, 20.0]])
    place, error = meter.places(start)
    assert np.all((error > 0.3) | ~np.isfinite(error))
    assert np.array_equal(place[~np.isfinite(error)], start[~np.isfinite(error)])


def test_one_spot_of_another_crystal_does_not_move_the_lattice():
    basis = np.array([[20.0, 1.0], [-2.0, 24.0]])
    indices = grid(2)
    rc = CENTRE + indices @ basis
    wrong = rc.copy()
    wrong[3] += [3.0, -2.0]
    spots = SpotList(wrong, np.full(len(rc), 100.0), np.full(len(rc), 30.0), 2.0)
    start = SpotLattice(CENTRE, *basis, np.eye(4), 1.0, spots, indices, np.ones(len(rc), bool), -20.0)
    found = fit_to_places(start, wrong, np.full(len(rc), 0.05**2), reach_px=128)
    assert of_basis(found, basis, 1e-3)
    assert found.beam_rc == pytest.approx(CENTRE, abs=0.02)
    assert found.log_nfa == -20.0


@pytest.mark.parametrize("share", [-0.008, 0.0, 0.006])
def test_a_barrel_or_pincushion_is_told_from_the_lattice(share):
    basis = np.array([[20.0, 1.0], [-2.0, 24.0]])
    indices = grid()
    g = indices @ basis
    rc = CENTRE + g * (1 + share * np.sum(g**2, axis=1, keepdims=True) / 128**2)
    rc += np.random.default_rng(2).normal(0, 0.05, rc.shape)
    spots = SpotList(rc, np.full(len(rc), 100.0), np.full(len(rc), 30.0), 2.0)
    start = SpotLattice(CENTRE + 0.3, *(1.01 * basis), np.eye(4), 1.0, spots, indices, np.ones(len(rc), bool))
    found = fit_to_places(start, rc, np.full(len(rc), 0.05**2), reach_px=128)
    assert 128**2 * found.radial_px2 == pytest.approx(share, abs=4e-4)
    assert of_basis(found, basis, 5e-4)
    assert np.linalg.norm(found.node_rc(found.indices) - rc, axis=1).max() < 0.3
    # few spots near the beam say nothing of it
    near = np.linalg.norm(g, axis=1) < 30
    few = SpotLattice(
        CENTRE, *basis, np.eye(4), 1.0, SpotList(rc[near], *(np.ones(near.sum()),) * 2, 2.0), indices[near],
        np.ones(near.sum(), bool),
    )  # fmt: skip
    assert abs(fit_to_places(few, rc[near], np.ones(near.sum()), reach_px=128).radial_px2) * 128**2 < 1e-3


def test_the_lattice_of_a_camera_frame_is_good_to_a_thousandth():
    basis = np.array([[22.0, 2.0], [-3.0, 25.0]])
    rc = in_view(CENTRE + grid() @ basis)
    glow = gaussians([CENTRE], 20000.0, 12.0)
    strength = 3000 * np.exp(-np.linalg.norm(rc - CENTRE, axis=1) / 50)
    found = analyse_pattern(camera(gaussians(rc, strength, 2.5) + gaussians([CENTRE], 3e4, 2.5) + glow))
    assert same_lattice(found, basis, 0.002)
    assert found.beam.rc == pytest.approx(CENTRE, abs=0.1)


def test_edits_and_faintest_keep_what_was_refined():
    basis = np.array([[22.0, 2.0], [-3.0, 25.0]])
    g = grid() @ basis
    rc = CENTRE + g * (1 + 0.008 * np.sum(g**2, axis=1, keepdims=True) / 128**2)
    height = np.where(np.abs(grid()).sum(axis=1) % 4 == 3, 60.0, 3000.0)
    found = analyse_pattern(camera(gaussians(rc, height, 2.0)))
    share = 128**2 * found.lattice.radial_px2
    assert share == pytest.approx(0.008, abs=1e-3)
    for other in (
        without_faint(found, 0.1),
        analyse_edited(found.pattern, Edits(beam_rc=found.beam.rc, basis_px=basis)),
        analyse_edited(found.pattern, Edits(removed_rc=found.spots.rc[-1:])),
    ):
        assert of_basis(other.lattice, basis, 2e-3)
        assert 128**2 * other.lattice.radial_px2 == pytest.approx(share, abs=5e-4)
        np.testing.assert_array_equal(other.spots.rc, other.lattice.spots.rc)


# ---- finer lattices ------------------------------------------------------------------------------------------------


def between(basis, weak, strong=5000.0, sigma=4.0, shift=(0.0, 0.0)):
    """Return strong spots on a lattice, and weak ones on the middle of its cells."""
    nodes = grid()
    far = np.linalg.norm(nodes @ basis, axis=1)
    fall = np.exp(-far / 90)
    rc = CENTRE + nodes @ basis
    new = CENTRE + (nodes + 0.5) @ basis + shift
    image = gaussians(rc, strong * fall, sigma) + gaussians(rc, 0.05 * strong * fall, 2 * sigma)
    return image + gaussians(new, weak * np.exp(-np.linalg.norm(new - CENTRE, axis=1) / 90), sigma)


BASIS = np.array([[30.0, 2.0], [-2.0, 31.0]])
FINER = np.array([[0.5, 0.5], [-0.5, 0.5]]) @ BASIS
#: A twentieth of the strong spots, whose tails cover them: too faint for the search.
WEAK = 200.0


def test_weak_spots_between_strong_ones_make_the_lattice_finer():
    assert same_lattice(analyse_pattern(camera(between(BASIS, WEAK))), FINER)


def test_nothing_between_strong_spots_leaves_the_lattice():
    for seed in range(3):
        assert same_lattice(analyse_pattern(camera(between(BASIS, 0.0), seed=seed)), BASIS)


@pytest.mark.parametrize("basis", [[[23.0, 2.3], [6.9, 31.0]], [[25.0, 0.0], [11.0, 33.0]]])
def test_weak_spots_in_an_oblique_cell_make_the_lattice_finer(basis):
    # far out, nearly every length is one of the coarse lattice too
    nodes = grid()
    rc, new = CENTRE + nodes @ basis, CENTRE + (nodes + 0.5) @ basis
    image = gaussians(rc, 4000.0, 2.5) + gaussians(rc, 200.0, 5.0) + gaussians(new, 60.0, 2.5)
    assert same_lattice(analyse_pattern(camera(image)), np.array([[0.5, 0.5], [-0.5, 0.5]]) @ basis)


def test_weak_spots_beside_the_nodes_are_of_something_else():
    # as strong as those that make it finer, but half of a spot aside, as those of a second grain
    assert same_lattice(analyse_pattern(camera(between(BASIS, WEAK, shift=(2.6, 0.0)))), BASIS)


def test_a_twin_is_no_finer_lattice():
    # fcc along [011]: the spots of the twin lie at thirds of the lattice, at the lengths that it has itself
    a, b = np.array([-20.0, 14.14]), np.array([20.0, 14.14])
    nodes = grid()
    first = CENTRE + nodes @ np.array([a, b])
    along = a / np.linalg.norm(a)
    g = first - CENTRE
    twin = CENTRE + 2 * (g @ along)[:, None] * along - g
    fall = np.exp(-np.linalg.norm(g, axis=1) / 80)
    shown = analyse_pattern(camera(gaussians(first, 6000 * fall, 2.5) + gaussians(twin, 400 * fall, 2.5)))
    assert same_lattice(shown, np.array([a, b]))


# ---- rows ----------------------------------------------------------------------------------------------------------


def two_rows(weak):
    """Return two rows of strong spots, and weak ones on the row opposite."""
    along = np.arange(-4, 5)[:, None] * np.array([3.0, 24.0])
    across = np.array([40.0, -3.0])
    image = gaussians(CENTRE + along, 3000.0, 2.5) + gaussians(CENTRE + along[:2] + across, 1500.0, 2.5)
    return image + gaussians(CENTRE + along - across, weak, 2.5)


def test_weak_spots_of_a_third_row_make_a_zone_axis():
    with pytest.raises(PatternRefusedError, match="lie on 2 row"):
        analyse_pattern(camera(two_rows(0.0)))
    found = analyse_pattern(camera(two_rows(30.0)))
    assert same_lattice(found, np.array([[3.0, 24.0], [40.0, -3.0]]))
    # what may be analysed may be edited
    again = analyse_edited(found.pattern, Edits(spots=found.spots))
    assert same_lattice(again, np.array([[3.0, 24.0], [40.0, -3.0]]))


# ---- noise ---------------------------------------------------------------------------------------------------------


def test_sparse_counts_beside_a_streak_have_the_noise_of_whole_numbers():
    rng = np.random.default_rng(5)
    data = (rng.random((256, 256)) < 0.02).astype(float)
    data += np.round(gaussians([CENTRE], 4000.0, 5.0))
    data[:, 122:135] += np.round(60 * np.exp(-np.abs(np.arange(256) - 127) / 80))[:, None]
    prepared = prepare_image(DiffractionPattern(np.minimum(data, 255)))
    assert "subtracted streaks of saturated spots" in prepared.notes
    assert prepared.noise.min() >= 0.299
    full = np.minimum(data, 255) >= 255
    assert full.sum() > 300
    assert np.array_equal(prepared.full, full & ~prepared.mask)  # also where a streak was taken off
    # on the streak it is that of its subtraction
    assert prepared.noise[60, 128] > 5 * prepared.noise[60, 60]


# ---- a finer lattice that weak spots show ---------------------------------------------------------------------------


def test_spots_that_scatter_stay_on_the_finer_lattice():
    """Overlapping discs lie up to a pixel beside their nodes; in a net twice as fine that is much, and they belong to it still."""
    rng = np.random.default_rng(4)
    basis = np.array([[22.4, 0.6], [-0.5, 32.1]])
    nodes = grid(3)
    rc = CENTRE + nodes @ basis + rng.normal(0, 0.5, (len(nodes), 2))
    # one spot between them, which the search saw, and one that lies on no node of either
    extra = CENTRE + np.array([[1.0, 0.5], [0.3, 1.3]]) @ basis
    rc = np.concatenate([rc, extra])
    spots = SpotList(rc, np.full(len(rc), 1000.0), np.full(len(rc), 40.0), 3.0)
    coarse = fit_lattice(spots)
    assert of_basis(coarse, basis, 0.03)
    finer = on_finer_basis(coarse, np.stack([coarse.g1_px, coarse.g2_px / 2]))
    assert of_basis(finer, basis / [[1.0], [2.0]], 0.05)
    assert finer.indexed[coarse.indexed].all()
    assert (finer.indexed[-2], finer.indexed[-1]) == (True, False)
    assert np.array_equal(finer.spots.rc, coarse.spots.rc)
    used = finer.indexed
    assert np.linalg.norm(finer.node_rc(finer.indices[used]) - rc[used], axis=1).max() < 3
    assert len({tuple(node) for node in finer.indices[used].tolist()}) == used.sum()
