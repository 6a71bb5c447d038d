"""A structure by whatever names it: a CIF, a formula, or the identifier of a catalogue entry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_sadp.errors import StructureError
from napari_sadp.io.cif import load_crystal
from napari_sadp.simulation.catalogue import find_source, find_structure, group_number, search_catalogue

if TYPE_CHECKING:
    import os

    from napari_sadp.simulation.crystal import Crystal


def load_structure(name: str | os.PathLike[str]) -> Crystal:
    """Return the crystal that a path, a formula or an identifier names.

    Parameters
    ----------
    name : str or path-like
        Path of a CIF; or formula of the catalogue, alone (``"Si"``) or with the group (``"Si:227"``, ``"Si:Fd-3m"``); or source id of
        an entry (``"mp-149"``). Of several entries with the formula, the one with the fewest atoms.

    Returns
    -------
    Crystal
        Complete conventional cell.

    Raises
    ------
    StructureError
        If there is no such file and no such entry, or the structure is unusable.
    ValueError
        If what follows the colon is no space group.

    Examples
    --------
    >>> load_structure("ZnV2O4:227").n_atoms
    56
    """
    text = str(name)
    if Path(text).is_file() or text.lower().endswith(".cif") or not isinstance(name, str):
        return load_crystal(name)
    formula, colon, group = text.partition(":")
    if colon:
        try:
            number = group_number(group)
        except ValueError as error:
            raise ValueError(f"structure is {text!r}: {error}") from None
        return find_structure(formula, number).crystal()
    found = find_source(text)
    if found is None and not search_catalogue(formula=text):
        raise StructureError(
            f"{text!r} is neither a file nor a formula or source id of the catalogue; give a CIF, or see napari-sadp catalogue"
        )
    return (found or find_structure(text)).crystal()
