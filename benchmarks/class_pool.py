"""How network, nodes and missed spots pool: log loss of the class for exponents and weights, on simulated frames.

    python benchmarks/class_pool.py [--patterns 800] [--seed 4242] [--keep FILE] [--rendered WEIGHTS]

With ``--rendered`` a network for nodes that are drawn anew (recipe ``rendered``) is asked as well.

Frames as `napari-sadp evaluate` makes them, of all its conditions in turn, of *decorated* copies (exchanged elements) of training
structures: the network has not seen them, and the held-out formulas stay unseen for the figures of merit. Truth: the visible class. The
constants that the package uses are `NETWORK_WEIGHT`, `NODE_WEIGHT` and `MISSED_WEIGHT` of `napari_sadp.identify._pattern`: of the exponents
small ones near the best, so that what both see in the same spots counts as little as possible twice.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from napari_sadp.dataset.crystals import choose_crystals, decorate
from napari_sadp.errors import PatternRefusedError
from napari_sadp.evaluate.frames import CONDITIONS, acquire
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.identify import classify_geometry
from napari_sadp.identify._pattern import MISSED_WEIGHT, NETWORK_WEIGHT, NODE_WEIGHT
from napari_sadp.models.predict import load_classifier

EXPONENTS = (0.0, 0.2, 0.35, 0.5, 0.7, 1.0)
#: Weights of a lattice that misses spots: the same for all, and over the distrust of the lattice.
FIXED, SHARES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3), (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
#: Share of a uniform distribution: a lattice that is wrong in another way must not decide.
WRONG = 0.02


@dataclass
class Frames:
    """What the parts of the chain say of frames: number of the condition and of the true class (n,), and the evidence.

    Network, rendered (uniform without such a network), nodes, shape and missed lattices are (n, n_classes), trust (n,).
    """

    condition: np.ndarray
    truth: np.ndarray
    network: np.ndarray
    rendered: np.ndarray
    nodes: np.ndarray
    shape: np.ndarray
    missed: np.ndarray
    trust: np.ndarray

    def of(self, condition: int) -> Frames:
        """Return the frames of one condition."""
        return Frames(**{name: value[self.condition == condition] for name, value in vars(self).items()})


def collect(count: int, seed: int, rendered: Path | None) -> Frames:
    """Simulate frames and ask the chain."""
    classifier = load_classifier(None, "cpu")
    second = None if rendered is None else load_classifier(rendered, "cpu")
    scheme = classifier.scheme
    rng = np.random.default_rng(seed)
    chosen = choose_crystals(scheme, validation=False, per_behaviour=30, rng=rng)
    crystals = [decorate(crystal, rng) for _, crystal in chosen]
    rows: list[tuple] = []
    while len(rows) < count:
        number = len(rows) % len(CONDITIONS)
        crystal = crystals[rng.integers(len(crystals))]
        zone = scheme.zones[rng.integers(len(scheme.zones))]
        try:
            frame = acquire(crystal, zone, CONDITIONS[number], scheme, int(rng.integers(2**62)))
        except ValueError:  # nothing diffracts into the frame
            continue
        if frame.visible is None:
            continue
        try:
            geometry = analyse_pattern(frame.pattern)
        except PatternRefusedError:
            continue
        result = classify_geometry(geometry, classifier)
        if not result.used or result.none_of_these > 0.9:
            continue
        drawn = np.full(len(scheme), 1 / len(scheme))
        if second is not None:
            drawn = second.probabilities(second.training_image(geometry)[None])[0]
        found = result.lattice_classes
        evidence = (found.node_likelihood, found.shape_likelihood, found.missed_likelihood)
        rows.append((number, frame.visible, result.network, drawn, *evidence, result.lattice_trust))
        if len(rows) % 50 == 0:
            print(f"{len(rows)} of {count}", file=sys.stderr, flush=True)
    return Frames(*map(np.array, zip(*rows, strict=True)))


def cell(
    frames: Frames,
    network_weight: float,
    node_weight: float,
    missed: np.ndarray | float = MISSED_WEIGHT,
    rendered_weight: float = 0.0,
) -> str:
    """Return the log loss, and the share of right classes."""
    missed = np.broadcast_to(missed, len(frames.truth))[:, None]
    # what nodes look like says nothing where the lattice is not the right one
    drawn = frames.rendered * (frames.shape > 1e-9)
    drawn = np.maximum(drawn / np.maximum(drawn.max(axis=1, keepdims=True), 1e-12), 1e-12)
    own = np.maximum(frames.nodes, 1e-12) ** node_weight * drawn**rendered_weight * frames.shape
    own = (1 - missed) * own
    chance = np.maximum(frames.network, 1e-12) ** network_weight * (own + missed * frames.missed) + 1e-300
    chance /= chance.sum(axis=1, keepdims=True)
    mixed = (1 - WRONG) * chance + WRONG / chance.shape[1]
    loss = -np.log(mixed[np.arange(len(chance)), frames.truth]).mean()
    return f"{loss:.3f}, {100 * (chance.argmax(axis=1) == frames.truth).mean():.1f} %"


def main() -> None:
    """Simulate, pool, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patterns", type=int, default=800)
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--rendered", type=Path, help="weights of a network for nodes drawn anew")
    parser.add_argument("--keep", type=Path, help="npz file of what was simulated; read where it is there")
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists():
        frames = Frames(**np.load(options.keep))
    else:
        frames = collect(options.patterns, options.seed, options.rendered)
        if options.keep is not None:
            np.savez(options.keep, **vars(frames))
    print(f"{len(frames.truth)} frames: log loss of the class, and how many are right.\n")
    print("| network \\ nodes | " + " | ".join(f"{b:g}" for b in EXPONENTS) + " |")
    print("|---|" + "---|" * len(EXPONENTS))
    for a in EXPONENTS:
        print(f"| {a:g} | " + " | ".join(cell(frames, a, b) for b in EXPONENTS) + " |")
    if options.rendered is not None:
        print("\nNetwork and nodes, in the rows, with the network for nodes drawn anew.\n")
        print("| network, nodes \\ rendered | " + " | ".join(f"{c:g}" for c in EXPONENTS) + " |")
        print("|---|" + "---|" * len(EXPONENTS))
        for a, b in product(EXPONENTS, EXPONENTS):
            cells = (cell(frames, a, b, rendered_weight=c) for c in EXPONENTS)
            print(f"| {a:g}, {b:g} | " + " | ".join(cells) + " |")
    parts = [("all", frames)] + [(c.name, frames.of(i)) for i, c in enumerate(CONDITIONS)]
    print("\n| weight of a lattice that misses spots | " + " | ".join(name for name, _ in parts) + " |")
    print("|---|" + "---|" * len(parts))
    for title, values, of in (
        ("", FIXED, lambda part: 1.0),
        (" of the distrust", SHARES, lambda part: 1 - part.trust),
    ):
        for value in values:
            cells = (cell(part, NETWORK_WEIGHT, NODE_WEIGHT, value * of(part)) for _, part in parts)
            print(f"| {value:g}{title} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
