"""The part of the *Simulate* widget that chooses the structure: a CIF, or an entry found by typing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import magicgui.widgets as mw
from psygnal import Signal
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractItemView, QListWidget, QListWidgetItem

from napari_sadp.errors import SadpError
from napari_sadp.widgets._shared import one_line, wrap_text
from napari_sadp.widgets._simulate_search import crystal_text, entry_line, search

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

_LIST_HEIGHT = 112
_TIPS = {
    "cif": "Crystallographic information file; drag it here, or choose it",
    "search": "Type a formula or elements (SrSi2, Mg O), a space group (227, Fd-3m), an extinction behaviour (227a, 227b, 227g)\n"
    "or a source id (mp-149); several words must all hold. Enter loads the first line.",
}


class StructurePanel:
    """File box, search box with its list, and what was loaded.

    Attributes
    ----------
    chosen : Signal
        Emits the `pathlib.Path` of a CIF or a `CatalogueEntry`.
    widgets : list of magicgui widgets
        In their order.
    """

    chosen = Signal(object)

    def __init__(self) -> None:
        self.cif = mw.FileEdit(
            label="CIF", mode="r", filter="*.cif", nullable=True, value=None, tooltip=_TIPS["cif"]
        )
        self.search = mw.LineEdit(label="Catalogue", tooltip=_TIPS["search"])
        self.search.native.setPlaceholderText("Si, SrSi2, Mg O, 227, Fd-3m, 227b, mp-149")
        self.search.native.setClearButtonEnabled(True)
        self.results = QListWidget()
        self.results.setFixedHeight(_LIST_HEIGHT)
        self.results.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.results.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.holder = mw.Container(labels=False, label=" " * 16)
        self.holder.margins = (0, 0, 0, 0)
        self.holder.native.layout().addWidget(self.results)
        self.holder.native.setFixedHeight(_LIST_HEIGHT)
        self.loaded = mw.Label(label="Structure", value="none: drop a CIF here, or search the catalogue")
        self.widgets = [self.cif, self.search, self.holder, self.loaded]
        self.cif.changed.connect(self._cif_changed)
        self.search.changed.connect(self._search)
        self.search.native.returnPressed.connect(self._take_first)
        self.results.currentItemChanged.connect(self._take)

    def finish(self) -> None:
        """Set what needs the widgets in their container."""
        wrap_text(self.loaded)
        self.holder.visible = False

    def show(self, crystal: Crystal) -> None:
        """Show what was loaded."""
        self.loaded.value = crystal_text(crystal)

    def _cif_changed(self, path: Path | None) -> None:
        # an empty box gives the folder "."
        if path not in (None, Path()):
            self.chosen.emit(Path(path))

    def _search(self, text: str) -> None:
        self.results.blockSignals(True)
        self.results.clear()
        try:
            found = search(text)
        except (SadpError, ValueError) as error:
            self._say(one_line(error))
        else:
            for entry in found.entries:
                item = QListWidgetItem(entry_line(entry))
                item.setData(Qt.ItemDataRole.UserRole, entry)
                item.setToolTip(f"{entry.source}, {entry.licence}")
                self.results.addItem(item)
            if found.total > len(found.entries):
                self._say(f"and {found.total - len(found.entries)} more: type another word")
            elif not found.total and text.strip():
                self._say("nothing in the catalogue")
        self.results.blockSignals(False)
        self.holder.visible = bool(text.strip())

    def _say(self, text: str) -> None:
        item = QListWidgetItem(text)
        item.setToolTip(text)
        item.setFlags(Qt.ItemFlag.NoItemFlags)
        self.results.addItem(item)

    def _take_first(self) -> None:
        if self.results.count() and self.results.item(0).flags() & Qt.ItemFlag.ItemIsSelectable:
            self.results.setCurrentRow(0)

    def _take(self, item: QListWidgetItem | None, _: object = None) -> None:
        entry = None if item is None else item.data(Qt.ItemDataRole.UserRole)
        if entry is not None:
            with self.cif.changed.blocked():
                self.cif.value = None
            self.chosen.emit(entry)


class CifDrop(QObject):
    """Lets a CIF be dropped anywhere on a widget.

    Parameters
    ----------
    panel : StructurePanel
        Gets the file.
    parent : QWidget
        The widget.
    """

    def __init__(self, panel: StructurePanel, parent: QObject) -> None:
        super().__init__(parent)
        self._panel = panel
        for target in (parent, panel.cif.line_edit.native):
            target.setAcceptDrops(True)
            target.installEventFilter(self)

    def eventFilter(self, _: QObject, event: QEvent) -> bool:
        """Take the events of a dragged CIF, leave all others."""
        if event.type() not in (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop):
            return False
        path = cif_of(event.mimeData())
        if path is None:
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            if self._panel.cif.value == path:  # read it again
                self._panel.chosen.emit(path)
            self._panel.cif.value = path
        return True


def cif_of(mime: object) -> Path | None:
    """Return the one CIF of what is dragged, None for anything else."""
    paths = [Path(url.toLocalFile()) for url in mime.urls() if url.isLocalFile()]
    return paths[0] if len(paths) == 1 and paths[0].suffix.lower() == ".cif" else None
