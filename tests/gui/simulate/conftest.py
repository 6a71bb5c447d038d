"""The *Simulate* widget, ready for its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.cifs import write_cif
from support.simulate_widget import PATIENCE_MS

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.widgets import simulate

if TYPE_CHECKING:
    from pathlib import Path


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
    atoms = ("Au1 Au 0 0 0 0.5", "Cu1 Cu 0.5 0.5 0 0.5")
    return write_cif(tmp_path / "AuCu3.cif", atoms, cell="3.75 3.75 3.75 90 90 90", group="P m -3 m")
