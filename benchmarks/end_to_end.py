"""Accuracy from the raw image to the class, on structures that the network has not seen.

    python benchmarks/end_to_end.py [--per-behaviour 6] [--seed 0] [--write docs/results/end_to_end.md]

Every pattern is simulated at 256 x 256 px from a catalogue structure of a held-out formula (random voltage, camera
length, rotation, beam position, thickness, spot size, dose, background), then goes through the whole chain: direct beam, spots,
lattice, alignment, network. Two truths: the class by *symmetry*, and the class of what is *visible* above 0.2 % of the
strongest diffracted beam. The interval is a bootstrap over structures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.identify import NONE_LABEL, Knowledge, combine_results, identify_pattern
from napari_sadp.labels.visible import visible_pattern
from napari_sadp.models.predict import load_classifier
from napari_sadp.simulation.imperfections import spot_spacing
from napari_sadp.simulation.kinematic import SpotPattern, simulate_kinematic
from napari_sadp.simulation.render import render_pattern

VISIBLE = 2e-3


def acquire(crystal, zone, rng):
    """Return a camera frame of a crystal and the beams in it."""
    kv = float(rng.choice([80, 120, 200, 300]))
    spots = simulate_kinematic(
        crystal,
        zone,
        voltage_kv=kv,
        thickness_nm=float(rng.uniform(2, 6)),
        g_max_inv_angstrom=2.2,
        laue_zones=0,
    )
    # camera lengths at which spots are 10 to 32 px apart, as an operator would choose them
    pixel = spot_spacing(spots.g_xy, spots.intensity) / float(rng.uniform(10, 32))
    beam = tuple(127.5 + rng.uniform(-12, 12, 2))
    clean = render_pattern(
        spots,
        pixel_size_inv_angstrom=min(pixel, 1.0),
        spot_sigma_px=float(rng.uniform(1.2, 2.6)),
        direct_beam=float(rng.uniform(1, 20)),
        rotation_deg=float(rng.uniform(0, 360)),
        beam_rc=beam,
    )
    distance = np.hypot(*(np.indices(clean.shape) - np.reshape(beam, (2, 1, 1))))
    dose = 10 ** rng.uniform(3.0, 4.5)
    expected = dose * clean.data + 10 + dose * rng.uniform(0, 0.03) * np.exp(-distance / rng.uniform(15, 50))
    return clean.with_note("simulated", data=rng.poisson(expected).astype(np.float32)), spots


def visible_class(spots: SpotPattern, scheme) -> int | None:
    """Return the class of the beams above the visibility threshold."""
    from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis

    plane = gauss_reduce(planar_basis(spots.zone), np.eye(3, dtype=int))
    nodes = np.rint(
        np.linalg.lstsq(plane.T.astype(float), spots.hkl.T.astype(float), rcond=None)[0].T
    ).astype(int)
    seen = visible_pattern(nodes, spots.intensity > VISIBLE, plane @ plane.T, scheme)
    return None if seen is None else seen.class_index


def main() -> None:
    """Simulate, identify, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--per-behaviour", type=int, default=6, help="structures per extinction behaviour")
    parser.add_argument("--zones", type=int, default=16, help="zone axes per structure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights")
    parser.add_argument("--write", help="Markdown file to write the table to")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    classifier = load_classifier(options.weights)
    scheme = classifier.scheme
    crystals = choose_crystals(scheme, validation=True, per_behaviour=options.per_behaviour, rng=rng)
    rows, stacks = [], {}
    for number, (name, crystal) in enumerate(crystals):
        order = rng.permutation(len(scheme.zones))[: options.zones]
        for zone in [scheme.zones[i] for i in order]:
            frame, spots = acquire(crystal, zone, rng)
            result = identify_pattern(frame, classifier)
            truth = scheme.index_of[name, zone]
            found = lattice = -1
            if result.used:
                found = (
                    int(np.argmax(result.class_probabilities)) if result.best_class[0] != NONE_LABEL else -2
                )
                lattice = int(np.argmax(result.lattice_classes.probabilities))
                stacks.setdefault((number, crystal.space_group), []).append(result)
            rows.append((number, found, lattice, truth, visible_class(spots, scheme), result.used))
    text = report(rows, stacks, scheme, len(crystals), rng)
    print(text)
    if options.write:
        with atomic_write(Path(options.write)) as stream:
            stream.write(text + "\n")


def share(hits, structures, rng):
    """Return mean and a 95 % bootstrap interval over structures, as text."""
    groups = [hits[structures == s] for s in np.unique(structures)]
    means = [
        np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]).mean()
        for _ in range(500)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{100 * hits.mean():.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def report(rows, stacks, scheme, n_crystals, rng):
    """Return the Markdown tables."""
    structure, found, lattice, truth, visible, used = (
        np.array([-3 if x is None else x for x in c]) for c in zip(*rows, strict=True)
    )
    used = used.astype(bool)
    lines = [
        f"{len(rows)} patterns of {n_crystals} held-out structures, 256 x 256 px; {100 * used.mean():.1f} % used, the rest refused. "
        f"Visible: above {100 * VISIBLE:g} % of the strongest diffracted beam.",
        "",
        "| truth | network with lattice, of those used | lattice alone, of those used | network with lattice, refusals count as wrong |",
        "|---|---|---|---|",
    ]
    for label, target in (("visible class", visible), ("class by symmetry", truth)):
        lines.append(
            f"| {label} | {share((found == target)[used], structure[used], rng)} | "
            f"{share((lattice == target)[used], structure[used], rng)} | {share(found == target, structure, rng)} |"
        )
    lines.append(f"| both truths agree in | {100 * np.mean(visible == truth):.1f} % | | |")
    return "\n".join([*lines, *group_table(stacks, rng)])


def group_table(stacks, rng):
    """Return the lines of the table of space groups: accuracy beside the probability that is stated."""
    lines = [
        "",
        "Space group from several patterns of one crystal: how often the first one is right, and the mean probability that it is",
        "given. Product: by the product rule, spots and gaps alone; intensities: the same, with how bright spots are in known structures",
        "(`--intensities`); mean: the rule of the article. Sure: those with 99 % or more by the product rule.",
        "",
        "| patterns | product: right | stated | intensities: right | stated | mean: right | stated | sure | of those right |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ways = {
        "product": {"rule": "product"},
        "intensities": {"rule": "product", "knowledge": Knowledge(intensities=True)},
        "mean": {"rule": "mean"},
    }
    for n in (1, 2, 3):
        right: dict[str, list[bool]] = {way: [] for way in ways}
        stated: dict[str, list[float]] = {way: [] for way in ways}
        for (_, group), results in stacks.items():
            for _ in range(20 if len(results) >= n else 0):
                chosen = [results[i] for i in rng.choice(len(results), n, replace=False)]
                for way, options in ways.items():
                    found = combine_results(chosen, **options).space_groups
                    right[way].append(found.groups[0] == group)
                    stated[way].append(float(found.probabilities[0]))
        sure = np.array(stated["product"]) >= 0.99
        of_those = f"{100 * np.mean(np.array(right['product'])[sure]):.1f} %" if sure.any() else "-"
        cells = [f"{100 * np.mean(right[way]):.1f} % | {100 * np.mean(stated[way]):.1f} %" for way in ways]
        lines.append(f"| {n} | {' | '.join(cells)} | {100 * sure.mean():.1f} % | {of_those} |")
    return lines


if __name__ == "__main__":
    main()
