"""The measurements behind a report: each part makes rows of plain values, kept on the disk as they come."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sadp import __version__
from napari_sadp._validate import check_option, check_range
from napari_sadp.dataset.crystals import SPLITS, UNKNOWN, own_catalogue_sha256
from napari_sadp.ensemble.ceilings import ceiling
from napari_sadp.evaluate.parts import N_COMBINED, PARTS, is_part, measure, take_kept
from napari_sadp.evaluate.rows import Row, RowStore
from napari_sadp.evaluate.structures import (
    PACKAGE_ALONE,
    HeldOut,
    describe_runs,
    held_out_keys,
    held_out_structures,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sadp.dataset.crystals import TrainedOn
    from napari_sadp.models.predict import Classifier
    from napari_sadp.models.weights import WeightsCard

#: Frames that are made for one aligned pattern asked for: usable ones of each space group as the article's, of each other condition,
#: of each value of a sweep, crystals of the table of groups, and of each foreign kind.
_SHARES = {"article": 1 / 20, "frames": 1 / 10, "sweeps": 1 / 60, "groups": 1 / 16, "foreign": 1 / 40}


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate.

    Parameters
    ----------
    weights : str, optional
        Network: a name or a file; the one of the package by default.
    compare : tuple of str
        More networks, for the table of architectures: names, files, or, where the folder has their rows already, cards alone (.json).
        They must not have been trained on what the network held out.
    patterns : int
        Aligned patterns; frames of the other parts are a share of it.
    parts : tuple of str
        Some of `PARTS`.
    seed : int
        Seed of everything.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    catalogue : str, optional
        A catalogue file of more structures to draw from, as far as the network cannot know them.
    workers : int
        Processes that work out the spots of the structures, see `napari_sadp.dataset.library.build_library`.
    replace : bool
        Whether rows of other settings may be replaced, part by part.

    Raises
    ------
    ValueError
        If a value is wrong.
    """

    weights: str | None = None
    compare: tuple[str, ...] = ()
    patterns: int = 2000
    parts: tuple[str, ...] = PARTS
    seed: int = 0
    device: str = "auto"
    catalogue: str | None = None
    workers: int = 1
    replace: bool = False

    def __post_init__(self) -> None:
        check_range("patterns", self.patterns, 20, 10_000_000)
        check_range("seed", self.seed, 0, 10**9)
        check_range("workers", self.workers, 1, 1024)
        for part in self.parts:
            check_option("part", part, PARTS)

    def count(self, part: str) -> int:
        """Return how many frames one unit of a part has, two at least."""
        return max(2, round(self.patterns * _SHARES[part]))


@dataclass(frozen=True)
class EvaluationProgress:
    """Where an evaluation stands.

    Parameters
    ----------
    part : str
        What is being measured.
    done, total : int
        Of the part.
    """

    part: str
    done: int
    total: int


@dataclass(eq=False)
class Evaluation:
    """What was measured.

    Parameters
    ----------
    config : EvaluationConfig
        Settings.
    classifier : Classifier
        The network.
    structures : tuple of HeldOut
        Structures that were used.
    rows : dict of str to list of dict
        Rows by part, measured now or kept, and complete; those of compared networks under `aligned_part`.
    compared : dict of str to WeightsCard
        Cards of the compared networks, by what the configuration calls them.
    trained_on : tuple of TrainedOn
        The training runs that the network went through.
    sure : bool
        Whether training cannot have known the structures; where False they are those that other networks hold out.
    unsure : tuple of str
        Compared networks that may have been trained on some of the structures, by what the configuration calls them.
    """

    config: EvaluationConfig
    classifier: Classifier
    structures: tuple[HeldOut, ...]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    compared: dict[str, WeightsCard] = field(default_factory=dict)
    trained_on: tuple[TrainedOn, ...] = PACKAGE_ALONE
    sure: bool = True
    unsure: tuple[str, ...] = ()

    def ceilings(self) -> list[float]:
        """Return how often any method can name the group from 1, 2 ... patterns, kinematic and by absences alone."""
        return [ceiling(n, scheme=self.classifier.scheme).accuracy for n in range(1, N_COMBINED + 1)]


