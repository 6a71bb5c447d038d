"""Make the screenshots of the documentation anew: python tools/screenshots.py [--weights FILE] [FOLDER].

Needs a display with OpenGL; without one: ``xvfb-run -a -s "-screen 0 1600x1100x24" python tools/screenshots.py``.
The picture of an acquired pattern is left out where the patterns are not beside the repository.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

ROOT = Path(__file__).resolve().parents[1]
ACQUIRED = ROOT.parent / "shared" / "real_patterns"
PATIENCE_S = 600
DOCK_WIDTH = 640


def main() -> None:
    """Write one picture for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--weights", type=Path, help="weight file instead of the bundled one")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    cases = {"identify_si": lambda viewer: viewer.open_sample("napari-sadp", "si")}
    for name in ("nanobeam_dd020.dm3", "ag_sped_two_grains.hspy"):
        path = ACQUIRED / name
        if path.is_file():
            cases[f"identify_{path.stem}"] = lambda viewer, path=path: viewer.open(path, plugin="napari-sadp")
        else:
            print(f"left out: {path} is not there")
    for name, load in cases.items():
        target = options.folder / f"{name}.png"
        take(load, target, options.weights)
        print(target)


def take(load, target: Path, weights: Path | None, row: int = 1) -> None:
    """Open data, identify, choose a row of the table, and write a picture of the window."""
    viewer = napari.Viewer(show=False)
    viewer.window.resize(1500, 1000)
    viewer.show()
    load(viewer)
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
    viewer.screenshot(str(target), canvas_only=False, flash=False)
    viewer.close()


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
