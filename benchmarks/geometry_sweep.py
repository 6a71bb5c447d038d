"""Success of the geometry layer on synthetic patterns, and its refusal of spots without a lattice.

Run with ``python benchmarks/geometry_sweep.py [--seeds 6] [--random 100]``. Every pattern is drawn from a seed; nothing is read.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.lattice import reduce_basis
from napari_sadp.pattern import DiffractionPattern

# ratio and angle [deg] of the nets of cubic zone axes
ZONES = {
    "001": (1.0, 90.0),
    "011 P": (np.sqrt(2), 90.0),
    "011 F": (1.1547, 70.53),
    "111": (1.0, 60.0),
    "112 P": (1.2247, 90.0),
    "112 F": (1.633, 90.0),
    "013 P": (3.1623, 90.0),
    "013 F": (1.6583, 72.45),
    "123 P": (1.2910, 75.04),
    "012 P": (2.2361, 90.0),
    "014 P": (4.1231, 90.0),
}


def draw(
    basis: np.ndarray,
    beam: np.ndarray,
    size: int,
    sigma: float,
    rng: np.random.Generator,
    *,
    peak: float = 800.0,
    fall: float = 0.35,
    keep: float = 1.0,
) -> np.ndarray:
    """Return a pattern of Gaussian spots with Poisson noise (size, size); Friedel mates are equal."""
    reach = int(1.5 * size / np.linalg.norm(basis, axis=1).min()) + 1
    m, n = (axis.ravel() for axis in np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)))
    nodes = np.column_stack([m, n])
    nodes = nodes[(nodes[:, 0] > 0) | ((nodes[:, 0] == 0) & (nodes[:, 1] > 0))]
    radius = np.linalg.norm(nodes @ basis, axis=1)
    nodes, radius = nodes[radius < size], radius[radius < size]
    height = peak * np.exp(-0.5 * (radius / (fall * size)) ** 2) * rng.uniform(0.1, 1.0, len(nodes))
    height[rng.uniform(size=len(nodes)) > keep] = 0
    # systematic absences never hide the lattice itself: the two basis reflections are seen
    low = np.abs(nodes).max(axis=1) <= 1
    height[low] = np.maximum(height[low], 0.2 * peak)
    rc = np.concatenate([beam[None], beam + nodes @ basis, beam - nodes @ basis])
    height = np.concatenate([[4 * peak], height, height])
    row, col = np.mgrid[:size, :size]
    image = 20 + 60 * np.exp(-0.5 * ((row - beam[0]) ** 2 + (col - beam[1]) ** 2) / (0.2 * size) ** 2)
    for (r, c), h in zip(rc, height, strict=True):
        if h > 0.3 and -4 * sigma < r < size + 4 * sigma and -4 * sigma < c < size + 4 * sigma:
            r0, r1, c0, c1 = (
                int(x)
                for x in (max(0, r - 5 * sigma), r + 5 * sigma + 1, max(0, c - 5 * sigma), c + 5 * sigma + 1)
            )
            image[r0:r1, c0:c1] += h * np.exp(
                -((row[r0:r1, c0:c1] - r) ** 2 + (col[r0:r1, c0:c1] - c) ** 2) / (2 * sigma**2)
            )
    return rng.poisson(image).astype(np.float32)


def random_spots(n: int, size: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return a pattern of n spots at random places."""
    row, col = np.mgrid[:size, :size]
    image = np.full((size, size), 20.0)
    for r, c in rng.uniform(5, size - 5, (n, 2)):
        image += 800 * rng.uniform(0.1, 1) * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * sigma**2))
    return rng.poisson(image).astype(np.float32)


def make_basis(ratio: float, angle_deg: float, length: float, turn: float) -> np.ndarray:
    """Return a basis (2, 2) [px] of given shape, turned by an angle [rad]."""
    angle = np.radians(angle_deg)
    flat = length * np.array([[1.0, 0.0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
    c, s = np.cos(turn), np.sin(turn)
    return flat @ np.array([[c, s], [-s, c]])


def same_lattice(found: np.ndarray, true: np.ndarray, tolerance: float) -> bool:
    """Tell whether two bases span the same lattice, up to a relative error."""
    change = found @ np.linalg.inv(true)
    whole = np.round(change)
    return abs(round(np.linalg.det(whole))) == 1 and np.abs(change - whole).max() <= tolerance


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    print("zone     lattice  0.3 %   beam   of  refusals")
    seconds, grand = [], Counter()
    for name, (ratio, angle) in ZONES.items():
        tally, why = Counter(), Counter()
        for seed in range(args.seeds):
            rng = np.random.default_rng([seed, hash_name(name)])
            for keep in (1.0, 0.7, 0.5):
                size = int(rng.choice([128, 256, 384]))
                length = rng.uniform(max(8, 0.05 * size), min(60, size / 2.8 / ratio**0.7))
                sigma = rng.uniform(1.0, min(4.0, length / 6.0)) if length > 6 else 1.0
                basis = make_basis(ratio, angle, length, rng.uniform(0, 2 * np.pi))
                beam = (size - 1) / 2 + rng.uniform(-0.12, 0.12, 2) * size
                data = draw(basis, beam, size, sigma, rng, keep=keep)
                tally["n"] += 1
                start = time.perf_counter()
                try:
                    result = analyse_pattern(DiffractionPattern(data))
                except PatternRefusedError as error:
                    why[error.reason] += 1
                    if args.verbose:
                        print(name, seed, keep, f"size {size} g {length:.1f} sigma {sigma:.1f}", error)
                    continue
                finally:
                    seconds.append(time.perf_counter() - start)
                found = np.stack([result.lattice.g1_px, result.lattice.g2_px])
                tally["lattice"] += same_lattice(found, basis, 0.05)
                tally["fine"] += same_lattice(found, basis, 0.003)
                tally["beam"] += np.linalg.norm(result.beam.rc - beam) < 0.5
                if args.verbose and not same_lattice(found, basis, 0.05):
                    print(
                        name,
                        seed,
                        keep,
                        f"size {size} g {length:.1f} sigma {sigma:.1f}: wrong",
                        np.hypot(*found.T),
                        np.hypot(*reduce_basis(basis).T),
                    )
        grand += tally
        print(
            f"{name:8s} {tally['lattice']:7d} {tally['fine']:6d} {tally['beam']:6d} {tally['n']:4d}  {dict(why)}"
        )
    print(
        "all     ", *(f"{100 * grand[k] / grand['n']:.1f} %" for k in ("lattice", "fine", "beam")), grand["n"]
    )
    print(f"time per pattern: median {np.median(seconds):.2f} s, largest {np.max(seconds):.2f} s")
    refused = Counter()
    for seed in range(args.random):
        rng = np.random.default_rng([seed, 99])
        data = random_spots(int(rng.integers(8, 81)), 256, rng.uniform(1, 3), rng)
        try:
            found = analyse_pattern(DiffractionPattern(data)).lattice
            refused["ACCEPTED"] += 1
            if args.verbose:
                print("accepted", seed, found.n_spots, len(found.spots), found.ratio, found.angle_deg)
        except PatternRefusedError as error:
            refused[error.reason] += 1
    print("random spots:", dict(refused), "of", args.random)


def hash_name(name: str) -> int:
    """Return a number for a name that does not change between runs."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31


if __name__ == "__main__":
    main()
