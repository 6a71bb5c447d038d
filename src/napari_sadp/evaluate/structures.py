"""The structures that an evaluation may use: those that the training of a network held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_sadp.dataset.crystals import is_held_out, structure_type
from napari_sadp.labels.spacegroups import behaviours
from napari_sadp.simulation.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.simulation.catalogue import CatalogueEntry
    from napari_sadp.simulation.crystal import Crystal

#: Larger cells are left out, as in training.
MAX_ATOMS = 250


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A structure that no training has seen.

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
    scheme: PatternScheme, split: str = "formula", own: str | None = None
) -> tuple[HeldOut, ...]:
    """Return all structures of a scheme that training holds out.

    Parameters
    ----------
    scheme : PatternScheme
        Groups.
    split : {"formula", "type"}
        How training split.
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
    ValueError
        If the split is unknown.
    """
    names = [item.name for number in scheme.groups for item in behaviours(number)]
    kept: dict[str, list[CatalogueEntry]] = {name: [] for name in names}
    types, formulas = set(), set()
    package = load_catalogue("")
    for entry in package:
        if not _is_of(entry, kept):
            continue
        if is_held_out(entry, split):
            kept[entry.behaviour.name].append(entry)
        else:
            types.add(structure_type(entry))
            formulas.add(_composition(entry))
    for entry in load_catalogue(own)[len(package) :] if own else ():
        if not _is_of(entry, kept) or _composition(entry) in formulas:
            continue
        if split == "formula" or structure_type(entry) not in types:
            kept[entry.behaviour.name].append(entry)
    return tuple(
        HeldOut(f"{entry.formula} {entry.key}", name, entry.crystal(), structure_type(entry) not in types)
        for name, entries in kept.items()
        for entry in entries
    )


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


def deal_structures(structures: Sequence[HeldOut], n: int, rng: np.random.Generator) -> list[HeldOut]:
    """Deal structures: groups in turn, of each its extinction behaviours in turn, and no structure again before all were dealt.

    Parameters
    ----------
    structures : sequence of HeldOut
        What there is.
    n : int
        How many.
    rng : numpy.random.Generator
        Random numbers of the order.

    Returns
    -------
    list of HeldOut
        As many.
    """
    stacks: dict[int, dict[str, list[HeldOut]]] = {}
    for item in structures:
        stacks.setdefault(item.crystal.space_group, {}).setdefault(item.behaviour, []).append(item)
    orders = {
        name: [stack[k] for k in rng.permutation(len(stack))]
        for kinds in stacks.values()
        for name, stack in kinds.items()
    }
    groups = [list(kinds) for kinds in stacks.values()]
    dealt = []
    for number in range(n):
        turn, place = divmod(number, len(groups))
        again, kind = divmod(turn, len(groups[place]))
        order = orders[groups[place][kind]]
        dealt.append(order[again % len(order)])
    return dealt
