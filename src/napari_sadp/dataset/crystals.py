"""The crystals that training patterns are made of: the catalogue, split by formula.

Behaviours with few known structures are topped up with *decorated* copies, in which the elements of a real structure are
exchanged at random: symmetry and extinctions stay, intensities change.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sadp._validate import check_option
from napari_sadp.labels.spacegroups import behaviours
from napari_sadp.simulation.catalogue import CATALOGUE_VARIABLE, CatalogueEntry, composition, load_catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.simulation.crystal import Crystal

#: Share of the formulas held out for validation, as in the article.
VALIDATION_SHARE = 0.15
#: What decides whether a structure is held out: its formula, or its structure type, so that no relative of it is trained on.
SPLITS: tuple[str, ...] = ("formula", "type")
#: What nobody recorded, of a `TrainedOn`.
UNKNOWN = "unknown"
#: Structures that are in no catalogue that is known, such as CIFs of a data set.
ELSEWHERE = "elsewhere"
_COMMON_ELEMENTS = [
    "Li",
    "Be",
    "B",
    "C",
    "N",
    "O",
    "F",
    "Na",
    "Mg",
    "Al",
    "Si",
    "P",
    "S",
    "Cl",
    "K",
    "Ca",
    "Sc",
    "Ti",
    "V",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
    "Ga",
    "Ge",
    "As",
    "Se",
    "Br",
    "Rb",
    "Sr",
    "Y",
    "Zr",
    "Nb",
    "Mo",
    "Ru",
    "Rh",
    "Pd",
    "Ag",
    "Cd",
    "In",
    "Sn",
    "Sb",
    "Te",
    "I",
    "Cs",
    "Ba",
    "La",
    "Ce",
    "Nd",
    "Gd",
    "Dy",
    "Er",
    "Yb",
    "Hf",
    "Ta",
    "W",
    "Re",
    "Os",
    "Ir",
    "Pt",
    "Au",
    "Hg",
    "Tl",
    "Pb",
    "Bi",
    "Th",
    "U",
]


def structure_type(entry: CatalogueEntry) -> tuple[Any, ...]:
    """Return what isotypic structures share, whatever their elements.

    Parameters
    ----------
    entry : CatalogueEntry
        A structure.

    Returns
    -------
    tuple
        Space group, and the multiplicities of the sites of each kind of atom. Multiplicities, not Wyckoff letters, since those
        depend on the choice of the origin: so a few types count as one, never one as several.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> structure_type(find_structure("TiC", 225)) == structure_type(find_structure("TiN", 225))
    True
    """
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for species, multiplicity, *_ in entry.sites:
        kinds.setdefault(tuple(tuple(item[:2]) for item in species), []).append(int(multiplicity))
    return entry.space_group, tuple(sorted((len(kind), *sorted(sizes)) for kind, sizes in kinds.items()))


def is_held_out(entry: CatalogueEntry, split: str = "formula") -> bool:
    """Tell whether a structure is kept for validation.

    Parameters
    ----------
    entry : CatalogueEntry
        A structure.
    split : {"formula", "type"}
        By its formula, see `is_validation`, or by its `structure_type`.

    Returns
    -------
    bool
        The same in every run.

    Raises
    ------
    ValueError
        If the split is unknown.
    """
    check_option("split", split, SPLITS)
    if split == "formula":
        return is_formula_held_out(entry.formula)
    return is_validation(repr(structure_type(entry)))


def is_formula_held_out(formula: str) -> bool:
    """Tell whether a compound is held out for validation, however its formula is spelled.

    Parameters
    ----------
    formula : str
        Elements with numbers; catalogues of one's own spell them in any order.

    Returns
    -------
    bool
        By its formula as the package spells it, so that what that holds out is never trained on under another name.

    Examples
    --------
    >>> is_formula_held_out("MgAl2O4") == is_formula_held_out("O4MgAl2")
    True
    """
    key = _shares(formula)
    return is_validation(formula if key is None else _package_spelling().get(key, repr(key)))


def _shares(formula: str) -> tuple[tuple[str, float], ...] | None:
    """Return the elements of a formula with their shares, rounded as formulas of disordered structures are; None for no formula."""
    parts = composition(formula)
    return None if parts is None else tuple((element, round(share, 4)) for element, share in parts.items())


@lru_cache(maxsize=1)
def _package_spelling() -> dict[tuple[tuple[str, float], ...] | None, str]:
    """Return the formulas of the package by their composition."""
    return {_shares(entry.formula): entry.formula for entry in load_catalogue("")}


def is_validation(text: str) -> bool:
    """Tell whether what a text names is held out for validation: a fixed hash, so that no run ever trains on it."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < VALIDATION_SHARE


