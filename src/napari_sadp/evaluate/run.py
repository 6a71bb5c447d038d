"""The measurements behind a report: each part makes rows of plain values, kept on the disk as they come."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp import __version__
from napari_sadp._validate import check_option, check_range
from napari_sadp.dataset.crystals import SPLITS, UNKNOWN, own_catalogue_sha256
from napari_sadp.ensemble.ceilings import ceiling
from napari_sadp.errors import CheckpointError, PatternRefusedError
from napari_sadp.evaluate.aligned import EVALUATION_SEED, aligned_library, aligned_rows
from napari_sadp.evaluate.foreign import FOREIGN_KINDS, foreign_frame
from napari_sadp.evaluate.frames import (
    ARTICLE,
    CONDITIONS,
    SWEEPS,
    VISIBLE,
    Acquired,
    Condition,
    acquire,
)
from napari_sadp.evaluate.rows import Row, RowStore
from napari_sadp.evaluate.structures import (
    PACKAGE_ALONE,
    HeldOut,
    deal_structures,
    describe_runs,
    held_out_keys,
    held_out_structures,
)
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.faint import without_faint
from napari_sadp.identify import (
    NONE_LABEL,
    classify_geometry,
    combine_results,
    identify_pattern,
    refused_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sadp.dataset.crystals import TrainedOn
    from napari_sadp.identify import PatternResult
    from napari_sadp.models.predict import Classifier
    from napari_sadp.models.weights import WeightsCard
    from napari_sadp.pattern import DiffractionPattern

#: What can be measured, in this order.
PARTS: tuple[str, ...] = ("aligned", "frames", "sweeps", "groups", "foreign", "speed")
#: Codes of ``found`` that are no class: refused, and none of the classes.
REFUSED, NONE = -1, -2
#: Patterns of one crystal that are combined.
N_COMBINED = 3
#: Zone axes tried until there are so many that are used.
_MOST_TRIES = 8
#: Frames that are made for one aligned pattern asked for: of each condition, of each value of a sweep, crystals of the table of
#: groups, and of each foreign kind.
#: The article's frames are for every structure to come up that many structures have.
_SHARES = {"article": 1 / 4, "frames": 1 / 10, "sweeps": 1 / 60, "groups": 1 / 16, "foreign": 1 / 40}


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
        Rows by part; those of compared networks under `aligned_part`.
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
    """Measure, part by part; what the folder holds of the same settings is not measured again.

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
        All rows.

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
    for part in config.parts:
        for done, total in _MEASURES[part](found, store):
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


def aligned_part(card: WeightsCard) -> str:
    """Return the part that the rows of a compared network are kept as: networks may have the same name, or be trained again."""
    return f"aligned {card.name} {card.sha256[:12]}"


def is_part(name: str) -> bool:
    """Tell whether rows are kept by a name: that of a part, or what `aligned_part` makes."""
    return name in PARTS or re.fullmatch(r"aligned .+ [0-9a-f]{12}", name) is not None


