"""Writes a data set: in any order, by any number of workers, and on after a kill, always the same bytes.

The images are cut into chunks of fixed number ranges. A worker writes the files of a chunk, then, as the mark that the
chunk is complete, its part of the manifest. No file ever stands half written under its final name. When all parts are there
they become ``manifest.csv``, which marks the data set as complete. In the folder::

    dataset.json            configuration, structures with their sources, classes, versions, fingerprint
    manifest.csv            one row for each image, see DatasetPlan.columns
    train/A1-0/00000012.png, validation/...     or     shards/000000.npy (n, size, size)
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import secrets
import shutil
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp._validate import check_range
from napari_sadp.dataset.config import DatasetConfig, config_to_dict
from napari_sadp.dataset.images import GENERATOR_VERSION, DatasetPlan, ImageMaker, plan_dataset
from napari_sadp.dataset.processes import share_among_processes
from napari_sadp.errors import SadpError
from napari_sadp.geometry.convention import IMAGE_CONVENTION

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIPTION, MANIFEST, PARTS = "dataset.json", "manifest.csv", ".parts"
#: What a kill in the middle of an atomic write leaves behind.
_LEFT_OVER = (".dataset.*.tmp.json", ".manifest.*.tmp.csv", "shards/.*.tmp.npy")
#: zlib's run-length strategy: on these images the fastest, and smaller than its default at the same level.
_PNG_OPTIONS = {"compress_level": 1, "compress_type": 3}


@dataclass(frozen=True)
class BuildProgress:
    """State of a build.

    Parameters
    ----------
    done, total : int
        Images on the disk, and of the whole data set.
    resumed : int
        Images that were there at the start.
    seconds : float
        Time since the start of this run [s].
    """

    done: int
    total: int
    resumed: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Speed of this run [1/s]."""
        return (self.done - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def build_dataset(
    config: DatasetConfig, folder: str | os.PathLike[str], *, workers: int = 1, scheduler: str | None = None
) -> Iterator[BuildProgress]:
    """Write a data set, or go on with one; to stop, close the generator.

    Parameters
    ----------
    config : DatasetConfig
        What to make.
    folder : path-like
        Where; made if it does not exist. A folder begun with the same configuration is gone on with.
    workers : int
        Processes; 1 stays in this one.
    scheduler : str, optional
        Address of a Dask scheduler such as ``"tcp://host:8786"``, whose workers see the folder under the same path.

    Yields
    ------
    BuildProgress
        At the start, and after every chunk; a last one with ``done == total``.

    Raises
    ------
    ValueError
        If the folder holds something else or another configuration's data set, or Dask is missing.
    SadpError
        If a file cannot be written or a worker dies; the same call goes on where this one ended.
    """
    check_range("workers", workers, 1, 1024)
    plan = plan_dataset(config)
    folder = Path(folder).absolute()
    start = time.monotonic()
    with _disk_errors(folder):
        prepare_folder(plan, folder)
        complete = (folder / MANIFEST).is_file()
        numbers = range(0 if complete else plan.n_chunks)
        chunks = [i for i in numbers if not _chunk_is_complete(plan, folder, i)]
    missing = sum(len(plan.chunk(i)) for i in chunks)
    done = resumed = len(plan) - missing
    yield BuildProgress(done, len(plan), resumed, time.monotonic() - start)
    results = _results(config, folder, chunks, int(workers), scheduler)
    with contextlib.closing(results), _disk_errors(folder):
        for n in results:
            done += n
            if done < len(plan):
                yield BuildProgress(done, len(plan), resumed, time.monotonic() - start)
    with _disk_errors(folder):
        if not complete:
            _merge(plan, folder)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    yield BuildProgress(len(plan), len(plan), resumed, time.monotonic() - start)


def _results(
    config: DatasetConfig, folder: Path, chunks: list[int], workers: int, scheduler: str | None
) -> Iterator[int]:
    """Write chunks; yields the number of images of each."""
    if scheduler:
        return _run_dask(config, folder, chunks, scheduler)
    if workers == 1:
        return (write_chunk(config, folder, index) for index in chunks)
    tasks = [(config, folder, index) for index in chunks]
    return (n for _, n in share_among_processes(write_chunk, tasks, workers))


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Say what to do when the disk is full or a process dies."""
    try:
        yield
    except OSError as error:
        raise SadpError(
            f"{error.filename or folder}: {error.strerror or error}; the same command goes on once this is mended"
        ) from error
    except BrokenProcessPool:
        raise SadpError(
            f"{folder}: a worker process died, perhaps for want of memory; the same command, with fewer workers, goes on"
        ) from None


def prepare_folder(plan: DatasetPlan, folder: Path) -> None:
    """Make the folder of a data set, or check that it is one of the same plan.

    Parameters
    ----------
    plan : DatasetPlan
        What shall be in it.
    folder : Path
        The folder.

    Raises
    ------
    ValueError
        If it is a file, holds something else, or is the data set of another configuration.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output is {str(folder)!r}, a file, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in _LEFT_OVER:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    description = folder / DESCRIPTION
    if description.exists():
        try:
            there = json.loads(description.read_text(encoding="utf-8"))
            fingerprint, config = there["fingerprint"], there["config"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"output is {str(folder)!r}, whose {DESCRIPTION} is damaged; expected another folder"
            ) from None
        if fingerprint != plan.fingerprint:
            ours = json.loads(json.dumps(config_to_dict(plan.config)))
            differ = [key for key in ours if config.get(key) != ours[key]]
            what = ", ".join(differ) or "structures, or the version of the package"
            raise ValueError(
                f"output is {str(folder)!r}, begun with another configuration ({what}); expected a new folder"
            )
    elif any(folder.iterdir()):
        raise ValueError(
            f"output is {str(folder)!r}, which holds other files; expected a new or empty folder"
        )
    else:
        with atomic_write(description) as file:
            json.dump(describe(plan), file, indent=1)
            file.write("\n")
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder / PARTS / "unfinished", ignore_errors=True)
        (folder / PARTS / "unfinished").mkdir(parents=True, exist_ok=True)


