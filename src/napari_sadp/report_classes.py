"""The classes of a scheme as a person reads them: a table for the terminal, and a sheet of thumbnails."""

from __future__ import annotations

from collections import Counter, defaultdict
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._atomic import atomic_path
from napari_sadp.labels.scheme import disc_nodes
from napari_sadp.labels.spacegroups import behaviours, zone_name

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_sadp.labels.scheme import Appearance, PatternClass, PatternScheme, Zone

#: Columns of the table in the terminal.
_TABLE_WIDTH = 110
#: Thumbnails show at least this many nodes, and more only where classes of one shape differ further out.
_LEAST_NODES = 31
# The sheet, in inches: width of a thumbnail with its margin, height of the drawing, height of a line of text.
_CELL, _DRAWING, _LINE = 1.62, 1.42, 0.098
_TEXT_COLUMNS, _MOST_LINES = 29, 7
_PRESENT, _ABSENT = "#16324f", "#d9480f"


def behaviour_names(names: list[str]) -> str:
    """Return behaviour names in few words: all kinds of a group as the group, three or more in a row as a range.

    Parameters
    ----------
    names : list of str
        Names such as ``"225"`` or ``"227a"``.

    Returns
    -------
    str
        Text.

    Examples
    --------
    >>> behaviour_names(["195", "196", "197", "225", "227a", "227b", "227g"])
    '195-197 225 227'
    """
    kinds: dict[int, list[str]] = defaultdict(list)
    for name in names:
        kinds[int(name[:3])].append(name)
    words: list[str] = []
    run: list[int] = []
    for number in [*sorted(kinds), 0]:
        whole = number and len(kinds[number]) == len(behaviours(number))
        if whole and run and number == run[-1] + 1:
            run.append(number)
            continue
        words += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else list(map(str, run))
        run = [number] if whole else []
        if number and not whole:
            words += kinds[number]
    return " ".join(words)


def member_lines(item: PatternClass) -> list[str]:
    """Return the members of a class as text, zone axes with the same groups in one line: ``"[001] 221 225 227 229"``."""
    by_zone: dict[Zone, list[str]] = defaultdict(list)
    for behaviour, zone in item.members:
        by_zone[zone].append(behaviour.name)
    zones: dict[str, list[str]] = defaultdict(list)
    for zone, names in by_zone.items():
        zones[behaviour_names(names)].append(zone_name(zone))
    return [f"{' '.join(where)} {names}" for names, where in zones.items()]


def format_classes(scheme: PatternScheme) -> str:
    """Return the classes of a scheme as a table.

    Parameters
    ----------
    scheme : PatternScheme
        The classes.

    Returns
    -------
    str
        Label, type, angles [deg], number of absent nodes within the field of view, members.
    """
    lines = [f"{'label':<8}{'type':<6}{'angles / deg':<14}{'absent':>6}  members ([zone axis] groups)"]
    for item in scheme.classes:
        angles = " ".join(f"{angle:.2f}" for angle in item.angles_deg) or "-"
        start = f"{item.label:<8}{item.type:<6}{angles:<14}{len(item.appearance.absent):>6}  "
        members = wrap("; ".join(member_lines(item)), _TABLE_WIDTH - len(start))
        lines += [start + members[0], *(" " * len(start) + line for line in members[1:])]
    types = ", ".join(f"{kind} {n}" for kind, n in sorted(Counter(c.type for c in scheme.classes).items()))
    lines += [
        "",
        f"{len(scheme)} classes ({types}) of {len(scheme.index_of)} pairs of group and zone axis; absent nodes within "
        f"{scheme.field_of_view:g} shortest spacings.",
    ]
    if 227 in scheme.groups and not scheme.general:
        lines.append("227a: only sites 8a, 8b, 48f; 227b: 16c or 16d too; 227g: others; 227: all three.")
    return "\n".join(lines)


def thumbnail_radius(scheme: PatternScheme, item: PatternClass) -> float:
    """Return how far a thumbnail must reach, in shortest spacings, to tell a class from the others of its shape."""
    g11, g12, g22 = item.appearance.shape

    def within(look: Appearance, radius: float) -> frozenset[tuple[int, int]]:
        limit = radius * radius * g11 + 1e-9
        return frozenset(
            (m, n) for m, n in look.absent if g11 * m * m + 2 * g12 * m * n + g22 * n * n <= limit
        )

    others = [c.appearance for c in scheme.classes if c.appearance.shape == item.appearance.shape]
    enough = np.sqrt(_LEAST_NODES * np.sqrt(g11 * g22 - g12 * g12) / (np.pi * g11))
    # 1.05 shows the second vector whole, where it is long
    least = max(enough, 1.05 * item.ratio)
    for radius in np.arange(least, scheme.field_of_view, 0.5):
        if len({(within(look, radius), look.hand) for look in others}) == len(others):
            return float(radius)
    return float(max(least, scheme.field_of_view))


