"""Patterns that are of no class of a scheme, as rows of a spot library: what a network is to call *none of these*.

They are drawn with the same imperfections as the others, so that nothing but the spots gives them away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.dataset.library import FIELD_RADIUS, SpotLibrary, collect_rows

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme

#: What there is: lattices of no class, two crystals at once, a pattern scaled and turned by a wrong lattice, rings, and noise.
OUTLIER_KINDS: tuple[str, ...] = ("lattice", "two crystals", "wrong lattice", "rings", "noise")
#: Lattices nearer to the shape of a class than this are not told apart: ln ratio, and angle [deg].
SHAPE_MARGIN: tuple[float, float] = (0.04, 2.5)
_FAINTEST = 2e-3


def outlier_library(
    library: SpotLibrary, scheme: PatternScheme, n: int, rng: np.random.Generator
) -> SpotLibrary:
    """Draw patterns outside of a scheme.

    Parameters
    ----------
    library : SpotLibrary
        Patterns of the scheme, for what is made of these.
    scheme : PatternScheme
        The classes to keep away from.
    n : int
        How many.
    rng : numpy.random.Generator
        Random numbers.

    Returns
    -------
    SpotLibrary
        The kinds of `OUTLIER_KINDS` in turn; ``label`` is the number of the kind.

    Raises
    ------
    ValueError
        If `n` is below 1.
    """
    check_range("n", n, 1, 1e7)
    shapes = np.array([(np.log(item.ratio), item.angle_deg) for item in scheme.classes])
    rows = []
    for number in range(int(n)):
        kind = number % len(OUTLIER_KINDS)
        position, intensity = _SPOTS[OUTLIER_KINDS[kind]](library, shapes, rng)
        keep = (np.hypot(*position.T) <= FIELD_RADIUS) & (intensity > _FAINTEST * intensity.max(initial=0.0))
        position, intensity = position[keep], intensity[keep]
        strongest = intensity.max(initial=0.0)
        relative = intensity / strongest if strongest > 0 else intensity
        # noise stays below the stronger half, as it stays below what decides in a pattern of a class
        weaker = relative <= np.median(relative) if len(relative) else np.zeros(0, bool)
        rows.append(
            {
                "position": position,
                "intensity": relative,
                "evidence": weaker.astype(np.int32),
                "n_deciding": 1,
                "g1": rng.uniform(0.2, 0.6),
                "turns": np.zeros(6),
                "threshold": _FAINTEST,
                "label": kind,
                "symmetry_label": -1,
                "crystal": number,
                "zone": -1,
                "thickness_nm": 0.0,
                "coarse": False,
            }
        )
    return collect_rows(rows)


def foreign_shape(shapes: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the shape of a reduced lattice that no class has.

    Parameters
    ----------
    shapes : (n, 2) ndarray of float64
        ln ratio and angle [deg] of the classes.
    rng : numpy.random.Generator
        Random numbers.

    Returns
    -------
    ratio : float
        Longer over shorter vector, 1 to 3.
    angle_deg : float
        60 to 90 deg.
    """
    while True:
        ratio, angle = float(np.exp(rng.uniform(0, np.log(3.0)))), float(rng.uniform(60, 90))
        if ratio * np.cos(np.radians(angle)) > 0.5:  # not reduced
            continue
        if not (np.abs(shapes - [np.log(ratio), angle]) < SHAPE_MARGIN).all(axis=1).any():
            return ratio, angle


def _lattice(_: SpotLibrary, shapes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a lattice of a foreign shape with a few atoms in its cell."""
    ratio, angle = foreign_shape(shapes, rng)
    reach = int(np.ceil(FIELD_RADIUS / np.sin(np.radians(angle))))
    m, n = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    m, n = m[(m != 0) | (n != 0)], n[(m != 0) | (n != 0)]
    turn = np.radians(angle) * rng.choice([-1, 1])
    position = np.stack([m + n * ratio * np.cos(turn), n * ratio * np.sin(turn)], axis=1)
    atoms = rng.uniform(size=(rng.integers(1, 6), 2))
    phase = np.exp(2j * np.pi * (m[:, None] * atoms[:, 0] + n[:, None] * atoms[:, 1]))
    amplitude = np.abs(phase @ rng.uniform(0.3, 1.0, len(atoms)))
    falloff = np.exp(-rng.uniform(0.005, 0.06) * (position**2).sum(axis=1))
    return position, amplitude**2 * falloff


def _row(library: SpotLibrary, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    row = int(rng.choice(np.flatnonzero(~library.coarse)))
    there = library.intensity[row] > 0
    return library.position[row][there].astype(float), library.intensity[row][there].astype(float)


def _turned(position: np.ndarray, angle: float, scale: float) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return position @ np.array([[cosine, -sine], [sine, cosine]])


def _two_crystals(
    library: SpotLibrary, _: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the spots of two patterns, turned against each other."""
    (first, one), (second, two) = _row(library, rng), _row(library, rng)
    second = _turned(second, rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.5))
    return np.concatenate([first, second]), np.concatenate([one, rng.uniform(0.3, 1.0) * two])


def _wrong_lattice(
    library: SpotLibrary, _: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a pattern as it is when a lattice was found that is not its own."""
    position, intensity = _row(library, rng)
    scale = float(np.exp(rng.uniform(np.log(1.25), np.log(2.2))) ** rng.choice([-1, 1]))
    return _turned(position, rng.uniform(np.radians(8), np.pi - np.radians(8)), scale), intensity


def _rings(_: SpotLibrary, __: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rings of many small crystals."""
    radii = rng.uniform(0.7, 1.6) * np.sqrt(np.cumsum(rng.choice([1, 1, 2, 3], size=12)))
    radii = radii[radii < FIELD_RADIUS]
    count = int(rng.integers(80, 320))
    radius = rng.choice(radii, size=count, p=radii / radii.sum())
    azimuth = rng.uniform(0, 2 * np.pi, count)
    strength = rng.uniform(0.1, 1.0, len(radii))[np.searchsorted(radii, radius)]
    intensity = strength * rng.uniform(0.5, 1.0, count) * np.exp(-0.03 * radius**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth)], axis=1), intensity


def _noise(_: SpotLibrary, __: np.ndarray, ___: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return no spots: the noise of the image is all there is."""
    return np.empty((0, 2)), np.empty(0)


_SPOTS: dict[str, Any] = {
    "lattice": _lattice,
    "two crystals": _two_crystals,
    "wrong lattice": _wrong_lattice,
    "rings": _rings,
    "noise": _noise,
}
