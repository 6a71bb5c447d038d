"""Make the screenshots of the documentation anew: python tools/screenshots.py [--weights FILE] [FOLDER].

Needs a display with OpenGL; without one: ``xvfb-run -a -s "-screen 0 1600x1200x24" python tools/screenshots.py``.
All patterns in them are simulated. ``--only simulate`` makes those whose names begin so.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 600
DOCK_WIDTH = 640


def main() -> None:
    """Write one picture for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--weights", type=Path, help="weight file instead of the bundled one")
    parser.add_argument("--only", default="", metavar="START", help="pictures whose names begin so")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, change in (("identify_si", None), ("identify_change", change_vector)):
        if name.startswith(options.only):
            target = options.folder / f"{name}.png"
            take(target, options.weights, change)
            print(target)
    for name, prepare in (("simulate_spinel", simulate_alone), ("simulate_overlay", simulate_overlay)):
        if name.startswith(options.only):
            target = options.folder / f"{name}.png"
            take_simulation(prepare, target)
            print(target)


def take(target: Path, weights: Path | None, change=None, row: int = 1) -> None:
    """Identify the sample, choose a row of the table, perhaps change something, and write a picture of the window."""
    viewer = napari.Viewer(show=False)
    viewer.window.resize(1500, 1000)
    viewer.show()
    viewer.open_sample("napari-sadp", "si")
    viewer.canvas.overlays.scale_bar.visible = True
    dock, widget = viewer.window.add_plugin_dock_widget("napari-sadp", "Identify")
    if weights is not None:
        widget.weights.value = weights
    worker = widget.run()
    finished: list[bool] = []
    worker.finished.connect(lambda: finished.append(True))
    wait(lambda: bool(finished))
    widget.pattern_table.selectRow(min(row, widget.pattern_table.rowCount() - 1))
    viewer.window._qt_window.resizeDocks([dock], [DOCK_WIDTH], _horizontal())
    viewer.window._qt_window.resize(1500, 1000)
    wait(lambda: False, 1.5)
    viewer.fit_to_view() if hasattr(viewer, "fit_to_view") else viewer.reset_view()
    wait(lambda: False, 1.0)
    if change is not None:
        change(viewer, widget)
    viewer.screenshot(str(target), canvas_only=False, flash=False)
    viewer.close()


def change_vector(viewer, widget) -> None:
    """Take the lattice vectors in hand."""
    widget.edit.take("vectors")
    wait(lambda: False, 3.0)


def take_simulation(prepare, target: Path) -> None:
    """Open the *Simulate* widget, let a function prepare it, and write a picture of the window."""
    viewer = napari.Viewer(show=False)
    viewer.window.resize(1500, 1000)
    viewer.show()
    viewer.canvas.overlays.scale_bar.visible = True
    _, widget = viewer.window.add_plugin_dock_widget("napari-sadp", "Simulate")
    viewer.window._qt_window.resize(1500, 1000)
    prepare(viewer, widget)
    wait(lambda: False, 1.5)
    viewer.fit_to_view() if hasattr(viewer, "fit_to_view") else viewer.reset_view()
    wait(lambda: False, 1.5)  # the labels follow the zoom
    viewer.screenshot(str(target), canvas_only=False, flash=False)
    viewer.close()


def simulate_alone(viewer, widget) -> None:
    """Find a spinel by typing, and show it on [112], dynamical."""
    widget.structure.search.value = "V O 227g"
    widget.structure.results.setCurrentRow(0)
    for box, index in zip(widget.settings.zone, (1, 1, 2), strict=True):
        box.value = index
    widget.settings.thickness.value = 20.0
    widget.settings.engine.value = "dynamical"
    wait(lambda: widget.answer is not None and widget.answer.request.settings.engine == "dynamical", 60)


def simulate_overlay(viewer, widget) -> None:
    """Lay silicon over a simulated camera frame of it, and align."""
    from napari_sadp.samples import SAMPLES

    viewer.open_sample("napari-sadp", "si")
    image = viewer.layers[0]
    viewer.dims.set_current_step(0, 1)
    widget.structure.search.value = f"{SAMPLES['si'].formula}:{SAMPLES['si'].space_group}"
    widget.structure.results.setCurrentRow(0)
    for box, index in zip(widget.settings.zone, (0, 1, 1), strict=True):
        box.value = index
    wait(lambda: widget.answer is not None, 60)
    widget.overlay.layer.value = image
    wait(lambda: widget.answer.request.overlay is not None, 60)
    widget.align()
    wait(lambda: widget.overlay.fit.value.startswith("The lattices"), 60)


def wait(done, seconds: float = PATIENCE_S) -> None:
    """Let Qt work until `done` says so, at most some seconds."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.02)


def _horizontal():
    from qtpy.QtCore import Qt

    return Qt.Orientation.Horizontal


if __name__ == "__main__":
    main()
