"""Spacings and camera constant against closed forms and a simulated pattern of silicon."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.errors import CalibrationError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.calibrated import calibrated_lattice, camera_constant
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.zone_pattern import PatternSettings, simulate_pattern


@pytest.fixture(scope="module")
def silicon():
    crystal = find_structure("Si", 227).crystal()
    settings = PatternSettings(pixel_size_inv_angstrom=0.0125, thickness_nm=5)
    return crystal, analyse_pattern(simulate_pattern(crystal, (0, 1, 1), settings).pattern)


def test_spacings_of_silicon_011(silicon):
    crystal, geometry = silicon
    a = crystal.cell[0]
    found = calibrated_lattice(geometry.lattice, geometry.pattern)
    assert found.d_angstrom == pytest.approx([a / 3**0.5, a / 3**0.5], rel=2e-3)
    assert found.g_inv_angstrom == pytest.approx(1 / found.d_angstrom)
    assert found.camera_constant_px_angstrom == pytest.approx(80.0)
    allowed = sorted({round(a / k**0.5, 3) for k in (3, 8, 11, 16, 19)})
    seen = found.spot_d_angstrom[np.isfinite(found.spot_d_angstrom) & (found.spot_d_angstrom > 1.2)]
    assert np.abs(seen[:, None] - allowed).min(axis=1).max() < 0.02
    assert np.count_nonzero(np.isinf(found.spot_d_angstrom)) == 1


def test_errors_are_those_of_the_lattice(silicon):
    _, geometry = silicon
    lattice = replace(geometry.lattice, covariance=0.09 * np.eye(4))
    found = calibrated_lattice(lattice, geometry.pattern)
    length = np.linalg.norm(lattice.g1_px)
    assert found.g_error_inv_angstrom == pytest.approx([0.3 * 0.0125] * 2)
    assert found.d_error_angstrom[0] / found.d_angstrom[0] == pytest.approx(0.3 / length)


def test_a_known_spacing_gives_the_camera_constant(silicon):
    crystal, geometry = silicon
    constant, error = camera_constant(geometry.lattice, crystal.cell[0] / 3**0.5)
    assert constant == pytest.approx(80.0, rel=3e-3)
    assert 0 < error < 1
    other, _ = camera_constant(geometry.lattice, crystal.cell[0] / 12**0.5, node=(2, 0))
    assert other == pytest.approx(constant)


def test_what_is_not_calibrated_says_so(silicon):
    _, geometry = silicon
    with pytest.raises(CalibrationError, match="not calibrated"):
        calibrated_lattice(geometry.lattice, replace(geometry.pattern, pixel_size_inv_angstrom=None))
    with pytest.raises(ValueError, match="node is"):
        camera_constant(geometry.lattice, 2.0, node=(0, 0))
    with pytest.raises(ValueError, match="d_angstrom"):
        camera_constant(geometry.lattice, -1.0)
