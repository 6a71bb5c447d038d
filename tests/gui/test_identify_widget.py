"""The *Identify* widget in a viewer, from the click to layers and tables."""

from __future__ import annotations

import re
import threading

import dask.array as da
import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from support.identify_widget import WAIT_MS, add_stack, finish, results_of, run

from napari_sadp.labels.spacegroups import ARTICLE_GROUPS
from napari_sadp.models.registry import bundled_path
from napari_sadp.samples import SAMPLES
from napari_sadp.widgets import _work, identify

pytestmark = pytest.mark.gui


@pytest.fixture
def widget(identify_widget):
    return identify_widget


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    """Messages that the user is shown."""
    shown: list[str] = []
    monkeypatch.setattr(identify, "show_error", shown.append)
    monkeypatch.setattr(identify, "show_warning", shown.append)
    return shown


def cells(table, row: int) -> list[str]:
    return table.row_text(row)


def value(text: str) -> float:
    """The number before its uncertainty in brackets."""
    return float(text.partition("(")[0])


# ---- results -----------------------------------------------------------------------------------------------------


def test_a_stack(qtbot, viewer, widget, patterns, stack_keywords):
    image = add_stack(viewer, patterns, stack_keywords)
    before = image.data.copy()
    assert widget.what.value == "stack (2 patterns)"
    run(qtbot, widget)

    found = widget.outcome.found
    assert found.n_used == 2
    assert np.array_equal(image.data, before)
    layers = results_of(viewer, image)
    assert set(layers) == {"spots", "lattice", "vectors", "beam"}
    for layer in layers.values():
        assert np.allclose(layer.scale, image.scale)
        assert np.allclose(layer.translate, image.translate)
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels
    assert layers["beam"].data[:, 0].tolist() == [0, 1]
    assert set(layers["spots"].data[:, 0].tolist()) == {0, 1}
    assert layers["lattice"].data.shape == (4, 2, 3)
    tips = layers["lattice"].data.sum(axis=1)[:, 1:]
    assert np.allclose(layers["vectors"].data[:, 1:], tips)
    assert viewer.layers.extent.units == image.units
    # the next run takes the same image
    assert widget.source_layers() == [image]

    table = widget.pattern_table
    assert table.rowCount() == 2
    first, second = cells(table, 0), cells(table, 1)
    assert (first[0], second[0]) == ("frame 0", "frame 1")
    headers = [table.horizontalHeaderItem(i).text() for i in range(table.columnCount())]
    row = dict(zip(headers, first, strict=True))
    assert value(row["d1 Å"]) == pytest.approx(4.05 / 2, rel=0.01)  # 200 of aluminium
    assert value(row["|g1| px"]) == pytest.approx(2 / 4.05 / 0.0125, rel=0.01)
    assert value(row["|g2|/|g1|"]) == pytest.approx(1, abs=0.01)
    assert value(row["Angle °"]) == pytest.approx(90, abs=0.5)
    # the systematic error of a fitted lattice is half a percent
    assert re.fullmatch(r"2\.0\d\d\(1\d\)", row["d1 Å"])
    assert row["Type"].startswith("A 0.9")
    assert row["Left over"] == "0"
    assert row["By lattice"].startswith("A1")
    assert value(dict(zip(headers, second, strict=True))["Angle °"]) == pytest.approx(70.53, abs=0.5)
    tip = table.item(0, headers.index("d1 Å")).toolTip()
    assert "|g1| 0.49" in tip
    assert "camera constant 80 px Å" in tip
    assert "hexagonal: 0.000" in table.item(0, headers.index("Type")).toolTip()


def test_a_second_grain_is_in_the_table(qtbot, viewer, widget):
    row, col = np.mgrid[:256, :256]
    m, n = (a.ravel() for a in np.mgrid[-4:5, -4:5])
    image = np.full((256, 256), 10.0)
    for size, turn, height in ((26.0, 0.1, 3000.0), (22.0, 0.6, 700.0)):
        for i, j in zip(m, n, strict=True):
            r = 128 + size * (i * np.cos(turn) - j * np.sin(turn))
            c = 127 + size * (i * np.sin(turn) + j * np.cos(turn))
            image += height * np.exp(-(i * i + j * j) / 12 - 0.5 * ((row - r) ** 2 + (col - c) ** 2) / 1.8**2)
    viewer.add_image(np.random.default_rng(0).poisson(image).astype(np.float32))
    run(qtbot, widget)
    headers = [column[0] for column in widget.pattern_table.COLUMNS]
    cell = widget.pattern_table.item(0, headers.index("Left over"))
    assert int(cell.text().removesuffix(" + lattice")) > 10
    assert cell.text().endswith(" + lattice")
    assert "a second lattice, |g1| 22." in cell.toolTip() or "a second lattice, |g1| 21." in cell.toolTip()


