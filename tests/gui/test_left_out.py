"""The layer that shows which pixels did not count."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels
from support.identify_widget import run, settle

from napari_sadp.geometry.edit import Edits
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets import _work
from napari_sadp.widgets._layers import derived_from, result_layers, role_of
from napari_sadp.widgets._sources import source_from_layer

pytestmark = pytest.mark.gui
BAR = (slice(0, 12), slice(None))


def with_bar(data):
    """A frame whose first rows hold a bright title bar."""
    data = data.copy()
    data[BAR] = data.max()
    return data


def left_out_of(viewer, image):
    found = [
        layer
        for layer in viewer.layers
        if derived_from(layer) == str(image.unique_id) and role_of(layer) == "left out"
    ]
    return found[0] if found else None


def test_it_shows_what_the_analysis_left_out_and_follows_it(qtbot, viewer, identify_widget, patterns):
    data = np.stack([with_bar(patterns[0].data), patterns[1].data])
    image = viewer.add_image(data, name="stack")
    viewer.dims.set_point(0, 0)
    widget = identify_widget
    run(qtbot, widget)
    assert left_out_of(viewer, image) is None
    widget.left_out.value = True
    run(qtbot, widget)
    layer = left_out_of(viewer, image)
    assert isinstance(layer, Labels)
    assert layer.data.shape == data.shape
    first, second = (item.result.left_out for item in widget.outcome.frames)
    assert np.array_equal(layer.data[0] != 0, first)
    assert np.array_equal(layer.data[1] != 0, second)
    assert first[BAR].all()
    assert not second[BAR].any()
    assert not layer.editable
    # it lies below the spots, and is no mask to choose
    names = [role_of(other) for other in viewer.layers]
    assert names.index("left out") < names.index("spots")
    assert layer.name not in {getattr(choice, "name", None) for choice in widget.edit.mask.choices}
    # a spot that is deleted leaves a hole of unknown
    spots = next(other for other in viewer.layers if role_of(other) == "spots")
    rows = np.flatnonzero(spots.data[:, 0] == 1)
    far = rows[np.argmax(np.linalg.norm(spots.data[rows, 1:] - 128, axis=1))]
    place = np.round(spots.data[far, 1:]).astype(int)
    spots.selected_data = {int(far)}
    spots.remove_selected()
    settle(qtbot, widget)
    assert layer.data[1][tuple(place)] == 1
    assert np.array_equal(layer.data[0] != 0, first)
    # and nothing is looked for where the user does not want it
    widget.covers.value = False
    run(qtbot, widget)
    assert not widget.outcome.frames[0].result.left_out[BAR].any()


def test_a_refused_frame_shows_its_mask_too(classifier_of_tests, patterns):
    data = with_bar(np.random.default_rng(0).poisson(50, (256, 256)).astype(float))
    image = Image(data)
    source = source_from_layer(image)
    item = _work._identified(source, 0, Edits(), classifier_of_tests, _work.RunOptions())
    assert not item.result.used
    made = {
        keywords["metadata"][METADATA_KEY]["role"]: pixels
        for pixels, keywords, _ in result_layers(source, [item], left_out=True)
    }
    assert made["left out"][BAR].all()
    assert "left out" not in {
        keywords["metadata"][METADATA_KEY]["role"] for _, keywords, _ in result_layers(source, [item])
    }


def test_oblong_pixels_are_those_of_the_layer(classifier_of_tests, patterns):
    image = Image(with_bar(patterns[0].data)[:, ::2], scale=(0.125, 0.25), units=("1/nm", "1/nm"))
    source = source_from_layer(image)
    item = _work._identified(source, 0, Edits(), classifier_of_tests, _work.RunOptions())
    assert item.result.left_out.shape == (256, 256)
    [pixels] = [
        p
        for p, k, _ in result_layers(source, [item], left_out=True)
        if k["metadata"][METADATA_KEY]["role"] == "left out"
    ]
    assert pixels.shape == (256, 128)
    assert pixels[BAR].all()
    assert np.mean(pixels != 0) == pytest.approx(np.mean(item.result.left_out), abs=0.01)


@pytest.fixture(scope="module")
def classifier_of_tests():
    from napari_sadp.models.predict import load_classifier

    return load_classifier(None, "cpu")
