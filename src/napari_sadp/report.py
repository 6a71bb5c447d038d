"""What a person reads: the table in the terminal, and the picture of patterns, lattices and probabilities."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._atomic import atomic_path
from napari_sadp.ensemble.ambiguity import same_patterns
from napari_sadp.identify import UNREADABLE, zone_text
from napari_sadp.labels.spacegroups import symbol, zone_name
from napari_sadp.report_lattice import lattice_texts, leftover_text

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_sadp.identify import Identification, PatternResult

#: Patterns in one picture; more would be too small to see.
MAX_PANELS = 6
#: Patterns that are named in one line.
_MOST_NAMES = 3
#: A further pattern that is expected to tell less is not worth naming [bit].
WORTHWHILE_BITS = 0.05


def contrast_limits(data: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Return display limits that show weak spots beside a saturated beam.

    Parameters
    ----------
    data : ndarray of float
        Intensities.
    mask : ndarray of bool, optional
        Pixels to leave out.

    Returns
    -------
    tuple of 2 float
        Low and high; high is above low also for a constant image.
    """
    values = data[np.isfinite(data) & (True if mask is None else ~mask)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(values, [1.0, 99.7]))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def percent(probability: float) -> str:
    """Return a probability as text that never claims certainty: ``"62.5 %"``, ``"> 99.9 %"``, ``"< 0.1 %"``."""
    if probability > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if probability < 0.001 else f"{100 * probability:.1f} %"


def format_table(found: Identification) -> str:
    """Return the result as text.

    Parameters
    ----------
    found : Identification
        The result.

    Returns
    -------
    str
        Patterns, then space groups.
    """
    lines = [
        f"{'pattern':<32} {'beam (row, col)':>17} {'spots':>5} {'left':>5}  {'class':<6} {'P':>5}  by lattice"
    ]
    number = 0
    for result in found.patterns:
        lines += _pattern_lines(result)
        if result.used and found.zones is not None:
            lines.append(f"{'':<4}{_zone_line(found, number)}")
            number += 1
    if found.n_used:
        lines += ["", "in brackets: standard uncertainty in units of the last digit; left: spots on no node"]
    lines += [*_note_lines(found), ""]
    if not found.n_used:
        return "\n".join([*lines, headline(found)])
    lines.append(
        f"{'space group':<14} {'P':>7}   same patterns on every axis ({found.space_groups.rule} rule)"
    )
    posterior = found.space_groups
    for number, name, p in zip(posterior.groups, posterior.symbols, posterior.probabilities, strict=True):
        others = ", ".join(map(str, same_patterns(number)))
        bar = "#" * round(20 * p)
        lines.append(f"{number:>4} {name:<9} {percent(p):>8}  {others:<28} {bar}".rstrip())
    lines.append(f"{'none of these':<14} {percent(posterior.none_of_these):>8}")
    lines += ["", "extinction class (all cubic groups with these conditions)"]
    for groups, p in found.extinction_classes:
        lines.append(f"{percent(p):>14}   {', '.join(map(str, groups))}")
    lines += ["", found.indistinguishable_text]
    if posterior.none_of_these > 0.5:
        lines.append(
            f"None of these is more likely (P = {posterior.none_of_these:.2f}): the lattices are not those of the "
            "scheme's groups and axes; the numbers above hold only if the crystal has one of them."
        )
    return "\n".join([*lines, *remarks(found)])


def leading_groups(found: Identification) -> tuple[int, ...]:
    """Return the most probable space group, or all that are nearly as probable."""
    return found.leading_groups


def headline(found: Identification) -> str:
    """Return the answer in one line; groups of equal probability are named together, none is singled out."""
    if not found.n_used:
        return "No pattern could be used: no statement about the space group."
    if found.space_groups.none_of_these > 0.5:
        return f"None of the groups fits (P = {percent(found.space_groups.none_of_these)})"
    leaders = leading_groups(found)
    names = ", ".join(f"{number} {symbol(number)}" for number in leaders)
    p = percent(float(found.space_groups.probabilities[0]))
    return (
        f"Most probable: {names} ({p})"
        if len(leaders) == 1
        else f"Equally probable: {names} (about {p} each)"
    )


def remarks(found: Identification) -> list[str]:
    """Return what a user should know beside the numbers, a sentence each.

    Parameters
    ----------
    found : Identification
        The result.

    Returns
    -------
    list of str
        What does not fit or could not be used; which zone axis to go to, where another pattern still tells something; and which
        patterns are hexagonal nets, that are not cubic alone.
    """
    used = found.used
    lines = list(found.messages)
    lines += _next_line(found) if used and found.space_groups.none_of_these <= 0.5 else []
    hexagonal = [result.pattern.name for result in used if result.best_class[0].startswith("C")]
    if hexagonal:
        lines.append(
            f"{_named(hexagonal)}: hexagonal and trigonal crystals show such a net too, along [0001]."
        )
    return lines


