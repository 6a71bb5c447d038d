"""The structures that an evaluation may use: those that the training of a network held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_sadp.dataset.crystals import is_held_out, structure_type
from napari_sadp.labels.spacegroups import behaviours
from napari_sadp.simulation.catalogue import load_catalogue

if TYPE_CHECKING:
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


def held_out_structures(scheme: PatternScheme, split: str = "formula") -> tuple[HeldOut, ...]:
    """Return all structures of a scheme that training holds out.

    Parameters
    ----------
    scheme : PatternScheme
        Groups.
    split : {"formula", "type"}
        How training split.

    Returns
    -------
    tuple of HeldOut
        In the order of groups, behaviours and catalogue.
    """
    names = [item.name for number in scheme.groups for item in behaviours(number)]
    kept: dict[str, list[CatalogueEntry]] = {name: [] for name in names}
    trained = set()
    for entry in load_catalogue():
        name = entry.behaviour.name
        if name not in kept or entry.n_atoms > MAX_ATOMS:
            continue
        if is_held_out(entry, split):
            kept[name].append(entry)
        else:
            trained.add(structure_type(entry))
    return tuple(
        HeldOut(f"{entry.formula} {entry.key}", name, entry.crystal(), structure_type(entry) not in trained)
        for name, entries in kept.items()
        for entry in entries
    )
