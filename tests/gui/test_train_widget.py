"""The *Train* widget in a viewer, from the settings to a network that *Identify* offers."""

from __future__ import annotations

import threading
from dataclasses import replace

import napari
import pytest
from napari.utils.notifications import notification_manager

from napari_sadp.models.registry import PACKAGED, WEIGHTS_VARIABLE, list_weights, runs_folder
from napari_sadp.models.weights import read_card
from napari_sadp.widgets import _train_work, train
from napari_sadp.widgets._shared import NETWORKS

pytestmark = pytest.mark.gui

PATIENCE_MS = 180_000


@pytest.fixture
def widget(make_napari_viewer, monkeypatch, tmp_path):
    """A widget set to the smallest run there is, with the user's networks in a folder of the test."""
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "own"))
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-sadp", "Train")
    widget.groups.value = "225, 229"
    widget.size.value, widget.crystals.value, widget.minutes.value = 32, 1, 0.05
    widget.device.value = "cpu"
    widget.folder.value = tmp_path / "run"
    settings = train.TrainWidget.settings
    tiny = {
        "batch_size": 8,
        "validation_samples": 40,
        "validations": 2,
        "outlier_images": 0,
        "dynamical_nm": None,
    }
    monkeypatch.setattr(train.TrainWidget, "settings", lambda self: replace(settings(self), **tiny))
    return widget


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    """Messages that the user is shown."""
    shown: list[str] = []
    monkeypatch.setattr(train, "show_error", shown.append)
    return shown


def own_networks() -> list[str]:
    return [name for name in list_weights() if name not in PACKAGED]


def finish(qtbot, widget):
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=PATIENCE_MS)


def test_a_network_is_trained_and_offered(qtbot, widget, complaints, tmp_path):
    stages = []
    worker = widget.run()
    assert not widget.run_button.enabled
    assert widget.stop_button.enabled
    assert widget.run() is None  # one at a time
    main = threading.get_ident()
    worker.yielded.connect(
        lambda step: stages.append((getattr(step, "stage", step), threading.get_ident() == main))
    )
    finish(qtbot, widget)
    assert complaints == []
    assert widget.trained.name == "mine"
    assert own_networks() == ["mine"]
    assert "right for" in widget.status.value
    assert "Identify offers it" in widget.status.value
    assert [s for s, _ in stages if not s.startswith("cpu")][-1] == "done"
    assert all(here for _, here in stages)  # signals arrive in the thread of the window
    assert (tmp_path / "run" / "validation.csv").exists()
    # the curves show what was measured
    line = widget.plot._loss
    assert len(line.get_xdata()) >= 1
    assert line.get_xdata()[-1] == widget.trained.last.samples
    held_out = widget.plot._held_out
    assert held_out.get_xdata()[-1] == widget.trained.last.samples
    assert max(held_out.get_ydata()) == pytest.approx(widget.trained.last.best_accuracy)
    # and the next run can start from it
    assert set(widget.initial.choices) == {"from scratch", *PACKAGED, "mine", "ImageNet, downloaded"}


def test_an_open_identify_offers_the_new_network(qtbot, widget):
    _, identify = napari.current_viewer().window.add_plugin_dock_widget("napari-sadp", "Identify")
    assert list(identify.network.choices) == [*PACKAGED]
    identify.network.value = "sadp_resnet18"
    widget.run()
    finish(qtbot, widget)
    assert list(identify.network.choices) == [*PACKAGED, "mine"]
    assert identify.network.value == "sadp_resnet18"
    # a window that is gone does not stand in the way of the next one
    napari.current_viewer().window.remove_dock_widget(identify.native)
    qtbot.wait(50)
    NETWORKS.changed.emit()


def test_stop_keeps_the_best_weights(qtbot, widget, complaints):
    widget.minutes.value = 100
    worker = widget.run()

    def stop(step):
        if getattr(step, "stage", "") == "train":
            widget.stop_button.clicked.emit(True)

    worker.yielded.connect(stop)
    finish(qtbot, widget)
    assert complaints == []
    assert widget.trained is not None
    assert 0 < widget.trained.last.fraction <= 1
    assert widget.trained.last.seconds < 60
    assert "mine" in list_weights()
    assert not widget.stop_button.enabled


