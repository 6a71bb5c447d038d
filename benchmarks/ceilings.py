"""What any method can reach with spots and absences alone, as Markdown tables.

    python benchmarks/ceilings.py [--write PATH] [--groups N,N,...]

Exact enumeration, a few seconds. The reasoning and the conventions are those of `napari_sadp.ensemble.ceilings`.
"""

from __future__ import annotations

import argparse

from napari_sadp._atomic import atomic_write
from napari_sadp.ensemble.ceilings import KNOWN, SEEN, axis_ceilings, ceiling, mean_rule
from napari_sadp.labels.scheme import PatternScheme, build_scheme
from napari_sadp.labels.spacegroups import ARTICLE_GROUPS

PATTERNS = (1, 2, 3)
NAMES = {"nothing": "patterns alone", "camera constant": "shared camera constant", "zones": "zone axes known"}


def accuracy_table(scheme: PatternScheme) -> list[str]:
    """Return the lines of the table of accuracies."""
    names = [NAMES.get(known, known) for known in KNOWN]
    lines = [f"| spots seen | patterns | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for seen in SEEN:
        for n in PATTERNS:
            found = [ceiling(n, scheme=scheme, seen=seen, known=known).accuracy for known in KNOWN]
            lines.append(f"| {seen} | {n} | {' | '.join(f'{100 * x:.1f} %' for x in found)} |")
    return lines


def rule_table(scheme: PatternScheme) -> list[str]:
    """Return the lines of the table that compares the product rule with the mean rule."""
    lines = [
        "| patterns | product: accuracy | P(true group) | mean: accuracy | P(true group) |",
        "|---|---|---|---|---|",
    ]
    for n in PATTERNS:
        best, mean = ceiling(n, scheme=scheme), mean_rule(n, scheme=scheme)
        lines.append(
            f"| {n} | {100 * best.accuracy:.1f} % | {best.confidence:.2f} | {100 * mean.accuracy:.1f} % | {mean.confidence:.2f} |"
        )
    return lines


def report(scheme: PatternScheme) -> str:
    """Return the whole text."""
    axes = sorted(axis_ceilings(scheme).items(), key=lambda item: -item[1])
    lines = [
        f"Naming the space group, {len(scheme.groups)} groups of equal prior, {len(scheme.zones)} zone axes, "
        f"{len(scheme)} classes.",
        "",
        *accuracy_table(scheme),
        "",
        "Kinematic, patterns alone, by both rules:",
        "",
        *rule_table(scheme),
        "",
        "One kinematic pattern, by the axis on which it lies (which the method is not told):",
        "",
        "| zone axis | accuracy |",
        "|---|---|",
        *(f"| [{u}{v}{w}] | {value:.3f} |" for (u, v, w), value in axes),
    ]
    return "\n".join(lines)


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", metavar="PATH", help="write the text to a file too")
    parser.add_argument("--groups", metavar="LIST", help="cubic space groups, such as 221,225")
    options = parser.parse_args()
    groups = ARTICLE_GROUPS if options.groups is None else tuple(map(int, options.groups.split(",")))
    text = report(build_scheme(groups))
    if options.write:
        with atomic_write(options.write) as file:
            file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
