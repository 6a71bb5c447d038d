"""What the user does while a run goes on is neither lost nor mixed with what comes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.identify_widget import WAIT_MS, add_stack, finish, results_of, run, settle

from napari_sadp.models import predict
from napari_sadp.widgets import _work
from napari_sadp.widgets._layers import EDITABLE

gui = pytest.mark.gui


@pytest.fixture
def widget(identify_widget):
    return identify_widget


@pytest.fixture
def stack(qtbot, viewer, widget, patterns, stack_keywords):
    """[001] and [011] as one stack, identified."""
    image = add_stack(viewer, patterns, stack_keywords)
    run(qtbot, widget)
    return image


@pytest.fixture
def gate(monkeypatch):
    """A run waits for its network until this is set."""
    load, opened = predict.load_classifier, threading.Event()

    def slow(*arguments, **keywords):
        opened.wait(WAIT_MS / 1000)
        return load(*arguments, **keywords)

    monkeypatch.setattr(predict, "load_classifier", slow)
    yield opened
    opened.set()


def drop_last_spot(viewer, image) -> None:
    spots = results_of(viewer, image)["spots"]
    spots.selected_data = {len(spots.data) - 1}
    spots.remove_selected()


@gui
def test_what_was_changed_during_a_run_counts_after_it(qtbot, viewer, widget, stack, gate):
    old, before = results_of(viewer, stack), widget.outcome
    assert widget.run() is not None
    drop_last_spot(viewer, stack)
    gate.set()
    finish(qtbot, widget)
    settle(qtbot, widget)
    new = results_of(viewer, stack)
    assert all(new[role] is not old[role] for role in EDITABLE)
    first, second = (item.result.spots for item in widget.outcome.frames)
    assert len(first) == len(before.frames[0].result.spots)
    assert len(second) == len(before.frames[1].result.spots) - 1
    assert len(new["spots"].data) == len(first) + len(second)
    # and in the next run
    run(qtbot, widget)
    assert "Corrections by hand of 1 frame kept" in widget.summary.value


@gui
def test_a_run_that_ends_without_results_leaves_those_of_before(qtbot, viewer, widget, stack, gate):
    old, before = results_of(viewer, stack), widget.outcome
    table = [widget.pattern_table.row_text(row) for row in range(2)]
    groups = widget.group_table.rowCount()
    assert widget.run() is not None
    assert widget.pattern_table.rowCount() == 0
    drop_last_spot(viewer, stack)
    widget.cancel()
    gate.set()
    finish(qtbot, widget)
    assert widget.summary.value == (
        "cancelled before the first pattern was done; the results of the run before are still there"
    )
    assert widget.outcome is before
    assert [widget.pattern_table.row_text(row) for row in range(2)] == table
    assert widget.source_layers() == [stack]
    assert widget.group_table.rowCount() == groups > 0
    assert results_of(viewer, stack) == old
    # and they are followed as before, also what was changed meanwhile
    settle(qtbot, widget)
    assert widget.outcome.frames[1].edits.any
    assert widget.pattern_table.row_text(1)[0].endswith("(edited)")


@gui
def test_a_run_that_fails_leaves_the_results_of_before(qtbot, viewer, widget, stack, tmp_path, monkeypatch):
    from napari_sadp.widgets import identify

    monkeypatch.setattr(identify, "show_error", lambda text: None)
    before = widget.outcome
    widget.weights.value = tmp_path / "nothing.safetensors"
    run(qtbot, widget)
    assert widget.summary.value.startswith("failed: ")
    assert widget.outcome is before
    assert widget.pattern_table.rowCount() == 2
    drop_last_spot(viewer, stack)
    settle(qtbot, widget)
    assert widget.outcome.frames[1].edits.any


@gui
def test_a_change_that_waits_when_a_run_begins_is_not_lost_with_it(qtbot, viewer, widget, stack, gate):
    drop_last_spot(viewer, stack)
    assert widget.run() is not None  # at once
    widget.cancel()
    gate.set()
    finish(qtbot, widget)
    settle(qtbot, widget)
    assert widget.outcome.frames[1].edits.any


@gui
def test_cancel_in_the_last_step(qtbot, viewer, widget, stack, monkeypatch):
    combine, opened, entered = _work.combine_frames, threading.Event(), threading.Event()

    def slow(*arguments, **keywords):
        entered.set()
        opened.wait(WAIT_MS / 1000)
        return combine(*arguments, **keywords)

    monkeypatch.setattr(_work, "combine_frames", slow)
    before = widget.outcome
    assert widget.run() is not None
    qtbot.waitUntil(entered.is_set, timeout=WAIT_MS)
    widget.cancel()
    opened.set()
    finish(qtbot, widget)
    assert widget.summary.value.startswith("cancelled after 2 of 2 patterns")
    assert widget.outcome is not before
    drop_last_spot(viewer, stack)
    settle(qtbot, widget)
    assert widget.outcome.frames[1].edits.any


@gui
def test_a_beam_that_a_cancelled_run_was_given_is_no_correction(qtbot, viewer, widget, stack, gate):
    layer = widget.edit.make_beam()
    beam = widget.outcome.frames[0].result.beam.rc
    layer.add([0, *beam])
    viewer.layers.selection = {stack}
    assert widget.run() is not None
    widget.cancel()
    gate.set()
    finish(qtbot, widget)
    run(qtbot, widget)
    assert widget.outcome.frames[0].edits.beam_rc == pytest.approx(beam)
    assert "Corrections" not in widget.summary.value


@gui
def test_a_mask_that_is_painted_during_a_run_counts_after_it(qtbot, viewer, widget, stack, gate):
    mask = widget.edit.make_mask()
    viewer.layers.selection = {stack}
    settle(qtbot, widget)
    assert widget.run() is not None
    rows, cols = np.mgrid[20:90, 60:200]
    mask.data_setitem((np.full(rows.size, 1), rows.ravel(), cols.ravel()), 1)
    gate.set()
    finish(qtbot, widget)
    settle(qtbot, widget)
    assert widget.outcome.frames[1].edits.mask is not None
    assert widget.outcome.frames[0].edits.mask is None
