"""``napari-sadp dataset`` as a user meets it: killed, interrupted, resumed, and given nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_sadp.cli import main
from napari_sadp.dataset.read import open_dataset

CONFIG = """
[classes]
groups = [221, 229]
zones = [[0, 0, 1], [0, 1, 1], [0, 1, 3]]
[structures]
per_group = 5
max_atoms = 20
validation_share = 0.2
[microscope]
voltages_kv = [100, 200]
camera_lengths_mm = [300, 400]
camera_pixel_um = 300
[image]
size = 48
spot_sigma_px = [0.8, 1.2]
repeats = {repeats}
[output]
seed = 3
format = "{format}"
shard_size = 8
"""


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_config(folder: Path, *, kind: str = "png", repeats: int = 1) -> str:
    path = folder / "tiny.toml"
    path.write_text(CONFIG.format(format=kind, repeats=repeats))
    return str(path)


def start(config: str, folder: Path, workers: int) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "napari_sadp.cli",
        "dataset",
        config,
        "-o",
        str(folder),
        "--workers",
        str(workers),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def wait_for_parts(folder: Path, process: subprocess.Popen, n: int) -> None:
    """Wait until chunks are written but not all, as found on the disk."""
    end = time.monotonic() + 120
    while len(list(folder.glob(".parts/[0-9]*.csv"))) < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


def processes_with(text: str) -> list[int]:
    """Return the processes whose environment or command holds a text; Linux only."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("kind", "workers"), [("png", 1), ("png", 2), ("shards", 2)])
def test_killed_and_resumed_byte_for_byte(tmp_path, capsys, monkeypatch, kind, workers):
    config = write_config(tmp_path, kind=kind, repeats=10)
    marker = f"SADP_TEST_{os.getpid()}_{kind}_{workers}"
    monkeypatch.setenv(marker, "1")
    process = start(config, tmp_path / "killed", workers)
    wait_for_parts(tmp_path / "killed", process, 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "manifest.csv").exists()
    if Path("/proc/self/environ").exists():  # no worker outlives its parent
        end = time.monotonic() + 20
        while processes_with(marker) and time.monotonic() < end:
            time.sleep(0.05)
        assert not processes_with(marker)
    monkeypatch.delenv(marker)
    assert main(["dataset", config, "-o", str(tmp_path / "killed"), "--workers", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_images"] == 1200
    assert 0 < found["images_made"] <= 1200 - 5 * 8
    assert main(["dataset", config, "-o", str(tmp_path / "whole"), "--workers", "1"]) == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert len(open_dataset(tmp_path / "killed")) == 1200


def test_ctrl_c_leaves_what_can_go_on(tmp_path, capsys):
    config = write_config(tmp_path, repeats=20)
    process = start(config, tmp_path / "set", 2)
    wait_for_parts(tmp_path / "set", process, 4)
    os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after" in errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert main(["dataset", config, "-o", str(tmp_path / "set"), "--workers", "1"]) == 0
    assert "2400 images of 10 structures" in capsys.readouterr().out
    assert len(open_dataset(tmp_path / "set")) == 2400


def test_json_counts_parts_and_classes(tmp_path, capsys):
    config, folder = write_config(tmp_path), str(tmp_path / "set")
    assert main(["dataset", config, "-o", folder, "--workers", "1", "--json", "--format", "shards"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_images"] == found["images_made"] == 10 * 3 * 4
    assert found["images"] == {"train": 96, "validation": 24}
    assert found["structures"] == {"train": 8, "validation": 2}
    reader = open_dataset(folder)
    assert found["format"] == "shards"
    for index, (label, counts) in enumerate(found["classes"].items()):
        for part, numbers in reader.splits.items():
            assert counts[part] == int((reader.labels[numbers] == index).sum())
        assert reader.class_names[index] == label
    assert main(["dataset", config, "-o", folder, "--format", "shards"]) == 0
    assert "was complete" in capsys.readouterr().out


def test_another_configuration_is_refused(tmp_path, capsys):
    config, folder = write_config(tmp_path), str(tmp_path / "set")
    assert main(["dataset", config, "-o", folder, "--workers", "1"]) == 0
    before = tree(tmp_path / "set")
    write_config(tmp_path, repeats=2)
    assert main(["dataset", config, "-o", folder, "--workers", "1"]) == 2
    assert "begun with another configuration (repeats); expected a new folder" in capsys.readouterr().err
    assert tree(tmp_path / "set") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("size = 48", "size = -48"), "tiny.toml: size is -48, expected an integer from 16 to 4096"),
        (("[100, 200]", '["200"]'), "voltages_kv is '200', expected a number in (10, 3000] kV"),
        (("repeats", "repeat"), "key in section [image] is 'repeat', expected one of"),
        (("[image]", "[image"), "not TOML"),
        (("per_group = 5", "per_group = 5000"), "per_group is 5000, which asks for 4000 training structures"),
    ],
)
def test_hostile_configurations_end_at_once(tmp_path, capsys, change, message):
    path = Path(write_config(tmp_path))
    path.write_text(path.read_text().replace(*change))
    assert main(["dataset", str(path), "-o", str(tmp_path / "set")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_unknown_name_and_wrong_workers(tmp_path, capsys):
    assert main(["dataset", "artcle", "-o", str(tmp_path / "set")]) == 2
    assert "expected a readable TOML file or one of article, quick" in capsys.readouterr().err
    assert main(["dataset", "quick", "-o", str(tmp_path / "set"), "--workers", "0"]) == 2
    assert "workers is 0" in capsys.readouterr().err


def test_help_names_units_and_shipped_configurations(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["dataset", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in (
        "kV",
        "mm",
        "um",
        "1/Angstrom",
        "nm",
        "degrees",
        "article",
        "quick",
        "--workers",
        "--scheduler",
    ):
        assert word in text