def evaluate(config: EvaluationConfig, folder: Path | str) -> Iterator[EvaluationProgress]:
    """Measure, part by part; what the folder holds of the same settings is not measured again, and stays in the report.

    Parameters
    ----------
    config : EvaluationConfig
        What.
    folder : path-like
        Where the rows are kept; made if missing.

    Yields
    ------
    EvaluationProgress
        After every frame or batch.

    Returns
    -------
    Evaluation
        All rows, those of other parts too that are complete in the folder.

    Raises
    ------
    CheckpointError
        If a network cannot be used.
    ValueError
        If the device is not there, a compared network has other classes or held out other structures, no structure is left, or the
        folder has rows of other settings that must not be replaced.
    """
    from napari_sadp.models.predict import load_classifier
    from napari_sadp.models.sources import trained_on

    classifier = load_classifier(config.weights, config.device)
    runs = trained_on(classifier.card)
    structures, sure = _choose_structures(classifier, runs, config.catalogue)
    found = Evaluation(config, classifier, structures, trained_on=runs, sure=sure)
    for name in config.compare:
        found.compared[name] = _compared_card(name, classifier)
    found.unsure = tuple(name for name, card in found.compared.items() if not _knows_none(name, card, found))
    store = RowStore(Path(folder), row_settings(config, classifier.card, runs), is_part, config.replace)
    for part in PARTS:
        if part not in config.parts:
            take_kept(found, store, part)
    for part in config.parts:
        for done, total in measure(found, store, part):
            yield EvaluationProgress(part, done, total)
    return found


def _choose_structures(
    classifier: Classifier, runs: tuple[TrainedOn, ...], catalogue: str | None
) -> tuple[tuple[HeldOut, ...], bool]:
    """Return the structures that training cannot have drawn, True; those that other networks hold out, False, where none is known."""
    scheme = classifier.scheme
    structures = held_out_structures(scheme, runs, catalogue)
    sure = bool(structures)
    if not sure and any(run.split not in SPLITS for run in runs):
        # without a record of the split nothing says either that a structure or its type is new
        supposed = tuple(run if run.split in SPLITS else replace(run, split="formula") for run in runs)
        structures = tuple(
            replace(item, new_type=False) for item in held_out_structures(scheme, supposed, catalogue)
        )
    if not structures:
        raise ValueError(
            f"weights {classifier.card.name} were trained on all structures there are, expected a catalogue of others"
        )
    return structures, sure


def row_settings(config: EvaluationConfig, card: WeightsCard, runs: tuple[TrainedOn, ...]) -> dict[str, Any]:
    """Return what the rows depend on.

    Not on the device: the rows of its speed name it, and that a GPU draws other aligned images than a CPU is chance as of a seed.
    """
    settings = {
        "patterns": config.patterns,
        "seed": config.seed,
        "sha256": card.sha256,
        "version": __version__,
    }
    if config.catalogue is not None:
        settings["catalogue"] = hashlib.sha256(Path(config.catalogue).read_bytes()).hexdigest()
    if runs != PACKAGE_ALONE:
        settings["trained_on"] = [asdict(run) for run in runs]
        settings["own_catalogue"] = own_catalogue_sha256()
    return settings


def _compared_card(name: str, classifier: Classifier) -> WeightsCard:
    """Return the card of a network to compare, which must have the same classes."""
    from napari_sadp.models.registry import find_weights
    from napari_sadp.models.weights import read_card

    card = read_card(Path(name) if name.endswith(".json") else find_weights(name))
    if card.labels != classifier.scheme.labels:
        raise ValueError(
            f"compare has {name!r}, trained on the groups {', '.join(map(str, card.groups))}, expected "
            f"{', '.join(map(str, classifier.scheme.groups))} as {classifier.card.name}"
        )
    return card


def _knows_none(name: str, card: WeightsCard, found: Evaluation) -> bool:
    """Tell whether a compared network cannot have been trained on the structures; an error if it is known to hold out others."""
    from napari_sadp.models.sources import trained_on

    runs = trained_on(card)
    if runs == found.trained_on:
        return found.sure
    unseen = held_out_keys(found.classifier.scheme, runs, found.config.catalogue)
    known = sum(item.key not in unseen for item in found.structures)
    if known and not any(UNKNOWN in (run.split, run.own) for run in runs):
        raise ValueError(
            f"compare has {name!r}, which may have been trained on {known} of the {len(found.structures)} structures that "
            f"{found.classifier.card.name} held out ({describe_runs(runs)}, not {describe_runs(found.trained_on)}); expected a "
            "network that held out the same"
        )
    return not known
