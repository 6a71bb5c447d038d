"""Frames of what no class of a scheme describes: the chain is to say *none of these*, or refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.dataset.outliers import SHAPE_MARGIN
from napari_sadp.evaluate.frames import Condition, acquire
from napari_sadp.geometry.convention import IMAGE_SIZE
from napari_sadp.pattern import DiffractionPattern
from napari_sadp.simulation.crystal import Crystal
from napari_sadp.simulation.imperfections.frames import simulate_imperfect
from napari_sadp.simulation.imperfections.ranges import PRESETS, choose_imperfections
from napari_sadp.simulation.imperfections.visibility import spot_spacing
from napari_sadp.simulation.kinematic import simulate_kinematic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.labels.scheme import PatternScheme

#: What is tried.
FOREIGN_KINDS: tuple[str, ...] = ("non-cubic lattice", "rings", "two crystals", "noise")
_ELEMENTS = ("Ti", "Al", "O", "Zr", "Mg", "Zn", "Sn", "Si")
#: Standard deviation of the spots of two crystals over the shortest spacing of both, and at least [px].
_SIGMA, _SHARPEST = (0.05, 0.1), 0.6
_CLEAN = choose_imperfections(
    PRESETS["mild"],
    dose=0.0,
    offset=0.0,
    readout=0.0,
    thickness_nm=6.0,
    spot_sigma=None,
    ellipticity=0.0,
    radial=0.0,
)


def foreign_frame(
    kind: str, crystals: Sequence[Crystal], scheme: PatternScheme, seed: int
) -> DiffractionPattern:
    """Simulate a frame of something foreign.

    Parameters
    ----------
    kind : str
        One of `FOREIGN_KINDS`.
    crystals : sequence of Crystal
        Crystals of the scheme, for two at once.
    scheme : PatternScheme
        The classes.
    seed : int
        Seed.

    Returns
    -------
    DiffractionPattern
        Counts, 256 x 256 px.
    """
    rng = np.random.default_rng([seed, 0xF0E])
    if kind == "non-cubic lattice":
        return _non_cubic(scheme, rng)
    if kind == "two crystals":
        return _noisy(_two(crystals, scheme, rng), rng)
    return _noisy(_rings(rng) if kind == "rings" else np.zeros((IMAGE_SIZE, IMAGE_SIZE)), rng, beam=True)


def random_crystal(rng: np.random.Generator) -> Crystal:
    """Return a crystal of another system than the cubic one, with atoms anywhere in its cell: every reflection is there."""
    a, b, c = rng.uniform(3.5, 7.0) * np.array([1.0, rng.uniform(1.08, 1.5), rng.uniform(1.1, 1.9)])
    cells = {
        "tetragonal": (a, a, c, 90, 90, 90),
        "orthorhombic": (a, b, c, 90, 90, 90),
        "hexagonal": (a, a, c, 90, 90, 120),
        "monoclinic": (a, b, c, 90, rng.uniform(95, 115), 90),
        "triclinic": (a, b, c, rng.uniform(80, 100), rng.uniform(93, 110), rng.uniform(80, 100)),
    }
    system = str(rng.choice(list(cells)))
    n = int(rng.integers(1, 5))
    elements = tuple(str(item) for item in rng.choice(_ELEMENTS, n))
    cell = tuple(map(float, cells[system]))
    return Crystal(system, cell, elements, rng.uniform(size=(n, 3)), np.ones(n), np.full(n, 0.5), 1)


def lattice_shape(g_xy: np.ndarray) -> tuple[float, float]:
    """Return ratio and angle [deg], 60 to 90, of the reduced basis of a lattice that fills a disc of nodes (n, 2)."""
    ordered = g_xy[np.argsort(np.hypot(*g_xy.T))]
    first = ordered[0]
    cross = np.abs(ordered[:, 0] * first[1] - ordered[:, 1] * first[0])
    second = ordered[int(np.argmax(cross > 1e-6 * (first @ first)))]
    lengths = np.hypot(*first), np.hypot(*second)
    return float(lengths[1] / lengths[0]), float(
        np.degrees(np.arccos(np.clip(abs(first @ second) / (lengths[0] * lengths[1]), 0, 1)))
    )


def _non_cubic(scheme: PatternScheme, rng: np.random.Generator) -> DiffractionPattern:
    """Return a frame of a lattice whose shape is that of no class."""
    shapes = np.array([(np.log(item.ratio), item.angle_deg) for item in scheme.classes])
    while True:
        crystal = random_crystal(rng)
        zone = tuple(int(i) for i in rng.permutation(scheme.zones[rng.integers(len(scheme.zones))]))
        try:
            spots = simulate_kinematic(
                crystal, zone, g_max_inv_angstrom=1.5, relrod="none", laue_zones=0, min_intensity=1e-12
            )
        except ValueError:  # nothing diffracts
            continue
        ratio, angle = lattice_shape(spots.g_xy)
        far = ~(np.abs(shapes - [np.log(ratio), angle]) < SHAPE_MARGIN).all(axis=1).any()
        # an operator would not take a net that is a single row for a zone axis
        if far and ratio < 4:
            condition = Condition("", PRESETS["mild"])
            return acquire(crystal, zone, condition, scheme, int(rng.integers(2**62))).pattern


def _two(crystals: Sequence[Crystal], scheme: PatternScheme, rng: np.random.Generator) -> np.ndarray:
    """Return the sum of two crystals, turned against each other, the second weaker; without noise.

    Both are seen through the same lenses: the size of a spot is that of the convergence, and one distortion would be that of both.
    """
    pixel = float(rng.uniform(0.012, 0.025))
    chosen, nearest = [], []
    while len(chosen) < 2:
        crystal = crystals[rng.integers(len(crystals))]
        zone = scheme.zones[rng.integers(len(scheme.zones))]
        try:
            spots = simulate_kinematic(
                crystal, zone, g_max_inv_angstrom=0.45 * IMAGE_SIZE * pixel, laue_zones=0
            )
        except ValueError:  # nothing within the frame
            continue
        chosen.append((crystal, zone))
        nearest.append(spot_spacing(spots.g_xy, spots.intensity) / pixel)
    sigma = float(rng.uniform(*_SIGMA)) * min(nearest)
    total = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
    for (crystal, zone), weight in zip(chosen, (1.0, float(rng.uniform(0.4, 1.0))), strict=True):
        made = simulate_imperfect(
            crystal,
            zone,
            imperfections=_CLEAN,
            seed=int(rng.integers(2**62)),
            pixel_size_inv_angstrom=pixel,
            spot_sigma_px=max(sigma, _SHARPEST),
        )
        total += weight * made.pattern.data
    return total


def _rings(rng: np.random.Generator) -> np.ndarray:
    """Return powder rings, more or less grainy."""
    row, col = np.indices((IMAGE_SIZE, IMAGE_SIZE)) - (IMAGE_SIZE - 1) / 2
    radius, azimuth = np.hypot(row, col), np.arctan2(row, col)
    first = rng.uniform(18, 40)
    image = np.zeros_like(radius)
    for index in (3, 4, 8, 11, 12, 16, 19, 20, 24):
        centre = first * np.sqrt(index / 3)
        grains = rng.uniform(0, 0.6) * np.sum(
            [np.cos(k * azimuth + rng.uniform(0, 2 * np.pi)) for k in rng.integers(3, 60, 6)], axis=0
        )
        ring = np.exp(-0.5 * ((radius - centre) / rng.uniform(1.2, 2.5)) ** 2)
        image += rng.uniform(0.2, 1.0) * np.exp(-index / 20) * ring * np.clip(1 + grains, 0, None)
    return image


def _noisy(image: np.ndarray, rng: np.random.Generator, beam: bool = False) -> DiffractionPattern:
    """Add a direct beam where there is none yet, a halo, and the noise of the counts."""
    radius = np.hypot(*(np.indices(image.shape) - (IMAGE_SIZE - 1) / 2))
    if beam:
        image = image + rng.uniform(1, 10) * np.exp(-0.5 * (radius / rng.uniform(1.5, 3)) ** 2)
        image = image + rng.uniform(0.02, 0.3) * np.exp(-radius / rng.uniform(15, 60))
    dose = 10 ** rng.uniform(2.5, 4.0)
    counts = rng.poisson(dose * np.clip(image, 0, None) + rng.uniform(1, 10))
    return DiffractionPattern(counts.astype(np.float32), source="foreign, simulated", kind="diffraction")
