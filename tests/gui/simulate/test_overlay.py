"""The *Simulate* widget over a measured pattern."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulate_widget import (
    BEAM,
    PIXEL,
    TURN,
    add_measured,
    change,
    measured_pattern,
    overlay_on,
    set_zone,
    settle,
    wait,
)

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.identify import PatternResult
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.widgets import _simulate_work
from napari_sadp.widgets._layers import placement, result_layers
from napari_sadp.widgets._sources import source_from_layer
from napari_sadp.widgets._work import FrameResult

pytestmark = pytest.mark.gui


def turn_error(angle: float) -> float:
    """Difference from the true rotation; [011] has a twofold axis."""
    return abs((angle - TURN + 90) % 180 - 90)


def at_spots(image, spots) -> np.ndarray:
    """Values of the image where the simulated spots lie."""
    row, col = np.rint(spots.data[spots.features["intensity"] > 0.05]).astype(int).T
    return image[row, col]


def test_overlay_and_align(qtbot, viewer, silicon):
    data = measured_pattern()
    layer = add_measured(viewer, data, pixel=1.06 * PIXEL, translate=(5, -3))
    set_zone(silicon, (0, 1, 1))
    overlay_on(qtbot, silicon, layer)
    spots = silicon.layers.spots
    assert not silicon.layers.image.visible
    assert np.allclose(spots.scale, layer.scale)
    assert np.allclose(spots.translate, layer.translate)
    assert spots.units == layer.units
    assert [box.value for box in silicon.overlay.centre] == [127.5, 127.5]  # nobody knows better
    assert silicon.overlay.pixel.value == pytest.approx(1.06 * PIXEL, abs=1e-6)
    assert viewer.layers.index(spots) > viewer.layers.index(layer)
    assert at_spots(data, spots).mean() < 500

    silicon.overlay.align.changed.emit(True)
    wait(qtbot, lambda: silicon.overlay.fit.value.startswith("The lattices agree"))
    settle(qtbot, silicon)
    assert turn_error(silicon.settings.rotation.value) < 0.3
    assert silicon.overlay.pixel.value == pytest.approx(PIXEL, rel=3e-3)
    assert [box.value for box in silicon.overlay.centre] == pytest.approx(BEAM, abs=0.3)
    assert at_spots(data, spots).min() > 100
    assert "-5." in silicon.overlay.fit.value  # the calibration is 6 % too large

    silicon.overlay.layer.value = None
    wait(qtbot, lambda: silicon.answer.request.overlay is None)
    settle(qtbot, silicon)
    assert silicon.layers.image.visible
    assert "simulated beam" not in viewer.layers
    assert np.allclose(spots.scale, silicon.layers.image.scale)


def identify_layers(viewer, image, frame=0):
    """What the Identify widget leaves."""
    source = source_from_layer(image)
    geometry = analyse_pattern(source.load(frame))
    result = PatternResult(
        geometry.pattern,
        build_scheme((225,)),
        beam=geometry.beam,
        spots=geometry.spots,
        lattice=geometry.lattice,
    )
    for data, keywords, kind in result_layers(source, [FrameResult(source, frame, result)]):
        getattr(viewer, f"add_{kind}")(data, **keywords, **placement(image))


def test_the_layers_of_identify_align_it_at_once(qtbot, viewer, silicon, monkeypatch):
    data = np.stack([np.full((256, 256), 7, np.float32), measured_pattern()])
    layer = viewer.add_image(data, name="stack", scale=(1, 0.131, 0.131), units=("pixel", "1/nm", "1/nm"))
    viewer.dims.set_current_step(0, 1)
    identify_layers(viewer, layer, 1)
    monkeypatch.setattr(_simulate_work, "analyse_pattern", None)  # not measured again
    set_zone(silicon, (0, 1, 1))
    overlay_on(qtbot, silicon, layer)
    wait(qtbot, lambda: silicon.overlay.fit.value.startswith("The lattices agree"))
    settle(qtbot, silicon)
    assert turn_error(silicon.settings.rotation.value) < 0.3
    assert [box.value for box in silicon.overlay.centre] == pytest.approx(BEAM, abs=0.3)
    assert at_spots(data[1], silicon.layers.spots).min() > 100
    # another frame has another centre
    viewer.dims.set_current_step(0, 0)
    settle(qtbot, silicon)
    assert [box.value for box in silicon.overlay.centre] == [127.5, 127.5]
    assert silicon.answer.request.overlay.frame == 0


def test_an_uncalibrated_pattern_is_scaled_too(qtbot, viewer, silicon):
    layer = add_measured(viewer, measured_pattern(), pixel=None)
    set_zone(silicon, (0, 1, 1))
    overlay_on(qtbot, silicon, layer)
    assert silicon.overlay.pixel.value == pytest.approx(silicon.settings.settings().pixel_size(), abs=1e-6)
    silicon.align()
    wait(qtbot, lambda: silicon.overlay.fit.value.startswith("The lattices agree"))
    settle(qtbot, silicon)
    assert silicon.overlay.pixel.value == pytest.approx(PIXEL, rel=3e-3)
    assert turn_error(silicon.settings.rotation.value) < 0.3


def test_a_wrong_zone_axis_is_told(qtbot, viewer, silicon):
    layer = add_measured(viewer, measured_pattern())
    set_zone(silicon, (0, 0, 1))
    overlay_on(qtbot, silicon, layer)
    silicon.align()
    wait(qtbot, lambda: silicon.overlay.fit.value.startswith("The lattices do not agree"))
    assert silicon.overlay.pixel.value == pytest.approx(PIXEL, rel=0.15)
    settle(qtbot, silicon)
    set_zone(silicon, (0, 1, 1))
    assert not silicon.overlay.fit.value  # said of another axis


def test_the_beam_point_is_dragged(qtbot, viewer, silicon):
    layer = add_measured(viewer, measured_pattern())
    overlay_on(qtbot, silicon, layer)
    before = silicon.layers.spots.data.copy()
    beam = silicon.layers.beam
    for position in ((127.5, 127.5), (130.0, 120.0)):  # what a drag calls
        viewer.layers["simulated beam"]._move([0], np.array(position))
    wait(qtbot, lambda: silicon.answer.request.overlay.centre_rc != (127.5, 127.5))
    settle(qtbot, silicon)
    row, col = (box.value for box in silicon.overlay.centre)
    assert np.allclose(beam.data, [[row, col]])
    assert silicon.overlay.centre_given
    moved = {tuple(p) for p in silicon.layers.spots.data.round(3)}
    shift = np.array([row, col]) - 127.5
    assert len(moved & {tuple(p) for p in (before + shift).round(3)}) > 0.8 * len(before)
    # boxes move the point
    silicon.overlay.centre[0].value = 100.0
    wait(qtbot, lambda: np.allclose(silicon.layers.beam.data[0, 0], 100))
    # a deleted point is made again
    viewer.layers.remove(beam)
    change(qtbot, silicon, silicon.settings.rotation, 5.0)
    assert silicon.layers.beam in viewer.layers


def test_a_pattern_without_lattice(qtbot, viewer, silicon, complaints, noise):
    overlay_on(qtbot, silicon, add_measured(viewer, noise))
    silicon.align()
    wait(qtbot, lambda: bool(complaints))
    assert "rotate and scale by hand" in complaints[0]
    assert not silicon.overlay.fit.value
    assert silicon.overlay.align.enabled


def test_the_measured_layer_is_removed(qtbot, viewer, silicon):
    layer = add_measured(viewer, measured_pattern())
    overlay_on(qtbot, silicon, layer)
    viewer.layers.remove(layer)
    wait(qtbot, lambda: silicon.answer.request.overlay is None)
    assert silicon.overlay.layer.value is None
    assert silicon.layers.image.visible


def test_a_dynamical_overlay(qtbot, viewer, silicon):
    layer = add_measured(viewer, measured_pattern())
    overlay_on(qtbot, silicon, layer)
    silicon.settings.engine.value = "dynamical"
    wait(qtbot, lambda: silicon.answer.request.settings.engine == "dynamical")
    assert len(silicon.layers.spots.data) > 10
