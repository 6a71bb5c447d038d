"""The parts of an evaluation: how each makes its rows, and when those that are kept are all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sadp.errors import CheckpointError, PatternRefusedError
from napari_sadp.evaluate.aligned import EVALUATION_SEED, aligned_library, aligned_rows
from napari_sadp.evaluate.dealing import deal_by_need, deal_structures
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
from napari_sadp.evaluate.rows import SAVE_EVERY
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
    from collections.abc import Callable, Generator, Iterator

    from napari_sadp.evaluate.rows import Row, RowStore
    from napari_sadp.evaluate.run import Evaluation
    from napari_sadp.evaluate.structures import HeldOut
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


def measure(found: Evaluation, store: RowStore, part: str) -> Iterator[tuple[int, int]]:
    """Make the rows that a part still lacks, and put all of them into the evaluation.

    Parameters
    ----------
    found : Evaluation
        Settings, network and structures; gets the rows.
    store : RowStore
        Where rows are kept.
    part : str
        One of `PARTS`.

    Yields
    ------
    tuple of 2 int
        Done, and of all.
    """
    yield from _PARTS[part].measure(found, store)
    take_kept(found, store, part)


def take_kept(found: Evaluation, store: RowStore, part: str) -> None:
    """Put the kept rows of a part into an evaluation, as far as they are complete."""
    names = [part]
    if part == "aligned":
        names += [aligned_part(card) for card in found.compared.values()]
    for name in names:
        rows = store.read(name)
        if _PARTS[part].is_complete(found, rows):
            found.rows[name] = rows


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
        if not _has_all_patterns(found, store.read(part)):
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


def _has_all_patterns(found: Evaluation, rows: list[Row]) -> bool:
    return len(rows) == found.config.patterns


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


def _frame_rows(
    found: Evaluation, kept: list[Row], make: Callable[[int, int, HeldOut], Row] | None = None
) -> Iterator[Row | None]:
    """Yield the frames of some conditions: rows that are kept, as long as they are of the structures dealt, then new ones.

    Parameters
    ----------
    found : Evaluation
        Settings and structures.
    kept : list of dict
        Rows that there are.
    make : callable, optional
        Makes a row of number of the condition, number in it, and structure.

    Yields
    ------
    dict or None
        Without `make` None in place of the first row that is not kept, the last one.
    """
    for place, condition in enumerate(CONDITIONS):
        old = iter([row for row in kept if row["condition"] == condition.name])
        deal = _deal(found, condition, np.random.default_rng([*_frame_seed(found), place]))
        item, number = next(deal, None), 0
        while item is not None:
            row = next(old, None)
            if row is None or row["structure"] != item.key:
                if make is None:
                    yield None
                    return
                old = iter(())  # of another deal, and so are those after it
                row = make(place, number, item)
            yield row
            number += 1
            try:
                item = deal.send(row["visible"] != NONE)
            except StopIteration:
                item = None


def _deal(
    found: Evaluation, condition: Condition, rng: np.random.Generator
) -> Generator[HeldOut, bool, None]:
    """Return the deal of the structures of a condition; the article's by what they show, see `deal_by_need`."""
    if condition is ARTICLE:
        return deal_by_need(found.structures, found.config.count("article"), rng)
    # what they show does not change the deal, so that it is drawn as a whole
    return (item for item in deal_structures(found.structures, found.config.count("frames"), rng))


def _frame_seed(found: Evaluation) -> list[int]:
    return [found.config.seed, EVALUATION_SEED, 1]


def _has_all_frames(found: Evaluation, rows: list[Row]) -> bool:
    dealt = list(_frame_rows(found, rows))
    return None not in dealt and len(dealt) == len(rows)


