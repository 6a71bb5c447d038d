"""How well the exact engine and the combination of patterns reason: accuracy against the ceiling, calibration, outliers, speed.

    python benchmarks/reasoning.py [--draws 3000] [--processes 2] [--write docs/results/reasoning.md]

No network and no images: node maps are simulated with noise from catalogue structures of *held-out* formulas, kinematic and by
Bloch waves; what known structures show was learned on the others. Groups are drawn with equal chances, then behaviours (227),
structures, zone axes. Every pattern has its own dose (weakest visible spot 0.1 to 1 % of the strongest), view (1.0 to 1.5
1/Angstrom), orientation, handedness and errors of the lattice; every third has a beam stop. Axes that show fewer than five
spots, or spots on a line only, are drawn again.

Coverage: the top set holds the most probable groups up to 95 %; the group that passes 95 % counts by the share that is still
needed, since a set of whole groups holds more than 95 % for any honest method.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.ensemble.ceilings import ceiling
from napari_sadp.ensemble.joint import SURPRISE, Evidence, joint_posterior
from napari_sadp.ensemble.lattice_classes import classify_lattice
from napari_sadp.ensemble.observed import measure, zone_intensities
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.labels.spacegroups import behaviours

THICKNESS_NM = (20.0, 60.0)
CONDITIONS = ("kinematic", "Bloch, 20 nm", "Bloch, 60 nm")
#: Thickness that the engine is told, for each condition [nm].
TOLD_NM = (3.0, 20.0, 60.0)
LENGTH_ERROR = 0.008
SHARED = 0.95
#: Prior probability of a foreign pattern where there is none: here no lattice is wrong, as some are in images.
CLEAN = 0.01
BINS = 15
#: Noisy measurements of each axis of each structure.
REPEATS = 2
#: Structures that the speed is measured on.
N_SPEED = 12
LEVEL = 0.95


@dataclass(frozen=True)
class Draw:
    """Patterns of one crystal."""

    group: int
    structure: int
    zones: tuple[int, ...]
    evidence: tuple[Evidence, ...]
    redrawn: int


def as_evidence(measured, scheme) -> Evidence:
    """Return what the exact engine says about a measured node map."""
    found = classify_lattice(measured.lattice, scheme, measured.nodes)
    nodes = measured.nodes
    weakest = 6 * np.quantile(nodes.sigma, 0.25) / np.max(nodes.intensity)
    length = float(np.log(np.linalg.norm(measured.lattice.g1_px)))
    return Evidence(np.append(found.likelihood, found.none_likelihood), length, LENGTH_ERROR, float(weakest))


def one_pattern(observed, row, rng, scheme):
    """Return the evidence of one pattern, None where no lattice is seen."""
    measured = measure(
        observed,
        row,
        rng,
        weakest=10 ** rng.uniform(-3, -2),
        view=rng.uniform(1.0, 1.5),
        stop=rng.random() < 0.3,
    )
    return None if measured is None else as_evidence(measured, scheme)


def all_patterns(task, scheme):
    """Return what the engine says about one crystal: evidence by condition, axis and repetition, None where no lattice is seen."""
    (name, crystal), seed = task
    rng = np.random.default_rng(seed)
    observed = [zone_intensities(crystal, zone, THICKNESS_NM) for zone in scheme.zones]
    said = [
        [[one_pattern(zone, row, rng, scheme) for _ in range(REPEATS)] for zone in observed]
        for row in range(len(CONDITIONS))
    ]
    return name, said, observed if seed[1] < N_SPEED else None


def draw_many(row, count, rng, structures, scheme) -> list[Draw]:
    """Return draws of three patterns of one crystal on different axes."""
    by_name = defaultdict(list)
    for i, (name, _, _) in enumerate(structures):
        by_name[name].append(i)
    draws: list[Draw] = []
    while len(draws) < count:
        group = int(rng.integers(len(scheme.groups)))
        kinds = behaviours(scheme.groups[group])
        members = by_name[kinds[rng.integers(len(kinds))].name]
        k = members[rng.integers(len(members))]
        evidence, axes, redrawn = [], [], 0
        for z in rng.permutation(len(scheme.zones)):
            said = structures[k][1][row][z][rng.integers(REPEATS)]
            if said is None:
                redrawn += 1
                continue
            evidence.append(said)
            axes.append(int(z))
            if len(evidence) == 3:
                draws.append(Draw(group, k, tuple(axes), tuple(evidence), redrawn))
                break
    return draws


def posteriors(draws, n, scheme, **options) -> np.ndarray:
    """Return P(group) of every draw from its first n patterns, (n_draws, n_groups)."""
    return np.array(
        [joint_posterior(d.evidence[:n], scheme, surprise=CLEAN, **options).groups for d in draws]
    )


def judge(table, truth, structure, rng) -> dict[str, float]:
    """Return accuracy with its interval over structures, calibration error and coverage."""
    rows = np.arange(len(truth))
    shaken = table + 1e-9 * rng.random(table.shape)  # ties by lot
    order = np.argsort(-shaken, axis=1)
    hit = (order[:, 0] == truth).astype(float)
    confidence = table.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = sum(abs(hit[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)) / len(truth)
    sums = np.cumsum(np.take_along_axis(table, order, axis=1), axis=1)
    rank = (order == truth[:, None]).argmax(axis=1)
    before = np.where(rank > 0, sums[rows, np.maximum(rank - 1, 0)], 0.0)
    covered = np.clip((LEVEL - before) / np.maximum(table[rows, truth], 1e-12), 0, 1).mean()
    ids = np.unique(structure)
    of = {k: np.flatnonzero(structure == k) for k in ids}
    samples = [hit[np.concatenate([of[k] for k in rng.choice(ids, len(ids))])].mean() for _ in range(200)]
    low, high = np.quantile(samples, [0.025, 0.975])
    return {
        "accuracy": hit.mean(), "low": low, "high": high, "stated": confidence.mean(), "ece": error, "coverage": covered,
    }  # fmt: skip


def result_lines(draws, scheme, rng) -> list[str]:
    """Return the tables of accuracy and calibration."""
    lines = [
        "| patterns seen | n | camera constant | right (95 % over structures) | ceiling, kinematic / filled | stated | ECE | top set covers |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def add(name, n, shared, tables, parts):
        truth = np.array([d.group for d in parts])
        said = judge(tables, truth, np.array([d.structure for d in parts]), rng)
        known = "camera constant" if shared else "nothing"
        best = [ceiling(n, seen=seen, known=known).accuracy for seen in ("kinematic", "filled")]
        lines.append(
            f"| {name} | {n} | {'shared' if shared else 'free'} | {100 * said['accuracy']:.1f} % "
            f"({100 * said['low']:.1f} to {100 * said['high']:.1f}) | {100 * best[0]:.1f} / {100 * best[1]:.1f} % | "
            f"{100 * said['stated']:.1f} % | {said['ece']:.3f} | {100 * said['coverage']:.1f} % |"
        )

    for name, told, row in zip(CONDITIONS, TOLD_NM, range(3), strict=True):
        for n in (1, 2, 3):
            for shared in (0.0, SHARED) if n > 1 else (0.0,):
                some = draws[row] if not shared else draws[row][: len(draws[row]) // 6]
                table = posteriors(some, n, scheme, thickness_nm=told, shared_scale=shared)
                add(f"{name}, thickness told", n, shared, table, some)
    third = len(draws[0]) // 3
    mixed = [d for row in range(3) for d in draws[row][:third]]
    for n in (1, 2, 3):
        add("all three mixed, thickness not told", n, 0.0, posteriors(mixed, n, scheme), mixed)
    return lines


def outlier_lines(draws, scheme, rng) -> list[str]:
    """Return what one wrong pattern among three does."""
    count = min(len(draws), 800)
    decided = right = right_two = flagged = false_alarm = 0
    for i in range(count):
        own = draws[i]
        other = draws[int(rng.integers(len(draws)))]
        while other.group == own.group:
            other = draws[int(rng.integers(len(draws)))]
        place = int(rng.integers(3))
        mix = list(own.evidence)
        mix[place] = other.evidence[int(rng.integers(3))]
        told = {"thickness_nm": TOLD_NM[0]}
        two = joint_posterior([e for j, e in enumerate(mix) if j != place], scheme, **told).groups
        found = joint_posterior(mix, scheme, **told)
        clean = joint_posterior(own.evidence, scheme, **told)
        right += found.groups.argmax() == own.group
        right_two += two.argmax() == own.group
        # it decides where two patterns name the group with confidence, and the third overturns them
        decided += two.max() > 0.8 and two.argmax() == own.group and found.groups.argmax() == other.group
        flagged += found.outlier.argmax() == place and found.outlier.max() > 0.5
        false_alarm += clean.outlier.max() > 0.5
    return [
        f"- {count} stacks of three kinematic patterns, one of them from a crystal of another group: right {100 * right / count:.1f} %; "
        f"the two good patterns alone: {100 * right_two / count:.1f} %.",
        f"- Overturned: the two good patterns were right with more than 80 %, and the wrong one made its own group the answer: "
        f"{100 * decided / count:.1f} %.",
        f"- Pointed out as not fitting: {100 * flagged / count:.1f} % (most wrong patterns fit the crystal on some axis); false alarms in clean "
        f"stacks: {100 * false_alarm / count:.1f} %.",
    ]


def speed_lines(structures, scheme, rng) -> list[str]:
    """Return the time of a pattern once its lattice is known, by processor time of one core."""
    maps = []
    while len(maps) < 200:
        observed = structures[rng.integers(N_SPEED)][2][rng.integers(len(scheme.zones))]
        found = measure(observed, 0, rng, weakest=2e-3, view=1.3)
        maps += [found] if found is not None else []
    said = [as_evidence(item, scheme) for item in maps]
    start = time.process_time()
    for item in maps:
        classify_lattice(item.lattice, scheme, item.nodes)
    one = 1e3 * (time.process_time() - start) / len(maps)
    joint_posterior(said[:3], scheme)
    joint_posterior(said[:3], scheme, shared_scale=SHARED)
    times = []
    for shared in (0.0, SHARED):
        start = time.process_time()
        for i in range(0, 198, 3):
            joint_posterior(said[i : i + 3], scheme, shared_scale=shared)
        times.append(1e3 * (time.process_time() - start) / 198)
    return [
        f"- classes of a pattern from shape and node map: {one:.1f} ms;",
        f"- its share of the joint posterior of three: {times[0]:.1f} ms, with a shared camera constant {times[1]:.1f} ms.",
    ]


def main() -> None:
    """Simulate, reason, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=3000, help="stacks of three patterns for each condition")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", metavar="PATH", help="Markdown file to write")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scheme = build_scheme()
    crystals = choose_crystals(scheme, validation=True, per_behaviour=10**6, rng=rng)
    tasks = [(item, (options.seed, i)) for i, item in enumerate(crystals)]
    with Pool(options.processes) as pool:
        structures = pool.map(partial(all_patterns, scheme=scheme), tasks, chunksize=2)
    draws = [draw_many(row, options.draws, rng, structures, scheme) for row in range(len(CONDITIONS))]
    redrawn = [np.mean([d.redrawn for d in row]) for row in draws]
    lines = [
        f"{options.draws} stacks of three patterns for each condition, from {len(structures)} structures of held-out formulas, 5 groups, "
        f"{len(scheme.zones)} axes. Node maps with noise, no network. Axes drawn again, of three: "
        + ", ".join(f"{x:.2f}" for x in redrawn)
        + ".",
        "",
        *result_lines(draws, scheme, rng),
        "",
        "The ceilings are those of spots and gaps alone: every allowed spot seen (kinematic), and every gap filled. Stated: mean "
        "probability of the first group. ECE: expected calibration error, 15 bins. Rows with a shared camera constant use a sixth of "
        f"the stacks. The prior of a foreign pattern is {100 * CLEAN:g} % here, since no lattice is wrong; below, as for images, "
        f"{100 * SURPRISE:g} %. The calibration error holds the noise of the sample too.",
        "",
        "One wrong pattern among three:",
        "",
        *outlier_lines(draws[0], scheme, rng),
        "",
        "Processor time a pattern, once the lattice is known:",
        "",
        *speed_lines(structures, scheme, rng),
    ]
    text = "\n".join(lines)
    if options.write:
        with atomic_write(options.write) as file:
            file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
