"""The report of an evaluation: Markdown with its tables as CSV and its pictures as PNG."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._atomic import atomic_path, atomic_write
from napari_sadp.evaluate.foreign import FOREIGN_KINDS
from napari_sadp.evaluate.frames import VISIBLE
from napari_sadp.evaluate.metrics import confusion_matrix, detection_auroc, share_of_hits, shares_by
from napari_sadp.evaluate.parts import N_COMBINED, NONE, PARTS, REFUSED, aligned_part
from napari_sadp.evaluate.pictures import plot_calibration, plot_confusion, plot_sweeps
from napari_sadp.evaluate.report_frames import frame_lines, hits_of, shares_of, usable_frames
from napari_sadp.evaluate.rows import Row, column, write_table
from napari_sadp.evaluate.run import Evaluation, EvaluationConfig
from napari_sadp.evaluate.structures import describe_runs
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.models.calibrate import calibration_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from napari_sadp.evaluate.metrics import Share
    from napari_sadp.models.weights import WeightsCard

#: Table 1 of Ra et al. 2021: accuracy, parameters, time per image on a GPU [ms].
ARTICLE_TABLE: dict[str, tuple[float, float, float]] = {
    "resnet18": (0.84946, 11.2e6, 0.0821),
    "resnet34": (0.88607, 21.3e6, 0.1395),
    "resnet50": (0.90339, 23.6e6, 0.1711),
    "resnet101": (0.92607, 42.6e6, 0.3123),
    "resnet152": (0.92393, 58.5e6, 0.4468),
}
REPORT_NAME = "README.md"


def write_report(found: Evaluation, folder: Path) -> Path:
    """Write the report of what was measured.

    Parameters
    ----------
    found : Evaluation
        Rows of all parts, or some.
    folder : pathlib.Path
        Where to; made if missing.

    Returns
    -------
    pathlib.Path
        The Markdown file; CSV and PNG lie beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = _header(found)
    for part, write in _SECTIONS.items():
        # compared networks are shown whether or not their time was taken
        if found.rows.get(part) or (part == "speed" and found.compared):
            lines += write(found, found.rows.get(part, []), folder)
    path = folder / REPORT_NAME
    with atomic_write(path) as file:
        file.write("\n".join(lines).rstrip() + "\n")
    return path


def _header(found: Evaluation) -> list[str]:
    card = found.classifier.card
    counts = [
        f"{name} {sum(item.behaviour == name for item in found.structures)}"
        for name in dict.fromkeys(item.behaviour for item in found.structures)
    ]
    parts = [part for part in PARTS if found.rows.get(part)] or found.config.parts
    return [
        f"# Evaluation of {card.name}",
        "",
        f"{card.architecture}, {card.size} px, {card.conversion}, {len(found.classifier.scheme)} classes, sha256 {card.sha256[:12]}. "
        f"{_structures(found, ', '.join(counts))} Groups have equal chances, then extinction behaviours, structures and zone axes. "
        "Intervals: 95 %, bootstrap over structures.",
        "",
        "The class that is *visible*: that of the spots above "
        f"{100 * VISIBLE:g} % of the strongest diffracted beam that nothing hides; of aligned images that of the spots above noise. "
        "The class *by symmetry*: that of space group and zone axis, reached at best where both agree.",
        "",
        f"`{_command(found.config, parts)}` makes all of this, at once or part by part: rows of the same settings are kept.",
        "",
    ]


def _structures(found: Evaluation, counts: str) -> str:
    """Return the sentence on the structures, and on what training may have known of them."""
    split, n = describe_runs(found.trained_on), len(found.structures)
    if not found.sure:
        return f"**Training may have known these structures**: it held out some {split}. {n} structures that other networks hold out ({counts})."
    held = "could not know," if found.config.catalogue else "held out"
    new = sum(item.new_type for item in found.structures)
    return (
        f"Structures that training {held} {split}: {n} ({counts}), {new} of them of a structure type that no training structure "
        f"{'known here ' if any(run.own for run in found.trained_on) else ''}has."
    )


