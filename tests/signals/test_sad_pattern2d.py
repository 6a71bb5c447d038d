"""The HyperSpy extension: registration, lazy pair, methods, and no Qt."""

from __future__ import annotations

import hyperspy.api as hs
import numpy as np
import pytest
from support.containers import Acquisition, write_container
from support.shared import REAL, needs_real

from napari_sadp import combine_signals
from napari_sadp.errors import PatternRefusedError
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.samples import SAMPLES, sample_stack
from napari_sadp.signals._frames import LATTICE_COLUMNS
from napari_sadp.signals.sad_pattern2d import LazySADPattern2D, SADPattern2D

QUIET = {"show_progressbar": False}


@pytest.fixture(scope="module")
def stack():
    """[001] and [013] of aluminium, as a calibrated signal with a scan axis of 2."""
    patterns = sample_stack(SAMPLES["al"], [(0, 0, 1), (0, 1, 3)])
    s = hs.signals.Signal2D(np.stack([p.data for p in patterns]))
    s.set_signal_type("sadp")
    for axis in s.axes_manager.signal_axes:
        axis.scale, axis.units = 10 * patterns[0].pixel_size_inv_angstrom, "1/nm"
    s.metadata.set_item("Acquisition_instrument.TEM.beam_energy", 200.0)
    s.metadata.set_item("Acquisition_instrument.TEM.camera_length", 300.0)
    return s


@pytest.mark.parametrize("name", ["sadp", "selected_area_diffraction"])
def test_registration(name):
    s = hs.signals.Signal2D(np.zeros((8, 8)))
    s.set_signal_type(name)
    assert type(s) is SADPattern2D
    assert type(s.as_lazy()) is LazySADPattern2D


def test_class_survives_slicing_saving_and_lazy_loading(stack, tmp_path):
    assert type(stack.inav[0]) is SADPattern2D
    assert type(stack.isig[10:-10, 10:-10]) is SADPattern2D
    assert type(stack.sum()) is SADPattern2D
    path = tmp_path / "s.hspy"
    stack.save(path)
    assert type(hs.load(path)) is SADPattern2D
    lazy = hs.load(path, lazy=True)
    assert type(lazy) is LazySADPattern2D
    lazy.close_file()


def test_stack_carries_calibration(stack):
    frames = stack.to_stack()
    assert len(frames) == 2
    pattern = frames[1]
    assert pattern.pixel_size_inv_angstrom == pytest.approx(0.0125)
    assert pattern.voltage_kv == 200
    assert pattern.camera_length_mm == 300
    assert np.array_equal(pattern.data, stack.inav[1].data)


def test_of_complex_data_the_magnitude_is_taken(stack):
    turned = SADPattern2D(stack.data * np.exp(0.3j))
    pattern = turned.to_stack()[1]
    assert pattern.data == pytest.approx(stack.data[1], rel=1e-6)
    assert any("magnitude" in note for note in pattern.notes)
    with pytest.raises(ValueError, match="no numbers"):
        SADPattern2D(np.full((8, 8), "a")).to_stack()


def test_lattice_and_beam_maps(stack):
    lattice = stack.fit_lattice(**QUIET)
    assert lattice.metadata.Sadp.columns == list(LATTICE_COLUMNS)
    assert lattice.data.shape == (2, len(LATTICE_COLUMNS))
    ratio, angle = (lattice.data[:, LATTICE_COLUMNS.index(name)] for name in ("ratio", "angle_deg"))
    # fcc [001]: square; [013]: (4, 2, 11), ratio sqrt(11)/2, angle 72.45 deg
    assert ratio == pytest.approx([1.0, np.sqrt(11) / 2], rel=0.01)
    assert angle == pytest.approx([90.0, 72.45], abs=0.7)
    beam = stack.find_direct_beam(**QUIET)
    assert beam.data == pytest.approx(lattice.data[:, :2])