def test_the_space_groups(qtbot, viewer, widget, patterns, stack_keywords):
    add_stack(viewer, patterns, stack_keywords)
    run(qtbot, widget)
    rows = [cells(widget.group_table, i) for i in range(widget.group_table.rowCount())]
    assert {int(row[0].split()[0]) for row in rows[:-1]} == set(ARTICLE_GROUPS)
    probabilities = [float(row[1]) for row in rows[:-1]]
    assert sum(probabilities) == pytest.approx(1, abs=0.003)
    assert probabilities == sorted(probabilities, reverse=True)
    same = {int(row[0].split()[0]): row[2] for row in rows[:-1]}
    assert same[225] == "196, 202, 209, 216"
    assert same[227] == "203"
    assert rows[-1][0] == "none of these"
    assert widget.summary.value.splitlines()[1] == "2 of 2 patterns used, product rule"


def test_a_click_on_a_row_shows_its_frame(qtbot, viewer, widget, patterns, stack_keywords):
    add_stack(viewer, patterns, stack_keywords)
    run(qtbot, widget)
    for row in (1, 0, 1):
        widget.pattern_table.selectRow(row)
        assert viewer.dims.current_step[0] == row


def test_running_again_replaces_the_layers(qtbot, viewer, widget, patterns):
    viewer.add_image(patterns[0].data, name="one")
    run(qtbot, widget)
    count = len(viewer.layers)
    run(qtbot, widget)
    assert len(viewer.layers) == count
    assert widget.pattern_table.rowCount() == 1
    widget.nodes.value = True
    run(qtbot, widget)
    assert len(viewer.layers) == count + 1
    widget.nodes.value = False
    run(qtbot, widget)
    assert len(viewer.layers) == count


def test_several_layers_are_patterns_of_one_crystal(qtbot, viewer, widget, patterns):
    images = [
        viewer.add_image(p.data, name=f"zone {i}", scale=(i + 1, i + 1)) for i, p in enumerate(patterns)
    ]
    viewer.layers.selection = set(images)
    assert widget.what.value == "zone 0, zone 1 (2 patterns)"
    run(qtbot, widget)
    assert [cells(widget.pattern_table, i)[0] for i in range(2)] == ["zone 0", "zone 1"]
    for image in images:
        assert np.allclose(results_of(viewer, image)["spots"].scale, image.scale)
    assert widget.source_layers() == images
    # they lie on top of each other: the chosen one is shown
    widget.pattern_table.selectRow(1)
    assert (images[0].visible, images[1].visible) == (False, True)
    assert not results_of(viewer, images[0])["spots"].visible
    widget.pattern_table.selectRow(0)
    assert (images[0].visible, images[1].visible) == (True, False)


def test_only_the_shown_frame(qtbot, viewer, widget, patterns, stack_keywords):
    image = add_stack(viewer, patterns, stack_keywords)
    widget.frames.value = "shown"
    assert widget.what.value == "stack (1 pattern)"
    viewer.dims.set_current_step(0, 1)
    run(qtbot, widget)
    assert cells(widget.pattern_table, 0)[0] == "frame 1"
    assert results_of(viewer, image)["beam"].data[:, 0].tolist() == [1]


def test_without_a_selection_the_box_counts(qtbot, viewer, widget, patterns):
    one, two = (viewer.add_image(p.data, name=f"zone {i}") for i, p in enumerate(patterns))
    viewer.layers.selection.clear()
    widget.image.value = one
    assert widget.source_layers() == [one]
    viewer.layers.selection = {two}
    assert widget.source_layers() == [two]
    assert widget.what.value == "zone 1 (1 pattern)"


def test_a_refused_pattern_says_why(qtbot, viewer, widget, noise):
    image = viewer.add_image(noise, name="noise")
    run(qtbot, widget)
    row = cells(widget.pattern_table, 0)
    assert row[0] == "noise"
    assert row[1].startswith("refused: ")
    assert "lattice" not in results_of(viewer, image)
    assert widget.group_table.rowCount() == 0
    first, second = widget.summary.value.splitlines()
    assert first == "No pattern could be used: no statement about the space group."
    assert second.startswith("noise refused: ")


