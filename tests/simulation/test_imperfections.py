"""Imperfections one at a time against closed forms, all together against their own truth."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.imperfections import (
    PRESETS,
    Imperfections,
    choose_imperfections,
    degrade_pattern,
    draw_frames,
    draw_parameters,
    simulate_imperfect,
)
from napari_sadp.simulation.zone_pattern import PatternSettings, simulate_pattern

SIZE = 128
SETTINGS = PatternSettings(size=SIZE, pixel_size_inv_angstrom=0.012, spot_sigma_px=1.5)


@pytest.fixture(scope="module")
def crystal():
    return find_structure("GaAs", 216).crystal()


def make(crystal, seed=0, zone=(0, 1, 1), settings=SETTINGS, **changes):
    return simulate_imperfect(crystal, zone, settings, choose_imperfections("none", **changes), seed=seed)


def bare(n=1, rc=((0.0, 20.0),), height=(1.0,), direct=0.0, seed=0, size=SIZE, shape=None, **changes):
    """Frames of given spots, without a crystal."""
    parameters = draw_parameters(choose_imperfections("none", **changes), n, np.random.default_rng(seed))
    spots = torch.tensor(rc, dtype=torch.float64).repeat(n, 1, 1)
    heights = torch.tensor(height, dtype=torch.float64).repeat(n, 1)
    drawn = draw_frames(
        spots, heights, torch.full((n,), direct, dtype=torch.float64), parameters, size, **(shape or {})
    )
    return drawn, parameters


def test_nothing_wrong_is_the_perfect_pattern(crystal):
    perfect = simulate_pattern(crystal, (0, 1, 1), SETTINGS)
    made = make(crystal)
    assert np.allclose(made.pattern.data, perfect.pattern.data, atol=1e-4)
    assert np.allclose(made.rc, perfect.rc)
    assert made.spots.hkl.tolist() == perfect.spots.hkl.tolist()
    assert not made.hidden.any()
    assert not made.saturated.any()
    assert np.allclose(made.affine, np.eye(2))


@pytest.mark.parametrize("engine", ["kinematic", "dynamical"])
def test_rotation_is_that_of_the_simulator(crystal, engine):
    settings = PatternSettings(size=SIZE, pixel_size_inv_angstrom=0.02, engine=engine, g_max_inv_angstrom=1.2)
    perfect = simulate_pattern(crystal, (0, 1, 1), settings, rotation_deg=37.0)
    made = make(crystal, settings=settings, rotation_deg=37.0)
    assert np.allclose(made.pattern.data, perfect.pattern.data, atol=1e-4)
    assert np.allclose(made.rc, perfect.rc[perfect.spots.intensity > 1e-6])


def test_mirror_exchanges_left_and_right(crystal):
    # GaAs is polar, so that its [011] pattern differs from its mirror image off the exact zone axis
    settings = PatternSettings(size=SIZE, pixel_size_inv_angstrom=0.012, tilt_mrad=(5.0, 2.0))
    plain, mirrored = (make(crystal, settings=settings, mirror=m).pattern.data for m in (0.0, 1.0))
    assert np.allclose(mirrored, plain[:, ::-1], atol=1e-5)
    assert not np.allclose(mirrored, plain, atol=1e-2)


def test_affine_of_ellipse_and_offset():
    frames, p = bare(n=50, ellipticity=(0.04, 0.04), rotation_deg=(0, 360), mirror=0.5, offset=(0.1, 0.1))
    values = np.linalg.svd(frames.affine.numpy(), compute_uv=False)
    assert np.allclose(values[:, 0] / values[:, 1], 1.04)
    assert np.allclose(np.abs(np.linalg.det(frames.affine.numpy())), 1.0)
    assert (np.linalg.det(frames.affine.numpy()) < 0).tolist() == p.mirrored.tolist()
    distance = np.linalg.norm(frames.beam_rc.numpy() - (SIZE - 1) / 2, axis=1)
    assert np.allclose(distance, 0.1 * SIZE)
    # without radial distortion the affine map is the whole truth
    expected = frames.beam_rc.numpy() + (frames.affine.numpy() @ [0.0, 20.0])
    assert np.allclose(frames.rc[:, 0].numpy(), expected)


def test_long_axis_of_the_ellipse_points_where_it_says():
    frames, p = bare(n=20, ellipticity=0.1)
    left, _, _ = np.linalg.svd(frames.affine.numpy())
    row, col = left[:, 0, 0], left[:, 1, 0]
    angle = np.degrees(np.arctan2(-row, col)) % 180  # anticlockwise on the screen
    difference = (angle - p.ellipse_deg + 90) % 180 - 90
    assert np.abs(difference).max() < 1e-6


def test_radial_distortion_lengthens_with_the_square():
    rc = ((0.0, SIZE / 2), (0.0, SIZE / 4))
    frames, _ = bare(rc=rc, height=(1.0, 1.0), radial=0.02)
    offset = (frames.rc - frames.beam_rc[:, None])[0, :, 1].numpy()
    assert np.allclose(offset, [SIZE / 2 * 1.02, SIZE / 4 * 1.005])


def test_discs_are_flat_and_as_wide_as_they_say():
    frames, _ = bare(rc=((0.0, 40.0),), disc=1.0, disc_radius=0.25, spot_sigma=0.02)
    image = frames.image[0].numpy()
    row, col = frames.rc[0, 0].numpy()
    distance = np.hypot(*(np.indices(image.shape) - np.array([row, col])[:, None, None]))
    assert np.allclose(image[distance < 7], 1.0, atol=0.01)
    assert image[distance > 13].max() < 0.01
    assert image.sum() == pytest.approx(np.pi * 10**2, rel=0.02)


def test_discs_are_drawn_at_the_same_subpixel_position():
    shape = {"spot_sigma_px": 1.0, "disc_radius_px": 6.0}
    frames, _ = bare(rc=((0.3, 20.7),), shape=shape)
    image = frames.image[0].numpy()
    centre = (np.indices(image.shape) * image).sum(axis=(1, 2)) / image.sum()
    assert np.allclose(centre, frames.rc[0, 0].numpy(), atol=0.01)


def test_a_measured_profile_keeps_its_shape_and_comes_to_lie_on_the_spot():
    row, col = np.mgrid[:21, :21]
    profile = np.exp(-((row - 9) ** 2) / 18 - (col - 11) ** 2 / 4) + 5.0  # off its middle, on a background
    frames, _ = bare(rc=((3.25, 20.5),), shape={"spot_sigma_px": 0.6, "spot_profile": profile})
    image = frames.image[0].numpy()
    assert image.max() == pytest.approx(1.0, abs=0.03)
    where = np.indices(image.shape)
    centre = (where * image).sum(axis=(1, 2)) / image.sum()
    assert np.allclose(centre, frames.rc[0, 0].numpy(), atol=0.1)
    width = np.sqrt((((where - centre[:, None, None]) ** 2) * image).sum(axis=(1, 2)) / image.sum())
    assert width == pytest.approx([3.0, np.sqrt(2 + 0.36)], rel=0.1)


def test_mosaic_makes_arcs_streaks_make_lines_and_both_keep_the_intensity():
    rc = ((0.0, 30.0),)
    plain = bare(rc=rc)[0].image[0].numpy()
    arc = bare(rc=rc, mosaic_deg=5.0)[0].image[0].numpy()
    line, p = bare(rc=rc, streak=0.15)
    line = line.image[0].numpy()
    where = np.indices(plain.shape) - (SIZE - 1) / 2

    def spread(image, direction):
        along = np.tensordot(direction, where, axes=1)
        mean = (along * image).sum() / image.sum()
        return np.sqrt((((along - mean) ** 2) * image).sum() / image.sum())

    assert arc.sum() == pytest.approx(plain.sum(), rel=1e-3)
    assert spread(arc, (1.0, 0.0)) > 1.2 * spread(arc, (0.0, 1.0))
    angle = np.radians(p.streak_deg[0])
    along, across = (-np.sin(angle), np.cos(angle)), (np.cos(angle), np.sin(angle))
    assert line.sum() == pytest.approx(plain.sum(), rel=1e-3)
    assert spread(line, along) > 1.5 * spread(line, across)
    assert spread(line, across) == pytest.approx(spread(plain, across), rel=1e-3)


def test_second_grain_is_the_first_one_turned(crystal):
    both = make(crystal, second_grain=1.0, second_grain_weight=0.25)
    turned = make(crystal, rotation_deg=both.parameters["grain_deg"])
    first = make(crystal)
    middle = np.hypot(*(np.indices((SIZE, SIZE)) - (SIZE - 1) / 2)) < 12  # the direct beam
    difference = both.pattern.data - first.pattern.data - 0.25 * turned.pattern.data
    assert np.abs(difference[~middle]).max() < 1e-4
    assert both.rc.tolist() == first.rc.tolist()


def test_poisson_and_readout_noise_have_the_variance_that_they_should():
    # a slope alone is light without structure
    clean, _ = bare(size=256, height=(0.0,), slope=0.5)
    noisy, _ = bare(size=256, height=(0.0,), slope=0.5, dose=400.0, readout=3.0)
    mean = clean.image[0].numpy() * 400.0
    difference = noisy.image[0].numpy() - mean
    for low, high in ((20, 60), (100, 140)):
        part = (mean > low) & (mean < high)
        assert difference[part].var() == pytest.approx(mean[part].mean() + 9.0, rel=0.1)
        assert abs(difference[part].mean()) < 0.5


def test_saturation_and_blooming():
    plain, _ = bare(direct=50.0, dose=100.0, saturation=0.5)
    image, full = plain.image[0].numpy(), plain.saturated[0].numpy()
    assert image.max() == 50.0
    assert np.array_equal(image >= 50.0, full)
    assert full[round((SIZE - 1) / 2), round((SIZE - 1) / 2)]
    spilt, _ = bare(direct=50.0, dose=100.0, saturation=0.5, blooming=1.0)
    wide, wider = full.any(axis=1).sum(), spilt.saturated[0].numpy().any(axis=1).sum()
    assert wider > wide  # longer along the column
    assert spilt.image[0].numpy()[:, :20].max() == image[:, :20].max()  # and nowhere else


def test_faulty_pixels_in_their_numbers():
    frames, _ = bare(size=256, height=(1.0,), slope=1.0, dose=1000.0, dead=0.01, hot=0.02)
    clean, _ = bare(size=256, height=(1.0,), slope=1.0, dose=1000.0)
    image, before = frames.image[0].numpy(), clean.image[0].numpy()
    lit = before > 50
    assert np.mean(image[lit] == 0) == pytest.approx(0.01, abs=0.004)
    assert np.mean(image[lit] > before[lit] + 1) == pytest.approx(0.02, abs=0.006)
    same = np.mean(image[lit] == before[lit])
    assert same == pytest.approx(0.97, abs=0.01)


def test_eight_bit_frames_are_whole_numbers_to_255():
    frames, _ = bare(dose=2000.0, readout=2.0, eight_bit=1.0)
    image = frames.image[0].numpy()
    assert np.array_equal(image, np.round(image))
    assert image.min() >= 0
    assert image.max() == 255


def test_beam_stops_hide_what_they_say_and_come_in_all_shapes():
    frames, p = bare(
        n=40, rc=((0.0, 30.0),), direct=3.0, slope=1.0, beam_stop=1.0, stop_width=1.0, stop_opacity=1.0
    )
    assert set(p.stop) == {"straight", "round", "pointer"}
    clean, _ = bare(n=40, rc=((0.0, 30.0),), direct=3.0, slope=1.0)
    image, hidden = frames.image.numpy(), frames.hidden.numpy()
    change = np.abs(image - clean.image.numpy())
    assert hidden.any(axis=(1, 2)).all()
    assert change[~hidden].max() < 0.55 * clean.image.max()  # the soft edge
    near = binary_dilation(hidden, np.ones((1, 3, 3)), iterations=2)
    assert change[~near].max() < 1e-6
    # the tip lies at the direct beam or beyond, so that this is hidden, but by a narrow wire only for the round one
    middle = hidden[:, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1].any(axis=(1, 2))
    assert middle.mean() > 0.8
    # it reaches the edge of the frame
    edge = np.concatenate([hidden[:, 0], hidden[:, -1], hidden[:, :, 0], hidden[:, :, -1]], axis=1).any(
        axis=1
    )
    assert edge.all()


def test_opacity_lets_light_through():
    full, _ = bare(slope=1.0, beam_stop=1.0, stop_opacity=1.0)
    half, _ = bare(slope=1.0, beam_stop=1.0, stop_opacity=0.6)
    clean, _ = bare(slope=1.0)
    deep = full.hidden[0].numpy() & (full.image[0].numpy() == 0) & (clean.image[0].numpy() > 0.1)
    assert deep.sum() > 50
    ratio = half.image[0].numpy()[deep] / clean.image[0].numpy()[deep]
    assert np.allclose(ratio, 0.4)


def test_marks_are_in_the_mask_and_change_nothing_else():
    marked, _ = bare(n=8, dose=500.0, scale_bar=1.0, margin=1.0)
    clean, _ = bare(n=8, dose=500.0)
    changed = (marked.image != clean.image).numpy()
    hidden = marked.hidden.numpy()
    assert not changed[~hidden].any()
    assert hidden.mean(axis=(1, 2)).min() > 0.005
    assert changed.any(axis=(1, 2)).all()


def test_halo_and_inelastic_background():
    frames, p = bare(size=256, height=(0.0,), halo=0.5)
    radius = np.hypot(*(np.indices((256, 256)) - 127.5)) / 256
    ring = np.abs(radius - p.halo_radius[0]) < 0.003
    assert frames.image[0].numpy()[ring].mean() == pytest.approx(0.5, rel=0.02)
    cloud, p = bare(size=256, height=(0.0,), inelastic=2.0)
    at_width = np.abs(radius - p.inelastic_width[0]) < 0.003
    assert cloud.image[0].numpy()[at_width].mean() == pytest.approx(2.0 / 2**1.5, rel=0.05)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_same_seed_same_frame(crystal, preset):
    one, same = (simulate_imperfect(crystal, (0, 0, 1), SETTINGS, preset, seed=5) for _ in range(2))
    other = simulate_imperfect(crystal, (0, 0, 1), SETTINGS, preset, seed=6)
    assert np.array_equal(one.pattern.data, same.pattern.data)
    assert one.parameters == same.parameters
    assert not np.array_equal(one.pattern.data, other.pattern.data)
    assert set(one.parameters) == {
        field.name for field in fields(type(draw_parameters(Imperfections(), 1, np.random.default_rng())))
    }


def test_a_frame_does_not_depend_on_its_batch():
    spec = choose_imperfections("medium", second_grain=0.5)
    rng = np.random.default_rng(1)
    parameters = draw_parameters(spec, 6, rng)
    rc = torch.tensor(rng.uniform(-60, 60, (6, 25, 2)))
    height = torch.tensor(rng.random((6, 25)))
    direct = torch.full((6,), 3.0, dtype=torch.float64)
    together = draw_frames(rc, height, direct, parameters, 96)
    for index in (0, 3, 5):
        single = type(parameters)(
            **{f.name: getattr(parameters, f.name)[index : index + 1] for f in fields(parameters)}
        )
        alone = draw_frames(rc[[index]], height[[index]], direct[[index]], single, 96)
        assert torch.allclose(alone.rc[0], together.rc[index])
        # a count more or less, where the rounding of a sum decides
        assert ((alone.image[0] - together.image[index]).abs() > 1e-3).double().mean() < 0.01


def test_padding_is_not_seen():
    parameters = draw_parameters(choose_imperfections("none", spot_sigma=0.1), 1, np.random.default_rng(0))
    rc = torch.tensor([[[0.0, 25.0], [10.0, 30.0]]], dtype=torch.float64)
    height, direct = torch.tensor([[1.0, 0.4]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    padded = torch.cat([rc, torch.zeros(1, 3, 2, dtype=torch.float64)], dim=1)
    zeros = torch.cat([height, torch.zeros(1, 3, dtype=torch.float64)], dim=1)
    one, two = (draw_frames(*a, direct, parameters, 96).image for a in ((rc, height), (padded, zeros)))
    assert torch.allclose(one, two)


def test_one_range_changed_leaves_what_else_is_drawn():
    one = draw_parameters(PRESETS["medium"], 20, np.random.default_rng(2))
    two = draw_parameters(choose_imperfections("medium", beam_stop=0, dose=7.0), 20, np.random.default_rng(2))
    changed = {f.name for f in fields(one) if not np.array_equal(getattr(one, f.name), getattr(two, f.name))}
    assert "dose" in changed
    assert changed <= {"dose", "stop", "stop_half_width", "stop_slope", "stop_radius", "stop_beyond"}


def test_spots_of_a_mild_pattern_lie_where_the_truth_says(crystal):
    made = simulate_imperfect(crystal, (0, 0, 1), SETTINGS, "mild", seed=3)
    image = made.pattern.data
    strong = made.spots.intensity > 0.05
    inside = ((made.rc > 4) & (made.rc < SIZE - 5)).all(axis=1)
    assert (strong & inside).sum() >= 8
    for row, col in made.rc[strong & inside]:
        r, c = round(row), round(col)
        patch = np.clip(image[r - 3 : r + 4, c - 3 : c + 4] - np.median(image), 0, None)
        where = np.indices(patch.shape)
        centre = (where * patch).sum(axis=(1, 2)) / patch.sum() + (r - 3, c - 3)
        assert np.hypot(*(centre - (row, col))) < 0.6


def test_thickness_and_tilt_are_drawn_for_the_engine(crystal):
    made = make(crystal, thickness_nm=(20.0, 40.0), tilt_mrad=4.0)
    assert 20 < made.settings.thickness_nm < 40
    assert np.hypot(*made.settings.tilt_mrad) == pytest.approx(4.0)
    perfect = simulate_pattern(crystal, (0, 1, 1), SETTINGS)
    kept = degrade_pattern(perfect, "strong", seed=1)
    assert kept.settings == SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_stop": 1.5}, "beam_stop"),
        ({"offset": (0.2, 0.1)}, "low <= high"),
        ({"dose": -1.0}, "dose"),
        ({"dose": (0.0, 10.0)}, "dose"),
        ({"ellipticity": "round"}, "ellipticity"),
        ({"offset": (1, 2, 3)}, "offset"),
        ({"beemstop": 1.0}, "beemstop"),
    ],
)
def test_wrong_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        choose_imperfections("none", **changes)


def test_unknown_preset_and_shapes_that_disagree():
    with pytest.raises(ValueError, match="awful"):
        choose_imperfections("awful")
    parameters = draw_parameters(Imperfections(), 2, np.random.default_rng())
    with pytest.raises(ValueError, match="expected"):
        draw_frames(torch.zeros(1, 3, 2), torch.zeros(1, 3), torch.zeros(1), parameters, 64)
