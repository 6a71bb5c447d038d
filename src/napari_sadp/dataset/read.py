"""Reads a data set that `napari_sadp.dataset.build` wrote, for training and for checks."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.dataset.build import DESCRIPTION, MANIFEST
from napari_sadp.dataset.images import COLUMNS
from napari_sadp.errors import UnreadableFileError
from napari_sadp.geometry.convention import IMAGE_CONVENTION
from napari_sadp.labels.scheme import build_scheme

if TYPE_CHECKING:
    import os

_INTEGERS = {"number", "index", "class_index", "group", "n_spots"}
_NUMBERS = {
    "voltage_kv", "camera_length_mm", "pixel_size_inv_angstrom", "thickness_nm", "spot_sigma_px", "rotation_deg",
}  # fmt: skip
#: Columns of imperfections that are neither numbers nor yes or no.
_WORDS = {"stop"}


@dataclass(frozen=True, eq=False)
class DatasetReader:
    """Images and classes of a data set; ``reader[i]`` is ``(image, class index)``.

    Parameters
    ----------
    folder : Path
        The data set.
    description : dict
        Content of its ``dataset.json``.
    rows : tuple of dict
        Its manifest, see `napari_sadp.dataset.images.DatasetPlan.columns`; numbers are numbers.
    """

    folder: Path
    description: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    _shards: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Labels of the classes in the order of their indices."""
        return tuple(self.description["classes"])

    @property
    def labels(self) -> np.ndarray:
        """Class index of every image, shape (n,), int64."""
        return np.array([row["class_index"] for row in self.rows], dtype=np.int64)

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """Indices of the images of ``"train"`` and ``"validation"``, int64."""
        held = np.array([row["split"] == "validation" for row in self.rows])
        return {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image (size, size) of float32, 0 to 1, and its class index.

        Raises
        ------
        IndexError
            If there is no such image.
        UnreadableFileError
            If its file is missing or damaged.
        """
        row = self.rows[index]
        path = self.folder / row["file"]
        try:
            image = self._shard(row["file"])[row["index"]] if path.suffix == ".npy" else _read_png(path)
        except (OSError, ValueError, IndexError) as error:
            raise UnreadableFileError(f"{path}: cannot be read ({error})") from None
        config = self.description["config"]
        size, kind = config["size"], f"uint{config['bit_depth']}"
        if image.shape != (size, size) or str(image.dtype) != kind:
            raise UnreadableFileError(
                f"{path}: holds {image.shape} {image.dtype}, expected ({size}, {size}) {kind}"
            )
        return image.astype(np.float32) / np.float32(2 ** config["bit_depth"] - 1), row["class_index"]

    def _shard(self, name: str) -> np.ndarray:
        """Return a shard, mapped into memory."""
        if name not in self._shards:
            self._shards[name] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        return self._shards[name]


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def open_dataset(folder: str | os.PathLike[str]) -> DatasetReader:
    """Open a complete data set.

    Parameters
    ----------
    folder : path-like
        Folder that ``napari-sadp dataset`` wrote.

    Returns
    -------
    DatasetReader
        Images are read when asked for.

    Raises
    ------
    UnreadableFileError
        If the folder holds no complete data set, or one made for other classes or another image convention.
    """
    folder = Path(folder)
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        config = description["config"]
        groups, zones = tuple(config["groups"]), tuple(map(tuple, config["zones"]))
        theirs = description["scheme_version"], tuple(description["classes"])
        convention, n_images = description["image_convention"], description["n_images"]
        columns = tuple(description["columns"])
    except FileNotFoundError:
        raise UnreadableFileError(f"{folder}: no data set, {DESCRIPTION} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableFileError(f"{folder / DESCRIPTION}: damaged ({error})") from None
    scheme = build_scheme(groups, zones)
    if theirs != (scheme.version, scheme.labels):
        raise UnreadableFileError(
            f"{folder}: made for the classes {theirs[0]}, expected {scheme.version}; make it anew"
        )
    if convention != IMAGE_CONVENTION:
        raise UnreadableFileError(
            f"{folder}: made for image convention {convention!r}, expected {IMAGE_CONVENTION!r}; make it anew"
        )
    return DatasetReader(folder, description, _read_manifest(folder / MANIFEST, n_images, columns))


def _read_manifest(path: Path, n_images: int, columns: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = tuple({name: _value(name, text) for name, text in row.items()} for row in reader)
            names = tuple(reader.fieldnames or ())
    except FileNotFoundError:
        raise UnreadableFileError(
            f"{path}: missing, the data set is not complete; the command that began it goes on"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UnreadableFileError(f"{path}: damaged ({error})") from None
    if names != columns or [row.get("number") for row in rows] != list(range(n_images)):
        raise UnreadableFileError(
            f"{path}: damaged, expected the {n_images} images in order, columns {', '.join(columns)}"
        )
    return rows


def _value(name: str, text: str) -> Any:
    if name in _INTEGERS:
        return int(text)
    if name in _NUMBERS:
        return float(text) if text else None
    if name in COLUMNS or name in _WORDS:
        return text
    # a field of `FrameParameters`
    return text == "True" if text in ("True", "False") else float(text)
