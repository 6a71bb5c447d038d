"""Architecture, weights on disk, inference, calibration."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_sadp.dataset.crystals import TrainedOn
from napari_sadp.errors import CheckpointError
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.calibrate import expected_calibration_error, fit_temperature
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.registry import PACKAGED, bundled_path
from napari_sadp.models.resnet import build_resnet, choose_device
from napari_sadp.models.sources import trained_on
from napari_sadp.models.weights import WeightsCard, load_weights, read_card, save_weights


@pytest.fixture(scope="module")
def card():
    scheme = build_scheme()
    return WeightsCard("test", "resnet18", 64, scheme.groups, scheme.labels, scheme.version, temperature=1.5)


@pytest.fixture(scope="module")
def saved(card, tmp_path_factory):
    torch.manual_seed(0)
    network = build_resnet("resnet18", 60).eval()
    return save_weights(tmp_path_factory.mktemp("weights"), card, network), network


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [("resnet18", 11.2), ("resnet34", 21.3), ("resnet50", 23.6), ("resnet101", 42.6), ("resnet152", 58.3)],
)
def test_parameters_are_those_of_the_article(architecture, millions):
    """The article's table 1; its 58.5 M for ResNet152 counts some other head."""
    with torch.device("meta"):
        network = build_resnet(architecture, 60)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.15)


def test_unknown_architecture_and_device_are_named():
    with pytest.raises(ValueError, match=r"architecture is 'vgg'.*resnet18"):
        build_resnet("vgg", 60)
    with pytest.raises(ValueError, match=r"device is 'abacus'.*cpu"):
        choose_device("abacus")
    for device in ("cpu:foo", "cpu:", "cpu:1", "cuda:99", "", 5):
        with pytest.raises(ValueError, match=rf"device is {device!r}, available here: auto, cpu"):
            choose_device(device)
    assert choose_device("cpu:0") == torch.device("cpu", 0)
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert ARCHITECTURES == ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def test_round_trip_keeps_outputs(saved):
    path, network = saved
    loaded, card, scheme = load_weights(path)
    image = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        # half precision on disk
        assert torch.allclose(loaded(image), network(image), atol=2e-2)
    assert card.temperature == 1.5
    assert len(scheme) == 60