def test_a_refused_pattern_among_others_is_left_out(qtbot, viewer, widget, patterns, noise):
    images = [viewer.add_image(noise, name="noise"), viewer.add_image(patterns[0].data, name="good")]
    viewer.layers.selection = set(images)
    run(qtbot, widget)
    assert widget.outcome.found.n_used == 1
    assert widget.summary.value.splitlines()[1].startswith("1 of 2 patterns used")


def test_an_image_in_real_space_is_refused(qtbot, viewer, widget, patterns):
    viewer.add_image(patterns[0].data, units=("nm", "nm"))
    run(qtbot, widget)
    assert cells(widget.pattern_table, 0)[1].startswith("refused: image")


def test_an_uncalibrated_pattern_is_measured_in_pixels(qtbot, viewer, widget, patterns):
    viewer.add_image(patterns[0].data)
    run(qtbot, widget)
    headers = [column[0] for column in widget.pattern_table.COLUMNS]
    row = dict(zip(headers, cells(widget.pattern_table, 0), strict=True))
    assert (row["d1 Å"], row["d2 Å"]) == ("-", "-")
    assert value(row["|g1| px"]) > 10
    assert "Not calibrated" in widget.summary.value
    # unless the user knows better
    widget.run_options.pixel_size.value = 0.0125
    run(qtbot, widget)
    row = dict(zip(headers, cells(widget.pattern_table, 0), strict=True))
    assert 1 / value(row["d1 Å"]) == pytest.approx(0.0125 * value(row["|g1| px"]), rel=0.02)
    assert "Not calibrated" not in widget.summary.value
    assert "pixel size 0.0125 1/Å as given" in widget.outcome.frames[0].result.pattern.notes


def test_faint_spots_do_not_count_where_the_user_says_so(qtbot, viewer, widget):
    row, col = np.mgrid[:256, :256]
    m, n = (a.ravel() for a in np.mgrid[-5:6, -5:6])
    image = np.full((256, 256), 10.0)
    for i, j in zip(m, n, strict=True):
        height = (2e4 if (i + j) % 2 == 0 else 300.0) * np.exp(-(i * i + j * j) / 20)
        image += height * np.exp(-0.5 * ((row - 128 - 18 * i) ** 2 + (col - 127 - 18 * j) ** 2) / 1.8**2)
    viewer.add_image(np.random.default_rng(0).poisson(image).astype(np.float32))
    spacings = []
    for percent in (0.0, 10.0):
        widget.faintest.value = percent
        run(qtbot, widget)
        spacings.append(np.linalg.norm(widget.outcome.frames[0].result.lattice.g1_px))
    assert spacings == pytest.approx([18.0, 18.0 * np.sqrt(2)], rel=0.02)


def test_lazy_frames_are_loaded_one_at_a_time_and_not_by_the_window(qtbot, viewer, widget, patterns):
    loads: list[tuple[int, bool]] = []
    frames = [p.data for p in patterns]

    def frame(block_info=None):
        index = block_info[None]["chunk-location"][0]
        loads.append((index, threading.current_thread() is threading.main_thread()))
        return frames[index][None]

    data = da.map_blocks(
        frame, chunks=((1, 1), (256,), (256,)), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )
    viewer.add_image(data, contrast_limits=(0, 1000))
    run(qtbot, widget)
    assert widget.outcome.found.n_used == 2
    assert 1 in [index for index, _ in loads]


@pytest.mark.slow
@pytest.mark.skipif(not bundled_path().is_file(), reason="the bundled weights are not in this checkout")
@pytest.mark.parametrize("key", ["si", "al"])
def test_the_bundled_network_identifies_a_sample(qtbot, viewer, widget, key):
    viewer.open_sample("napari-sadp", key)
    widget.weights.value = None
    run(qtbot, widget)
    assert widget.outcome.found.n_used == 4
    assert widget.outcome.found.space_groups.groups[0] == SAMPLES[key].space_group
    assert widget.summary.value.startswith(f"Most probable: {SAMPLES[key].space_group} ")


# ---- cancel ------------------------------------------------------------------------------------------------------


def test_cancel_stops_between_two_patterns(qtbot, viewer, widget, patterns):
    data = np.stack([patterns[0].data] * 6)
    image = viewer.add_image(data)
    worker = widget.run()
    assert not widget.run_button.enabled
    assert widget.cancel_button.enabled
    assert widget.run() is None  # one at a time

    def stop(item):
        if item is not None:
            widget.cancel_button.clicked.emit(True)

    worker.yielded.connect(stop)
    finish(qtbot, widget)
    assert not widget.cancel_button.enabled
    done = widget.pattern_table.rowCount()
    assert 1 <= done < 6
    assert widget.summary.value.startswith(f"cancelled after {done} of 6 patterns")
    assert len(results_of(viewer, image)["beam"].data) == done
    # and the next run works
    viewer.layers.selection = {image}
    widget.frames.value = "shown"
    run(qtbot, widget)
    assert widget.outcome.found.n_used == 1


