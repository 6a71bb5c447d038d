from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.dataset.library import (
    FIELD_RADIUS,
    build_library,
    choose_crystals,
    decorate,
    is_validation,
)
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.simulation.catalogue import find_structure, load_catalogue
from napari_sadp.simulation.kinematic import structure_factors


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


@pytest.fixture(scope="module")
def aluminium(scheme):
    return build_library([("225", find_structure("Al", 225).crystal())], scheme, thresholds=(1e-6,))


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
