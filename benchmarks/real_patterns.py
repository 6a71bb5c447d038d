"""What the geometry layer makes of acquired patterns, against what is known about them: a table, and pictures.

Run with ``python benchmarks/real_patterns.py FOLDER [--table docs/results/real_patterns.md] [--pictures FILE.png]``, where the
folder holds the files of `EXPECTED` with an ``INDEX.csv``. Every frame of a file must end as expected.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import PatternRefusedError, SadpError
from napari_sadp.geometry.analyse import PatternGeometry, analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.io.rosetta import read_stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sadp.pattern import DiffractionPattern

Outcome = PatternGeometry | PatternRefusedError


def shape(
    *, ratio: float | None = None, angle: float | None = None, g1: float | None = None, rel: float = 0.02
) -> Callable[[Outcome], str]:
    """Return a check of the lattice; it answers what is wrong, or nothing."""

    def check(found: Outcome) -> str:
        if isinstance(found, PatternRefusedError):
            return "refused"
        lattice, wrong = found.lattice, []
        for name, value, wanted in (
            ("ratio", lattice.ratio, ratio),
            ("angle", lattice.angle_deg, angle),
            ("g1", float(np.linalg.norm(lattice.g1_px)), g1),
        ):
            if wanted is not None and abs(value - wanted) > rel * wanted:
                wrong.append(f"{name} {value:.3f}, not {wanted:g}")
        return "; ".join(wrong)

    return check


def refused(*reasons: str) -> Callable[[Outcome], str]:
    """Return a check that a pattern is refused for one of some reasons."""

    def check(found: Outcome) -> str:
        if isinstance(found, PatternGeometry):
            return "a lattice was found"
        return "" if found.reason in reasons else f"refused as {found.reason}"

    return check


def beam(row: float, col: float, within: float) -> Callable[[Outcome], str]:
    """Return a check of the direct beam [px]."""

    def check(found: Outcome) -> str:
        if found.beam is None:
            return "no beam"
        miss = float(np.linalg.norm(found.beam.rc - [row, col]))
        return "" if miss <= within else f"beam {miss:.1f} px away"

    return check


def doubtful(found: Outcome) -> str:
    """Check that a lattice of few spots says so; a refusal is fine."""
    if isinstance(found, PatternRefusedError) or any("low confidence" in note for note in found.notes):
        return ""
    return "no doubt was noted"


def under_stop(found: Outcome) -> str:
    """Check that the direct beam is under the beam stop."""
    if isinstance(found, PatternRefusedError):
        return "refused"
    row, col = np.round(found.beam.rc).astype(int)
    return "" if found.prepared.beam_stop[row, col] else "the beam is not under the stop"


def few_hot(found: Outcome) -> str:
    """Check that no spot is a repaired pixel of a frame with hundreds of them."""
    return "" if found.spots is None or len(found.spots) < 25 else f"{len(found.spots)} spots"


def ends(found: Outcome) -> str:
    """Any result or refusal will do."""
    return ""


#: Checks for each file; the numbers are those of INDEX.csv. "(x, y)" there is (col, row).
EXPECTED: dict[str, tuple[Callable[[Outcome], str], ...]] = {
    "ag_sped_two_grains.hspy": (shape(ratio=1.0, angle=70.53),),
    "al_near111.bmp": (beam(273, 353, 3), refused("too few spots")),
    "nanobeam_dd020.dm3": (shape(ratio=1.690, angle=88.9, g1=29.9), beam(101, 134, 3)),
    "sped_test1.blo": (shape(ratio=1.66, angle=89.2, g1=20.0),),
    "hbn_0001.png": (shape(ratio=1.0, angle=60.5, g1=50.88),),
    "gaas_low_dose.png": (doubtful,),
    "glycine_offzone.tiff": (refused("off zone"), beam(233.17, 234.87, 1.5)),
    "au_rings.tif": (refused("rings"),),
    "au_rings_beamstop.png": (refused("rings"),),
    "bismuth.dm3": (refused("rings"),),
    "bismuth.dm4": (refused("rings"),),
    "amorphous.hspy": (refused("amorphous"),),
    "fe_bcc_kikuchi.tif": (ends,),
    "ewald_walkoff.tif": (under_stop,),
    "hotspots.tif": (few_hot,),
    "test.mib": (ends,),
    "metadata/128x128x5-diffraction_preview.emi": (refused("empty", "image"),),
    "metadata/64x64_diffraction_acquire.emi": (refused("empty", "too few spots"),),
    "metadata/JEOL-SightX-SAED-dummy.tif.gz": (refused("empty"),),
    "metadata/ceta_no_beam.emd": (refused("empty"),),
    "metadata/fei_example_tem_stack.emd": (refused("image"),),
    "metadata/stem_haadf_image.emd": (refused("image"),),
    "metadata/test_diffraction_pattern.dm3": (refused("empty", "too few spots"),),
    "metadata/test_diffraction_pattern_tags_removed.dm3": (refused("empty", "too few spots"),),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One frame and what came of it."""

    name: str
    frame: str
    pattern: DiffractionPattern
    found: Outcome
    wrong: str
    seconds: float