def test_cancel_before_the_first_pattern(qtbot, viewer, widget, patterns, monkeypatch):
    from napari_sadp.models import predict

    load, cancelled = predict.load_classifier, threading.Event()

    def slow(*arguments):
        cancelled.wait(WAIT_MS / 1000)
        return load(*arguments)

    monkeypatch.setattr(predict, "load_classifier", slow)
    viewer.add_image(patterns[0].data)
    widget.run()
    widget.cancel()
    assert not widget.cancel_button.enabled
    cancelled.set()
    finish(qtbot, widget)
    assert widget.outcome is None
    assert widget.summary.value.startswith("cancelled")
    assert len(viewer.layers) == 1


# ---- faults ------------------------------------------------------------------------------------------------------


def test_no_layer(widget, complaints):
    assert widget.run() is None
    assert complaints == ["There is no image layer: open a diffraction pattern first."]
    assert widget.run_button.enabled


def test_the_user_sees_a_notification(widget):
    widget.run()
    assert "no image layer" in notification_manager.records[-1].message
    notification_manager.records.clear()


def test_wrong_weights(qtbot, viewer, widget, patterns, complaints, tmp_path):
    viewer.add_image(patterns[0].data)
    widget.weights.value = tmp_path / "nothing.safetensors"
    run(qtbot, widget)
    [message] = complaints
    assert "nothing.safetensors" in message
    assert "\n" not in message
    assert widget.summary.value == f"failed: {message}"
    assert not widget.cancel_button.enabled
    assert len(viewer.layers) == 1


def test_a_network_of_ones_own_is_offered_by_name(
    qtbot, viewer, patterns, weights_file, monkeypatch, tmp_path
):
    from napari_sadp.models import predict
    from napari_sadp.models.registry import BUNDLED, PACKAGED, WEIGHTS_VARIABLE, add_weights

    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "own"))
    add_weights(weights_file, "mine")
    _, widget = viewer.window.add_plugin_dock_widget("napari-sadp", "Identify")
    assert list(widget.network.choices) == [*PACKAGED, "mine"]
    assert widget.network.value == BUNDLED
    asked = []
    load = predict.load_classifier
    monkeypatch.setattr(
        predict, "load_classifier", lambda weights, device: asked.append(weights) or load(weights, device)
    )
    widget.device.value = "cpu"
    widget.network.value = "mine"
    viewer.add_image(patterns[0].data)
    run(qtbot, widget)
    assert asked == ["mine"]


def test_a_failing_device_is_reported(qtbot, viewer, widget, patterns, complaints, monkeypatch):
    from napari_sadp.models import predict

    def full(*_):
        raise RuntimeError("out of memory\nTraceback of the driver")

    monkeypatch.setattr(predict, "load_classifier", full)
    viewer.add_image(patterns[0].data)
    run(qtbot, widget)
    assert complaints == ["the network cannot run on device 'cpu': out of memory"]


def test_an_unforeseen_error_does_not_lock_the_widget(
    qtbot, viewer, widget, patterns, complaints, monkeypatch
):
    def broken(*_, **__):
        raise KeyError("something")

    monkeypatch.setattr(_work, "identify_pattern", broken)
    viewer.add_image(patterns[0].data)
    run(qtbot, widget)
    assert complaints == ["'something'"]
    assert widget.run_button.enabled


def test_a_layer_removed_during_the_run(qtbot, viewer, widget, patterns, complaints):
    image = viewer.add_image(patterns[0].data, name="gone")
    widget.run()
    viewer.layers.remove(image)
    finish(qtbot, widget)
    assert not viewer.layers
    assert widget.pattern_table.rowCount() == 1
    assert "gone" in complaints[0]
    widget.pattern_table.selectRow(0)  # nothing to show, and nothing happens


def test_a_closed_dock_stops_the_run(qtbot, viewer, widget, patterns):
    viewer.add_image(np.stack([patterns[0].data] * 6))
    worker = widget.run()
    ended: list[bool] = []
    worker.finished.connect(lambda: ended.append(True))
    viewer.window.remove_dock_widget("all")
    widget.native.deleteLater()
    qtbot.waitUntil(lambda: bool(ended), timeout=WAIT_MS)
    assert worker.abort_requested
    assert len(viewer.layers) == 1
