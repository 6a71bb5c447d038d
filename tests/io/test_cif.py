from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest
from support.shared import SHARED

from napari_sadp.errors import StructureError
from napari_sadp.io import cif
from napari_sadp.io.cif import MAX_ATOMS, load_crystal
from napari_sadp.labels.spacegroups import behaviours, is_allowed
from napari_sadp.simulation.scattering import structure_factors

CIFS = SHARED / "structures" / "cif"
needs_cifs = pytest.mark.skipif(
    not CIFS.is_dir(), reason=f"no folder of CIFs beside the checkout ({CIFS.name})"
)
HKL = np.array([(h, k, l) for h in range(5) for k in range(5) for l in range(5) if h + k + l])

CELL = """data_x
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha {angle}
_cell_angle_beta {angle}
_cell_angle_gamma {angle}
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{atoms}
"""


def write(path, *, symmetry="", atoms="Si1 Si 0 0 0", a=5.43, angle=90):
    path.write_text(CELL.format(a=a, angle=angle, symmetry=symmetry, atoms=atoms))
    return path


@pytest.mark.parametrize(
    ("symmetry", "atoms"),
    [
        ("_symmetry_space_group_name_H-M 'F d -3 m:1'", "Si1 Si 0 0 0"),
        ("_symmetry_space_group_name_H-M 'F d -3 m:2'", "Si1 Si 0.125 0.125 0.125"),
        ("_symmetry_space_group_name_Hall '-F 4vw 2vw 3'", "Si1 Si 0.125 0.125 0.125"),
    ],
)
def test_silicon_in_either_origin_choice(tmp_path, symmetry, atoms):
    crystal = load_crystal(write(tmp_path / "si.cif", symmetry=symmetry, atoms=atoms))
    assert crystal.n_atoms == 8
    assert crystal.space_group == 227
    absent = ~is_allowed(behaviours(227)[0], HKL)
    assert not structure_factors(crystal, HKL)[absent].any()


def test_primitive_cell_becomes_the_conventional_one(tmp_path):
    # fcc aluminium in its rhombohedral primitive cell, all atoms, no symmetry: [001] of this cell is no cubic axis
    path = write(tmp_path / "al.cif", atoms="Al1 Al 0 0 0", a=4.0496 / np.sqrt(2), angle=60)
    crystal = load_crystal(path)
    assert crystal.n_atoms == 4
    assert crystal.space_group == 225
    assert crystal.cell == pytest.approx((4.0496,) * 3 + (90,) * 3, abs=1e-3)


def test_ions_and_shared_sites(tmp_path):
    atoms = "Fe1 Fe3+ 0 0 0\nAl1 Al3+ 0 0 0"
    crystal = load_crystal(
        write(tmp_path / "x.cif", symmetry="_symmetry_Int_Tables_number 221", atoms=atoms, a=3.0)
    )
    assert set(crystal.elements) == {"Fe", "Al"}
    assert len(np.unique(crystal.positions, axis=0)) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "no data block"),
        ("hello world", "not a CIF"),
        ("data_x\n_cell_length_a 3\n", "no data block with atoms"),
    ],
)
def test_files_that_are_no_structure(tmp_path, content, match):
    path = tmp_path / "bad.cif"
    path.write_text(content)
    with pytest.raises(StructureError, match=match) as caught:
        load_crystal(path)
    assert "bad.cif" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(StructureError, match=r"nowhere\.cif: cannot be read"):
        load_crystal(tmp_path / "nowhere.cif")


def test_unknown_element_is_named(tmp_path):
    with pytest.raises(StructureError, match="no chemical element"):
        load_crystal(write(tmp_path / "x.cif", atoms="Q1 Qq 0 0 0"))


@pytest.mark.parametrize(
    ("axis", "text"), [("x", "?"), ("y", "."), ("z", "nan"), ("x", "inf"), ("y", "half"), ("z", "1e30")]
)
def test_coordinates_that_are_no_numbers_are_named(tmp_path, axis, text):
    values = ["0.1(2)", "0.1(2)", "0.1(2)"]
    values["xyz".index(axis)] = text
    path = write(tmp_path / "x.cif", atoms=f"Si1 Si 0 0 0\nSi2 Si {' '.join(values)}")
    with pytest.raises(StructureError, match=rf"_atom_site_fract_{axis} of Si2 is '{re.escape(text)}'"):
        load_crystal(path)


