"""The structures that an evaluation may use: those that the training of a network cannot have drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sadp.dataset.crystals import UNKNOWN, TrainedOn, structure_type
from napari_sadp.labels.spacegroups import behaviours
from napari_sadp.simulation.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.simulation.catalogue import CatalogueEntry
    from napari_sadp.simulation.crystal import Crystal

#: Larger cells are left out, as in training.
MAX_ATOMS = 250


#: Networks of the package: its own structures alone, held out by formula.
PACKAGE_ALONE = (TrainedOn("formula"),)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A structure that training has not seen, as far as its record tells.

    Parameters
    ----------
    key : str
        Formula and identifier.
    behaviour : str
        Name of its extinction behaviour.
    crystal : Crystal
        The complete cell.
    new_type : bool
        Whether no training structure has its `structure_type`.
    """

    key: str
    behaviour: str
    crystal: Crystal
    new_type: bool


def held_out_structures(
    scheme: PatternScheme, runs: Sequence[TrainedOn] = PACKAGE_ALONE, own: str | None = None
) -> tuple[HeldOut, ...]:
    """Return all structures of a scheme that no training run of a network can have drawn.

    Parameters
    ----------
    scheme : PatternScheme
        Groups.
    runs : sequence of TrainedOn
        The runs that the weights went through.
    own : str, optional
        A catalogue file of more structures, as ``napari-sadp catalogue`` writes it; of these, the ones are left out whose
        composition is that of a training structure.

    Returns
    -------
    tuple of HeldOut
        In the order of groups, behaviours and catalogue.

    Raises
    ------
    StructureError
        If the file is no catalogue.
    """
    unseen, types = _unseen(scheme, runs, own)
    return tuple(
        HeldOut(_key(entry), name, entry.crystal(), structure_type(entry) not in types)
        for name, entries in unseen.items()
        for entry in entries
    )


def held_out_keys(scheme: PatternScheme, runs: Sequence[TrainedOn], own: str | None = None) -> set[str]:
    """Return the keys of `held_out_structures`, in a fraction of its time."""
    return {_key(entry) for entries in _unseen(scheme, runs, own)[0].values() for entry in entries}


def describe_runs(runs: Sequence[TrainedOn]) -> str:
    """Return by what the structures of some training runs were split, in words."""
    words = {"type": "structure type", "seed": "the seed of a data set", UNKNOWN: "nothing that is recorded"}
    text = "by " + " and ".join(dict.fromkeys(words.get(run.split, run.split) for run in runs))
    more = {run.own for run in runs} - {""}
    if not more:
        return text
    return f"{text}, {'perhaps ' if more == {UNKNOWN} else ''}with structures beside those of the package"


def _unseen(
    scheme: PatternScheme, runs: Sequence[TrainedOn], own: str | None
) -> tuple[dict[str, list[CatalogueEntry]], set[tuple[Any, ...]]]:
    """Return the structures of each behaviour that no run can have drawn, and the types of those that one can."""
    kept: dict[str, list[CatalogueEntry]] = {
        item.name: [] for number in scheme.groups for item in behaviours(number)
    }
    # of what a run can have drawn: all types, those that a run drew that holds out types, and compositions of the package or not
    types: set[tuple[Any, ...]] = set()
    types_by_type: set[tuple[Any, ...]] = set()
    drawn: dict[bool, set[tuple[Any, ...]]] = {True: set(), False: set()}
    unseen = []
    for entry, of_package, offered in _known(runs, own):
        if not _is_of(entry, kept):
            continue
        drew = [run for run in runs if run.may_have_drawn(entry, of_package=of_package)]
        if drew:
            types.add(structure_type(entry))
            drawn[of_package].add(_composition(entry))
            if any(run.split == "type" for run in drew):
                types_by_type.add(structure_type(entry))
        elif offered:
            unseen.append((entry, of_package))
    for entry, of_package in unseen:
        # within the package a compound has one formula; one's own may spell it otherwise, and so split it otherwise
        twins = drawn[False] if of_package else drawn[False] | drawn[True]
        if _composition(entry) not in twins and structure_type(entry) not in types_by_type:
            kept[entry.behaviour.name].append(entry)
    return kept, types


def _known(runs: Sequence[TrainedOn], own: str | None) -> Iterator[tuple[CatalogueEntry, bool, bool]]:
    """Yield all structures that are known here, whether the package has them, and whether an evaluation may use them."""
    package = load_catalogue("")
    yield from ((entry, True, True) for entry in package)
    if own:
        yield from ((entry, False, True) for entry in load_catalogue(own)[len(package) :])
    if any(run.own for run in runs):  # training may have had the user's catalogue, whether or not it is given
        yield from ((entry, False, False) for entry in load_catalogue()[len(package) :])


def _key(entry: CatalogueEntry) -> str:
    return f"{entry.formula} {entry.key}"


def _is_of(entry: CatalogueEntry, kept: dict[str, list[CatalogueEntry]]) -> bool:
    """Tell whether a structure is of one of some behaviours, and not too large."""
    return entry.n_atoms <= MAX_ATOMS and entry.behaviour.name in kept


def _composition(entry: CatalogueEntry) -> tuple[tuple[str, float], ...]:
    """Return the shares of the elements in the cell; formulas of disordered structures are rounded, and would miss twins."""
    parts: dict[str, float] = {}
    for species, multiplicity, *_ in entry.sites:
        for element, occupancy, *_ in species:
            parts[element] = parts.get(element, 0.0) + occupancy * multiplicity
    total = sum(parts.values())
    return tuple((element, round(amount / total, 4)) for element, amount in sorted(parts.items()))
