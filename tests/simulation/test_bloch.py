"""Bloch waves against closed forms, symmetry, published behaviour of forbidden reflections, and a second code."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from napari_sadp._units import electron_wavelength
from napari_sadp.labels.lattice2d import planar_basis, span
from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.simulation import bloch
from napari_sadp.simulation.bloch import relativistic_mass_factor, simulate_bloch, simulate_bloch_batch
from napari_sadp.simulation.bloch_solvers import Problem, solve_numpy
from napari_sadp.simulation.catalogue import find_structure, load_catalogue
from napari_sadp.simulation.crystal import Crystal, expand_sites
from napari_sadp.simulation.frames import zone_frame
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.render import render_pattern
from napari_sadp.simulation.scattering import structure_factors
from napari_sadp.simulation.zone_potential import reduce_by_symmetry, zone_nodes, zone_potential

THICKNESS = [5.0, 10.0, 20.0, 40.0]
#: The reference values of the project were taken with the beams of this circle [1/Å].
REFERENCE_G_MAX = 1.7


def build(name, group, a, sites):
    """Return a cubic crystal from its asymmetric unit, B = 0.5 Å^2."""
    operations = gemmi.get_spacegroup_reference_setting(group)
    orbits = [(element, expand_sites(operations, np.array(xyz))) for element, xyz in sites]
    positions = np.concatenate([orbit for _, orbit in orbits])
    elements = tuple(element for element, orbit in orbits for _ in orbit)
    ones = np.ones(len(elements))
    return Crystal(name, (a, a, a, 90.0, 90.0, 90.0), elements, positions, ones, 0.5 * ones, group)


@pytest.fixture(scope="module")
def silicon():
    """The measured cell; the one of the catalogue is from density-functional theory, 0.7 % larger."""
    return replace(find_structure("Si", 227).crystal(), cell=(5.4309, 5.4309, 5.4309, 90.0, 90.0, 90.0))


@pytest.fixture(scope="module")
def beta_manganese():
    # Shoemaker et al., Acta Cryst. B34 (1978) 3573: 8c and 12d of P4(1)32
    return build("Mn", 213, 6.315, [("Mn", (0.0636,) * 3), ("Mn", (1 / 8, 0.2022, 0.4522))])


@pytest.fixture(scope="module")
def spinel():
    return build("MgAl2O4", 227, 8.0832, [("Mg", (1 / 8,) * 3), ("Al", (1 / 2,) * 3), ("O", (0.2624,) * 3)])


@pytest.fixture(scope="module")
def gallium_arsenide():
    return build("GaAs", 216, 5.6533, [("Ga", (0.0,) * 3), ("As", (0.25,) * 3)])


def of_beam(result, hkl):
    """Return the intensities of a reflection over the strongest diffracted beam, 0 if it is not excitable."""
    rows = result.hkl.tolist()
    if list(hkl) not in rows:
        return np.zeros(len(result))
    return result.intensity[:, rows.index(list(hkl))] / result.intensity.max(axis=1)


def moved(crystal, shift=(0.1371, 0.2113, 0.0719)):
    """Return the crystal with another origin, in which no symmetry operation of its group holds as tabulated."""
    return replace(crystal, positions=crystal.positions + np.array(shift))


# reference values ---------------------------------------------------------------------------------------------------


def test_forbidden_200_of_silicon_on_011(silicon):
    """abTEM 1.0.11 and an independent eigenvalue solver: 0.0027, 0.0128, 0.212, 0.632."""
    result = simulate_bloch(silicon, (0, 1, 1), thickness_nm=THICKNESS, g_max_inv_angstrom=REFERENCE_G_MAX)
    assert result.n_beams == 95
    assert of_beam(result, (2, 0, 0)) == pytest.approx([0.0027, 0.0128, 0.212, 0.632], abs=6e-4)
    assert not structure_factors(silicon, np.array([[2, 0, 0]])).any()


def test_forbidden_200_of_silicon_converges(silicon):
    values = [
        of_beam(simulate_bloch(silicon, (0, 1, 1), thickness_nm=THICKNESS, g_max_inv_angstrom=g), (2, 0, 0))
        for g in (2.0, 2.5, 3.0)
    ]
    assert values[0] == pytest.approx(values[2], abs=0.01)
    assert values[1] == pytest.approx(values[2], abs=0.002)


def test_forbidden_200_of_silicon_never_on_001(silicon):
    for tilt in ((0, 0), (5, 3)):
        result = simulate_bloch(silicon, (0, 0, 1), thickness_nm=[20, 200], tilt_mrad=tilt)
        assert not of_beam(result, (2, 0, 0)).any()


def test_forbidden_100_of_beta_manganese_fills_when_tilted(beta_manganese):
    """Gjonnes and Moodie: the screw axis forbids 100 on the axis, and off it only in its own plane."""
    options = {"thickness_nm": THICKNESS, "n_beams_max": 150}
    on_axis = simulate_bloch(beta_manganese, (0, 0, 1), **options)
    assert [1, 0, 0] in on_axis.hkl.tolist()
    assert not of_beam(on_axis, (1, 0, 0)).any()
    assert (
        of_beam(simulate_bloch(beta_manganese, (0, 0, 1), tilt_mrad=(3, 2), **options), (1, 0, 0))[2] > 0.01
    )
    frame = zone_frame(beta_manganese, (0, 0, 1))
    along = 3 * (frame[:2] @ (1, 0, 0))
    assert (
        of_beam(simulate_bloch(beta_manganese, (0, 0, 1), tilt_mrad=along, **options), (1, 0, 0)).max()
        < 1e-20
    )


def test_forbidden_200_of_spinel_on_011(spinel):
    result = simulate_bloch(spinel, (0, 1, 1), thickness_nm=20, g_max_inv_angstrom=REFERENCE_G_MAX)
    assert of_beam(result, (2, 0, 0)) == pytest.approx(0.57, abs=5e-3)


def test_allowed_200_of_beta_manganese_on_001():
    """0.28 at 20 nm with the older coordinates x = 0.061, y = 0.206; the later ones give 0.59, so close is this beam."""
    crystal = build("Mn", 213, 6.315, [("Mn", (0.061,) * 3), ("Mn", (1 / 8, 0.206, 0.456))])
    result = simulate_bloch(crystal, (0, 0, 1), thickness_nm=20, g_max_inv_angstrom=REFERENCE_G_MAX)
    assert of_beam(result, (2, 0, 0)) == pytest.approx(0.28, abs=5e-3)


# laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", CUBIC_ZONE_AXES[::3])
def test_span_rule(zone):
    """Beams outside the lattice of the allowed reflections stay empty, also when they are let into the problem."""
    catalogue = [e for e in load_catalogue() if e.n_atoms <= 60]
    basis = planar_basis(zone)
    outside_total = 0
    for entry in catalogue[:: len(catalogue) // 20]:
        crystal = entry.crystal()
        plane = basis @ crystal.reciprocal_basis() @ zone_frame(crystal, zone)[:2].T
        radius = 1.2 if entry.n_atoms < 20 else 0.7
        nodes = zone_nodes(plane, radius)
        nodes = nodes[np.argsort(nodes.any(axis=1), kind="stable")]
        couplings = zone_nodes(plane, 2 * radius)
        couplings = couplings[couplings.any(axis=1)]
        generated = span(couplings[structure_factors(crystal, couplings @ basis) != 0])
        coordinates = nodes @ np.linalg.inv(generated)
        outside = np.abs(coordinates - np.rint(coordinates)).max(axis=1) > 1e-6
        total = intensities_of(crystal, zone, basis, nodes, THICKNESS)
        assert total[:, outside].max(initial=0.0) < 1e-20
        assert total.sum(axis=1) == pytest.approx(1, abs=1e-10)
        outside_total += outside.sum()
        excitable = simulate_bloch(crystal, zone, thickness_nm=5, g_max_inv_angstrom=radius, n_beams_max=100)
        inside = excitable.hkl @ np.linalg.pinv(generated @ basis)
        assert np.allclose(inside, np.rint(inside))
    assert outside_total > 100


def intensities_of(crystal, zone, basis, nodes, thickness_nm, tilt=(0.0, 0.0), kv=200.0):
    """Return the intensities (t, n) of any list of beams, the direct beam first, without symmetry."""
    frame = zone_frame(crystal, zone)
    potential = zone_potential(crystal, zone, frame, basis, nodes)
    g = nodes @ basis @ crystal.reciprocal_basis() @ frame.T
    problem = Problem(
        crystal,
        zone,
        tilt,
        potential,
        reduce_by_symmetry(potential, symmetric=False),
        g,
        bloch._excitation_errors(g, np.array([tilt]), kv),
    )
    depth = 10.0 * np.asarray(thickness_nm)
    return solve_numpy([problem], bloch._matrix_scale(kv), depth, 0.0, "float64", "cpu")[0]


@pytest.mark.parametrize("zone", [(0, 0, 1), (1, 1, 2)])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (4.0, -2.0)])
def test_no_electron_is_lost_without_absorption(spinel, zone, tilt):
    result = simulate_bloch(spinel, zone, thickness_nm=[1, 30, 300], tilt_mrad=tilt, n_beams_max=150)
    assert result.intensity.sum(axis=1) + result.direct_beam == pytest.approx(1, abs=1e-10)
    assert result.intensity.min() >= 0


def test_absorption_only_takes_away(silicon):
    thickness = np.linspace(1, 200, 20)
    result = simulate_bloch(silicon, (0, 1, 1), thickness_nm=thickness, absorption=0.1)
    total = result.intensity.sum(axis=1) + result.direct_beam
    assert (np.diff(total) < 0).all()
    assert total[0] < 1
    weak = simulate_bloch(silicon, (0, 1, 1), thickness_nm=thickness, absorption=1e-9)
    full = simulate_bloch(silicon, (0, 1, 1), thickness_nm=thickness)
    assert weak.intensity == pytest.approx(full.intensity, abs=1e-6)
    # far from any strong reflection only the mean absorption is left: |psi|^2 = exp(-4 pi alpha t U_0 / 2K)
    mean = structure_factors(silicon, np.zeros((1, 3), dtype=int))[0].real / (np.pi * silicon.cell[0] ** 3)
    rate = 4 * np.pi * 0.1 * bloch._matrix_scale(200.0) * mean
    off = simulate_bloch(
        silicon, (0, 0, 1), thickness_nm=thickness, absorption=0.1, tilt_mrad=(61, 23), n_beams_max=2
    )
    assert off.direct_beam == pytest.approx(np.exp(-rate * 10 * thickness), rel=0.01)


@pytest.mark.parametrize(("kv", "offset"), [(200, 0.0), (200, 1.5), (80, -0.7)])
def test_two_beams_are_those_of_howie_and_whelan(silicon, kv, offset):
    """I = sin^2(pi t sqrt(s^2 + 1/xi^2)) / (1 + (s xi)^2), with the extinction distance xi = pi Omega / (lambda F)."""
    zone, hkl = (0, 0, 1), np.array([2, 2, 0])
    wavelength = electron_wavelength(kv)
    g = zone_frame(silicon, zone)[:2] @ (hkl @ silicon.reciprocal_basis())
    tilt = 1e3 * wavelength * (-g / 2) * (1 + 0.1 * offset)
    thickness = np.linspace(1, 300, 40)
    result = simulate_bloch(
        silicon, zone, voltage_kv=kv, thickness_nm=thickness, tilt_mrad=tuple(tilt), n_beams_max=2
    )
    assert result.hkl.tolist() == [hkl.tolist()]
    factor = abs(structure_factors(silicon, hkl)[0]) * relativistic_mass_factor(kv)
    xi = np.pi * silicon.cell[0] ** 3 / (wavelength * factor)
    s = result.excitation_error[0]
    expected = np.sin(10 * np.pi * thickness * np.hypot(s, 1 / xi)) ** 2 / (1 + (s * xi) ** 2)
    assert result.intensity[:, 0] == pytest.approx(expected, abs=1e-9)
    assert (abs(s) < 1e-5) == (offset == 0)


def test_extinction_distances_of_the_textbooks(silicon):
    """Williams and Carter, table 13.2: silicon at 100 kV 111 60.2 nm, 220 75.7 nm (unscreened by vibrations, 5 %)."""
    hkl = np.array([(1, 1, 1), (2, 2, 0)])
    factor = np.abs(structure_factors(replace(silicon, b_iso=np.zeros(8)), hkl))
    xi = 1 / (2 * bloch._matrix_scale(100.0) * factor / (np.pi * silicon.cell[0] ** 3))
    assert xi / 10 == pytest.approx([60.2, 75.7], rel=0.05)


@pytest.mark.parametrize("zone", [(0, 0, 1), (0, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (6.0, 1.0)])
def test_thin_crystals_are_kinematic(silicon, zone, tilt):
    thickness = 0.05
    dynamical = simulate_bloch(silicon, zone, thickness_nm=thickness, tilt_mrad=tilt, g_max_inv_angstrom=1.2)
    kinematic = simulate_kinematic(
        silicon,
        zone,
        thickness_nm=thickness,
        tilt_mrad=tilt,
        g_max_inv_angstrom=1.2,
        relrod="sinc",
        laue_zones=0,
    )
    expected = dict(zip(map(tuple, kinematic.hkl.tolist()), kinematic.intensity, strict=True))
    relative = dynamical.intensity[0] / dynamical.intensity[0].max()
    for hkl, value in zip(map(tuple, dynamical.hkl.tolist()), relative, strict=True):
        assert value == pytest.approx(expected.get(hkl, 0.0), abs=1e-3)


def test_kinematic_limit_is_absolute(gallium_arsenide):
    """I_g = (pi t gamma lambda |F| / (pi Omega))^2 for a very thin crystal."""
    result = simulate_bloch(gallium_arsenide, (0, 0, 1), thickness_nm=0.01, g_max_inv_angstrom=0.8)
    factor = np.abs(structure_factors(gallium_arsenide, result.hkl))
    volume = gallium_arsenide.cell[0] ** 3
    wave = np.pi * 0.1 * relativistic_mass_factor(200) * electron_wavelength(200) * factor / (np.pi * volume)
    strong = factor > 0.1 * factor.max()
    assert result.intensity[0, strong] == pytest.approx(wave[strong] ** 2, rel=5e-3)


# symmetry -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", CUBIC_ZONE_AXES[:9])
@pytest.mark.parametrize("name", ["silicon", "beta_manganese", "spinel", "gallium_arsenide"])
def test_symmetry_and_origin_change_nothing(request, name, zone):
    """The reduced problem against the full one: with a moved origin no operation is found."""
    crystal = request.getfixturevalue(name)
    options = {"thickness_nm": [5, 40, 200], "n_beams_max": 90}
    reduced, full = (simulate_bloch(c, zone, **options) for c in (crystal, moved(crystal)))
    assert np.array_equal(reduced.hkl, full.hkl)
    assert np.abs(reduced.intensity - full.intensity).max() < 1e-10
    nothing = simulate_bloch(replace(crystal, space_group=1), zone, **options)
    assert np.abs(nothing.intensity - full.intensity).max() < 1e-10


def test_symmetry_makes_the_problem_small(silicon, beta_manganese):
    def interaction(crystal, zone=(0, 0, 1), tilt=(0, 0)):
        return bloch._prepare(crystal, zone, tilt, 200.0, 2.0, 100, None, 1).reduction.interaction

    assert interaction(silicon).shape == (9, 9)
    assert interaction(moved(silicon)).shape == (45, 45)
    assert interaction(beta_manganese).shape[0] < 20
    # a twofold axis of the projection makes the potential real at any tilt, wherever the origin of the group is
    assert interaction(silicon, tilt=(1, 2)).dtype == interaction(beta_manganese, tilt=(1, 2)).dtype == float
    assert interaction(beta_manganese, (1, 1, 1)).dtype == complex


def test_friedel_pairs_of_the_zero_order_zone(spinel, gallium_arsenide):
    def asymmetry(crystal, zone):
        result = simulate_bloch(crystal, zone, thickness_nm=[10, 40], g_max_inv_angstrom=1.0)
        rows = result.hkl.tolist()
        mates = [rows.index([-x for x in row]) for row in rows]
        return np.abs(result.intensity - result.intensity[:, mates]).max()

    assert asymmetry(spinel, (1, 2, 3)) < 1e-12
    assert asymmetry(gallium_arsenide, (0, 0, 1)) < 1e-12  # the projection has a twofold axis
    assert asymmetry(gallium_arsenide, (0, 1, 1)) > 1e-3  # and here it is polar


def test_inverted_crystal_gives_the_inverted_pattern(gallium_arsenide):
    other = replace(gallium_arsenide, positions=-gallium_arsenide.positions)
    a, b = (simulate_bloch(c, (0, 1, 1), thickness_nm=30) for c in (gallium_arsenide, other))
    rows = b.hkl.tolist()
    mates = [rows.index([-x for x in row]) for row in a.hkl.tolist()]
    assert a.intensity == pytest.approx(b.intensity[:, mates], abs=1e-12)


@pytest.mark.parametrize(("zone", "order"), [((0, 0, 1), 4), ((1, 1, 1), 6), ((0, 1, 1), 2)])
def test_pattern_has_the_symmetry_of_the_axis(silicon, zone, order):
    # without its group, so that the symmetry comes out of the numbers
    result = simulate_bloch(replace(silicon, space_group=1), zone, thickness_nm=25, g_max_inv_angstrom=1.3)
    for step in range(1, order):
        angle = 2 * np.pi * step / order
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        distance = np.linalg.norm((result.g_xy @ turn.T)[:, None] - result.g_xy[None], axis=-1)
        assert distance.min(axis=1).max() < 1e-9
        assert result.intensity[0][distance.argmin(axis=1)] == pytest.approx(result.intensity[0], abs=1e-9)


def test_order_of_the_beams_changes_nothing(silicon):
    zone, basis = (0, 1, 1), planar_basis((0, 1, 1))
    plane = basis @ silicon.reciprocal_basis() @ zone_frame(silicon, zone)[:2].T
    nodes = zone_nodes(plane, 1.0)
    nodes = nodes[np.argsort(nodes.any(axis=1), kind="stable")]
    shuffle = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(len(nodes) - 1)])
    for tilt in ((0.0, 0.0), (3.0, 1.0)):
        straight = intensities_of(silicon, zone, basis, nodes, THICKNESS, tilt)
        mixed = intensities_of(silicon, zone, basis, nodes[shuffle], THICKNESS, tilt)
        assert straight[:, shuffle] == pytest.approx(mixed, abs=1e-12)


# batches, tilt, precession --------------------------------------------------------------------------------------------


def test_all_thicknesses_at_once_or_one_by_one(silicon):
    together = simulate_bloch(silicon, (1, 1, 2), thickness_nm=THICKNESS, tilt_mrad=(2, 1))
    for i, thickness in enumerate(THICKNESS):
        alone = simulate_bloch(silicon, (1, 1, 2), thickness_nm=thickness, tilt_mrad=(2, 1))
        assert alone.intensity[0] == pytest.approx(together.intensity[i], abs=1e-12)
        assert alone.direct_beam[0] == pytest.approx(together.direct_beam[i], abs=1e-12)


@pytest.mark.parametrize("absorption", [0.0, 0.1])
def test_batch_equals_single_with_numpy_and_torch(silicon, gallium_arsenide, spinel, absorption):
    crystals = [silicon, gallium_arsenide, spinel, silicon]
    zones = [(0, 0, 1), (1, 1, 1), (0, 1, 1), (1, 1, 2)]
    tilts = [(0, 0), (0, 0), (2, 1), (0, 3)]
    options = {"thickness_nm": [10, 50], "n_beams_max": 60, "absorption": absorption}
    batch = simulate_bloch_batch(crystals, zones, tilt_mrad=tilts, **options)
    for crystal, zone, tilt, result in zip(crystals, zones, tilts, batch, strict=True):
        alone = simulate_bloch(crystal, zone, tilt_mrad=tilt, **options)
        assert np.array_equal(alone.hkl, result.hkl)
        assert np.array_equal(alone.intensity, result.intensity)
    pytest.importorskip("torch")
    # "cpu:0" is the same processor, by the way of torch
    other = simulate_bloch_batch(crystals, zones, tilt_mrad=tilts, device="cpu:0", **options)
    for ours, theirs in zip(batch, other, strict=True):
        assert ours.intensity == pytest.approx(theirs.intensity, abs=1e-11)
        assert ours.direct_beam == pytest.approx(theirs.direct_beam, abs=1e-11)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_precession_is_the_mean_over_azimuths(silicon, device):
    if device != "cpu":
        pytest.importorskip("torch")
    options = {"thickness_nm": THICKNESS, "g_max_inv_angstrom": 1.0}
    cone = simulate_bloch(silicon, (0, 1, 1), precession_mrad=15, n_azimuths=8, device=device, **options)
    azimuths = 2 * np.pi * np.arange(8) / 8
    singles = [
        simulate_bloch(silicon, (0, 1, 1), tilt_mrad=(15 * np.cos(a), 15 * np.sin(a)), **options)
        for a in azimuths
    ]
    rows = [{tuple(h): i for i, h in enumerate(r.hkl.tolist())} for r in singles]
    mean = np.mean(
        [
            r.intensity[:, [row[tuple(h)] for h in cone.hkl.tolist()]]
            for r, row in zip(singles, rows, strict=True)
        ],
        axis=0,
    )
    assert cone.intensity == pytest.approx(mean, abs=1e-11)
    assert cone.direct_beam == pytest.approx(np.mean([r.direct_beam for r in singles], axis=0), abs=1e-11)


def test_precession_weakens_forbidden_reflections(silicon):
    options = {"thickness_nm": 20, "g_max_inv_angstrom": 1.5}
    straight = simulate_bloch(silicon, (0, 1, 1), **options)
    cone = simulate_bloch(silicon, (0, 1, 1), precession_mrad=30, **options)
    assert of_beam(cone, (2, 0, 0))[0] < 0.5 * of_beam(straight, (2, 0, 0))[0]


def test_tilt_moves_intensity_to_the_laue_circle(silicon):
    result = simulate_bloch(silicon, (0, 0, 1), thickness_nm=20, tilt_mrad=(-10, 0), g_max_inv_angstrom=1.5)
    mean = (result.intensity[0] @ result.g_xy) / result.intensity[0].sum()
    assert mean[0] > 0.1  # the sphere touches the plane where g = -k_t
    assert abs(mean[1]) < 1e-9
    mirrored = simulate_bloch(silicon, (0, 0, 1), thickness_nm=20, tilt_mrad=(10, 0), g_max_inv_angstrom=1.5)
    other = (mirrored.intensity[0] @ mirrored.g_xy) / mirrored.intensity[0].sum()
    assert other == pytest.approx(-mean, abs=1e-9)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_single_precision_is_close(spinel, silicon, device):
    if device != "cpu":
        pytest.importorskip("torch")
    crystals, zones = [spinel, silicon], [(0, 1, 1), (0, 0, 1)]
    options = {"thickness_nm": THICKNESS, "n_beams_max": 100}
    double = simulate_bloch_batch(crystals, zones, **options)
    single = simulate_bloch_batch(crystals, zones, dtype="float32", device=device, **options)
    for ours, theirs in zip(single, double, strict=True):
        assert ours.intensity == pytest.approx(theirs.intensity, abs=1e-4)


# interface ------------------------------------------------------------------------------------------------------------


def test_pattern_fits_the_renderer(silicon):
    result = simulate_bloch(silicon, (0, 1, 1), thickness_nm=THICKNESS)
    assert len(result) == 4
    spots = result.pattern(2)
    assert spots.intensity.max() == 1
    assert len(spots) <= result.n_beams - 1
    image = render_pattern(spots, direct_beam=result.direct_ratio(2))
    assert image.data.shape == (256, 256)
    assert image.data.max() == pytest.approx(max(1, result.direct_ratio(2)), rel=0.1)


def test_pattern_without_a_diffracted_beam_is_an_error(beta_manganese):
    frame = zone_frame(beta_manganese, (0, 0, 1))
    tilt = -500 * electron_wavelength(200) * (frame[:2] @ (1, 0, 0)) / beta_manganese.cell[0]
    result = simulate_bloch(beta_manganese, (0, 0, 1), thickness_nm=5, tilt_mrad=tuple(tilt), n_beams_max=2)
    assert result.hkl.tolist() == [
        [1, 0, 0]
    ]  # a forbidden reflection in its Bragg position, and nothing else
    assert result.direct_beam == pytest.approx(1)
    with pytest.raises(ValueError, match="take more"):
        result.pattern()


def test_cap_on_the_beams_keeps_whole_shells(silicon):
    for cap in range(6, 60, 7):
        result = simulate_bloch(silicon, (0, 0, 1), thickness_nm=10, n_beams_max=cap)
        assert result.n_beams <= cap
        assert {tuple(row) for row in result.hkl.tolist()} == {(-k, h, l) for h, k, l in result.hkl.tolist()}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"zone": (0, 0, 0)}, "zone"),
        ({"voltage_kv": -200}, "voltage_kv"),
        ({"thickness_nm": 0}, "thickness_nm"),
        ({"thickness_nm": [5, float("nan")]}, "thickness_nm"),
        ({"thickness_nm": []}, "thickness_nm"),
        ({"g_max_inv_angstrom": 0.01}, "g_max_inv_angstrom"),
        ({"g_max_inv_angstrom": 9}, "g_max_inv_angstrom"),
        ({"n_beams_max": 1}, "n_beams_max"),
        ({"n_beams_max": 3}, "n_beams_max"),
        ({"tilt_mrad": (1, 2, 3)}, "tilt_mrad"),
        ({"tilt_mrad": (0, 1e4)}, "tilt_mrad"),
        ({"precession_mrad": -1}, "precession_mrad"),
        ({"n_azimuths": 0}, "n_azimuths"),
        ({"absorption": 2}, "absorption"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_wrong_parameters_are_named(silicon, arguments, match):
    with pytest.raises(ValueError, match=match):
        simulate_bloch(silicon, **({"zone": (0, 0, 1), "thickness_nm": 10} | arguments))
    with pytest.raises(ValueError, match="lengths 1, 2, 1"):
        simulate_bloch_batch([silicon], [(0, 0, 1), (0, 1, 1)])


# a second method ------------------------------------------------------------------------------------------------------


def multislice(crystal, zone, thickness_nm, *, g_max, kv=200.0, n=64, slice_angstrom=0.25):
    """Return {(h, k, l): intensities (t,)} of a projected potential made of atoms in real space, slice by slice.

    Gaussians of the table at the places of the atoms, and numpy's Fourier transform, whose coefficient k belongs to the
    wave exp(+2 pi i k.r): no structure factor, no choice of sign. The grid holds a cell of the projection.
    """
    frame, miller = zone_frame(crystal, zone), planar_basis(zone)
    reciprocal = miller @ crystal.reciprocal_basis() @ frame[:2].T
    direct = np.linalg.inv(reciprocal).T
    u, v = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    places = (
        crystal.positions @ crystal.direct_basis() @ frame[:2].T @ reciprocal.T
    )  # on the cell of the projection
    area = abs(np.linalg.det(direct))
    length = abs(np.linalg.det(crystal.direct_basis())) / area
    potential = np.zeros((n, n))
    for element, b_iso, place in zip(crystal.elements, crystal.b_iso, places, strict=True):
        table = gemmi.Element(element).c4322
        for i, j in np.ndindex(5, 5):
            offset = np.stack([u - place[0] % 1 + i - 2, v - place[1] % 1 + j - 2], axis=-1) @ direct
            squared = (offset**2).sum(axis=-1)
            for a, b in zip(table.a, table.b, strict=True):
                width = b + b_iso
                potential += a * 4 * np.pi / width * np.exp(-4 * np.pi**2 * squared / width)
    wavelength = electron_wavelength(kv)
    potential *= relativistic_mass_factor(kv) / (np.pi * length)  # U [1/Å^2]
    transmission = np.exp(1j * np.pi * wavelength * slice_angstrom * potential)
    index = np.fft.fftfreq(n, 1 / n).astype(int)
    h, k = np.meshgrid(index, index, indexing="ij")
    g_squared = ((np.stack([h, k], axis=-1) @ reciprocal) ** 2).sum(axis=-1)
    propagator = np.exp(-1j * np.pi * wavelength * slice_angstrom * g_squared)
    propagator[g_squared > g_max**2] = 0
    wave = np.ones((n, n), dtype=complex)
    found = []
    for t in range(1, round(10 * max(thickness_nm) / slice_angstrom) + 1):
        wave = np.fft.ifft2(np.fft.fft2(wave * transmission) * propagator)
        if np.isclose(t * slice_angstrom / 10, thickness_nm).any():
            found.append(np.abs(np.fft.fft2(wave) / n**2) ** 2)
    nodes = np.stack([h, k], axis=-1).reshape(-1, 2) @ miller
    return dict(zip(map(tuple, nodes.tolist()), np.array(found).reshape(len(found), -1).T, strict=True))


@pytest.mark.parametrize("zone", [(0, 1, 1), (1, 1, 0), (1, 1, 2)])
def test_polar_crystals_point_the_right_way(gallium_arsenide, zone):
    """Bloch waves against multislice, where g and -g differ: the sense, and every intensity."""
    thickness = [5.0, 10.0, 20.0]
    ours = simulate_bloch(
        gallium_arsenide, zone, thickness_nm=thickness, g_max_inv_angstrom=2.5, n_beams_max=2000
    )
    theirs = multislice(gallium_arsenide, zone, thickness, g_max=2.5)
    expected = np.array([theirs[tuple(row)] for row in ours.hkl.tolist()]).T
    opposite = np.array([theirs[tuple(-x for x in row)] for row in ours.hkl.tolist()]).T
    strongest = expected.max()
    assert np.abs(expected - opposite).max() > 0.04 * strongest  # so that the test can fail
    assert np.abs(ours.intensity - expected).max() < 0.01 * strongest


# a second code --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of abtem are its own
@pytest.mark.parametrize("zone", [(0, 0, 1), (0, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize(
    ("formula", "group"),
    [
        ("SrSi2", 213),
        ("CsCl", 221),
        ("Al", 225),
        ("MgCu2", 227),
        ("Fe", 229),
        ("GaAs", 216),
    ],  # the last is polar
)
def test_abtem_agrees(formula, group, zone):
    pytest.importorskip(
        "abtem", minversion="1.0.11", reason="abTEM is not installed, see the dependency group 'referee'"
    )
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "bloch.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_bloch", path)
    referee = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(referee)
    difference, n_ours, n_theirs = referee.compare(find_structure(formula, group).crystal(), zone, g_max=1.5)
    assert n_ours <= n_theirs
    assert difference.max() < 0.01
