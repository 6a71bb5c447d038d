"""Property maps of a scan: one analysis a frame, the same numbers eager, lazy and on a cluster, with masks and beams given."""

from __future__ import annotations

import subprocess
import sys

import hyperspy.api as hs
import numpy as np
import pytest

from napari_sadp import analyse_pattern
from napari_sadp.errors import REFUSAL_REASONS, PatternRefusedError
from napari_sadp.geometry.conversions import convert_pattern
from napari_sadp.samples import simulated_sample
from napari_sadp.signals._frames import LATTICE_COLUMNS
from napari_sadp.signals._properties import CLASS_COLUMNS, PROPERTY_COLUMNS
from napari_sadp.signals.properties import LazySADPProperties, SADPProperties
from napari_sadp.signals.sad_pattern2d import SADPattern2D

QUIET = {"show_progressbar": False}
ZONES = [(0, 0, 1), (0, 1, 1), (0, 1, 3)]
EMPTY = (1, 0)  # row and column of the frame without spots


@pytest.fixture(scope="module")
def patterns():
    return [simulated_sample("Al", 225, zone, seed=i) for i, zone in enumerate(ZONES)]


@pytest.fixture(scope="module")
def scan(patterns):
    """A scan of 2 rows and 3 columns, calibrated, one frame empty."""
    data = np.stack([p.data for p in [*patterns, patterns[0], *patterns[1:]]]).reshape(2, 3, 256, 256)
    data[EMPTY] = np.random.default_rng(0).poisson(50, (256, 256))
    s = SADPattern2D(data)
    for axis in s.axes_manager.signal_axes:
        axis.scale, axis.units = 0.125, "1/nm"
    for axis, name, scale in zip(s.axes_manager.navigation_axes, "xy", (2.0, 3.0), strict=True):
        axis.name, axis.scale, axis.offset, axis.units = name, scale, 5.0, "nm"
    return s


@pytest.fixture(scope="module")
def found(scan):
    return scan.property_maps(**QUIET)


def value(found, column, row, col):
    return float(found.image(column).data[row, col])


def test_the_signal_has_its_type_and_columns(found, tmp_path):
    assert type(found) is SADPProperties
    assert found.columns == tuple(PROPERTY_COLUMNS)
    assert found.data.shape == (2, 3, len(PROPERTY_COLUMNS))
    assert type(found.as_lazy()) is LazySADPProperties
    found.save(tmp_path / "maps.hspy")
    again = hs.load(tmp_path / "maps.hspy")
    assert type(again) is SADPProperties
    assert again.names("reason") == found.names("reason") == ("used", *REFUSAL_REASONS)


def test_maps_have_the_axes_of_the_scan(scan, found):
    images = found.images()
    assert list(images) == list(PROPERTY_COLUMNS)
    ratio = images["ratio"]
    assert type(ratio) is hs.signals.Signal2D
    for ours, theirs in zip(ratio.axes_manager.signal_axes, scan.axes_manager.navigation_axes, strict=True):
        assert (ours.name, ours.scale, ours.offset, ours.units, ours.size) == (
            theirs.name,
            theirs.scale,
            theirs.offset,
            theirs.units,
            theirs.size,
        )
    assert ratio.metadata.Signal.quantity == "ratio"
    assert images["angle_deg"].metadata.Signal.quantity == "angle_deg (deg)"
    line = scan.inav[:, 0].property_maps(**QUIET).image("ratio")
    assert type(line) is hs.signals.Signal1D
    assert line.data == pytest.approx(ratio.data[0])


