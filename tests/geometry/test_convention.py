"""The image convention against closed forms and metamorphic laws."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry.convention import (
    BLANK_RADIUS,
    beam_position,
    g1_length,
    normalise_image,
    to_training_image,
)
from napari_sadp.geometry.results import SpotLattice, SpotList
from napari_sadp.simulation.render import render_gaussians


def lattice_of(beam, g1, g2):
    empty = SpotList(np.empty((0, 2)), np.empty(0), np.empty(0), 1.0)
    return SpotLattice(
        np.asarray(beam, dtype=float), np.asarray(g1, dtype=float), np.asarray(g2, dtype=float),
        np.eye(4), 0.1, empty, np.empty((0, 2), dtype=int), np.empty(0, dtype=bool),
    )  # fmt: skip


def pattern(beam, g1, g2, shape=(300, 280), sigma=2.5):
    nodes = np.array([(m, n) for m in range(-9, 10) for n in range(-9, 10) if (m, n) != (0, 0)])
    rc = nodes @ np.stack([g1, g2]).astype(float) + beam
    height = 1 / (1 + np.abs(nodes[:, 0]) + 2 * np.abs(nodes[:, 1]))
    return render_gaussians(rc, height, sigma, shape), nodes


BEAM, G1, G2 = np.array([140.3, 151.8]), np.array([12.0, 16.0]), np.array([-24.0, 20.0])


def test_beam_sits_where_flips_and_quarter_turns_leave_it():
    assert beam_position(256) == 127.5
    assert g1_length(96) == 8.0


@pytest.mark.parametrize("conversion", ["aligned", "article"])
def test_nodes_land_where_the_convention_says(conversion):
    lattice = lattice_of(BEAM, G1, G2)
    image, nodes = pattern(BEAM, G1, G2)
    found = to_training_image(image, lattice, conversion=conversion, size=256)
    length = g1_length(256)
    near = nodes[np.abs(nodes).sum(axis=1) <= 2]
    rc = found.from_pattern(lattice.node_rc(near))
    if conversion == "aligned":
        assert found.from_pattern(BEAM + G1) == pytest.approx([127.5 + length, 127.5])
    else:  # orientation as acquired
        assert found.from_pattern(BEAM + G1) == pytest.approx(127.5 + G1 / 20 * length)
    for row, col in rc:
        window = found.data[round(row) - 4 : round(row) + 5, round(col) - 4 : round(col) + 5]
        peak = np.unravel_index(np.argmax(window), window.shape)
        assert np.hypot(peak[0] - 4 + round(row) - row, peak[1] - 4 + round(col) - col) < 1.2


def test_coordinate_map_and_its_inverse():
    found = to_training_image(pattern(BEAM, G1, G2)[0], lattice_of(BEAM, G1, G2))
    points = np.random.default_rng(0).uniform(0, 256, (20, 2))
    assert found.from_pattern(found.to_pattern(points)) == pytest.approx(points)
    assert found.to_pattern([127.5, 127.5]) == pytest.approx(BEAM)


def test_rotating_or_scaling_the_camera_does_not_change_the_aligned_image():
    first = to_training_image(pattern(BEAM, G1, G2)[0], lattice_of(BEAM, G1, G2), size=96).data
    turn, scale = np.radians(37), 1.3
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    g1, g2 = matrix @ G1, matrix @ G2
    image, _ = pattern(np.array([150.0, 150.0]), g1, g2, shape=(300, 300), sigma=2.5 * scale)
    second = to_training_image(image, lattice_of((150, 150), g1, g2), size=96).data
    # compare the part that both frames hold
    inner = slice(30, 66)
    assert np.corrcoef(first[inner, inner].ravel(), second[inner, inner].ravel())[0, 1] > 0.98


def test_mirrored_camera_gives_the_mirrored_image():
    image, _ = pattern(BEAM, G1, G2)
    straight = to_training_image(image, lattice_of(BEAM, G1, G2), size=96).data
    flip = np.array([1, -1])
    beam = BEAM * flip + [0, image.shape[1] - 1]
    mirrored = to_training_image(image[:, ::-1], lattice_of(beam, G1 * flip, G2 * flip), size=96).data
    assert np.allclose(straight, mirrored[:, ::-1], atol=2e-3)


def test_intensity_rules():
    image = np.zeros((96, 96), dtype=np.float32)
    image[47:49, 47:49] = 1000.0  # direct beam
    image[60, 47], image[47, 70], image[10, 10] = 8.0, 2.0, -5.0
    found = normalise_image(image, 0.5)
    assert found[48, 48] == 0
    assert found[60, 47] == 1
    assert found[47, 70] == pytest.approx(0.5)
    assert found[10, 10] == 0
    assert BLANK_RADIUS * g1_length(96) < 8 - 3  # the blank disc does not touch the first spots


def test_empty_image_stays_empty():
    assert not normalise_image(np.zeros((2, 64, 64), dtype=np.float32)).any()


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).random((3, 96, 96)).astype(np.float32)
    assert np.allclose(normalise_image(image), normalise_image(torch.tensor(image)).numpy(), atol=1e-6)


def test_wrong_options_are_named():
    lattice = lattice_of(BEAM, G1, G2)
    with pytest.raises(ValueError, match="conversion is 'turned'"):
        to_training_image(np.zeros((50, 50)), lattice, conversion="turned")
    with pytest.raises(ValueError, match="size"):
        to_training_image(np.zeros((50, 50)), lattice, size=3)