def _aligned(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Classify aligned images as the network was trained on, kinematic and by Bloch waves."""
    from napari_sadp.models.predict import load_classifier

    networks = [("aligned", "")] + [(aligned_part(card), name) for name, card in found.compared.items()]
    library = None
    for part, name in networks:
        rows = store.read(part)
        if len(rows) != found.config.patterns:
            if name.endswith(".json"):
                raise CheckpointError(
                    f"compare has {name!r}, a card without rows here; give its weights instead"
                )
            classifier = load_classifier(name, found.config.device) if name else found.classifier
            n, seed = found.config.patterns, found.config.seed
            if library is None:
                library = yield from aligned_library(
                    found.structures, found.classifier.scheme, seed, found.config.workers
                )
            rows = yield from aligned_rows(classifier, found.structures, library, n, seed)
            store.write(part, rows)
        found.rows[part] = rows


def draw_structure(structures: tuple[HeldOut, ...], rng: np.random.Generator) -> HeldOut:
    """Draw a structure: groups with equal chances, then behaviours, then structures."""
    groups = sorted({item.crystal.space_group for item in structures})
    group = groups[rng.integers(len(groups))]
    kinds = sorted({item.behaviour for item in structures if item.crystal.space_group == group})
    kind = kinds[rng.integers(len(kinds))]
    of_kind = [item for item in structures if item.behaviour == kind]
    return of_kind[rng.integers(len(of_kind))]


def _frame(
    found: Evaluation, condition: Condition, seed: list[int], dealt: HeldOut | None = None
) -> tuple[HeldOut, int, Acquired]:
    """Return structure, number of the zone axis, and frame of what is drawn by a seed, of a structure or any."""
    rng = np.random.default_rng(seed)
    scheme = found.classifier.scheme
    while True:
        item = draw_structure(found.structures, rng) if dealt is None else dealt
        place = int(rng.integers(len(scheme.zones)))
        try:
            frame = acquire(item.crystal, scheme.zones[place], condition, scheme, int(rng.integers(2**62)))
        except ValueError:  # nothing diffracts into the frame: no operator would record it
            continue
        return item, place, frame


def _row(
    found: Evaluation, about: Row, item: HeldOut, place: int, result: PatternResult, frame: Acquired
) -> Row:
    """Return a frame and what was found as plain values."""
    scheme = found.classifier.scheme
    return (
        about
        | {
            "structure": item.key,
            "behaviour": item.behaviour,
            "zone": place,
            "new_type": item.new_type,
            "visible": NONE if frame.visible is None else frame.visible,
            "settled": int(frame.settled),
            "symmetry": scheme.index_of[item.behaviour, scheme.zones[place]],
        }
        | answer_of(result)
    )


def answer_of(result: PatternResult) -> Row:
    """Return what was found in one frame as plain values.

    Parameters
    ----------
    result : PatternResult
        Classified or refused.

    Returns
    -------
    dict
        ``found``, ``network``, ``lattice``: class by the whole chain, by the network and by the lattice alone, `REFUSED`, and of the
        chain `NONE`; ``confidence``; ``none`` and ``lattice_none``: probability of no class by the chain, and by the lattice alone,
        1 where refused; ``reason`` of a refusal.
    """
    if not result.used:
        nothing = dict.fromkeys(("found", "network", "lattice"), REFUSED)
        return nothing | {"confidence": 0.0, "none": 1.0, "lattice_none": 1.0, "reason": result.reason}
    label, confidence = result.best_class
    return {
        "found": NONE if label == NONE_LABEL else int(np.argmax(result.stated)),
        "network": int(np.argmax(result.network)),
        "lattice": int(np.argmax(result.lattice_classes.probabilities)),
        "confidence": float(confidence),
        "none": float(result.stated[-1]),
        "lattice_none": float(result.lattice_classes.none_of_these),
        "reason": "",
    }


def _with_and_without_faint(frame: DiffractionPattern, classifier: Classifier) -> tuple[PatternResult, Row]:
    """Return what the chain finds in a frame, and the answer where spots fainter than *visible* do not count."""
    try:
        geometry = analyse_pattern(frame)
    except PatternRefusedError as refusal:
        result = refused_result(frame, refusal, classifier.scheme)
        return result, answer_of(result)
    result = classify_geometry(geometry, classifier)
    return result, answer_of(classify_geometry(without_faint(geometry, VISIBLE), classifier))


def _frames(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Run the chain on frames of some conditions."""
    seed = [found.config.seed, EVALUATION_SEED, 1]
    work = []
    for place, condition in enumerate(CONDITIONS):
        n = found.config.count("article" if condition is ARTICLE else "frames")
        dealt = deal_structures(found.structures, n, np.random.default_rng([*seed, place]))
        work += [(place, number, structure) for number, structure in enumerate(dealt)]

    def make(item: tuple[int, int, HeldOut]) -> Row:
        place, number, structure = item
        condition = CONDITIONS[place]
        structure, zone, frame = _frame(found, condition, [*seed, place, number], structure)
        result, above = _with_and_without_faint(frame.pattern, found.classifier)
        about = {
            "condition": condition.name,
            "above": above["found"],
            "confidence_above": above["confidence"],
        }
        return _row(found, about, structure, zone, result, frame)

    yield from _kept(found, store, "frames", work, make)


def _sweeps(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Run the chain on frames in which one thing at a time is varied; the crystals are the same at every value."""
    work = [
        (name, value, number)
        for name, values in SWEEPS.items()
        for value in values
        for number in range(found.config.count("sweeps"))
    ]

    def make(item: tuple[str, float, int]) -> Row:
        name, value, number = item
        drawn = _frame(found, SWEEPS[name][value], [found.config.seed, EVALUATION_SEED, 2, number])
        structure, zone, frame = drawn
        result = identify_pattern(frame.pattern, found.classifier)
        return _row(found, {"varied": name, "value": value}, structure, zone, result, frame)

    yield from _kept(found, store, "sweeps", work, make)


def _groups(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Name the space group of crystals from one, two and three mild frames on different zone axes."""
    mild = next(item for item in CONDITIONS if item.name == "mild")
    scheme = found.classifier.scheme

    def make(number: int) -> Row:
        rng = np.random.default_rng([found.config.seed, EVALUATION_SEED, 3, number])
        item = draw_structure(found.structures, rng)
        results: list[PatternResult] = []
        tried = 0
        for place in rng.permutation(len(scheme.zones)):
            if len(results) == N_COMBINED or tried == _MOST_TRIES:
                break
            try:
                frame = acquire(item.crystal, scheme.zones[place], mild, scheme, int(rng.integers(2**62)))
            except ValueError:  # nothing diffracts into the frame
                continue
            tried += 1
            result = identify_pattern(frame.pattern, found.classifier)
            if result.used:
                results.append(result)
        row: Row = {"structure": item.key, "group": item.crystal.space_group, "tried": tried}
        for n in range(1, N_COMBINED + 1):
            groups = combine_results(results[:n]).space_groups if len(results) >= n else None
            row[f"group_{n}"] = groups.groups[0] if groups else REFUSED
            row[f"stated_{n}"] = float(groups.probabilities[0]) if groups else 0.0
        return row

    yield from _kept(found, store, "groups", list(range(found.config.count("groups"))), make)


def _foreign(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Run the chain on frames of what is outside the scheme, and on mild ones that show the lattice of a class of it."""
    mild = next(item for item in CONDITIONS if item.name == "mild")
    work = [
        (kind, number)
        for kind in ("inside", *FOREIGN_KINDS)
        # one side is as large as each of the others
        for number in range(found.config.count("foreign"))
    ]
    crystals = [item.crystal for item in found.structures]

    def make(item: tuple[str, int]) -> Row:
        kind, number = item
        seed = [found.config.seed, EVALUATION_SEED, 4, number]
        if kind == "inside":
            # a frame that shows no lattice is rightly refused, and says nothing here
            drawn = (_frame(found, mild, [*seed, again])[2] for again in range(1000))
            frame = next(item.pattern for item in drawn if item.visible is not None)
        else:
            rng = np.random.default_rng([*seed, FOREIGN_KINDS.index(kind)])
            frame = foreign_frame(kind, crystals, found.classifier.scheme, int(rng.integers(2**62)))
        return {"kind": kind} | answer_of(identify_pattern(frame, found.classifier))

    yield from _kept(found, store, "foreign", work, make)


def _speed(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Time all architectures on the device."""
    from napari_sadp.models.architectures import ARCHITECTURES
    from napari_sadp.models.resnet import describe_device
    from napari_sadp.models.speed import time_architecture

    sizes = (found.classifier.card.size, 224)
    work = [(architecture, size) for architecture in ARCHITECTURES for size in sizes]

    def make(item: tuple[str, int]) -> Row:
        architecture, size = item
        device = found.classifier.device
        row = time_architecture(architecture, size, len(found.classifier.scheme), device)
        return row | {"device": describe_device(device)}

    yield from _kept(found, store, "speed", work, make)


def _kept(
    found: Evaluation, store: RowStore, part: str, work: list[Any], make: Callable[[Any], Row]
) -> Iterator[tuple[int, int]]:
    yield from store.complete(part, work, make)
    found.rows[part] = store.read(part)


_MEASURES: dict[str, Callable[[Evaluation, RowStore], Iterator[tuple[int, int]]]] = {
    "aligned": _aligned,
    "frames": _frames,
    "sweeps": _sweeps,
    "groups": _groups,
    "foreign": _foreign,
    "speed": _speed,
}
