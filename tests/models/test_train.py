from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from napari_sadp.errors import CheckpointError
from napari_sadp.models import train as trainer
from napari_sadp.models.train import TrainConfig, train
from napari_sadp.models.weights import load_weights

SMALL = {
    "groups": (225, 229),
    "size": 32,
    "crystals_per_behaviour": 1,
    "batch_size": 8,
    "validation_samples": 40,
}


def config(**changes):
    return TrainConfig(**(SMALL | {"samples": 32, "device": "cpu", "name": "tiny"} | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, list(train(config(), folder))


def test_a_run_ends_with_weights_that_load(finished):
    folder, steps = finished
    last = steps[-1]
    assert last.stage == "done"
    assert last.samples == 32
    assert [s.stage for s in steps][:2] == ["crystals to train", "crystals to validate"]
    network, card, scheme = load_weights(last.weights)
    assert card.recipe["seed"] == 0
    assert 0 <= card.metrics["accuracy_visible_class"] <= 1
    assert card.metrics["validation_patterns"] == 40
    assert len(scheme) == network.fc.out_features
    assert (folder / "metrics.csv").read_text().startswith("samples,seconds,loss,accuracy")


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
    ],
)
def test_wrong_settings_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        config(**change)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    code = (
        "from napari_sadp.models.train import TrainConfig, train\n"
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
