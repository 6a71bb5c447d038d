"""Settings of a training, and the files that hold them."""

from __future__ import annotations

import pytest
from support.training import config

from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.recipe import TrainConfig, load_recipe, shipped_recipes
from napari_sadp.models.registry import BUNDLED


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"architecture": "vgg"}, "architecture"),
        ({"size": 8}, "size"),
        ({"minutes": 0}, "minutes"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"optimiser": "magic"}, "optimiser is 'magic', expected one of 'adamw', 'sgd'"),
        ({"schedule": "magic"}, "schedule is 'magic'"),
        ({"dynamical_nm": (50, 5)}, "dynamical_nm"),
        ({"samples": 0}, "samples"),
        ({"parts": 3}, "parts is 3, expected a divisor of batch_size 8"),
        ({"parts": 8}, "parts is 8"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"validations": 0}, "validations"),
        ({"outlier_images": 3}, "outlier_images is 3, expected 0"),
        ({"split": "colour"}, "split is 'colour', expected one of 'formula', 'type'"),
        ({"precision": "quarter"}, "precision"),
        ({"conversion": "drawn"}, "conversion is 'drawn', expected one of 'aligned', 'article', 'rendered'"),
        ({"seed": -1}, "seed is -1, expected an integer from 0"),
        ({"size": 96.5}, "size is 96.5, expected an integer from 32 to 1024"),
        ({"batch_size": True}, "batch_size is True"),
        ({"name": "a/b"}, "name is 'a/b', expected one that a file can have"),
        ({"name": "best"}, "name is 'best', expected one that no file of a run folder has"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes is 0"),
        ({"groups": ()}, r"groups is \(\), expected cubic space groups"),
        ({"groups": (225, 12)}, "groups is 12, expected an integer from 195 to 230"),
        ({"groups": (225, 225)}, "expected each one once"),
        ({"zones": ()}, r"zones is \(\), expected zone axes"),
        ({"zones": ((0, 0, 0),)}, r"zone is \(0, 0, 0\)"),
        ({"zones": ((0, 0, 1), (0, 0, 2))}, "expected each one once"),
        ({"dynamical_nm": 20}, "dynamical_nm is 20, expected two thicknesses"),
        ({"dynamical_nm": (20,)}, "dynamical_nm is"),
    ],
)
def test_wrong_settings_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        config(**change)


def test_settings_that_mean_the_same_are_the_same(tmp_path):
    assert config(groups=(229, 225), size=32.0, dynamical_nm=[]) == config()
    assert config(zones=[[0, 0, 2], [0, 1, 1]]).zones == ((0, 0, 1), (0, 1, 1))
    (tmp_path / "a.toml").write_text("[network]\nzones = [[0, 1, 2]]\n[data]\ndynamical_nm = []\n")
    recipe = load_recipe(tmp_path / "a.toml")
    assert (recipe.dynamical_nm, recipe.zones) == (None, ((0, 1, 2),))


def test_shipped_recipes():
    gpu = tuple(sorted(f"gpu_{name}" for name in ARCHITECTURES))
    assert shipped_recipes() == ("article", "default", *gpu, "rendered")
    for name in ARCHITECTURES:
        recipe = load_recipe(f"gpu_{name}")
        assert (recipe.architecture, recipe.minutes, recipe.precision) == (name, 10, "half")
    article = load_recipe("article")
    # 25 epochs of 68 480 images, a tenth of the rate every 7
    assert (article.samples, article.step_samples) == (25 * 68_480, 7 * 68_480)
    assert (article.optimiser, article.learning_rate, article.momentum) == ("sgd", 1e-3, 0.9)
    assert (article.size, article.architecture, article.initial) == (224, "resnet101", "imagenet")
    assert load_recipe("default", seed=3) == TrainConfig(seed=3)
    rendered = load_recipe("rendered")
    assert (rendered.conversion, rendered.initial, rendered.outlier_images) == ("rendered", BUNDLED, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[network]\nsize = 8", "size is 8"),
        ("[network]\ncolour = 8", "key in section .network. is 'colour'"),
        ("[networks]\nsize = 96", "section of the recipe is 'networks'"),
        ("network = 3", "expected a section"),
        ("[network", "not TOML"),
        ("[network]\ninitial = 5", "initial is 5, expected a text"),
        ("[data]\nsource = 5", "source is 5, expected a text"),
        ("[run]\ndevice = 0", "device is 0, expected a text"),
        ("[schedule]\nlearning_rate = 'fast'", "learning_rate is 'fast'"),
    ],
)
def test_wrong_recipes_are_named(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "a.toml")
    with pytest.raises(ValueError, match=r"nowhere\.toml.*article, default"):
        load_recipe("nowhere.toml")
