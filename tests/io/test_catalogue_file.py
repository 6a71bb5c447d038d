from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
from support.cifs import write_cif
from support.shared import SHARED

from napari_sadp.errors import StructureError
from napari_sadp.io.catalogue_file import build_catalogue, catalogue_entry, write_catalogue
from napari_sadp.io.cif import load_crystal
from napari_sadp.labels.spacegroups import behaviour_of_wyckoff
from napari_sadp.simulation.catalogue import CATALOGUE_VARIABLE, composition, find_source, load_catalogue
from napari_sadp.simulation.scattering import structure_factors

CIFS = SHARED / "structures" / "cif"
needs_cifs = pytest.mark.skipif(
    not CIFS.is_dir(), reason=f"no folder of CIFs beside the checkout ({CIFS.name})"
)


def powder(crystal, g_max=0.9):
    """Sums of |F|^2 over reflections of equal length: what no choice of setting or origin changes."""
    basis = crystal.reciprocal_basis()
    reach = np.ceil(g_max * np.array(crystal.cell[:3])).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    g = np.linalg.norm(grid @ basis, axis=1)
    hkl, g = grid[(g < g_max) & (g > 0)], g[(g < g_max) & (g > 0)]
    factor = np.abs(structure_factors(crystal, hkl)) ** 2
    return np.histogram(g, bins=np.linspace(0, g_max, 40), weights=factor)[0]


@needs_cifs
@pytest.mark.parametrize("index", range(0, 278, 23))
def test_entries_scatter_as_their_cif(tmp_path, index):
    path = sorted(CIFS.glob("*.cif"))[index]
    crystal = load_crystal(path)
    write_catalogue(tmp_path / "own.json.gz", [catalogue_entry(crystal, source="CIF", source_id=path.stem)])
    entry = load_catalogue(tmp_path / "own.json.gz")[-1]
    assert entry.source_id == path.stem
    assert entry.space_group == int(path.name.split("_")[0])
    assert entry.crystal().n_atoms == crystal.n_atoms
    # bins of lengths: cells of rounded numbers may move a reflection over an edge, so compare running sums
    first, second = (np.cumsum(powder(c)) for c in (crystal, entry.crystal()))
    assert np.abs(first - second).max() < 0.02 * first[-1]
    assert second[-1] == pytest.approx(first[-1], rel=2e-3)


@needs_cifs
@pytest.mark.slow
def test_all_cifs_give_the_wyckoff_behaviour_of_the_collection(tmp_path):
    with gzip.open(SHARED / "structures" / "structures.jsonl.gz", "rt", encoding="utf-8") as stream:
        known = {(e["source_id"], e["spacegroup"]): e for e in map(json.loads, stream)}
    built = list(build_catalogue(CIFS))
    assert [path.name for path, entry in built if isinstance(entry, StructureError)] == []
    write_catalogue(tmp_path / "own.json.gz", [entry for _, entry in built])
    compared = 0
    for entry in load_catalogue(tmp_path / "own.json.gz")[len(load_catalogue()) :]:
        assert entry.space_group == int(entry.source_id.split("_")[0])
        wanted = known.get((entry.source_id.split("_", 2)[-1], entry.space_group))
        if wanted is None:
            continue
        compared += 1
        letters = {site["wyckoff"] for site in wanted["sites"]}
        assert entry.behaviour == behaviour_of_wyckoff(entry.space_group, letters), entry.source_id
        assert entry.n_atoms == wanted["n_atoms"]
        assert composition(entry.formula) == composition(wanted["formula"])
    assert compared > 270


@pytest.mark.parametrize(
    ("group", "atoms", "behaviour", "formula"),
    [
        ("F d -3 m:2", ("C1 C 0.125 0.125 0.125 0.5",), "227a", "C"),
        ("F d -3 m:1", ("C1 C 0 0 0 0.5",), "227a", "C"),
        (
            "F d -3 m:2",
            ("Mg1 Mg 0.125 0.125 0.125 0.5", "Al1 Al 0.5 0.5 0.5 0.5", "O1 O 0.261 0.261 0.261 0.5"),
            "227g",
            "MgAl2O4",
        ),
        ("F m -3 m", ("Na1 Na 0 0 0 0.5", "Cl1 Cl 0.5 0.5 0.5 0.5"), "225", "NaCl"),
    ],
)
def test_behaviour_and_formula_of_ones_own(tmp_path, group, atoms, behaviour, formula):
    path = write_cif(tmp_path / "mine.cif", atoms, cell="8 8 8 90 90 90", group=group)
    [(found, entry)] = build_catalogue(tmp_path)
    assert found == path
    assert write_catalogue(tmp_path / "own.json.gz", [entry]) == 1
    read = load_catalogue(tmp_path / "own.json.gz")[-1]
    assert (read.formula, read.behaviour.name, read.source, read.key) == (formula, behaviour, "CIF", "mine")


