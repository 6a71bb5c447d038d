"""How far a lattice is to be trusted: the logistic fit that `LATTICE_TRUST` of `napari_sadp.identify._pattern` holds.

    python benchmarks/geometry.py --patterns 960 --blanks 0 --first-seed 60000 --jobs 2 --rows ROWS
    python benchmarks/lattice_trust.py ROWS [ROWS ...]

A lattice is right if it is the true one with the direct beam within 2 px. Of frames without enough visible spots nothing is asked. The seeds
are others than those of the table of results.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from napari_sadp.identify._pattern import LATTICE_TRUST, trust_features

#: Penalty of the squares of the weights, of features of unit spread.
RIDGE = 0.5
LIMITS = (0.0, 0.7, 0.85, 0.93, 0.97, 0.99, 1.0)


def read_rows(paths: list[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, 3), whether each lattice is right, and the strengths of the imperfections."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in map(json.loads, lines) if row.get("solvable") and "left_over" in row]
    features = [trust_features(r["log_nfa"], r["left_over"], r["sigma_px"], r["size"]) for r in rows]
    right = [bool(r["right"]) and r["beam_miss"] < 2 for r in rows]
    return np.array(features), np.array(right), np.array([r["strength"] for r in rows])


def fit(features: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the constant and the weights of the features."""
    middle, spread = features.mean(axis=0), features.std(axis=0)
    design = np.column_stack([np.ones(len(features)), (features - middle) / spread])
    sign = np.where(right, 1.0, -1.0)

    def loss(weight: np.ndarray) -> float:
        return np.logaddexp(0, -sign * (design @ weight)).sum() + RIDGE * (weight[1:] ** 2).sum()

    found = minimize(loss, np.zeros(design.shape[1])).x
    weights = found[1:] / spread
    return np.append(found[0] - weights @ middle, weights)


def main() -> None:
    """Fit, print the constants and how well they do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+", help="rows that benchmarks/geometry.py wrote")
    features, right, strength = read_rows(parser.parse_args().rows)
    print(f"{len(right)} lattices, {100 * right.mean():.1f} % of them right\n")
    for name, weights in (("fitted here", fit(features, right)), ("in the package", LATTICE_TRUST)):
        stated = expit(weights[0] + features @ np.array(weights[1:]))
        loss = -np.log(np.where(right, stated, 1 - stated)).mean()
        print(f"{name}: ({', '.join(f'{w:.2f}' for w in weights)}), log loss {loss:.3f}\n")
        print("| stated | lattices | right % | mean stated % |\n|---|---|---|---|")
        parts = [
            (f"{low:g} to {high:g}", (stated >= low) & (stated < high)) for low, high in pairwise(LIMITS)
        ]
        for title, part in parts + [(each, strength == each) for each in np.unique(strength)]:
            if part.any():
                print(
                    f"| {title} | {part.sum()} | {100 * right[part].mean():.1f} | {100 * stated[part].mean():.1f} |"
                )
        print()


if __name__ == "__main__":
    main()