@pytest.mark.parametrize(
    "symmetry",
    [
        "_symmetry_space_group_name_Hall 'nonsense'",
        "_symmetry_space_group_name_H-M 'nonsense'",
        "_symmetry_Int_Tables_number 231",
    ],
)
def test_a_group_that_does_not_exist_is_named(tmp_path, symmetry):
    """Its asymmetric unit must not be read as if it were the whole cell."""
    with pytest.raises(StructureError, match=symmetry.split()[1].strip("'")):
        load_crystal(write(tmp_path / "x.cif", symmetry=symmetry))


@pytest.mark.parametrize("occupancy", [-0.5, 7])
def test_impossible_occupancies_are_named(tmp_path, occupancy):
    path = write(tmp_path / "x.cif", atoms=f"Si1 Si 0 0 0 {occupancy}")
    path.write_text(
        path.read_text().replace("_atom_site_fract_z", "_atom_site_fract_z\n_atom_site_occupancy")
    )
    with pytest.raises(StructureError, match=f"occupancies of Si is {occupancy}, expected 0 to 1"):
        load_crystal(path)


def test_too_many_atoms_are_counted_before_anything_expands_them(tmp_path, monkeypatch):
    """Listed, and made by symmetry; the count is that of the cell, special positions once."""

    def never(*_):
        raise AssertionError("expanded")

    monkeypatch.setattr(cif, "_expand", never)
    xyz = np.random.default_rng(0).random((MAX_ATOMS + 1, 3))
    atoms = "\n".join(f"Si{k} Si {x:.4f} {y:.4f} {z:.4f}" for k, (x, y, z) in enumerate(xyz))
    with pytest.raises(
        StructureError, match=f"holds {MAX_ATOMS + 1} atoms or more, expected at most {MAX_ATOMS}"
    ):
        load_crystal(write(tmp_path / "x.cif", atoms=atoms, a=300))
    some = xyz[:5400].round(4)
    some[0], some[1] = 0.0, 0.25  # 4a and 8c of Fm-3m, the rest in general positions or nearly all
    atoms = "\n".join(f"Si{k} Si {x} {y} {z}" for k, (x, y, z) in enumerate(some))
    path = write(tmp_path / "y.cif", symmetry="_symmetry_Int_Tables_number 225", atoms=atoms, a=300)
    with pytest.raises(StructureError, match=r"holds 10\d{5} atoms or more") as caught:
        load_crystal(path)
    assert int(re.search(r"holds (\d+)", str(caught.value))[1]) > 1_000_000


def test_displacements_do_not_break_the_symmetry_of_a_primitive_cell(tmp_path):
    atoms = "Na1 Na 0 0 0 0.9\nCl1 Cl 0.5 0.5 0.5 1.1"
    path = write(tmp_path / "x.cif", atoms=atoms, a=5.64 / np.sqrt(2), angle=60)
    path.write_text(
        path.read_text().replace("_atom_site_fract_z", "_atom_site_fract_z\n_atom_site_B_iso_or_equiv")
    )
    crystal = load_crystal(path)
    assert (crystal.space_group, crystal.n_atoms) == (225, 8)
    assert set(zip(crystal.elements, crystal.b_iso.round(6).tolist(), strict=True)) == {
        ("Na", 0.9),
        ("Cl", 1.1),
    }


@needs_cifs
@pytest.mark.slow
def test_every_shared_cif_has_its_group_and_its_atoms():
    truth = {}
    with gzip.open(SHARED / "structures" / "structures.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            entry = json.loads(line)
            truth[entry["spacegroup"], entry["source_id"], entry["formula"]] = entry["n_atoms"]
    wrong = []
    paths = sorted(CIFS.glob("*.cif"))
    for path in paths:
        number, formula, source = re.fullmatch(r"(\d+)_([^_]+)_(.*)", path.stem).groups()
        crystal = load_crystal(path)
        n_sites = len(np.unique(crystal.positions.round(3) % 1, axis=0))
        expected = truth.get((int(number), source, formula), n_sites)
        if (crystal.space_group, n_sites) != (int(number), expected):
            wrong.append((path.name, crystal.space_group, n_sites, expected))
    assert len(paths) >= 278
    assert not wrong
