"""One training by several processes, and two that want one folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from support.training import config

from napari_sadp.errors import CheckpointError
from napari_sadp.models.resnet import build_resnet
from napari_sadp.models.train import train
from napari_sadp.models.workers import Workers


def test_processes_without_a_common_folder_are_refused(monkeypatch, tmp_path):
    # they agree that the folder is free, and not on where the run stands
    monkeypatch.setattr(Workers, "agree", lambda _, value, device: value == 1)
    with pytest.raises(CheckpointError, match="expected one folder that all machines share"):
        next(train(config(), tmp_path))


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