def _frames(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Run the chain on frames of some conditions."""

    def make(place: int, number: int, structure: HeldOut) -> Row:
        condition = CONDITIONS[place]
        structure, zone, frame = _frame(found, condition, [*_frame_seed(found), place, number], structure)
        result, above = _with_and_without_faint(frame.pattern, found.classifier)
        about = {
            "condition": condition.name,
            "above": above["found"],
            "confidence_above": above["confidence"],
        }
        return _row(found, about, structure, zone, result, frame)

    names = [condition.name for condition in CONDITIONS]
    groups = {item.crystal.space_group for item in found.structures}
    total = sum(
        len(groups) * found.config.count("article") if condition is ARTICLE else found.config.count("frames")
        for condition in CONDITIONS
    )
    kept = store.read("frames")
    rows: list[Row] = []
    done = 0
    for row in _frame_rows(found, kept, make):
        rows.append(row)
        # of the article's nobody knows beforehand how many it takes until enough show the lattice of a class
        done += row["condition"] != ARTICLE.name or row["visible"] != NONE
        if len(rows) % SAVE_EVERY == 0 and rows != kept[: len(rows)]:
            later = names[names.index(row["condition"]) + 1 :]
            store.write("frames", rows + [item for item in kept if item["condition"] in later])
        yield done, total
    if rows != kept:
        store.write("frames", rows)


def _sweep_work(found: Evaluation) -> list[tuple[str, float, int]]:
    """Return what is varied, value and number of every frame."""
    return [
        (name, value, number)
        for name, values in SWEEPS.items()
        for value in values
        for number in range(found.config.count("sweeps"))
    ]


def _sweeps(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Run the chain on frames in which one thing at a time is varied; the crystals are the same at every value."""

    def make(item: tuple[str, float, int]) -> Row:
        name, value, number = item
        drawn = _frame(found, SWEEPS[name][value], [found.config.seed, EVALUATION_SEED, 2, number])
        structure, zone, frame = drawn
        result = identify_pattern(frame.pattern, found.classifier)
        return _row(found, {"varied": name, "value": value}, structure, zone, result, frame)

    yield from store.complete("sweeps", _sweep_work(found), make)


def _group_work(found: Evaluation) -> list[int]:
    return list(range(found.config.count("groups")))


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

    yield from store.complete("groups", _group_work(found), make)


def _foreign_work(found: Evaluation) -> list[tuple[str, int]]:
    """Return kind and number of every frame."""
    return [
        (kind, number)
        for kind in ("inside", *FOREIGN_KINDS)
        # one side is as large as each of the others
        for number in range(found.config.count("foreign"))
    ]


def _foreign(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Run the chain on frames of what is outside the scheme, and on mild ones that show the lattice of a class of it."""
    mild = next(item for item in CONDITIONS if item.name == "mild")
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

    yield from store.complete("foreign", _foreign_work(found), make)


def _speed_work(found: Evaluation) -> list[tuple[str, int]]:
    """Return architecture and image size [px] of every row."""
    from napari_sadp.models.architectures import ARCHITECTURES

    sizes = (found.classifier.card.size, 224)
    return [(architecture, size) for architecture in ARCHITECTURES for size in sizes]


def _speed(found: Evaluation, store: RowStore) -> Iterator[tuple[int, int]]:
    """Time all architectures on the device."""
    from napari_sadp.models.resnet import describe_device
    from napari_sadp.models.speed import time_architecture

    device = found.classifier.device
    name = describe_device(device)
    kept = store.read("speed")
    if len(kept) < len(_speed_work(found)) and any(row["device"] != name for row in kept):
        store.write("speed", [])  # one table is of one device

    def make(item: tuple[str, int]) -> Row:
        architecture, size = item
        return time_architecture(architecture, size, len(found.classifier.scheme), device) | {"device": name}

    yield from store.complete("speed", _speed_work(found), make)


class _Part(NamedTuple):
    measure: Callable[[Evaluation, RowStore], Iterator[tuple[int, int]]]
    is_complete: Callable[[Evaluation, list[Row]], bool]


def _as_many_as(work: Callable[[Evaluation], list[Any]]) -> Callable[[Evaluation, list[Row]], bool]:
    return lambda found, rows: len(rows) == len(work(found))


_PARTS: dict[str, _Part] = {
    "aligned": _Part(_aligned, _has_all_patterns),
    "frames": _Part(_frames, _has_all_frames),
    "sweeps": _Part(_sweeps, _as_many_as(_sweep_work)),
    "groups": _Part(_groups, _as_many_as(_group_work)),
    "foreign": _Part(_foreign, _as_many_as(_foreign_work)),
    "speed": _Part(_speed, _as_many_as(_speed_work)),
}
