"""Closed forms: extinctions, d-spacings, Friedel pairs, excitation errors, wavelengths."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest

from napari_sadp._units import electron_wavelength
from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES, behaviours, is_allowed
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.crystal import Crystal
from napari_sadp.simulation.frames import zone_frame
from napari_sadp.simulation.kinematic import (
    excitation_error,
    relrod_weight,
    simulate_kinematic,
)
from napari_sadp.simulation.scattering import electron_scattering_factor, structure_factors

HKL = np.array(
    [(h, k, l) for h in range(-4, 5) for k in range(-4, 5) for l in range(-4, 5) if (h, k, l) != (0, 0, 0)]
)


@pytest.fixture(scope="module")
def silicon():
    return find_structure("Si", 227).crystal()


@pytest.mark.parametrize(
    ("kv", "pm"), [(80, 4.1757), (100, 3.7014), (120, 3.3492), (200, 2.5079), (300, 1.9687)]
)
def test_relativistic_wavelengths(kv, pm):
    assert 100 * electron_wavelength(kv) == pytest.approx(pm, abs=1e-3)


@pytest.mark.parametrize("kv", [0, -200, float("nan")])
def test_wavelength_needs_a_voltage(kv):
    with pytest.raises(ValueError, match="voltage_kv"):
        electron_wavelength(kv)


def test_structure_factor_of_diamond_in_closed_form(silicon):
    hkl = np.array([(1, 1, 1), (2, 2, 0), (4, 0, 0), (2, 0, 0), (2, 2, 2), (4, 4, 2), (1, 0, 0)])
    f = electron_scattering_factor("Si", np.linalg.norm(hkl, axis=1) / silicon.cell[0])
    damping = np.exp(-0.5 * (np.linalg.norm(hkl, axis=1) / silicon.cell[0]) ** 2 / 4)
    factor = np.array([4 * np.sqrt(2), 8, 8, 0, 0, 0, 0])
    assert np.abs(structure_factors(silicon, hkl)) == pytest.approx(factor * f * damping, abs=1e-9)


@pytest.mark.parametrize(("formula", "group", "name"), [("Al", 225, "225"), ("Fe", 229, "229"), ("Si", 227, "227a"), ("CsCl", 221, "221"), ("SrSi2", 213, "213")])  # fmt: skip
def test_systematic_absences_are_exactly_zero(formula, group, name):
    crystal = find_structure(formula, group).crystal()
    behaviour = next(b for b in behaviours(group) if b.name == name)
    absent = ~is_allowed(behaviour, HKL)
    factors = structure_factors(crystal, HKL)
    assert not factors[absent].any()
    if group != 213:  # in SrSi2 some allowed reflections are weak, in the others none vanishes
        assert np.abs(factors[~absent]).min() > 1e-3


def test_friedel_pairs_and_cubic_equivalents(silicon):
    factors = structure_factors(silicon, HKL)
    assert np.allclose(factors, np.conj(structure_factors(silicon, -HKL)))
    assert np.allclose(np.abs(factors), np.abs(structure_factors(silicon, HKL[:, [1, 2, 0]])))


def test_structure_factor_does_not_depend_on_the_origin(silicon):
    moved = Crystal(
        "Si",
        silicon.cell,
        silicon.elements,
        silicon.positions + 0.137,
        silicon.occupancies,
        silicon.b_iso,
        227,
    )
    assert np.allclose(
        np.abs(structure_factors(silicon, HKL)), np.abs(structure_factors(moved, HKL)), atol=1e-9
    )


def test_partial_occupancy_is_linear():
    def cell(occupancies):
        return Crystal(
            "X",
            (4.0, 4.0, 4.0, 90.0, 90.0, 90.0),
            ("Fe", "Al"),
            np.zeros((2, 3)),
            np.array(occupancies),
            np.full(2, 0.5),
            221,
        )

    mixed = structure_factors(cell([0.3, 0.7]), HKL)
    assert np.allclose(
        mixed, 0.3 * structure_factors(cell([1, 0]), HKL) + 0.7 * structure_factors(cell([0, 1]), HKL)
    )


def test_scattering_factors_are_electron_factors():
    # X-ray factors at s = 0 are the atomic number; electron factors are some Angstrom
    assert electron_scattering_factor("Au", [0.0])[0] == pytest.approx(sum(gemmi.Element("Au").c4322.a))
    assert 5 < electron_scattering_factor("Au", [0.0])[0] < 20
    assert np.all(np.diff(electron_scattering_factor("Au", np.linspace(0, 3, 50))) < 0)


@pytest.mark.parametrize("g", [0.2, 1.0, 2.5])
def test_scattering_factor_is_taken_at_half_of_g(g):
    # gemmi's own evaluation of the table, at (sin(theta) / lambda)^2 = (g / 2)^2
    expected = gemmi.Element("Si").c4322.calculate_sf((g / 2) ** 2)
    assert electron_scattering_factor("Si", [g])[0] == pytest.approx(expected)


def test_excitation_error_of_the_exact_axis():
    wave = np.array([0, 0, -1 / electron_wavelength(200)])
    g = np.array([[1.0, 0, 0], [0, -1, 0], [0.5, 0, 0]])
    assert excitation_error(g, wave) == pytest.approx([-0.01254, -0.01254, -0.003135], abs=1e-5)


def test_relrods():
    s = np.array([0.0, 0.01, -0.01])
    assert relrod_weight(s, 10, "sinc") == pytest.approx([1, 0, 0], abs=1e-12)  # first zero at s = 1/t
    assert relrod_weight(s, 10, "none").tolist() == [1, 1, 1]
    gauss, sinc = relrod_weight(s / 50, 10, "gaussian"), relrod_weight(s / 50, 10, "sinc")
    assert gauss == pytest.approx(sinc, abs=1e-5)  # same curvature at the top
    with pytest.raises(ValueError, match="relrod"):
        relrod_weight(s, 10, "box")


@pytest.mark.parametrize("zone", CUBIC_ZONE_AXES)
def test_spots_lie_in_the_zone_at_their_d_spacing(silicon, zone):
    spots = simulate_kinematic(silicon, zone, g_max_inv_angstrom=1.0, laue_zones=0, relrod="none")
    assert not (spots.hkl @ zone).any()
    assert spots.g == pytest.approx(np.linalg.norm(spots.hkl, axis=1) / silicon.cell[0])
    assert spots.intensity.max() == 1
    # every allowed reflection of the zone is there, with its Friedel partner
    rows = set(map(tuple, spots.hkl.tolist()))
    assert rows == {tuple(-x for x in row) for row in rows}
    allowed = HKL[(HKL @ zone == 0) & (np.linalg.norm(HKL, axis=1) / silicon.cell[0] <= 0.7)]
    allowed = allowed[is_allowed(behaviours(227)[0], allowed)]
    assert rows >= set(map(tuple, allowed.tolist()))


def test_angle_between_spots_follows_from_the_indices(silicon):
    spots = simulate_kinematic(silicon, (0, 1, 1), laue_zones=0)
    i, j = (spots.hkl.tolist().index(row) for row in ([1, 1, -1], [1, -1, 1]))
    cosine = spots.g_xy[i] @ spots.g_xy[j] / (spots.g[i] * spots.g[j])
    assert np.degrees(np.arccos(cosine)) == pytest.approx(109.471, abs=1e-3)


def test_frame_is_right_handed_with_the_axis_at_the_viewer(silicon):
    for zone in CUBIC_ZONE_AXES:
        frame = zone_frame(silicon, zone)
        assert np.allclose(frame @ frame.T, np.eye(3))
        assert np.linalg.det(frame) == pytest.approx(1)
        assert frame[2] @ zone == pytest.approx(np.linalg.norm(zone))


def test_first_order_laue_zone_appears_at_its_radius(silicon):
    spots = simulate_kinematic(silicon, (1, 1, 1), g_max_inv_angstrom=3.6, thickness_nm=30, min_intensity=0)
    layer = spots.hkl @ (1, 1, 1)
    assert set(np.unique(layer)) >= {0, 1}
    # G = sqrt(2 K H) with H = 1 / |r_uvw|; fcc along [111] has no empty layers
    height = 1 / (silicon.cell[0] * np.sqrt(3))
    radius = np.sqrt(2 * height / electron_wavelength(200))
    near = spots.g[layer == 1][np.abs(spots.excitation_error[layer == 1]) < 4e-3]
    assert near.mean() == pytest.approx(radius, rel=0.03)


def test_tilt_moves_the_laue_circle(silicon):
    tilted = simulate_kinematic(silicon, (0, 0, 1), tilt_mrad=(10.0, 0.0), laue_zones=0, relrod="none")
    centre = tilted.g_xy[np.argmax(tilted.excitation_error)]
    assert centre[0] < 0  # the sphere touches the plane where g = -k_t
    wave = 1 / electron_wavelength(200)
    on_circle = 2 * tilted.g_xy[:, 0] * 0.01 * wave + (tilted.g**2)
    assert -on_circle / (2 * wave) == pytest.approx(tilted.excitation_error, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"zone": (0, 0, 0)}, "zone"),
        ({"zone": (0.5, 1, 1)}, "zone"),
        ({"voltage_kv": 2}, "voltage_kv"),
        ({"thickness_nm": 0}, "thickness_nm"),
        ({"g_max_inv_angstrom": 0.01}, "nothing of Si diffracts"),
        ({"laue_zones": -1}, "laue_zones"),
        ({"voltage_kv": -200}, "voltage_kv is -200"),
        ({"min_intensity": -1}, "min_intensity"),
        ({"relrod": "box"}, "relrod is 'box'"),
        ({"tilt_mrad": (1, 2, 3)}, "tilt_mrad"),
        ({"tilt_mrad": (0, float("nan"))}, "tilt_mrad"),
        ({"tilt_mrad": (0, 900)}, "tilt_mrad"),
    ],
)
def test_wrong_parameters_are_named(silicon, arguments, match):
    with pytest.raises(ValueError, match=match):
        simulate_kinematic(silicon, **({"zone": (0, 0, 1)} | arguments))