def _next_line(found: Identification) -> list[str]:
    best = found.next_axes[0] if found.next_axes else None
    if best is None or best.gain_bits <= WORTHWHILE_BITS:
        return []
    tilt = ""
    if best.tilt_deg is not None:
        tilt = f", {best.tilt_deg:.1f} deg from {zone_name(found.current_zone)} (last pattern)"
    return [
        f"Next: {zone_name(best.zone)} would tell most, {best.gain_bits:.2f} bit about the space group{tilt}."
    ]


def _zone_line(found: Identification, index: int) -> str:
    """Return the zone axis of a pattern used, and the Miller indices of its basis, as text."""
    line, done = f"zone axis {zone_text(found, index)}", found.indexing(index)
    if done is not None and done.zone == (found.zone_axes(index) or [(None, 0.0)])[0][0]:
        first, second = (" ".join(map(str, hkl)) for hkl in done.basis_hkl.tolist())
        line += f"; g1 = ({first}), g2 = ({second}) in {done.behaviour.name}"
    return line


def _pattern_lines(result: PatternResult) -> list[str]:
    name = result.pattern.name
    name = name if len(name) <= 32 else "…" + name[-31:]
    if not result.used:
        return [f"{name:<32} refused ({result.reason}): {result.detail}"]
    lattice, best = result.lattice, result.best_class
    by_lattice = result.lattice_classes.probabilities
    second = result.scheme.labels[int(np.argmax(by_lattice))]
    over = result.leftover.n_spots if result.leftover is not None else 0
    lines = [
        f"{name:<32} {f'({result.beam.rc[0]:.1f}, {result.beam.rc[1]:.1f})':>17} {lattice.n_spots:5d} {over:5d}  "
        f"{best[0]:<6} {best[1]:5.2f}  {second} {by_lattice.max() * (1 - result.none_of_these):.2f}"
    ]
    texts = lattice_texts(result)
    g1, g2 = texts.g_px
    measured = [
        f"type {texts.kind}; |g1| {g1} px, |g2| {g2} px, ratio {texts.ratio}, angle {texts.angle} deg",
        leftover_text(result.leftover),
    ]
    if texts.d_angstrom:
        lengths = zip(texts.d_angstrom, texts.g_inv_angstrom, strict=True)
        spacings = [f"d{k} {d} Å, |g{k}| {g} 1/Å" for k, (d, g) in enumerate(lengths, start=1)]
        measured.insert(1, f"{'; '.join(spacings)}; camera constant {texts.camera_constant} px Å")
    return lines + [f"{'':<4}{line}" for line in measured if line]


def _note_lines(found: Identification) -> list[str]:
    """Return what was decided about the patterns, each thing once, with the patterns that it is about."""
    about: dict[str, list[str]] = {}
    for result in found.patterns:
        for note in dict.fromkeys(result.notes):
            about.setdefault(note, []).append(result.pattern.name)
    lines = ["", "what was decided"] if about else []
    for note, names in about.items():
        of_all = len(names) == len(found.patterns) and len(names) > 1
        lines.append(f"  {f'all {len(names)} patterns' if of_all else _named(names)}: {note}")
    return lines