def _command(config: EvaluationConfig, parts: Sequence[str]) -> str:
    """Return the command that makes some parts; of files the names alone, where they lie on this machine is nobody's business."""
    words = ["napari-sadp", "evaluate"]
    if config.weights is not None:
        words += ["--weights", Path(config.weights).name]
    for name in config.compare:
        words += ["--compare", Path(name).name]
    words += ["--patterns", str(config.patterns), "--seed", str(config.seed)]
    if set(parts) != set(PARTS):
        words += ["--parts", ",".join(parts)]
    if config.device != EvaluationConfig.device:
        words += ["--device", config.device]
    if config.catalogue:
        words += ["--catalogue", Path(config.catalogue).name]
    return shlex.join(words)


def _aligned(found: Evaluation, rows: list[Row], folder: Path) -> list[str]:
    """Return the lines on the network alone; writes tables by class and axis, confusion and calibration."""
    scheme = found.classifier.scheme
    truth, symmetry = hits_of(rows, "visible"), hits_of(rows, "symmetry")
    both = column(rows, "visible") == column(rows, "symmetry")
    confidence = column(rows, "confidence")
    structure = column(rows, "structure").astype(str)
    lines = [
        "## The network alone, aligned images",
        "",
        f"{len(rows)} patterns, every visible class with equal chances, degraded as in training; kinematic and Bloch waves.",
        "",
        "| | patterns | visible class | class by symmetry | both agree in | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    dynamical, new = column(rows, "thickness_nm") > 0, column(rows, "new_type") > 0
    coarse = column(rows, "coarse") > 0
    everything = np.ones(len(rows), bool)
    for name, use in (
        ("all", everything),
        ("kinematic", ~dynamical),
        ("Bloch waves, 4 to 80 nm", dynamical),
        ("structure types of training", ~new),
        ("new structure types", new),
        ("aligned by their own lattice", ~coarse),
        ("by a coarser one, weak spots missed", coarse),
    ):
        if not use.any():
            continue
        share = share_of_hits(truth[use], structure[use])
        lines.append(
            f"| {name} | {use.sum()} of {share.n_structures} structures | {share} | "
            f"{share_of_hits(symmetry[use], structure[use])} | {100 * both[use].mean():.1f} % | "
            f"{calibration_error(confidence[use], truth[use]):.3f} |"
        )
    labels, zones = scheme.labels, [zone_name(zone) for zone in scheme.zones]
    by_class = shares_by(column(rows, "visible"), truth, structure)
    by_zone = shares_by(column(rows, "zone"), truth, structure)
    _share_table(folder / "classes.csv", "class", {labels[int(k)]: v for k, v in by_class.items()})
    _share_table(folder / "zone_axes.csv", "zone axis", {zones[int(k)]: v for k, v in by_zone.items()})
    matrix = confusion_matrix(column(rows, "visible"), column(rows, "found"), len(scheme))
    table = [
        {"visible class": a} | dict(zip(labels, line, strict=True))
        for a, line in zip(labels, matrix.tolist(), strict=True)
    ]
    write_table(folder / "confusion.csv", table)
    _save(plot_confusion(matrix, labels), folder / "confusion.png")
    curves = {"network, aligned images": (confidence, truth)}
    for name, use, frames in usable_frames(found):
        curves[f"chain, {name}"] = (
            column(frames, "confidence_above")[use],
            hits_of(frames, "visible", "above")[use],
        )
    _save(plot_calibration(curves), folder / "calibration.png")
    worst = sorted(by_class.items(), key=lambda item: item[1].value)[:5]
    lines += [
        "",
        "Classes with the lowest accuracy: "
        + ", ".join(f"{labels[int(k)]} {100 * v.value:.0f} % of {v.n}" for k, v in worst)
        + ". All: [classes.csv](classes.csv), [confusion.csv](confusion.csv).",
        "",
        "| zone axis | patterns | visible class |",
        "|---|---|---|",
        *(f"| {zones[int(k)]} | {v.n} | {v} |" for k, v in by_zone.items()),
        "",
        "![Confusion matrix](confusion.png)",
        "",
        "![Calibration](calibration.png)",
        "",
    ]
    return lines


def _frames(found: Evaluation, rows: list[Row], folder: Path) -> list[str]:
    return frame_lines(found, rows)


def _sweeps(found: Evaluation, rows: list[Row], folder: Path) -> list[str]:
    """Return the lines on sweeps; writes their table and picture."""
    sweeps: dict[str, dict[float, tuple[Share, Share, float]]] = {}
    table = []
    for name in dict.fromkeys(row["varied"] for row in rows):
        for value in dict.fromkeys(row["value"] for row in rows if row["varied"] == name):
            some = [
                row
                for row in rows
                if row["varied"] == name and row["value"] == value and row["visible"] != NONE
            ]
            if not some:
                continue
            used = column(some, "found") != REFUSED
            kept = [row for row, use in zip(some, used, strict=True) if use]
            right = (
                shares_of(kept, hits_of(kept, "visible"))
                if kept
                else share_of_hits(np.array([]), np.array([]))
            )
            agree = float((column(some, "visible") == column(some, "symmetry")).mean())
            sweeps.setdefault(name, {})[float(value)] = (right, shares_of(some, used), agree)
            table.append(
                {
                    "varied": name,
                    "value": value,
                    "frames": len(some),
                    "used": float(used.mean()),
                    "visible_class": right.value,
                    "low": right.low,
                    "high": right.high,
                    "visible_is_symmetry": agree,
                }
            )
    write_table(folder / "sweeps.csv", table)
    _save(plot_sweeps(sweeps), folder / "sweeps.png")
    return [
        "## What matters",
        "",
        "Mild frames in which one thing at a time is varied; the same crystals and axes at every value, of which those count that show "
        "the lattice of a class. "
        "Numbers: [sweeps.csv](sweeps.csv).",
        "",
        "![Accuracy against what is varied](sweeps.png)",
        "",
    ]


def _groups(found: Evaluation, rows: list[Row], folder: Path) -> list[str]:
    """Return the lines on space groups."""
    lines = [
        "## Space groups",
        "",
        f"{len(rows)} crystals, mild frames on different axes drawn at random. The ceiling is exact, for spots and absences alone without "
        "any intensity.",
        "",
        "| patterns | crystals | group named is right | mean probability stated | ceiling of any method |",
        "|---|---|---|---|---|",
    ]
    for n, highest in zip(range(1, N_COMBINED + 1), found.ceilings(), strict=True):
        some = [row for row in rows if row[f"group_{n}"] != REFUSED]
        if some:
            share = shares_of(some, hits_of(some, "group", f"group_{n}"))
            stated = column(some, f"stated_{n}").astype(float).mean()
            lines.append(f"| {n} | {len(some)} | {share} | {100 * stated:.1f} % | {100 * highest:.1f} % |")
    return [*lines, ""]


def _foreign(found: Evaluation, rows: list[Row], folder: Path) -> list[str]:
    """Return the lines on what is outside the scheme."""
    inside = [row for row in rows if row["kind"] == "inside"]
    has_score = found.classifier.outliers is not None
    lines = [
        "## None of these",
        "",
        "Area under the curve of detection (AUROC) by the probability of *none of these*; a refusal counts as 1. Inside: mild frames that "
        f"show the lattice of a class, of which {sum(row['found'] == REFUSED for row in inside)} of {len(inside)} are refused. "
        + ("The weights have an outlier score." if has_score else "The weights have no outlier score."),
        "",
        "| outside | frames | refused | AUROC | by the lattice alone | called a class with more than 90 % |",
        "|---|---|---|---|---|---|",
    ]
    for kind in (*FOREIGN_KINDS, "all of these"):
        some = [row for row in rows if row["kind"] != "inside" and kind in (row["kind"], "all of these")]
        if not some:
            continue
        values = [
            f"{detection_auroc(column(inside, key), column(some, key)):.3f}"
            for key in ("none", "lattice_none")
        ]
        sure = np.mean([row["found"] >= 0 and row["confidence"] > 0.9 for row in some])
        refused = np.mean([row["found"] == REFUSED for row in some])
        lines.append(
            f"| {kind} | {len(some)} | {100 * refused:.0f} % | {values[0]} | {values[1]} | {100 * sure:.1f} % |"
        )
    return [*lines, ""]


def _speed(found: Evaluation, rows: list[Row], folder: Path) -> list[str]:
    """Return the table of architectures beside that of the article, a line for each network."""
    networks = [("aligned", found.classifier.card)]
    networks += [(aligned_part(card), card) for card in found.compared.values()]
    sizes = sorted({row["size"] for row in rows})
    times = {(row["architecture"], row["size"]): row for row in rows}
    device = f"on {rows[0]['device']}" if rows else "not measured"
    lines = [
        "## Architectures",
        "",
        f"Time: forward pass {device}, the article's on a GPU it does not name. Our accuracy: visible class of aligned images "
        f"of {'structures that training did not know' if found.sure else 'the structures above'}, after so many training images, few of "
        "them meaning that the network was trained to show that it can be. The article's: its 60 classes on its own simulations.",
        "",
        "| architecture | parameters, article | ours | accuracy, article | network, sha256 | ours | trained on | "
        "time per image, article | " + "".join(f"ours, {size} px | " for size in sizes).rstrip(),
        "|---" * (8 + len(sizes)) + "|",
    ]
    for architecture, (accuracy, parameters, ms) in ARTICLE_TABLE.items():
        ours = f"{times[architecture, sizes[0]]['parameters'] / 1e6:.1f} M" if rows else "-"
        cells = "".join(f" {times[architecture, size]['ms_per_image']:.3g} ms |" for size in sizes)
        of_it = [network for network in networks if network[1].architecture == architecture]
        for part, card in dict(of_it).items() or [("", None)]:
            lines.append(
                f"| {architecture} | {parameters / 1e6:.1f} M | {ours} | {100 * accuracy:.3f} % | {_network(found, part, card)} | "
                f"{ms} ms |{cells}"
            )
    if found.unsure:
        names = [f"{found.compared[name].name} {found.compared[name].sha256[:12]}" for name in found.unsure]
        lines += [
            "",
            f"May have been trained on some of these structures, since the record of their training leaves it open: {', '.join(names)}.",
        ]
    return [*lines, ""]


def _network(found: Evaluation, part: str, card: WeightsCard | None) -> str:
    """Return the cells of a network in the table of architectures: name, accuracy, images it was trained on."""
    if card is None:
        return "- | - | -"
    rows = found.rows.get(part)
    accuracy = str(shares_of(rows, hits_of(rows, "visible"))) if rows else "-"
    seen = f"{card.images_seen} images" if card.images_seen else "-"
    return f"{card.name} {card.sha256[:12]} | {accuracy} | {seen}"


def _share_table(path: Path, key: str, shares: dict[str, Share]) -> None:
    write_table(
        path,
        [
            {key: name, "patterns": item.n, "structures": item.n_structures, "right": item.value, "low": item.low, "high": item.high}
            for name, item in shares.items()
        ],
    )  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    # without the version of matplotlib, so that the same numbers give the same file
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


_SECTIONS: dict[str, Callable[[Evaluation, list[Row], Path], list[str]]] = {
    "aligned": _aligned,
    "frames": _frames,
    "sweeps": _sweeps,
    "groups": _groups,
    "foreign": _foreign,
    "speed": _speed,
}