def test_shared_sites_keep_their_occupancies(tmp_path):
    pure = load_crystal(write_cif(tmp_path / "alloy.cif", ("Cu1 Cu 0 0 0 0.5",), cell="3.7 3.7 3.7 90 90 90"))
    mixed = replace(
        pure,
        elements=("Cu",) * 4 + ("Au",) * 4,
        positions=np.concatenate([pure.positions] * 2),
        occupancies=np.repeat([0.25, 0.75], 4),
        b_iso=np.full(8, 0.5),
    )
    entry = catalogue_entry(mixed, source="CIF", source_id="alloy")
    assert entry["formula"] == "CuAu3"
    assert entry["n_atoms"] == 4
    assert entry["sites"] == [[[["Au", 0.75], ["Cu", 0.25]], 4, "a", [0.0, 0.0, 0.0]]]


ANISO = """loop_
_atom_site_aniso_label
""" + "".join(f"_atom_site_aniso_U_{ij}\n" for ij in ("11", "22", "33", "12", "13", "23"))


@pytest.mark.parametrize(
    ("kind", "primitive"),
    [
        ("B_iso_or_equiv", False),
        ("U_iso_or_equiv", False),
        ("aniso", False),  # not in oblique axes, where an isotropic tensor has off-diagonal terms
        ("B_iso_or_equiv", True),
        ("U_iso_or_equiv", True),
    ],
)
def test_displacements_of_ones_own_cif_are_kept(tmp_path, monkeypatch, kind, primitive):
    """From the file through the catalogue to the crystal; each fluorine of the primitive cell a little different."""
    cell, group = (
        ("3.863 3.863 3.863 60 60 60", "P 1") if primitive else ("5.463 5.463 5.463 90 90 90", "F m -3 m")
    )
    sites = [("Ca1", "Ca", 0.0, 0.31), ("F1", "F", 0.25, 0.82)] + [("F2", "F", 0.75, 0.84)] * primitive
    to_u = 8 * np.pi**2
    scale = 1.0 if kind == "B_iso_or_equiv" else 1 / to_u
    given = "" if kind == "aniso" else "{:.8f}"
    rows = [f"{label} {e} {x} {x} {x} {given.format(b * scale)}" for label, e, x, b in sites]
    text = write_cif(tmp_path / "own.cif", tuple(rows), cell=cell, group=group).read_text()
    if kind == "aniso":
        u = [f"{label} {' '.join([f'{b / to_u:.8f}'] * 3)} 0 0 0" for label, _, _, b in sites]
        text = text.replace("_atom_site_B_iso_or_equiv\n", "") + ANISO + "\n".join(u) + "\n"
    else:
        text = text.replace("B_iso_or_equiv", kind)
    (tmp_path / "own.cif").write_text(text)
    [(_, entry)] = build_catalogue(tmp_path)
    write_catalogue(tmp_path / "own.json.gz", [entry])
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(tmp_path / "own.json.gz"))
    crystal = find_source("own").crystal()
    expected = {"Ca": 0.31, "F": 0.83 if primitive else 0.82}
    assert crystal.space_group == 225
    assert crystal.n_atoms == 12
    assert crystal.b_iso == pytest.approx([expected[e] for e in crystal.elements], abs=2e-4)


def test_folders_without_cifs_are_named(tmp_path):
    with pytest.raises(StructureError, match=r"holds no \.cif"):
        next(build_catalogue(tmp_path))
    with pytest.raises(StructureError, match="is no folder"):
        next(build_catalogue(tmp_path / "none"))
    with pytest.raises(ValueError, match="entries is empty"):
        write_catalogue(tmp_path / "a.json.gz", [])
