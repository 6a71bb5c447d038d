"""The *Simulate* widget in a viewer: structure, live layers, threads, overlay, saving."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_sadp.errors import StructureError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.identify import PatternResult
from napari_sadp.io.rosetta import read_patterns
from napari_sadp.io.spots_csv import read_spots
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.render import render_pattern
from napari_sadp.simulation.zone_pattern import simulate_pattern
from napari_sadp.widgets import _simulate_work, simulate
from napari_sadp.widgets._layers import placement, result_layers
from napari_sadp.widgets._sources import source_from_layer
from napari_sadp.widgets._work import FrameResult

pytestmark = pytest.mark.gui

PATIENCE_MS = 30_000
CIF = """data_AuCu3
_cell_length_a 3.75
_cell_length_b 3.75
_cell_length_c 3.75
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Au1 Au 0 0 0
Cu1 Cu 0.5 0.5 0
"""


@pytest.fixture
def widget(viewer):
    return viewer.window.add_plugin_dock_widget("napari-sadp", "Simulate")[1]


@pytest.fixture
def silicon(qtbot, widget):
    """The widget with silicon on [001] in its layers."""
    widget.load(find_structure("Si", 227))
    qtbot.waitUntil(lambda: widget.answer is not None, timeout=PATIENCE_MS)
    return widget


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    """Messages that the user is shown."""
    shown: list[str] = []
    monkeypatch.setattr(simulate, "show_error", shown.append)
    return shown


@pytest.fixture
def cif(tmp_path) -> Path:
    path = tmp_path / "AuCu3.cif"
    path.write_text(CIF)
    return path


def wait(qtbot, condition):
    qtbot.waitUntil(lambda: bool(condition()), timeout=PATIENCE_MS)


def settle(qtbot, widget):
    """Wait until nothing is left to do."""
    wait(
        qtbot,
        lambda: (
            not widget._change_timer.isActive() and not any(r.busy or r.stopping for r in widget._runners())
        ),
    )


def change(qtbot, widget, box, value):
    """Change one value, wait for the layers."""
    before = widget.answer
    box.value = value
    wait(qtbot, lambda: widget.answer is not before)
    settle(qtbot, widget)


def set_zone(widget, zone):
    for box, index in zip(widget.settings.zone, zone, strict=True):
        box.value = index


def direct(widget, **changes):
    """What the core says for the values in the widget."""
    return simulate_pattern(
        widget.crystal, widget.settings.zone_axis(), widget.settings.settings(), **changes
    )


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


# ---- threads -----------------------------------------------------------------------------------------------------


class Gate:
    """Holds every simulation until it is opened, and counts them."""

    def __init__(self, monkeypatch) -> None:
        self.open = threading.Event()
        self.requests: list = []
        self.threads: set = set()
        monkeypatch.setattr(simulate, "simulate", self)

    def __call__(self, request):
        self.requests.append(request)
        self.threads.add(threading.current_thread())
        self.open.wait(PATIENCE_MS / 1000)
        return _simulate_work.simulate(request)


def test_dynamical_runs_in_another_thread_and_says_so(qtbot, silicon, monkeypatch):
    set_zone(silicon, (0, 1, 1))
    silicon.settings.thickness.value = 20.0
    settle(qtbot, silicon)
    gate = Gate(monkeypatch)
    silicon.settings.engine.value = "dynamical"
    wait(qtbot, lambda: gate.requests)
    assert silicon.status.value.startswith("dynamical: computing")
    assert silicon.cancel_button.enabled
    gate.open.set()
    settle(qtbot, silicon)
    assert threading.main_thread() not in gate.threads
    assert not silicon.cancel_button.enabled
    assert np.array_equal(silicon.layers.image.data, direct(silicon).pattern.data)
    # multiple scattering fills the forbidden 200 of silicon on [011]
    features = silicon.layers.spots.features
    forbidden = (features["h"].abs() == 2) & (features["k"] == 0) & (features["l"] == 0)
    assert features["intensity"][forbidden].max() > 0.05


def test_the_latest_request_wins(qtbot, silicon, monkeypatch):
    silicon.settings.engine.value = "dynamical"
    settle(qtbot, silicon)
    gate = Gate(monkeypatch)
    shown: list[float] = []
    silicon.layers.image.events.data.connect(
        lambda: shown.append(silicon.answer.request.settings.thickness_nm)
    )
    for thickness in range(11, 31):
        silicon.settings.thickness.value = float(thickness)
        silicon.run()  # as if every keystroke had waited long enough
    gate.open.set()
    settle(qtbot, silicon)
    assert [request.settings.thickness_nm for request in gate.requests] == [11.0, 30.0]
    assert shown == [30.0]
    assert silicon.answer.request.settings.thickness_nm == 30


def test_typing_is_one_request(qtbot, silicon, monkeypatch):
    silicon.settings.engine.value = "dynamical"
    settle(qtbot, silicon)
    gate = Gate(monkeypatch)
    gate.open.set()
    for text in ("1", "12", "120"):
        silicon.settings.voltage.value = float(text)
    settle(qtbot, silicon)
    assert [request.settings.voltage_kv for request in gate.requests] == [120.0]


def test_cancel_forgets_the_result(qtbot, silicon, monkeypatch):
    gate = Gate(monkeypatch)
    before = silicon.answer
    silicon.settings.engine.value = "dynamical"
    silicon.run()
    wait(qtbot, lambda: gate.requests)
    silicon.cancel_button.changed.emit(True)
    assert silicon.status.value == "cancelled"
    assert not silicon.cancel_button.enabled
    gate.open.set()
    settle(qtbot, silicon)
    assert silicon.answer is before
    silicon.run()  # and the next one works
    settle(qtbot, silicon)
    assert silicon.answer.request.settings.engine == "dynamical"


def test_closing_during_work(qtbot, viewer, silicon, monkeypatch):
    gate = Gate(monkeypatch)
    before = silicon.layers.image.data
    silicon.settings.engine.value = "dynamical"
    wait(qtbot, lambda: gate.requests)
    worker = silicon._simulator._worker
    ended: list[bool] = []
    worker.finished.connect(lambda: ended.append(True))
    viewer.window.remove_dock_widget("all")
    silicon.native.deleteLater()
    wait(qtbot, lambda: silicon._closed)
    gate.open.set()
    wait(qtbot, lambda: bool(ended))
    assert silicon.layers.image.data is before
    viewer.scene.camera.zoom = 3  # what is still connected does nothing
    silicon.load(find_structure("Al", 225))
    assert silicon._loader._worker is None


def test_a_slow_kinematic_one_runs_in_another_thread_too(qtbot, silicon, monkeypatch):
    gate = Gate(monkeypatch)
    monkeypatch.setattr(simulate, "_QUICK_S", 0.0)
    silicon.settings.voltage.value = 300.0
    silicon.settings.thickness.value = 7.0
    wait(qtbot, lambda: gate.requests)
    gate.open.set()
    wait(qtbot, lambda: silicon.answer.request.settings.thickness_nm == 7)
    assert threading.main_thread() not in gate.threads


def test_going_back_to_kinematic_forgets_the_dynamical_one(qtbot, silicon, monkeypatch):
    gate = Gate(monkeypatch)
    silicon.settings.engine.value = "dynamical"
    wait(qtbot, lambda: gate.requests)
    gate.open.set()  # what was asked for may come to its end at any time
    silicon.settings.engine.value = "kinematic"
    settle(qtbot, silicon)
    assert silicon.answer.request.settings.engine == "kinematic"


# ---- faults ------------------------------------------------------------------------------------------------------


def test_bad_values_are_told_and_change_nothing(qtbot, silicon, complaints, monkeypatch):
    monkeypatch.setattr(silicon._notify_timer, "start", lambda: None)
    before = silicon.layers.image.data
    bad = [
        ("voltage", 2.0, "voltage_kv is 2.0"),
        ("thickness", 0.0, "thickness_nm is 0.0"),
        ("size", 5, "size is 5"),
        ("sigma", 900.0, "spot_sigma_px is 900.0"),
        ("rotation", 1000.0, "rotation_deg is 1000.0"),
        ("scale", 0.0, "camera_length_mm is 0.0"),
        ("scale", 9e5, "no beam of Si"),
    ]
    for name, value, message in bad:
        box = getattr(silicon.settings, name)
        good = box.value
        box.value = value
        wait(qtbot, lambda message=message: message in silicon.status.value)
        assert silicon.layers.image.data is before
        silicon.live.value = False
        box.value = good
        silicon.live.value = True
        before = silicon.layers.image.data
    assert not complaints


def test_a_wrong_number_that_stays_is_a_notification(qtbot, silicon, complaints):
    silicon.settings.voltage.value = 2.0
    wait(qtbot, lambda: "voltage_kv is 2.0" in silicon.status.value)
    assert not complaints  # not while the number is being typed
    wait(qtbot, lambda: bool(complaints))
    [message] = complaints
    assert "voltage_kv is 2.0" in message
    assert "\n" not in message


def test_a_number_that_gets_right_is_no_notification(qtbot, silicon, complaints):
    silicon.settings.voltage.value = 2.0
    wait(qtbot, lambda: "voltage_kv" in silicon.status.value)
    change(qtbot, silicon, silicon.settings.voltage, 250.0)
    qtbot.wait(simulate._NOTIFY_MS + 100)
    assert not complaints


def test_no_zone_axis(qtbot, silicon, complaints):
    set_zone(silicon, (0, 0, 0))
    silicon.run()
    wait(qtbot, lambda: bool(complaints))
    assert "not all zero" in complaints[0]


def test_without_a_structure(widget):
    widget.run()
    assert "no structure" in widget.status.value
    assert "no structure" in notification_manager.records[-1].message
    notification_manager.records.clear()


def test_a_file_that_is_no_cif(qtbot, widget, complaints, tmp_path):
    path = tmp_path / "broken.cif"
    path.write_text("data_x\n_cell_length_a 3\n")
    widget.structure.cif.value = path
    wait(qtbot, lambda: bool(complaints))
    assert "broken.cif" in complaints[0]
    assert widget.crystal is None
    assert not widget.save_button.enabled
    with pytest.raises(StructureError):
        _load(path)


def _load(path):
    from napari_sadp.io.cif import load_crystal

    return load_crystal(path)


# ---- overlay -----------------------------------------------------------------------------------------------------

BEAM, TURN, PIXEL = (118.0, 134.5), 37.0, 0.0131


def measured_pattern(zone=(0, 1, 1), *, mirror=False) -> np.ndarray:
    """Silicon as a camera sees it: turned, scaled, off the centre, with noise."""
    spots = simulate_pattern(find_structure("Si", 227).crystal(), zone, pixel_size_inv_angstrom=0.02).spots
    image = render_pattern(
        spots, size=256, pixel_size_inv_angstrom=PIXEL, rotation_deg=TURN, beam_rc=BEAM, direct_beam=4.0
    ).data
    image = image[:, ::-1] if mirror else image
    return np.random.default_rng(1).poisson(2000 * image + 10).astype(np.float32)


def add_measured(viewer, data, pixel=PIXEL, **keywords):
    calibration = {} if pixel is None else {"scale": (10 * pixel,) * 2, "units": ("1/nm", "1/nm")}
    return viewer.add_image(data, name="measured", **calibration, **keywords)


def overlay_on(qtbot, widget, layer):
    widget.overlay.layer.reset_choices()
    widget.overlay.layer.value = layer
    wait(qtbot, lambda: widget.answer.request.overlay is not None)
    settle(qtbot, widget)


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


# ---- saving ------------------------------------------------------------------------------------------------------


def test_saving(qtbot, silicon, tmp_path):
    import imageio.v3 as iio

    made = silicon.answer.made
    for extension in ("png", "tif", "hspy", "emd"):
        path, table = tmp_path / f"si.{extension}", tmp_path / "si.csv"
        table.unlink(missing_ok=True)
        silicon.save(path)
        wait(qtbot, lambda path=path: silicon.status.value.startswith(f"saved {path.name} and si.csv"))
        columns = read_spots(table)
        assert np.allclose(np.stack([columns["row_px"], columns["col_px"]], axis=1), made.rc, atol=1e-3)
        assert np.array_equal(columns["h"], made.spots.hkl[:, 0])
        assert "excitation_error_inv_angstrom" in columns
        if extension == "png":
            expected = np.rint(255 * np.clip(made.pattern.data, 0, 1) ** silicon.settings.gamma.value)
            assert np.abs(iio.imread(path).astype(float) - expected).max() <= 1
            continue
        [pattern] = read_patterns(path)
        assert np.allclose(pattern.data, made.pattern.data)
        if extension != "tif":
            assert pattern.pixel_size_inv_angstrom == pytest.approx(made.pattern.pixel_size_inv_angstrom)


def test_saving_over_a_measured_pattern_writes_the_settings(qtbot, viewer, silicon, tmp_path):
    overlay_on(qtbot, silicon, add_measured(viewer, measured_pattern()))
    silicon.save(tmp_path / "si.hspy")
    wait(qtbot, lambda: silicon.status.value.startswith("saved"))
    [pattern] = read_patterns(tmp_path / "si.hspy")
    assert np.allclose(pattern.data, direct(silicon).pattern.data)


def test_saving_with_imperfections_writes_what_is_shown(qtbot, silicon, tmp_path):
    change(qtbot, silicon, silicon.settings.imperfections, "medium")
    silicon.save(tmp_path / "si.hspy")
    wait(qtbot, lambda: silicon.status.value.startswith("saved"))
    [pattern] = read_patterns(tmp_path / "si.hspy")
    assert np.allclose(pattern.data, silicon.layers.image.data)
    assert np.allclose(read_spots(tmp_path / "si.csv")["row_px"], silicon.answer.rc[:, 0], atol=1e-3)


def test_a_place_that_cannot_be_written(qtbot, silicon, complaints, tmp_path):
    for number, name in enumerate(["si.jpg", "nowhere/si.png"], start=1):
        silicon.save(tmp_path / name)
        wait(qtbot, lambda number=number: len(complaints) == number)
        assert Path(name).name in complaints[-1] or "nowhere" in complaints[-1]
        settle(qtbot, silicon)
        assert silicon.save_button.enabled
    assert not list(tmp_path.iterdir())
