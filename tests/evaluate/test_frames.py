"""Frames, structures and rows of an evaluation."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.dataset.crystals import TrainedOn, is_held_out, structure_type
from napari_sadp.dataset.outliers import SHAPE_MARGIN
from napari_sadp.errors import PatternRefusedError
from napari_sadp.evaluate import foreign
from napari_sadp.evaluate.foreign import FOREIGN_KINDS, foreign_frame, lattice_shape, random_crystal
from napari_sadp.evaluate.frames import ARTICLE, CONDITIONS, SWEEPS, Acquired, acquire, visible_class
from napari_sadp.evaluate.structures import PACKAGE_ALONE, held_out_structures
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.simulation.catalogue import find_structure, load_catalogue
from napari_sadp.simulation.imperfections.frames import simulate_imperfect
from napari_sadp.simulation.kinematic import simulate_kinematic


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


def test_silicon_is_seen_as_what_it_is(scheme):
    silicon = find_structure("Si", 227).crystal()
    frame, visible, settled = acquire(silicon, (0, 1, 1), CONDITIONS[1], scheme, seed=3)
    assert settled
    assert visible == scheme.index_of["227a", (0, 1, 1)]
    assert frame.data.shape == (256, 256)
    assert frame.pixel_size_inv_angstrom is None
    again, *_ = acquire(silicon, (0, 1, 1), CONDITIONS[1], scheme, seed=3)
    assert np.array_equal(frame.data, again.data)
    other, *_ = acquire(silicon, (0, 1, 1), CONDITIONS[1], scheme, seed=4)
    assert not np.array_equal(frame.data, other.data)


def test_multiple_scattering_changes_what_is_visible(scheme):
    """(200) of silicon is forbidden, and lights up on [011]: then the pattern looks face-centred."""
    silicon = find_structure("Si", 227).crystal()
    thick = SWEEPS["thickness / nm, Bloch waves"][40.0]
    assert acquire(silicon, (0, 1, 1), thick, scheme, seed=1)[1] == scheme.index_of["225", (0, 1, 1)]


def test_a_spot_counts_from_the_threshold_on(scheme):
    silicon = find_structure("Si", 227).crystal()
    spots = simulate_kinematic(silicon, (0, 1, 1), g_max_inv_angstrom=2.0, laue_zones=0)
    hkl = np.concatenate([spots.hkl, [[2, 0, 0], [-2, 0, 0]]])
    for height, name in ((1e-3, "227a"), (3e-3, "225")):
        intensity = np.concatenate([spots.intensity / spots.intensity.max(), np.full(2, height)])
        assert visible_class(hkl, intensity, (0, 1, 1), scheme) == scheme.index_of[name, (0, 1, 1)]
    assert visible_class(np.empty((0, 3)), np.empty(0), (0, 1, 1), scheme) is None


def test_the_conditions_change_what_they_say(scheme):
    crystal = find_structure("Al", 225).crystal()
    for width in (128, 240):
        small = replace(CONDITIONS[1], settings={"size": width})
        assert acquire(crystal, (0, 0, 1), small, scheme, 1)[0].data.shape == (width, width)
    faint, *_ = acquire(crystal, (0, 0, 1), SWEEPS["counts in the strongest spot"][30.0], scheme, 1)
    bright, *_ = acquire(crystal, (0, 0, 1), SWEEPS["counts in the strongest spot"][10_000.0], scheme, 1)
    assert bright.data.max() > 50 * faint.data.max()
    assert len(SWEEPS) == 8
    assert ARTICLE.camera_lengths_mm


def test_structures_are_held_out(scheme):
    found = held_out_structures(scheme)
    by_key = {f"{entry.formula} {entry.key}": entry for entry in load_catalogue()}
    assert len(found) > 100
    assert all(is_held_out(by_key[item.key]) for item in found)
    trained = {
        structure_type(entry)
        for entry in load_catalogue()
        if entry.n_atoms <= 250 and not is_held_out(entry) and entry.space_group in scheme.groups
    }
    assert all(item.new_type == (structure_type(by_key[item.key]) not in trained) for item in found)
    assert any(item.new_type for item in found)
    by_type = held_out_structures(scheme, [TrainedOn("type")])
    assert all(item.new_type for item in by_type)


def test_structures_of_ones_own_are_held_out_unless_training_knew_them(scheme, tmp_path):
    trained = find_structure("TiC", 225)
    assert not is_held_out(trained)
    kept = find_structure("Si", 227)
    entries = []
    for entry, formula, elements in (
        (trained, "TiC", {}),  # the same compound from elsewhere
        (trained, "TiU", {"C": "U"}),
        (kept, "Xe", {"Si": "Xe"}),
        (kept, "Pm", {"Si": "Pm"}),
    ):
        sites = [
            [[[elements.get(name, name), *rest] for name, *rest in species], *others]
            for species, *others in entry.sites
        ]
        entries.append(
            {
                "formula": formula,
                "group": entry.space_group,
                "cell": entry.cell,
                "n_atoms": entry.n_atoms,
                "source": "mine",
                "id": f"own-{len(entries)}",
                "licence": "own",
                "mirrored": False,
                "sites": sites,
            }
        )
    path = tmp_path / "own.json.gz"
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))
    bundled, more = held_out_structures(scheme), held_out_structures(scheme, PACKAGE_ALONE, str(path))
    new = {item.key for item in more} - {item.key for item in bundled}
    assert new == {"TiU own-1", "Xe own-2", "Pm own-3"}
    assert {item.key for item in bundled} < {item.key for item in more}
    assert not any(item.new_type for item in more if item.key in new)
    assert not {item.key for item in held_out_structures(scheme, [TrainedOn("type")], str(path))} & new


def test_a_type_does_not_know_elements_or_origin():
    assert structure_type(find_structure("TiC", 225)) == structure_type(find_structure("TiN", 225))
    assert structure_type(find_structure("TiC", 225)) != structure_type(find_structure("Al", 225))
    assert structure_type(find_structure("Si", 227))[0] == 227


@pytest.mark.parametrize("kind", FOREIGN_KINDS)
def test_foreign_frames(scheme, kind):
    crystals = [find_structure("Al", 225).crystal(), find_structure("Si", 227).crystal()]
    frame = foreign_frame(kind, crystals, scheme, 5)
    assert frame.data.shape == (256, 256)
    assert np.array_equal(frame.data, foreign_frame(kind, crystals, scheme, 5).data)
    if kind in ("rings", "noise"):
        with pytest.raises(PatternRefusedError):
            analyse_pattern(frame)


def test_two_crystals_are_seen_through_the_same_lenses(scheme, monkeypatch):
    crystals = [find_structure("Al", 225).crystal(), find_structure("Si", 227).crystal()]
    made = []

    def record(*args, **options):
        made.append(simulate_imperfect(*args, **options))
        return made[-1]

    monkeypatch.setattr(foreign, "simulate_imperfect", record)
    for seed in range(4):
        foreign_frame("two crystals", crystals, scheme, seed)
    assert len(made) == 8
    for one, other in zip(made[::2], made[1::2], strict=True):
        assert one.settings.spot_sigma_px == other.settings.spot_sigma_px >= 0.6
        for item in (one, other):
            assert item.parameters["spot_sigma"] == item.parameters["disc_radius"] == 0
            assert item.parameters["ellipticity"] == 0
            np.testing.assert_allclose(item.beam_rc, 127.5)
        assert one.parameters["rotation_deg"] != other.parameters["rotation_deg"]


def test_foreign_lattices_have_the_shape_of_no_class(scheme, monkeypatch):
    shapes = np.array([(np.log(item.ratio), item.angle_deg) for item in scheme.classes])
    seen = []

    def record(crystal, zone, *_):
        spots = simulate_kinematic(
            crystal, zone, g_max_inv_angstrom=1.5, relrod="none", laue_zones=0, min_intensity=1e-12
        )
        seen.append(lattice_shape(spots.g_xy))
        return Acquired(None, None, True)

    monkeypatch.setattr(foreign, "acquire", record)
    for seed in range(20):
        foreign_frame("non-cubic lattice", [], scheme, seed)
    assert len(seen) == 20
    for ratio, angle in seen:
        assert 1 <= ratio < 4
        assert 59.9 <= angle <= 90
        assert not (np.abs(shapes - [np.log(ratio), angle]) < SHAPE_MARGIN).all(axis=1).any()


def test_lattice_shape_by_hand():
    m, n = (axis.ravel() for axis in np.mgrid[-3:4, -3:4])
    use = (m != 0) | (n != 0)
    nodes = np.stack([m[use] * 0.5 + n[use] * 0.1, n[use] * 0.7], axis=1)
    ratio, angle = lattice_shape(nodes)
    assert ratio == pytest.approx(np.hypot(0.1, 0.7) / 0.5)
    assert angle == pytest.approx(np.degrees(np.arctan2(0.7, 0.1)))
    assert random_crystal(np.random.default_rng(0)).n_atoms >= 1
