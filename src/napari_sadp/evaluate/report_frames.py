"""The section of a report on whole frames, and how hits are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sadp.evaluate.frames import ARTICLE, CLEAR, CLEAR_RANGE, CONDITIONS
from napari_sadp.evaluate.metrics import share_of_hits
from napari_sadp.evaluate.parts import NONE, REFUSED
from napari_sadp.evaluate.rows import Row, column
from napari_sadp.labels.spacegroups import behaviours
from napari_sadp.models.calibrate import calibration_error, calibration_error_by_chance

if TYPE_CHECKING:
    import numpy as np

    from napari_sadp.evaluate.metrics import Share
    from napari_sadp.evaluate.run import Evaluation


def hits_of(rows: list[Row], truth: str, found: str = "found") -> np.ndarray:
    """Return whether what was found is the truth, for each row (n,)."""
    return column(rows, found) == column(rows, truth)


def shares_of(rows: list[Row], hits: np.ndarray) -> Share:
    """Return the share of hits, with its interval by structures."""
    return share_of_hits(hits, column(rows, "structure").astype(str))


def usable_frames(found: Evaluation) -> list[tuple[str, np.ndarray, list[Row]]]:
    """Return name, frames used, and rows of every condition; of frames in which the lattice of some class can be seen."""
    rows = found.rows.get("frames", [])
    result = []
    for condition in CONDITIONS:
        some = [row for row in rows if row["condition"] == condition.name and row["visible"] != NONE]
        if some:
            result.append((condition.name, column(some, "found") != REFUSED, some))
    return result


def frame_lines(found: Evaluation, rows: list[Row]) -> list[str]:
    """Return the lines on whole frames."""
    lines = [
        "## From the camera frame",
        "",
        "Frames of 256 x 256 px through direct beam, spots, lattice, alignment, network and nodes. *article*: the voltages, camera "
        "lengths, rotations and crops of its data set; the others: imperfections of that strength, *Bloch 20 nm* mild ones on multiple "
        "scattering. Shares are of the frames that are used, in the last column of all. Where noise is low the chain sees spots below the "
        "threshold of *visible*, and its answer is rather the class by symmetry; *above 0.2 %*: it is told to leave them out "
        "(`--faintest 0.002`). Frames in which no lattice of a class can be seen, whatever one does, are left out: of how many each line is.",
        "",
        "| frames | used | visible class, above 0.2 % | visible class, all spots | by the network alone | by the lattice alone | "
        "class by symmetry | either | visible is symmetry | visible class, above 0.2 %, refusals count as wrong |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    made = {name: sum(row["condition"] == name for row in rows) for name, _, _ in usable_frames(found)}
    for name, used, some in usable_frames(found):
        agree = column(some, "visible") == column(some, "symmetry")
        kept = [row for row, use in zip(some, used, strict=True) if use]
        cells = [
            str(shares_of(kept, hits_of(kept, "visible", key))) if kept else "-"
            for key in ("above", "found", "network", "lattice")
        ]
        symmetry = str(shares_of(kept, hits_of(kept, "symmetry"))) if kept else "-"
        either = str(shares_of(kept, hits_of(kept, "visible") | hits_of(kept, "symmetry"))) if kept else "-"
        lines.append(
            f"| {name}, {len(some)} of {made[name]} | {100 * used.mean():.1f} % | {' | '.join(cells)} | {symmetry} | {either} | "
            f"{100 * agree.mean():.1f} % | {shares_of(some, hits_of(some, 'visible', 'above'))} |"
        )
    refused = [row for row in rows if row["found"] == REFUSED and row["visible"] != NONE]
    reasons = {
        reason: sum(row["reason"] == reason for row in refused)
        for reason in sorted({r["reason"] for r in refused})
    }
    if reasons:
        lines += ["", "Refused: " + ", ".join(f"{reason} {n}" for reason, n in reasons.items()) + "."]
    errors = [
        _calibration(column(some, "confidence_above")[used], hits_of(some, "visible", "above")[used], name)
        for name, used, some in usable_frames(found)
        if used.any()
    ]
    lines += [
        "",
        f"Calibration error of the class stated, above 0.2 % (what probabilities that are just right would show on as many independent frames, and in one of "
        f"twenty cases exceed): {', '.join(errors)}.",
        "",
    ]
    lines += _settled(found)
    return lines + _by_group(found)


def _calibration(confidence: np.ndarray, hits: np.ndarray, name: str) -> str:
    """Return the calibration error of a condition, and in brackets what chance alone makes of it."""
    mean, high = calibration_error_by_chance(confidence)
    return f"{name} {calibration_error(confidence, hits):.3f} ({mean:.3f}, {high:.3f})"


def _settled(found: Evaluation) -> list[str]:
    """Return the line on the frames whose class does not hang on noise."""
    parts = []
    for name, used, some in usable_frames(found):
        kept = [row for row, use in zip(some, used, strict=True) if use and row["settled"]]
        if kept:
            parts.append(
                f"{name} {shares_of(kept, hits_of(kept, 'visible', 'above'))} of {len(kept)}, by the network alone "
                f"{shares_of(kept, hits_of(kept, 'visible', 'network'))}"
            )
    low, high = CLEAR_RANGE
    return [
        f"A spot counts as visible from a signal to noise ratio of {CLEAR:g}. Of the frames used whose class is the same for any "
        f"limit from {low:g} to {high:g}, so that it does not hang on a spot that noise may hide or not, visible class, above 0.2 %: "
        f"{'; '.join(parts)}.",
        "",
    ]


def _by_group(found: Evaluation) -> list[str]:
    """Return the table of the article's frames by space group and by whether the structure type is new: how many structures, and hits."""
    made = {name: (used, rows) for name, used, rows in usable_frames(found)}
    if ARTICLE.name not in made:
        return []
    used, rows = made[ARTICLE.name]
    answered = {id(row) for row, use in zip(rows, used, strict=True) if use}
    parts = []
    for group in found.classifier.scheme.groups:
        names = [item.name for item in behaviours(group)]
        parts.append((str(group), [row for row in rows if str(row["behaviour"]) in names]))
    parts += [
        (text, [row for row in rows if bool(row["new_type"]) == new])
        for text, new in (("structure types of training", False), ("new structure types", True))
    ]
    lines = [
        f"Structures of *{ARTICLE.name}* are dealt until {found.config.count('article')} frames of each space group show the lattice of a "
        "class, of as many different structures where so many are kept apart, else of all of them on more axes. Frames that do, structures, "
        "and shares of the frames that are used:",
        "",
        "| | frames | structures | used | visible class, above 0.2 % | class by symmetry | either | visible is symmetry |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for text, shown in parts:
        some = [row for row in shown if id(row) in answered]
        if some:
            symmetry, visible = hits_of(some, "symmetry"), hits_of(some, "visible")
            agree = (column(some, "visible") == column(some, "symmetry")).mean()
            lines.append(
                f"| {text} | {len(shown)} | {len({row['structure'] for row in shown})} | {len(some)} | "
                f"{shares_of(some, hits_of(some, 'visible', 'above'))} | {shares_of(some, symmetry)} | "
                f"{shares_of(some, visible | symmetry)} | {100 * agree:.1f} % |"
            )
    return [*lines, ""]
