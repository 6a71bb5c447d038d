"""The cubic structures that ship with the package, with the source of each, and those of the user.

The facts (formula, group, cell, sites) come from the Materials Project (CC BY 4.0) and from the Crystallography Open
Database (public domain); every entry names its source and identifier. A user's own catalogue, made by ``napari-sadp
catalogue --build``, is merged with them where the environment variable `CATALOGUE_VARIABLE` names its file.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

from napari_sadp._validate import check_option
from napari_sadp.errors import StructureError
from napari_sadp.labels.spacegroups import Behaviour, behaviour_of_wyckoff, behaviours
from napari_sadp.simulation.crystal import DEFAULT_B_ISO, Crystal, expand_sites

if TYPE_CHECKING:
    from collections.abc import Collection

#: Environment variable with the path of the user's own catalogue.
CATALOGUE_VARIABLE = "NAPARI_SADP_CATALOGUE"


@dataclass(frozen=True)
class CatalogueEntry:
    """One structure of the catalogue.

    Parameters
    ----------
    formula : str
        Chemical formula.
    space_group : int
        Number; 195 to 230 for those of the package.
    cell : tuple of 6 float
        a, b, c [Å], alpha, beta, gamma [deg].
    n_atoms : int
        Sites in the conventional cell.
    source, source_id, licence : str
        Attribution.
    mirrored : bool
        Whether it is the mirror image of a structure of the enantiomorphic group.
    sites : tuple
        (species, multiplicity, Wyckoff letter, coordinates) of the asymmetric unit; a species is element, occupancy, and B
        [Å^2] where its source gives one.
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

    @property
    def elements(self) -> frozenset[str]:
        """Symbols of the elements in it."""
        return frozenset(element for site in self.sites for element, *_ in site[0])

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
        b_iso: list[float] = []
        for species, multiplicity, _, xyz in self.sites:
            orbit = expand_sites(group, np.asarray(xyz))
            if len(orbit) != multiplicity:
                raise StructureError(
                    f"{self.formula} ({self.source_id}): site {xyz} has {len(orbit)} equivalents, expected {multiplicity}"
                )
            for element, occupancy, *displacement in species:
                elements += [element] * len(orbit)
                positions.append(orbit)
                occupancies += [occupancy] * len(orbit)
                b_iso += (displacement or [DEFAULT_B_ISO]) * len(orbit)
        return Crystal(
            self.formula,
            tuple(self.cell),
            tuple(elements),
            np.concatenate(positions),
            np.array(occupancies),
            np.array(b_iso),
            self.space_group,
            f"{self.source} {self.source_id}, {self.licence}",
        )


def load_catalogue(path: str | os.PathLike[str] | None = None) -> tuple[CatalogueEntry, ...]:
    """Return every structure of the catalogue: those of the package by group and formula, then those of the user.

    Parameters
    ----------
    path : path-like, optional
        The user's own catalogue (``.json.gz``); by default the file that the environment variable
        ``NAPARI_SADP_CATALOGUE`` names, if it is set.

    Returns
    -------
    tuple of CatalogueEntry
        About two thousand cubic structures, and the user's, of any crystal system.

    Raises
    ------
    StructureError
        If the user's file cannot be read or is no catalogue.
    """
    own = path if path is not None else os.environ.get(CATALOGUE_VARIABLE)
    if not own:
        return _package_catalogue()
    try:
        changed = os.stat(own).st_mtime_ns
    except OSError as error:
        where = "" if path is not None else f" (named by {CATALOGUE_VARIABLE})"
        raise StructureError(f"{own}: the catalogue cannot be read ({error.strerror}){where}") from None
    return _package_catalogue() + _user_catalogue(Path(own), changed)


@lru_cache(maxsize=1)
def _package_catalogue() -> tuple[CatalogueEntry, ...]:
    return _parse(files("napari_sadp").joinpath("data/catalogue.json.gz").read_bytes())


@lru_cache(maxsize=4)
def _user_catalogue(path: Path, changed: int) -> tuple[CatalogueEntry, ...]:
    """Read a catalogue; `changed` makes the cache forget a file that was written anew."""
    try:
        return _parse(path.read_bytes())
    # also EOFError of truncated gzip data, and what a list of something else leads to
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StructureError(f"{path}: is no catalogue of napari-sadp ({cause})") from None


