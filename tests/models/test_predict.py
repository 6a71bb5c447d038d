"""Inference over stacks: batches, threads, views, precision, devices."""

from __future__ import annotations

import threading
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from napari_sadp.models import predict, resnet
from napari_sadp.models.outliers import OutlierScore
from napari_sadp.models.predict import Classifier, as_classifier, image_views, load_classifier
from napari_sadp.models.resnet import build_resnet, choose_device, describe_device, run_with_features
from napari_sadp.models.speed import time_architecture


@pytest.fixture(scope="module")
def classifier(weights_file):
    return load_classifier(weights_file, "cpu", views="one")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((11, 96, 96)).astype(np.float32)


def test_chunks_of_any_length_give_what_the_array_gives(classifier, images):
    whole = classifier.probabilities(images, batch_size=11)
    chunks = [images[:1], images[1:1], images[1:8], images[8:]]
    found = list(classifier.predict_batches(iter(chunks), batch_size=4))
    assert [len(item.probabilities) for item in found] == [4, 4, 3]
    assert np.concatenate([item.probabilities for item in found]) == pytest.approx(whole, abs=1e-6)
    assert list(classifier.predict_batches(iter([]))) == []
    lazy = da.from_array(images, chunks=(3, 96, 96))
    assert classifier.probabilities(lazy, batch_size=4) == pytest.approx(whole, abs=1e-6)
    assert classifier.probabilities(images.tolist(), batch_size=11) == pytest.approx(whole, abs=1e-6)
    read_only = np.broadcast_to(images[:1], (2, 96, 96))
    assert classifier.probabilities(read_only)[1] == pytest.approx(whole[0], abs=1e-6)


def test_memory_is_bounded(classifier):
    """However long the stack, only a few batches of it are there at once, and they are made in another thread."""
    made, given, threads = [], [], set()

    def chunks():
        for number in range(12):
            made.append(number)
            threads.add(threading.current_thread().name)
            yield np.full((2, 96, 96), number / 12, np.float32)

    ahead = []
    for item in classifier.predict_batches(chunks(), batch_size=2):
        given.append(item)
        ahead.append(len(made) - len(given))
    assert len(given) == 12
    assert max(ahead) <= predict._AHEAD + 1
    assert threading.current_thread().name not in threads


def test_an_error_of_the_source_arrives_and_an_early_end_is_clean(classifier, images):
    def broken():
        yield images[:2]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(classifier.predict_batches(broken(), batch_size=2))
    steps = classifier.predict_batches(iter([images] * 50), batch_size=2)
    next(steps)
    before = threading.active_count()
    steps.close()
    assert threading.active_count() < before
    with pytest.raises(ValueError, match=r"images has shape \(1, 32, 32\), expected \(n, 96, 96\)"):
        list(classifier.predict_batches([np.zeros((1, 32, 32))]))
    with pytest.raises(ValueError, match="batch_size is 0"):
        classifier.probabilities(images, batch_size=0)


def test_views_of_an_aligned_image():
    batch = torch.rand(2, 1, 24, 24)
    assert [len(image_views(batch, v, "aligned")) for v in predict.VIEWS] == [1, 4, 12]
    assert [len(image_views(batch, v, "article")) for v in predict.VIEWS] == [1, 4, 8]
    # the shortest vector of nodes that are drawn anew lies along the rows: never turned
    assert [len(image_views(batch, v, "rendered")) for v in predict.VIEWS] == [1, 4, 4]
    with pytest.raises(ValueError, match="views is 'some'"):
        image_views(batch, "some", "aligned")
    # the eight of an image that lies anyhow are those of a square, whichever of them comes in
    first = {v.numpy().tobytes() for v in image_views(batch[:1], "turns", "article")}
    second = {
        v.contiguous().numpy().tobytes()
        for v in image_views(torch.rot90(batch[:1], 1, (-2, -1)), "turns", "article")
    }
    assert len(first) == 8
    assert first == second


def test_a_turned_view_turns_about_the_direct_beam(monkeypatch):
    monkeypatch.setattr(predict, "TURN_DEG", 90.0)
    batch = torch.rand(1, 1, 25, 25)
    views = image_views(batch, "turns", "aligned")
    turned = [views[4], views[8]]
    right = [torch.rot90(batch, k, (-2, -1)) for k in (1, -1)]
    assert all(any(torch.allclose(a, b, atol=1e-4) for b in right) for a in turned)
    monkeypatch.undo()
    spot = torch.zeros(1, 1, 96, 96)
    spot[..., 8, 47:49] = 1.0  # at 39.5 px from the beam, along the rows
    moved = image_views(spot, "turns", "aligned")[4][0, 0]
    column = float((moved.sum(0) * torch.arange(96)).sum() / moved.sum())
    assert abs(column - 47.5) == pytest.approx(39.5 * np.sin(np.radians(predict.TURN_DEG)), abs=0.05)


def test_averaging_makes_the_answer_independent_of_the_view(classifier, images):
    averaged = replace(classifier, views="mirrors")
    found = averaged.probabilities(images[:3])
    assert averaged.probabilities(images[:3, ::-1, ::-1]) == pytest.approx(found, abs=1e-6)
    assert classifier.probabilities(images[:3, ::-1]) != pytest.approx(
        classifier.probabilities(images[:3]), abs=1e-6
    )
    turned = replace(classifier, views="turns").probabilities(images[:3])
    assert turned.sum(axis=1) == pytest.approx(1)
    assert turned != pytest.approx(found, abs=1e-7)