def frames(path: Path) -> Iterator[tuple[str, DiffractionPattern]]:
    """Yield (label, pattern) for every frame of a file, packed or not."""
    if path.suffix == ".gz":
        unpacked = Path(tempfile.mkdtemp()) / path.stem
        unpacked.write_bytes(gzip.decompress(path.read_bytes()))
        path = unpacked
    stacks = read_stacks(path)
    for i, stack in enumerate(stacks):
        for k in range(len(stack)):
            yield (f"{i}.{k}" if len(stacks) > 1 else f"{k}" if len(stack) > 1 else ""), stack[k]


def run(folder: Path) -> list[Case]:
    """Analyse every file."""
    cases = []
    for name, checks in EXPECTED.items():
        if not (folder / name).exists():
            print(f"{name}: not here")
            continue
        for label, pattern in frames(folder / name):
            start = time.process_time()
            try:
                found: Outcome = analyse_pattern(pattern)
            except PatternRefusedError as error:
                found = error
            except SadpError as error:
                raise SystemExit(f"{name}: {error}") from error
            seconds = time.process_time() - start
            wrong = "; ".join(text for text in (check(found) for check in checks) if text)
            cases.append(Case(name, label, pattern, found, wrong, seconds))
    return cases


def describe(case: Case) -> str:
    """Return one sentence on the outcome."""
    found = case.found
    if isinstance(found, PatternRefusedError):
        return f"refused, {found.reason}: {found.detail}"
    lattice = found.lattice
    chances = ", ".join(f"{kind} {p:.2f}" for kind, p in lattice.type_probabilities().items() if p >= 0.01)
    nodes = found.nodes
    text = (
        f"lattice of {lattice.n_spots} of {len(found.spots)} spots: g1 {np.linalg.norm(lattice.g1_px):.2f} px, ratio "
        f"{lattice.ratio:.3f}, {lattice.angle_deg:.1f} deg; type {chances}; nodes: {nodes.present.sum()} present, "
        f"{nodes.absent.sum()} absent, {(nodes.state < 0).sum()} unknown"
    )
    doubts = [note for note in found.notes if "low confidence" in note or "no node" in note]
    return "; ".join([text, *doubts])


def table(cases: list[Case], folder: Path) -> str:
    """Return the table as Markdown."""
    index: dict[str, str] = {}
    if (folder / "INDEX.csv").exists():
        with (folder / "INDEX.csv").open(newline="", encoding="utf-8") as file:
            index = {row["file"]: row["expect"] for row in csv.DictReader(file)}
    lines = [
        "# Acquired patterns",
        "",
        "Made by `python benchmarks/real_patterns.py FOLDER --table docs/results/real_patterns.md`; `--pictures SHEET.png` draws",
        "them. The files are not part of the project.",
        "",
        f"{sum(not case.wrong for case in cases)} of {len(cases)} frames end as expected.",
        "",
        "| file | frame | direct beam (row, col) | outcome | expected | as expected |",
        "|---|---|---|---|---|---|",
    ]
    for case in cases:
        place = "-" if case.found.beam is None else "({:.1f}, {:.1f})".format(*case.found.beam.rc)
        expect = index.get(case.name, index.get(case.name.split("/")[0] + "/", ""))
        verdict = "yes" if not case.wrong else f"**no**: {case.wrong}"
        lines.append(f"| {case.name} | {case.frame} | {place} | {describe(case)} | {expect} | {verdict} |")
    return "\n".join([*lines, "", NOTES, "", *classes(cases)])


#: Class of patterns whose crystal and axis are known: silver along [011], and boron nitride along [0001], which looks like [111].
KNOWN = {"ag_sped_two_grains.hspy": "D4-0", "hbn_0001.png": "C1-0", "nanobeam_dd020.dm3": "none"}


