"""Classes of the frames of a scan: batches of the network, which network, and options that do not exist."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import hyperspy.api as hs
import numpy as np
import pytest

from napari_sadp import combine_signals
from napari_sadp.errors import CheckpointError
from napari_sadp.identify import identify_pattern
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.resnet import run_with_features
from napari_sadp.samples import simulated_sample
from napari_sadp.signals._properties import PROPERTY_COLUMNS
from napari_sadp.signals.sad_pattern2d import LazySADPattern2D, SADPattern2D

QUIET = {"show_progressbar": False}
EMPTY = 3


@pytest.fixture(scope="module")
def scan():
    """Five frames in a row, the fourth without spots."""
    data = np.stack([simulated_sample("Al", 225, (0, 1, 1), seed=i).data for i in range(5)])
    data[EMPTY] = np.random.default_rng(0).poisson(50, data[0].shape)
    return SADPattern2D(data)


@pytest.fixture(scope="module")
def classifier(weights_file):
    return load_classifier(weights_file, "cpu", views="mirrors")


@pytest.fixture(scope="module")
def expected(scan, classifier):
    """What is stated of each frame by itself; None where it is refused."""
    return [identify_pattern(pattern, classifier).stated for pattern in scan.to_stack()]


def chunked(scan, length):
    return LazySADPattern2D(da.from_array(scan.data, chunks=(length, -1, -1)))


def test_the_frames_of_a_chunk_are_one_batch(scan, classifier, expected):
    seen = []

    def run(network, batch):
        seen.append(len(batch))
        return run_with_features(network, batch)

    counted = replace(classifier, run=run)
    classes = chunked(scan, 3).classify(model=counted, **QUIET)
    maps = chunked(scan, 3).property_maps(classify=True, model=counted, **QUIET)
    assert classes._lazy
    assert not seen
    assert classes.data.shape == (5, len(counted.scheme) + 1)
    classes.compute(**QUIET)
    # four mirror images each; of the second chunk one frame is refused
    assert sorted(seen) == [4, 12]
    for row, stated in zip(classes.data, expected, strict=True):
        if stated is None:
            assert np.isnan(row).all()
        else:
            assert row == pytest.approx(stated, abs=1e-6)
    assert [stated is None for stated in expected] == [k == EMPTY for k in range(5)]
    maps.compute(**QUIET)
    assert sorted(seen) == [4, 4, 12, 12]
    plain = scan.property_maps(**QUIET)
    np.testing.assert_array_equal(maps.data[:, : len(PROPERTY_COLUMNS)], plain.data)
    assert maps.image("none_of_these").data == pytest.approx(classes.data[:, -1], nan_ok=True)


@pytest.mark.parametrize("shape", [(), (1,), (1, 2)])
def test_axes_are_those_of_the_scan(scan, classifier, expected, shape):
    data = scan.data[: int(np.prod(shape))].reshape(*shape, 256, 256)
    for s in (SADPattern2D(data), SADPattern2D(data).as_lazy()):
        classes = s.classify(model=classifier, **QUIET)
        assert classes._lazy == s._lazy
        classes.compute(**QUIET) if s._lazy else None
        assert classes.axes_manager.navigation_shape == s.axes_manager.navigation_shape
        assert classes.data.shape == (*shape, len(classes.metadata.Sadp.columns))
        assert classes.data.reshape(-1, classes.data.shape[-1])[0] == pytest.approx(expected[0], abs=1e-6)
    assert SADPattern2D(data).classify(model=classifier, lazy_output=True)._lazy


def test_masks_and_beams_of_each_frame_reach_the_classes(scan, classifier):
    masks = np.zeros(scan.data.shape, bool)
    masks[1, 100:156] = True
    beams = np.full((5, 2), np.nan)
    beams[2] = scan.analyse_frame(2).lattice.node_rc(np.array([[1, 0]]))[0]
    given = {"mask": hs.signals.Signal2D(masks), "beam_rc": hs.signals.Signal1D(beams)}
    plain = scan.classify(model=classifier, **QUIET).data
    found = chunked(scan, 2).classify(model=classifier, **given, **QUIET)
    found.compute(**QUIET)
    changed = ~np.isclose(found.data, plain, equal_nan=True, atol=1e-6).all(axis=-1)
    assert changed.tolist() == [False, True, True, False, False]


def test_a_network_by_file_name_or_loaded(scan, weights_file, classifier, expected):
    s = scan.inav[0]
    for model in (weights_file, str(weights_file), classifier):
        assert s.classify(model=model, device="cpu", **QUIET).data == pytest.approx(expected[0], abs=1e-6)
        [result] = s.identify(model=model, device="cpu").patterns
        assert result.stated == pytest.approx(expected[0], abs=1e-6)
    with pytest.raises(CheckpointError, match="no such weight file, and no network of that name"):
        scan.as_lazy().classify(model="mine")
    with pytest.raises(ValueError, match="views is 'one', expected 'mirrors'"):
        scan.as_lazy().classify(model=classifier, views="one")
    with pytest.raises(ValueError, match="precision is 'double'"):
        scan.as_lazy().classify(precision="double")
    with pytest.raises(ValueError, match="classify is False, expected True"):
        scan.property_maps(model=classifier)


def test_half_precision_is_close(scan, weights_file, expected):
    options = {"model": weights_file, "device": "cpu", "precision": "half"}
    found = scan.inav[0].classify(**options, **QUIET)
    assert found.data == pytest.approx(expected[0], abs=0.02)
    assert found.data != pytest.approx(expected[0], abs=1e-9)
    assert found.metadata.Sadp.made_with.model.precision == "half"
    [result] = scan.inav[0].identify(**options).patterns
    assert result.stated == pytest.approx(found.data, abs=1e-6)


def test_options_that_do_not_exist_are_named_at_once(scan):
    lazy = scan.as_lazy()
    with pytest.raises(TypeError, match=r"classify has no option 'wieghts', .*model, .*lazy_output"):
        lazy.classify(wieghts="mine")
    with pytest.raises(TypeError, match=r"property_maps has no option 'inplace', 'silence_warnings'"):
        lazy.property_maps(inplace=True, silence_warnings=True)
    with pytest.raises(TypeError, match=r"fit_lattice has no option 'min_snt', .*min_snr"):
        lazy.fit_lattice(min_snt=5)
    with pytest.raises(TypeError, match=r"identify has no option 'weights', .*model"):
        scan.identify(weights="mine")
    with pytest.raises(TypeError, match=r"identify has no option 'modle', .*model"):
        combine_signals(scan, modle="mine")


def test_the_maps_say_what_they_were_made_with(scan, classifier):
    made = scan.fit_lattice(min_snr=7, **QUIET).metadata.Sadp.made_with.as_dictionary()
    assert made == {"min_snr": 7.0, "find_covers": True, "beam_given": False, "mask_given": False}
    changed = scan.inav[0].deepcopy()
    changed.metadata.set_item("Sadp.find_covers", False)
    mask = np.zeros((256, 256), bool)
    found = changed.classify(
        model=classifier, mask=mask, beam_rc=(np.nan, np.nan), faintest=0.01, lazy_output=True
    )
    assert found.metadata.Sadp.made_with.as_dictionary() == {
        "min_snr": 6.0,
        "find_covers": False,
        "beam_given": True,
        "mask_given": True,
        "faintest": 0.01,
        "model": {
            "name": "test",
            "sha256": classifier.card.sha256,
            "views": "mirrors",
            "precision": "single",
        },
    }
    assert len(classifier.card.sha256) == 64
