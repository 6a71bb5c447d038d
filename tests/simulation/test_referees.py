"""The kinematic engine beside independent codes: gemmi (always), pymatgen and diffsims (where they are installed).

gemmi knows the same table of scattering factors, so that it must agree to its single precision; diffsims takes Lobato's
factors, pymatgen the X-ray factors and the Mott-Bethe formula, so that they agree as well as the tables do.
"""

from __future__ import annotations

import gemmi
import numpy as np
import pytest

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.crystal import Crystal, expand_sites
from napari_sadp.simulation.frames import random_frames
from napari_sadp.simulation.kinematic import relrod_weight, simulate_kinematic
from napari_sadp.simulation.orientations import simulate_orientations
from napari_sadp.simulation.reflections import reflections

ARTICLE = [("SrSi2", 213), ("CsCl", 221), ("Al", 225), ("MgCu2", 227), ("Fe", 229)]


def build(name, group, cell, sites):
    """Return a crystal from its asymmetric unit: (element, x, y, z, occupancy, B) each."""
    space_group = gemmi.get_spacegroup_reference_setting(group)
    rows = [
        (e, position, o, b)
        for e, x, y, z, o, b in sites
        for position in expand_sites(space_group, np.array([x, y, z]))
    ]
    elements, positions, occupancies, b_iso = zip(*rows, strict=True)
    return Crystal(name, cell, elements, np.array(positions), np.array(occupancies), np.array(b_iso), group)


def structures():
    """The groups of the article, and cells that are not cubic, of shared sites and of several B."""
    found = {f"{formula}-{group}": find_structure(formula, group).crystal() for formula, group in ARTICLE}
    found["spinel"] = build("MgAl2O4", 227, (8.0832,) * 3 + (90.0,) * 3, [
        ("Mg", 1 / 8, 1 / 8, 1 / 8, 0.8, 0.4), ("Al", 1 / 8, 1 / 8, 1 / 8, 0.2, 0.4), ("Al", 1 / 2, 1 / 2, 1 / 2, 1, 0.35),
        ("O", 0.2624, 0.2624, 0.2624, 1, 0.6),
    ])  # fmt: skip
    found["quartz"] = build("SiO2", 154, (4.9137, 4.9137, 5.4047, 90.0, 90.0, 120.0), [
        ("Si", 0.4697, 0.0, 2 / 3, 1, 0.5), ("O", 0.4135, 0.2669, 0.7857, 1, 1.0),
    ])  # fmt: skip
    found["triclinic"] = build("CuSO4", 2, (6.14, 10.74, 5.98, 82.3, 107.3, 102.6), [
        ("Cu", 0.0, 0.0, 0.0, 0.9, 0.7), ("S", 0.01, 0.29, 0.64, 1, 0.5), ("O", 0.91, 0.15, 0.67, 1, 1.1),
        ("O", 0.24, 0.32, 0.8, 0.5, 1.3),
    ])  # fmt: skip
    return found


STRUCTURES = structures()
crystals = pytest.mark.parametrize("crystal", STRUCTURES.values(), ids=STRUCTURES.keys())


def gemmi_structure(crystal):
    """Return gemmi's structure, all atoms in P1."""
    small = gemmi.SmallStructure()
    small.cell = gemmi.UnitCell(*crystal.cell)
    small.spacegroup_hm = "P 1"
    for element, xyz, occupancy, b in zip(
        crystal.elements, crystal.positions, crystal.occupancies, crystal.b_iso, strict=True
    ):
        site = gemmi.SmallStructure.Site()
        site.type_symbol = element
        site.element = gemmi.Element(element)
        site.fract = gemmi.Fractional(*xyz)
        site.occ = occupancy
        site.u_iso = b / (8 * np.pi**2)
        small.add_site(site)
    small.setup_cell_images()
    return small


def gemmi_strength(crystal, hkl):
    """Return |F|^2 of electrons by gemmi."""
    small = gemmi_structure(crystal)
    calculator = gemmi.StructureFactorCalculatorE(small.cell)
    return np.array(
        [abs(calculator.calculate_sf_from_small_structure(small, row)) ** 2 for row in hkl.tolist()]
    )


