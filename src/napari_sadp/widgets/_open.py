"""Files that the user hands to a widget of ours: every format that the package reads.

napari asks which plugin is to read a file wherever two claim its name. So the manifest leaves tif, png, h5 and the other formats of
napari alone, and whoever wants such a file as a diffraction pattern opens it here, with its calibration.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Layer
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QFileDialog

from napari_sadp.errors import UnreadableFileError
from napari_sadp.napari_io import EXTENSIONS, MORE_EXTENSIONS, read_layers
from napari_sadp.widgets._shared import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari.viewer
    from qtpy.QtWidgets import QWidget


def open_patterns(viewer: napari.viewer.Viewer, paths: Sequence[Path]) -> list[Layer]:
    """Add the patterns of files to a viewer, and select them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    paths : sequence of Path
        Files, or zspy folders. Of those that cannot be read the user is told why.

    Returns
    -------
    list of napari.layers.Layer
        What was added.
    """
    added: list[Layer] = []
    for path in paths:
        try:
            made = read_layers(str(path))
        except UnreadableFileError as error:
            show_error(one_line(error))
            continue
        added += [viewer.add_layer(Layer.create(*data)) for data in made]
    if added:
        viewer.layers.selection = set(added)
    return added


def choose_patterns(parent: QWidget, folder: str) -> list[Path]:
    """Let the user choose files in a dialog that begins in a folder."""
    known = " ".join(f"*{extension}" for extension in (*EXTENSIONS, *MORE_EXTENSIONS))
    names, _filter = QFileDialog.getOpenFileNames(
        parent, "Open diffraction patterns", folder, f"Patterns ({known});;All files (*)"
    )
    return [Path(name) for name in names]


class PatternDrop(QObject):
    """Lets files be dropped anywhere on a widget.

    Parameters
    ----------
    on_drop : callable
        Gets the paths.
    parent : QWidget
        The widget.
    """

    def __init__(self, on_drop: Callable[[list[Path]], object], parent: QWidget) -> None:
        super().__init__(parent)
        self._on_drop = on_drop
        parent.setAcceptDrops(True)
        parent.installEventFilter(self)

    def eventFilter(self, _: QObject, event: QEvent) -> bool:
        """Take the events of dragged files, leave all others."""
        if event.type() not in (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop):
            return False
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if not paths:
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self._on_drop(paths)
        return True
