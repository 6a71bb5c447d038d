"""To which images a mask, or a layer of direct beams, belongs."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Points

from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets import identify
from napari_sadp.widgets._given import counting_layers, layer_for, points_by_image
from napari_sadp.widgets._layers import derived_from, role_of
from napari_sadp.widgets._simulate_overlay import fitted_geometry
from napari_sadp.widgets._sources import source_from_layer

pytestmark = pytest.mark.gui

WAIT_MS = 180_000


@pytest.fixture
def widget(identify_widget):
    return identify_widget


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(identify, "show_error", shown.append)
    monkeypatch.setattr(identify, "show_warning", shown.append)
    return shown


@pytest.fixture
def images(viewer) -> list[Image]:
    """Three patterns on top of each other, the last of another size; all selected."""
    shapes = {"A": (32, 40), "B": (32, 40), "C": (48, 48)}
    made = [viewer.add_image(np.ones(shape), name=name) for name, shape in shapes.items()]
    viewer.layers.selection = set(made)
    return made


def sources_of(images):
    return [source_from_layer(image) for image in images]


def given(widget, images) -> dict[str, object]:
    """What is given for each image, by its name."""
    names = {str(image.unique_id): image.name for image in images}
    return {names[key]: edits for (key, _), edits in widget.edit.given(sources_of(images)).items()}


def about(image: Image, role: str) -> dict:
    return {METADATA_KEY: {"derived_from": str(image.unique_id), "role": role}}


# ---- without a window --------------------------------------------------------------------------------------------


def test_a_layer_of_one_image_counts_for_it_alone():
    one, other = (Image(np.ones((8, 8))) for _ in range(2))
    ids = [str(image.unique_id) for image in (one, other)]
    foreign = Labels(np.zeros((8, 8), int))
    found = Points(np.ones((1, 2)), metadata=about(one, "beam"))
    masks = [Labels(np.zeros((8, 8), int), metadata=about(image, "mask")) for image in (one, other, one)]
    beam = Points(np.ones((1, 2)), metadata=about(other, "given beam"))
    layers = [foreign, found, *masks, beam]
    assert [layer_for(None, layers, key) for key in ids] == [None, None]
    assert [layer_for(foreign, layers, key) for key in ids] == [foreign, foreign]
    assert [layer_for(found, layers, key) for key in ids] == [found, None]
    # of several masks of one image the chosen one counts, or the latest
    assert [layer_for(masks[0], layers, key) for key in ids] == [masks[0], masks[1]]
    assert [layer_for(masks[1], layers, key) for key in ids] == [masks[2], masks[1]]
    assert counting_layers(masks[0], layers) == [masks[0], masks[2], masks[1]]
    assert counting_layers(foreign, layers) == [foreign]


def test_points_belong_to_the_image_that_they_lie_in():
    images = [Image(np.ones((32, 40))), Image(np.ones((4, 32, 40)), translate=(0, 0, 50))]
    points = Points([[5, 6], [7, 61], [200, 200]])
    assert points_by_image(points, images, sources_of(images)) == ([[0], [1]], [])
    images[1].translate = (0, 0, 30)  # they overlap by ten columns
    points = Points([[5, 6], [7, 35]])
    assert points_by_image(points, images, sources_of(images)) == ([[0], []], [0, 1])


def test_a_mask_is_no_lattice(patterns):
    image = Image(patterns[0].data)

    mask = Labels(np.ones((256, 256), int), metadata=about(image, "mask"))
    assert fitted_geometry([mask], source_from_layer(image), 0) == (None, None)


# ---- in the window -----------------------------------------------------------------------------------------------


def test_a_beam_of_a_run_counts_for_its_image_alone(viewer, widget, images):
    beam = viewer.add_points([[9, 8]], name="A beam", metadata=about(images[0], "beam"))
    widget.edit.beam.value = beam
    found = given(widget, images)
    assert found.keys() == {"A"}
    assert found["A"].beam_rc == pytest.approx([9, 8])


def test_a_new_mask_counts_for_the_image_that_is_shown(viewer, widget, images, complaints):
    viewer.layers.selection = set(images)
    images[2].visible = False
    mask = widget.edit.make_mask()
    assert (mask.name, derived_from(mask)) == ("B mask", str(images[1].unique_id))
    assert viewer.layers.selection == {mask}
    assert widget.source_layers() == images  # the layer took the selection, and nothing is lost
    mask.data_setitem((np.array([3]), np.array([4])), 1)
    found = given(widget, images)
    assert found.keys() == {"B"}
    assert np.argwhere(found["B"].mask).tolist() == [[3, 4]]
    # each image has its own
    viewer.layers.selection = set(images)
    images[1].visible = False
    other = widget.edit.make_mask()
    assert widget.edit.mask.value is other
    other.data_setitem((np.array([5]), np.array([6])), 1)
    found = given(widget, images)
    assert {name: np.argwhere(edits.mask).tolist() for name, edits in found.items()} == {
        "A": [[5, 6]],
        "B": [[3, 4]],
    }
    assert not complaints
    # and both are followed
    assert set(widget.edit._listened) == {mask, other}
    widget.edit.mask.value = None
    assert not given(widget, images)
    assert widget.edit._listened == []


def test_a_mask_of_ones_own_counts_where_it_fits(viewer, widget, images):
    mask = viewer.add_labels(np.ones((32, 40), int), name="cover")
    widget.edit.mask.value = mask
    assert given(widget, images).keys() == {"A", "B"}
    message, useless = widget.edit.mask_remark(sources_of(images))
    assert message == "mask layer 'cover' is not used for 'C', whose frames have another shape"
    assert not useless
    with pytest.raises(ValueError, match="mask layer 'cover' has shape"):
        given(widget, images[2:])


def test_a_beam_of_ones_own_is_of_one_image(viewer, widget, images):
    points = viewer.add_points([[9, 8]], name="mine")
    widget.edit.beam.value = points
    assert given(widget, images[:1])["A"].beam_rc == pytest.approx([9, 8])
    assert given(widget, images) == {}
    message = widget.edit.beam_remark(sources_of(images))
    assert message.startswith("points of layer 'mine' lie in 'A', 'B' and 'C' alike and are not used")
    # side by side there is no doubt
    for number, image in enumerate(images):
        image.translate = (0, 50 * number)
    points.data = [[9, 8], [7, 106]]
    found = given(widget, images)
    assert {name: edits.beam_rc.tolist() for name, edits in found.items()} == {"A": [9, 8], "C": [7, 6]}
    assert widget.edit.beam_remark(sources_of(images)) == ""


def test_a_new_layer_of_beams_is_for_the_image_that_is_shown(viewer, widget, images):
    images[2].visible = False
    layer = widget.edit.make_beam()
    assert (layer.name, role_of(layer), layer.mode) == ("B given beam", "given beam", "add")
    assert widget.edit.beam.value is layer
    assert widget.source_layers() == images
    layer.add([10, 12])
    found = given(widget, images)
    assert {name: edits.beam_rc.tolist() for name, edits in found.items()} == {"B": [10, 12]}


def test_a_mask_outlives_the_run_and_is_hidden_with_its_image(qtbot, viewer, widget, patterns):
    images = [viewer.add_image(p.data, name=name) for name, p in zip("AB", patterns, strict=True)]
    viewer.layers.selection = set(images)
    images[1].visible = False
    mask = widget.edit.make_mask()
    mask.data[20:90, 60:200] = 1
    beam = widget.edit.make_beam()
    node = np.array([120.0, 130.0])
    beam.add(node)
    viewer.layers.selection = {mask}
    assert widget.run() is not None
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=WAIT_MS)
    assert {mask, beam} <= set(viewer.layers)
    assert (widget.edit.mask.value, widget.edit.beam.value) == (mask, beam)
    first, second = widget.outcome.frames
    assert first.edits.mask is not None
    assert first.edits.beam_rc == pytest.approx(node)
    assert not second.edits.any
    assert not widget.edit.reset.enabled  # masks and given beams are no corrections
    widget.pattern_table.selectRow(1)
    assert not mask.visible


def test_a_mask_that_does_not_fit_blocks_no_other_change(qtbot, viewer, widget, patterns, complaints):
    image = viewer.add_image(patterns[0].data, name="A")
    assert widget.run() is not None
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=WAIT_MS)
    widget.edit.mask.value = viewer.add_labels(np.zeros((10, 10), int), name="small")
    assert len(complaints) == 1
    [beam] = [layer for layer in viewer.layers if role_of(layer) == "beam"]
    beam.data = beam.data + 0.5
    qtbot.waitUntil(lambda: not widget._editor.busy, timeout=WAIT_MS)
    assert widget.outcome.frames[0].result.beam.method == "given"
    assert len(complaints) == 1
    assert derived_from(beam) == str(image.unique_id)