def test_the_numbers_are_those_of_the_core(scan, found):
    for row, col in ((0, 0), (0, 1), (0, 2), (1, 1)):
        geometry = scan.analyse_frame(3 * row + col)
        lattice, nodes = geometry.lattice, geometry.nodes
        assert value(found, "reason", row, col) == 0
        assert value(found, "ratio", row, col) == lattice.ratio
        assert value(found, "angle_deg", row, col) == lattice.angle_deg
        assert value(found, "n_spots", row, col) == lattice.n_spots
        assert value(found, "beam_row_px", row, col) == lattice.beam_rc[0]
        assert value(found, "nodes_present", row, col) == nodes.present.sum()
        assert value(found, "nodes_absent", row, col) == nodes.absent.sum()
        kinds = [f"nodes_{kind}" for kind in ("present", "absent", "unknown")]
        assert sum(value(found, kind, row, col) for kind in kinds) == len(nodes)
        types = [value(found, f"p_{kind}", row, col) for kind in "ABCD"]
        assert types == pytest.approx(list(lattice.type_probabilities().values()))
        # g1 lies where ratio and rotation say
        turn = np.radians(value(found, "rotation_deg", row, col))
        g1 = value(found, "g1_px", row, col) * np.array([np.cos(turn), np.sin(turn)])
        assert g1 == pytest.approx(lattice.g1_px)
    # 200 and 111 of aluminium
    assert value(found, "d1_angstrom", 0, 0) == pytest.approx(4.05 / 2, rel=0.01)
    assert value(found, "g1_inv_angstrom", 0, 1) == pytest.approx(np.sqrt(3) / 4.05, rel=0.01)
    # uncertainties cover the truth: fcc [011]
    truth = np.degrees(np.arccos(1 / 3))
    assert abs(value(found, "angle_deg", 0, 1) - truth) < 4 * value(found, "angle_sigma_deg", 0, 1) < 4


def test_a_refused_frame_has_a_reason_and_no_lattice(found):
    code = int(value(found, "reason", *EMPTY))
    assert found.names("reason")[code] == "empty"
    assert found.refused() == {"empty": 1}
    row = dict(zip(found.columns, found.data[EMPTY], strict=True))
    assert [row[name] for name in ("n_spots", "nodes_present", "nodes_absent", "nodes_unknown")] == [0] * 4
    assert np.isnan([row[name] for name in ("ratio", "angle_deg", "g1_px", "p_A", "d1_angstrom")]).all()


def test_columns_are_found_after_some_were_cut_out(scan, found, tmp_path):
    part = found.isig[3:16]
    assert part.columns == tuple(PROPERTY_COLUMNS)[3:16]
    for column in ("beam_score", "rms_px", "n_spots"):
        image = part.image(column)
        np.testing.assert_array_equal(image.data, found.image(column).data)
        assert image.metadata.General.title.endswith(column)
    assert part.image("rms_px").metadata.Signal.quantity == "rms_px (px)"
    np.testing.assert_array_equal(found.isig[::2].image("ratio_sigma").data, found.image("ratio_sigma").data)
    again = found.isig[2:20].isig[3:]
    assert list(again.images()) == list(PROPERTY_COLUMNS)[5:20]
    again.save(tmp_path / "part.hspy")
    loaded = hs.load(tmp_path / "part.hspy")
    np.testing.assert_array_equal(loaded.image("ratio").data, found.image("ratio").data)
    lazy = found.as_lazy().isig[4:14].image("ratio")
    lazy.compute(**QUIET)
    np.testing.assert_array_equal(lazy.data, found.image("ratio").data)


def test_columns_that_are_gone_or_mixed_are_refused(found):
    with pytest.raises(ValueError, match="column is 'rms_px', expected one of 'reason', 'beam_row_px'"):
        found.isig[:5].image("rms_px")
    with pytest.raises(ValueError, match="column is 'reason'"):
        found.isig[3:].refused()
    assert found.isig[:5].refused() == {"empty": 1}
    mixed = found.deepcopy()
    mixed.axes_manager.signal_axes[0].offset = 0.5
    with pytest.raises(ValueError, match=r"values \[ 0\.5 .* changed otherwise than by isig"):
        mixed.image("ratio")
    mixed.axes_manager.signal_axes[0].offset = 1
    with pytest.raises(ValueError, match="changed otherwise than by isig"):
        mixed.image("ratio")


def test_uncalibrated_scans_have_no_lengths_in_angstrom(scan):
    found = SADPattern2D(scan.data[0, 0]).property_maps(**QUIET)
    row = dict(zip(found.columns, found.data, strict=True))
    assert np.isnan(row["g1_inv_angstrom"])
    assert np.isnan(row["d2_angstrom"])
    assert row["g1_px"] > 10


