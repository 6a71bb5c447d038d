"""The two tables of results: one line a pattern, and the space groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_sadp.identify import NONE_LABEL
from napari_sadp.labels.spacegroups import symbol
from napari_sadp.report_lattice import lattice_texts, leftover_text
from napari_sadp.widgets._layers import OTHER_COLOUR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.geometry.grains import Leftover
    from napari_sadp.identify import PatternResult
    from napari_sadp.report_lattice import LatticeTexts
    from napari_sadp.widgets._work import FrameResult, Outcome

_ROW_HEIGHT = 22
_MAX_MEMBERS = 12
_MAX_COLUMN = 170  # [px of the screen]
_BRACKETS = "In brackets: standard uncertainty of the fit, in units of the last digit"


class _Table(QTableWidget):
    """A table to read, with a tooltip for each column."""

    def __init__(self, columns: Sequence[tuple[str, str]], min_rows: int, max_rows: int) -> None:
        super().__init__(0, len(columns))
        self._bounds = (min_rows, max_rows)
        for number, (title, tip) in enumerate(columns):
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(number, item)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setWordWrap(False)
        self.verticalHeader().setVisible(False)
        self.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.fit_height()

    def put(self, row: int, column: int, text: str, tip: str = "") -> QTableWidgetItem:
        """Write a cell."""
        item = QTableWidgetItem(text)
        item.setToolTip(tip or text)
        self.setItem(row, column, item)
        return item

    def row_text(self, row: int) -> list[str]:
        """Return the cells of a row, for tests and scripts."""
        cells = [self.item(row, column) for column in range(self.columnCount())]
        return ["" if cell is None else cell.text() for cell in cells]

    def fit_height(self) -> None:
        """Show all rows, within bounds."""
        low, high = self._bounds
        shown = min(max(self.rowCount(), low), high)
        # header, rows, and a scroll bar that may appear
        self.setMinimumHeight(_ROW_HEIGHT * (shown + 1) + 24)

    def empty(self) -> None:
        """Remove all rows."""
        self.clearSpans()
        self.setRowCount(0)
        self.fit_height()


class PatternTable(_Table):
    """One line for each pattern; a click on it asks for its frame."""

    #: Emitted with the number of the row that the user chose.
    chosen = Signal(int)

    COLUMNS = (
        ("Pattern", "Layer and frame"),
        ("Class", "Pattern class by network and lattice; 'none': the lattice fits no class"),
        ("P", "Probability of the class"),
        ("Type", "Lattice type and its probability: A square, B rectangle, C hexagonal, D oblique"),
        ("d1 Å", f"Spacing of the shortest lattice vector [Å]; '-' when uncalibrated\n{_BRACKETS}"),
        ("d2 Å", f"Spacing of the second one [Å]; '-' when uncalibrated\n{_BRACKETS}"),
        ("Angle °", f"Angle between them [deg]\n{_BRACKETS}"),
        ("Spots", "Spots on the lattice"),
        (
            "Left over",
            "Spots on no node of the lattice; '+ grain' where the lattice is turned on to them, '+ lattice' where they span one of their own",
        ),
        ("|g1| px", f"Length of the shortest lattice vector [px]\n{_BRACKETS}"),
        ("|g2| px", f"Length of the second one [px]\n{_BRACKETS}"),
        ("|g2|/|g1|", f"Ratio of their lengths\n{_BRACKETS}"),
        ("By lattice", "Most probable class by ratio and angle of the lattice alone, with its probability"),
        ("Beam px", "Direct beam (row, col) [px]"),
    )

    def __init__(self) -> None:
        super().__init__(self.COLUMNS, 2, 6)
        self._several = True
        # names of files may be long: elided, with the whole in the tooltip
        self.horizontalHeader().setMaximumSectionSize(_MAX_COLUMN)
        self.currentCellChanged.connect(self._on_current)
        self.setToolTip("Choose a line to see its frame")

    def add(self, item: FrameResult, *, name_layer: bool = True) -> None:
        """Append the result of a frame; the name of the layer may be left out where all are of one."""
        self._several = name_layer
        self.insertRow(self.rowCount())
        self.show_result(self.rowCount() - 1, item)
        self.fit_height()

    def show_result(self, row: int, item: FrameResult) -> None:
        """Write the result of a frame into its row, in place of an older one."""
        label, result = item.source.label(item.frame), item.result
        short = f"frame {label.removeprefix(item.source.name).strip(' []')}"
        is_short = not self._several and bool(item.source.stack.navigation_shape)
        by_hand = " (edited)" if item.edits.any else ""
        self.put(row, 0, (short if is_short else label) + by_hand, "\n".join((label, *result.notes)))
        cells = _cells(result)
        if self.columnSpan(row, 1) > 1:
            self.setSpan(row, 1, 1, 1)
        for column in range(1, self.columnCount()):
            self.takeItem(row, column)
        if cells is None:
            refusal = f"refused: {result.reason}: {result.detail}"
            self.put(row, 1, refusal).setForeground(QColor(OTHER_COLOUR))
            self.setSpan(row, 1, 1, self.columnCount() - 1)
        else:
            for column, (text, tip) in enumerate(cells, start=1):
                self.put(row, column, text, tip)

    def _on_current(self, row: int, *_: int) -> None:
        if row >= 0:
            self.chosen.emit(row)


class GroupTable(_Table):
    """The space groups with their probabilities, and the line for none of them."""

    COLUMNS = (
        ("Space group", "Number and Hermann-Mauguin symbol"),
        ("P", "Probability among the groups of the network"),
        (
            "Same patterns as",
            "Space groups with the same spots on every zone axis: not to be told apart by patterns",
        ),
    )

    def __init__(self) -> None:
        super().__init__(self.COLUMNS, 4, 4)  # more where there is room
        self.horizontalHeader().setStretchLastSection(True)

    def show_outcome(self, outcome: Outcome) -> None:
        """Replace the rows by those of a result."""
        self.empty()
        if not outcome.found.n_used:
            return
        groups = outcome.found.space_groups
        for row, (number, p) in enumerate(zip(groups.groups, groups.probabilities, strict=True)):
            self.insertRow(row)
            self.put(row, 0, f"{number} {symbol(number)}")
            self.put(row, 1, f"{p:.3f}")
            others = outcome.same[number]
            names = ", ".join(f"{other} {symbol(other)}" for other in others) or "no other cubic group"
            self.put(row, 2, ", ".join(map(str, others)) or "-", names)
        row = self.rowCount()
        self.insertRow(row)
        tip = "Probability that no pattern belongs to a class of these groups and axes; the lines above hold only if one does"
        self.put(row, 0, "none of these", tip)
        self.put(row, 1, f"{groups.none_of_these:.3f}", tip)
        self.put(row, 2, "", tip)
        self.fit_height()


def class_description(result: PatternResult) -> str:
    """Return which space groups show the most probable class of a pattern, and on which zone axes."""
    label = result.best_class[0] if result.best_class else NONE_LABEL
    if label == NONE_LABEL:
        return "The lattice fits no class of the network: another zone axis, or another crystal."
    members = next(item for item in result.scheme.classes if item.label == label).members
    names = [f"{behaviour.name} [{' '.join(map(str, zone))}]" for behaviour, zone in members]
    more = f" and {len(names) - _MAX_MEMBERS} more" if len(names) > _MAX_MEMBERS else ""
    return f"{label} is shown by {', '.join(names[:_MAX_MEMBERS])}{more}"


def _what_is_left(leftover: Leftover) -> str:
    """Return what spots on no node are, in a word."""
    if leftover.turned_deg is not None:
        return " + grain"
    return "" if leftover.basis is None else " + lattice"


def _cells(result: PatternResult) -> list[tuple[str, str]] | None:
    """Return the cells of a pattern that was used with their tooltips, from the class on; None for a refused one."""
    if result.best_class is None or result.lattice is None:
        return None
    label, probability = result.best_class
    by_lattice = result.lattice_classes.probabilities
    second = int(np.argmax(by_lattice))
    share = float(by_lattice[second]) * (1 - result.none_of_these)
    texts = lattice_texts(result)
    left = result.leftover
    count = "" if left is None else f"{left.n_spots}{_what_is_left(left)}"
    return [
        (label, class_description(result)),
        (f"{probability:.2f}", ""),
        (texts.kind, texts.kinds),
        *_spacing_cells(texts),
        (texts.angle, ""),
        (str(result.lattice.n_spots), ""),
        (count, leftover_text(left)),
        *((length, "") for length in texts.g_px),
        (texts.ratio, ""),
        (f"{result.scheme.labels[second]} {share:.2f}", ""),
        (f"{result.beam.rc[0]:.1f}, {result.beam.rc[1]:.1f}", ""),
    ]


def _spacing_cells(texts: LatticeTexts) -> list[tuple[str, str]]:
    """Return the two spacings, with the reciprocal lengths and the camera constant as tooltips."""
    if not texts.d_angstrom:
        return [("-", "Not calibrated: give a pixel size above")] * 2
    constant = (
        f"camera constant {texts.camera_constant} px Å; errors of the calibration are not in the uncertainty"
    )
    lengths = zip(texts.d_angstrom, texts.g_inv_angstrom, strict=True)
    return [(d, f"d{k} {d} Å, |g{k}| {g} 1/Å\n{constant}") for k, (d, g) in enumerate(lengths, start=1)]
