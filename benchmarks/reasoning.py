"""How well the exact engine and the combination of patterns reason: accuracy against the ceiling, calibration, outliers, speed.

    python benchmarks/reasoning.py [--draws 3000] [--processes 2] [--write docs/results/reasoning.md]

No network and no images: node maps are simulated with noise from catalogue structures, kinematic and by Bloch waves. Groups are drawn
with equal chances, then behaviours (227), structures, zone axes. Every pattern has its own dose (weakest visible spot 0.1 to 1 % of
the strongest), view (1.0 to 1.5 1/Angstrom), orientation, handedness and errors of the lattice; every third has a beam stop. Axes that
show fewer than five spots, or spots on a line only, are drawn again.

Two samples. *Held out*: structures of formulas that nothing was learned or tuned on; they are few (2 of 227a, 4 of 227g, 8 of 213), so
that figures vary with them. *Left out in turn*: structures of the formulas that the table of known structures is made of, each
judged by a table without its formula; the constants of the engine were chosen by the log loss of these.

Ceilings. *Symmetry*: every allowed spot seen, or every gap filled, equal structures. *Classes*: a reasoner that is told without
error the class that each pattern shows at its dose, and knows the same structures; what weak spots hide is lost to it too.

Coverage: the top set holds the most probable groups up to 95 %; the group that passes 95 % counts by the share that is still
needed, since a set of whole groups holds more than 95 % for any honest method.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pool

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.ensemble.ceilings import ceiling
from napari_sadp.ensemble.contrast import measured_contrast, weakest_visible
from napari_sadp.ensemble.joint import SURPRISE, Evidence, joint_posterior
from napari_sadp.ensemble.lattice_classes import classify_lattice
from napari_sadp.ensemble.observed import measure, zone_intensities
from napari_sadp.ensemble.views import view_table, visible_views
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
#: Structures of a behaviour that are left out in turn, at most.
MOST = 100
#: Structures that the speed is measured on.
N_SPEED = 12
LEVEL = 0.95


@dataclass(frozen=True)
class Seen:
    """One pattern: what the engine says about it, and the class that it shows."""

    said: Evidence
    shown: int


@dataclass(frozen=True)
class Structure:
    """Patterns of one crystal by condition and axis, None where no lattice is seen."""

    name: str
    formula: str
    patterns: list[list[Seen | None]]
    observed: list


@dataclass(frozen=True)
class Draw:
    """Patterns of one crystal."""

    group: int
    structure: int
    patterns: tuple[Seen, ...]
    redrawn: int


def as_evidence(measured, scheme) -> Evidence:
    """Return what the exact engine says about a measured node map."""
    lattice, nodes = measured.lattice, measured.nodes
    found = classify_lattice(lattice, scheme, nodes)
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    likelihood = np.append(found.likelihood, found.none_likelihood)
    length = float(np.log(np.linalg.norm(lattice.g1_px)))
    contrast = measured_contrast(nodes, basis)
    return Evidence(likelihood, length, LENGTH_ERROR, weakest_visible(nodes), contrast=contrast)


def one_pattern(observed, row, rng, scheme) -> Seen | None:
    """Return one pattern, None where no lattice is seen."""
    weakest = 10 ** rng.uniform(-3, -2)
    measured = measure(
        observed, row, rng, weakest=weakest, view=rng.uniform(1.0, 1.5), stop=rng.random() < 0.3
    )
    if measured is None:
        return None
    only = replace(observed, intensity=observed.intensity[row : row + 1])
    return Seen(as_evidence(measured, scheme), int(visible_views(only, scheme, (weakest,)).label[0, 0]))


def all_patterns(task, scheme) -> Structure:
    """Return the patterns of one crystal."""
    (name, crystal), seed = task
    rng = np.random.default_rng(seed)
    observed = [zone_intensities(crystal, zone, THICKNESS_NM) for zone in scheme.zones]
    seen = [[one_pattern(zone, row, rng, scheme) for zone in observed] for row in range(len(CONDITIONS))]
    return Structure(name, crystal.name, seen, observed if seed[2] < N_SPEED else [])


def sample(scheme, options, *, held_out: bool) -> list[Structure]:
    """Return the structures of a sample."""
    rng = np.random.default_rng(options.seed)
    most = 10**6 if held_out else MOST
    crystals = (
        choose_crystals(scheme, validation=held_out, per_behaviour=most, rng=rng)
        if held_out
        else _real(scheme, rng)
    )
    tasks = [(item, (options.seed, int(held_out), i)) for i, item in enumerate(crystals)]
    with Pool(options.processes) as pool:
        return pool.map(partial(all_patterns, scheme=scheme), tasks, chunksize=2)


def _real(scheme, rng):
    """Return training structures without decorated copies."""
    chosen = choose_crystals(scheme, validation=False, per_behaviour=MOST, rng=rng)
    return [(name, crystal) for name, crystal in chosen if not crystal.name.endswith("decorated")]


def draw_many(row, count, rng, structures, scheme) -> list[Draw]:
    """Return draws of three patterns of one crystal on different axes."""
    by_name = defaultdict(list)
    for i, item in enumerate(structures):
        by_name[item.name].append(i)
    draws: list[Draw] = []
    while len(draws) < count:
        group = int(rng.integers(len(scheme.groups)))
        kinds = behaviours(scheme.groups[group])
        members = by_name[kinds[rng.integers(len(kinds))].name]
        k = members[rng.integers(len(members))]
        order = [structures[k].patterns[row][z] for z in rng.permutation(len(scheme.zones))]
        place = [i for i, seen in enumerate(order) if seen is not None][:3]
        if len(place) == 3:
            draws.append(Draw(group, k, tuple(order[i] for i in place), place[-1] - 2))
    return draws


def said(draw, n, how, scheme) -> list[Evidence]:
    """Return the evidence of the first n patterns: everything, spots and gaps alone, or the classes as they are."""
    if how == "everything":
        return [seen.said for seen in draw.patterns[:n]]
    if how == "spots and gaps":
        return [replace(seen.said, contrast=None) for seen in draw.patterns[:n]]
    certain = np.eye(len(scheme) + 1)
    # a lattice of no class, or none, is the last one
    return [
        replace(seen.said, contrast=None, likelihood=certain[seen.shown if seen.shown >= 0 else -1])
        for seen in draw.patterns[:n]
    ]


def posteriors(draws, n, scheme, how="everything", **options) -> np.ndarray:
    """Return P(group) of every draw from its first n patterns, (n_draws, n_groups)."""
    options = {"surprise": CLEAN} | options
    return np.array([joint_posterior(said(d, n, how, scheme), scheme, **options).groups for d in draws])


def left_out_posteriors(draws, structures, scheme) -> dict[str, np.ndarray]:
    """Return P(group) from 1, 2 and 3 patterns, each by a table without the formula, by evidence (conditions, 3, n_draws, n_groups)."""
    table = view_table(scheme)
    shape = len(CONDITIONS), 3, len(draws[0]), len(scheme.groups)
    found = {how: np.zeros(shape) for how in ("everything", "spots and gaps")}
    of = defaultdict(list)
    for row, part in enumerate(draws):
        for i, draw in enumerate(part):
            of[structures[draw.structure].formula].append((row, i))
    # formula by formula, since a table takes longer to prepare than a stack to judge
    for formula, places in of.items():
        rest = table.without(formula)
        for row, i in places:
            for how, result in found.items():
                for n in (1, 2, 3):
                    told = {"table": rest, "thickness_nm": TOLD_NM[row]}
                    result[row, n - 1, i] = posteriors([draws[row][i]], n, scheme, how, **told)[0]
    return found


def judge(table, truth, structure, rng) -> dict[str, float]:
    """Return accuracy with its interval over structures, calibration error with its noise, and coverage."""
    rows = np.arange(len(truth))
    shaken = table + 1e-9 * rng.random(table.shape)  # ties by lot
    order = np.argsort(-shaken, axis=1)
    hit = (order[:, 0] == truth).astype(float)
    confidence = table.max(axis=1)
    error = _calibration(hit, confidence)
    sums = np.cumsum(np.take_along_axis(table, order, axis=1), axis=1)
    rank = (order == truth[:, None]).argmax(axis=1)
    before = np.where(rank > 0, sums[rows, np.maximum(rank - 1, 0)], 0.0)
    covered = np.clip((LEVEL - before) / np.maximum(table[rows, truth], 1e-12), 0, 1).mean()
    # what a perfectly calibrated method would get from as many draws
    chance = table.cumsum(axis=1)
    floor = np.mean(
        [
            _calibration(
                (order[:, 0] == (rng.random((len(rows), 1)) > chance[:, :-1]).sum(axis=1)), confidence
            )
            for _ in range(50)
        ]
    )
    ids = np.unique(structure)
    of = {k: np.flatnonzero(structure == k) for k in ids}
    samples = [hit[np.concatenate([of[k] for k in rng.choice(ids, len(ids))])].mean() for _ in range(200)]
    low, high = np.quantile(samples, [0.025, 0.975])
    return {
        "accuracy": hit.mean(), "low": low, "high": high, "stated": confidence.mean(), "ece": error, "floor": floor,
        "coverage": covered,
    }  # fmt: skip


def _calibration(hit, confidence) -> float:
    """Return the expected calibration error."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(sum(abs(hit[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)) / len(hit))