def test_a_run_that_was_stopped_goes_on_under_its_name(qtbot, widget, complaints):
    widget.resume.value = True
    widget.run()
    assert "expected one with a run to go on with (checkpoint.safetensors)" in complaints.pop()
    widget.resume.value = False
    widget.minutes.value = 100
    worker = widget.run()
    worker.yielded.connect(lambda step: widget.stop() if getattr(step, "stage", "") == "train" else None)
    finish(qtbot, widget)
    first = widget.trained.last
    widget.run()
    assert "name is 'mine', which there is already" in complaints.pop()
    widget.resume.value = True
    worker = widget.run()
    worker.yielded.connect(lambda step: widget.stop() if getattr(step, "stage", "") == "train" else None)
    finish(qtbot, widget)
    assert complaints == []
    assert widget.trained.last.samples > first.samples
    assert own_networks() == ["mine"]
    assert read_card(list_weights()["mine"]).images_seen == widget.trained.last.samples


def test_stop_before_the_training(qtbot, widget, complaints, monkeypatch):
    begun = threading.Event()  # of what the window waits for meanwhile
    real = _train_work.train_network

    def slow(*arguments, **options):
        begun.wait(PATIENCE_MS / 1000)
        return (yield from real(*arguments, **options))

    monkeypatch.setattr(train, "train_network", slow)
    widget.run()
    widget.stop()
    begun.set()
    finish(qtbot, widget)
    assert widget.trained is None
    assert widget.status.value == "stopped before the training began"
    assert own_networks() == []
    assert complaints == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": "iron"}, "groups is 'iron', expected space-group numbers such as 221, 225"),
        ({"groups": "225, 12"}, "expected cubic space groups, 195 to 230"),
        ({"groups": ""}, "expected space-group numbers"),
        ({"size": 8}, "size is 8, expected an integer from 32 to 1024"),
        ({"minutes": 0}, "minutes is 0.0, expected a number in (0, 1e+06] min"),
        ({"crystals": 0}, "crystals_per_behaviour is 0"),
        ({"name_box": "a/b"}, "name is 'a/b', expected one that a file can have"),
        ({"name_box": "sadp_resnet18"}, "name is 'sadp_resnet18', which there is already"),
    ],
)
def test_values_out_of_range_are_told(widget, complaints, change, message):
    for name, value in change.items():
        getattr(widget, name).value = value
    assert widget.run() is None
    [shown] = complaints
    assert message in shown
    assert widget.status.value == shown
    assert widget.run_button.enabled


def test_the_user_sees_a_notification(widget):
    widget.groups.value = "x"
    widget.run()
    assert "groups is 'x'" in notification_manager.records[-1].message
    notification_manager.records.clear()


def test_a_folder_with_another_run_is_told(qtbot, widget, complaints, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"something")
    widget.run()
    finish(qtbot, widget)
    [message] = complaints
    assert "holds a checkpoint already" in message
    widget.resume.value = True
    widget.run()
    finish(qtbot, widget)
    assert "not a checkpoint of a training run" in complaints[1]


def test_a_failing_device_is_told(qtbot, widget, complaints, monkeypatch):
    from napari_sadp.models import resnet

    def full(*_):
        raise RuntimeError("out of memory\nTraceback of the driver")

    monkeypatch.setattr(resnet, "choose_device", full)
    widget.run()
    finish(qtbot, widget)
    assert complaints == ["the network cannot be trained on device 'cpu': out of memory"]


def test_a_closed_window_stops_the_run_and_keeps_its_checkpoint(qtbot, widget, tmp_path):
    widget.minutes.value = 100
    worker = widget.run()
    ended, begun = [], []
    worker.finished.connect(lambda: ended.append(True))
    worker.yielded.connect(lambda step: begun.append(True) if getattr(step, "stage", "") == "train" else None)
    qtbot.waitUntil(lambda: bool(begun), timeout=PATIENCE_MS)
    widget.native.deleteLater()
    qtbot.waitUntil(lambda: bool(ended), timeout=PATIENCE_MS)
    assert (tmp_path / "run" / "checkpoint.safetensors").stat().st_size > 1000


def test_runs_lie_beside_the_networks(monkeypatch, tmp_path):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "own"))
    assert runs_folder() == tmp_path / "runs"