def test_lazy_gives_the_same_numbers(stack):
    lazy = stack.as_lazy().fit_lattice(**QUIET)
    assert lazy._lazy
    lazy.compute(**QUIET)
    assert lazy.data == pytest.approx(stack.fit_lattice(**QUIET).data, nan_ok=True)


@pytest.mark.parametrize("shape", [(1,), (2, 1)])
def test_navigation_axes_of_length_one_are_kept(stack, shape):
    data = np.broadcast_to(stack.data[1], (*shape, 256, 256)).copy()
    for s in (SADPattern2D(data), SADPattern2D(data).as_lazy()):
        found = s.fit_lattice(**QUIET)
        assert found.axes_manager.navigation_shape == s.axes_manager.navigation_shape
        assert found.data.shape == (*shape, len(LATTICE_COLUMNS))


def test_frame_analysis_returns_frozen_values(stack):
    geometry = stack.analyse_frame(1)
    assert geometry.lattice.n_spots > 10
    with pytest.raises(AttributeError):
        geometry.lattice.rms_px = 0


def test_refused_frames_are_nan_and_say_why():
    s = SADPattern2D(np.zeros((64, 64)))
    assert np.isnan(s.fit_lattice(**QUIET).data[:-1]).all()
    assert np.isnan(s.classify(**QUIET).data).all()
    assert not s.to_training_images(size=32, **QUIET).data.any()
    with pytest.raises(PatternRefusedError, match="empty"):
        s.analyse_frame()


def test_training_images_are_signals_with_axes_in_g1(stack):
    images = stack.to_training_images(size=96, **QUIET)
    assert type(images) is SADPattern2D
    assert images.data.shape == (2, 96, 96)
    assert images.data.max() == 1
    axis = images.axes_manager.signal_axes[0]
    assert axis.units == "|g1|"
    assert axis.value2index(0.0) in (47, 48)
    # the spot on the row axis one |g1| from the beam
    row = images.axes_manager.signal_axes[1].value2index(1.0)
    assert images.data[0, row - 2 : row + 3, 46:50].max() > 0.8


def test_classes_and_space_groups(stack):
    classes = stack.classify(**QUIET)
    columns = classes.metadata.Sadp.columns
    assert columns[-1] == "none"
    assert classes.data.sum(axis=1) == pytest.approx([1, 1])
    assert [columns[i] for i in classes.data.argmax(axis=1)] == ["A1-0", "D6-0"]
    found = stack.identify(rule="mean")
    assert found.space_groups.groups[0] == 225
    assert found.space_groups.rule == "mean"


def test_faint_spots_do_not_count_where_the_user_says_so():
    """[011] of an alloy whose order shows in weak spots: primitive with them, face-centred without."""
    row, col = np.mgrid[:256, :256]
    image = np.full((256, 256), 10.0)
    for i, j in np.ndindex(11, 11):
        m, n = i - 5, j - 5
        height = (2e4 if (m + n) % 2 == 0 else 400.0) * np.exp(-(m * m + 2 * n * n) / 20)
        image += height * np.exp(
            -0.5 * ((row - 128 - 18 * m) ** 2 + (col - 127 - 18 * np.sqrt(2) * n) ** 2) / 1.8**2
        )
    s = SADPattern2D(np.random.default_rng(0).poisson(image).astype(np.float32))
    scheme = build_scheme()
    for faintest, name in ((0.0, "221"), (0.1, "225")):
        classes = s.classify(faintest=faintest, **QUIET)
        best = classes.metadata.Sadp.columns[int(classes.data.argmax())]
        assert best == scheme.labels[scheme.index_of[name, (0, 1, 1)]]
        assert s.identify(faintest=faintest).patterns[0].best_class[0] == best
    with pytest.raises(ValueError, match=r"faintest is 0\.7"):
        s.classify(faintest=0.7, **QUIET)


