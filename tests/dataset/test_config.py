"""Configurations of data sets: what they count, and what is refused with which words."""

from __future__ import annotations

from collections import Counter

import pytest

from napari_sadp.dataset.config import (
    SECTIONS,
    DatasetConfig,
    config_from_dict,
    config_to_dict,
    load_config,
    shipped_configs,
)
from napari_sadp.dataset.crystals import is_validation
from napari_sadp.dataset.images import plan_dataset
from napari_sadp.labels.spacegroups import ARTICLE_GROUPS, CUBIC_ZONE_AXES


def test_shipped_article_has_the_numbers_of_the_article():
    plan = plan_dataset(load_config("article"))
    config = plan.config
    assert config.groups == ARTICLE_GROUPS
    assert config.zones == CUBIC_ZONE_AXES
    assert len(config.settings) == 20
    assert len(plan.structures) == 249
    per_structure = 16 * 20
    parts = Counter(s.validation for s in plan.structures)
    assert (parts[False] * per_structure, parts[True] * per_structure) == (68_480, 11_200)
    assert len(plan) == 79_680
    assert len(plan.scheme) == 60
    assert set(Counter(s.behaviour.number for s in plan.structures).values()) == {49, 50}
    # every field of view shows at least the shortest spots and stays within the scattering tables
    assert all(0.9 < pixel * 128 < 2.7 for _, _, pixel in config.settings)


def test_shipped_configs_are_named_and_load():
    assert shipped_configs() == ("article", "quick")
    assert len(plan_dataset(load_config("quick"))) == 160


def test_sections_hold_every_field_once():
    keys = [key for section in SECTIONS.values() for key in section]
    own = {"imperfections", "changed_imperfections"}  # these have a section of their own
    assert sorted([*keys, *own]) == sorted([*config_to_dict(DatasetConfig()), "cif_folder"])


def test_pixel_size_is_the_camera_pixel_over_wavelength_and_length():
    config = DatasetConfig(voltages_kv=(200,), camera_lengths_mm=(400,), camera_pixel_um=100)
    assert config.settings[0][2] == pytest.approx(0.1 / (0.0250793 * 400), rel=1e-5)
    direct = DatasetConfig(pixel_sizes_inv_angstrom=(0.01, 0.02), voltages_kv=(80, 300))
    assert direct.settings == ((80, None, 0.01), (80, None, 0.02), (300, None, 0.01), (300, None, 0.02))


def test_split_by_seed_and_by_formula():
    by_formula = plan_dataset(DatasetConfig(groups=(221,), per_group=40))
    assert all(is_validation(s.formula) == s.validation for s in by_formula.structures)
    parts = []
    for seed in (0, 1):
        plan = plan_dataset(DatasetConfig(groups=(221,), per_group=40, split="seed", seed=seed))
        held = {s.formula for s in plan.structures if s.validation}
        assert len([s for s in plan.structures if s.validation]) == 6
        assert not held & {s.formula for s in plan.structures if not s.validation}
        parts.append(held)
    assert parts[0] != parts[1]


