"""Which structures a data set is made of, and which of them are held out for validation."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.dataset.crystals import is_formula_held_out
from napari_sadp.errors import StructureError
from napari_sadp.labels.spacegroups import Behaviour, behaviours, is_allowed
from napari_sadp.simulation.catalogue import CatalogueEntry, load_catalogue
from napari_sadp.simulation.scattering import structure_factors

if TYPE_CHECKING:
    from napari_sadp.dataset.config import DatasetConfig
    from napari_sadp.simulation.crystal import Crystal

#: A reflection below this fraction of the strongest |F| counts as absent when the behaviour of a CIF is looked for.
_ABSENT = 1e-4


@dataclass(frozen=True, eq=False)
class DatasetStructure:
    """One structure of a data set.

    Parameters
    ----------
    identifier : str
        Source id of the catalogue, or the name of the CIF file.
    formula : str
        Chemical formula.
    behaviour : Behaviour
        Group and extinction behaviour.
    validation : bool
        Whether it is held out.
    source : str
        Attribution.
    digest : str
        Hash of its cell and atoms, so that a data set never mixes two versions of a structure.
    entry : CatalogueEntry or None
        Where its atoms are, or
    path : str
        the CIF file.
    """

    identifier: str
    formula: str
    behaviour: Behaviour
    validation: bool
    source: str
    digest: str
    entry: CatalogueEntry | None = None
    path: str = ""

    def crystal(self) -> Crystal:
        """Return the complete cell."""
        return self.entry.crystal() if self.entry is not None else _load_cif(self.path)


def select_structures(config: DatasetConfig) -> tuple[DatasetStructure, ...]:
    """Return the structures of a configuration, in the order of its groups; the same for the same configuration.

    Parameters
    ----------
    config : DatasetConfig
        What to select.

    Returns
    -------
    tuple of DatasetStructure
        No formula is both in training and in validation.

    Raises
    ------
    ValueError
        If the catalogue has too few structures, or `cif_folder` holds none of the groups.
    StructureError
        If a CIF cannot be read.
    """
    pools: dict[tuple[str, bool], list[CatalogueEntry]] = defaultdict(list)
    for entry in load_catalogue():
        if entry.space_group in config.groups and entry.n_atoms <= config.max_atoms:
            pools[entry.behaviour.name, _held_out(config, entry.formula)].append(entry)
    wanted = {
        (name, held): n for name, *pair in config.counts for held, n in zip((False, True), pair, strict=True)
    }
    if not config.counts:
        wanted = _share_out(config, pools)
    rng = np.random.default_rng([config.seed, 1])
    chosen = []
    for number in config.groups:
        for behaviour in behaviours(number):
            for held in (False, True):
                pool, n = pools[behaviour.name, held], wanted.get((behaviour.name, held), 0)
                if n > len(pool):
                    part = "validation" if held else "training"
                    raise ValueError(
                        f"counts of {behaviour.name} asks for {n} {part} structures, expected at most {len(pool)}: "
                        f"the catalogue has no more with at most {config.max_atoms} atoms"
                    )
                order = sorted(rng.permutation(len(pool))[:n].tolist())
                chosen += [_from_entry(pool[i], behaviour, held) for i in order]
    if config.cif_folder:
        chosen += _from_folder(config)
    return tuple(chosen)


def _held_out(config: DatasetConfig, formula: str) -> bool:
    if config.split == "formula":
        return is_formula_held_out(formula)
    digest = hashlib.sha256(f"{config.seed}:{formula}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < config.validation_share


def _share_out(
    config: DatasetConfig, pools: dict[tuple[str, bool], list[CatalogueEntry]]
) -> dict[tuple[str, bool], int]:
    """Share `per_group` structures of each group among its behaviours, as evenly as the catalogue allows."""
    wanted: dict[tuple[str, bool], int] = defaultdict(int)
    held_per_group = round(config.validation_share * config.per_group)
    for number in config.groups:
        names = [item.name for item in behaviours(number)]
        for held, n in ((False, config.per_group - held_per_group), (True, held_per_group)):
            room = sum(len(pools[name, held]) for name in names)
            if n > room:
                part = "validation" if held else "training"
                raise ValueError(
                    f"per_group is {config.per_group}, which asks for {n} {part} structures of group {number}, expected at "
                    f"most {room}: the catalogue has no more with at most {config.max_atoms} atoms"
                )
            while n:
                for name in names:
                    if n and wanted[name, held] < len(pools[name, held]):
                        wanted[name, held] += 1
                        n -= 1
    return wanted


def _from_entry(entry: CatalogueEntry, behaviour: Behaviour, held: bool) -> DatasetStructure:
    atoms = repr((entry.space_group, entry.cell, entry.sites))
    return DatasetStructure(
        entry.key,
        entry.formula,
        behaviour,
        held,
        f"{entry.source} {entry.source_id}, {entry.licence}",
        hashlib.sha256(atoms.encode()).hexdigest(),
        entry,
    )


def _from_folder(config: DatasetConfig) -> list[DatasetStructure]:
    """Return the CIFs of a folder whose group is one of the configuration."""
    folder = Path(config.cif_folder)
    if not folder.is_dir():
        raise ValueError(f"cif_folder is {config.cif_folder!r}, expected a folder that exists")
    # a formula that the catalogue knows is spelled as there, so that it falls into the same part
    known = {_composition(entry.formula): entry.formula for entry in load_catalogue()}
    found = []
    for path in sorted(folder.glob("*.cif")):
        crystal = _load_cif(str(path))
        if crystal.space_group not in config.groups:
            continue
        formula = _formula(crystal)
        formula = known.get(_composition(formula), formula)
        found.append(
            DatasetStructure(
                path.stem,
                formula,
                behaviour_of_crystal(crystal),
                _held_out(config, formula),
                path.name,
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path=str(path),
            )
        )
    if not found:
        groups = ", ".join(map(str, config.groups))
        raise ValueError(
            f"cif_folder is {config.cif_folder!r}, expected CIF files of the groups {groups} in it"
        )
    return found


@lru_cache(maxsize=64)
def _load_cif(path: str) -> Crystal:
    from napari_sadp.io.cif import load_crystal

    return load_crystal(path)


def behaviour_of_crystal(crystal: Crystal) -> Behaviour:
    """Return the first extinction behaviour of its group that a crystal obeys.

    Parameters
    ----------
    crystal : Crystal
        Complete conventional cell.

    Returns
    -------
    Behaviour
        ``227a`` for silicon, for example.

    Raises
    ------
    StructureError
        If the crystal shows reflections that its group forbids.
    """
    hkl = np.stack(np.meshgrid(*[np.arange(9)] * 3), axis=-1).reshape(-1, 3)[1:]
    amplitude = np.abs(structure_factors(crystal, hkl))
    for behaviour in behaviours(crystal.space_group):
        if (amplitude[~is_allowed(behaviour, hkl)] <= _ABSENT * amplitude.max()).all():
            return behaviour
    raise StructureError(
        f"{crystal.name}: shows reflections that its space group {crystal.space_group} forbids"
    )


def _composition(formula: str) -> tuple[tuple[str, float], ...]:
    """Return the elements of a formula with their shares."""
    counts: dict[str, float] = defaultdict(float)
    for element, number in re.findall(r"([A-Z][a-z]?)([0-9.]*)", formula):
        counts[element] += float(number or 1)
    total = sum(counts.values()) or 1.0
    return tuple((element, round(counts[element] / total, 4)) for element in sorted(counts))


def _formula(crystal: Crystal) -> str:
    counts: dict[str, float] = defaultdict(float)
    for element, occupancy in zip(crystal.elements, crystal.occupancies.tolist(), strict=True):
        counts[element] += occupancy
    whole = [round(n) for n in counts.values()]
    exact = all(n > 0 and abs(n - m) < 1e-3 for n, m in zip(counts.values(), whole, strict=True))
    divisor = gcd(*whole) if exact else 1
    parts = {element: round(counts[element] / divisor, 3) for element in sorted(counts)}
    return "".join(f"{element}{'' if n == 1 else f'{n:g}'}" for element, n in parts.items())
