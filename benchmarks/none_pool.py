"""How the outlier score of the network, the lattice and the spots left over agree on *none of these*, on simulated camera frames.

    python benchmarks/none_pool.py [--patterns 60] [--weights FILE] [--seed 4242]

Frames of *training* structures at three strengths, and of lattices outside the scheme and of two crystals at once: the held-out formulas
stay unseen for the figures of merit. Loss: mean log loss of *none*, both sides counting the same; AUROC: area under the curve of
detection; refused frames are left out. The weight that the package uses is `napari_sadp.identify._pattern.OUTLIER_WEIGHT`, with the
prior that its lattices have, `napari_sadp.ensemble.constants.PRIOR_NONE`. The last table is what `LEFTOVER_LOG_ODDS` and
`SECOND_LATTICE_LOG_ODDS` there are read off: how often spots are left over, and span a lattice of their own.
"""

from __future__ import annotations

import argparse

import numpy as np

from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.evaluate.foreign import foreign_frame
from napari_sadp.evaluate.frames import CONDITIONS, acquire
from napari_sadp.evaluate.metrics import detection_auroc
from napari_sadp.geometry.grains import Leftover, leftover_spots
from napari_sadp.identify import identify_pattern
from napari_sadp.identify._pattern import OWN_LATTICE, combine_none, leftover_log_odds
from napari_sadp.models.predict import load_classifier

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
PRIORS = (0.02, 0.05, 0.1, 0.2)
KINDS = ("non-cubic lattice", "two crystals")
#: A wrong answer is never worth more than this.
WRONG = 0.01


def collect(weights, count, seed):
    """Return rows for frames inside, and by kind for those outside.

    Columns: probability of none by the lattice, ln odds by the network, share of the amplitude that is left over and not of a second
    grain, decimal logarithm of the false alarms of its own lattice.
    """
    classifier = load_classifier(weights, "cpu")
    scheme, rng = classifier.scheme, np.random.default_rng(seed)
    crystals = [c for _, c in choose_crystals(scheme, validation=False, per_behaviour=12, rng=rng)]

    def measured(frame):
        result = identify_pattern(frame, classifier)
        if not result.used:
            return None
        odds = classifier.predict(result.training_image[None]).outlier_log_odds[0]
        leftover = leftover_spots(result.lattice)
        # the lattice of a second grain is none of another crystal
        log_nfa = leftover.log_nfa if leftover.turned_deg is None else 0.0
        return result.lattice_classes.none_of_these, odds, leftover.unexplained_share, log_nfa

    found = {"inside": [], **{kind: [] for kind in KINDS}}
    while len(found["inside"]) < count:
        crystal = crystals[rng.integers(len(crystals))]
        zone = scheme.zones[rng.integers(len(scheme.zones))]
        condition = CONDITIONS[rng.integers(len(CONDITIONS))]
        try:
            frame = acquire(crystal, zone, condition, scheme, int(rng.integers(2**62))).pattern
        except ValueError:  # nothing diffracts into the frame
            continue
        found["inside"].append(measured(frame))
    for kind in KINDS:
        for _ in range(count // 2):
            found[kind].append(measured(foreign_frame(kind, crystals, scheme, int(rng.integers(2**62)))))
    return {kind: np.array([row for row in rows if row is not None]) for kind, rows in found.items()}


def combined(row, prior, weight):
    """Return the probability of none by all three."""
    leftover = leftover_log_odds(Leftover(row[2], 0, None, row[3]))
    return combine_none(row[0], row[1], leftover, prior=prior, weight=weight)


def print_leftovers(inside, two):
    """Print how often how much is left over by one crystal, and by two."""
    print("| left over | one crystal | two crystals |")
    print("|---|---|---|")
    own = [rows[:, 3] < OWN_LATTICE[1] for rows in (inside, two)]
    print("| a lattice of its own | " + " | ".join(f"{np.count_nonzero(o)} of {len(o)}" for o in own) + " |")
    for low, high in ((0.0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 1.01)):
        cells = [
            f"{np.count_nonzero(~o & (rows[:, 2] >= low) & (rows[:, 2] < high))} of {len(o)}"
            for o, rows in zip(own, (inside, two), strict=True)
        ]
        print(
            f"| {100 * low:g} to {100 * min(high, 1):g} % of the amplitude, no lattice | {' | '.join(cells)} |"
        )


def main() -> None:
    """Simulate, combine, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--patterns", type=int, default=60, help="frames inside; half as many of each kind outside"
    )
    parser.add_argument("--weights", help="network with an outlier score (default: that of the package)")
    parser.add_argument("--seed", type=int, default=4242)
    options = parser.parse_args()
    found = collect(options.weights, options.patterns, options.seed)
    inside, two = found.pop("inside"), found["two crystals"]
    outside = np.concatenate(list(found.values()))
    print(f"{len(inside)} frames inside, " + ", ".join(f"{len(rows)} {kind}" for kind, rows in found.items()))
    print("log odds by the network, median and 90 %: inside "
          f"{np.quantile(inside[:, 1], (0.1, 0.5, 0.9)).round(2)}, outside {np.quantile(outside[:, 1], (0.1, 0.5, 0.9)).round(2)}")  # fmt: skip
    print(f"AUROC of the network alone {detection_auroc(inside[:, 1], outside[:, 1]):.3f}")
    print(f"AUROC of the lattice alone {detection_auroc(inside[:, 0], outside[:, 0]):.3f}")
    print("| weight | " + " | ".join(f"prior {prior:g}: loss, AUROC" for prior in PRIORS) + " |")
    print("|---|" + "---|" * len(PRIORS))
    for weight in WEIGHTS:
        cells = []
        for prior in PRIORS:
            none = [np.array([combined(row, prior, weight) for row in rows]) for rows in (inside, outside)]
            kept = [WRONG + (1 - 2 * WRONG) * part for part in none]
            loss = -0.5 * (np.log(1 - kept[0]).mean() + np.log(kept[1]).mean())
            cells.append(f"{loss:.3f}, {detection_auroc(*none):.3f}")
        print(f"| {weight:g} | " + " | ".join(cells) + " |")
    print_leftovers(inside, two)


if __name__ == "__main__":
    main()
