"""Data sets on the disk: same bytes in any order, complete manifests, right labels, round trip through the reader."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sadp.dataset.build import build_dataset, prepare_folder, write_chunk
from napari_sadp.dataset.config import DatasetConfig, config_from_dict
from napari_sadp.dataset.images import COLUMNS, ImageMaker, plan_dataset
from napari_sadp.dataset.read import open_dataset
from napari_sadp.dataset.structures import behaviour_of_crystal
from napari_sadp.errors import SadpError, StructureError, UnreadableFileError
from napari_sadp.geometry.convention import beam_position
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.simulation.catalogue import find_structure, load_catalogue
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.render import render_pattern
from napari_sadp.simulation.zone_pattern import simulate_pattern

if TYPE_CHECKING:
    from pathlib import Path

TINY = DatasetConfig(
    groups=(213, 225, 227),
    zones=((0, 0, 1), (0, 1, 1), (1, 1, 2)),
    per_group=3,
    max_atoms=60,
    validation_share=0.34,
    pixel_sizes_inv_angstrom=(0.04, 0.06),
    thickness_nm=(4, 8),
    spot_sigma_px=(0.8, 1.2),
    size=32,
    seed=5,
    shard_size=7,
)


def build(config, folder, **options):
    *_, last = build_dataset(config, folder, **options)
    return last


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


IMPERFECT = replace(TINY, imperfections="strong", format="shards", changed_imperfections=(("margin", 0.5),))


@pytest.fixture(scope="module", params=["png", "shards", "imperfect"])
def built(request, tmp_path_factory):
    config = IMPERFECT if request.param == "imperfect" else replace(TINY, format=request.param)
    folder = tmp_path_factory.mktemp("data") / "set"
    assert build(config, folder).done == len(plan_dataset(config)) == 9 * 3 * 2
    return config, folder


def test_two_workers_give_the_same_bytes(built, tmp_path):
    config, folder = built
    last = build(config, tmp_path / "set", workers=2)
    assert (last.done, last.total, last.resumed) == (54, 54, 0)
    assert tree(tmp_path / "set") == tree(folder)


def test_any_order_and_a_lost_file_give_the_same_bytes(built, tmp_path):
    config, folder = built
    other = tmp_path / "set"
    prepare_folder(plan_dataset(config), other)
    for index in (5, 2, 6):
        write_chunk(config, other, index)
    lost = next(iter((other / "shards").iterdir() if config.format == "shards" else other.rglob("*.png")))
    lost.write_bytes(b"")
    last = build(config, other)
    assert last.resumed == 14  # the chunk with the emptied file is made again
    assert tree(other) == tree(folder)


def test_stopped_and_resumed(built, tmp_path):
    config, folder = built
    steps = build_dataset(config, tmp_path / "set")
    done = [next(steps).done for _ in range(4)]
    assert done == [0, 7, 14, 21]
    steps.close()
    assert not (tmp_path / "set" / "manifest.csv").exists()
    with pytest.raises(UnreadableFileError, match="not complete; the command that began it goes on"):
        open_dataset(tmp_path / "set")
    assert build(config, tmp_path / "set").resumed == 21
    assert tree(tmp_path / "set") == tree(folder)


def test_a_complete_folder_says_so_at_once(built):
    config, folder = built
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    steps = list(build_dataset(config, folder))
    assert (steps[0].done, steps[0].resumed) == (54, 54)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_manifest_is_complete_and_true(built):
    config, folder = built
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = plan_dataset(config).columns
    assert tuple(rows[0]) == columns
    assert columns[: len(COLUMNS)] == COLUMNS
    assert [int(row["number"]) for row in rows] == list(range(54))
    assert len({(row["file"], row["index"]) for row in rows}) == 54
    assert {row["file"] for row in rows} == set(tree(folder)) - {"manifest.csv", "dataset.json"}
    scheme = build_scheme(config.groups, config.zones)
    entries = {entry.key: entry for entry in load_catalogue()}
    for row in rows:
        zone = tuple(map(int, row["zone"].split()))
        entry = entries[row["structure"]]
        assert scheme.labels[scheme.index_of[entry.behaviour.name, zone]] == row["label"]
        assert int(row["class_index"]) == scheme.labels.index(row["label"])
        assert (row["behaviour"], row["formula"]) == (entry.behaviour.name, entry.formula)
        # imperfections have ranges of their own
        thinnest, thickest, largest = (5, 60, 390) if config is IMPERFECT else (4, 8, 30)
        assert thinnest <= float(row["thickness_nm"]) <= thickest
        assert 0 <= float(row["rotation_deg"]) <= largest
        assert row["camera_length_mm"] == ""


def test_no_structure_is_in_both_parts(built):
    reader = open_dataset(built[1])
    train, held = (
        {reader.rows[i]["formula"] for i in reader.splits[part]} for part in ("train", "validation")
    )
    assert train
    assert held
    assert not train & held
    assert len(reader.splits["train"]) + len(reader.splits["validation"]) == len(reader)


def test_reader_gives_back_the_images(built):
    config, folder = built
    reader = open_dataset(folder)
    maker = ImageMaker(plan_dataset(config))
    assert len(reader) == 54
    assert reader.class_names == build_scheme(config.groups, config.zones).labels
    for i in (53, 0, 20, 21):
        image, label = reader[i]
        expected, row = maker.make(i)
        assert image.dtype == np.float32
        assert np.array_equal(image, expected.astype(np.float32) / 255)
        assert label == row["class_index"] == reader.labels[i]
    with pytest.raises(IndexError):
        reader[54]


def test_sixteen_bits(tmp_path):
    config = replace(TINY, bit_depth=16, groups=(225,), per_group=1, validation_share=0.0)
    build(config, tmp_path / "png")
    build(replace(config, format="shards"), tmp_path / "shards")
    png, shards = open_dataset(tmp_path / "png"), open_dataset(tmp_path / "shards")
    assert len(png) == 6
    for i in range(6):
        assert np.array_equal(png[i][0], shards[i][0])
    assert len(np.unique(png[0][0])) > 200
    assert len(png.splits["validation"]) == 0


@pytest.mark.parametrize("size", [64, 51])
def test_images_are_those_of_the_simulator(size):
    """The same spots as `simulate_kinematic` and `render_pattern`, turned the same way."""
    plan = plan_dataset(replace(TINY, size=size, gamma=1.0, bit_depth=16))
    maker = ImageMaker(plan)
    for number in (0, 13, 26, 53):
        image, row = maker.make(number)
        structure, zone, _ = plan.place(number)
        spots = simulate_kinematic(
            structure.crystal(), zone, voltage_kv=row["voltage_kv"], thickness_nm=row["thickness_nm"],
            g_max_inv_angstrom=3.9, laue_zones=0,
        )  # fmt: skip
        expected = render_pattern(
            spots, size=size, pixel_size_inv_angstrom=row["pixel_size_inv_angstrom"],
            spot_sigma_px=row["spot_sigma_px"], rotation_deg=row["rotation_deg"],
        ).data.clip(0, 1)  # fmt: skip
        assert np.abs(image / 65535 - expected).max() < 2e-4


def test_the_beam_is_at_the_centre_of_the_convention():
    image, _ = ImageMaker(plan_dataset(replace(TINY, rotation_deg=0))).make(0)
    centre = int(beam_position(32))
    assert (image[centre : centre + 2, centre : centre + 2] == 255).all()
    assert np.array_equal(image, image[::-1, ::-1])  # Friedel pairs


def test_images_depend_on_seed_and_number_alone():
    maker, other = (ImageMaker(plan_dataset(replace(TINY, repeats=n))) for n in (2, 2))
    forward = [maker.make(i)[0] for i in range(12)]
    backward = [other.make(i)[0] for i in reversed(range(12))][::-1]
    assert all(map(np.array_equal, forward, backward))
    assert not np.array_equal(forward[0], forward[1])  # repeats differ
    turned = ImageMaker(plan_dataset(replace(TINY, repeats=2, seed=6))).make(0)[1]["rotation_deg"]
    assert turned != maker.make(0)[1]["rotation_deg"]


def test_a_field_of_view_without_spots_is_told():
    plan = plan_dataset(replace(TINY, pixel_sizes_inv_angstrom=(0.004,), groups=(225,)))
    rows = [ImageMaker(plan).make(i)[1] for i in range(len(plan))]
    assert min(row["n_spots"] for row in rows) == 0


def test_other_folders_are_refused(built, tmp_path):
    config, folder = built
    with pytest.raises(ValueError, match=r"begun with another configuration \(gamma, seed\)"):
        build(replace(config, seed=9, gamma=0.7), folder)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        build(config, tmp_path)
    with pytest.raises(ValueError, match="a file, expected a folder"):
        build(config, tmp_path / "mine.txt")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        build(config, tmp_path / "damaged")
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("workers", [0, -1])
def test_wrong_number_of_workers(tmp_path, workers):
    with pytest.raises(ValueError, match="workers is"):
        build(TINY, tmp_path / "set", workers=workers)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_error_says_what_to_do(tmp_path, workers):
    folder = tmp_path / "set"
    prepare_folder(plan_dataset(TINY), folder)
    (folder / "train").write_text("in the way")
    with pytest.raises(SadpError, match="the same command goes on"):
        build(TINY, folder, workers=workers)
    (folder / "train").unlink()
    assert build(TINY, folder).done == 54


def test_dask_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dask.distributed", None)
    with pytest.raises(ValueError, match="pip install distributed"):
        build(TINY, tmp_path / "set", scheduler="tcp://127.0.0.1:1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed", "ignore::ResourceWarning")
def test_dask_writes_the_same_bytes(built, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the package distributed")
    config, folder = built
    # any free port: the usual one may be taken by a cluster of one's own
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        assert build(config, tmp_path / "set", scheduler=cluster.scheduler_address).done == 54
    assert tree(tmp_path / "set") == tree(folder)


def test_imperfections_are_in_the_manifest_and_in_the_images(tmp_path):
    build(IMPERFECT, tmp_path / "set")
    reader = open_dataset(tmp_path / "set")
    row = reader.rows[3]
    assert {"beam_row", "tilt_x_mrad", "stop", "dose", "mirrored", "margin_top", "thickness_nm"} <= set(row)
    assert isinstance(row["mirrored"], bool)
    assert isinstance(row["dose"], float)
    assert {r["stop"] for r in reader.rows} <= {"", "straight", "round", "pointer"}
    assert any(r["stop"] for r in reader.rows)
    offset = np.hypot(*(np.array([[r["beam_row"], r["beam_col"]] for r in reader.rows]) - 15.5).T)
    assert offset.max() > 3
    assert offset.max() <= 0.25 * 32 * 1.001
    thickness = [r["thickness_nm"] for r in reader.rows]
    assert max(thickness) > 20  # that of the imperfections, not of the configuration
    plain = ImageMaker(plan_dataset(TINY))
    assert not any(np.array_equal(reader[i][0] * 255, plain.make(i)[0]) for i in range(10))


def test_a_frame_without_anything_wrong_is_the_image_without_imperfections():
    still = tuple((name, 0.0) for name in ("dose", "offset"))
    one = ImageMaker(plan_dataset(replace(TINY, changed_imperfections=still)))
    two = ImageMaker(plan_dataset(TINY))
    for number in (0, 20, 53):
        image, row = one.make(number)
        expected, plain = two.make(number)
        # other draws come before thickness and rotation in neither
        assert row["thickness_nm"] == plain["thickness_nm"]
        assert row["rotation_deg"] == plain["rotation_deg"]
        assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("imperfections", ["none", "mild"])
def test_dynamical_images_are_those_of_the_simulator(imperfections):
    config = replace(
        TINY, engine="dynamical", groups=(225, 227), imperfections=imperfections, thickness_nm=(20, 60), size=64,
        repeats=2, pixel_sizes_inv_angstrom=(0.03, 0.05), gamma=1.0, bit_depth=16,
    )  # fmt: skip
    plan = plan_dataset(config)
    maker = ImageMaker(plan)
    for number in (0, 3, 30):
        image, row = maker.make(number)
        structure, zone, _ = plan.place(number)
        if imperfections == "none":
            perfect = simulate_pattern(
                structure.crystal(), zone, engine="dynamical", voltage_kv=row["voltage_kv"], size=64,
                thickness_nm=row["thickness_nm"], pixel_size_inv_angstrom=row["pixel_size_inv_angstrom"],
                spot_sigma_px=row["spot_sigma_px"], rotation_deg=row["rotation_deg"],
            )  # fmt: skip
            assert np.abs(image / 65535 - perfect.pattern.data.clip(0, 1)).max() < 2e-3
        else:
            assert 5 <= row["thickness_nm"] <= 15
            assert 0 < np.hypot(row["tilt_x_mrad"], row["tilt_y_mrad"]) <= 1
            assert image.max() > 30000


def test_reader_refuses_what_it_does_not_understand(built, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(built[1], folder)
    text = (folder / "dataset.json").read_text()

    def changed(**values):
        (folder / "dataset.json").write_text(json.dumps(json.loads(text) | values))

    changed(image_convention="0")
    with pytest.raises(UnreadableFileError, match="image convention '0', expected '1'"):
        open_dataset(folder)
    changed(scheme_version="0:225")
    with pytest.raises(UnreadableFileError, match="made for the classes 0:225"):
        open_dataset(folder)
    changed(n_images=55)
    with pytest.raises(UnreadableFileError, match="expected the 55 images"):
        open_dataset(folder)
    changed()
    reader = open_dataset(folder)
    (folder / reader.rows[0]["file"]).write_bytes(b"nonsense")
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        reader[0]
    with pytest.raises(UnreadableFileError, match=r"dataset.json is missing"):
        open_dataset(tmp_path)


CIF = """data_{name}
_symmetry_space_group_name_H-M '{group}'
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{sites}
"""


def test_a_folder_of_cifs(tmp_path):
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    salt = CIF.format(name="NaCl", group="F m -3 m", a=5.64, sites="Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5")
    (cifs / "salt.cif").write_text(salt)
    (cifs / "iron.cif").write_text(CIF.format(name="Fe", group="I m -3 m", a=2.87, sites="Fe1 Fe 0 0 0"))
    content = {
        "classes": {"groups": [225], "zones": [[0, 0, 1]]},
        "structures": {"per_group": 0, "cif_folder": "cifs"},
        "image": {"size": 32, "spot_sigma_px": 1},
        "microscope": {"pixel_sizes_inv_angstrom": [0.05]},
    }
    config = config_from_dict(content, tmp_path)
    build(config, tmp_path / "set")
    reader = open_dataset(tmp_path / "set")
    assert [(row["structure"], row["behaviour"]) for row in reader.rows] == [("salt", "225")]
    assert str(tmp_path) not in (tmp_path / "set" / "dataset.json").read_text()
    before = plan_dataset(config).fingerprint
    plan_dataset.cache_clear()
    (cifs / "salt.cif").write_text(salt.replace("5.64", "5.65"))
    assert plan_dataset(config).fingerprint != before
    with pytest.raises(ValueError, match="expected CIF files of the groups 213 in it"):
        plan_dataset(replace(config, groups=(213,)))
    (cifs / "broken.cif").write_text("no cif")
    with pytest.raises(StructureError, match=r"broken\.cif"):
        plan_dataset(replace(config, seed=99))


@pytest.mark.parametrize("name", ["213", "221", "225", "227a", "227b", "227g", "229"])
def test_behaviour_of_crystals(name):
    entry = next(e for e in load_catalogue() if e.behaviour.name == name and e.n_atoms < 120)
    assert behaviour_of_crystal(entry.crystal()).name == name


def test_behaviour_of_a_wrong_group():
    with pytest.raises(StructureError, match="shows reflections that its space group 227 forbids"):
        behaviour_of_crystal(replace(find_structure("CsCl", 221).crystal(), space_group=227))