def describe(plan: DatasetPlan) -> dict[str, Any]:
    """Return the content of ``dataset.json``."""
    return {
        "fingerprint": plan.fingerprint,
        "generator_version": GENERATOR_VERSION,
        "image_convention": IMAGE_CONVENTION,
        "scale": "camera",
        "scheme_version": plan.scheme.version,
        "classes": list(plan.labels),
        "n_images": len(plan),
        "columns": list(plan.columns),
        "config": config_to_dict(plan.config),
        "structures": [
            {
                "id": s.identifier,
                "formula": s.formula,
                "group": s.behaviour.number,
                "behaviour": s.behaviour.name,
                "split": "validation" if s.validation else "train",
                "source": s.source,
            }
            for s in plan.structures
        ],
    }


@lru_cache(maxsize=2)
def _maker(config: DatasetConfig) -> ImageMaker:
    return ImageMaker(plan_dataset(config))


def write_chunk(config: DatasetConfig, folder: Path, index: int) -> int:
    """Write the images of one chunk and its part of the manifest; a task that needs no other.

    Parameters
    ----------
    config : DatasetConfig
        The configuration.
    folder : Path
        A folder that `prepare_folder` has made.
    index : int
        Number of the chunk.

    Returns
    -------
    int
        How many images it has.
    """
    maker = _maker(config)
    numbers = maker.plan.chunk(index)
    rows = []
    if config.format == "shards":
        images = np.empty((len(numbers), config.size, config.size), f"u{config.bit_depth // 8}")
        for place, number in enumerate(numbers):
            images[place], row = maker.make(number)
            rows.append(row)
        target = folder / rows[0]["file"]
        target.parent.mkdir(exist_ok=True)
        with atomic_write(target, "wb") as file:
            np.save(file, images, allow_pickle=False)
    else:
        for number in numbers:
            image, row = maker.make(number)
            _write_png(image, folder, row["file"])
            rows.append(row)
    with atomic_write(_part(folder, index), newline="") as file:
        csv.DictWriter(file, maker.plan.columns, lineterminator="\n").writerows(rows)
    return len(rows)


def _write_png(image: np.ndarray, folder: Path, name: str) -> None:
    """Write a PNG that is complete or not there. No sync for each: an empty file after a power cut is found on resuming."""
    from PIL import Image

    temporary = folder / PARTS / "unfinished" / f"{secrets.token_hex(8)}.png"
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG", **_PNG_OPTIONS)
    with open(temporary, "xb", buffering=0) as file:
        file.write(encoded.getbuffer())
    target = folder / name
    try:
        os.replace(temporary, target)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)


def _part(folder: Path, index: int) -> Path:
    return folder / PARTS / f"{index:06d}.csv"


def _chunk_is_complete(plan: DatasetPlan, folder: Path, index: int) -> bool:
    """Tell whether the part of the manifest is there, and every file of it."""
    if not _part(folder, index).is_file():
        return False
    names = {plan.file(number)[0] for number in plan.chunk(index)}
    return all((folder / name).is_file() and (folder / name).stat().st_size > 0 for name in names)


def _merge(plan: DatasetPlan, folder: Path) -> None:
    """Join the parts of the manifest; the data set is complete with it."""
    n_rows = 0
    with atomic_write(folder / MANIFEST, newline="") as file:
        csv.DictWriter(file, plan.columns, lineterminator="\n").writeheader()
        for index in range(plan.n_chunks):
            text = _part(folder, index).read_text(encoding="utf-8")
            n_rows += text.count("\n")
            file.write(text)
        if n_rows != len(plan):
            raise SadpError(
                f"{folder / PARTS}: the parts have {n_rows} rows, expected {len(plan)}; remove this folder"
            )


def _run_dask(config: DatasetConfig, folder: Path, chunks: list[int], scheduler: str) -> Iterator[int]:
    """Write chunks on a Dask cluster."""
    try:
        from dask.distributed import Client, as_completed
    except ImportError:
        raise ValueError(
            f"scheduler is {scheduler!r}, which needs the package distributed: pip install distributed"
        ) from None
    try:
        client = Client(scheduler, timeout=20)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"scheduler is {scheduler!r}, expected the address of a Dask scheduler ({error})"
        ) from None
    with client:
        futures = [client.submit(write_chunk, config, folder, index, pure=False) for index in chunks]
        for future in as_completed(futures):
            yield future.result()
