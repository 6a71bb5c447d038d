"""Where the images of a training run come from: patterns simulated on the training device, or a data set on the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp import __version__
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.dataset.disk_stream import DiskStream
from napari_sadp.dataset.library import build_library_steps, load_library
from napari_sadp.dataset.outliers import OUTLIER_KINDS, outlier_library
from napari_sadp.dataset.read import open_dataset
from napari_sadp.dataset.stream import PatternStream
from napari_sadp.models.recipe import STREAM

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import torch

    from napari_sadp.dataset.library import SpotLibrary
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.recipe import TrainConfig

#: Seeds of validation images are this far from those of training images.
_VALIDATION_SEED = 10**9


@dataclass(frozen=True, eq=False)
class Source:
    """Images of one part of the structures.

    Parameters
    ----------
    stream : PatternStream or DiskStream
        Where batches are drawn from.
    symmetry : (n,) ndarray of int64
        Class by symmetry of every row that the stream names.
    structure : (n,) ndarray
        Structure of every row.
    n_images : int or None
        How many different images there are; None without limit.
    conversion : str
        The image convention that they are in.
    library : SpotLibrary or None
        The spots of a stream.
    """

    stream: PatternStream | DiskStream
    symmetry: np.ndarray
    structure: np.ndarray
    n_images: int | None
    conversion: str
    library: SpotLibrary | None = None


def open_source_steps(
    config: TrainConfig,
    scheme: PatternScheme,
    *,
    validation: bool,
    device: torch.device,
    folder: Path | None = None,
    workers: int = 1,
) -> Generator[tuple[int, int], None, Source]:
    """Open the images for training or for validation.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    scheme : PatternScheme
        Classes.
    validation : bool
        Whether to take the held-out formulas.
    device : torch.device
        Where the images are made or go.
    folder : Path, optional
        Where to keep the spots of a stream, so that a run that goes on need not work them out again.
    workers : int
        Processes that work them out.

    Yields
    ------
    tuple of 2 int
        Crystals done, and of all, while the spots of a stream are worked out.

    Returns
    -------
    Source
        The images.

    Raises
    ------
    UnreadableFileError
        If the data set or the kept spots are missing or damaged.
    ValueError
        If the data set has other classes.
    """
    if config.source == STREAM:
        library = yield from _library_steps(config, scheme, validation, folder, workers)
        seed = config.seed + _VALIDATION_SEED * validation
        stream = PatternStream(library, size=config.size, n_classes=len(scheme), device=device, seed=seed)
        return Source(stream, library.symmetry_label, library.crystal, None, "aligned", library)
    reader = open_dataset(config.source)
    if reader.class_names != scheme.labels:
        raise ValueError(
            f"source is {config.source!r}, a data set of {len(reader.class_names)} classes, expected the {len(scheme)} of "
            f"the groups {', '.join(map(str, config.groups))}"
        )
    part = "validation" if validation else "train"
    disk = DiskStream(reader, part, size=config.size, device=device, seed=config.seed)
    names = np.array([row["structure"] for row in reader.rows])
    return Source(disk, reader.labels, names, len(disk), "article")


def outlier_source(
    source: Source, config: TrainConfig, scheme: PatternScheme, device: torch.device
) -> Source:
    """Return images of no class, made from the training structures of a stream.

    Parameters
    ----------
    source : Source
        Training images of a stream.
    config : TrainConfig
        Settings.
    scheme : PatternScheme
        Classes.
    device : torch.device
        Where the images are made.

    Returns
    -------
    Source
        All kinds with equal chances.
    """
    rng = np.random.default_rng([config.seed, 2])
    library = outlier_library(source.library, scheme, max(config.outlier_images // 2, 10), rng)
    seed = config.seed + 2 * _VALIDATION_SEED - 1
    stream = PatternStream(library, size=config.size, n_classes=len(OUTLIER_KINDS), device=device, seed=seed)
    return Source(stream, library.symmetry_label, library.crystal, None, source.conversion, library)


def _library_steps(
    config: TrainConfig, scheme: PatternScheme, validation: bool, folder: Path | None, workers: int
) -> Generator[tuple[int, int], None, SpotLibrary]:
    """Draw the crystals of a run and work out their spots; the seed of the run fixes both."""
    settings = (
        config.seed,
        validation,
        config.crystals_per_behaviour,
        config.dynamical_nm,
        config.groups,
        config.split,
    )
    key = json.dumps([*settings, scheme.version, __version__])
    path = folder and folder / f"spots_{'validation' if validation else 'training'}.npz"
    kept = load_library(path, key) if path else None
    if kept is not None:
        return kept
    rng = np.random.default_rng([config.seed, int(validation)])
    crystals = choose_crystals(
        scheme,
        validation=validation,
        per_behaviour=config.crystals_per_behaviour,
        rng=rng,
        split=config.split,
    )
    library = yield from build_library_steps(
        crystals, scheme, dynamical_nm=config.dynamical_nm, seed=config.seed, workers=workers
    )
    if path:
        library.save(path, key)
    return library