@dataclass(frozen=True)
class TrainedOn:
    """The structures that a training run could draw from, for its card.

    Parameters
    ----------
    split : str
        One of `SPLITS`, ``"seed"`` of a data set that is split by its own seed, or `UNKNOWN`.
    own : str
        Structures beside those of the package: empty for none, the sha256 of the user's catalogue, `UNKNOWN` for perhaps such a
        catalogue, or `ELSEWHERE`.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> TrainedOn("formula").may_have_drawn(find_structure("TiC", 225))
    True
    """

    split: str
    own: str = ""

    def may_have_drawn(self, entry: CatalogueEntry, *, of_package: bool = True) -> bool:
        """Tell whether the run may have been trained on a structure, one of the package or one of the user's."""
        if not of_package and not self.own:
            return False
        # CIFs are split by formula too, but spelled otherwise than in a catalogue
        if self.split not in SPLITS or (self.own == ELSEWHERE and not of_package):
            return True
        return not is_held_out(entry, self.split)


def own_catalogue_sha256() -> str:
    """Return the sha256 of the user's own catalogue, empty if there is none.

    Raises
    ------
    StructureError
        If it cannot be read.
    """
    load_catalogue()  # says what is wrong with it
    own = os.environ.get(CATALOGUE_VARIABLE)
    return hashlib.sha256(Path(own).read_bytes()).hexdigest() if own else ""


def decorate(crystal: Crystal, rng: np.random.Generator) -> Crystal:
    """Return a crystal with its elements exchanged at random and its cell scaled by up to 10 %."""
    kinds = sorted(set(crystal.elements))
    drawn = rng.choice(len(_COMMON_ELEMENTS), size=len(kinds), replace=False)
    swap = {old: _COMMON_ELEMENTS[index] for old, index in zip(kinds, drawn, strict=True)}
    scale = float(rng.uniform(0.9, 1.1))
    a, b, c, *angles = crystal.cell
    return replace(
        crystal,
        name=f"{crystal.name} decorated",
        elements=tuple(swap[e] for e in crystal.elements),
        cell=(a * scale, b * scale, c * scale, *angles),
    )


def choose_crystals(
    scheme: PatternScheme,
    *,
    validation: bool,
    per_behaviour: int,
    rng: np.random.Generator,
    max_atoms: int = 250,
    split: str = "formula",
) -> list[tuple[str, Crystal]]:
    """Draw crystals for every behaviour of a scheme.

    Parameters
    ----------
    scheme : PatternScheme
        Its groups.
    validation : bool
        Whether to take the held-out formulas; these are never decorated.
    per_behaviour : int
        How many; fewer where validation has no more.
    rng : numpy.random.Generator
        Random numbers.
    max_atoms : int
        Larger cells are left out, they only cost time.
    split : {"formula", "type"}
        What is held out, see `is_held_out`.

    Returns
    -------
    list of (behaviour name, Crystal)
        Crystals.

    Raises
    ------
    ValueError
        If a group has no structure to train on, or none of the groups one that is held out.
    """
    pool: dict[str, list[CatalogueEntry]] = {}
    for entry in load_catalogue():
        if entry.n_atoms <= max_atoms and is_held_out(entry, split) == validation:
            pool.setdefault(entry.behaviour.name, []).append(entry)
    chosen = []
    for number in scheme.groups:
        for behaviour in behaviours(number):
            entries = pool.get(behaviour.name, [])
            order = rng.permutation(len(entries))[:per_behaviour]
            crystals = [entries[i].crystal() for i in order]
            if not validation and entries:
                extra = rng.integers(len(entries), size=per_behaviour - len(crystals))
                crystals += [decorate(entries[i].crystal(), rng) for i in extra]
            chosen += [(behaviour.name, crystal) for crystal in crystals]
    _require_structures(scheme.groups, {name for name, _ in chosen}, validation=validation)
    return chosen


def _require_structures(groups: Sequence[int], found: set[str], *, validation: bool) -> None:
    """Raise `ValueError` where a network could not learn a group, or could not be measured at all."""
    missing = [number for number in groups if not any(item.name in found for item in behaviours(number))]
    if not missing or (validation and len(missing) < len(groups)):
        return
    what = "that is held out to validate with" if validation else "to train on"
    raise ValueError(
        f"groups holds {', '.join(map(str, missing))}, for which the catalogue has no structure {what}; leave them out, or add "
        "structures of your own (napari-sadp catalogue)"
    )
