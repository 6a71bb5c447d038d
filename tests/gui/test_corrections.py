"""Corrections by hand survive a new run, until they are dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image
from support.identify_widget import add_stack, results_of, run, settle

from napari_sadp.geometry.edit import Edits
from napari_sadp.geometry.results import SpotList
from napari_sadp.widgets import identify
from napari_sadp.widgets._corrections import Corrections
from napari_sadp.widgets._sources import source_from_layer

SPOTS = SpotList(np.ones((2, 2)), np.ones(2), np.ones(2), 2.0)
HERE, THERE, ELSEWHERE = (np.array(rc) for rc in ([9.0, 9.0], [20.0, 21.0], [5.0, 30.0]))


# ---- without a window --------------------------------------------------------------------------------------------


@pytest.fixture
def source():
    return source_from_layer(Image(np.ones((3, 32, 40)), name="stack"))


def started(corrections, source, *, beam=None, mask=None, frame=1) -> Edits:
    """What a run of one frame starts from, with what other layers give."""
    key = source.layer_id, frame
    given = {} if beam is None and mask is None else {key: Edits(beam_rc=beam, mask=mask)}
    start = corrections.start([replace(source, frames=(frame,))], given)
    return start.edits.get(key, Edits())


def test_spots_and_vectors_are_kept_and_the_mask_is_that_of_now(source):
    corrections = Corrections()
    mask = np.ones((32, 40), bool)
    basis = np.diag([5.0, 6.0])
    corrections.read(
        [
            (source, 1, Edits(spots=SPOTS, removed_rc=HERE[None], mask=mask)),
            (source, 2, Edits(beam_rc=HERE, basis_px=basis)),
            (source, 0, Edits(mask=mask)),
        ]
    )
    start = corrections.start([source], {})
    assert set(start.edits) == {(source.layer_id, 1), (source.layer_id, 2)}
    kept = start.edits[source.layer_id, 1]
    assert (kept.spots, kept.mask) == (SPOTS, None)
    assert kept.removed_rc == pytest.approx(HERE[None])
    assert start.edits[source.layer_id, 2].basis_px == pytest.approx(basis)
    assert (start.n_kept, start.n_waiting, start.changed) == (2, 0, ())
    assert start.text == "Corrections by hand of 2 frames kept; Reset drops them."
    other = ~mask
    start = corrections.start(
        [replace(source, frames=(1,))], {(source.layer_id, 1): Edits(beam_rc=THERE, mask=other)}
    )
    kept = start.edits[source.layer_id, 1]
    assert kept.mask is other
    assert kept.beam_rc == pytest.approx(THERE)
    assert start.text.startswith(
        "Corrections by hand of 1 frame kept, of 1 frame outside of this run remembered;"
    )


def test_what_was_taken_back_is_no_correction(source):
    corrections = Corrections()
    corrections.read([(source, 1, Edits(beam_rc=HERE))])
    assert corrections.of_layers({source.layer_id})
    corrections.read([(source, 1, Edits())])
    assert not corrections.of_layers({source.layer_id})
    assert corrections.start([source], {}).text == ""


def test_a_beam_that_a_layer_gave_is_no_correction(source):
    corrections = Corrections()
    assert started(corrections, source, beam=HERE).beam_rc is HERE
    corrections.read([(source, 1, Edits(beam_rc=HERE))])
    # the layer is not chosen any more
    assert started(corrections, source).beam_rc is None


def test_of_a_dragged_beam_and_one_of_a_layer_the_later_counts(source):
    corrections = Corrections()
    started(corrections, source, beam=HERE)
    corrections.read([(source, 1, Edits(beam_rc=THERE))])  # dragged after the layer was read
    assert started(corrections, source, beam=HERE).beam_rc == pytest.approx(THERE)
    assert started(corrections, source).beam_rc == pytest.approx(THERE)
    assert started(corrections, source, beam=ELSEWHERE).beam_rc == pytest.approx(ELSEWHERE)
    corrections.read([(source, 1, Edits(beam_rc=ELSEWHERE))])
    assert started(corrections, source).beam_rc is None


def test_a_dragged_beam_that_its_own_layer_gives_stays_a_correction(source):
    corrections = Corrections()
    corrections.read([(source, 1, Edits(beam_rc=HERE))])
    assert started(corrections, source, beam=HERE).beam_rc == pytest.approx(HERE)
    corrections.read([(source, 1, Edits(beam_rc=HERE))])
    assert started(corrections, source).beam_rc == pytest.approx(HERE)


def test_a_given_beam_that_was_deleted_stays_deleted(source):
    corrections = Corrections()
    started(corrections, source, beam=HERE)
    corrections.read([(source, 1, Edits())])
    assert started(corrections, source, beam=HERE).beam_rc is None
    assert started(corrections, source, beam=THERE).beam_rc == pytest.approx(THERE)


def test_vectors_keep_the_beam_that_they_start_from(source):
    corrections = Corrections()
    started(corrections, source, beam=HERE)
    corrections.read([(source, 1, Edits(beam_rc=HERE, basis_px=np.eye(2) * 9))])
    kept = started(corrections, source)
    assert kept.beam_rc == pytest.approx(HERE)
    assert kept.basis_px == pytest.approx(np.eye(2) * 9)


@pytest.mark.parametrize("change", ["data", "proportions"])
def test_corrections_do_not_pass_to_other_frames(change):
    image = Image(np.ones((3, 32, 40)), name="live")
    source = source_from_layer(image)
    corrections = Corrections()
    corrections.read([(source, 1, Edits(spots=SPOTS)), (source, 2, Edits(spots=SPOTS))])
    if change == "data":
        image.data = np.zeros((3, 32, 40))
    else:
        image.scale = (1, 1, 2)
        image.units = ("pixel", "1/nm", "1/nm")
    start = corrections.start([source_from_layer(image, (1,))], {})
    assert start.changed == ("live",)
    assert not start.edits
    assert not corrections.of_layers({source.layer_id})


@pytest.mark.parametrize(
    "data", [np.ones((2, 32, 40)), [np.ones((64, 64)), np.ones((32, 32))], np.ones((32, 40, 3), np.uint8)]
)
def test_a_new_calibration_is_no_other_frame(data):
    image = Image(data, multiscale=isinstance(data, list), rgb=getattr(data, "dtype", None) == np.uint8)
    before = source_from_layer(image)
    image.scale = np.full(image.ndim, 0.1)
    assert before.same_frames(source_from_layer(image))


def test_of_removed_images_nothing_is_held(source):
    corrections = Corrections()
    corrections.read([(source, 1, Edits(spots=SPOTS))])
    corrections.keep_only({"another"})
    assert not corrections.of_layers({source.layer_id})


def test_dropping_is_for_some_frames(source):
    corrections = Corrections()
    corrections.read([(source, frame, Edits(spots=SPOTS)) for frame in range(3)])
    dropped = corrections.forget([replace(source, frames=(1,))], {(source.layer_id, 1): HERE})
    assert dropped == {(source.layer_id, 1): HERE}
    start = corrections.start([source], {})
    assert start.n_kept == 2
    assert start.edits.keys() == {(source.layer_id, 0), (source.layer_id, 2)}


# ---- in the window -----------------------------------------------------------------------------------------------

gui = pytest.mark.gui


@pytest.fixture
def widget(identify_widget):
    return identify_widget


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(identify, "show_warning", shown.append)
    return shown


@pytest.fixture
def stack(qtbot, viewer, widget, patterns, stack_keywords):
    """[001] and [011] as one stack, identified."""
    image = add_stack(viewer, patterns, stack_keywords)
    run(qtbot, widget)
    return image


def delete_farthest(viewer, widget, image, frame: int) -> np.ndarray:
    """Delete the spot of a frame that is farthest from the beam; return its place [px]."""
    found = widget.outcome.frames[frame].result
    place = found.spots.rc[int(np.argmax(np.linalg.norm(found.spots.rc - found.beam.rc, axis=1)))]
    spots = results_of(viewer, image)["spots"]
    [row] = np.flatnonzero(np.all(np.isclose(spots.data, [frame, *place]), axis=1))
    spots.selected_data = {int(row)}
    spots.remove_selected()
    return place


def spots_in(viewer, image, frame: int) -> np.ndarray:
    data = np.asarray(results_of(viewer, image)["spots"].data)
    return data[data[:, 0] == frame][:, 1:]


@gui
def test_a_new_run_starts_from_the_corrections(qtbot, viewer, widget, stack):
    assert not widget.edit.reset.enabled
    place = delete_farthest(viewer, widget, stack, 1)
    settle(qtbot, widget)
    assert widget.edit.reset.enabled
    count = len(spots_in(viewer, stack, 1))
    # one more, which is not followed yet when the button is pressed
    beam = results_of(viewer, stack)["beam"]
    node = widget.outcome.frames[0].result.lattice.node_rc(np.array([[1, 0]]))[0]
    beam.data = np.array([[0, *node], beam.data[1]])
    widget.run_options.rule.value = "mean"
    run(qtbot, widget)
    assert widget.outcome.found.space_groups.rule == "mean"
    first, second = widget.outcome.frames
    assert first.result.beam.rc == pytest.approx(node)
    assert first.edits.spots is None
    assert second.edits.removed_rc == pytest.approx(place[None])
    assert len(spots_in(viewer, stack, 1)) == count
    assert np.linalg.norm(spots_in(viewer, stack, 1) - place, axis=1).min() > 2
    last = widget.summary.value.splitlines()[-1]
    assert last == "Corrections by hand of 2 frames kept; Reset drops them."
    assert widget.pattern_table.row_text(1)[0] == "frame 1 (edited)"
    assert widget.edit.reset.enabled


@gui
def test_corrections_of_other_frames_wait_for_their_run(qtbot, viewer, widget, stack):
    place = delete_farthest(viewer, widget, stack, 1)
    settle(qtbot, widget)
    viewer.dims.set_current_step(0, 0)
    widget.frames.value = "shown"
    run(qtbot, widget)
    assert "of 1 frame outside of this run remembered" in widget.summary.value
    assert not widget.outcome.frames[0].edits.any
    widget.frames.value = "all"
    # a layer that was taken away is no correction that was
    viewer.layers.remove(results_of(viewer, stack)["spots"])
    run(qtbot, widget)
    assert widget.outcome.frames[1].edits.removed_rc == pytest.approx(place[None])
    assert len(spots_in(viewer, stack, 1)) == len(widget.outcome.frames[1].edits.spots)


@gui
def test_corrections_can_be_dropped(qtbot, viewer, widget, stack, warnings):
    before = [spots_in(viewer, stack, frame) for frame in (0, 1)]
    for frame in (0, 1):
        delete_farthest(viewer, widget, stack, frame)
    settle(qtbot, widget)
    # of the shown frame alone
    viewer.dims.set_current_step(0, 1)
    widget.frames.value = "shown"
    widget.edit.reset.clicked.emit(True)
    settle(qtbot, widget)
    assert not widget.outcome.frames[1].edits.any
    assert spots_in(viewer, stack, 1) == pytest.approx(before[1])
    assert len(spots_in(viewer, stack, 0)) == len(before[0]) - 1
    assert widget.edit.reset.enabled
    assert not warnings
    widget.edit.reset.clicked.emit(True)
    assert len(warnings) == 1
    # of all, also one that is not followed yet
    beam = results_of(viewer, stack)["beam"]
    found = beam.data[1].copy()
    beam.data = beam.data + np.array([[0, 0, 0], [0, 3, 3]])
    widget.frames.value = "all"
    widget.edit.reset.clicked.emit(True)
    settle(qtbot, widget)
    assert spots_in(viewer, stack, 0) == pytest.approx(before[0])
    assert beam.data[1] == pytest.approx(found)
    assert not any(item.edits.any for item in widget.outcome.frames)
    assert not widget.edit.reset.enabled
    run(qtbot, widget)
    assert not any(item.edits.any for item in widget.outcome.frames)
    assert "Corrections" not in widget.summary.value


@gui
def test_other_data_in_the_layer_take_no_corrections(qtbot, viewer, widget, stack, warnings):
    delete_farthest(viewer, widget, stack, 1)
    settle(qtbot, widget)
    stack.data = stack.data.copy()
    viewer.layers.selection = {stack}
    run(qtbot, widget)
    [message] = warnings
    assert message == "stack: data or proportions of pixels changed, corrections by hand dropped."
    assert not any(item.edits.any for item in widget.outcome.frames)


@gui
def test_vectors_of_which_no_lattice_follows_are_shown_again(qtbot, viewer, widget, stack):
    vectors = results_of(viewer, stack)["vectors"]
    beam = widget.outcome.frames[1].result.beam.rc
    tips = np.array([[1, *(beam + step)] for step in np.array([[30, 0], [60, 0]])])  # on one line
    vectors.data = np.concatenate([vectors.data[vectors.data[:, 0] == 0], tips])
    settle(qtbot, widget)
    assert not widget.outcome.frames[1].result.used
    run(qtbot, widget)
    again = results_of(viewer, stack)["vectors"]
    assert again is not vectors
    assert again.data[again.data[:, 0] == 1] == pytest.approx(tips)