def test_lazy_is_computed_when_asked_and_gives_the_same(scan, found):
    lazy = scan.as_lazy()
    maps = lazy.property_maps(**QUIET)
    assert type(maps) is LazySADPProperties
    assert maps.image("ratio")._lazy
    maps.compute(**QUIET)
    assert type(maps) is SADPProperties
    np.testing.assert_array_equal(maps.data, found.data)
    assert scan.property_maps(lazy_output=True, **QUIET)._lazy


@pytest.mark.slow
def test_a_cluster_and_a_file_on_disk_give_the_same(scan, found, tmp_path):
    distributed = pytest.importorskip("distributed")
    path = tmp_path / "scan.hspy"
    scan.save(path, chunks=(1, 2, 256, 256))
    lazy = hs.load(path, lazy=True)
    mask = np.zeros((256, 256), bool)
    mask[:40] = True
    with distributed.Client(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None):
        maps, masked = lazy.property_maps(**QUIET), lazy.fit_lattice(mask=mask, **QUIET)
        maps.compute(**QUIET)
        masked.compute(**QUIET)
    # sums are rounded as the memory of a process happens to be aligned
    np.testing.assert_allclose(maps.data, found.data, rtol=1e-6, atol=1e-9)
    assert maps.axes_manager.navigation_axes[0].units == "nm"
    np.testing.assert_allclose(masked.data, scan.fit_lattice(mask=mask, **QUIET).data, rtol=1e-6, atol=1e-9)
    lazy.close_file()


