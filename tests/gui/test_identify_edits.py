"""Results that the user changes in the viewer: drag, delete, move, paint; and everything after follows."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from napari.utils._test_utils import read_only_mouse_event
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from support.identify_widget import WAIT_MS, add_stack, results_of, run, settle

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.edit import Edits, analyse_edited
from napari_sadp.geometry.results import SpotList
from napari_sadp.identify import combine_results
from napari_sadp.report_lattice import with_error
from napari_sadp.widgets import _edit, identify
from napari_sadp.widgets._edit import PATIENCE_MS


@pytest.fixture
def widget(identify_widget):
    return identify_widget


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(identify, "show_error", shown.append)
    return shown


@pytest.fixture
def calls(monkeypatch) -> list[dict[int, Edits]]:
    """What was asked of the other thread."""
    made: list[dict[int, Edits]] = []
    work = _edit.reanalyse

    def noted(frames, changes, options, ticket):
        assert threading.current_thread() is not threading.main_thread()
        made.append(changes)
        return work(frames, changes, options, ticket)

    monkeypatch.setattr(_edit, "reanalyse", noted)
    return made


def drag(layer, start, end) -> None:
    """Press the mouse at one position of a layer, move, and let it go at another [px of the layer]."""
    displayed = list(layer._slice_input.displayed)

    def event(kind, position, pressed):
        return read_only_mouse_event(
            type=kind,
            is_dragging=pressed,
            position=tuple(layer.data_to_world(position)),
            view_direction=None,
            dims_displayed=displayed,
            modifiers=(),
            pos=np.zeros(2),
        )

    mouse_press_callbacks(layer, event("mouse_press", start, False))
    for step in (0.3, 0.7, 1.0):
        place = np.asarray(start) + step * (np.asarray(end) - np.asarray(start))
        mouse_move_callbacks(layer, event("mouse_move", place, True))
    mouse_release_callbacks(layer, event("mouse_release", end, False))


def table_row(widget, row: int) -> dict[str, str]:
    table = widget.pattern_table
    headers = [table.horizontalHeaderItem(i).text() for i in range(table.columnCount())]
    return dict(zip(headers, table.row_text(row), strict=True))


def rows_of(layer, frame: int) -> np.ndarray:
    data = np.asarray(layer.data)
    return data[data[:, 0] == frame][:, 1:]


@pytest.fixture
def stack(qtbot, viewer, widget, patterns, stack_keywords):
    """[001] and [011] as one stack, identified, its second frame shown."""
    image = add_stack(viewer, patterns, stack_keywords)
    widget.nodes.value = True
    run(qtbot, widget)
    viewer.dims.set_current_step(0, 1)
    return image


def assert_shows(widget, layers, core, frame: int = 1) -> None:
    """Compare table and layers of a frame with an analysis by the core."""
    lattice = core.lattice
    row = table_row(widget, frame)
    log_ratio_error, angle_error = np.sqrt(np.diag(lattice.shape_covariance()))
    assert row["|g2|/|g1|"] == with_error(lattice.ratio, lattice.ratio * log_ratio_error)
    assert row["Angle °"] == with_error(lattice.angle_deg, np.degrees(angle_error))
    assert int(row["Spots"]) == lattice.n_spots
    assert [float(x) for x in row["Beam px"].split(",")] == pytest.approx(core.beam.rc, abs=0.06)
    assert rows_of(layers["beam"], frame)[0] == pytest.approx(core.beam.rc, abs=2e-3)
    tips = lattice.beam_rc + np.stack([lattice.g1_px, lattice.g2_px])
    assert rows_of(layers["vectors"], frame) == pytest.approx(tips, abs=2e-3)
    arrows = layers["lattice"].data[layers["lattice"].data[:, 0, 0] == frame]
    assert arrows[:, 0, 1:] == pytest.approx(np.tile(lattice.beam_rc, (2, 1)), abs=2e-3)
    assert arrows[:, 1, 1:] == pytest.approx(np.stack([lattice.g1_px, lattice.g2_px]), abs=2e-3)
    spots = rows_of(layers["spots"], frame)
    assert sorted(spots.tolist()) == pytest.approx(np.array(sorted(core.spots.rc.tolist())), abs=2e-3)
    here = np.asarray(layers["nodes"].data)[:, 0] == frame
    nodes = layers["nodes"].features[here]
    found = dict(zip(zip(nodes["m"], nodes["n"], strict=True), nodes["state"], strict=True))
    words = {1: "present", 0: "absent", -1: "unknown"}
    assert found == {
        tuple(node): words[state]
        for node, state in zip(core.nodes.indices.tolist(), core.nodes.state.tolist(), strict=True)
    }
    # what the layers say of the classes is in the outcome
    outcome = widget.outcome.found
    assert outcome.patterns[frame].lattice.g1_px == pytest.approx(lattice.g1_px)
    again = combine_results(outcome.patterns, rule="product")
    assert outcome.space_groups.probabilities == pytest.approx(again.space_groups.probabilities)
    shown = [float(widget.group_table.row_text(i)[1]) for i in range(widget.group_table.rowCount() - 1)]
    assert shown == pytest.approx(outcome.space_groups.probabilities, abs=6e-4)


gui = pytest.mark.gui


# ---- beam --------------------------------------------------------------------------------------------------------


@gui
def test_dragging_the_beam_analyses_the_frame_again(qtbot, viewer, widget, stack, patterns, calls):
    layers = results_of(viewer, stack)
    first, other = widget.outcome.frames[1], widget.outcome.frames[0]
    others = {role: rows_of(layers[role], 0).copy() for role in ("beam", "spots", "vectors", "nodes")}
    beam = layers["beam"]
    viewer.layers.selection.active = beam
    start = beam.data[1]
    node = first.result.lattice.node_rc(np.array([[0, -1]]))[0] + np.array([0.6, -0.4])
    drag(beam, start, [1, *node])
    settle(qtbot, widget)
    assert_shows(widget, layers, analyse_pattern(patterns[1], beam_rc=node))
    assert rows_of(beam, 1)[0] == pytest.approx(node)
    assert beam.features["method"].tolist()[1] == "given"
    assert table_row(widget, 1)["Pattern"] == "frame 1 (edited)"
    # the other frame is untouched
    assert widget.outcome.frames[0] is other
    assert table_row(widget, 0)["Pattern"] == "frame 0"
    for role, rows in others.items():
        np.testing.assert_array_equal(rows_of(layers[role], 0), rows)
    # and nothing follows from what was written
    settle_for = time.monotonic() + 3 * PATIENCE_MS / 1000
    qtbot.waitUntil(lambda: time.monotonic() > settle_for, timeout=WAIT_MS)
    assert [list(changes) for changes in calls] == [[1]]
    assert not widget._editor.busy


@gui
def test_a_single_frame_of_oblong_pixels(qtbot, viewer, widget, patterns):
    image = viewer.add_image(patterns[0].data[:, ::2], scale=(0.125, 0.25), units=("1/nm", "1/nm"))
    run(qtbot, widget)
    source = widget.outcome.frames[0].source
    beam = results_of(viewer, image)["beam"]
    node = widget.outcome.frames[0].result.lattice.node_rc(np.array([[0, 1]]))[0]
    place = source.to_layer(node[None])[0]
    drag(beam, beam.data[0], place)
    settle(qtbot, widget)
    core = analyse_pattern(source.load(0), beam_rc=node)
    found = widget.outcome.frames[0].result
    assert found.beam.rc == pytest.approx(node)
    assert found.lattice.beam_rc == pytest.approx(core.lattice.beam_rc)
    assert beam.data == pytest.approx(place[None])
    arrows = results_of(viewer, image)["lattice"].data
    assert arrows[:, 0] == pytest.approx(np.tile(source.to_layer(core.lattice.beam_rc[None]), (2, 1)))


@gui
def test_a_deleted_beam_is_found_again(qtbot, viewer, widget, stack):
    layers = results_of(viewer, stack)
    before = rows_of(layers["beam"], 1)
    layers["beam"].selected_data = {1}
    layers["beam"].data = layers["beam"].data + np.array([[0, 0, 0], [0, 0.5, 0.5]])
    settle(qtbot, widget)
    assert rows_of(layers["beam"], 1) == pytest.approx(before + 0.5)
    layers["beam"].selected_data = {1}
    layers["beam"].remove_selected()
    settle(qtbot, widget)
    assert rows_of(layers["beam"], 1) == pytest.approx(before)
    assert table_row(widget, 1)["Pattern"] == "frame 1"


@gui
def test_a_second_beam_point_takes_the_place_of_the_first(qtbot, viewer, widget, stack):
    layers = results_of(viewer, stack)
    node = widget.outcome.frames[0].result.lattice.node_rc(np.array([[1, 0]]))[0]
    layers["beam"].add([[0, *node]])
    settle(qtbot, widget)
    assert rows_of(layers["beam"], 0) == pytest.approx(node[None])
    assert widget.outcome.frames[0].result.beam.method == "given"


# ---- spots -------------------------------------------------------------------------------------------------------


@gui
def test_deleting_a_spot_fits_the_lattice_without_it(qtbot, viewer, widget, stack, patterns):
    layers = results_of(viewer, stack)
    found = widget.outcome.frames[1].result
    distance = np.linalg.norm(found.spots.rc - found.beam.rc, axis=1) * found.lattice.indexed
    number = int(np.argmax(distance))
    spots = layers["spots"]
    place = found.spots.rc[number]
    [row] = np.flatnonzero(np.all(np.isclose(spots.data, [1, *place]), axis=1))
    keep = np.arange(len(found.spots)) != number
    spots.selected_data = {int(row)}
    spots.remove_selected()
    settle(qtbot, widget)
    kept = SpotList(
        found.spots.rc[keep], found.spots.intensity[keep], found.spots.snr[keep], found.spots.sigma_px
    )
    core = analyse_edited(patterns[1], Edits(spots=kept, removed_rc=place[None]))
    assert core.lattice.n_spots == found.lattice.n_spots - 1
    assert_shows(widget, layers, core)
    assert len(spots.features) == len(spots.size) == len(spots.border_color) == len(spots.data)
    # a second one, after the first was followed
    spots.selected_data = {len(spots.data) - 1}
    last = spots.data[-1, 1:].copy()
    spots.remove_selected()
    settle(qtbot, widget)
    edits = widget.outcome.frames[1].edits
    assert edits.removed_rc == pytest.approx(np.array([place, last]))
    assert len(rows_of(spots, 1)) == len(found.spots) - 2


@gui
def test_an_added_spot_moves_to_its_maximum(qtbot, viewer, widget, stack):
    layers = results_of(viewer, stack)
    found = widget.outcome.frames[1].result
    number = int(np.argmin(np.linalg.norm(found.spots.rc - found.lattice.node_rc([[1, 0]]), axis=1)))
    place = found.spots.rc[number]
    [row] = np.flatnonzero(np.all(np.isclose(layers["spots"].data, [1, *place]), axis=1))
    layers["spots"].selected_data = {int(row)}
    layers["spots"].remove_selected()
    layers["spots"].add([[1, *(place + 1)]])
    settle(qtbot, widget)
    now = widget.outcome.frames[1].result
    assert now.lattice.n_spots == found.lattice.n_spots
    assert np.linalg.norm(rows_of(layers["spots"], 1) - place, axis=1).min() < 0.4
    assert len(rows_of(layers["spots"], 1)) == len(found.spots)
    assert np.isfinite(layers["spots"].features["intensity"].astype(float)).all()


@gui
def test_too_few_spots_are_refused_and_a_lattice_by_hand_still_counts(qtbot, viewer, widget, stack):
    layers = results_of(viewer, stack)
    found = widget.outcome.frames[1].result
    tips = rows_of(layers["vectors"], 1)
    here = np.flatnonzero(layers["spots"].data[:, 0] == 1)
    layers["spots"].selected_data = {int(i) for i in here[3:]}
    layers["spots"].remove_selected()
    settle(qtbot, widget)
    assert table_row(widget, 1)["Class"].startswith("refused: too few spots: 3 spots")
    assert widget.pattern_table.columnSpan(1, 1) > 1
    assert not len(rows_of(layers["vectors"], 1))
    assert not np.any(layers["lattice"].data[:, 0, 0] == 1)
    assert widget.outcome.found.n_used == 1
    assert len(rows_of(layers["spots"], 1)) == 3
    # the user knows better
    layers["vectors"].add([[1, *tip] for tip in tips])
    settle(qtbot, widget)
    assert widget.outcome.found.n_used == 2
    assert widget.pattern_table.columnSpan(1, 1) == 1
    # three spots fix the angle to a degree or so, and it is shown with no more digits than that
    angle = float(table_row(widget, 1)["Angle °"].partition("(")[0])
    assert angle == pytest.approx(found.lattice.angle_deg, abs=0.6)
    assert np.count_nonzero(layers["lattice"].data[:, 0, 0] == 1) == 2
    assert "lattice vectors given by the user" in widget.outcome.frames[1].result.notes


# ---- lattice -----------------------------------------------------------------------------------------------------


@gui
def test_moving_a_lattice_vector_changes_lattice_nodes_class_and_groups(
    qtbot, viewer, widget, stack, patterns
):
    layers = results_of(viewer, stack)
    found = widget.outcome.frames[1].result
    groups = widget.outcome.found.space_groups
    vectors = layers["vectors"]
    viewer.layers.selection.active = vectors
    [number] = np.flatnonzero(
        np.all(np.isclose(vectors.data, [1, *(found.lattice.beam_rc + found.lattice.g1_px)]), axis=1)
    )
    half = found.beam.rc + 0.5 * found.lattice.g1_px + np.array([0.4, 0.3])
    drag(vectors, vectors.data[number], [1, *half])
    settle(qtbot, widget)
    core = analyse_edited(
        patterns[1],
        Edits(
            beam_rc=found.beam.rc,
            spots=None,
            basis_px=np.stack([half - found.beam.rc, found.lattice.g2_px]),
        ),
    )
    assert np.linalg.norm(core.lattice.g1_px) == pytest.approx(
        0.5 * np.linalg.norm(found.lattice.g1_px), rel=0.01
    )
    assert_shows(widget, layers, core)
    assert table_row(widget, 1)["By lattice"] != "D1-0"
    assert not np.allclose(widget.outcome.found.space_groups.probabilities, groups.probabilities, atol=1e-3)
    # a deleted tip gives the word back to the search
    vectors.selected_data = {int(np.flatnonzero(vectors.data[:, 0] == 1)[0])}
    vectors.remove_selected()
    settle(qtbot, widget)
    assert np.linalg.norm(widget.outcome.frames[1].result.lattice.g1_px) == pytest.approx(
        np.linalg.norm(found.lattice.g1_px), rel=1e-3
    )
    assert len(rows_of(vectors, 1)) == 2


@gui
def test_tips_before_the_beam_wait_for_it(qtbot, viewer, widget, patterns, stack_keywords):
    blank = np.random.default_rng(7).poisson(50, (256, 256)).astype(np.float32)
    image = viewer.add_image(np.stack([patterns[0].data, blank]), name="stack", **stack_keywords)
    run(qtbot, widget)
    assert widget.outcome.frames[1].result.beam is None
    layers = results_of(viewer, image)
    layers["vectors"].add([1, 120.0, 160.0])
    settle(qtbot, widget)
    # what else is done to the frame leaves the tip alone
    mask = widget.edit.make_mask()
    mask.data_setitem((np.array([1]), np.array([3]), np.array([4])), 1)
    settle(qtbot, widget)
    assert widget.outcome.frames[1].edits.mask is not None
    assert rows_of(layers["vectors"], 1) == pytest.approx(np.array([[120.0, 160.0]]))
    layers["vectors"].add([1, 90.0, 130.0])
    settle(qtbot, widget)
    layers["spots"].add([1, 120.0, 160.0])
    layers["beam"].add([1, 120.0, 130.0])
    settle(qtbot, widget)
    edits = widget.outcome.frames[1].edits
    assert edits.beam_rc == pytest.approx([120, 130])
    assert edits.basis_px == pytest.approx(np.array([[0, 30], [-30, 0]]))
    assert len(rows_of(layers["vectors"], 1)) == 2
    lattice = widget.outcome.frames[1].result.lattice
    assert np.linalg.norm(lattice.g1_px) == pytest.approx(30, rel=0.01)


# ---- mask --------------------------------------------------------------------------------------------------------


@gui
def test_painting_and_undoing_a_mask(qtbot, viewer, widget, stack, patterns, calls):
    layers = results_of(viewer, stack)
    before = widget.outcome
    mask = widget.edit.make_mask()
    assert widget.edit.mask.value is mask
    assert mask.data.shape == (2, 256, 256)
    assert np.allclose(mask.scale, stack.scale)
    assert np.allclose(mask.translate, stack.translate)
    settle(qtbot, widget)
    assert not calls  # an empty mask changes nothing
    rows, cols = np.mgrid[20:90, 60:200]
    mask.data_setitem((np.full(rows.size, 1), rows.ravel(), cols.ravel()), 1)
    settle(qtbot, widget)
    painted = np.zeros((256, 256), bool)
    painted[20:90, 60:200] = True
    core = analyse_pattern(patterns[1], mask=painted)
    assert core.lattice.n_spots < before.frames[1].result.lattice.n_spots
    assert_shows(widget, layers, core)
    assert widget.outcome.frames[0] is before.frames[0]
    assert table_row(widget, 1)["Pattern"] == "frame 1 (edited)"
    mask.undo()
    settle(qtbot, widget)
    assert_shows(widget, layers, analyse_pattern(patterns[1]))
    assert table_row(widget, 1)["Pattern"] == "frame 1"
    mask.redo()
    settle(qtbot, widget)
    assert widget.outcome.frames[1].result.lattice.n_spots == core.lattice.n_spots
    # another choice is another mask
    widget.edit.mask.value = None
    settle(qtbot, widget)
    assert widget.outcome.frames[1].result.lattice.n_spots == before.frames[1].result.lattice.n_spots
    assert [list(changes) for changes in calls] == [[1]] * 4


@gui
def test_a_mask_and_a_beam_in_the_run_itself(qtbot, viewer, widget, patterns, stack_keywords):
    image = add_stack(viewer, patterns, stack_keywords)
    painted = np.zeros((256, 256), np.uint8)
    painted[:60] = 3
    mask = viewer.add_labels(painted, name="cover", scale=image.scale[1:], translate=image.translate[1:])
    node = analyse_pattern(patterns[0]).lattice.node_rc(np.array([[0, 1]]))[0]
    beam = viewer.add_points([[0, *node]], name="my beam", scale=image.scale, translate=image.translate)
    widget.edit.mask.value, widget.edit.beam.value = mask, beam
    viewer.layers.selection = {image}
    run(qtbot, widget)
    first, second = (item.result for item in widget.outcome.frames)
    expected = analyse_pattern(patterns[0], mask=painted > 0, beam_rc=node)
    assert first.beam.rc == pytest.approx(node)
    assert first.lattice.n_spots == expected.lattice.n_spots
    assert second.lattice.n_spots == analyse_pattern(patterns[1], mask=painted > 0).lattice.n_spots
    assert second.beam.method != "given"
    assert {layer.name for layer in viewer.layers} >= {"cover", "my beam", "stack beam"}


@gui
def test_beams_that_were_dragged_are_kept_where_their_layer_is_chosen(qtbot, viewer, widget, stack):
    beam = results_of(viewer, stack)["beam"]
    node = widget.outcome.frames[0].result.lattice.node_rc(np.array([[1, 0]]))[0]
    beam.data = np.array([[0, *node], beam.data[1]])
    settle(qtbot, widget)
    widget.edit.beam.value = beam
    run(qtbot, widget)
    again = results_of(viewer, stack)["beam"]
    assert again is not beam
    assert widget.edit.beam.value is again
    assert rows_of(again, 0)[0] == pytest.approx(node)


@gui
def test_a_mask_of_another_shape_is_named(qtbot, viewer, widget, stack, complaints):
    mask = viewer.add_labels(np.zeros((10, 10), np.uint8), name="small")
    widget.edit.mask.value = mask
    settle(qtbot, widget)
    [message] = complaints
    assert message.startswith("mask layer 'small' has shape (10, 10), expected (256, 256)")
    viewer.layers.selection = {stack}
    assert widget.run() is None
    assert len(complaints) == 2


# ---- order, ends, faults -----------------------------------------------------------------------------------------


@gui
def test_of_two_changes_the_later_counts(qtbot, viewer, widget, stack, monkeypatch):
    layers = results_of(viewer, stack)
    lattice = widget.outcome.frames[1].result.lattice
    nodes = lattice.node_rc(np.array([[1, 0], [0, 1]]))
    started, go = threading.Event(), threading.Event()
    work = _edit.reanalyse

    def slow(*arguments):
        started.set()
        go.wait(WAIT_MS / 1000)
        return work(*arguments)

    monkeypatch.setattr(_edit, "reanalyse", slow)
    beam = layers["beam"]
    beam.data = np.array([beam.data[0], [1, *nodes[0]]])
    qtbot.waitUntil(started.is_set, timeout=WAIT_MS)
    assert widget.cancel_button.enabled
    beam.data = np.array([beam.data[0], [1, *nodes[1]]])
    go.set()
    settle(qtbot, widget)
    assert rows_of(beam, 1)[0] == pytest.approx(nodes[1])
    assert widget.outcome.frames[1].result.beam.rc == pytest.approx(nodes[1])
    assert not widget.cancel_button.enabled
    assert not widget.summary.value.startswith("analysing")


@gui
def test_cancel_forgets_the_change_until_the_next(qtbot, viewer, widget, stack, monkeypatch):
    beam = results_of(viewer, stack)["beam"]
    old = widget.outcome.frames[0].result.beam.rc
    node = widget.outcome.frames[0].result.lattice.node_rc(np.array([[1, 0]]))[0]
    beam.data = np.array([[0, *node], beam.data[1]])
    qtbot.waitUntil(lambda: widget._editor._runner.busy, timeout=WAIT_MS)
    widget.cancel()
    settle(qtbot, widget)
    assert widget.outcome.frames[0].result.beam.rc == pytest.approx(old)
    beam.data = np.array([[0, *node], beam.data[1] + np.array([0, 0.2, 0.2])])
    settle(qtbot, widget)
    assert widget.outcome.frames[0].result.beam.rc == pytest.approx(node)


@gui
def test_a_removed_layer_does_not_come_back_by_itself(qtbot, viewer, widget, stack):
    layers = results_of(viewer, stack)
    assert all(button.enabled for button in widget.edit.buttons.values())
    viewer.layers.remove(layers["vectors"])
    assert not widget.edit.buttons["vectors"].enabled
    layers["beam"].data = layers["beam"].data + np.array([[0, 0, 0], [0, 0.2, 0.2]])
    settle(qtbot, widget)
    assert "vectors" not in results_of(viewer, stack)
    assert widget.outcome.frames[1].result.beam.method == "given"


@gui
def test_an_image_that_was_removed_keeps_its_results_editable(qtbot, viewer, widget, stack):
    layers = results_of(viewer, stack)
    viewer.layers.remove(stack)
    layers["beam"].data = layers["beam"].data + np.array([[0, 0, 0], [0, 0.2, 0.2]])
    settle(qtbot, widget)
    assert widget.outcome.frames[1].result.beam.method == "given"


@gui
def test_the_buttons_choose_the_layer_and_the_run_its_image(viewer, widget, stack):
    layers = results_of(viewer, stack)
    for role, button in widget.edit.buttons.items():
        button.clicked.emit(True)
        assert viewer.layers.selection.active is layers[role]
        assert layers[role].mode == "select"
        assert widget.source_layers() == [stack]


@gui
def test_an_error_is_shown_and_the_next_change_tries_again(
    qtbot, viewer, widget, stack, complaints, monkeypatch
):
    beam = results_of(viewer, stack)["beam"]
    work = _edit.reanalyse

    def broken(*_):
        raise ValueError("the weights\nare gone")

    monkeypatch.setattr(_edit, "reanalyse", broken)
    beam.data = beam.data + np.array([[0, 0.2, 0.2], [0, 0, 0]])
    settle(qtbot, widget)
    assert complaints == ["the weights are gone"]
    assert widget.summary.value == "failed: the weights are gone"
    monkeypatch.setattr(_edit, "reanalyse", work)
    beam.data = beam.data + np.array([[0, 0, 0], [0, 0.2, 0.2]])
    settle(qtbot, widget)
    assert [item.result.beam.method for item in widget.outcome.frames] == ["given", "given"]


@gui
def test_a_closed_dock_follows_nothing(qtbot, viewer, widget, stack, calls):
    beam = results_of(viewer, stack)["beam"]
    viewer.window.remove_dock_widget("all")
    widget.native.deleteLater()
    qtbot.wait(50)
    beam.data = beam.data + 0.2
    qtbot.wait(2 * PATIENCE_MS)
    assert not calls
