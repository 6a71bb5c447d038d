"""How long the *Simulate* widget takes from a changed value to new data in the layers.

    xvfb-run -a -s "-screen 0 1600x1200x24" python benchmarks/simulate_widget.py [--write docs/results/simulate_widget.md]

Needs a display. Time runs from the assignment of the value to the image layer's new data ("image") and to the end of all layer updates (image,
spots and labels: "all layers", the median and the fastest); the event loop runs meanwhile as in the viewer. Drawing is the
graphics driver's and given apart: with a software renderer it is the larger part.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_sadp._atomic import atomic_write
from napari_sadp.simulation.catalogue import find_structure

STRUCTURES = [("Al", 225, 256), ("Si", 227, 256), ("ZnV2O4", 227, 256), ("Si", 227, 512), ("Si", 227, 1024)]
REPEATS = 16  # even: every value is as it was at the end
PATIENCE_S = 60


def main() -> None:
    """Print the table, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="markdown file to write")
    options = parser.parse_args()
    viewer = napari.Viewer(show=False)
    viewer.window.resize(1400, 1000)
    viewer.show()
    _, widget = viewer.window.add_plugin_dock_widget("napari-sadp", "Simulate")
    rows = []
    for formula, group, size in STRUCTURES:
        widget.settings.size.value = size
        shown = widget.answer
        widget.load(find_structure(formula, group))
        wait(lambda shown=shown: widget.answer is not None and widget.answer is not shown)
        settle()
        for name, box, values in changes(widget):
            rows.append((formula, widget.crystal.n_atoms, size, name, *measure(widget, box, values)))
    viewer.close()
    text = table(rows)
    print(text)
    if options.write:
        with atomic_write(options.write) as file:
            file.write(text + "\n")


def changes(widget):
    """Return what is changed: name, box, values that take turns."""
    return [
        ("zone axis", widget.settings.zone[2], (2, 1)),
        ("voltage", widget.settings.voltage, (120.0, 200.0)),
        ("rotation", widget.settings.rotation, (10.0, 0.0)),
    ]


def measure(widget, box, values) -> tuple[float, float, float, float, int]:
    """Return image data, all layers, the fastest of these, redrawn [ms], and the number of spots."""
    image, everything, drawn = [], [], []
    for repeat in range(REPEATS):
        before, old = widget.answer, widget.layers.image.data
        stamp: list[float] = []

        def new_data(_=None, stamp=stamp):
            stamp.append(time.perf_counter())

        widget.layers.image.events.data.connect(new_data)
        start = time.perf_counter()
        box.value = values[repeat % 2]
        wait(lambda before=before: widget.answer is not before)
        end = time.perf_counter()
        widget.layers.image.events.data.disconnect(new_data)
        if widget.layers.image.data is old:
            raise RuntimeError("the layer has its old data")
        QApplication.processEvents()
        last = time.perf_counter()
        image.append(stamp[0] - start)
        everything.append(end - start)
        drawn.append(last - start)
        settle()
    medians = [1e3 * float(np.median(times[1:])) for times in (image, everything, drawn)]
    return (*medians[:2], 1e3 * min(everything), medians[2], len(widget.answer.spots))


def wait(done) -> None:
    """Let Qt work until `done` says so."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        QApplication.processEvents()
        if time.monotonic() > end:
            raise TimeoutError("the widget did not answer")


def settle(seconds: float = 0.25) -> None:
    """Let Qt draw."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def table(rows) -> str:
    """Return the table as markdown."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"Median of {REPEATS - 1} changes, live, kinematic; {os.cpu_count()} cores, load average {load}; milliseconds from the change.",
        "",
        "| structure | atoms | image px | changed | spots | image | all layers | fastest | drawn |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for formula, atoms, size, name, image, everything, fastest, drawn, spots in rows:
        lines.append(
            f"| {formula} | {atoms} | {size} | {name} | {spots} | {image:.0f} | {everything:.0f} | {fastest:.0f} | {drawn:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
