"""Many orientations at once: the zone axes of the single simulation, rotations of the crystal, devices, hostile input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.simulation import orientations as module
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.crystal import Crystal
from napari_sadp.simulation.frames import beam_frames, random_frames, zone_frame
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.orientations import simulate_images, simulate_orientations
from napari_sadp.simulation.render import render_pattern

DEVICES = ["cpu", "cpu:0"]  # the second is the same processor, by the way of torch


@pytest.fixture(scope="module")
def silicon():
    return find_structure("Si", 227).crystal()


@pytest.fixture(scope="module")
def triclinic():
    rng = np.random.default_rng(3)
    cell = (5.1, 6.3, 7.7, 77.0, 101.0, 118.0)
    elements = ("Si", "O", "Fe", "O", "Mg")
    return Crystal("X", cell, elements, rng.random((5, 3)), np.ones(5), np.full(5, 0.5), 1)


@pytest.fixture(scope="module")
def frames():
    return random_frames(40, np.random.default_rng(0))


def numbers(array):
    return np.asarray(array if isinstance(array, np.ndarray) else array.cpu())


def rows(spots, index):
    """Return {hkl: (x, y, intensity, s)} of a pattern."""
    n = int(spots.count[index])
    columns = (numbers(a[index, :n]) for a in (spots.g_xy, spots.intensity, spots.excitation_error))
    return dict(zip(map(tuple, spots.hkl(index).tolist()), np.column_stack(list(columns)), strict=True))


def skip_without_torch(device):
    if device != "cpu":
        pytest.importorskip("torch")


# the same physics as on a zone axis -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relrod": "sinc", "thickness_nm": 37.0, "voltage_kv": 80.0},
        {"relrod": "gaussian", "tilt_mrad": (12.0, -7.0), "thickness_nm": 5.0, "voltage_kv": 300.0},
    ],
)
def test_zone_axes_are_those_of_the_single_simulation(silicon, triclinic, device, options):
    skip_without_torch(device)
    for crystal in (silicon, triclinic):
        axes = CUBIC_ZONE_AXES[:7:2]
        # all Laue zones that the sphere meets; with a sinc to the same |s| in both
        single = [
            simulate_kinematic(
                crystal, z, g_max_inv_angstrom=1.1, laue_zones=5, min_intensity=1e-5, **options
            )
            for z in axes
        ]
        many = simulate_orientations(
            crystal,
            np.array([zone_frame(crystal, zone) for zone in axes]),
            g_max_inv_angstrom=1.1,
            min_intensity=1e-5,
            s_max_inv_angstrom=0.25 if options.get("relrod") == "sinc" else None,
            dtype="float64",
            device=device,
            **options,
        )
        compared = 0
        for index, spots in enumerate(single):
            here = rows(many, index)
            near = np.abs(spots.excitation_error) < 0.25
            expected = np.column_stack([spots.g_xy, spots.intensity, spots.excitation_error])[near]
            hkl = [tuple(row) for row in spots.hkl[near].tolist()]
            order = np.abs(spots.hkl @ axes[index]).max()
            if order < 5:  # no beam of a yet higher Laue zone
                assert set(hkl) == here.keys()
            ours = np.array([here[row] for row in hkl])
            assert ours == pytest.approx(expected, abs=1e-9)
            compared += len(hkl)
        assert compared > 40


def test_box_relrod_takes_what_lies_near_the_sphere(silicon, frames):
    spots = simulate_orientations(silicon, frames, relrod="none", s_max_inv_angstrom=0.01, dtype="float64")
    for index in range(len(frames)):
        here = rows(spots, index)
        g = spots.reflections.g @ frames[index].T
        wave = 1 / 0.025079
        s = wave - np.hypot(np.hypot(g[:, 0], g[:, 1]), g[:, 2] - wave)  # the distance from the sphere itself
        expected = (np.abs(s) < 0.0099) & (np.hypot(g[:, 0], g[:, 1]) < 1.49)
        assert {tuple(row) for row in spots.reflections.hkl[expected].tolist()} <= here.keys()
        assert all(abs(value[3]) <= 0.01 for value in here.values())


def test_axes_with_an_absence_never_show_it(silicon, frames):
    spots = simulate_orientations(silicon, frames, min_intensity=0)
    for index in range(len(frames)):
        hkl = spots.hkl(index)
        parity = (hkl % 2).sum(axis=1)
        assert np.isin(parity, (0, 3)).all()
        assert (hkl[parity == 0].sum(axis=1) % 4 == 0).all()


# rotations ------------------------------------------------------------------------------------------------------------


def test_turning_the_frame_turns_the_pattern(triclinic):
    direction = [0.3, -1.0, 0.7]
    straight, turned = (
        simulate_orientations(triclinic, beam_frames(triclinic, direction, a), dtype="float64")
        for a in (0, 90)
    )
    for hkl, (x, y, *rest) in rows(straight, 0).items():
        assert rows(turned, 0)[hkl] == pytest.approx([-y, x, *rest], abs=1e-9)  # anticlockwise
    images = [s.images(pixel_size_inv_angstrom=0.02, size=129)[0] for s in (straight, turned)]
    assert images[1] == pytest.approx(np.rot90(images[0]), abs=1e-5)


def test_equivalent_directions_of_a_cubic_crystal_look_the_same(silicon):
    rng = np.random.default_rng(5)
    for direction in rng.normal(size=(5, 3)):
        both = [direction, direction[[1, 2, 0]]]
        spots = simulate_orientations(silicon, beam_frames(silicon, both), min_intensity=1e-4)
        first, second = (np.sort(spots.intensity[k, : spots.count[k]]) for k in (0, 1))
        assert first == pytest.approx(second, abs=1e-5)


def test_frames_look_along_their_directions(triclinic):
    directions = np.random.default_rng(1).normal(size=(20, 3))
    frames = beam_frames(triclinic, directions, in_plane_deg=np.linspace(0, 350, 20))
    assert frames @ frames.swapaxes(1, 2) == pytest.approx(np.broadcast_to(np.eye(3), (20, 3, 3)), abs=1e-12)
    assert np.linalg.det(frames) == pytest.approx(1)
    along = directions @ triclinic.direct_basis()
    assert np.einsum("bi,bi->b", frames[:, 2], along) == pytest.approx(np.linalg.norm(along, axis=1))
    # x is the projection of a reciprocal axis where nothing is turned
    x = beam_frames(triclinic, [0, 0, 1])[0, 0]
    a_star = triclinic.reciprocal_basis()[0]
    assert x @ a_star == pytest.approx(np.linalg.norm(a_star))
    # a zone axis and its direction differ by a turn in the plane alone
    zone = zone_frame(triclinic, (1, 2, -1))
    assert beam_frames(triclinic, (1, 2, -1))[0, 2] == pytest.approx(zone[2])


def test_random_frames_are_uniform_rotations():
    frames = random_frames(4000, np.random.default_rng(2))
    assert np.linalg.det(frames) == pytest.approx(1)
    assert frames @ frames.swapaxes(1, 2) == pytest.approx(
        np.broadcast_to(np.eye(3), frames.shape), abs=1e-12
    )
    assert np.abs(frames.mean(axis=0)).max() < 0.05
    assert np.trace(frames, axis1=1, axis2=2).mean() == pytest.approx(
        0, abs=0.06
    )  # a uniform rotation's mean
    assert np.array_equal(frames[:5], random_frames(4000, np.random.default_rng(2))[:5])


# numbers per pattern, precision, padding, devices ---------------------------------------------------------------------


def test_voltage_thickness_and_tilt_of_each_pattern(silicon, frames):
    kv, thickness = np.linspace(60, 400, 40), np.linspace(4, 60, 40)
    tilt = np.random.default_rng(0).uniform(-20, 20, (40, 2))
    together = simulate_orientations(
        silicon, frames, voltage_kv=kv, thickness_nm=thickness, tilt_mrad=tilt, dtype="float64"
    )
    for index in range(0, 40, 7):
        alone = simulate_orientations(
            silicon,
            frames[index][None],
            voltage_kv=kv[index],
            thickness_nm=thickness[index],
            tilt_mrad=tilt[index],
            dtype="float64",
        )
        one, other = rows(alone, 0), rows(together, index)
        assert one.keys() == other.keys()
        assert all(one[hkl] == pytest.approx(other[hkl], abs=1e-12) for hkl in one)


@pytest.mark.parametrize("device", DEVICES)
def test_chunks_change_nothing(monkeypatch, triclinic, frames, device):
    skip_without_torch(device)
    whole = simulate_orientations(triclinic, frames, device=device, dtype="float64")
    monkeypatch.setattr(module, "_CHUNK", 1)  # an orientation at a time
    chunked = simulate_orientations(triclinic, frames, device=device, dtype="float64")
    for name in ("count", "node"):
        assert np.array_equal(numbers(getattr(whole, name)), numbers(getattr(chunked, name)))
    for name in ("g_xy", "intensity", "excitation_error"):
        assert numbers(getattr(whole, name)) == pytest.approx(numbers(getattr(chunked, name)), abs=1e-9)
    padding = np.arange(whole.node.shape[1]) >= numbers(whole.count)[:, None]
    assert padding.any()
    assert not numbers(whole.intensity)[padding].any()
    assert (numbers(whole.node)[padding] == -1).all()
    assert (numbers(whole.intensity).max(axis=1) == 1).all()


@pytest.mark.parametrize("device", DEVICES)
def test_single_precision_is_close(triclinic, frames, device):
    skip_without_torch(device)
    threshold = 1e-4
    double = simulate_orientations(triclinic, frames, dtype="float64", min_intensity=threshold)
    single = simulate_orientations(triclinic, frames, device=device, min_intensity=threshold)
    assert numbers(single.g_xy).dtype == np.float32
    for index in range(len(frames)):
        here, there = rows(single, index), rows(double, index)
        # at the threshold a beam may be in one and not in the other
        assert all(max(here.get(h, there.get(h))[2], 0) < 2 * threshold for h in here.keys() ^ there.keys())
        for hkl in here.keys() & there.keys():
            assert here[hkl] == pytest.approx(there[hkl], abs=1e-4)
            assert here[hkl][:2] == pytest.approx(there[hkl][:2], abs=1e-6)


def test_an_orientation_without_a_beam_is_empty(silicon, frames):
    spots = simulate_orientations(
        silicon, frames, thickness_nm=3000.0, g_max_inv_angstrom=0.4, dtype="float64"
    )
    assert (spots.count == 0).any()
    assert spots.hkl(int(np.argmin(spots.count))).shape == (0, 3)
    image = spots.images(pixel_size_inv_angstrom=0.01, size=64)[int(np.argmin(spots.count))]
    assert image.max() == pytest.approx(3.0, rel=0.1)  # the direct beam alone


# images ---------------------------------------------------------------------------------------------------------------


def test_images_are_those_of_the_single_renderer(silicon):
    axes = CUBIC_ZONE_AXES[:3]
    spots = simulate_orientations(
        silicon, np.array([zone_frame(silicon, zone) for zone in axes]), dtype="float64"
    )
    images = spots.images(pixel_size_inv_angstrom=0.0125, spot_sigma_px=1.7)
    for zone, image in zip(axes, images, strict=True):
        single = simulate_kinematic(silicon, zone, laue_zones=5, min_intensity=1e-6)
        expected = render_pattern(single, pixel_size_inv_angstrom=0.0125, spot_sigma_px=1.7).data
        assert image == pytest.approx(expected, abs=1e-6)


def test_spots_lie_where_the_list_says(triclinic, frames):
    spots = simulate_orientations(
        triclinic, frames[:3], thickness_nm=60.0, g_max_inv_angstrom=0.6, min_intensity=0.02
    )
    size, pixel = 401, 0.004
    images = spots.images(pixel_size_inv_angstrom=pixel, size=size, spot_sigma_px=1.5)
    found = 0
    for index, image in enumerate(images):
        centre = (size - 1) / 2
        for x, y, *_ in rows(spots, index).values():
            row, col = centre - y / pixel, centre + x / pixel
            r, c = round(row), round(col)
            patch = image[r - 7 : r + 8, c - 7 : c + 8]
            others = [v for v in rows(spots, index).values() if 0 < np.hypot(v[0] - x, v[1] - y) < 25 * pixel]
            if patch.shape == (15, 15) and not others and np.hypot(x, y) > 25 * pixel:
                assert np.add(center_of_mass(patch), (r - 7, c - 7)) == pytest.approx((row, col), abs=0.02)
                found += 1
    assert found > 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("workers", [1, 3])
def test_streamed_images_are_those_drawn_at_once(monkeypatch, silicon, frames, workers, device):
    skip_without_torch(device)
    monkeypatch.setattr(module, "_IMAGES", 3)
    monkeypatch.setattr(module, "_IMAGES_OF_DEVICE", 3)
    options = {
        "voltage_kv": np.linspace(80, 300, 40),
        "tilt_mrad": np.full((40, 2), 2.0),
        "thickness_nm": 7.0,
    }
    expected = simulate_orientations(silicon, frames, **options).images(pixel_size_inv_angstrom=0.05, size=64)
    made = np.zeros_like(expected)
    starts = []
    for start, images in simulate_images(
        silicon, frames, pixel_size_inv_angstrom=0.05, size=64, workers=workers, device=device, **options
    ):
        assert len(images) <= 3
        made[start : start + len(images)] = numbers(images)
        starts.append(start)
    assert starts == list(range(0, 40, 3))
    assert made == pytest.approx(expected, abs=1e-4)


# hostile input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"voltage_kv": -200.0}, "voltage_kv is -200"),
        ({"voltage_kv": np.array([200.0, 300.0])}, r"voltage_kv has shape \(2,\)"),
        ({"voltage_kv": float("nan")}, "voltage_kv is nan"),
        ({"thickness_nm": 0.0}, "thickness_nm is 0"),
        ({"g_max_inv_angstrom": 5}, "g_max_inv_angstrom is 5"),
        ({"relrod": "box"}, "relrod is 'box'"),
        ({"relrod": "none"}, "s_max_inv_angstrom is None"),
        ({"s_max_inv_angstrom": 0}, "s_max_inv_angstrom is 0"),
        ({"tilt_mrad": (0, 900)}, "tilt_mrad"),
        ({"tilt_mrad": (0, float("nan"))}, "tilt_mrad"),
        ({"tilt_mrad": (1, 2, 3)}, r"tilt_mrad has shape \(3,\)"),
        ({"min_intensity": -1}, "min_intensity is -1"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
    ],
)
def test_wrong_parameters_are_named(silicon, frames, options, match):
    with pytest.raises(ValueError, match=match):
        simulate_orientations(silicon, frames, **options)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (np.eye(3), r"shape \(3, 3\)"),
        (np.empty((0, 3, 3)), "at least one"),
        (2 * np.eye(3)[None], r"frames\[0\]"),
        (np.array([np.eye(3), np.diag([1.0, 1.0, -1.0])]), r"frames\[1\].*right-handed"),
        (np.full((1, 3, 3), np.nan), r"frames\[0\]"),
    ],
)
def test_wrong_frames_are_named(silicon, wrong, match):
    with pytest.raises(ValueError, match=match):
        simulate_orientations(silicon, wrong)


@pytest.mark.parametrize("directions", [[0, 0, 0], [[1, 0, 0], [0, 0, 0]], [1, 2], [1, float("nan"), 0]])
def test_wrong_directions_are_named(silicon, directions):
    with pytest.raises(ValueError, match="directions is"):
        beam_frames(silicon, directions)


def test_wrong_options_of_images_are_named(silicon, frames):
    spots = simulate_orientations(silicon, frames[:2])
    with pytest.raises(ValueError, match="pixel_size_inv_angstrom is 0"):
        spots.images(pixel_size_inv_angstrom=0)
    with pytest.raises(ValueError, match="size is 3"):
        spots.images(pixel_size_inv_angstrom=0.01, size=3)
    with pytest.raises(ValueError, match="workers is 0"):
        next(simulate_images(silicon, frames, pixel_size_inv_angstrom=0.01, workers=0))
    with pytest.raises(ValueError, match="voltage_kv has 3 values"):
        next(simulate_images(silicon, frames, pixel_size_inv_angstrom=0.01, voltage_kv=np.full(3, 200.0)))
