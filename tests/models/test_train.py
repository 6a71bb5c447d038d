"""A training from its start to its weights, stopped and resumed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from support.training import SMALL, config

from napari_sadp.errors import CheckpointError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.conversions import convert_pattern
from napari_sadp.identify import classify_geometry, combine_results
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models import sources
from napari_sadp.models import train as trainer
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.registry import WEIGHTS_VARIABLE
from napari_sadp.models.train import train
from napari_sadp.models.weights import load_weights, read_card
from napari_sadp.samples import simulated_sample


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
