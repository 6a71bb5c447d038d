"""How network, nodes and missed spots pool: log loss of the class for exponents and weights, on simulated frames.

    python benchmarks/class_pool.py [--patterns 400] [--seed 4242]

Frames as `napari-sadp evaluate` makes them, of all its conditions in turn, of *decorated* copies (exchanged elements) of training
structures: the network has not seen them, and the held-out formulas stay unseen for the figures of merit. Truth: the visible class. The
constants that the package uses are `NETWORK_WEIGHT`, `NODE_WEIGHT` and `MISSED_WEIGHT` of `napari_sadp.identify._pattern`: of the exponents
small ones near the best, so that what both see in the same spots counts as little as possible twice.
"""

from __future__ import annotations

import argparse

import numpy as np

from napari_sadp.dataset.crystals import choose_crystals, decorate
from napari_sadp.evaluate.frames import CONDITIONS, acquire
from napari_sadp.identify import identify_pattern
from napari_sadp.identify._pattern import MISSED_WEIGHT, NETWORK_WEIGHT, NODE_WEIGHT
from napari_sadp.models.predict import load_classifier

EXPONENTS = (0.0, 0.2, 0.35, 0.5, 0.7, 1.0)
MISSED = (0.0, 0.01, 0.03, 0.1, 0.2, 0.3)
#: Share of a uniform distribution: a wrong lattice is nobody's fault here and must not decide.
WRONG = 0.02


def collect(count, seed):
    """Return true classes, and network, nodes, shape and missed lattices, each (n, n_classes)."""
    classifier = load_classifier(None, "cpu")
    scheme = classifier.scheme
    rng = np.random.default_rng(seed)
    chosen = choose_crystals(scheme, validation=False, per_behaviour=30, rng=rng)
    crystals = [decorate(crystal, rng) for _, crystal in chosen]
    truth, rows = [], []
    while len(truth) < count:
        condition = CONDITIONS[len(truth) % len(CONDITIONS)]
        crystal = crystals[rng.integers(len(crystals))]
        zone = scheme.zones[rng.integers(len(scheme.zones))]
        try:
            frame = acquire(crystal, zone, condition, scheme, int(rng.integers(2**62)))
        except ValueError:  # nothing diffracts into the frame
            continue
        if frame.visible is None:
            continue
        result = identify_pattern(frame.pattern, classifier)
        if not result.used or result.none_of_these > 0.9:
            continue
        found = result.lattice_classes
        truth.append(frame.visible)
        rows.append([result.network, found.node_likelihood, found.shape_likelihood, found.missed_likelihood])
    network, nodes, shape, missed = np.moveaxis(np.array(rows), 1, 0)
    return np.array(truth), np.maximum(network, 1e-12), np.maximum(nodes, 1e-12), shape, missed


def cell(collected, network_weight, node_weight, missed_weight):
    """Return the log loss, and the share of right classes."""
    truth, network, nodes, shape, missed = collected
    own = (1 - missed_weight) * nodes**node_weight * shape
    chance = network**network_weight * (own + missed_weight * missed) + 1e-300
    chance /= chance.sum(axis=1, keepdims=True)
    mixed = (1 - WRONG) * chance + WRONG / chance.shape[1]
    loss = -np.log(mixed[np.arange(len(truth)), truth]).mean()
    return f"{loss:.3f}, {100 * (chance.argmax(axis=1) == truth).mean():.1f} %"


def main() -> None:
    """Simulate, pool, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", type=int, default=400)
    parser.add_argument("--seed", type=int, default=4242)
    options = parser.parse_args()
    collected = collect(options.patterns, options.seed)
    print(f"{options.patterns} frames: log loss of the class, and how many are right.\n")
    print("| network \\ nodes | " + " | ".join(f"{b:g}" for b in EXPONENTS) + " |")
    print("|---|" + "---|" * len(EXPONENTS))
    for a in EXPONENTS:
        print(f"| {a:g} | " + " | ".join(cell(collected, a, b, MISSED_WEIGHT) for b in EXPONENTS) + " |")
    print("\n| weight of a lattice that misses spots | |\n|---|---|")
    for weight in MISSED:
        print(f"| {weight:g} | {cell(collected, NETWORK_WEIGHT, NODE_WEIGHT, weight)} |")


if __name__ == "__main__":
    main()
