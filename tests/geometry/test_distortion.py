"""Elliptical distortion: put on a lattice of known shape, and found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.distortion import SHAPES, distortion_from_shape, distortion_from_symmetry
from napari_sadp.geometry.lattice import reduce_basis
from napari_sadp.geometry.results import SpotLattice, SpotList
from napari_sadp.pattern import DiffractionPattern

NO_SPOTS = SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 1.0)


def lattice_of(basis, error=1e-3):
    g1, g2 = reduce_basis(basis)
    return SpotLattice(
        np.zeros(2), g1, g2, error**2 * np.eye(4), 0.0, NO_SPOTS, np.zeros((0, 2), int), np.zeros(0, bool)
    )


def stretched(basis, ellipticity, azimuth_deg):
    """Stretch offsets (row, col) along a direction that is anticlockwise from the right, on a screen with rows downwards."""
    angle = np.radians(azimuth_deg)
    along = np.array([-np.sin(angle), np.cos(angle)])
    matrix = np.eye(2) + ((1 + ellipticity) - 1) * np.outer(along, along)
    return basis @ matrix


def net(ratio, angle_deg, turn_deg):
    angle, turn = np.radians([angle_deg, turn_deg])
    flat = 30 * np.array([[1, 0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
    return flat @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("azimuth", [0.0, 35.0, 90.0, 150.0])
@pytest.mark.parametrize("mirror", [False, True])
def test_found_again_on_symmetric_lattices(kind, azimuth, mirror):
    basis = net(*SHAPES[kind], turn_deg=13.0)
    basis = basis * [1, -1] if mirror else basis
    found = distortion_from_symmetry(lattice_of(stretched(basis, 0.03, azimuth)), kind)
    assert found.ellipticity == pytest.approx(0.03, abs=1e-6)
    assert abs((found.azimuth_deg - azimuth + 90) % 180 - 90) < 1e-3
    assert np.linalg.det(found.matrix) == pytest.approx(1.0)


def test_found_again_on_a_known_structure_and_undone():
    ratio, angle = 2 / 3**0.5, 54.7356103
    basis = reduce_basis(net(ratio, angle, 40.0))
    true = np.linalg.norm(basis, axis=1)
    cosine = abs(basis[0] @ basis[1]) / true.prod()
    shape = true[1] / true[0], float(np.degrees(np.arccos(cosine)))
    lattice = lattice_of(stretched(basis, 0.02, 70.0))
    found = distortion_from_shape(lattice, *shape)
    assert found.ellipticity == pytest.approx(0.02, abs=1e-6)
    back = found.undo(np.stack([lattice.g1_px, lattice.g2_px]))
    assert np.linalg.norm(back[1]) / np.linalg.norm(back[0]) == pytest.approx(shape[0])


def test_no_distortion_is_zero_within_its_error():
    rng = np.random.default_rng(0)
    exact = lattice_of(net(1.0, 90.0, 20.0), error=0.05)
    found = []
    for _ in range(200):
        noise = rng.normal(0, 0.05, (2, 2))
        found.append(
            distortion_from_symmetry(
                replace(exact, g1_px=exact.g1_px + noise[0], g2_px=exact.g2_px + noise[1]), "A"
            )
        )
    # two components of one standard deviation each: the mean square of their length is twice the variance
    rms = np.sqrt(np.mean([one.ellipticity**2 for one in found]))
    assert rms == pytest.approx(np.sqrt(2) * np.mean([one.error for one in found]), rel=0.15)


@pytest.mark.parametrize(("ratio", "angle", "message"), [(0.5, 90, "ratio"), (1.0, 100, "angle_deg")])
def test_impossible_shapes_are_named(ratio, angle, message):
    with pytest.raises(ValueError, match=message):
        distortion_from_shape(lattice_of(np.eye(2) * 20), ratio, angle)


def test_types_of_free_shape_are_refused():
    with pytest.raises(ValueError, match="kind"):
        distortion_from_symmetry(lattice_of(np.eye(2) * 20), "B")


def test_a_stretched_square_is_noted():
    basis = stretched(net(1.0, 90.0, 20.0), 0.025, 60.0)
    m, n = np.mgrid[-5:6, -5:6]
    rc = 127.5 + np.column_stack([m.ravel(), n.ravel()]) @ basis
    row, col = np.mgrid[:256, :256]
    image = np.full((256, 256), 10.0)
    for r, c in rc:
        image += 500 * np.exp(-((row - r) ** 2 + (col - c) ** 2) / 8 - np.hypot(r - 127.5, c - 127.5) / 60)
    geometry = analyse_pattern(DiffractionPattern(np.random.default_rng(0).poisson(image).astype(np.float32)))
    note = next(note for note in geometry.notes if "stretched" in note)
    assert "square" in note
    assert "stretched by 2.5 %" in note
    assert "along 6" in note
