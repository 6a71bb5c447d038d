"""The *Simulate* widget at work in other threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from support.simulate_widget import (
    PATIENCE_MS,
    direct,
    set_zone,
    settle,
    wait,
)

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.widgets import _simulate_work, simulate

pytestmark = pytest.mark.gui


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
