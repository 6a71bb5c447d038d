"""How network and nodes pool: log loss of the class for exponents of the two, on simulated images.

    python benchmarks/class_pool.py [--patterns 200] [--seed 4242]

Images of *decorated* copies (exchanged elements) of training structures: the network has not seen them, and the held-out
formulas stay unseen for the figures of merit. Truth: the visible class above 0.2 % of the strongest beam. The exponents that the
package uses are `napari_sadp.identify._pattern.NETWORK_WEIGHT` and `NODE_WEIGHT`: small ones within 0.01 of the best, so that what
both see in the same spots counts as little as possible twice.
"""

from __future__ import annotations

import argparse

import numpy as np
from end_to_end import acquire, visible_class

from napari_sadp.dataset.crystals import choose_crystals, decorate
from napari_sadp.identify import identify_pattern
from napari_sadp.models.predict import load_classifier

EXPONENTS = (0.0, 0.2, 0.35, 0.5, 0.7, 1.0)
#: Share of a uniform distribution: a wrong lattice is nobody's fault here and must not decide.
WRONG = 0.02


def collect(count, seed):
    """Return true classes, and logarithms of network, nodes and shape, each (n, n_classes)."""
    classifier = load_classifier(None, "cpu")
    scheme = classifier.scheme
    rng = np.random.default_rng(seed)
    chosen = choose_crystals(scheme, validation=False, per_behaviour=12, rng=rng)
    crystals = [decorate(crystal, rng) for _, crystal in chosen]
    truth, rows = [], []
    while len(truth) < count:
        crystal = crystals[rng.integers(len(crystals))]
        zone = scheme.zones[rng.integers(len(scheme.zones))]
        try:
            pattern, spots = acquire(crystal, zone, rng)
        except ValueError:  # nothing diffracts into the frame
            continue
        label = visible_class(spots, scheme)
        result = identify_pattern(pattern, classifier)
        if label is None or not result.used or result.none_of_these > 0.9:
            continue
        found = result.lattice_classes
        truth.append(label)
        rows.append([result.network, found.node_likelihood, found.shape_likelihood])
    table = np.log(np.maximum(np.array(rows), 1e-300))
    return np.array(truth), table[:, 0], np.maximum(table[:, 1], np.log(1e-12)), table[:, 2]


def main() -> None:
    """Simulate, pool, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", type=int, default=200)
    parser.add_argument("--seed", type=int, default=4242)
    options = parser.parse_args()
    truth, network, nodes, shape = collect(options.patterns, options.seed)
    print("| network \\ nodes | " + " | ".join(f"{b:g}" for b in EXPONENTS) + " |")
    print("|---|" + "---|" * len(EXPONENTS))
    for a in EXPONENTS:
        cells = []
        for b in EXPONENTS:
            log = a * network + b * nodes + shape
            chance = np.exp(log - log.max(axis=1, keepdims=True))
            chance /= chance.sum(axis=1, keepdims=True)
            right = (chance.argmax(axis=1) == truth).mean()
            mixed = (1 - WRONG) * chance + WRONG / chance.shape[1]
            loss = -np.log(mixed[np.arange(len(truth)), truth]).mean()
            cells.append(f"{loss:.3f}, {100 * right:.1f} %")
        print(f"| {a:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
