"""Where the images of a training run come from: patterns simulated on the training device, or a data set on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp import __version__
from napari_sadp.dataset.conversion_stream import conversion_stream
from napari_sadp.dataset.crystals import (
    ELSEWHERE,
    UNKNOWN,
    TrainedOn,
    choose_crystals,
    own_catalogue_sha256,
)
from napari_sadp.dataset.disk_stream import DiskStream
from napari_sadp.dataset.library import build_library_steps, load_library
from napari_sadp.dataset.outliers import OUTLIER_KINDS, outlier_library
from napari_sadp.dataset.read import open_dataset
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.models.recipe import IMAGENET, STREAM
from napari_sadp.models.registry import bundled_path
from napari_sadp.models.weights import WeightsCard, read_card
from napari_sadp.simulation.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import torch

    from napari_sadp.dataset.library import SpotLibrary
    from napari_sadp.dataset.read import DatasetReader
    from napari_sadp.dataset.stream import PatternStream
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.recipe import TrainConfig

#: Seeds of validation images are this far from those of training images.
_VALIDATION_SEED = 10**9
#: What the networks of the package were trained on.
_OF_PACKAGE = TrainedOn("formula")
_NO_RECORD = TrainedOn(UNKNOWN, ELSEWHERE)


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
    trained_on : TrainedOn
        What a run on them may have seen, and holds out; of a data set it is that of the data set, whatever the recipe says.
    """

    stream: PatternStream | DiskStream
    symmetry: np.ndarray
    structure: np.ndarray
    n_images: int | None
    conversion: str
    library: SpotLibrary | None = None
    trained_on: TrainedOn = _NO_RECORD

    @property
    def truth(self) -> str:
        """What its labels are: ``"visible"`` classes of a stream, those by ``"symmetry"`` of a data set."""
        return "symmetry" if self.library is None else "visible"


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
        drawn = TrainedOn(config.split, own_catalogue_sha256())
        library = yield from _library_steps(config, scheme, validation, folder, workers, drawn.own)
        seed = config.seed + _VALIDATION_SEED * validation
        stream = conversion_stream(
            config.conversion, library, size=config.size, n_classes=len(scheme), device=device, seed=seed
        )
        return Source(
            stream, library.symmetry_label, library.crystal, None, config.conversion, library, drawn
        )
    reader = open_dataset(config.source)
    if reader.class_names != scheme.labels:
        raise ValueError(
            f"source is {config.source!r}, a data set of {len(reader.class_names)} classes, expected the {len(scheme)} of "
            f"the groups {', '.join(map(str, config.groups))} on the zone axes {', '.join(map(zone_name, config.zones))}"
        )
    part = "validation" if validation else "train"
    disk = DiskStream(reader, part, size=config.size, device=device, seed=config.seed)
    names = np.array([row["structure"] for row in reader.rows])
    return Source(disk, reader.labels, names, len(disk), "article", trained_on=dataset_trained_on(reader))


def dataset_trained_on(reader: DatasetReader) -> TrainedOn:
    """Return what a run on a data set may see.

    Parameters
    ----------
    reader : DatasetReader
        The data set.

    Returns
    -------
    TrainedOn
        Split as its configuration says; `ELSEWHERE` where a training structure of it is not of the package.
    """
    package = {
        (entry.key, f"{entry.source} {entry.source_id}, {entry.licence}") for entry in load_catalogue("")
    }
    description = reader.description
    drawn = {(item["id"], item["source"]) for item in description["structures"] if item["split"] == "train"}
    return TrainedOn(description["config"]["split"], "" if drawn <= package else ELSEWHERE)


def trained_on_record(source: Source, before: Sequence[dict[str, str]] = ()) -> list[dict[str, str]]:
    """Return what the card of a run says about the structures that its weights may have seen, ``trained_on`` of its recipe.

    Parameters
    ----------
    source : Source
        Training images of the run.
    before : sequence of dict
        The same of the weights that it started from.

    Returns
    -------
    list of dict
        `TrainedOn` of every run that the weights went through, the first one first, each once.
    """
    return [*(item for item in before if item != asdict(source.trained_on)), asdict(source.trained_on)]


def trained_on(card: WeightsCard) -> tuple[TrainedOn, ...]:
    """Return what the runs that some weights went through may have seen.

    Parameters
    ----------
    card : WeightsCard
        Card of the weights.

    Returns
    -------
    tuple of TrainedOn
        As ``trained_on`` of its recipe says; without that, as far as the card of an older version tells.
    """
    recipe = card.recipe
    if "trained_on" in recipe:
        record = recipe["trained_on"]
        # an empty record must not pass for a network that knows nothing
        items = record if isinstance(record, list) and record else [None]
        return tuple(dict.fromkeys(map(_read_record, items)))
    if _is_of_package(card.sha256):
        return (_OF_PACKAGE,)
    if recipe.get("source") == STREAM:
        # before there was a choice formulas were held out; a catalogue of the user's own went without a record
        last = TrainedOn(str(recipe.get("split", "formula")), UNKNOWN)
    else:
        last = _NO_RECORD
    return tuple(dict.fromkeys([*_trained_before(str(recipe.get("initial", ""))), last]))


def _read_record(item: Any) -> TrainedOn:
    """Return an item of the record in a card; what is damaged in it is unknown."""
    content = item if isinstance(item, dict) else {}
    return TrainedOn(str(content.get("split", UNKNOWN)), str(content.get("own", ELSEWHERE)))


def _trained_before(initial: str) -> list[TrainedOn]:
    """Return what the weights may have seen that a run of an older version started from; its card has their file and sha256."""
    if initial in ("", IMAGENET):
        return []
    _, _, sha256 = initial.partition(", sha256 ")
    return [_OF_PACKAGE if sha256 and _is_of_package(sha256) else _NO_RECORD]


def _is_of_package(sha256: str) -> bool:
    """Tell whether a network ships with the package, by its sha256 or the first digits of that."""
    cards = sorted(bundled_path().parent.glob("*.json"))
    return bool(sha256) and any(read_card(path).sha256.startswith(sha256) for path in cards)


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
    stream = conversion_stream(
        source.conversion,
        library,
        size=config.size,
        n_classes=len(OUTLIER_KINDS),
        device=device,
        seed=seed,
    )
    return Source(
        stream,
        library.symmetry_label,
        library.crystal,
        None,
        source.conversion,
        library,
        source.trained_on,
    )


def _library_steps(
    config: TrainConfig,
    scheme: PatternScheme,
    validation: bool,
    folder: Path | None,
    workers: int,
    own: str,
) -> Generator[tuple[int, int], None, SpotLibrary]:
    """Draw the crystals of a run and work out their spots; the seed of the run and the user's own catalogue fix both."""
    settings = (
        config.seed,
        validation,
        config.crystals_per_behaviour,
        config.dynamical_nm,
        config.groups,
        config.split,
        own,
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
