"""From what is typed to structures of the catalogue, and a structure in one line. No Qt in here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemmi

from napari_sadp.io.cif import load_crystal
from napari_sadp.labels.spacegroups import symbol
from napari_sadp.simulation.catalogue import CatalogueEntry, composition, find_source, search_catalogue

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

#: Lines in the list of results.
MAX_RESULTS = 60


@dataclass(frozen=True)
class Found:
    """Structures that fit a search.

    Parameters
    ----------
    entries : tuple of CatalogueEntry
        Exact formulas first, then by number of atoms; at most `MAX_RESULTS`.
    total : int
        How many fit.
    """

    entries: tuple[CatalogueEntry, ...]
    total: int


def search(text: str) -> Found:
    """Search the catalogue for what a microscopist types.

    Parameters
    ----------
    text : str
        Words: a formula (``"SrSi2"``) or elements that must be in it (``"Mg O"``), a group by number (``"227"``) or symbol
        (``"Fd-3m"``), an extinction behaviour (``"227b"``), a source id (``"mp-149"``), also ``"Si:227"``.

    Returns
    -------
    Found
        What has all of these properties.

    Raises
    ------
    ValueError
        If a word is none of these.
    StructureError
        If the user's own catalogue cannot be read.
    """
    words = text.replace(":", " ").replace(",", " ").split()
    if not words:
        return Found((), 0)
    source = find_source(words[0]) if len(words) == 1 else None
    if source is not None:
        return Found((source,), 1)
    wanted: dict[str, Any] = {}
    formulas: list[str] = []
    for word in words:
        _understand(word, wanted, formulas)
    entries: list[CatalogueEntry] = []
    if len(formulas) == 1:
        entries += _by_size(search_catalogue(formula=formulas[0], **wanted))
    elements = {element for formula in formulas for element in composition(formula) or ()}
    known = {id(entry) for entry in entries}
    others = search_catalogue(elements=elements, **wanted)
    entries += _by_size(entry for entry in others if id(entry) not in known)
    return Found(tuple(entries[:MAX_RESULTS]), len(entries))


def _understand(word: str, wanted: dict[str, Any], formulas: list[str]) -> None:
    """Add what a word asks for to the arguments of `search_catalogue`, or to the formulas."""
    if word.isdigit():
        _require(wanted, "space_group", int(word))
        return
    if re.fullmatch(r"\d{1,3}[a-z]", word):
        _require(wanted, "behaviour", word)
        return
    parts = composition(word)
    formula = parts is not None and all(gemmi.Element(element).atomic_number for element in parts)
    group = gemmi.find_spacegroup_by_name(word)
    # "P23" and "F23" are groups as well as formulas of phosphorus and fluorine: a formula counts where there is one
    if group is not None and not (formula and search_catalogue(formula=word)):
        _require(wanted, "space_group", group.number)
    elif formula:
        formulas.append(word)
    else:
        raise ValueError(
            f"search is {word!r}, expected a formula or elements (SrSi2, Mg O), a group (227, Fd-3m), a behaviour (227a) or a source id"
        )


def _require(wanted: dict[str, Any], name: str, value: object) -> None:
    if wanted.setdefault(name, value) != value:
        raise ValueError(f"search has {name} {wanted[name]} and {value}, expected one of them")


def _by_size(entries: Any) -> list[CatalogueEntry]:
    return sorted(entries, key=lambda entry: (entry.n_atoms, entry.formula, entry.space_group))


def entry_line(entry: CatalogueEntry) -> str:
    """Return an entry of the list of results: formula, group, behaviour, atoms, source id."""
    group = f"{entry.space_group} {symbol(entry.space_group)}"
    behaviour = "" if entry.behaviour.name == str(entry.space_group) else f"  ({entry.behaviour.name})"
    return f"{entry.formula}   {group}{behaviour}   {entry.n_atoms} atoms   {entry.key}"


def load(structure: Path | CatalogueEntry) -> Crystal:
    """Return the crystal of a CIF or of an entry.

    Raises
    ------
    StructureError
        If it cannot be used.
    """
    return structure.crystal() if isinstance(structure, CatalogueEntry) else load_crystal(structure)


def crystal_text(crystal: Crystal) -> str:
    """Return what was loaded: formula, group, cell, number of atoms, source."""
    a, b, c, *angles = crystal.cell
    if max(abs(b - a), abs(c - a)) < 1e-4 * a and max(abs(angle - 90) for angle in angles) < 1e-3:
        cell = f"a = {a:.4f} Å"
    else:
        cell = f"{a:.4f}, {b:.4f}, {c:.4f} Å, {', '.join(f'{angle:.2f}' for angle in angles)}°"
    count = f"{crystal.n_atoms} atom{'s' * (crystal.n_atoms != 1)}"
    first = f"{crystal.name}, {crystal.space_group} {crystal.space_group_symbol}, {cell}, {count}"
    return f"{first}\n{crystal.source}" if crystal.source else first
