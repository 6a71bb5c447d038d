from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from napari_sadp.dataset.build import build_dataset
from napari_sadp.dataset.config import DatasetConfig
from napari_sadp.dataset.disk_stream import DiskStream
from napari_sadp.dataset.read import open_dataset
from napari_sadp.errors import CheckpointError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.conversions import convert_pattern
from napari_sadp.identify import classify_geometry, combine_results
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models import sources
from napari_sadp.models import train as trainer
from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.recipe import TrainConfig, load_recipe, shipped_recipes
from napari_sadp.models.registry import BUNDLED, WEIGHTS_VARIABLE
from napari_sadp.models.resnet import build_resnet, load_imagenet
from napari_sadp.models.run import TrainingRun
from napari_sadp.models.train import train
from napari_sadp.models.weights import load_weights, read_card
from napari_sadp.models.workers import Workers
from napari_sadp.samples import simulated_sample

AXES = ((0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2))
SMALL = {
    "groups": (225, 229),
    "zones": AXES,
    "size": 32,
    "crystals_per_behaviour": 1,
    "batch_size": 8,
    "validation_samples": 24,
    "validations": 2,
    "outlier_images": 0,
    "dynamical_nm": None,
}


def config(**changes):
    return TrainConfig(**(SMALL | {"samples": 32, "device": "cpu", "name": "tiny"} | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, list(train(config(), folder))


@pytest.fixture(scope="module")
def silicon_geometry():
    return analyse_pattern(simulated_sample("Si", 227, (0, 1, 1), seed=3))


def test_a_run_ends_with_weights_that_load(finished):
    folder, steps = finished
    last = steps[-1]
    assert last.stage == "done"
    assert last.samples == 32
    stages = list(dict.fromkeys(s.stage for s in steps))
    assert stages == ["crystals to train", "crystals to validate", "train", "validate", "done"]
    network, card, scheme = load_weights(last.weights)
    assert card.recipe["seed"] == 0
    assert 0 <= card.metrics["accuracy_visible_class"] <= 1
    assert card.metrics["validation_patterns"] == 24
    assert len(scheme) == network.fc.out_features
    assert card.data.startswith("Patterns by single scattering of ")
    assert "Space groups 225, 229 on 4 zone axes alone" in card.limits
    assert "has no outlier score" in card.limits
    assert "It names the class that is visible" in card.limits
    assert card.accuracy == card.metrics["accuracy_visible_class"]
    assert (folder / "metrics.csv").read_text().startswith("samples,seconds,loss,accuracy")
    lines = (folder / "validation.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["samples", "16", "32"]
    assert last.best_accuracy == pytest.approx(max(float(line.split(",")[3]) for line in lines[1:]), abs=1e-4)


def test_a_run_starts_from_the_weights_of_another(finished, tmp_path):
    weights = finished[1][-1].weights
    folder = tmp_path / "next"
    run = train(config(initial=str(weights), dynamical_nm=(10.0, 20.0), crystals_per_behaviour=1), folder)
    for step in run:
        if step.stage == "train":
            break
    run.close()
    assert (folder / "spots_training.npz").stat().st_size > 1000
    with pytest.raises(CheckpointError, match="expected resnet18 for the"):
        list(train(config(initial=str(weights), groups=(221, 225)), tmp_path / "other"))
    # the library is taken from the folder when the run goes on
    steps = list(train(config(initial=str(weights), dynamical_nm=(10.0, 20.0)), folder, resume=True))
    stages = [step.stage for step in steps]
    assert stages.count("crystals to train") == 1
    assert stages[-1] == "done"
    recipe = read_card(steps[-1].weights).recipe
    assert recipe["images_before"] == finished[1][-1].samples
    assert weights.name in recipe["initial"]


def test_a_run_starts_from_a_network_by_its_name(finished, tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(finished[0]))
    *_, last = train(config(initial="tiny"), tmp_path)
    assert read_card(last.weights).recipe["initial"].startswith("tiny.safetensors, sha256")
    with pytest.raises(CheckpointError, match=r"no network of that name: .*tiny"):
        list(train(config(initial="tinier"), tmp_path / "other"))


@pytest.mark.parametrize("conversion", ["article", "rendered"])
def test_a_run_on_the_images_of_a_conversion(conversion, tmp_path, silicon_geometry):
    *_, last = train(config(conversion=conversion, outlier_images=10, groups=(225, 227)), tmp_path)
    network = load_classifier(last.weights, "cpu", views="turns")
    assert network.card.conversion == conversion
    # nodes that are drawn anew tell nothing of what else is in a pattern
    assert (network.outliers is None) == (conversion == "rendered")
    image = network.training_image(silicon_geometry)
    assert image.tolist() == convert_pattern(silicon_geometry, conversion, size=32).data.tolist()
    result = classify_geometry(silicon_geometry, network)
    assert result.used
    assert result.network.sum() == pytest.approx(1.0)


def test_a_network_for_other_zone_axes(finished, tmp_path, silicon_geometry):
    axes = ((0, 0, 1), (0, 1, 1), (0, 1, 5))
    *_, last = train(config(groups=(225, 227), zones=axes), tmp_path / "run")
    network = load_classifier(last.weights, "cpu")
    assert network.card.zones == network.scheme.zones == axes
    assert len(network.scheme) == len(build_scheme((225, 227), axes)) < len(build_scheme((225, 227)))
    found = combine_results([classify_geometry(silicon_geometry, network)])
    assert found.n_used == 1
    assert {axis for axis, _ in found.zone_axes(0)} <= set(axes)
    with pytest.raises(
        CheckpointError, match=r"2 groups on 4 axes, expected resnet18 for the .* 2 groups on 3 axes"
    ):
        list(train(config(initial=str(finished[1][-1].weights), zones=axes), tmp_path / "other"))
    # a card that names no axes at all
    content = json.loads(last.weights.with_suffix(".json").read_text())
    content["zones"] = [[0, 0, 0]]
    last.weights.with_suffix(".json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="its card names no class scheme"):
        load_weights(last.weights)


def test_the_best_weights_are_kept(finished, tmp_path, monkeypatch):
    accuracies = iter([(1.0, 0.9), (2.0, 0.3)])
    monkeypatch.setattr(trainer, "quick_validation", lambda *_: next(accuracies))
    *_, last = train(config(average=0.0), tmp_path)
    assert last.best_accuracy == 0.9
    written, _, _ = load_weights(last.weights)
    kept = load_file(tmp_path / "best.safetensors")
    end = load_file(tmp_path / "checkpoint.safetensors")
    key = "layer4.1.conv2.weight"
    assert torch.allclose(written.state_dict()[key], kept[key], atol=1e-3)
    assert not torch.allclose(kept[key], end[f"average.{key}"], atol=1e-5)
    # a run that is done is not validated again when it is finished once more
    *_, again = train(config(average=0.0), tmp_path, resume=True)
    assert again.best_accuracy == 0.9
    (tmp_path / "best.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not the weights of this run"):
        list(train(config(average=0.0), tmp_path, resume=True))


def test_a_run_that_is_stopped_writes_its_best_weights(tmp_path):
    asked = []
    *_, last = train(config(samples=8000), tmp_path, stop=lambda: asked.append(0) or len(asked) > 2)
    assert last.stage == "done"
    assert last.samples == 16
    assert load_weights(last.weights)[1].recipe["images_seen"] == 16


def test_a_run_of_an_older_version_goes_on(finished, tmp_path):
    """Without counts of validation in its checkpoint, and without the best weights."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = finished[0] / "checkpoint.safetensors"
    with safe_open(source, framework="pt") as stream:
        metadata = stream.metadata()
    metadata["counters"] = metadata["counters"].replace('"best"', '"other"')
    save_file(load_file(source), tmp_path / "checkpoint.safetensors", metadata)
    *_, last = train(config(), tmp_path, resume=True)
    assert last.samples == 32
    assert last.best_accuracy == pytest.approx(finished[1][-1].best_accuracy, abs=0.3)


def test_same_seed_same_weights(finished, tmp_path):
    again = list(train(config(), tmp_path))[-1]
    first, second = load_file(finished[1][-1].weights), load_file(again.weights)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_closing_the_generator_saves_and_resuming_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.time, "monotonic", _ticking(2.0))  # every step is shown
    run = train(config(samples=64), tmp_path)
    for step in run:
        if step.samples >= 16:
            break
    run.close()
    resumed = list(train(config(samples=64), tmp_path, resume=True))
    assert resumed[0].samples == 16
    assert resumed[-1].samples == 64


def test_a_finished_run_that_goes_on_writes_the_same_weights(tmp_path):
    """As after a kill in its last stage; the outlier score included."""
    scored = config(outlier_images=10)
    *_, last = train(scored, tmp_path)
    first = last.weights.read_bytes()
    *_, again = train(scored, tmp_path, resume=True)
    assert any(key.startswith("outliers.") for key in load_file(again.weights))
    assert again.weights.read_bytes() == first


def test_curves_of_a_killed_run_go_on_where_its_checkpoint_is(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.time, "monotonic", _ticking(2.0))  # every step is shown
    run = train(config(samples=64), tmp_path)
    for step in run:
        if step.samples >= 16:
            break
    run.close()
    # what it wrote between its checkpoint and the kill, the last line half
    for name in ("metrics.csv", "validation.csv"):
        with (tmp_path / name).open("a", newline="") as stream:
            stream.write("24,3.0,1.0,0.5\r\n32,4.0,1")
    *_, last = train(config(samples=64), tmp_path, resume=True)
    assert last.samples == 64
    rows = {name: (tmp_path / name).read_text().splitlines() for name in ("metrics.csv", "validation.csv")}
    assert [row.split(",")[0] for row in rows["metrics.csv"]] == ["samples", *map(str, range(8, 65, 8))]
    assert [row.split(",")[0] for row in rows["validation.csv"]] == ["samples", "32", "64"]
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    assert b"\x10\x11\x3a\x02\x08\x01" in second.read_bytes()  # forget all from image 17 on
    assert b"\x3a\x02\x08\x01" not in first.read_bytes()


def test_a_run_killed_before_its_first_checkpoint_begins_its_curves_anew(finished, tmp_path):
    (tmp_path / "metrics.csv").write_text("samples,seconds,loss,accuracy\n64,1.0,4.0000,0.0000\n")
    *_, last = train(config(), tmp_path, resume=True)
    samples = [int(row.split(",")[0]) for row in (tmp_path / "metrics.csv").read_text().splitlines()[1:]]
    assert samples == sorted(set(samples))
    assert samples[-1] == last.samples


def test_what_the_budget_does_not_count_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.time, "monotonic", _ticking(0.5))
    whole = list(train(config(samples=None, minutes=0.2, outlier_images=10, validations=3), tmp_path))
    steps = [step for step in whole if step.stage == "train"]
    # a step takes one tick, half a second
    assert steps[-1].seconds == pytest.approx(12.0)
    assert all(step.seconds == pytest.approx(0.5 * step.samples / 8) for step in steps)
    beside = [step.beside for step in whole]
    assert beside == sorted(beside)
    assert beside[-1] > steps[-1].beside > 0
    # an estimate as soon as the first validation was timed: one tick for 24 images
    known = [step for step in steps if step.validated_at]
    assert all(step.ahead != step.ahead for step in steps if not step.validated_at)
    assert known[0].ahead == pytest.approx(0.5 / 24 * (2 * 24 + 24 + 2 * 10))
    assert steps[-1].ahead == pytest.approx(0.5 / 24 * (24 + 2 * 10))


def _ticking(step):
    clock = iter(range(10**9))
    return lambda: step * next(clock)


def test_a_folder_with_a_checkpoint_is_not_overwritten(finished):
    with pytest.raises(CheckpointError, match="resume it or name another folder"):
        next(train(config(), finished[0]))


def test_resuming_with_other_settings_is_refused(finished):
    with pytest.raises(CheckpointError, match="batch_size=8, this run has 4"):
        next(train(config(batch_size=4), finished[0], resume=True))


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint of a training run"):
        next(train(config(), tmp_path, resume=True))


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


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((195, 225), "groups holds 195, for which the catalogue has no structure to train on"),
        ((208,), "groups holds 208, for which the catalogue has no structure that is held out"),
    ],
)
def test_groups_that_cannot_be_learnt_are_named(groups, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        list(train(config(groups=groups), tmp_path))
    # nothing is left that the next run would stumble on
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_run_goes_on_without_the_weights_it_started_from(finished, tmp_path):
    start = tmp_path / "start.safetensors"
    for suffix in (".safetensors", ".json"):
        start.with_suffix(suffix).write_bytes(finished[1][-1].weights.with_suffix(suffix).read_bytes())
    run = train(config(initial=str(start)), tmp_path / "run")
    for step in run:
        if step.stage == "train":
            break
    run.close()
    start.unlink()
    start.with_suffix(".json").unlink()
    *_, last = train(config(initial=str(start)), tmp_path / "run", resume=True)
    recipe = read_card(last.weights).recipe
    assert recipe["initial"].startswith("start.safetensors, sha256")
    assert recipe["images_before"] == finished[1][-1].samples


def test_a_run_does_not_go_on_with_structures_of_another_catalogue(tmp_path, monkeypatch):
    """Its card could no longer say which structures it may have seen."""
    *_, last = train(config(), tmp_path)
    assert read_card(last.weights).recipe["trained_on"] == [{"split": "formula", "own": ""}]
    monkeypatch.setattr(sources, "own_catalogue_sha256", lambda: "ab" * 32)
    with pytest.raises(CheckpointError, match="own catalogue none; this run has formula, abababababab"):
        list(train(config(samples=64), tmp_path, resume=True))


def test_what_the_initial_weights_saw_is_remembered(finished, tmp_path):
    card = read_card(finished[1][-1].weights)
    start = tmp_path / "start.safetensors"
    start.write_bytes(finished[1][-1].weights.read_bytes())
    content = asdict(card)
    content["recipe"]["trained_on"] = [{"split": "type", "own": ""}]
    start.with_suffix(".json").write_text(json.dumps(content))
    *_, last = train(config(initial=str(start)), tmp_path / "run")
    known = read_card(last.weights).recipe["trained_on"]
    assert known == [{"split": "type", "own": ""}, {"split": "formula", "own": ""}]


def test_processes_without_a_common_folder_are_refused(monkeypatch, tmp_path):
    # they agree that the folder is free, and not on where the run stands
    monkeypatch.setattr(Workers, "agree", lambda _, value, device: value == 1)
    with pytest.raises(CheckpointError, match="expected one folder that all machines share"):
        next(train(config(), tmp_path))


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    code = (
        "from napari_sadp.models.recipe import TrainConfig\nfrom napari_sadp.models.train import train\n"
        f"config = TrainConfig(**{SMALL!r}, samples=100000, device='cpu', name='tiny', checkpoint_minutes=0.001)\n"
        f"for step in train(config, {str(tmp_path)!r}): pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    checkpoint = tmp_path / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1.0)
    process.kill()
    process.wait()
    resumed = next(train(config(samples=100000), tmp_path, resume=True))
    assert resumed.samples > 0
    assert resumed.samples % 8 == 0


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


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    data = DatasetConfig(
        groups=(225, 229), per_group=2, max_atoms=8, validation_share=0.4, size=48, format="shards",
        pixel_sizes_inv_angstrom=(0.04,),
    )  # fmt: skip
    *_, last = build_dataset(data, folder)
    assert last.done == last.total
    return folder


def test_the_recipe_of_the_article_on_a_small_data_set(images, tmp_path):
    changes = {
        "source": str(images), "size": 40, "samples": 48, "step_samples": 16, "batch_size": 8, "initial": "",
        "architecture": "resnet18", "groups": (225, 229), "device": "cpu", "validations": 1,
    }  # fmt: skip
    run = train(load_recipe("article", **changes), tmp_path)
    for step in run:
        if step.samples >= 16:
            break
    run.close()
    *_, last = train(load_recipe("article", **changes), tmp_path, resume=True)
    _, card, _ = load_weights(last.weights)
    assert card.conversion == "article"
    assert card.size == 40
    # its labels are those by symmetry: of the visible class nothing is known
    assert {key for key in card.metrics if key.endswith("class")} == {"accuracy_symmetry_class"}
    assert card.accuracy == card.metrics["accuracy_symmetry_class"]
    assert "It names the class by symmetry" in card.limits
    assert "Measured on formulas that were held out." in card.limits
    with pytest.raises(ValueError, match="expected the 60"):
        list(train(load_recipe("article", **(changes | {"groups": TrainConfig().groups})), tmp_path / "b"))


def test_a_disk_stream_shows_every_image_once_in_an_epoch(images):
    reader = open_dataset(images)
    stream = DiskStream(reader, "train", size=40, seed=1)
    rows = torch.cat([stream.draw(8)[2] for _ in range(2 * len(stream) // 8)])
    one, two = rows[: len(stream)], rows[len(stream) : 2 * len(stream)]
    assert sorted(one.tolist()) == sorted(two.tolist()) == reader.splits["train"].tolist()
    assert one.tolist() != two.tolist()
    # a run that goes on sees what it would have seen
    later = DiskStream(reader, "train", size=40, seed=1)
    later.seek(len(stream))
    assert later.draw(8)[2].tolist() == two[:8].tolist()
    held_out = DiskStream(reader, "validation", size=40)
    formulas = [reader.rows[int(row)]["formula"] for row in held_out.draw(6)[2]]
    assert len(set(formulas)) > 1  # a few images are of all structures
    held_out.seek(0)
    crops, labels, rows = held_out.draw(4)
    middle = reader[int(rows[0])][0][4:44, 4:44]
    assert torch.equal(crops[0, 0], torch.from_numpy(middle.copy()))
    assert labels.tolist() == reader.labels[rows.numpy()].tolist()
    with pytest.raises(ValueError, match="size is 64, expected at most that of the images, 48 px"):
        DiskStream(reader, "train", size=64)


def test_imagenet_weights_without_a_network_say_what_to_do(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"cannot download .*resnet18.*from a copy of that file"):
        load_imagenet(build_resnet("resnet18", 5), "resnet18")


def test_imagenet_weights_come_from_a_file_too(monkeypatch, tmp_path):
    import torchvision.models as tvm

    torch.manual_seed(0)
    coloured = tvm.resnet18().state_dict()
    torch.save(coloured, tmp_path / "resnet18-0.pth")
    network = build_resnet("resnet18", 5)
    load_imagenet(network, "resnet18", tmp_path / "resnet18-0.pth")
    assert torch.equal(network.layer4[1].conv2.weight, coloured["layer4.1.conv2.weight"])
    run = TrainingRun(config(initial=str(tmp_path / "resnet18-0.pth")), build_scheme((225, 229)), tmp_path)
    assert torch.equal(run.network.layer4[1].conv2.weight, coloured["layer4.1.conv2.weight"])
    assert run.origin == {"initial": "resnet18-0.pth", "images_before": 0, "trained_on": []}
    with pytest.raises(CheckpointError, match=r"resnet18-0\.pth are not those of resnet34"):
        load_imagenet(build_resnet("resnet34", 5), "resnet34", tmp_path / "resnet18-0.pth")
    with pytest.raises(CheckpointError, match=r"expected a readable file of torchvision's weights"):
        load_imagenet(build_resnet("resnet18", 5), "resnet18", tmp_path / "missing.pth")


class _Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm_was_done",)


@pytest.mark.parametrize("content", ["pickle", "page"])
def test_a_file_with_something_else_in_it_is_refused_and_not_run(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resnet18-0.pth"
    if content == "pickle":
        torch.save({"conv1.weight": _Harmful()}, path)
    else:
        path.write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match="holds no weights of torchvision"):
        load_imagenet(build_resnet("resnet18", 5), "resnet18", path)
    assert not (tmp_path / "harm_was_done").exists()


def test_imagenet_weights_see_grey_images_as_they_were(monkeypatch):
    import torchvision.models as tvm

    torch.manual_seed(0)
    coloured = tvm.resnet18().eval()
    monkeypatch.setattr(tvm.ResNet18_Weights, "get_state_dict", lambda *_, **__: coloured.state_dict())
    network = build_resnet("resnet18", 5).eval()
    head = network.fc.weight.clone()
    load_imagenet(network, "resnet18")
    grey = torch.rand(1, 1, 64, 64)
    coloured.fc = network.fc
    with torch.inference_mode():
        assert torch.allclose(network(grey), coloured(grey.expand(-1, 3, -1, -1)), atol=1e-4)
    assert torch.equal(network.fc.weight, head)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    options = [
        "--groups", "225,229", "--zones", "001,011,111", "--size", "32", "--crystals", "1", "--batch-size", "8", "--parts", "2", "--samples", "32",
        "--name", "tiny", "--device", "cpu", "--recipe", str(tmp_path / "small.toml"),
    ]  # fmt: skip
    # Adam would magnify the rounding of gradients that are nearly zero
    recipe = "[data]\nvalidation_samples = 16\noutlier_images = 20\ndynamical_nm = [20, 20]\n[schedule]\noptimiser = 'sgd'\nlearning_rate = 0.01\n"
    (tmp_path / "small.toml").write_text(recipe)
    weights, scores = [], []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for count in (1, 2):
        folder = tmp_path / f"run{count}"
        launch = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
        )
        done = subprocess.run(
            [sys.executable, *launch, "-m", "napari_sadp.cli", "train", "--out", str(folder), *options],
            capture_output=True, text=True, env=environment, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("weights:") == 1
        weights.append(load_file(folder / "checkpoint.safetensors"))
        scores.append(load_file(folder / "tiny.safetensors"))
    one, two = weights
    assert one.keys() == two.keys()
    # sums in another order
    numbers = [k for k in one if one[k].is_floating_point()]
    assert all(torch.allclose(one[k], two[k], atol=1e-4, rtol=1e-3) for k in numbers)
    # the images of the fit are the same too
    for part in ("outliers.whitening", "outliers.centres"):
        assert torch.allclose(
            scores[0][part], scores[1][part], atol=0.02 * float(scores[0][part].abs().max())
        )
    torch.manual_seed(0)
    start = build_resnet("resnet18", len(one["network.fc.bias"]))
    moved = one["network.layer4.1.conv2.weight"] - start.state_dict()["layer4.1.conv2.weight"]
    assert float(moved.abs().max()) > 1e-3


def test_two_trainings_do_not_share_a_folder(tmp_path):
    first = train(config(samples=10_000), tmp_path)
    try:
        next(first)
        with pytest.raises(CheckpointError, match="another training writes there now"):
            next(train(config(), tmp_path, resume=True))
    finally:
        first.close()
    # whoever comes after it may go on
    second = train(config(), tmp_path, resume=True)
    assert next(second).samples == 0
    second.close()


def test_all_processes_end_where_the_first_finds_another_training(monkeypatch, tmp_path):
    monkeypatch.setattr(Workers, "agree", lambda *_: False)
    with pytest.raises(CheckpointError, match="another training writes there now"):
        next(train(config(), tmp_path))


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    from filelock import FileLock

    def refuse(self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    run = train(config(), tmp_path)
    with pytest.warns(UserWarning, match="knows no locks"):
        next(run)
    run.close()


def test_parts_that_processes_cannot_share_are_refused(monkeypatch, tmp_path):
    from napari_sadp.models import run
    from napari_sadp.models.workers import Workers

    monkeypatch.setattr(run, "join_workers", lambda device: (Workers(0, 2), device))
    with pytest.raises(ValueError, match="parts is 1, expected a multiple of the 2 processes"):
        next(train(config(), tmp_path))
