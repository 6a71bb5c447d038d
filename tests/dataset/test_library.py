from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.dataset import library as library_module
from napari_sadp.dataset.crystals import choose_crystals, decorate, is_formula_held_out, is_validation
from napari_sadp.dataset.library import FIELD_RADIUS, build_library, load_library
from napari_sadp.errors import UnreadableFileError
from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis
from napari_sadp.labels.scheme import build_scheme, disc_nodes
from napari_sadp.labels.visible import deciding_spots, visible_pattern
from napari_sadp.simulation.catalogue import composition, find_structure, load_catalogue
from napari_sadp.simulation.scattering import structure_factors


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


@pytest.fixture(scope="module")
def aluminium(scheme):
    return build_library([("225", find_structure("Al", 225).crystal())], scheme, thresholds=(1e-6,))


def test_a_compound_is_held_out_however_it_is_spelled():
    for entry in load_catalogue(""):
        assert is_formula_held_out(entry.formula) == is_validation(entry.formula)
        turned = "".join(f"{e}{12 * n:.6g}" for e, n in reversed(composition(entry.formula).items()))
        assert is_formula_held_out(turned) == is_validation(entry.formula), turned
    # what the package does not have falls into the same part too
    assert is_formula_held_out("Na3Pu5") == is_formula_held_out("Pu10Na6")


def test_strong_scatterers_show_the_class_of_their_symmetry(aluminium, scheme):
    assert len(aluminium) == len(scheme.zones)
    assert np.array_equal(aluminium.label, aluminium.symmetry_label)
    assert set(aluminium.label) == {scheme.index_of["225", zone] for zone in scheme.zones}


def test_spots_are_aligned_by_their_shortest_vector(aluminium, scheme):
    for row in range(len(aluminium)):
        rc = aluminium.position[row][aluminium.intensity[row] > 0]
        radius = np.hypot(*rc.T)
        assert radius.min() == pytest.approx(1, abs=1e-5)
        assert radius.max() <= FIELD_RADIUS + 1e-5
        assert np.min(np.linalg.norm(rc - (1, 0), axis=1)) < 1e-5
        # every turn brings a spot that is (nearly) as near on to the row axis
        for angle in aluminium.turns[row]:
            turned = np.array([np.cos(angle), np.sin(angle)])
            assert np.min(np.linalg.norm(rc / radius[:, None] - turned, axis=1)[radius < 1.04]) < 1e-4


def test_calibrated_length_of_g1(aluminium, scheme):
    row = int(np.flatnonzero(aluminium.label == scheme.index_of["225", (0, 0, 1)])[0])
    assert aluminium.g1[row] == pytest.approx(2 / 4.04958, rel=1e-5)


def test_a_superlattice_below_the_threshold_gives_the_class_of_the_subcell(scheme):
    # Fe and Co scatter nearly alike, so that ordered FeCo looks body-centred
    library = build_library([("221", find_structure("FeCo", 221).crystal())], scheme, thresholds=(1e-9, 0.01))
    fine, coarse = (library.threshold == np.float32(t) for t in (1e-9, 0.01))
    assert np.array_equal(library.label[fine], library.symmetry_label[fine])
    assert np.mean(library.label[coarse] == library.symmetry_label[coarse]) < 0.7


def test_a_weak_superlattice_is_also_aligned_by_its_subcell(scheme):
    library = build_library([("221", find_structure("FeTi", 221).crystal())], scheme)
    rows = np.flatnonzero(library.coarse & (library.zone == scheme.zones.index((0, 0, 1))))
    assert len(rows)
    for row in rows:
        fine = library.label[row] == scheme.index_of["221", (0, 0, 1)]
        assert fine  # the class is that of all spots
        rc = library.position[row][library.intensity[row] > 0]
        radius = np.hypot(*rc.T)
        # 110 has length 1, so that 100 lies at half a diagonal
        assert radius.min() == pytest.approx(np.sqrt(0.5), abs=1e-5)
        assert radius.max() > 4
        weak = library.evidence[row] > 0
        assert np.abs(np.hypot(*library.position[row][weak].T) - np.sqrt(0.5)).min() < 1e-5
    # strong superlattices are not missed
    other = build_library([("221", find_structure("CsCl", 221).crystal())], scheme)
    assert not other.coarse.any()


def test_lattices_that_miss_too_many_spots_are_no_training_images(scheme, monkeypatch):
    crystal = [("221", find_structure("FeTi", 221).crystal())]
    assert build_library(crystal, scheme).coarse.any()  # every second spot is weak
    monkeypatch.setattr(library_module, "_MOST_MISSED", 1)
    assert not build_library(crystal, scheme).coarse.any()


def test_processes_make_the_same_library(scheme, tmp_path):
    crystals = [("225", find_structure("Al", 225).crystal()), ("227a", find_structure("Si", 227).crystal())]
    seen = []
    one, two = (
        build_library(
            crystals, scheme, dynamical_nm=(5.0, 9.0), workers=n, progress=lambda *done: seen.append(done)
        )
        for n in (1, 2)
    )
    assert seen == [(1, 2), (2, 2)] * 2
    for name, value in vars(one).items():
        assert np.array_equal(value, getattr(two, name)), name
    with pytest.raises(ValueError, match="workers"):
        build_library(crystals, scheme, workers=0)