@pytest.mark.parametrize(
    ("views", "limit", "passes"),
    [
        ("turns", 64, [36]),
        ("turns", 15, [12, 12, 12]),  # five views would fit; four leave no shorter pass
        ("turns", 2, [3] * 12),
        ("mirrors", 6, [6, 6]),
    ],
)
def test_views_go_through_the_network_together_as_far_as_a_limit(
    classifier, images, monkeypatch, views, limit, passes
):
    seen = []

    def run(network, batch):
        seen.append(len(batch))
        return run_with_features(network, batch)

    n_classes = len(classifier.scheme)
    score = OutlierScore(torch.eye(512), torch.rand(n_classes, 512), torch.rand(515))
    averaged = replace(classifier, views=views, outliers=score, run=run)
    monkeypatch.setattr(predict, "AT_ONCE", 1)
    one_by_one = averaged.predict(images[:3])
    seen.clear()
    monkeypatch.setattr(predict, "AT_ONCE", limit)
    found = averaged.predict(images[:3])
    assert seen == passes
    assert found.probabilities == pytest.approx(one_by_one.probabilities, abs=1e-6)
    assert found.outlier_log_odds == pytest.approx(one_by_one.outlier_log_odds, rel=1e-5)


def test_half_precision_is_close(weights_file, images):
    full = load_classifier(weights_file, "cpu", views="one").probabilities(images[:2])
    half = load_classifier(weights_file, "cpu", views="one", precision="half").probabilities(images[:2])
    assert half == pytest.approx(full, abs=0.02)
    assert half != pytest.approx(full, abs=1e-9)
    with pytest.raises(ValueError, match="precision is 'double'"):
        load_classifier(weights_file, "cpu", precision="double")


def test_features_are_what_the_last_layer_sees():
    torch.manual_seed(0)
    network = build_resnet("resnet50", 7).eval()
    batch = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        logits, features = run_with_features(network, batch)
        assert torch.allclose(logits, network(batch), atol=1e-6)
        assert torch.allclose(network.fc(features), logits, atol=1e-6)
    assert features.shape == (2, 2048)


def test_no_tensor_stays_on_the_wrong_device(monkeypatch, weights_file, images):
    """A network and its images on a GPU that is not there: torch checks devices, and computes nothing."""
    card, scheme = load_classifier(weights_file, "cpu").card, load_classifier(weights_file, "cpu").scheme
    with FakeTensorMode() as fake:
        place = torch.device("cuda", 0)
        with place:  # a fake tensor cannot be moved into a module that exists
            network = build_resnet("resnet18", len(scheme)).eval()
        score = OutlierScore(torch.eye(512), torch.zeros(len(scheme), 512), torch.zeros(515)).to(place)
        loaded = Classifier(network, card, scheme, place, score, "turns")
        batch = fake.from_tensor(torch.from_numpy(images[:2, None])).to(place)
        seen = []

        def run(model, view):
            logits, features = run_with_features(model, view)
            seen.extend([logits.device, features.device, score.log_odds(features, logits).device])
            return logits, features

        def to_numpy(tensor):
            assert tensor.device.type == "cpu"
            return np.ones(tuple(tensor.shape))

        monkeypatch.setattr(torch.Tensor, "numpy", to_numpy)
        found = replace(loaded, run=run)._classify(batch)
    assert found.probabilities.shape == (2, len(scheme))
    assert found.outlier_log_odds.shape == (2,)
    assert set(seen) == {place}
    assert len(seen) == 3  # the twelve views in one pass


def test_the_fake_device_finds_a_tensor_left_behind():
    """The test above can fail: a score that was not moved is found."""
    with FakeTensorMode():
        score = OutlierScore(torch.eye(4), torch.zeros(3, 4), torch.zeros(7))
        with pytest.raises(RuntimeError, match="device"):
            score.log_odds(torch.zeros(2, 4, device="cuda"), torch.zeros(2, 3, device="cuda"))


def test_devices_are_described(monkeypatch):
    assert describe_device(torch.device("cpu")).startswith("cpu, ")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert describe_device(choose_device("auto")).endswith("(torch finds no GPU)")
    with pytest.raises(ValueError, match=r"device is 'cuda:1', available here: auto, cpu$"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU of a test")
    assert choose_device("auto").type == "cuda"
    assert describe_device(torch.device("cuda")) == "cuda (GPU of a test)"
    assert "choose auto" in describe_device(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"


def test_architectures_are_timed():
    found = time_architecture("resnet18", 32, 60, torch.device("cpu"), batch_size=2, rounds=1)
    assert found["ms_per_image"] > 0
    assert found["parameters"] == sum(p.numel() for p in resnet.build_resnet("resnet18", 60).parameters())


def test_a_loaded_network_is_used_as_it_is(weights_file):
    loaded = load_classifier(weights_file, "cpu", views="one")
    assert as_classifier(loaded) is loaded
    assert as_classifier(loaded, "cpu", views="one") is loaded
    assert as_classifier(weights_file, "cpu", views="one") is loaded
    with pytest.raises(ValueError, match="views is 'turns', expected 'one'"):
        as_classifier(loaded, views="turns")
    with pytest.raises(ValueError, match="precision is 'half', expected 'single'"):
        as_classifier(loaded, precision="half")