# gemmi ----------------------------------------------------------------------------------------------------------------


@crystals
def test_structure_factors_are_those_of_gemmi(crystal):
    found = reflections(crystal, 1.1)
    some = np.random.default_rng(0).permutation(len(found))[:400]
    expected = gemmi_strength(crystal, found.hkl[some])
    # gemmi adds in single precision
    assert found.strength[some] == pytest.approx(expected, rel=1e-4, abs=1e-7 * found.strength.max())


@crystals
def test_what_is_no_reflection_is_none_for_gemmi(crystal):
    found = {tuple(row) for row in reflections(crystal, 0.8).hkl.tolist()}
    n = 6
    hkl = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3), axis=-1).reshape(-1, 3)
    inside = np.linalg.norm(hkl @ crystal.reciprocal_basis(), axis=1) < 0.8
    missing = np.array([row for row in hkl[inside].tolist() if tuple(row) not in found and any(row)])
    if crystal.space_group not in (2, 154):
        assert len(missing) > 0 or crystal.space_group == 221
    if len(missing):
        strongest = reflections(crystal, 0.8).strength.max()
        assert gemmi_strength(crystal, missing).max() < 1e-9 * strongest


@crystals
@pytest.mark.parametrize("zone", [(0, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_spacings_angles_and_ratios_of_a_pattern_are_those_of_gemmi(crystal, zone):
    spots = simulate_kinematic(
        crystal, zone, g_max_inv_angstrom=1.0, laue_zones=0, relrod="none", min_intensity=1e-4
    )
    cell = gemmi.UnitCell(*crystal.cell)
    d = np.array([cell.calculate_d(row) for row in spots.hkl.tolist()])
    assert 1 / spots.g == pytest.approx(d, rel=1e-9)
    # the angle at the direct beam, from three spacings by the law of cosines
    first = spots.hkl[np.argmin(spots.g)]
    across = np.array(
        [1 / cell.calculate_d(row) if any(row) else 0.0 for row in (spots.hkl - first).tolist()]
    )
    g1 = spots.g.min()
    cosine = (g1**2 + spots.g**2 - across**2) / (2 * g1 * spots.g)
    ours = (spots.g_xy @ spots.g_xy[np.argmin(spots.g)]) / (g1 * spots.g)
    assert ours == pytest.approx(cosine, abs=1e-9)
    strength = gemmi_strength(crystal, spots.hkl)
    assert spots.intensity == pytest.approx(strength / strength.max(), rel=1e-4, abs=1e-7)


@crystals
def test_relrods_weigh_the_strengths_of_gemmi(crystal):
    frames = random_frames(3, np.random.default_rng(4))
    spots = simulate_orientations(
        crystal, frames, g_max_inv_angstrom=0.8, thickness_nm=8.0, dtype="float64", min_intensity=1e-4
    )
    for index in range(3):
        n = spots.count[index]
        s = spots.excitation_error[index, :n]
        expected = gemmi_strength(crystal, spots.hkl(index)) * np.exp(-((np.pi * 80 * s) ** 2) / 3)
        assert spots.intensity[index, :n] == pytest.approx(expected / expected.max(), rel=1e-4, abs=1e-7)


# pymatgen -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # those of pymatgen are its own
@pytest.mark.parametrize("name", ["CsCl-221", "Al-225", "MgCu2-227", "Fe-229", "quartz"])
@pytest.mark.parametrize("zone", [(0, 0, 1), (1, 1, 1)])
def test_pymatgen_agrees(name, zone):
    pytest.importorskip("pymatgen", reason="pymatgen is not installed, see the dependency group 'referee'")
    from pymatgen.analysis.diffraction.tem import TEMCalculator
    from pymatgen.core import Lattice, Structure

    still = STRUCTURES[name]
    crystal = Crystal(
        still.name, still.cell, still.elements, still.positions, still.occupancies,
        np.zeros(still.n_atoms), still.space_group,
    )  # fmt: skip
    lattice = Lattice(crystal.direct_basis())
    structure = Structure(lattice, crystal.elements, crystal.positions)
    spots = simulate_kinematic(
        crystal, zone, g_max_inv_angstrom=1.0, laue_zones=0, relrod="none", min_intensity=1e-3
    )
    spacings = [lattice.d_hkl(row) for row in spots.hkl.tolist()]
    assert 1 / spots.g == pytest.approx(spacings, rel=1e-6)
    starred = lattice.reciprocal_lattice_crystallographic
    vectors = starred.get_cartesian_coords(spots.hkl)
    assert spots.g_xy @ spots.g_xy.T == pytest.approx(vectors @ vectors.T, abs=1e-9)
    calculator = TEMCalculator(voltage=200, beam_direction=zone)
    planes = [tuple(row) for row in spots.hkl.tolist()]
    angles = calculator.bragg_angles(dict(zip(planes, spacings, strict=True)))
    strength = calculator.cell_intensity(structure, angles)
    theirs = np.array([strength[plane] for plane in planes])
    # two tables of two methods: some per cent of the strongest
    assert spots.intensity == pytest.approx(theirs / theirs.max(), abs=0.05)


# diffsims -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # those of diffsims are its own
@pytest.mark.parametrize("name", ["CsCl-221", "Al-225", "MgCu2-227", "Fe-229", "triclinic"])
def test_diffsims_agrees(name):
    pytest.importorskip("diffsims", reason="diffsims is not installed, see the dependency group 'referee'")
    from diffpy.structure import Atom, Lattice, Structure
    from diffsims.generators.simulation_generator import SimulationGenerator
    from orix.crystal_map import Phase
    from orix.quaternion import Rotation

    mine = STRUCTURES[name]
    crystal = Crystal(
        mine.name, mine.cell, mine.elements, mine.positions, mine.occupancies, np.full(mine.n_atoms, 0.5),
        mine.space_group,
    )  # fmt: skip
    atoms = [
        Atom(e, xyz, occupancy=o)
        for e, xyz, o in zip(crystal.elements, crystal.positions, crystal.occupancies, strict=True)
    ]
    phase = Phase(space_group=1, structure=Structure(atoms=atoms, lattice=Lattice(*crystal.cell)))
    generator = SimulationGenerator(
        200,
        scattering_params="lobato",
        shape_factor_model=lambda s, _: relrod_weight(np.asarray(s), 2.0, "gaussian"),
    )
    frames = random_frames(4, np.random.default_rng(1))
    assert phase.structure.lattice.base == pytest.approx(crystal.direct_basis(), abs=1e-6)
    simulation = generator.calculate_diffraction2d(
        phase,
        rotation=Rotation.from_matrix(frames.swapaxes(1, 2)),
        reciprocal_radius=1.1,  # of three dimensions, ours is that in the pattern
        max_excitation_error=0.15,
        debye_waller_factors=dict.fromkeys(crystal.elements, 0.5),
    )
    ours = simulate_orientations(
        crystal, frames, thickness_nm=2.0, g_max_inv_angstrom=1.0, dtype="float64", min_intensity=1e-3
    )
    compared = 0
    for index in range(4):
        found = simulation.coordinates[index]
        rows = [tuple(row) for row in np.rint(found.hkl).astype(int).tolist()]
        spots = {
            row: (x, y, i)
            for row, (x, y, _), i in zip(rows, found.data, found.intensity, strict=True)
            if any(row)
        }
        n = ours.count[index]
        compared += n
        theirs = np.array([spots[tuple(hkl)] for hkl in ours.hkl(index).tolist()])
        assert ours.g_xy[index, :n] == pytest.approx(theirs[:, :2], abs=1e-7)
        assert ours.intensity[index, :n] == pytest.approx(theirs[:, 2] / theirs[:, 2].max(), abs=0.03)
    assert compared > 15