def plot_classes(scheme: PatternScheme, *, columns: int | None = None) -> Figure:
    """Draw a thumbnail of every class: spots as dots, absent nodes as small open circles, label and members below.

    Parameters
    ----------
    scheme : PatternScheme
        The classes.
    columns : int, optional
        Thumbnails in a row; by default 10, or 14 for more than 80 classes.

    Returns
    -------
    matplotlib.figure.Figure
        Not bound to any display.
    """
    from matplotlib.figure import Figure

    columns = columns or min(len(scheme), 10 if len(scheme) <= 80 else 14)
    texts = [_cell_text(item) for item in scheme.classes]
    rows = [range(start, min(start + columns, len(scheme))) for start in range(0, len(scheme), columns)]
    heights = [_DRAWING + _LINE * (3.2 + max(len(texts[i]) for i in row)) for row in rows]
    width, height = _CELL * max(columns, 4), sum(heights) + 0.55
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)  # inches from the top
    axes.set_axis_off()
    axes.text(0.12, 0.16, _title(scheme), fontsize=9, va="top", color="#333333")
    top = 0.55
    for row, row_height in zip(rows, heights, strict=True):
        for place, index in enumerate(row):
            left = place * _CELL
            item = scheme.classes[index]
            _draw_class(axes, scheme, item, (left + _CELL / 2, top + _DRAWING / 2))
            below = top + _DRAWING + 0.03
            axes.text(left + 0.1, below, item.label, fontsize=8, weight="bold", va="top")
            axes.text(left + _CELL - 0.1, below + 0.015, _angle_text(item), fontsize=6, va="top", ha="right")
            axes.text(
                left + 0.1, below + 0.15, "\n".join(texts[index]), fontsize=5.4, va="top", linespacing=1.25
            )
        top += row_height
    return figure


def save_sheet(scheme: PatternScheme, path: Path | str, dpi: int = 150) -> None:
    """Write the sheet of thumbnails; the format follows the extension.

    Parameters
    ----------
    scheme : PatternScheme
        The classes.
    path : path-like
        File to write: png, pdf or svg.
    dpi : int
        Resolution of a png [dots per inch].

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If matplotlib does not know the extension.
    """
    figure = plot_classes(scheme)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _title(scheme: PatternScheme) -> str:
    return (
        f"{len(scheme)} pattern classes of space group(s) {behaviour_names([b.name for b in scheme.all_behaviours])} on "
        f"{len(scheme.zones)} zone axes. Dots: spots; open circles: absent nodes; large dot: direct beam."
    )


def _cell_text(item: PatternClass) -> list[str]:
    """Return the lines below a thumbnail; long lists end in how many pairs more there are."""
    lines = [
        part for line in member_lines(item) for part in wrap(line, _TEXT_COLUMNS, subsequent_indent="   ")
    ]
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[: _MOST_LINES - 1], f"... {len(item.members)} pairs in all"]


def _angle_text(item: PatternClass) -> str:
    return ", ".join(f"{angle:.1f}°" for angle in item.angles_deg)


def _draw_class(axes: Axes, scheme: PatternScheme, item: PatternClass, centre: tuple[float, float]) -> None:
    """Draw the nodes of a class into a disc around `centre` [inch]."""
    look = item.appearance
    g11, g12, g22 = look.shape
    radius = thumbnail_radius(scheme, item)
    nodes = disc_nodes(look.shape, radius)
    # the first vector to the right, the second above it; mirrored for left-handed patterns; y of the axes counts downwards
    up = np.sqrt(g11 * g22 - g12 * g12) * (-1 if look.hand == -1 else 1)
    xy = nodes @ np.array([[g11, 0.0], [g12, -up]]) / g11
    xy = centre + xy * (0.5 * min(_DRAWING, _CELL) - 0.06) / radius
    absent = set(look.absent)
    missing = np.array([tuple(node) in absent for node in nodes.tolist()])
    beam = np.all(nodes == 0, axis=1)
    dots = xy[~missing & ~beam]
    size = min(11.0, 60.0 / radius**1.5)  # points^2, smaller where nodes are closer
    axes.scatter(*dots.T, s=size, color=_PRESENT, linewidths=0)
    axes.scatter(*xy[missing].T, s=size, facecolors="none", edgecolors=_ABSENT, linewidths=0.6)
    axes.scatter(*xy[beam].T, s=3.2 * size, color=_PRESENT, linewidths=0)
