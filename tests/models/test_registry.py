"""Networks by name: added, listed, used, removed; what cannot be used is refused before it is copied."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from napari_sadp.cli import main
from napari_sadp.errors import CheckpointError
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.registry import (
    BUNDLED,
    PACKAGED,
    WEIGHTS_VARIABLE,
    add_weights,
    bundled_path,
    describe_weights,
    find_weights,
    list_weights,
    remove_weights,
    weights_folder,
)
from napari_sadp.models.resnet import build_resnet
from napari_sadp.models.weights import WeightsCard, save_weights


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.manual_seed(1)
    scheme = build_scheme((225, 229))
    card = WeightsCard("mine", "resnet18", 48, scheme.groups, scheme.labels, scheme.version)
    return save_weights(tmp_path_factory.mktemp("run"), card, build_resnet("resnet18", len(scheme)))


def test_the_package_has_its_networks(own_folder):
    assert list(list_weights()) == [*PACKAGED]
    assert find_weights() == find_weights(BUNDLED) == bundled_path()
    assert not own_folder.exists()  # looking leaves no trace


def test_added_found_by_name_used_and_removed(trained, own_folder):
    assert add_weights(trained).size == 48
    assert list(list_weights()) == [*PACKAGED, "mine"]
    assert find_weights("mine") == own_folder / "mine.safetensors"
    probabilities = load_classifier("mine", "cpu").probabilities(np.zeros((1, 48, 48), np.float32))
    assert probabilities.shape == (1, len(build_scheme((225, 229))))
    with pytest.raises(ValueError, match="name is 'mine', which there is already"):
        add_weights(trained)
    add_weights(trained, "other")
    remove_weights("mine")
    assert sorted(path.name for path in own_folder.iterdir()) == ["other.json", "other.safetensors"]


def test_a_network_of_ones_own_may_be_replaced(trained, own_folder):
    add_weights(trained, "mine")
    before = (own_folder / "mine.json").stat().st_mtime_ns
    with pytest.raises(ValueError, match="name is 'mine', which there is already"):
        add_weights(trained, "mine")
    add_weights(trained, "mine", replace=True)
    assert (own_folder / "mine.json").stat().st_mtime_ns > before
    for name in PACKAGED:
        with pytest.raises(ValueError, match=f"name is '{name}', which there is already"):
            add_weights(trained, name, replace=True)


def test_what_cannot_be_used_is_not_taken_in(trained, tmp_path, own_folder):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(trained.read_bytes()[:-100])
    damaged.with_suffix(".json").write_text(trained.with_suffix(".json").read_text())
    with pytest.raises(CheckpointError, match="damaged"):
        add_weights(damaged)
    for name in ("", "a/b", ".hidden", "c:d"):
        with pytest.raises(ValueError, match="expected one that a file can have"):
            add_weights(trained, name)
    assert not own_folder.exists()


def test_unknown_names_say_which_there_are(trained):
    add_weights(trained)
    with pytest.raises(CheckpointError, match=f"no network of that name: {', '.join(PACKAGED)}, mine"):
        find_weights("yours")
    with pytest.raises(ValueError, match="name is 'yours', expected one of 'mine'"):
        remove_weights("yours")
    for name in PACKAGED:
        with pytest.raises(ValueError, match=f"name is '{name}'"):
            remove_weights(name)


def test_a_damaged_card_is_listed_as_such(trained, own_folder, capsys):
    add_weights(trained)
    (own_folder / "mine.json").write_text("{}")
    assert isinstance({n: c for n, _, c in describe_weights()}["mine"], CheckpointError)
    assert main(["weights"]) == 0
    assert "mine: " in capsys.readouterr().out


def test_terminal(trained, capsys, monkeypatch):
    assert main(["weights", "--add", str(trained), "--name", "fine", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [*PACKAGED, "fine"]
    assert rows[-1]["groups"] == [225, 229]
    assert main(["weights", "--remove", "fine"]) == 0
    assert "fine" not in capsys.readouterr().out
    assert main(["weights", "--name", "x"]) == 2
    assert "--name is 'x'" in capsys.readouterr().err
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    assert "napari-sadp" in str(weights_folder())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"source": "stream"}, "25.0 % of the visible classes of held-out formulas"),
        ({"source": "stream", "split": "type"}, "25.0 % of the visible classes of held-out structure types"),
        ({"source": "data/article", "trained_on": [{"split": "formula", "own": ""}]},
         "50.0 % of the classes by symmetry of held-out formulas"),
        ({"source": "data/article"}, "50.0 % of the classes by symmetry of held-out structures"),
    ],
)  # fmt: skip
def test_an_accuracy_is_said_with_what_it_is_of(trained, capsys, recipe, words):
    """Cards of before give data sets a visible class too."""
    content = json.loads(trained.with_suffix(".json").read_text())
    content["recipe"] = recipe
    content["metrics"] = {"accuracy_visible_class": 0.25, "accuracy_symmetry_class": 0.5}
    add_weights(trained)
    (weights_folder() / "mine.json").write_text(json.dumps(content))
    assert main(["weights"]) == 0
    assert words in capsys.readouterr().out
    assert main(["weights", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)[-1]
    assert about["truth"] == ("visible" if recipe["source"] == "stream" else "symmetry")
    assert (about["accuracy_visible_class"] is None) == (about["truth"] == "symmetry")
