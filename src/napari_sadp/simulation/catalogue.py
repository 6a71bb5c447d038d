"""The cubic structures that ship with the package, with the source of each.

The facts (formula, group, cell, sites) come from the Materials Project (CC BY 4.0) and from the Crystallography Open
Database (public domain); every entry names its source and identifier.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import gemmi
import numpy as np

from napari_sadp.errors import StructureError
from napari_sadp.labels.spacegroups import Behaviour, behaviour_of_wyckoff
from napari_sadp.simulation.crystal import DEFAULT_B_ISO, Crystal, expand_sites


@dataclass(frozen=True)
class CatalogueEntry:
    """One structure of the catalogue.

    Parameters
    ----------
    formula : str
        Chemical formula.
    space_group : int
        Number, 195 to 230.
    cell : tuple of 6 float
        a, b, c [Å], alpha, beta, gamma [deg].
    n_atoms : int
        Sites in the conventional cell.
    source, source_id, licence : str
        Attribution.
    mirrored : bool
        Whether it is the mirror image of a structure of the enantiomorphic group.
    sites : tuple
        (species with occupancies, multiplicity, Wyckoff letter, coordinates) of the asymmetric unit.
    """

    formula: str
    space_group: int
    cell: tuple[float, ...]
    n_atoms: int
    source: str
    source_id: str
    licence: str
    mirrored: bool
    sites: tuple[tuple[Any, ...], ...]

    @property
    def behaviour(self) -> Behaviour:
        """Extinction behaviour from the occupied Wyckoff positions."""
        return behaviour_of_wyckoff(self.space_group, {site[2] for site in self.sites})

    @cached_property
    def key(self) -> str:
        """Identifier, unique in the catalogue."""
        return f"{self.source_id}{'-mirror' if self.mirrored else ''}"

    def crystal(self) -> Crystal:
        """Return the complete cell.

        Raises
        ------
        StructureError
            If the expanded sites do not have their stated multiplicity.
        """
        group = gemmi.get_spacegroup_reference_setting(self.space_group)
        elements: list[str] = []
        positions: list[np.ndarray] = []
        occupancies: list[float] = []
        for species, multiplicity, _, xyz in self.sites:
            orbit = expand_sites(group, np.asarray(xyz))
            if len(orbit) != multiplicity:
                raise StructureError(
                    f"{self.formula} ({self.source_id}): site {xyz} has {len(orbit)} equivalents, expected {multiplicity}"
                )
            for element, occupancy in species:
                elements += [element] * len(orbit)
                positions.append(orbit)
                occupancies += [occupancy] * len(orbit)
        return Crystal(
            self.formula,
            tuple(self.cell),
            tuple(elements),
            np.concatenate(positions),
            np.array(occupancies),
            np.full(len(elements), DEFAULT_B_ISO),
            self.space_group,
            f"{self.source} {self.source_id}, {self.licence}",
        )


@lru_cache(maxsize=1)
def load_catalogue() -> tuple[CatalogueEntry, ...]:
    """Return every structure of the catalogue, sorted by group and formula.

    Returns
    -------
    tuple of CatalogueEntry
        About two thousand cubic structures.
    """
    packed = files("napari_sadp").joinpath("data/catalogue.json.gz").read_bytes()
    return tuple(
        CatalogueEntry(
            formula=item["formula"],
            space_group=item["group"],
            cell=tuple(item["cell"]),
            n_atoms=item["n_atoms"],
            source=item["source"],
            source_id=item["id"],
            licence=item["licence"],
            mirrored=item["mirrored"],
            sites=tuple(tuple(site) for site in item["sites"]),
        )
        for item in json.loads(gzip.decompress(packed))
    )


def find_structure(formula: str, space_group: int | None = None) -> CatalogueEntry:
    """Return the first structure with a formula, the one with the fewest atoms.

    Parameters
    ----------
    formula : str
        Formula as the catalogue spells it, such as ``"CsCl"``.
    space_group : int, optional
        Number of the space group.

    Returns
    -------
    CatalogueEntry
        The structure.

    Raises
    ------
    StructureError
        If there is none.
    """
    found = [
        entry
        for entry in load_catalogue()
        if entry.formula == formula and space_group in (None, entry.space_group)
    ]
    if not found:
        where = "" if space_group is None else f" in space group {space_group}"
        raise StructureError(f"the catalogue holds no {formula!r}{where}; give a CIF instead")
    return min(found, key=lambda entry: entry.n_atoms)
