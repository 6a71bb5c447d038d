"""``napari-sadp classes``: the pattern classes of space groups, from symmetry."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK, axis_of, check_picture_path, group_list

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "classes",
        help="list the pattern classes of space groups",
        description="List which space groups look alike on which zone axes, by the lattice of the spots and the absent nodes: "
        "the classes that a pattern can be named, computed from symmetry for the sixteen shortest cubic zone axes or those given.",
    )
    command.add_argument(
        "--groups", type=_groups, default="article", metavar="LIST",
        help="article (213,221,225,227,229; default), cubic (all 36), or numbers such as 221,225; what is no cubic group is named "
        "and left out",
    )  # fmt: skip
    command.add_argument(
        "--zones", type=_zone_list, metavar="LIST",
        help="zone axes such as 001,011,113, or with spaces, as in '0 0 1,1 -1 0' (default: the sixteen shortest); what is no axis is "
        "named and left out",
    )  # fmt: skip
    command.add_argument(
        "--general", action=argparse.BooleanOptionalAction, default=None,
        help="general reflection conditions alone: 227 as one, not in its three behaviours (default: for --groups cubic only)",
    )  # fmt: skip
    command.add_argument("--chirality", action="store_true", help="count mirror images as different classes")
    command.add_argument(
        "--field-of-view", type=float, metavar="R",
        help="absent nodes count out to R times the shortest spot spacing, no unit (default: 8)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print a JSON list instead of the table")
    command.add_argument(
        "--sheet", metavar="PATH", help="write a sheet with a thumbnail of every class (png, pdf, svg)"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp._validate import check_range
    from napari_sadp.labels.scheme import FIELD_OF_VIEW, build_scheme
    from napari_sadp.labels.spacegroups import CUBIC_GROUPS, CUBIC_ZONE_AXES
    from napari_sadp.report_classes import format_classes, save_sheet

    radius = FIELD_OF_VIEW
    if options.field_of_view is not None:
        radius = check_range("--field-of-view", options.field_of_view, 1, 20, "shortest spacings")
    if options.sheet is not None:
        check_picture_path("--sheet", options.sheet)
    # all cubic groups are one list of extinction conditions; 203 has the special positions of 227 too
    general = options.groups == CUBIC_GROUPS if options.general is None else options.general
    groups = _cubic(options.groups)
    zones = CUBIC_ZONE_AXES if options.zones is None else _axes(options.zones)
    scheme = build_scheme(groups, zones, field_of_view=radius, chirality=options.chirality, general=general)
    if options.sheet is not None:
        save_sheet(scheme, options.sheet)
    print(json.dumps(classes_to_list(scheme), indent=1) if options.json else format_classes(scheme))
    return EXIT_OK


def classes_to_list(scheme: PatternScheme) -> list[dict[str, Any]]:
    """Return plain Python values, the list that ``--json`` prints."""
    return [
        {
            "label": item.label,
            "type": item.type,
            "angles_deg": list(item.angles_deg),
            "members": [{"group": behaviour.name, "zone": list(zone)} for behaviour, zone in item.members],
        }
        for item in scheme.classes
    ]


def _cubic(groups: tuple[int, ...]) -> tuple[int, ...]:
    """Return the cubic groups among those asked for, and say which are none."""
    from napari_sadp.labels.spacegroups import CUBIC_GROUPS, symbol

    good = tuple(number for number in groups if number in CUBIC_GROUPS)
    if not good:
        return groups  # the scheme refuses them by name
    for number in groups:
        if number not in CUBIC_GROUPS:
            what = f"is {symbol(number)}, not cubic" if 1 <= number <= 230 else "does not exist"
            print(
                f"napari-sadp: --groups: space group {number} {what}, expected 195 to 230; it is left out",
                file=sys.stderr,
            )
    return good


def _axes(items: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """Return the zone axes among those asked for, each once, and say which are none."""
    found: dict[tuple[int, int, int], None] = {}
    wrong = []
    for item in items:
        try:
            found[axis_of(item)] = None
        except ValueError:
            wrong.append(
                f"--zones: {item!r} is no zone axis, expected three whole numbers, not all zero, such as 013 or '1 -1 0'"
            )
    if not found:
        raise ValueError(wrong[0])
    for message in wrong:
        print(f"napari-sadp: {message}; it is left out", file=sys.stderr)
    return tuple(found)


def _zone_list(text: str) -> tuple[str, ...]:
    """Return the items of a list of axes."""
    items = tuple(part.strip() for part in text.split(",") if part.strip())
    if not items:
        raise argparse.ArgumentTypeError(f"{text!r}: expected zone axes such as 001,013 or '1 -1 0'")
    return items


def _groups(text: str) -> tuple[int, ...]:
    from napari_sadp.labels.spacegroups import ARTICLE_GROUPS, CUBIC_GROUPS

    named = {"article": ARTICLE_GROUPS, "cubic": CUBIC_GROUPS}
    try:
        return named[text] if text in named else tuple(sorted(set(group_list(text))))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or article, or cubic") from None
