"""Rows of an evaluation on the disk, one file for each part, so that an evaluation that was stopped goes on."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.errors import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Row = dict[str, Any]
#: Rows between two writings.
SAVE_EVERY = 20
#: Says what the rows in a folder were made with.
SETTINGS_FILE = "settings.json"
#: Key in it for the settings of files that are not replaced yet; empty where they are not known.
_OTHER_ROWS = "other_rows"
#: Files of earlier versions hold these too. No row depends on how the network or the device was called.
_NAMES_ALONE = ("device", "weights")
_WAY_OUT = (
    "expected another folder (--out), or that rows may be replaced as new ones are measured (--replace)"
)


class RowStore:
    """Rows of plain values in the CSV files of a folder, one file for each part.

    Nothing is removed, and no file is touched but those of parts that are written.

    Parameters
    ----------
    folder : pathlib.Path
        Where; made when the first rows are written.
    settings : dict
        What the rows depend on; plain values.
    is_part : callable
        Tells of a name whether it is that of a part; other files are not ours.
    replace : bool
        Whether rows of other settings may be there. They do not count, and stay until rows of their part are written.

    Raises
    ------
    ValueError
        If the folder has rows of other settings, or CSV files and no settings, and they must not be replaced.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], is_part: Callable[[str], object], replace: bool = False
    ) -> None:
        self.folder, self._settings = folder, settings
        old, self._other = self._load()
        names = sorted(path.stem for path in folder.glob("*.csv") if not path.name.startswith("."))
        if old is None and names and not replace:
            raise ValueError(
                f"out has {', '.join(f'{name}.csv' for name in names)} in {folder}, and no {SETTINGS_FILE} that says what they were "
                f"made with; {_WAY_OUT}"
            )
        if old != settings:
            of_old = [name for name in names if is_part(name) and name not in self._other]
            self._other |= dict.fromkeys(of_old, old or {})
        self._other = {part: of for part, of in self._other.items() if of != settings}
        if self._other and not replace:
            raise ValueError(self._refusal())

    def _load(self) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
        """Return the settings in the folder, None if they are not known, and those of the files that have others."""
        try:
            found = json.loads((self.folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            other = found.pop(_OTHER_ROWS, {})
            other = {part: _without_names(of) for part, of in other.items()}
            # a file that somebody removed is none to replace
            other = {part: of for part, of in other.items() if (self.folder / f"{part}.csv").exists()}
            return _without_names(found), other
        except (FileNotFoundError, ValueError, AttributeError, TypeError):  # none, or none of ours
            return None, {}

    def _save(self) -> None:
        whole = self._settings | ({_OTHER_ROWS: self._other} if self._other else {})
        text = json.dumps(whole, indent=1, sort_keys=True) + "\n"
        path = self.folder / SETTINGS_FILE
        if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
            with atomic_write(path) as file:
                file.write(text)

    def _refusal(self) -> str:
        """Return what to say about rows of other settings."""
        files: dict[str, list[str]] = {}
        for part, of in sorted(self._other.items()):
            files.setdefault(_difference(of, self._settings), []).append(f"{part}.csv")
        told = "; ".join(f"{', '.join(names)}: {difference}" for difference, names in files.items())
        return f"out has rows of other settings in {self.folder} ({told}); {_WAY_OUT}"

    def read(self, part: str) -> list[Row]:
        """Return the rows of a part, none if there are none yet; numbers are numbers again.

        Raises
        ------
        UnreadableFileError
            If a line has other columns than the header.
        """
        path = self.folder / f"{part}.csv"
        if part in self._other or not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for number, row in enumerate(rows):
            if None in row or None in row.values():
                raise UnreadableFileError(f"{path}: line {number + 2} is damaged, remove the file")
        return [{key: _value(text) for key, text in row.items()} for row in rows]

    def complete(
        self, part: str, work: Sequence[Any], make: Any, save_every: int = SAVE_EVERY
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
        kept = self.read(part)
        if len(kept) == len(work):
            return
        rows = kept[: len(work)]
        for item in work[len(rows) :]:
            rows.append(make(item))
            if len(rows) % save_every == 0:
                self.write(part, rows)
            yield len(rows), len(work)
        self.write(part, rows)

    def write(self, part: str, rows: Sequence[Row]) -> None:
        """Write all rows of a part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # killed on the way, the file is of unknown settings rather than of wrong ones
        if part in self._other:
            self._other[part] = {}
        self._save()
        write_table(self.folder / f"{part}.csv", rows)
        if self._other.pop(part, None) is not None:
            self._save()


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


def _without_names(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _NAMES_ALONE}


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return in words what two settings differ in."""
    if not old:
        return "settings unknown"
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return ", ".join(
        f"{'network' if key == 'sha256' else key} {_short(old, key)}, here {_short(new, key)}" for key in keys
    )


def _short(settings: dict[str, Any], key: str) -> str:
    if key not in settings:
        return "none"
    text = str(settings[key])
    return text if len(text) <= 40 else f"{text[:12]}..."


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
