"""How the outlier score of the network and the lattice agree on *none of these*, on simulated camera frames.

    python benchmarks/none_pool.py [--patterns 60] [--weights FILE] [--seed 4242]

Frames of *training* structures at three strengths, and of lattices outside the scheme and of two crystals at once: the held-out formulas
stay unseen for the figures of merit. Loss: mean log loss of *none*, both sides counting the same; AUROC: area under the curve of
detection; refused frames are left out. The weight that the package uses is `napari_sadp.identify._pattern.OUTLIER_WEIGHT`, with the
prior that its lattices have, `napari_sadp.ensemble.constants.PRIOR_NONE`.
"""

from __future__ import annotations

import argparse

import numpy as np

from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.evaluate.foreign import foreign_frame
from napari_sadp.evaluate.frames import CONDITIONS, acquire
from napari_sadp.evaluate.metrics import detection_auroc
from napari_sadp.identify import identify_pattern
from napari_sadp.identify._pattern import combine_none
from napari_sadp.models.predict import load_classifier

WEIGHTS = (0.0, 0.3, 0.5, 0.7, 1.0)
PRIORS = (0.02, 0.05, 0.1, 0.2)
KINDS = ("non-cubic lattice", "two crystals")
#: A wrong answer is never worth more than this.
WRONG = 0.01


def collect(weights, count, seed):
    """Return (probability of none by the lattice, log odds by the network) of frames inside, and by kind of those outside."""
    classifier = load_classifier(weights, "cpu")
    scheme, rng = classifier.scheme, np.random.default_rng(seed)
    crystals = [c for _, c in choose_crystals(scheme, validation=False, per_behaviour=12, rng=rng)]

    def measured(frame):
        result = identify_pattern(frame, classifier)
        if not result.used:
            return None
        odds = classifier.predict(result.training_image[None]).outlier_log_odds[0]
        return result.lattice_classes.none_of_these, odds

    found = {"inside": [], **{kind: [] for kind in KINDS}}
    while len(found["inside"]) < count:
        crystal = crystals[rng.integers(len(crystals))]
        zone = scheme.zones[rng.integers(len(scheme.zones))]
        condition = CONDITIONS[rng.integers(len(CONDITIONS))]
        try:
            frame, _ = acquire(crystal, zone, condition, scheme, int(rng.integers(2**62)))
        except ValueError:  # nothing diffracts into the frame
            continue
        found["inside"].append(measured(frame))
    for kind in KINDS:
        for _ in range(count // 2):
            found[kind].append(measured(foreign_frame(kind, crystals, scheme, int(rng.integers(2**62)))))
    return {kind: np.array([row for row in rows if row is not None]) for kind, rows in found.items()}


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
    inside, outside = found.pop("inside"), np.concatenate(list(found.values()))
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
            none = [
                np.array([combine_none(*row, prior=prior, weight=weight) for row in rows])
                for rows in (inside, outside)
            ]
            kept = [WRONG + (1 - 2 * WRONG) * part for part in none]
            loss = -0.5 * (np.log(1 - kept[0]).mean() + np.log(kept[1]).mean())
            cells.append(f"{loss:.3f}, {detection_auroc(*none):.3f}")
        print(f"| {weight:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
