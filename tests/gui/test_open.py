"""Files that the *Identify* widget opens, also of formats that napari takes for plain images."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPoint, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_sadp.io.write import write_patterns
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets import _open

pytestmark = pytest.mark.gui


@pytest.fixture
def widget(identify_widget):
    return identify_widget


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(_open, "show_error", shown.append)
    return shown


def drop(widget, mime) -> bool:
    """Drag something onto the widget and let it go; tell whether it was taken."""
    actions, left, none = (
        Qt.DropAction.CopyAction,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(QPoint(5, 5), actions, mime, left, none)
    QApplication.sendEvent(widget.native, enter)
    if not enter.isAccepted():
        return False
    QApplication.sendEvent(widget.native, QDropEvent(QPoint(5, 5).toPointF(), actions, mime, left, none))
    return True


def test_a_tif_is_opened_with_its_calibration(viewer, widget, patterns, tmp_path, monkeypatch):
    paths = [
        write_patterns(tmp_path / name, [p]) for name, p in zip(("a.tif", "b.tif"), patterns, strict=True)
    ]
    asked: list[tuple] = []

    def dialog(*arguments):
        asked.append(arguments)
        return [str(path) for path in paths], ""

    monkeypatch.setattr(QFileDialog, "getOpenFileNames", dialog)
    widget.open_button.clicked.emit(True)
    assert [layer.name for layer in viewer.layers] == ["a", "b"]
    assert [str(unit) for unit in viewer.layers[0].units] == ["1 / nanometer"] * 2
    assert viewer.layers[0].metadata[METADATA_KEY]["path"] == str(paths[0])
    # a run takes what was opened
    assert widget.source_layers() == list(viewer.layers)
    assert "*.tif" in asked[0][3]
    widget.open_button.clicked.emit(True)
    assert asked[1][2] == str(tmp_path)


def test_nothing_chosen_is_nothing_done(viewer, widget, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([], ""))
    widget.open_button.clicked.emit(True)
    assert not viewer.layers


def test_files_can_be_dropped(viewer, widget, patterns, tmp_path, complaints):
    path = write_patterns(tmp_path / "a.tif", patterns[:1])
    broken = tmp_path / "broken.dm3"
    broken.write_bytes(b"nothing of the kind")
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(item)) for item in (broken, path)])
    assert drop(widget, mime)
    [layer] = viewer.layers
    assert np.asarray(layer.data).shape == (256, 256)
    [message] = complaints
    assert "broken.dm3" in message
    text = QMimeData()
    text.setText("no file")
    assert not drop(widget, text)