def test_split_is_by_formula_and_fixed():
    formulas = {entry.formula for entry in load_catalogue()}
    held_out = {f for f in formulas if is_validation(f)}
    assert 0.12 < len(held_out) / len(formulas) < 0.18
    assert is_validation("MgCu2") == is_validation("MgCu2")


def test_no_validation_formula_is_trained_on(scheme):
    rng = np.random.default_rng(0)
    train = choose_crystals(scheme, validation=False, per_behaviour=5, rng=rng)
    check = choose_crystals(scheme, validation=True, per_behaviour=5, rng=rng)
    assert len(train) == 7 * 5
    names = {crystal.name.removesuffix(" decorated") for _, crystal in train}
    assert not names & {crystal.name for _, crystal in check}
    assert not any("decorated" in crystal.name for _, crystal in check)


def test_decorating_keeps_symmetry_and_changes_intensities():
    silicon = find_structure("Si", 227).crystal()
    other = decorate(silicon, np.random.default_rng(1))
    hkl = np.array([(1, 1, 1), (2, 0, 0), (2, 2, 0), (2, 2, 2)])
    ours, theirs = np.abs(structure_factors(silicon, hkl)), np.abs(structure_factors(other, hkl))
    assert (ours > 0).tolist() == (theirs > 0).tolist() == [True, False, True, False]
    assert not np.allclose(ours, theirs)


def test_same_seed_same_crystals(scheme):
    names = [
        [
            c.name + str(c.cell)
            for _, c in choose_crystals(
                scheme, validation=False, per_behaviour=4, rng=np.random.default_rng(7)
            )
        ]
        for _ in range(2)
    ]
    assert names[0] == names[1]


def test_progress_can_stop_the_work(scheme):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_library([("225", find_structure("Al", 225).crystal())], scheme, progress=stop)


@pytest.mark.parametrize(
    ("formula", "group"), [("FeCo", 221), ("Fe3O4", 227), ("Al2Mo3C", 213), ("Si", 227), ("GaAs", 216)]
)
def test_the_pattern_stays_while_what_decides_is_seen(scheme, formula, group):
    crystal = find_structure(formula, group).crystal()
    rng = np.random.default_rng(0)
    same, hidden = [], []
    for zone in scheme.zones:
        plane = gauss_reduce(planar_basis(zone), np.eye(3, dtype=int))
        metric = plane @ plane.T
        nodes = disc_nodes((metric[0, 0], metric[0, 1], metric[1, 1]), 6.0)
        nodes = nodes[np.any(nodes != 0, axis=1)]
        intensity = np.abs(structure_factors(crystal, nodes @ plane)) ** 2
        keep = intensity > 1e-3 * intensity.max()
        nodes, intensity = nodes[keep], intensity[keep] / intensity.max()
        seen = visible_pattern(nodes, intensity > 0, metric, scheme)
        if seen is None or seen.class_index is None:
            continue
        sets = deciding_spots(nodes, seen, metric, scheme)
        for _ in range(10):
            # other intensities, the same for Friedel pairs, and a noise just below the weakest spot that decides
            changed = intensity * np.exp(0.7 * np.cos(nodes @ rng.normal(size=2) * 9))
            level = min(changed[mask].max() for mask in sets)
            found = visible_pattern(nodes, changed > 0.999 * level, metric, scheme)
            same.append((found is not None) and found.class_index == seen.class_index)
        for mask in sets:
            found = visible_pattern(nodes, ~mask, metric, scheme)
            as_before = found is not None and np.array_equal(found.basis, seen.basis)
            hidden.append(not as_before or found.class_index != seen.class_index)
    assert len(same) > 60
    assert all(same)
    # a set that does not decide after all only keeps the noise lower than need be
    assert np.mean(hidden) > 0.9


def test_dynamical_rows_see_what_multiple_scattering_fills(scheme):
    silicon = [("227a", find_structure("Si", 227).crystal())]
    library = build_library(silicon, scheme, dynamical_nm=(30.0, 60.0))
    waves = library.thickness_nm > 0
    assert library.thickness_nm[waves].min() >= 30
    assert library.thickness_nm.max() <= 60
    # the forbidden 200 on [011]: 227a looks like a plain face-centred lattice there, and nowhere without that
    on_011 = library.symmetry_label == scheme.index_of["227a", (0, 1, 1)]
    plain = scheme.index_of["225", (0, 1, 1)]
    assert set(library.label[on_011 & ~waves]) == {scheme.index_of["227a", (0, 1, 1)]}
    assert set(library.label[on_011 & waves]) == {plain}
    on_001 = library.symmetry_label == scheme.index_of["227a", (0, 0, 1)]
    assert len(set(library.label[on_001])) == 1


def test_file_round_trip_and_damage(aluminium, tmp_path):
    path = tmp_path / "spots.npz"
    assert load_library(path, "a") is None
    aluminium.save(path, "a")
    again = load_library(path, "a")
    assert all(np.array_equal(value, getattr(again, name)) for name, value in vars(aluminium).items())
    assert load_library(path, "b") is None
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableFileError, match="damaged"):
        load_library(path, "a")
