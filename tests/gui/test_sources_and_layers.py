"""Layers to patterns and results to layers, without a window."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Layer

from napari_sadp.errors import UnreadableFileError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.identify import PatternResult
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets._layers import derived_from, placement, result_layers
from napari_sadp.widgets._sources import source_from_layer
from napari_sadp.widgets._work import FrameResult


def _analysed(layer: Image, frame: int = 0) -> tuple:
    source = source_from_layer(layer)
    geometry = analyse_pattern(source.load(frame))
    scheme = build_scheme((225,))
    result = PatternResult(
        geometry.pattern,
        scheme,
        beam=geometry.beam,
        spots=geometry.spots,
        lattice=geometry.lattice,
        nodes=geometry.nodes,
    )
    return source, [FrameResult(source, frame, result)]


# ---- sources -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "scale", "size"),
    [("1/nm", 0.125, 0.0125), ("1/angstrom", 0.0125, 0.0125), ("1/Å", 0.0125, 0.0125)],
)
def test_what_the_layer_says_is_the_calibration(unit, scale, size):
    layer = Image(np.ones((32, 32)), scale=(scale, scale), units=(unit, unit))
    stack = source_from_layer(layer).stack
    assert stack.pixel_size_inv_angstrom == pytest.approx(size)
    assert stack.kind == "diffraction"


def test_angles_need_the_voltage():
    keywords = {"scale": (0.5, 0.5), "units": ("mrad", "mrad")}
    known = Image(np.ones((32, 32)), metadata={METADATA_KEY: {"voltage_kv": 200.0}}, **keywords)
    unknown = Image(np.ones((32, 32)), **keywords)
    assert source_from_layer(known).stack.pixel_size_inv_angstrom == pytest.approx(
        0.5e-3 / 0.0250793, rel=1e-4
    )
    assert source_from_layer(unknown).stack.pixel_size_inv_angstrom is None


@pytest.mark.parametrize(
    ("units", "told", "kind"),
    [
        (("nm", "nm"), "unknown", "image"),
        (("um", "um"), "unknown", "image"),
        (("angstrom", "angstrom"), "unknown", "image"),
        (("pixel", "pixel"), "image", "image"),
        (("pixel", "pixel"), "unknown", "unknown"),
        (("1/nm", "1/nm"), "image", "diffraction"),
        (("pixel", "pixel"), "nonsense", "unknown"),
    ],
)
def test_kind(units, told, kind):
    layer = Image(np.ones((32, 32)), units=units, metadata={METADATA_KEY: {"kind": told}})
    assert source_from_layer(layer).stack.kind == kind


def test_metadata_of_others_do_not_matter():
    layer = Image(np.ones((32, 32)), metadata={METADATA_KEY: "a string of somebody else"})
    assert source_from_layer(layer).stack.voltage_kv is None


@pytest.mark.parametrize(
    ("told", "stage"),
    [
        ([-12.5, 3], (-12.5, 3.0)),
        ((1.0, 2.0), (1.0, 2.0)),
        (None, None),
        (4.0, None),
        ([1.0], None),
        (["a", "b"], None),
        ([np.nan, 1.0], None),
    ],
)
def test_the_tilts_of_the_stage(told, stage):
    layer = Image(np.ones((32, 32)), metadata={METADATA_KEY: {"stage_deg": told}})
    assert source_from_layer(layer).load(0).stage_deg == stage


def test_colours_become_grey():
    rgb = np.zeros((32, 40, 3), np.uint8)
    rgb[..., 1] = 100
    pattern = source_from_layer(Image(rgb, rgb=True)).load(0)
    assert pattern.shape == (32, 40)
    assert np.allclose(pattern.data, 58.7)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint32, np.float64])
def test_any_type_of_number(dtype):
    pattern = source_from_layer(Image(np.ones((32, 32), dtype))).load(0)
    assert np.allclose(pattern.data, 1)


def test_multiscale_uses_the_full_resolution():
    layer = Image([np.ones((64, 64)), np.ones((32, 32))], multiscale=True)
    assert source_from_layer(layer).load(0).shape == (64, 64)


def test_a_frame_is_loaded_when_it_is_asked_for():
    loaded: list[int] = []

    def frame(block_info=None):
        loaded.append(block_info[None]["chunk-location"][0])
        return np.ones((1, 32, 32), np.float32)

    data = da.map_blocks(
        frame, chunks=((1,) * 9, (32,), (32,)), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    layer = Image(data, contrast_limits=(0, 1))
    loaded.clear()
    source = source_from_layer(layer)
    assert not loaded
    source.load(4)
    assert loaded == [4]


def test_a_frame_that_cannot_be_read_says_so():
    def frame(block_info=None):
        if block_info[None]["chunk-location"][0] == 1:
            raise OSError("the disk is gone")
        return np.ones((1, 32, 32), np.float32)

    data = da.map_blocks(
        frame, chunks=((1, 1), (32,), (32,)), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    with pytest.raises(UnreadableFileError, match="the disk is gone"):
        source_from_layer(Image(data, contrast_limits=(0, 1))).load(1)


def test_names_of_frames():
    flat = source_from_layer(Image(np.ones((32, 32)), name="one"))
    scan = source_from_layer(Image(np.ones((2, 3, 32, 32)), name="scan"))
    assert flat.label(0) == "one"
    assert scan.label(4) == "scan [1, 1]"
    assert scan.navigation_index(4) == (1, 1)
    assert flat.navigation_index(0) == ()


# ---- layers ------------------------------------------------------------------------------------------------------


def test_spots_lie_where_the_image_shows_them(patterns, stack_keywords):
    image = Image(np.stack([p.data for p in patterns]), **stack_keywords)
    before = image.data.copy()
    source, frames = _analysed(image, 1)
    layers = [
        Layer.create(d, k | placement(image), t) for d, k, t in result_layers(source, frames, nodes=True)
    ]
    assert [layer.name.rsplit(" ", 1)[1] for layer in layers] == [
        "nodes",
        "spots",
        "lattice",
        "vectors",
        "beam",
    ]
    for layer in layers:
        assert np.allclose(layer.scale, image.scale)
        assert np.allclose(layer.translate, image.translate)
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels
        assert derived_from(layer) == str(image.unique_id)
    nodes, spots, lattice, vectors, beam = layers
    assert np.all(spots.data[:, 0] == 1)
    strongest = spots.data[np.argmax(spots.features["intensity"])]
    row, col = np.round(strongest[1:]).astype(int)
    assert image.data[1, row, col] > 0.9 * image.data[1].max()
    assert np.allclose(beam.data[0, 1:], frames[0].result.beam.rc)
    start, step = lattice.data[0]
    measured = frames[0].result.lattice
    assert np.allclose(start[1:] + step[1:], measured.beam_rc + measured.g1_px)
    assert step[0] == 0
    assert np.allclose(vectors.data, lattice.data.sum(axis=1))
    assert vectors.features["vector"].tolist() == ["g1", "g2"]
    assert len(nodes.data) >= len(spots.data)
    states = frames[0].result.nodes.state
    assert nodes.features["state"].tolist() == [{1: "present", 0: "absent", -1: "unknown"}[s] for s in states]
    assert len(np.unique(nodes.face_color, axis=0)) == len(np.unique(states)) > 1
    assert nodes.data[:, 1:].min() >= -0.5
    assert nodes.data[:, 1:].max() <= 255.5
    assert np.array_equal(image.data, before)


def test_features_of_spots(patterns):
    image = Image(patterns[0].data, scale=(0.125, 0.125), units=("1/nm", "1/nm"))
    source, frames = _analysed(image)
    _, keywords, _ = next(
        layer for layer in result_layers(source, frames) if layer[1]["name"].endswith("spots")
    )
    features = keywords["features"]
    assert set(features) == {"m", "n", "g_inv_angstrom", "intensity", "intensity_error", "snr", "indexed"}
    first = (np.abs(features["m"]) + np.abs(features["n"])) == 1
    # fcc [001]: |g| of 200 and 020, a = 4.05 A
    assert np.allclose(features["g_inv_angstrom"][first & (features["m"] != 0)], 2 / 4.05, rtol=0.01)


def test_oblong_pixels_are_mapped_back(patterns):
    image = Image(patterns[0].data[:, ::2], scale=(0.125, 0.25), units=("1/nm", "1/nm"))
    source, frames = _analysed(image)
    square = analyse_pattern(patterns[0]).beam.rc
    assert source.load(0).shape == (256, 256)
    beam = next(
        data for data, keywords, _ in result_layers(source, frames) if keywords["name"].endswith("beam")
    )
    assert beam[0] == pytest.approx(square * [1, 0.5], abs=0.4)


def test_turned_layers_keep_their_results_in_place(patterns):
    image = Image(patterns[0].data, rotate=30, shear=[0.1], affine=np.diag([2.0, 3.0, 1.0]), translate=(5, 6))
    source, frames = _analysed(image)
    for data, keywords, kind in result_layers(source, frames):
        layer = Layer.create(data, keywords | placement(image), kind)
        assert np.allclose(layer.data_to_world((3.0, 4.0)), image.data_to_world((3.0, 4.0)))


def test_nothing_found_makes_no_layers():
    source = source_from_layer(Image(np.ones((32, 32))))
    result = PatternResult(source.load(0), build_scheme((225,)), reason="empty", detail="nothing")
    assert result_layers(source, [FrameResult(source, 0, result)], nodes=True) == []