def _parse(packed: bytes) -> tuple[CatalogueEntry, ...]:
    entries = tuple(
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
    for entry in entries:
        behaviours(entry.space_group)  # a ValueError for a number that is none
        if len(entry.cell) != 6 or any(len(site) != 4 for site in entry.sites):
            raise ValueError(f"entry {entry.source_id} has no cell of 6 numbers or sites of 4 items")
    return entries


def composition(formula: str) -> dict[str, float] | None:
    """Return the parts of the elements in a formula, so that ``"MgAl2O4"`` and ``"Al16 Mg8 O32"`` are equal.

    Parameters
    ----------
    formula : str
        Elements with numbers, without brackets.

    Returns
    -------
    dict of str to float or None
        Fractions that sum to 1, to six digits; None where the text is no such formula.

    Examples
    --------
    >>> composition("SrSi2")
    {'Si': 0.666667, 'Sr': 0.333333}
    """
    text = formula.replace(" ", "")
    found: Counter[str] = Counter()
    for element, amount in re.findall(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?", text):
        found[element] += float(amount or 1)
    whole = re.fullmatch(r"(?:[A-Z][a-z]?(?:\d+\.?\d*|\.\d+)?)+", text)
    total = sum(found.values())
    if not whole or total <= 0:
        return None
    return {element: round(amount / total, 6) for element, amount in sorted(found.items())}


def search_catalogue(
    *,
    formula: str | None = None,
    space_group: int | str | None = None,
    behaviour: str | None = None,
    elements: Collection[str] = (),
) -> tuple[CatalogueEntry, ...]:
    """Return the structures of the catalogue that have all of some properties.

    Parameters
    ----------
    formula : str, optional
        Formula; the order of the elements and a common factor do not matter.
    space_group : int or str, optional
        Number or Hermann-Mauguin symbol, such as ``"Fd-3m"``.
    behaviour : str, optional
        Extinction behaviour: the number of the group, for 227 with the letter of the positions that are occupied
        (``"227a"``, ``"227b"``, ``"227g"``).
    elements : collection of str
        Symbols that all must be in it, next to others.

    Returns
    -------
    tuple of CatalogueEntry
        In the order of the catalogue, perhaps none.

    Raises
    ------
    ValueError
        If the group, the behaviour or an element does not exist.

    Examples
    --------
    >>> {entry.behaviour.name for entry in search_catalogue(formula="ZnV2O4", space_group=227)}
    {'227g'}
    """
    number = None if space_group is None else group_number(space_group)
    if behaviour is not None:
        known = re.match(r"\d{1,3}", behaviour)
        stated = int(known[0]) if known else 0
        options = [b.name for b in behaviours(stated)] if 1 <= stated <= 230 else ["225", "227a", "227b"]
        check_option("behaviour", behaviour, options)
    for element in elements:
        if gemmi.Element(element).atomic_number == 0:
            raise ValueError(f"elements has {element!r}, expected chemical symbols such as 'Si'")
    wanted = None if formula is None else composition(formula)
    return tuple(
        entry
        for entry in load_catalogue()
        if number in (None, entry.space_group)
        and (formula is None or formula == entry.formula or (wanted and wanted == composition(entry.formula)))
        and entry.elements >= set(elements)
        and behaviour in (None, entry.behaviour.name)
    )


def group_number(space_group: int | str) -> int:
    """Return the number of a space group given by number or Hermann-Mauguin symbol.

    Raises
    ------
    ValueError
        If there is no such group.

    Examples
    --------
    >>> group_number("Fd-3m"), group_number("225")
    (227, 225)
    """
    if isinstance(space_group, str) and not space_group.isdecimal():
        found = gemmi.find_spacegroup_by_name(space_group)
        if found is None:
            raise ValueError(
                f"space group is {space_group!r}, expected a number from 1 to 230 or a symbol such as 'Fm-3m'"
            )
        return found.number
    number = int(space_group) if isinstance(space_group, str) else space_group
    behaviours(number)  # a ValueError for a number that is none
    return number


def find_structure(formula: str, space_group: int | str | None = None) -> CatalogueEntry:
    """Return the first structure with a formula, the one with the fewest atoms.

    Parameters
    ----------
    formula : str
        Formula such as ``"CsCl"``; the order of the elements does not matter.
    space_group : int or str, optional
        Number or Hermann-Mauguin symbol of the space group.

    Returns
    -------
    CatalogueEntry
        The structure.

    Raises
    ------
    StructureError
        If there is none.
    ValueError
        If there is no such space group.
    """
    found = search_catalogue(formula=formula, space_group=space_group)
    if not found:
        where = "" if space_group is None else f" in space group {space_group}"
        raise StructureError(f"the catalogue holds no {formula!r}{where}; give a CIF instead")
    return min(found, key=lambda entry: entry.n_atoms)


def find_source(key: str) -> CatalogueEntry | None:
    """Return the structure with a source id such as ``"mp-570845"`` or a key of an entry, None where there is none."""
    found = [entry for entry in load_catalogue() if key in (entry.key, entry.source_id)]
    return min(found, key=lambda entry: entry.key != key, default=None)
