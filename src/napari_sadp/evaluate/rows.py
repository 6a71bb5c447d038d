"""Rows of an evaluation on the disk, one file for each part, so that an evaluation that was stopped goes on."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.errors import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

Row = dict[str, Any]
#: Says what the rows in a folder were made with.
SETTINGS_FILE = "settings.json"


class RowStore:
    """Rows of plain values in the CSV files of a folder.

    Parameters
    ----------
    folder : pathlib.Path
        Where; made if missing. What lies there of other settings is made anew.
    settings : dict
        What the rows depend on; plain values.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / SETTINGS_FILE
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            for old in folder.glob("*.csv"):
                old.unlink()
            with atomic_write(path) as file:
                file.write(text)

    def read(self, part: str) -> list[Row]:
        """Return the rows of a part, none if there are none yet; numbers are numbers again.

        Raises
        ------
        UnreadableFileError
            If a line has other columns than the header.
        """
        path = self.folder / f"{part}.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for number, row in enumerate(rows):
            if None in row or None in row.values():
                raise UnreadableFileError(f"{path}: line {number + 2} is damaged, remove the file")
        return [{key: _value(text) for key, text in row.items()} for row in rows]

    def complete(
        self, part: str, work: Sequence[Any], make: Any, save_every: int = 20
    ) -> Iterator[tuple[int, int]]:
        """Make the rows that a part still lacks; yields (done, total).

        Parameters
        ----------
        part : str
            Name of the file.
        work : sequence
            One item for each row.
        make : callable
            Takes an item, gives its row; all rows have the same keys.
        save_every : int
            Rows between two writings.
        """
        rows = self.read(part)[: len(work)]
        for item in work[len(rows) :]:
            rows.append(make(item))
            if len(rows) % save_every == 0:
                self.write(part, rows)
            yield len(rows), len(work)
        self.write(part, rows)

    def write(self, part: str, rows: Sequence[Row]) -> None:
        """Write all rows of a part."""
        write_table(self.folder / f"{part}.csv", rows)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV; the first one names the columns."""
    with atomic_write(path, newline="") as file:
        if rows:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def column(rows: Iterable[Row], name: str) -> np.ndarray:
    """Return the values of a column."""
    return np.array([row[name] for row in rows])


def _text(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
