"""A catalogue of the user's own: from a folder of CIFs to one file in the form of the package's catalogue.

Every structure is brought into the reference setting of its group (origin choice 2, hexagonal axes), reduced to its
asymmetric unit with the Wyckoff letters of spglib, and expanded again as a check.
"""

from __future__ import annotations

import gzip
import json
import warnings
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.errors import StructureError
from napari_sadp.io.cif import load_crystal, site_contents, species_of, standard_origins
from napari_sadp.simulation.crystal import DEFAULT_B_ISO, expand_sites

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from napari_sadp.simulation.crystal import Crystal

#: Tolerances [Å] at which symmetry is looked for: the second one where coordinates of few digits blur the group.
_SYMPRECS = (0.01, 0.05)
_LICENCE = "own"


def catalogue_entry(crystal: Crystal, *, source: str, source_id: str) -> dict[str, Any]:
    """Return a crystal as an entry of a catalogue file.

    Parameters
    ----------
    crystal : Crystal
        Complete conventional cell in any setting.
    source, source_id : str
        Where it comes from.

    Returns
    -------
    dict
        The fields of the file.

    Raises
    ------
    StructureError
        If spglib finds no symmetry, or the asymmetric unit does not expand to the cell.
    """
    positions, contents = site_contents(crystal)
    kinds = sorted({species_of(site) for site in contents})
    numbers = [kinds.index(species_of(site)) + 1 for site in contents]
    problem = "spglib finds no symmetry"
    for symprec in _SYMPRECS:
        standard = _in_reference_setting((crystal.direct_basis(), positions, numbers), symprec)
        if standard is None:
            continue
        number, lattice, rows, origins, letters, equivalent = standard
        group = gemmi.get_spacegroup_reference_setting(number)
        sites = []
        for first in np.unique(equivalent):
            xyz = [round(float(x), 6) % 1.0 for x in rows[first]]
            members = np.flatnonzero(equivalent == first)
            species = _species([contents[origins[member]] for member in members])
            sites.append([species, len(members), letters[first], xyz])
        wrong = [site for site in sites if len(expand_sites(group, np.array(site[3]))) != site[1]]
        if not wrong:
            return {
                "formula": _formula(crystal),
                "group": number,
                "cell": _cell(lattice),
                "n_atoms": len(rows),
                "source": source,
                "id": source_id,
                "licence": _LICENCE,
                "mirrored": False,
                "sites": sites,
            }
        problem = f"site {wrong[0][3]} of group {number} does not expand to {wrong[0][1]} atoms"
    raise StructureError(f"{source_id}: no entry of a catalogue can be made ({problem})")


def build_catalogue(folder: str | os.PathLike[str]) -> Iterator[tuple[Path, dict[str, Any] | StructureError]]:
    """Make catalogue entries of all CIFs in a folder, one by one.

    Parameters
    ----------
    folder : path-like
        Searched with its subfolders for files that end in ``.cif``.

    Yields
    ------
    path : Path
        The file, in alphabetical order.
    entry : dict or StructureError
        Its entry, or why there is none.

    Raises
    ------
    StructureError
        If it is no folder, or holds no CIF.
    """
    folder = Path(folder)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".cif" and p.is_file())
    if not paths:
        raise StructureError(f"{folder}: {'holds no .cif file' if folder.is_dir() else 'is no folder'}")
    for path in paths:
        try:
            crystal = load_crystal(path)
            yield path, catalogue_entry(crystal, source="CIF", source_id=path.stem)
        except StructureError as error:
            yield path, error


def write_catalogue(path: str | os.PathLike[str], entries: Iterable[dict[str, Any]]) -> int:
    """Write a catalogue file; same entries, same bytes.

    Parameters
    ----------
    path : path-like
        The file, ``.json.gz``; replaced only once the new one is complete.
    entries : iterable of dict
        What `catalogue_entry` gives.

    Returns
    -------
    int
        Number of entries written.

    Raises
    ------
    ValueError
        If there is no entry.
    """
    chosen = sorted(entries, key=lambda e: (e["group"], e["formula"], e["id"]))
    if not chosen:
        raise ValueError("entries is empty, expected at least one structure")
    text = "[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in chosen) + "\n]\n"
    with atomic_write(path, "wb") as file:
        file.write(gzip.compress(text.encode(), 9, mtime=0))
    return len(chosen)


def _species(members: list[tuple[tuple[str, float, float], ...]]) -> list[list[Any]]:
    """Return [element, occupancy] of a site, with the mean B [Å^2] of its equivalents where that is not the default."""
    species: list[list[Any]] = []
    for place, (element, occupancy, _) in enumerate(members[0]):
        b_iso = round(float(np.mean([site[place][2] for site in members])), 4)
        species.append([element, occupancy] if b_iso == DEFAULT_B_ISO else [element, occupancy, b_iso])
    return species


@lru_cache(maxsize=1)
def _reference_halls() -> dict[int, int]:
    """Return spglib's number of the reference setting for every group."""
    import spglib

    found: dict[int, int] = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        # the first setting of a group is the one of the tables, but for origin choice 2
        if kind.number not in found or kind.choice == "2":
            found[kind.number] = hall
    return found


def _in_reference_setting(
    cell: tuple[np.ndarray, np.ndarray, list[int]], symprec: float
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, list[str], np.ndarray] | None:
    """Return group, lattice, positions, sites of `cell`, Wyckoff letters and equivalences in the reference setting."""
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = spglib.get_symmetry_dataset(cell, symprec=symprec)
        if first is None:
            return None
        hall = _reference_halls()[first.number]
        moved = spglib.get_symmetry_dataset(cell, symprec=symprec, hall_number=hall)
        if moved is None:
            return None
        standard = (moved.std_lattice, moved.std_positions % 1.0, moved.std_types)
        again = spglib.get_symmetry_dataset(standard, symprec=symprec, hall_number=hall)
    if again is None or again.number != first.number:
        return None
    return (
        first.number,
        standard[0],
        standard[1],
        standard_origins(moved),
        list(again.wyckoffs),
        np.asarray(again.crystallographic_orbits),
    )


def _cell(lattice: np.ndarray) -> list[float]:
    lengths = np.linalg.norm(lattice, axis=1)
    unit = lattice / lengths[:, None]
    cosines = [float(np.clip(unit[i] @ unit[j], -1, 1)) for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = [round(float(np.degrees(np.arccos(cosine))), 6) for cosine in cosines]
    return [*(round(float(x), 6) for x in lengths), *angles]


def _formula(crystal: Crystal) -> str:
    """Return the reduced formula, elements in the order in which the structure lists them."""
    amounts: Counter[str] = Counter()
    for element, occupancy in zip(crystal.elements, crystal.occupancies, strict=True):
        amounts[element] += float(occupancy)
    values = np.array(list(amounts.values()))
    whole = np.rint(values).astype(int)
    if np.allclose(values, whole, atol=1e-4) and whole.min() > 0:
        values = whole // np.gcd.reduce(whole)
    texts = [f"{value:.6g}" for value in values]
    return "".join(
        element + ("" if text == "1" else text) for element, text in zip(amounts, texts, strict=True)
    )
