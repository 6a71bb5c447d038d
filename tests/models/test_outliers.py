"""The score of images of no class: its parts by independent formulas, in weight files, and in the chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch._subclasses.fake_tensor import FakeTensorMode

from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.dataset.library import FIELD_RADIUS, build_library
from napari_sadp.dataset.outliers import OUTLIER_KINDS, SHAPE_MARGIN, foreign_shape, outlier_library
from napari_sadp.dataset.stream import PatternStream
from napari_sadp.errors import CheckpointError
from napari_sadp.evaluate.metrics import detection_auroc
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.outliers import OutlierScore, fit_logistic, fit_outlier_score
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.recipe import TrainConfig
from napari_sadp.models.resnet import build_resnet
from napari_sadp.models.sources import Source, outlier_source
from napari_sadp.models.weights import load_weights_with_score, save_weights


@pytest.fixture(scope="module")
def scheme():
    return build_scheme((225, 229))


@pytest.fixture(scope="module")
def library(scheme):
    rng = np.random.default_rng(0)
    crystals = choose_crystals(scheme, validation=False, per_behaviour=2, rng=rng)
    return build_library(crystals, scheme)


def test_rows_know_their_zone_axis(library, scheme):
    names = {0: "225", 1: "225", 2: "229", 3: "229"}
    for crystal, zone, label in zip(library.crystal, library.zone, library.symmetry_label, strict=True):
        assert scheme.index_of[names[int(crystal)], scheme.zones[zone]] == label


def test_outliers_of_all_kinds(library, scheme):
    found = outlier_library(library, scheme, 40, np.random.default_rng(1))
    assert np.bincount(found.label).tolist() == [8] * len(OUTLIER_KINDS)
    assert np.hypot(*found.position.reshape(-1, 2).T).max() <= FIELD_RADIUS
    assert found.intensity.max() == 1
    assert not found.intensity[found.label == OUTLIER_KINDS.index("noise")].any()
    images, kinds, _ = PatternStream(found, size=48, n_classes=5, seed=1).draw(60)
    assert images.shape == (60, 1, 48, 48)
    assert torch.isfinite(images).all()
    # the steps of a camera may leave nothing of noise
    strongest = images.amax(dim=(1, 2, 3))
    assert (strongest[kinds != OUTLIER_KINDS.index("noise")] > 0.99).all()
    assert (strongest > 0.99).float().mean() > 0.9
    assert set(kinds.tolist()) == set(range(5))
    again = outlier_library(library, scheme, 40, np.random.default_rng(1))
    assert np.array_equal(found.position, again.position)
    with pytest.raises(ValueError, match="n is 0"):
        outlier_library(library, scheme, 0, np.random.default_rng(1))


def test_foreign_shapes_are_those_of_no_class():
    shapes = np.array([(np.log(item.ratio), item.angle_deg) for item in build_scheme().classes])
    rng = np.random.default_rng(2)
    for _ in range(200):
        ratio, angle = foreign_shape(shapes, rng)
        assert not (np.abs(shapes - [np.log(ratio), angle]) < SHAPE_MARGIN).all(axis=1).any()
        # reduced: the projection of the longer vector on the shorter one is at most half of that
        assert ratio * np.cos(np.radians(angle)) <= 0.5


def test_the_distance_is_that_of_mahalanobis():
    rng = np.random.default_rng(3)
    covariance = np.cov(rng.normal(size=(4, 50)) * [[1], [2], [3], [0.5]])
    axes, variance = np.linalg.eigh(covariance)[::-1]
    white = axes / np.sqrt(variance) @ axes.T
    means = rng.normal(size=(3, 4))
    score = OutlierScore(torch.tensor(white).float(), torch.tensor(means @ white).float(), torch.zeros(7))
    point, logits = rng.normal(size=4), rng.normal(size=3)
    found = score.measures(torch.tensor(point[None]).float(), torch.tensor(logits[None]).float())[0]
    least = min(mahalanobis(point, mean, np.linalg.inv(covariance)) for mean in means)
    assert float(found[0]) == pytest.approx(2 * np.log(least), abs=1e-3)
    assert float(found[1]) == pytest.approx(-np.log(np.exp(logits).sum()), abs=1e-5)
    assert found[2:].numpy() == pytest.approx(point, abs=1e-6)


def test_the_logistic_function_is_that_of_two_normal_distributions():
    """Of unit variances and means 0 and d the log odds are ``d x - d^2 / 2``."""
    rng = np.random.default_rng(4)
    near, far = rng.normal(size=(20_000, 1)), rng.normal(1.5, size=(10_000, 1))
    constant, slope = fit_logistic(near, far, 0.0)
    assert slope == pytest.approx(1.5, rel=0.05)
    assert constant == pytest.approx(-(1.5**2) / 2, rel=0.05)


class Drawn:
    """A source of images whose brightness says what they are."""

    def __init__(self, level, seed):
        self.level, self.seed, self.generator = level, seed, torch.Generator().manual_seed(seed)

    def seek(self, number):
        self.generator.manual_seed(self.seed + number)

    def draw(self, n):
        images = self.level + 0.02 * torch.randn(n, 1, 32, 32, generator=self.generator)
        return images, torch.randint(2, (n,), generator=self.generator), torch.zeros(n, dtype=torch.long)


class Brightness(torch.nn.Module):
    """A network whose features are the mean of the image and a constant."""

    def __init__(self):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d((2, 1))
        self.fc = torch.nn.Linear(2, 2)


def test_the_fit_tells_bright_from_dark_and_states_honest_odds():
    torch.manual_seed(0)
    nothing = np.zeros(1)
    network = Brightness()
    inside, outside = (
        Source(Drawn(level, seed), nothing, nothing, None, "aligned")
        for level, seed in ((0.2, 1), (0.201, 2))
    )
    score = fit_outlier_score(network, inside, outside, 1500)
    odds = []
    for level, seed in ((0.2, 3), (0.201, 4)):
        images, _, _ = Drawn(level, seed).draw(1500)
        features = network.pool(images).flatten(1)
        odds.append(score.log_odds(features, network.fc(features)).detach().numpy())
    assert detection_auroc(*odds) > 0.85
    chance = 1 / (1 + np.exp(-np.concatenate(odds)))
    truth = np.repeat([0, 1], 1500)
    for low, high in ((0.05, 0.35), (0.65, 0.95)):
        use = (chance > low) & (chance < high)
        assert truth[use].mean() == pytest.approx(chance[use].mean(), abs=0.08)


def test_the_fit_does_not_hang_on_what_was_drawn_before(library, scheme):
    """A run that goes on, and the first of several processes, come to the fit with a stream that stands elsewhere."""
    torch.manual_seed(0)
    network = build_resnet("resnet18", len(scheme))
    config = TrainConfig(groups=(225, 229), size=32, outlier_images=20)
    scores = []
    for drawn in (1, 3):
        stream = PatternStream(library, size=32, n_classes=len(scheme))
        inside = Source(stream, library.symmetry_label, library.crystal, None, "aligned", library)
        outside = outlier_source(inside, config, scheme, torch.device("cpu"))
        for source in (inside, outside):
            source.stream.draw(drawn)
        scores.append(fit_outlier_score(network, inside, outside, 20))
    first, second = (vars(score).values() for score in scores)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_score_keeps_single_precision_where_the_network_has_half():
    torch.manual_seed(0)
    score = OutlierScore(torch.randn(512, 512) / 20, torch.randn(60, 512), torch.randn(515) / 20)
    features, logits = torch.rand(8, 512).bfloat16(), torch.randn(8, 60).bfloat16()
    expected = score.log_odds(features, logits)
    with torch.autocast("cpu", torch.bfloat16):
        found = score.log_odds(features, logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_score_travels_with_the_weights(weights_file, tmp_path):
    network, card, _, none = load_weights_with_score(weights_file)
    assert none is None
    assert load_classifier(weights_file, "cpu").predict(np.zeros((1, 96, 96))).outlier_log_odds is None
    torch.manual_seed(1)
    score = OutlierScore(torch.randn(512, 512), torch.randn(60, 512), torch.randn(515))
    path = save_weights(tmp_path, replace(card, name="scored"), network, score)
    _, _, _, found = load_weights_with_score(path)
    assert all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(score).values(), strict=True))
    loaded = load_classifier(path, "cpu", views="one")
    images = np.random.default_rng(0).random((3, 96, 96)).astype(np.float32)
    said = loaded.predict(images, batch_size=2)
    assert said.outlier_log_odds.shape == (3,)
    assert loaded.predict(images[:0]).outlier_log_odds.shape == (0,)
    assert said.probabilities == pytest.approx(
        load_classifier(weights_file, "cpu", views="one").probabilities(images), abs=1e-6
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"centres": torch.zeros(59, 512)}, r"outlier score has shapes .* expected \(\(d, d\), \(60, d\)"),
        ({"whitening": torch.zeros(64, 64), "centres": torch.zeros(60, 64), "weights": torch.zeros(67)},
         "outlier score for 64 features, resnet18 has 512"),
        ({"weights": torch.zeros(3)}, "outlier score has shapes"),
        ({"whitening": torch.tensor(1.0)}, "outlier score has shapes"),
    ],
)  # fmt: skip
def test_a_score_that_does_not_fit_is_refused(weights_file, tmp_path, change, match):
    network, card, _, _ = load_weights_with_score(weights_file)
    score = OutlierScore(torch.zeros(512, 512), torch.zeros(60, 512), torch.zeros(515))
    path = save_weights(tmp_path, card, network, replace(score, **change))
    with pytest.raises(CheckpointError, match=match):
        load_weights_with_score(path)


def test_a_score_with_a_part_missing_is_refused(weights_file, tmp_path):
    network, card, _, _ = load_weights_with_score(weights_file)

    class Half(OutlierScore):
        def tensors(self):
            return {"outliers.whitening": self.whitening}

    score = Half(torch.zeros(512, 512), torch.zeros(60, 512), torch.zeros(515))
    with pytest.raises(CheckpointError, match="expected whitening, centres and weights"):
        load_weights_with_score(save_weights(tmp_path, card, network, score))


def test_sources_of_outliers_differ_from_those_of_validation(library, scheme):
    config = TrainConfig(groups=(225, 229), size=32, outlier_images=20)
    stream = PatternStream(library, size=32, n_classes=len(scheme))
    inside = Source(stream, library.symmetry_label, library.crystal, None, "aligned", library)
    source = outlier_source(inside, config, scheme, torch.device("cpu"))
    images, labels, _ = source.stream.draw(6)
    assert images.shape == (6, 1, 32, 32)
    assert labels.max() < len(OUTLIER_KINDS)


def test_a_stream_stays_on_its_device(library, scheme, monkeypatch):
    """Images of a GPU that is not there: torch checks devices, and computes nothing."""

    class Generator:
        def __init__(self, device):
            assert device.type == "cuda"

        def manual_seed(self, _):
            return self

    monkeypatch.setattr(torch, "Generator", Generator)
    for name in ("rand", "randn"):
        real = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, real=real, generator=None, **k: real(*a, **k))
    with FakeTensorMode(allow_non_fake_inputs=True):
        stream = PatternStream(library, size=32, n_classes=len(scheme), device="cuda", turned=True)
        images, labels, rows = stream.draw(4)
    assert {item.device.type for item in (images, labels, rows)} == {"cuda"}
    assert images.shape == (4, 1, 32, 32)
