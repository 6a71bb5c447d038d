"""Files to layers and points to files, in a viewer without a window."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.plugins._npe2 import get_readers
from npe2 import PluginManager
from support.containers import Acquisition, write_container, write_hspy
from support.shared import SHARED

from napari_sadp import napari_io
from napari_sadp.errors import UnreadableFileError
from napari_sadp.io.rosetta import PatternStack, StackAxis, read_stacks
from napari_sadp.io.spots_csv import read_spots
from napari_sadp.io.write import write_patterns
from napari_sadp.napari_io import METADATA_KEY, get_reader, layer_from_stack, read_layers, write_spots
from napari_sadp.samples import SAMPLE_ZONES, SAMPLES, simulated_sample
from napari_sadp.widgets._sources import source_from_layer

REAL = SHARED / "real_patterns"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the acquired patterns are not at {REAL}")
FORMATS = [("a.dm3", "velox"), ("a.dm4", "velox"), ("a.emd", "velox"), ("a.emd", "ncem")]


@pytest.fixture
def viewer() -> ViewerModel:
    PluginManager.instance().discover()
    return ViewerModel()


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).poisson(30, (3, 40, 50)).astype(np.uint16)


# ---- reader ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a.tif", "a.png", "a", "", "a.dm5", [], ["a.dm3", "b.tif"], None, 3, [None], {"a.dm3"}]
)
def test_other_things_are_left_to_other_readers(path):
    assert get_reader(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "a.dm3",
        "A.DM4",
        "x/y.emd",
        "a.blo",
        "a.mib",
        "a.hspy",
        "a.ser",
        "a.tvips",
        "a.mrc",
        ["a.dm3", "b.dm4"],
    ],
)
def test_get_reader_does_not_open_anything(path):
    assert get_reader(path) is read_layers


@pytest.mark.parametrize(("name", "variant"), FORMATS)
def test_a_series_opens_as_one_calibrated_layer(viewer, tmp_path, counts, name, variant):
    about = Acquisition(scale=(0.25, 0.25), centre=(19.5, 24.5))
    path = write_container(tmp_path / name, counts, about, variant=variant)
    [layer] = viewer.open(path, plugin="napari-sadp")
    assert type(layer).__name__ == "Image"
    assert np.array_equal(np.asarray(layer.data), counts)
    assert layer.scale[-2:] == pytest.approx([0.25, 0.25])
    assert [str(unit) for unit in layer.units[-2:]] == ["1 / nanometer"] * 2
    assert layer.axis_labels[-2:] == ("row", "col")
    # pixel ((n_rows - 1) / 2, (n_cols - 1) / 2) stands at the origin
    assert layer.data_to_world((0, 19.5, 24.5))[1:] == pytest.approx([0, 0])
    about = layer.metadata[METADATA_KEY]
    assert about["pixel_size_inv_angstrom"] == pytest.approx(0.025)
    assert about["kind"] == "diffraction"
    assert about["path"] == str(path)
    assert layer.gamma == napari_io.DISPLAY_GAMMA


@pytest.mark.parametrize(("name", "variant"), FORMATS)
def test_frames_stay_on_disk_until_they_are_shown(tmp_path, counts, name, variant):
    [(data, _, _)] = read_layers(str(write_container(tmp_path / name, counts, variant=variant)))
    assert hasattr(data, "dask")


def test_metadata_are_small_and_plain(tmp_path, counts):
    [(_, keywords, _)] = read_layers(str(write_container(tmp_path / "a.dm3", counts)))
    about = keywords["metadata"][METADATA_KEY]
    assert len(json.dumps(about)) < 4000
    assert (about["voltage_kv"], about["camera_length_mm"]) == (200.0, 500.0)


def test_tilts_of_the_stage_come_along(viewer, tmp_path):
    stage = {"tilt_alpha": -20.5, "tilt_beta": 4.0}
    path = write_patterns(
        tmp_path / "a.hspy",
        [simulated_sample("Al", 225, (0, 0, 1))],
        metadata={"Acquisition_instrument": {"TEM": {"Stage": stage}}},
    )
    [layer] = viewer.open(path, plugin="napari-sadp")
    assert layer.metadata[METADATA_KEY]["stage_deg"] == [-20.5, 4.0]
    # as the terminal sees it
    assert source_from_layer(layer).load(0).stage_deg == read_stacks(path)[0][0].stage_deg == (-20.5, 4.0)


def test_files_of_napari_itself_come_without_a_question(viewer):
    for extension in napari_io.MORE_EXTENSIONS:
        assert "napari-sadp" not in get_readers(f"a{extension}"), extension
    for extension in napari_io.EXTENSIONS:
        assert list(get_readers(f"a{extension}")) == ["napari-sadp"], extension


def test_a_calibrated_tif_keeps_its_calibration(tmp_path):
    pattern = simulated_sample("Al", 225, (0, 0, 1))
    path = write_patterns(tmp_path / "a.tif", [pattern])
    [(data, keywords, kind)] = read_layers(str(path))
    assert kind == "image"
    assert data.shape == pattern.shape
    assert keywords["units"] == ["1/nm", "1/nm"]
    assert keywords["scale"] == pytest.approx([10 * pattern.pixel_size_inv_angstrom] * 2)


def test_an_mrc_file_opens(viewer, tmp_path, counts):
    header = np.zeros(256, "<i4")
    header[:4] = counts.shape[2], counts.shape[1], counts.shape[0], 6  # unsigned integers of 16 bits
    header[7:10] = header[:3]
    header[16:19] = 1, 2, 3
    header[52:54] = np.frombuffer(b"MAP \x44\x44\0\0", "<i4")
    path = tmp_path / "a.mrc"
    path.write_bytes(header.tobytes() + counts.astype("<u2").tobytes())
    [layer] = viewer.open(path, plugin="napari-sadp")
    assert np.asarray(layer.data).shape == counts.shape


def test_bytes_are_an_image_and_no_labels(viewer, tmp_path):
    data = np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)
    [layer] = viewer.open(write_container(tmp_path / "a.dm3", data), plugin="napari-sadp")
    assert type(layer).__name__ == "Image"
    assert layer.data.dtype == np.uint8


def test_uncalibrated_data_count_pixels(viewer, tmp_path, counts):
    [layer] = viewer.open(
        write_container(tmp_path / "a.dm3", counts[0], Acquisition(units=None)), plugin="napari-sadp"
    )
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert layer.scale == pytest.approx([1, 1])
    assert layer.translate == pytest.approx([0, 0])
    assert layer.metadata[METADATA_KEY]["pixel_size_inv_angstrom"] is None


def test_images_keep_their_units_and_origin(viewer, tmp_path, counts):
    about = Acquisition(scale=(2.0, 2.0), units="nm", centre=(10.0, 5.0), scanning=True)
    [layer] = viewer.open(write_container(tmp_path / "a.emd", counts[0], about), plugin="napari-sadp")
    assert [str(unit) for unit in layer.units] == ["nanometer"] * 2
    assert layer.translate == pytest.approx([-20, -10])
    assert layer.gamma == 1
    assert layer.metadata[METADATA_KEY]["kind"] == "image"


def test_inverse_angstrom_become_inverse_nanometre(viewer, tmp_path, counts):
    path = write_hspy(tmp_path / "a.hspy", counts[0], ["$A^{-1}$"] * 2, [0.02, 0.02])
    [layer] = viewer.open(path, plugin="napari-sadp")
    assert [str(unit) for unit in layer.units] == ["1 / nanometer"] * 2
    assert layer.scale == pytest.approx([0.2, 0.2])


def test_oblong_pixels_stay_as_in_the_file(viewer, tmp_path, counts):
    path = write_hspy(tmp_path / "a.hspy", counts[0], ["1/nm"] * 2, [0.2, 0.4])
    [layer] = viewer.open(path, plugin="napari-sadp")
    assert layer.scale == pytest.approx([0.2, 0.4])
    assert layer.data.shape == (40, 50)


@pytest.mark.parametrize("unit", ["px", "", None, "<undefined>", "furlong per fortnigh", "1/furlongg"])
def test_units_that_napari_cannot_parse_become_pixels(viewer, tmp_path, counts, unit):
    path = write_hspy(tmp_path / "a.hspy", counts, [unit, "1/nm", "1/nm"], [3.0, 0.2, 0.2])
    [layer] = viewer.open(path, plugin="napari-sadp")
    assert str(layer.units[0]) == "pixel"


def test_two_signals_are_two_layers(viewer, tmp_path, counts):
    paths = [write_container(tmp_path / name, counts[0]) for name in ("a.dm3", "b.dm4")]
    layers = read_layers([str(path) for path in paths])
    assert [keywords["name"] for _, keywords, _ in layers] == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"no microscope file", b"\0\0\0\x03" + bytes(40)])
def test_damaged_files_are_an_error_that_names_the_file(viewer, tmp_path, content):
    path = tmp_path / "broken.dm3"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"broken\.dm3") as caught:
        viewer.open(path, plugin="napari-sadp")
    assert "\n" not in str(caught.value)
    assert not viewer.layers


def test_limits_suit_bright_frames_after_dim_ones():
    frames = np.stack([np.random.default_rng(i).poisson(n, (32, 32)) for i, n in enumerate((5, 50, 5000))])
    _, keywords, _ = layer_from_stack(PatternStack(frames), "series")
    low, high = keywords["contrast_limits"]
    assert low < 5
    assert high > 5000


def test_only_three_frames_are_loaded_for_the_limits():
    import dask.array as da

    loaded: list[int] = []

    def frame(block_info=None):
        loaded.append(block_info[None]["chunk-location"][0])
        return np.ones((1, 24, 24), np.float32)

    stack = da.map_blocks(
        frame, chunks=((1,) * 50, (24,), (24,)), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    data, _, _ = layer_from_stack(PatternStack(stack), "scan")
    assert data is stack
    assert len(loaded) == 3


def test_axis_labels_are_all_different():
    axes = (StackAxis("row", 2), StackAxis("", 2), StackAxis("y", 30), StackAxis("x", 30))
    _, keywords, _ = layer_from_stack(PatternStack(np.ones((2, 2, 30, 30)), axes=axes), "scan")
    assert len(set(keywords["axis_labels"])) == 4
    assert keywords["axis_labels"][-2:] == ("row", "col")


@needs_real
@pytest.mark.parametrize(
    "name",
    [
        "nanobeam_dd020.dm3",
        "bismuth.dm3",
        "bismuth.dm4",
        "sped_test1.blo",
        "test.mib",
        "ag_sped_two_grains.hspy",
    ],
)
def test_acquired_files_open_as_the_reader_of_the_core_sees_them(viewer, name):
    layers = viewer.open(REAL / name, plugin="napari-sadp")
    stacks = read_stacks(REAL / name)
    assert len(layers) == len(stacks)
    for layer, stack in zip(layers, stacks, strict=True):
        assert layer.data.shape == stack.data.shape
        assert np.array_equal(
            np.asarray(layer.data[(0,) * (layer.ndim - 2)]), np.asarray(stack.data[(0,) * (layer.ndim - 2)])
        )
        low, high = layer.contrast_limits
        assert high > low
        size = stack.pixel_size_inv_angstrom
        if size is not None:
            assert layer.scale[-1] == pytest.approx(10 * size)


@needs_real
def test_acquired_emd_files_open(viewer):
    paths = sorted((REAL / "metadata").glob("*.emd"))
    assert paths
    for path in paths:
        assert viewer.open(path, plugin="napari-sadp")


# ---- samples -----------------------------------------------------------------------------------------------------


def test_sample_opens_as_one_stack_that_says_how_it_was_made(viewer):
    viewer.open_sample("napari-sadp", "al")
    [layer] = viewer.layers
    assert layer.data.shape == (len(SAMPLE_ZONES), 256, 256)
    assert layer.data.dtype == np.uint16
    assert [str(unit) for unit in layer.units] == ["pixel", "1 / nanometer", "1 / nanometer"]
    assert layer.scale == pytest.approx([1, 0.125, 0.125])
    about = layer.metadata[METADATA_KEY]
    assert about["formula"] == "Al"
    assert about["space_group"].startswith("225 ")
    assert about["zone_axes"] == [list(zone) for zone in SAMPLE_ZONES]
    assert about["voltage_kv"] == 200
    assert about["kind"] == "diffraction"


@pytest.mark.parametrize("key", SAMPLES)
def test_every_sample_has_a_function(key):
    assert callable(getattr(napari_io, f"sample_{key}"))


# ---- writer ------------------------------------------------------------------------------------------------------


def test_points_of_a_stack_are_saved_with_frame_and_features(viewer, tmp_path):
    points = np.array([[0, 10.5, 20.25], [2, 11.0, 21.0]])
    features = {
        "m": [1.0, np.nan],
        "n": [0.0, np.nan],
        "g_inv_angstrom": [0.5, 0.7],
        "intensity": [100.0, 20.0],
        "snr": [12.0, 7.0],
        "indexed": [True, False],
        "note": ["a", "b"],
    }
    layer = viewer.add_points(points, features=features, scale=(1, 0.1, 0.1))
    [written] = layer.save(str(tmp_path / "spots.csv"), plugin="napari-sadp")
    table = read_spots(written)
    assert table["row_px"].tolist() == [10.5, 11.0]
    assert table["frame"].tolist() == [0, 2]
    assert table["m"][0] == 1
    assert np.isnan(table["m"][1])
    assert table["note"].tolist() == ["a", "b"]
    assert table["g_inv_angstrom"].tolist() == [0.5, 0.7]


@pytest.mark.parametrize("points", [np.empty((0, 2)), np.array([[1.0, 2.0]]), np.array([[0, 3, 1.0, 2.0]])])
def test_any_points_can_be_saved(tmp_path, points):
    [written] = write_spots(str(tmp_path / "points.csv"), points, {"features": {}})
    assert len(read_spots(written)["row_px"]) == len(points)


def test_features_with_reserved_names_do_not_stop_the_writer(tmp_path):
    meta = {"features": {"row_px": np.array([9.0]), "m": np.array([1.0]), "snr": np.array([3.0])}}
    [written] = write_spots(str(tmp_path / "points.csv"), np.array([[1.0, 2.0]]), meta)
    assert read_spots(written)["row_px"].tolist() == [1.0]
