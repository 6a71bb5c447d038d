"""The crystals that training patterns are made of, and their zone-axis spots, worked out once.

Structures come from the catalogue, split by formula; behaviours with few known structures are topped up with *decorated*
copies, in which the elements of a real structure are exchanged at random: symmetry and extinctions stay, intensities change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry.convention import G1_FRACTION
from napari_sadp.labels.lattice2d import gauss_reduce, gram, planar_basis
from napari_sadp.labels.scheme import PatternScheme, disc_nodes
from napari_sadp.labels.spacegroups import behaviours
from napari_sadp.labels.visible import visible_pattern
from napari_sadp.simulation.catalogue import CatalogueEntry, load_catalogue
from napari_sadp.simulation.kinematic import structure_factors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sadp.simulation.crystal import Crystal

#: Share of the formulas held out for validation, as in the article.
VALIDATION_SHARE = 0.15
#: Radius of the spots kept, in |g1|: the corner of the image, and a margin for jitter.
FIELD_RADIUS = 0.5 * np.sqrt(2) / G1_FRACTION + 1.0
#: Largest |g| of a training spot [1/Å].
G_MAX = 2.2
#: Visibility thresholds: intensity of the weakest spot that counts, over the strongest.
THRESHOLDS: tuple[float, ...] = (2e-4, 2e-3, 1e-2)
#: Vectors this close to the shortest may be taken for it by a lattice fit.
TIE = 1.03

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


@dataclass(frozen=True, eq=False)
class SpotLibrary:
    """Spots of many (crystal, zone axis, threshold), aligned by their visible lattice.

    Parameters
    ----------
    position : (n, k, 2) ndarray of float32
        (row, col) over |g1|, g1 along the row axis; padded with zeros.
    intensity : (n, k) ndarray of float32
        Kinematic |F|^2 over the strongest; zero below the threshold and in the padding.
    g1 : (n,) ndarray of float32
        Length of the shortest visible vector [1/Å].
    turns : (n, 6) ndarray of float32
        Rotations [rad] that bring another (nearly) shortest vector on to the row axis; repeated to fill.
    threshold : (n,) ndarray of float32
        Visibility threshold.
    label : (n,) ndarray of int64
        Class of the visible pattern.
    symmetry_label : (n,) ndarray of int64
        Class by symmetry.
    crystal : (n,) ndarray of int64
        Index of the crystal, to draw intervals over structures.
    """

    position: np.ndarray
    intensity: np.ndarray
    g1: np.ndarray
    turns: np.ndarray
    threshold: np.ndarray
    label: np.ndarray
    symmetry_label: np.ndarray
    crystal: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


def is_validation(formula: str) -> bool:
    """Tell whether a formula is held out for validation: a fixed hash, so that no run ever trains on it."""
    digest = hashlib.sha256(formula.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < VALIDATION_SHARE


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

    Returns
    -------
    list of (behaviour name, Crystal)
        Crystals.
    """
    pool: dict[str, list[CatalogueEntry]] = {}
    for entry in load_catalogue():
        if entry.n_atoms <= max_atoms and is_validation(entry.formula) == validation:
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
    return chosen


def build_library(
    crystals: Sequence[tuple[str, Crystal]],
    scheme: PatternScheme,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    progress: Callable[[int, int], None] | None = None,
) -> SpotLibrary:
    """Work out the spots of every crystal on every zone axis of a scheme.

    Parameters
    ----------
    crystals : sequence of (behaviour name, Crystal)
        Cubic crystals.
    scheme : PatternScheme
        Zone axes and classes.
    thresholds : tuple of float
        Visibility thresholds; a pattern that looks the same at two of them is kept for both, since the noise of the
        images follows the threshold.
    progress : callable, optional
        Called with (done, total) after each crystal; an exception that it raises stops the work.

    Returns
    -------
    SpotLibrary
        Patterns whose visible lattice has a class in the scheme.
    """
    rows: list[dict] = []
    for number, (name, crystal) in enumerate(crystals):
        for zone in scheme.zones:
            symmetry = scheme.index_of[name, zone]
            rows += _zone_rows(crystal, zone, scheme, thresholds, symmetry=symmetry, number=number)
        if progress is not None:
            progress(number + 1, len(crystals))
    width = max((len(row["intensity"]) for row in rows), default=0)
    position = np.zeros((len(rows), width, 2), dtype=np.float32)
    intensity = np.zeros((len(rows), width), dtype=np.float32)
    for i, row in enumerate(rows):
        position[i, : len(row["intensity"])] = row["position"]
        intensity[i, : len(row["intensity"])] = row["intensity"]

    def column(name: str, kind: type) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=kind)

    return SpotLibrary(
        position=position,
        intensity=intensity,
        g1=column("g1", np.float32),
        turns=column("turns", np.float32),
        threshold=column("threshold", np.float32),
        label=column("label", np.int64),
        symmetry_label=column("symmetry_label", np.int64),
        crystal=column("crystal", np.int64),
    )


def _zone_rows(
    crystal: Crystal,
    zone: tuple[int, int, int],
    scheme: PatternScheme,
    thresholds: tuple[float, ...],
    *,
    symmetry: int,
    number: int,
) -> list[dict]:
    """Return one row of the library for each threshold at which the pattern has a class."""
    plane = gauss_reduce(planar_basis(zone), np.eye(3, dtype=int))
    metric = plane @ plane.T
    form = gram(plane, np.eye(3, dtype=int))
    a = crystal.cell[0]
    # the visible lattice may be a few times coarser than that of all integers, never more than this for 16 axes
    nodes = disc_nodes(form, min(G_MAX * a / np.sqrt(form[0]), 4 * FIELD_RADIUS))
    nodes = nodes[np.any(nodes != 0, axis=1)]
    intensity = np.abs(structure_factors(crystal, nodes @ plane)) ** 2
    rows = []
    for threshold in thresholds:
        seen = visible_pattern(nodes, intensity > threshold * intensity.max(), metric, scheme)
        if seen is None or seen.class_index is None:
            continue
        xy = nodes @ np.linalg.cholesky(metric)
        first = seen.basis[0] @ np.linalg.cholesky(metric)
        length = float(np.hypot(*first))
        # complex division turns the shortest visible vector on to the row axis and scales it to 1
        turned = (xy[:, 0] + 1j * xy[:, 1]) / (first[0] + 1j * first[1])
        inside = np.abs(turned) <= FIELD_RADIUS
        strong = intensity[inside] / intensity[inside].max()
        keep = strong > threshold
        turned = turned[inside][keep]
        shortest = _shortest_turns(seen.basis, metric, length)
        rows.append(
            {
                "position": np.stack([turned.real, turned.imag], axis=1),
                "intensity": strong[keep],
                "g1": length / a,
                "turns": shortest,
                "threshold": threshold,
                "label": seen.class_index,
                "symmetry_label": symmetry,
                "crystal": number,
            }
        )
    return rows


def _shortest_turns(basis: np.ndarray, metric: np.ndarray, length: float) -> np.ndarray:
    """Return the angles of the (nearly) shortest vectors from the first, six of them by repetition [rad]."""
    small = np.array([(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1) if (m, n) != (0, 0)]) @ basis
    xy = small @ np.linalg.cholesky(metric)
    near = xy[np.hypot(*xy.T) <= TIE * length]
    first = basis[0] @ np.linalg.cholesky(metric)
    angle = np.arctan2(near[:, 1], near[:, 0]) - np.arctan2(first[1], first[0])
    return np.resize(angle, 6)