def test_no_qt_napari_or_torch_is_loaded_by_use():
    code = """
import sys
import numpy as np
import hyperspy.api as hs
s = hs.signals.Signal2D(np.random.default_rng(0).poisson(50, (2, 64, 64)))
s.set_signal_type("sadp")
found = s.property_maps(show_progressbar=False)
found.image("ratio")
s.to_training_images("rendered", size=32, show_progressbar=False)
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "napari_sadp" in loaded
    assert not loaded & {"napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "magicgui", "torch"}


# ---- what the user knows -----------------------------------------------------------------------------------------


def test_a_mask_for_all_frames_is_used(patterns):
    s = SADPattern2D(np.stack([p.data for p in patterns[:2]]))
    mask = np.zeros((256, 256), bool)
    mask[100:156] = True
    found = s.property_maps(mask=mask, **QUIET)
    for index, pattern in enumerate(patterns[:2]):
        expected = analyse_pattern(pattern, mask=mask)
        row = dict(zip(found.columns, found.data[index], strict=True))
        assert row["n_spots"] == expected.lattice.n_spots < analyse_pattern(pattern).lattice.n_spots
        assert row["nodes_unknown"] == len(expected.nodes) - (expected.nodes.state >= 0).sum() > 0


@pytest.mark.parametrize("lazy", [False, True])
def test_a_mask_for_each_frame_touches_that_frame_only(scan, found, lazy):
    masks = np.zeros(scan.data.shape, bool)
    masks[0, 1, 100:156] = True
    given = hs.signals.Signal2D(masks)
    given = given.as_lazy() if lazy else given
    maps = (scan.as_lazy() if lazy else scan).property_maps(mask=given, **QUIET)
    maps.compute(**QUIET) if lazy else None
    changed = ~np.isclose(maps.data, found.data, equal_nan=True).all(axis=-1)
    assert changed.tolist() == [[False, True, False], [False, False, False]]
    assert given.axes_manager.navigation_shape == (3, 2)


def test_a_beam_for_each_frame_touches_that_frame_only(scan, found):
    beams = np.full((2, 3, 2), np.nan)  # nan: find it
    node = scan.analyse_frame(2).lattice.node_rc(np.array([[1, 0]]))[0]
    beams[0, 2] = node + np.array([0.4, -0.3])
    given = hs.signals.Signal1D(beams)
    for s in (scan, scan.as_lazy()):
        maps = s.property_maps(beam_rc=given, **QUIET)
        maps.compute(**QUIET) if maps._lazy else None
        changed = ~np.isclose(maps.data, found.data, equal_nan=True).all(axis=-1)
        assert changed.tolist() == [[False, False, True], [False, False, False]]
        # refined on the lattice
        assert [value(maps, "beam_row_px", 0, 2), value(maps, "beam_col_px", 0, 2)] == pytest.approx(
            node, abs=0.2
        )


def test_the_beam_map_can_be_given_back(scan):
    beams = scan.find_direct_beam(**QUIET)
    assert np.isfinite(beams.data[0]).all()
    lattice = scan.fit_lattice(beam_rc=beams, **QUIET)
    expected = scan.fit_lattice(**QUIET)
    columns = [LATTICE_COLUMNS.index(name) for name in ("beam_row_px", "beam_col_px", "ratio", "angle_deg")]
    assert lattice.data[..., columns] == pytest.approx(expected.data[..., columns], abs=1e-6, nan_ok=True)


def test_one_beam_for_all_frames(patterns):
    s = SADPattern2D(patterns[0].data)
    node = analyse_pattern(patterns[0]).lattice.node_rc(np.array([[0, 1]]))[0]
    found = s.property_maps(beam_rc=node, **QUIET)
    assert found.data[found.columns.index("beam_row_px")] == pytest.approx(node[0], abs=0.2)
    single = s.find_direct_beam(beam_rc=hs.signals.Signal1D(node), **QUIET)
    assert single.data == pytest.approx(node, abs=0.2)


@pytest.mark.filterwarnings("ignore::hyperspy.exceptions.VisibleDeprecationWarning")
def test_the_mask_of_oblong_pixels_is_that_of_the_stored_frame(patterns):
    oblong = SADPattern2D(patterns[0].data[:, ::2].copy())
    for axis, scale in zip(oblong.axes_manager.signal_axes, (0.25, 0.125), strict=True):
        axis.units, axis.scale = "1/nm", scale
    mask = np.zeros((256, 128), bool)
    mask[:, 70:] = True
    found = oblong.fit_lattice(mask=mask, **QUIET)
    square = np.zeros((256, 256), bool)
    square[:, 139:] = True  # every pixel that a masked one reaches by interpolation
    expected = analyse_pattern(oblong.to_stack()[0], mask=square).lattice
    assert found.data[:2] == pytest.approx(expected.beam_rc)
    assert found.data[-1] == expected.n_spots < oblong.fit_lattice(**QUIET).data[-1]


def test_identify_takes_a_mask(patterns):
    s = SADPattern2D(patterns[1].data)
    mask = np.zeros((256, 256), bool)
    mask[100:156] = True
    [result] = s.identify(mask=mask).patterns
    assert result.lattice.n_spots == s.analyse_frame(mask=mask).lattice.n_spots
    assert result.lattice.n_spots < s.analyse_frame().lattice.n_spots


@pytest.mark.parametrize("lazy", [False, True])
def test_one_frame_is_analysed_as_the_maps_are(scan, lazy):
    masks = np.zeros(scan.data.shape, bool)
    masks[0, 1, 100:156] = True
    beams = np.full((2, 3, 2), np.nan)
    beams[0, 2] = scan.analyse_frame(2).lattice.node_rc(np.array([[1, 0]]))[0]
    given = {"mask": hs.signals.Signal2D(masks), "beam_rc": hs.signals.Signal1D(beams)}
    maps = scan.property_maps(**given, **QUIET)
    s = scan.as_lazy() if lazy else scan
    given = {name: value.as_lazy() if lazy else value for name, value in given.items()}
    for index in (0, 1, 2, -2):
        lattice = s.analyse_frame(index, **given).lattice
        row = dict(zip(maps.columns, maps.data.reshape(6, -1)[index], strict=True))
        assert row["n_spots"] == lattice.n_spots
        assert [row["beam_row_px"], row["beam_col_px"]] == pytest.approx(lattice.beam_rc)
    assert s.analyse_frame(1, **given).lattice.n_spots < s.analyse_frame(1).lattice.n_spots
    with pytest.raises(PatternRefusedError, match="empty: ") as refused:
        s.analyse_frame(3, **given)
    assert refused.value.detail
    with pytest.raises(ValueError, match=r"index is \(0, 1\), expected an integer below 6"):
        s.analyse_frame((0, 1))
    with pytest.raises(IndexError, match="frame 6 of a stack of 6"):
        s.analyse_frame(6)


def test_notes_are_those_of_the_frame(scan):
    s = SADPattern2D(scan.data[0, 0].copy())
    rows, cols = np.random.default_rng(1).integers(0, 256, (2, 40))
    s.data[rows, cols] = s.data.max() * 3
    assert any("pixels" in note for note in s.analyse_frame().notes)


# ---- images and classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conversion", ["aligned", "article", "rendered"])
def test_training_images_are_those_of_the_conversion(scan, conversion):
    images = scan.inav[:2, 0].to_training_images(conversion, size=64, **QUIET)
    assert images.metadata.Sadp.conversion == conversion
    for index in range(2):
        expected = convert_pattern(scan.analyse_frame(index), conversion, size=64).data
        np.testing.assert_array_equal(images.data[index], expected)
        assert expected.max() == 1
    assert images.metadata.General.title == f"training images, {conversion}"


@pytest.mark.parametrize("conversion", ["aligned", "article", "rendered"])
def test_the_map_from_a_training_image_to_its_frame(scan, conversion):
    """As the docstring of `to_training_images` says: spots of the pattern are where the image shows them."""
    geometry = scan.analyse_frame(1)
    image = convert_pattern(geometry, conversion, size=128)
    images = scan.to_training_images(conversion, size=128, **QUIET)
    np.testing.assert_array_equal(image.data, images.data[0, 1])
    assert image.to_pattern([[63.5, 63.5]])[0] == pytest.approx(geometry.lattice.beam_rc)
    places = np.array([[20.0, 31.0], [90.0, 7.0]])
    assert image.from_pattern(image.to_pattern(places)) == pytest.approx(places)
    bright = np.array(np.unravel_index(image.data.argmax(), image.data.shape), dtype=float)
    distance = np.linalg.norm(geometry.spots.rc - image.to_pattern(bright), axis=1)
    assert distance.min() < 3.0


def test_classes_come_with_the_same_analysis(scan, found, weights_file):
    options = {"model": str(weights_file), "device": "cpu"}
    maps = scan.property_maps(classify=True, **options, **QUIET)
    assert maps.columns == (*PROPERTY_COLUMNS, *CLASS_COLUMNS)
    np.testing.assert_array_equal(maps.data[..., : len(PROPERTY_COLUMNS)], found.data)
    each = scan.classify(**options, **QUIET)
    names = maps.names("class")
    assert list(names) == each.metadata.Sadp.columns
    assert names[-1] == "none"
    used = found.image("reason").data == 0
    assert np.array_equal(maps.image("class").data[used], each.data[used].argmax(axis=-1))
    assert maps.image("class_probability").data[used] == pytest.approx(each.data[used].max(axis=-1))
    assert maps.image("none_of_these").data[used] == pytest.approx(each.data[used][:, -1])
    assert np.isnan(maps.image("class").data[EMPTY])


# ---- wrong arguments ---------------------------------------------------------------------------------------------


def test_wrong_masks_and_beams_are_named(scan, found):
    with pytest.raises(ValueError, match=r"beam_rc is 'auto', expected \(row, col\) in px"):
        scan.find_direct_beam(beam_rc="auto")
    with pytest.raises(ValueError, match=r"mask is \[\[1, 0\], \[1\]\], expected an array"):
        scan.find_direct_beam(mask=[[1, 0], [1]])
    with pytest.raises(ValueError, match="mask has navigation shape"):
        scan.fit_lattice(mask=np.zeros((256, 255), bool))
    with pytest.raises(ValueError, match="beam_rc has navigation shape"):
        scan.find_direct_beam(beam_rc=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"navigation shape \(2,\)"):
        scan.property_maps(beam_rc=hs.signals.Signal1D(np.zeros((2, 2))))
    with pytest.raises(ValueError, match="min_snr"):
        scan.property_maps(min_snr=0)
    with pytest.raises(ValueError, match="column is 'size'"):
        found.image("size")
    with pytest.raises(ValueError, match="column is 'ratio'"):
        found.names("ratio")
