"""The remembered sets of reflections, and the fast sums of structure factors, against plain ones."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.simulation import reflections as module
from napari_sadp.simulation import scattering
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.crystal import Crystal
from napari_sadp.simulation.reflections import MAX_NODES, reflections, zone_reflections
from napari_sadp.simulation.scattering import electron_scattering_factor, structure_factors


def triclinic(n=9, seed=0):
    """A cell without any symmetry, with mixed elements, occupancies and displacements."""
    rng = np.random.default_rng(seed)
    return Crystal(
        "X", (5.1, 6.3, 7.7, 77.0, 101.0, 118.0), tuple(rng.choice(["Si", "O", "Fe"], n)), rng.random((n, 3)),
        rng.uniform(0.3, 1, n), rng.choice([0.2, 0.9], n), 1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def silicon():
    return find_structure("Si", 227).crystal()


def plain_structure_factors(crystal, hkl):
    """The sum as it is written in the books, atom by atom."""
    g = np.linalg.norm(hkl @ crystal.reciprocal_basis(), axis=1)
    return sum(
        o * electron_scattering_factor(e, g) * np.exp(-b * g**2 / 4) * np.exp(2j * np.pi * hkl @ xyz)
        for e, xyz, o, b in zip(crystal.elements, crystal.positions, crystal.occupancies, crystal.b_iso, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("dense", [0, 1e9])
@pytest.mark.parametrize("chunk", [7, 10**6])
def test_fast_sums_are_the_plain_sum(monkeypatch, dense, chunk):
    monkeypatch.setattr(scattering, "_DENSE", dense)
    monkeypatch.setattr(scattering, "_CHUNK", chunk)
    crystal = triclinic()
    hkl = np.random.default_rng(1).integers(-7, 8, (60, 3))
    assert structure_factors(crystal, hkl) == pytest.approx(plain_structure_factors(crystal, hkl), abs=1e-12)
    basis = np.array([[1, -2, 0], [0, 3, 1]])
    plane = np.random.default_rng(2).integers(-5, 6, (40, 2))
    expected = plain_structure_factors(crystal, plane @ basis)
    assert structure_factors(crystal, plane, basis) == pytest.approx(expected, abs=1e-12)
    line = np.arange(-4, 5)[:, None]
    expected = plain_structure_factors(crystal, line * [[1, 1, 2]])
    assert structure_factors(crystal, line, [[1, 1, 2]]) == pytest.approx(expected, abs=1e-12)


def test_far_indices_cost_no_table_of_all_between():
    crystal = triclinic()
    far = np.array([[0, 0, 1], [3, 10**9, -(10**9)]])
    assert len(structure_factors(crystal, far)) == 2
    assert structure_factors(crystal, np.empty((0, 3), dtype=int)).shape == (0,)


@pytest.mark.parametrize("g_max", [0.31, 0.5, 1.0])
def test_sphere_holds_every_reflection_and_no_absence(silicon, g_max):
    for crystal in (silicon, triclinic()):
        found = reflections(crystal, g_max)
        n = 12
        hkl = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3), axis=-1).reshape(-1, 3)
        hkl = hkl[hkl.any(axis=1) & (np.linalg.norm(hkl @ crystal.reciprocal_basis(), axis=1) <= g_max)]
        strength = np.abs(plain_structure_factors(crystal, hkl)) ** 2
        expected = dict(zip(map(tuple, hkl.tolist()), strength, strict=True))
        expected = {row: value for row, value in expected.items() if value > 1e-12}
        assert {tuple(row) for row in found.hkl.tolist()} == expected.keys()
        assert len(found) == len(expected)
        assert found.strength == pytest.approx([expected[tuple(row)] for row in found.hkl.tolist()], rel=1e-9)
        assert found.g == pytest.approx(found.hkl @ crystal.reciprocal_basis(), abs=1e-12)
        assert (np.diff(np.linalg.norm(found.g, axis=1)) > -1e-9).all()


def test_no_systematic_absence_is_a_reflection(silicon):
    hkl = reflections(silicon, 2.0).hkl
    odd = (hkl % 2).sum(axis=1)
    assert set(odd.tolist()) == {0, 3}  # all even or all odd
    assert (hkl[odd == 0].sum(axis=1) % 4 == 0).all()


@pytest.mark.parametrize("laue_zones", [0, 1, 3])
@pytest.mark.parametrize("zone", [*CUBIC_ZONE_AXES[::4], (-1, 2, 0), (0, 0, -1), (3, -7, 5)])
def test_a_zone_is_a_part_of_the_sphere(monkeypatch, silicon, zone, laue_zones):
    """Both ways to find it, from the sphere and plane by plane, and what the definition says."""
    for crystal in (silicon, triclinic()):
        sets = []
        for limit in (1e9, 0):
            monkeypatch.setattr(module, "_SMALL_SPHERE", limit)
            zone_reflections.cache_clear()
            found = zone_reflections(crystal, zone, 0.9, laue_zones)
            sets.append(dict(zip(map(tuple, found.hkl.tolist()), found.strength, strict=True)))
            assert len(sets[-1]) == len(found)
        zone_reflections.cache_clear()
        assert sets[0].keys() == sets[1].keys()
        assert [sets[0][row] for row in sets[0]] == pytest.approx([sets[1][row] for row in sets[0]], rel=1e-9)
        axis = np.array(zone) @ crystal.direct_basis()
        whole = reflections(crystal, 3.0)
        across = np.linalg.norm(np.cross(whole.g, axis / np.linalg.norm(axis)), axis=1)
        inside = (np.abs(whole.hkl @ zone) <= laue_zones) & (across <= 0.9)
        assert sets[0].keys() == {tuple(row) for row in whole.hkl[inside].tolist()}


def test_sets_are_remembered_and_cannot_be_changed(silicon):
    first, second = reflections(silicon, 0.9), reflections(silicon, 0.8)
    assert np.shares_memory(first.g, second.g)
    with pytest.raises(ValueError, match="read-only"):
        first.strength[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        silicon.positions[0] = 0
    # what was worked out is neither lost nor wrong in a copy
    again = pickle.loads(pickle.dumps(silicon))
    assert np.array_equal(reflections(again, 0.8).strength, second.strength)
    stretched = replace(silicon, cell=(6.0, 6.0, 6.0, 90.0, 90.0, 90.0))
    assert np.linalg.norm(reflections(stretched, 0.8).g[0]) == pytest.approx(np.sqrt(3) / 6)


@pytest.mark.parametrize("g_max", [0, -1, 4.1, float("nan"), "2"])
def test_radius_is_checked(silicon, g_max):
    with pytest.raises(ValueError, match="g_max_inv_angstrom"):
        reflections(silicon, g_max)


def test_too_many_nodes_are_named_at_once(silicon):
    giant = replace(silicon, name="giant", cell=(90.0, 90.0, 90.0, 90.0, 90.0, 90.0))
    with pytest.raises(ValueError, match=rf"giant.*expected at most {MAX_NODES}"):
        reflections(giant, 2.0)
    assert len(reflections(giant, 0.1)) > 100
    with pytest.raises(ValueError, match=r"zone is \(0, 0, 0\)"):
        zone_reflections(silicon, (0, 0, 0), 1.0, 0)
