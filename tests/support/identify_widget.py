"""What the tests of the *Identify* widget share; for those with a viewer only."""

from __future__ import annotations

import numpy as np

from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets._layers import derived_from

WAIT_MS = 180_000


def finish(qtbot, widget) -> None:
    """Wait for the end of a run; its signals may have passed before anybody could wait for them."""
    qtbot.waitUntil(lambda: widget.run_button.enabled, timeout=WAIT_MS)


def run(qtbot, widget):
    """Press the button, wait for the end, and return the worker."""
    worker = widget.run()
    assert worker is not None
    finish(qtbot, widget)
    return worker


def settle(qtbot, widget) -> None:
    """Wait until every change is followed."""
    qtbot.waitUntil(lambda: not widget._editor.busy, timeout=WAIT_MS)


def add_stack(viewer, patterns, keywords):
    """Add patterns as one stack."""
    return viewer.add_image(np.stack([p.data for p in patterns]), name="stack", **keywords)


def results_of(viewer, image) -> dict[str, object]:
    """Return the result layers of an image by role."""
    return {
        layer.metadata[METADATA_KEY]["role"]: layer
        for layer in viewer.layers
        if derived_from(layer) == str(image.unique_id)
    }
