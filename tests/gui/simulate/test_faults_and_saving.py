"""The *Simulate* widget: bad values, and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from support.simulate_widget import (
    add_measured,
    change,
    direct,
    measured_pattern,
    overlay_on,
    set_zone,
    settle,
    wait,
)

from napari_sadp.errors import StructureError
from napari_sadp.io.rosetta import read_patterns
from napari_sadp.io.spots_csv import read_spots
from napari_sadp.widgets import simulate

pytestmark = pytest.mark.gui


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