HEAD = (
    "| patterns seen | n | camera constant | evidence | right (95 % over structures) | stated | ECE (noise) | top set covers |",
    "|---|---|---|---|---|---|---|---|",
)


def line(name, n, shared, how, table, draws, rng) -> str:
    """Return a line of a table."""
    found = judge(table, np.array([d.group for d in draws]), np.array([d.structure for d in draws]), rng)
    return (
        f"| {name} | {n} | {'shared' if shared else 'free'} | {how} | {100 * found['accuracy']:.1f} % "
        f"({100 * found['low']:.1f} to {100 * found['high']:.1f}) | {100 * found['stated']:.1f} % | {found['ece']:.3f} "
        f"({found['floor']:.3f}) | {100 * found['coverage']:.1f} % |"
    )


def held_out_lines(draws, scheme, rng) -> list[str]:
    """Return the table of the structures that are held out."""
    lines = list(HEAD)
    for name, told, row in zip(CONDITIONS, TOLD_NM, range(3), strict=True):
        for n in (1, 2, 3):
            for shared in (0.0, SHARED) if n > 1 else (0.0,):
                some = draws[row] if not shared else draws[row][: len(draws[row]) // 3]
                for how in ("everything", "spots and gaps") if not shared else ("everything",):
                    table = posteriors(some, n, scheme, how, thickness_nm=told, shared_scale=shared)
                    lines.append(line(name, n, shared, how, table, some, rng))
    third = len(draws[0]) // 3
    mixed = [d for row in range(3) for d in draws[row][:third]]
    for n in (1, 2, 3):
        table = posteriors(mixed, n, scheme)
        lines.append(line("all three mixed, thickness not told", n, 0.0, "everything", table, mixed, rng))
    return lines


def ceiling_lines(draws, scheme) -> list[str]:
    """Return the table of what spots and gaps can reach: by symmetry, and by the classes that these structures show."""
    lines = [
        "| patterns seen | n | symmetry: every allowed spot / every gap filled | classes without error | spots and gaps | everything |",
        "|---|---|---|---|---|---|",
    ]
    for name, told, row in zip(CONDITIONS, TOLD_NM, range(3), strict=True):
        truth = np.array([d.group for d in draws[row]])
        for n in (1, 2, 3):
            best = [100 * ceiling(n, seen=seen).accuracy for seen in ("kinematic", "filled")]
            right = []
            for how in ("classes", "spots and gaps", "everything"):
                table = posteriors(draws[row], n, scheme, how, thickness_nm=told)
                first = table > table.max(axis=1, keepdims=True) - 1e-9  # ties count by their share
                right.append(
                    100 * (first / first.sum(axis=1, keepdims=True))[np.arange(len(truth)), truth].mean()
                )
            lines.append(
                f"| {name} | {n} | {best[0]:.1f} / {best[1]:.1f} % | "
                + " | ".join(f"{x:.1f} %" for x in right)
                + " |"
            )
    return lines


def left_out_lines(structures, options, scheme, rng) -> list[str]:
    """Return the table of the structures that are left out in turn."""
    lines = list(HEAD)
    draws = [draw_many(row, options.draws, rng, structures, scheme) for row in range(len(CONDITIONS))]
    found = left_out_posteriors(draws, structures, scheme)
    for row, name in enumerate(CONDITIONS):
        for how, tables in found.items():
            lines += [line(name, n, 0.0, how, tables[row, n - 1], draws[row], rng) for n in (1, 2, 3)]
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
        mix = [seen.said for seen in own.patterns]
        mix[place] = other.patterns[int(rng.integers(3))].said
        told = {"thickness_nm": TOLD_NM[0]}
        two = joint_posterior([e for j, e in enumerate(mix) if j != place], scheme, **told).groups
        found = joint_posterior(mix, scheme, **told)
        clean = joint_posterior([seen.said for seen in own.patterns], scheme, **told)
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
        observed = structures[rng.integers(N_SPEED)].observed[rng.integers(len(scheme.zones))]
        found = measure(observed, 0, rng, weakest=2e-3, view=1.3)
        maps += [found] if found is not None else []
    evidence = [as_evidence(item, scheme) for item in maps]
    start = time.process_time()
    for item in maps:
        as_evidence(item, scheme)
    one = 1e3 * (time.process_time() - start) / len(maps)
    joint_posterior(evidence[:3], scheme)
    joint_posterior(evidence[:3], scheme, shared_scale=SHARED)
    times = []
    for shared in (0.0, SHARED):
        start = time.process_time()
        for i in range(0, 198, 3):
            joint_posterior(evidence[i : i + 3], scheme, shared_scale=shared)
        times.append(1e3 * (time.process_time() - start) / 198)
    return [
        f"- classes and contrast of a pattern from shape and node map: {one:.1f} ms;",
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
    held = sample(scheme, options, held_out=True)
    draws = [draw_many(row, options.draws, rng, held, scheme) for row in range(len(CONDITIONS))]
    redrawn = ", ".join(f"{np.mean([d.redrawn for d in row]):.2f}" for row in draws)
    left = sample(scheme, options, held_out=False)
    lines = [
        f"{options.draws} stacks of three patterns for each condition, 5 groups, {len(scheme.zones)} axes. Node maps with noise, no network; "
        "thickness told unless said otherwise. *Everything*: spots, gaps, and how bright the kinds of spots are in known structures.",
        "",
        f"{len(held)} structures of **held-out** formulas (axes drawn again, of three: {redrawn}):",
        "",
        *held_out_lines(draws, scheme, rng),
        "",
        f"{len(left)} structures, each judged by a table **without its formula**:",
        "",
        *left_out_lines(left, options, scheme, rng),
        "",
        "How often the first group is right, held-out formulas, against what spots and gaps can reach: by symmetry, and by a reasoner that is "
        "told without error which class each pattern shows at its dose. More comes from intensities, that is from typical structures.",
        "",
        *ceiling_lines(draws, scheme),
        "",
        "Stated: mean probability of the first group. ECE: expected calibration error, 15 bins; the noise is what a perfectly calibrated "
        "method would get from as many draws, to which a sample of few structures adds its own. Rows with a shared camera constant use a third "
        f"of the stacks. The prior of a foreign pattern is {100 * CLEAN:g} % here, since no lattice is wrong; below, as for images, "
        f"{100 * SURPRISE:g} %.",
        "",
        "One wrong pattern among three:",
        "",
        *outlier_lines(draws[0], scheme, rng),
        "",
        "Processor time a pattern, once the lattice is known:",
        "",
        *speed_lines(held, scheme, rng),
    ]
    text = "\n".join(lines)
    if options.write:
        with atomic_write(options.write) as file:
            file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