def test_scarce_behaviours_give_way_to_others_of_their_group():
    plan = plan_dataset(DatasetConfig(groups=(227,), per_group=40))
    found = Counter(s.behaviour.name for s in plan.structures)
    assert sum(found.values()) == 40
    assert found["227a"] < found["227g"]


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("classes", "groups", [14], "groups holds 14, expected cubic space groups, 195 to 230"),
        ("classes", "groups", [], "groups is .*, expected a list"),
        ("classes", "groups", [221, 221], "expected each one once"),
        ("classes", "zones", [[0, 0, 0]], "zone is .*, expected three integers"),
        ("classes", "zones", [[0, 0, 1], [0, 0, 2]], "expected each one once"),
        ("classes", "zones", [[0, 0, 1], [0, 1, 99]], "index 99, expected indices from -12 to 12"),
        ("structures", "per_group", -1, "per_group is -1, expected an integer from 0"),
        ("structures", "per_group", 5000, "per_group is 5000, which asks for 4250 training structures of group 213"),
        ("structures", "per_group", 0, "per_group is 0, expected structures"),
        ("structures", "max_atoms", 2.5, "max_atoms is 2.5, expected an integer"),
        ("structures", "counts", {"225": [9999, 1]}, "counts of 225 asks for 9999 training structures, expected at most"),
        ("structures", "counts", {"227": [1, 1]}, "behaviour in counts is '227', expected one of .*227a"),
        ("structures", "counts", {"225": 4}, r"expected \[training, validation\]"),
        ("structures", "counts", {"225": [1, -1]}, "counts of 225 is -1"),
        ("structures", "cif_folder", "nowhere", "cif_folder is .*nowhere', expected a folder that exists"),
        ("structures", "split", "random", "split is 'random', expected one of 'formula', 'seed'"),
        ("structures", "validation_share", 1.5, "validation_share is 1.5"),
        ("microscope", "voltages_kv", [-200], r"voltages_kv is -200, expected a number in \(10, 3000\] kV"),
        ("microscope", "voltages_kv", ["200 kV"], "voltages_kv is '200 kV'"),
        ("microscope", "voltages_kv", 200, "voltages_kv is 200, expected a list"),
        ("microscope", "voltages_kv", [200, 200], "expected each value once"),
        ("microscope", "camera_lengths_mm", [0], "camera_lengths_mm is 0, expected .* mm"),
        ("microscope", "camera_lengths_mm", [0.3], "camera_lengths_mm is 0.3"),
        ("microscope", "camera_lengths_mm", [30], "half an image 17 1/Å, expected 0.05 to 4"),
        ("microscope", "camera_pixel_um", float("nan"), "camera_pixel_um is nan"),
        ("microscope", "pixel_sizes_inv_angstrom", [0.5], "pixel_sizes_inv_angstrom is 0.5"),
        ("microscope", "thickness_nm", 0, "thickness_nm is 0"),
        ("microscope", "thickness_nm", [9, 3], r"expected \[smallest, largest\] in nm"),
        ("microscope", "engine", "magic", "engine is 'magic', expected one of 'kinematic', 'dynamical'"),
        ("imperfections", "strength", "awful", "strength of the imperfections is 'awful'"),
        ("imperfections", "beam_stop", 2.0, "beam_stop .* is 2"),
        ("imperfections", "beemstop", 1.0, "imperfection is 'beemstop', expected one of"),
        ("imperfections", "dose", [1, 2, 3], "dose is .*, expected a number or a range"),
        ("microscope", "relrod", "box", "relrod is 'box', expected one of"),
        ("image", "size", 7, "size is 7, expected an integer from 16 to 4096"),
        ("image", "size", True, "size is True"),
        ("image", "spot_sigma_px", [1, 2, 3], "expected a number or"),
        ("image", "direct_beam", -1, "direct_beam is -1"),
        ("image", "rotation_deg", [0, 400], "rotation_deg is 400"),
        ("image", "repeats", 0, "repeats is 0"),
        ("image", "gamma", 0, "gamma is 0"),
        ("image", "bit_depth", 12, "bit_depth is 12, expected one of 8, 16"),
        ("output", "seed", -1, "seed is -1"),
        ("output", "format", "jpg", "format is 'jpg', expected one of 'png', 'shards'"),
        ("output", "shard_size", 0, "shard_size is 0"),
        ("output", "colour", 1, r"key in section \[output\] is 'colour', expected one of 'seed'"),
        ("outputs", "seed", 1, "section of the configuration is 'outputs', expected one of 'classes'"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(section, key, value, message):
    with pytest.raises(ValueError, match=message):
        plan_dataset(config_from_dict({section: {key: value}}))


def test_camera_lengths_beside_pixel_sizes_are_refused():
    with pytest.raises(ValueError, match=r"camera_lengths_mm is .*, expected none beside"):
        DatasetConfig(pixel_sizes_inv_angstrom=(0.01,), camera_lengths_mm=(400,))


def test_too_many_images_are_refused():
    config = DatasetConfig(
        voltages_kv=tuple(range(100, 300)), camera_lengths_mm=tuple(range(300, 500)), repeats=100
    )
    with pytest.raises(ValueError, match="makes 3200000000 images, expected 1 to 100000000"):
        plan_dataset(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed = [", "not TOML"), ("seed = 1", "section of the configuration is 'seed'"), ("image = 3", "expected a section")],
)  # fmt: skip
def test_wrong_files_are_named(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_config(path)
    assert "mine.toml" in str(error.value)


def test_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(ValueError, match="expected a readable TOML file or one of article, quick"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="expected a readable TOML file"):
        load_config(tmp_path)
