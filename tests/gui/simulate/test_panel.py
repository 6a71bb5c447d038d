"""The *Simulate* widget in a viewer: structure and live layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from support.simulate_widget import (
    change,
    direct,
    set_zone,
    settle,
    wait,
)

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets._sources import source_from_layer

pytestmark = pytest.mark.gui


# ---- structure ---------------------------------------------------------------------------------------------------


def test_a_cif_is_loaded_shown_and_simulated(qtbot, viewer, widget, cif):
    widget.structure.cif.value = cif
    wait(qtbot, lambda: widget.answer is not None)
    text = widget.structure.loaded.value
    for part in ("Cu", "Au", "221 Pm-3m", "3.7500 Å", "4 atoms", "AuCu3.cif"):
        assert part in text
    assert np.array_equal(widget.layers.image.data, direct(widget).pattern.data)
    assert widget.layers.image.metadata[METADATA_KEY]["space_group"] == "221 Pm-3m"


def test_a_dropped_cif(qtbot, widget, cif):
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(cif))])
    drop = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        QEvent.Type.Drop,
    )
    assert widget._drop.eventFilter(widget.native, drop)
    assert widget.structure.cif.value == cif
    wait(qtbot, lambda: widget.crystal is not None)
    mime.setUrls([QUrl.fromLocalFile(str(cif.with_suffix(".png")))])
    assert not widget._drop.eventFilter(widget.native, drop)  # images are the viewer's


def lines(widget) -> list[str]:
    results = widget.structure.results
    return [results.item(i).text() for i in range(results.count())]


def test_searching(widget):
    expected = {
        "SrSi2 213": "SrSi2   213 P4132",
        "Si:227": "Si   227 Fd-3m  (227a)   8 atoms",
        "Fd-3m Si": "Si   227 Fd-3m  (227a)   8 atoms",
        "227b": "(227b)",
        "mp-149": "Si   227 Fd-3m",
    }
    for typed, first in expected.items():
        widget.structure.search.value = typed
        assert first in lines(widget)[0], typed
        assert widget.structure.holder.native.isVisibleTo(widget.native)
    widget.structure.search.value = "Ti Al"  # elements, all of which must be in it
    assert len(lines(widget)) >= 2
    assert all("Ti" in line and "Al" in line for line in lines(widget))


def test_many_results_are_cut_and_nonsense_is_explained(widget):
    search = widget.structure.search
    search.value = "225"
    assert lines(widget)[-1] == "and 90 more: type another word"
    search.value = "Qq"
    assert lines(widget)[0].startswith("search is 'Qq', expected a formula")
    widget.structure._take_first()  # a message is no structure
    assert not widget._loader.busy
    search.value = "FeSi12Zr 229"
    assert lines(widget) == ["nothing in the catalogue"]
    search.value = ""
    assert not widget.structure.holder.native.isVisibleTo(widget.native)


def test_a_result_is_loaded_by_choosing_it(qtbot, widget, cif):
    widget.structure.cif.value = cif
    wait(qtbot, lambda: widget.answer is not None)
    widget.structure.search.value = "SrSi2 213"
    widget.structure.results.setCurrentRow(0)
    wait(qtbot, lambda: widget.crystal.name == "SrSi2")
    assert "12 atoms" in widget.structure.loaded.value
    assert "mp-14172" in widget.structure.loaded.value
    assert widget.structure.cif.value in (None, Path())
    settle(qtbot, widget)
    assert widget.answer.request.crystal is widget.crystal


# ---- layers ------------------------------------------------------------------------------------------------------


def test_the_layers_are_calibrated_and_labelled(silicon, viewer):
    image, spots = silicon.layers.image, silicon.layers.spots
    made = silicon.answer.made
    assert [layer.name for layer in viewer.layers] == ["simulated pattern", "simulated spots"]
    assert np.allclose(image.scale, 10 * made.pattern.pixel_size_inv_angstrom)
    assert [f"{unit:~}" for unit in image.units] == ["1 / nm", "1 / nm"]
    assert np.allclose(image.data_to_world(made.beam_rc), 0)
    pattern = source_from_layer(image).load(0)
    assert pattern.kind == "diffraction"
    assert pattern.voltage_kv == 200
    assert pattern.pixel_size_inv_angstrom == pytest.approx(made.pattern.pixel_size_inv_angstrom)
    about = image.metadata[METADATA_KEY]
    assert about["zone_axes"] == [[0, 0, 1]]
    assert about["engine"] == "kinematic"

    shown = spots.features
    keep = made.spots.intensity >= 1e-5
    assert np.allclose(spots.data, made.rc[keep])
    assert np.array_equal(shown[["h", "k", "l"]], made.spots.hkl[keep])
    assert np.allclose(shown["g_inv_angstrom"], made.spots.g[keep])
    assert np.allclose(shown["excitation_error_inv_angstrom"], made.spots.excitation_error[keep])
    world = np.linalg.norm([spots.data_to_world(point) for point in spots.data], axis=1)
    assert np.allclose(world, 10 * shown["g_inv_angstrom"])
    strongest = shown.iloc[int(np.argmax(shown["intensity"]))]
    assert strongest["label"] == f"{strongest['h']} {strongest['k']} {strongest['l']}"
    assert sorted(map(abs, strongest[["h", "k", "l"]])) == [0, 2, 2]


def test_identify_can_measure_the_simulated_layer(silicon):
    lattice = analyse_pattern(source_from_layer(silicon.layers.image).load(0)).lattice
    pixel = silicon.answer.made.pattern.pixel_size_inv_angstrom
    assert np.linalg.norm(lattice.g1_px) * pixel == pytest.approx(np.sqrt(8) / 5.4687, rel=2e-3)


def test_live_changes_update_in_place(qtbot, viewer, silicon):
    image, spots = silicon.layers.image, silicon.layers.spots
    image.colormap, image.contrast_limits, image.opacity = "viridis", (0.0, 0.4), 0.7
    spots.border_color, spots.visible = "red", False
    spots.name = "mine"
    for zone in ((1, 1, 2), (0, 1, 1)):  # fewer spots, then more
        set_zone(silicon, zone)
        wait(qtbot, lambda zone=zone: silicon.answer.request.zone == zone)
    settle(qtbot, silicon)
    assert list(viewer.layers) == [image, spots]
    assert np.array_equal(image.data, direct(silicon).pattern.data)
    assert (
        len(spots.data)
        == len(spots.features)
        == len(spots.size)
        == np.sum(direct(silicon).spots.intensity >= 1e-5)
    )
    assert (image.colormap.name, tuple(image.contrast_limits), image.opacity) == ("viridis", (0.0, 0.4), 0.7)
    assert np.allclose(spots.border_color, [1, 0, 0, 1])
    assert (spots.visible, spots.name) == (False, "mine")


def test_every_value_counts(qtbot, silicon):
    image = silicon.layers.image
    values = {"voltage": 80.0, "thickness": 3.0, "rotation": 30.0, "sigma": 3.0, "size": 128, "scale": 250.0}
    for name, value in values.items():
        before = image.data
        change(qtbot, silicon, getattr(silicon.settings, name), value)
        made = direct(silicon)
        assert np.array_equal(image.data, made.pattern.data), name
        assert image.data.shape != before.shape or not np.array_equal(image.data, before), name
        assert np.allclose(image.scale, 10 * made.pattern.pixel_size_inv_angstrom), name
        assert np.allclose(silicon.layers.spots.scale, image.scale), name
        assert np.allclose(image.data_to_world(made.beam_rc), 0), name
        assert silicon.layers.image is image


def test_ways_to_give_the_scale(qtbot, silicon):
    settings = silicon.settings
    change(qtbot, silicon, settings.scale_kind, "pixel size, 1/Å")
    assert silicon.answer.made.pattern.pixel_size_inv_angstrom == pytest.approx(0.0125)
    change(qtbot, silicon, settings.scale, 0.02)
    assert silicon.answer.made.pattern.pixel_size_inv_angstrom == pytest.approx(0.02)
    change(qtbot, silicon, settings.scale_kind, "largest g, 1/Å")
    assert silicon.answer.spots.g.max() <= 1.5
    change(qtbot, silicon, settings.scale_kind, "pixel size, 1/Å")
    assert settings.scale.value == 0.02  # each way keeps its value


def test_gamma_is_the_layers(qtbot, silicon):
    before = silicon.answer
    silicon.settings.gamma.value = 0.3
    assert silicon.layers.image.gamma == pytest.approx(0.3)
    silicon.layers.image.gamma = 0.8
    assert silicon.settings.gamma.value == pytest.approx(0.8)
    assert silicon.answer is before


def test_not_live_waits_for_the_button(qtbot, silicon):
    silicon.live.value = False
    settle(qtbot, silicon)
    before = silicon.answer
    silicon.settings.voltage.value = 300.0
    qtbot.wait(100)
    assert silicon.answer is before
    silicon.run_button.changed.emit(True)
    wait(qtbot, lambda: silicon.answer is not before)
    assert silicon.answer.request.settings.voltage_kv == 300


def test_removed_layers_are_made_again(qtbot, viewer, silicon):
    viewer.layers.clear()
    change(qtbot, silicon, silicon.settings.voltage, 300.0)
    assert [layer.name for layer in viewer.layers] == ["simulated pattern", "simulated spots"]


def test_labels_do_not_overlap_and_follow_the_zoom(qtbot, viewer, silicon):
    silicon.settings.labels.value = 500
    silicon.settings.scale.value = 150.0
    settle(qtbot, silicon)

    def labelled() -> int:
        return int(np.sum(silicon.layers.spots.features["label"] != ""))

    viewer.scene.camera.zoom = 10
    wait(qtbot, lambda: not silicon._zoom_timer.isActive())
    few = labelled()
    assert 0 < few < len(silicon.layers.spots.data)
    viewer.scene.camera.zoom = 100
    wait(qtbot, lambda: labelled() > few)
    silicon.settings.labels.value = 3
    assert labelled() == 3


def test_imperfections_show_and_leave(qtbot, silicon):
    image, limits = silicon.layers.image, (0.0, 0.5)
    image.contrast_limits = limits
    clean = image.data.copy()
    change(qtbot, silicon, silicon.settings.imperfections, "mild")
    first = image.data.copy()
    assert not np.array_equal(first, clean)
    assert image.contrast_limits[1] > 1  # counts
    assert np.allclose(silicon.layers.spots.data, silicon.answer.rc[silicon.answer.spots.intensity >= 1e-5])
    change(qtbot, silicon, silicon.settings.seed, 1)
    assert not np.array_equal(image.data, first)
    change(qtbot, silicon, silicon.settings.seed, 0)
    assert np.array_equal(image.data, first)
    change(qtbot, silicon, silicon.settings.imperfections, "none")
    assert np.array_equal(image.data, clean)
    assert tuple(image.contrast_limits) == limits