def _named(names: list[str]) -> str:
    """Return names of patterns as text, the first of many."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def plot_identification(found: Identification) -> Figure:
    """Draw patterns with centre, spots and lattice, what the network saw, and the probabilities.

    Parameters
    ----------
    found : Identification
        The result.

    Returns
    -------
    matplotlib.figure.Figure
        Not bound to any display.
    """
    from matplotlib.figure import Figure

    shown = [result for result in found.patterns if result.reason != UNREADABLE][:MAX_PANELS]
    figure = Figure(figsize=(3.1 * (len(shown) + 1), 8.6), layout="constrained")
    grid = figure.subplots(3, len(shown) + 1, squeeze=False, height_ratios=(1.25, 0.9, 0.8))
    for column, result in enumerate(shown):
        _draw_pattern(grid[0, column], result)
        _draw_input(grid[1, column], result)
        _draw_classes(grid[2, column], result)
    _draw_groups(grid[0, -1], found)
    _draw_text(grid[1, -1], found)
    grid[2, -1].set_axis_off()
    return figure


def save_picture(found: Identification, path: Path | str, dpi: int = 120) -> None:
    """Write the picture of a result; the format follows the extension (png, pdf, svg)."""
    figure = plot_identification(found)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _draw_pattern(axes: Axes, result: PatternResult) -> None:
    data = result.pattern.data
    low, high = contrast_limits(data, result.pattern.mask)
    axes.imshow(np.clip((data - low) / (high - low), 0, 1) ** 0.5, cmap="gray", interpolation="nearest")
    if result.lattice is not None:
        lattice = result.lattice
        on, off = lattice.spots.rc[lattice.indexed], lattice.spots.rc[~lattice.indexed]
        axes.scatter(on[:, 1], on[:, 0], s=28, facecolors="none", edgecolors="#2bb5ff", linewidths=0.8)
        axes.scatter(off[:, 1], off[:, 0], s=28, facecolors="none", edgecolors="#ffb000", linewidths=0.8)
        for vector, name in ((lattice.g1_px, "g1"), (lattice.g2_px, "g2")):
            tip = lattice.beam_rc + vector
            axes.annotate(
                "",
                xy=tip[::-1],
                xytext=lattice.beam_rc[::-1],
                arrowprops={"arrowstyle": "->", "color": "#ff5a36", "lw": 1.6},
            )
            axes.text(tip[1], tip[0], f" {name}", color="#ff5a36", fontsize=8)
    if result.beam is not None:
        axes.plot(result.beam.rc[1], result.beam.rc[0], "+", color="#ff5a36", markersize=9)
    axes.set_xlim(-0.5, data.shape[1] - 0.5)
    axes.set_ylim(data.shape[0] - 0.5, -0.5)
    axes.set_axis_off()
    axes.set_title(result.pattern.name, fontsize=8)


def _draw_input(axes: Axes, result: PatternResult) -> None:
    axes.set_axis_off()
    if not result.used:
        text = f"refused: {result.reason}\n\n{result.detail}"
        axes.text(0.5, 0.8, text, ha="center", va="top", wrap=True, fontsize=9, transform=axes.transAxes)
        return
    axes.imshow(result.training_image, cmap="gray", vmin=0, vmax=1)
    axes.set_title(f"as the network sees it, {len(result.training_image)} px", fontsize=8)


def _draw_classes(axes: Axes, result: PatternResult) -> None:
    if not result.used:
        axes.set_axis_off()
        return
    order = np.argsort(result.stated[:-1])[::-1][:3]
    fits = 1 - result.none_of_these
    ours = [*result.stated[order], result.stated[-1]]
    lattice = [*(fits * result.lattice_classes.probabilities[order]), result.none_of_these]
    y = np.arange(len(ours))
    axes.barh(y - 0.2, ours, 0.4, color="#2b6cb0", label="network")
    axes.barh(y + 0.2, lattice, 0.4, color="#a0c4e8", label="lattice alone")
    axes.set_yticks(y, [*(result.scheme.labels[i] for i in order), "none"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability of the class", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, loc="lower right")


def _draw_groups(axes: Axes, found: Identification) -> None:
    if not found.n_used:
        axes.set_axis_off()
        return
    posterior = found.space_groups
    names = [f"{number}\n{name}" for number, name in zip(posterior.groups, posterior.symbols, strict=True)]
    bars = axes.bar(names, posterior.probabilities, color="#2b6cb0")
    axes.bar_label(bars, [percent(p) for p in posterior.probabilities], fontsize=7)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("probability of the space group")
    axes.set_title(f"{found.n_used} pattern(s), {posterior.rule} rule", fontsize=9)
    axes.tick_params(axis="x", labelsize=7)


def _draw_text(axes: Axes, found: Identification) -> None:
    axes.set_axis_off()
    if not found.n_used:
        lines = ["No pattern could be used."]
    else:
        lines = [headline(found)]
        leaders = leading_groups(found)
        if len(leaders) == 1:
            others = ", ".join(f"{g} {symbol(g)}" for g in same_patterns(leaders[0])) or "none"
            lines.append(f"Same spots on every axis, not to be told apart by them: {others}")
        # a line break inside a percentage reads badly
        none = percent(found.space_groups.none_of_these).replace(" ", "\N{NO-BREAK SPACE}")
        lines += [f"None of the groups of the scheme: {none}", *remarks(found)]
    if len(found.patterns) > MAX_PANELS:
        lines.append(f"First {MAX_PANELS} of {len(found.patterns)} patterns shown.")
    text = "\n\n".join(fill(line, 38) for line in lines)
    axes.text(0.0, 0.95, text, va="top", fontsize=9, transform=axes.transAxes)
