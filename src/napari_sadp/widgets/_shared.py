"""What the widgets share: how an error becomes a line, and how work ends with its window."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import magicgui.widgets as mw
import numpy as np
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy

from napari_sadp.errors import SadpError

if TYPE_CHECKING:
    import logging
    from typing import Protocol

    import napari.viewer
    from napari.layers import Image

    from napari_sadp.widgets._sources import Source

    class Closable(Protocol):
        """A widget that runs work in other threads."""

        def stop_work(self) -> None:
            """Stop all work and touch neither viewer nor widgets from now on."""


_BOX_WIDTH = 84  # px


class _Networks:
    """Tells the widgets of an application when the user's networks change."""

    changed = Signal()


NETWORKS = _Networks()


def follow_networks(box: mw.ComboBox) -> None:
    """Let a box that names networks offer one as soon as it is there."""
    reference = weakref.ref(box)

    def refresh() -> None:
        there = reference()
        try:
            if there is not None:
                there.reset_choices()
                return
        except RuntimeError:  # its window is gone
            pass
        NETWORKS.changed.disconnect(refresh)

    NETWORKS.changed.connect(refresh)


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def log_own_fault(logger: logging.Logger, what: str, error: Exception) -> None:
    """Leave the whole story of an error for a report, unless it is a fault of the input."""
    if not isinstance(error, SadpError | ValueError | OSError):
        logger.error("%s failed", what, exc_info=error)


def wrap_text(label: mw.Label) -> None:
    """Let a label break its lines and take the width that there is."""
    label.native.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    label.native.setWordWrap(True)
    label.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)


def row_of(label: str, *parts: mw.Widget | str) -> mw.Container:
    """Return widgets side by side with texts between them, no wider than they must be."""
    widgets = [mw.Label(value=part) if isinstance(part, str) else part for part in parts]
    row = mw.Container(widgets=widgets, layout="horizontal", labels=False, label=label)
    row.margins = (0, 0, 0, 0)
    for widget in widgets:
        if isinstance(widget, mw.SpinBox | mw.FloatSpinBox):
            # a box asks for the width of its longest number, which nobody types
            widget.native.setMinimumWidth(_BOX_WIDTH)
            widget.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return row


def shown_frame(viewer: napari.viewer.Viewer, layer: Image, source: Source) -> int:
    """Return the flat index of the frame of a layer that the viewer shows."""
    where = source.stack.navigation_shape
    if not where:
        return 0
    position = layer.world_to_data(viewer.dims.point)[: len(where)]
    index = np.clip(np.round(position).astype(int), 0, np.array(where) - 1)
    return int(np.ravel_multi_index(tuple(index), where))


class Closer:
    """Stops the work of a widget whose window is gone; holds the widget weakly."""

    def __init__(self, widget: Closable) -> None:
        self._widget = weakref.ref(widget)

    def __call__(self, *_: object) -> None:
        widget = self._widget()
        if widget is not None:
            widget.stop_work()