def test_probabilities_are_calibrated_softmax_over_mirrors(saved):
    path, _ = saved
    classifier = load_classifier(path, "cpu")
    images = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    found = classifier.probabilities(images, batch_size=2)
    assert found.shape == (3, 60)
    assert found.sum(axis=1) == pytest.approx(1)
    assert classifier.probabilities(images[:, ::-1]) == pytest.approx(found, abs=1e-6)
    assert classifier.probabilities(images[:, :, ::-1]) == pytest.approx(found, abs=1e-6)
    assert classifier.probabilities(np.empty((0, 64, 64))).shape == (0, 60)
    with pytest.raises(ValueError, match=r"expected \(n, 64, 64\)"):
        classifier.probabilities(np.zeros((1, 32, 32)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"scheme_version": "0"}, "class scheme '0'"),
        ({"image_convention": "0"}, "image convention '0'"),
        ({"architecture": "vgg"}, "architecture 'vgg'"),
        ({"architecture": "resnet34"}, "do not fit resnet34"),
        ({"sha256": "0" * 64}, "damaged"),
        ({"unknown": 1}, "not a card"),
        ({"temperature": 0}, r"w\.json: .*temperature is 0, expected a number in \(0, 1e\+06\]"),
        ({"temperature": -1}, "temperature is -1, expected"),
        ({"temperature": "abc"}, "temperature is 'abc', expected"),
        ({"temperature": None}, "temperature is None, expected"),
        ({"temperature": float("nan")}, "temperature is nan, expected"),
        ({"temperature": 10**400}, "not a card"),
        ({"conversion": "foo"}, "conversion is 'foo', expected one of 'aligned', 'article', 'rendered'"),
        ({"size": 0}, "size is 0, expected an integer from 1 to 4096"),
        ({"size": "32"}, "size is '32', expected an integer"),
        ({"sha256": 5}, "sha256 is 5, expected 64 hexadecimal digits"),
        ({"sha256": ""}, "sha256 is '', expected 64 hexadecimal digits"),
        ({"name": None}, "name is None, expected a text"),
        ({"limits": []}, r"limits is \[\], expected a text"),
        ({"labels": "A1-0"}, "labels is 'A1-0', expected a list"),
        ({"labels": [1, 2]}, r"labels is \(1, 2\), expected texts"),
        ({"groups": ["225"]}, r"groups is \('225',\), expected integers"),
        ({"zones": [[0, 0, "1"]]}, r"zones is \(\(0, 0, '1'\),\), expected integers"),
        ({"zones": [1]}, "zone of zones is 1, expected a list"),
        ({"recipe": None}, "recipe is None, expected names with values"),
        ({"recipe": {"images_seen": "many"}}, "images_seen of recipe is 'many', expected an integer"),
        ({"metrics": {"accuracy_visible_class": "good"}}, "accuracy_visible_class of metrics is 'good'"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(saved, tmp_path, change, match):
    path = tmp_path / "w.safetensors"
    path.write_bytes(saved[0].read_bytes())
    content = json.loads(saved[0].with_suffix(".json").read_text()) | change
    path.with_suffix(".json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=match):
        load_weights(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(card, tmp_path, value):
    network = build_resnet("resnet18", 60)
    with torch.no_grad():
        network.layer2[0].conv1.weight[3, 2, 1, 0] = value
    path = save_weights(tmp_path, card, network)
    with pytest.raises(
        CheckpointError, match=r"test\.safetensors: layer2\.0\.conv1\.weight holds nan or inf"
    ):
        load_weights(path)


def test_damaged_files_are_refused(saved, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match="no such weight file"):
        load_weights(path)
    path.write_bytes(saved[0].read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="no card"):
        load_weights(path)
    path.with_suffix(".json").write_bytes(saved[0].with_suffix(".json").read_bytes())
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(path)
    path.with_suffix(".json").write_text("[1, 2")
    with pytest.raises(CheckpointError, match="not a card"):
        read_card(path)


def test_saving_needs_no_pickle_and_leaves_nothing_half_done(saved, card, tmp_path):
    path = save_weights(tmp_path, replace(card, name="again"), saved[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "again.safetensors"]
    assert path.read_bytes()[:8] != b"PK\x03\x04"  # the zip of a pickled torch file


def test_temperature_is_recovered():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 10)) * 2
    labels = np.array([rng.choice(10, p=p) for p in np.exp(logits) / np.exp(logits).sum(1, keepdims=True)])
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)
    assert expected_calibration_error(logits * 3, labels, 3.0) < 0.02
    assert expected_calibration_error(logits * 3, labels, 1.0) > 0.1


def test_calibration_error_by_hand():
    # two certain predictions, one wrong: accuracy 0.5 at confidence 1
    logits = np.array([[50.0, 0.0], [50.0, 0.0]])
    assert expected_calibration_error(logits, np.array([0, 1]), 1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "conversion"), [*zip(PACKAGED, ("aligned", "rendered"), strict=True)], ids=PACKAGED
)
def test_bundled_networks_load_and_say_what_they_are(name, conversion):
    network, card, scheme = load_weights(bundled_path(name))
    assert (card.name, card.architecture, card.conversion) == (name, "resnet18", conversion)
    assert "CC BY 4.0" in card.data
    assert "16 zone axes alone" in card.limits
    # figures of merit are for structures that it cannot have seen
    assert trained_on(card) == (TrainedOn("formula", ""),)
    assert card.metrics["accuracy_visible_class"] > 0.9
    assert scheme.groups == (213, 221, 225, 227, 229)
    assert not network.training