@pytest.mark.filterwarnings("ignore::hyperspy.exceptions.VisibleDeprecationWarning")
def test_maps_see_the_pattern_that_identify_sees(stack):
    oblong = SADPattern2D(stack.data[1][:, ::2].copy())
    for axis, scale in zip(oblong.axes_manager.signal_axes, (0.25, 0.125), strict=True):
        axis.units, axis.scale = "1/nm", scale
    result = oblong.identify().patterns[0]
    row = oblong.fit_lattice(**QUIET).data
    assert row[6:8] == pytest.approx([result.lattice.ratio, result.lattice.angle_deg])
    assert row[:2] == pytest.approx(result.beam.rc)
    classes = oblong.classify(**QUIET)
    assert classes.metadata.Sadp.columns[int(np.argmax(classes.data))] == result.best_class[0] == "D6-0"

    image = SADPattern2D(stack.data[1])
    for axis in image.axes_manager.signal_axes:
        axis.units, axis.scale = "nm", 0.3
    assert image.identify().patterns[0].reason == "image"
    assert np.isnan(image.fit_lattice(**QUIET).data[:-1]).all()


def test_bytes_of_digitalmicrograph_are_unsigned(stack, tmp_path):
    counts = np.clip(stack.data[1] / 8, 0, 255).astype(np.uint8)
    path = tmp_path / "x.dm3"
    about = Acquisition(scale=(0.125, 0.125), dm_data_type=9)
    write_container(path, counts.view(np.int8), about)
    s = hs.load(path, signal_type="sadp")
    assert np.array_equal(s.to_stack()[0].data, counts)
    assert s.identify().patterns[0].best_class[0] == "D6-0"


def test_two_calls_combine_several_signals(stack):
    first, second = stack.inav[0], stack.inav[1]
    found = combine_signals(first, second)
    assert found.n_used == 2
    assert found.space_groups.groups[0] == 225
    assert found.space_groups.probability(225) > 0.5
    again = combine_signals(first.identify(), second.identify())
    assert again.space_groups.probabilities == pytest.approx(found.space_groups.probabilities)


def test_wrong_options_are_named(stack):
    with pytest.raises(ValueError, match="conversion"):
        stack.to_training_images("turned")
    with pytest.raises(ValueError, match="rule"):
        combine_signals(stack.inav[0], rule="vote")
    with pytest.raises(ValueError, match="at least one"):
        combine_signals()
    with pytest.raises(ValueError, match="set_signal_type"):
        combine_signals(hs.signals.Signal2D(np.zeros((64, 64))))
    with pytest.raises(ValueError, match="cannot be used"):
        SADPattern2D(np.zeros((1, 64))).to_stack()


@pytest.mark.parametrize(("name", "options"), [("x.dm3", {}), ("x.dm4", {}), ("x.emd", {"variant": "velox"})])
def test_loading_a_microscope_file_by_signal_type(tmp_path, stack, name, options):
    path = tmp_path / name
    about = Acquisition(scale=(0.125, 0.125), units="1/nm", voltage_kv=200.0, camera_length_mm=300.0)
    write_container(path, stack.data[0].astype(np.uint16), about, **options)
    s = hs.load(path, signal_type="sadp")
    assert type(s) is SADPattern2D
    [result] = s.identify().patterns
    assert result.best_class[0] == "A1-0"
    assert result.g1_inv_angstrom == pytest.approx(2 / 4.04958, rel=0.01)
    lazy = hs.load(path, signal_type="sadp", lazy=True)
    assert type(lazy) is LazySADPattern2D
    assert lazy.analyse_frame().lattice.g1_px == pytest.approx(result.lattice.g1_px)


@needs_real
@pytest.mark.parametrize(
    "name",
    [
        "nanobeam_dd020.dm3",
        "metadata/test_diffraction_pattern.dm3",
        "bismuth.dm4",
        "metadata/ceta_no_beam.emd",
    ],
)
def test_real_files_load_as_our_signal(name):
    s = hs.load(REAL / name, signal_type="sadp")
    assert type(s) is SADPattern2D
    result = s.identify().patterns[0]
    assert result.used or result.reason