def classes(cases: list[Case]) -> list[str]:
    """Return what network, exact engine and both together say about the patterns that have a lattice, as lines of Markdown."""
    from napari_sadp.identify import classify_geometry
    from napari_sadp.models.predict import load_classifier

    classifier = load_classifier()
    lines = [
        "## Network and exact engine",
        "",
        "Class by the network alone, by the exact engine alone (shape of the lattice, present and absent nodes), and by both; with its "
        "probability. *None*: probability that the pattern is of no class, by the whole chain.",
        "",
        "| file | frame | known | network | exact engine | both | none |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        if isinstance(case.found, PatternRefusedError):
            continue
        result = classify_geometry(case.found, classifier)
        said = [
            f"{result.scheme.labels[int(np.argmax(p))]} {100 * np.max(p):.0f} %"
            for p in (result.network, result.lattice_classes.probabilities, result.class_probabilities)
        ]
        lines.append(
            f"| {case.name} | {case.frame} | {KNOWN.get(case.name, '-')} | {' | '.join(said)} | {100 * result.stated[-1]:.0f} % |"
        )
    return lines


NOTES = """\
Remarks:

- `sped_test1.blo`: the index gives 33.3 px for the second vector, ratio 1.66. Fits of a Gaussian on a sloping background to
  twelve strong spots of the mean frame give 20.36 and 32.25 px, ratio 1.585, 87.9 deg; rows of spots lie at -32.5, 0, 31.9 and
  64.9 px from the direct beam. No row lies at 33.3 px. About ten weaker spots form a second net, shifted by a third of the rows.
- `nanobeam_dd020.dm3` and `glycine_offzone.tiff`: the beam is given as (col, row) in the index.
- `gaas_low_dose.png`: eight weak spots on three rows that the eye sees too; a note says that the confidence is low.
- `test.mib`: seven strong spots at 0.3 px from their nodes, 91 px apart; the direct beam is behind the stop at the left edge."""


def pictures(cases: list[Case], path: Path) -> None:
    """Draw every frame with beam, spots, mask and nodes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [case for case in cases if min(case.pattern.shape) > 30]
    columns = 5
    figure, axes = plt.subplots(
        -(-len(shown) // columns), columns, figsize=(16, 3.6 * -(-len(shown) // columns))
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, case in zip(axes.flat, shown, strict=False):
        data, found = case.pattern.data, case.found
        low, high = np.percentile(data, [1, 99.8])
        axis.imshow(np.clip((data - low) / max(high - low, 1e-9), 0, 1) ** 0.5, cmap="gray")
        mask = prepare_image(case.pattern).mask
        axis.imshow(np.ma.masked_where(~mask, mask), cmap="autumn", alpha=0.35)
        limits = axis.get_xlim(), axis.get_ylim()
        if found.spots is not None and len(found.spots):
            axis.plot(*found.spots.rc.T[::-1], "o", mfc="none", mec="gold", ms=5, mew=0.5)
        if found.beam is not None:
            axis.plot(found.beam.rc[1], found.beam.rc[0], "r+", ms=12)
        title = found.reason if isinstance(found, PatternRefusedError) else ""
        if isinstance(found, PatternGeometry):
            lattice, nodes = found.lattice, found.nodes
            title = f"{lattice.ratio:.3f}, {lattice.angle_deg:.1f} deg"
            for state, colour in ((1, "lime"), (0, "red"), (-1, "deepskyblue")):
                axis.plot(*nodes.rc[nodes.state == state].T[::-1], "x", color=colour, ms=3, mew=0.6)
            for vector in (lattice.g1_px, lattice.g2_px):
                ends = np.stack([lattice.beam_rc, lattice.beam_rc + vector])
                axis.plot(*ends.T[::-1], "c-", lw=1)
        axis.set(xlim=limits[0], ylim=limits[1])
        axis.set_title(f"{Path(case.name).name} {case.frame}\n{title}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", type=Path, help="write the table here")
    parser.add_argument("--pictures", type=Path, help="draw the frames here")
    args = parser.parse_args()
    if not args.folder.is_dir():
        parser.error(f"{args.folder} is no folder")
    cases = run(args.folder)
    text = table(cases, args.folder)
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    if args.pictures:
        pictures(cases, args.pictures)
    for case in cases:
        if case.wrong:
            print(f"{case.name} {case.frame}: {case.wrong}")


if __name__ == "__main__":
    main()
