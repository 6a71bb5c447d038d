"""``napari-sadp catalogue``: list the structures of the catalogue, or build one from CIFs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK, EXIT_UNUSABLE, show_progress

if TYPE_CHECKING:
    import argparse

    from napari_sadp.simulation.catalogue import CatalogueEntry


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "catalogue",
        help="list the structures of the catalogue, or build one from CIFs",
        description="List the structures that can be simulated by formula or source id: those of the package and those of your own. With "
        "--build, make a catalogue of your own from a folder of CIFs; set the environment variable NAPARI_SADP_CATALOGUE to its path, "
        "and every command and function uses it next to the package's.",
        epilog="Exit status: 0 something was found or built, 1 nothing was, 2 wrong usage.",
    )
    command.add_argument("--formula", help="formula; the order of the elements does not matter")
    command.add_argument(
        "--group", metavar="GROUP", help="space group: number or symbol, such as 227 or Fd-3m"
    )
    command.add_argument(
        "--behaviour", metavar="NAME",
        help="extinction behaviour: the group, for 227 with the occupied positions (227a, 227b, 227g)",
    )  # fmt: skip
    command.add_argument(
        "--elements", metavar="LIST", help="elements that must all be in it, such as Si,C; others may be, too"
    )
    command.add_argument("--json", action="store_true", help="print a JSON list instead of the table")
    command.add_argument("--build", metavar="FOLDER", help="make a catalogue from the CIFs in this folder")
    command.add_argument(
        "-o", "--out", metavar="FILE", help="catalogue to write, with --build (ends in .json.gz)"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    if (options.build is None) != (options.out is None):
        given, missing = ("--build", "--out") if options.out is None else ("--out", "--build")
        raise ValueError(f"{given} is {options.build or options.out!r}, expected together with {missing}")
    if options.build is not None:
        return _build(options)
    from napari_sadp.simulation.catalogue import search_catalogue

    elements = tuple(part.strip() for part in (options.elements or "").split(",") if part.strip())
    found = search_catalogue(
        formula=options.formula, space_group=options.group, behaviour=options.behaviour, elements=elements
    )
    if options.json:
        print(json.dumps([entry_to_dict(entry) for entry in found], indent=1))
    elif found:
        print(_table(found))
    if not found:
        print("napari-sadp: the catalogue holds no such structure", file=sys.stderr)
    return EXIT_OK if found else EXIT_UNUSABLE


def entry_to_dict(entry: CatalogueEntry) -> dict[str, Any]:
    """Return plain Python values, an item of the list that ``--json`` prints; lengths in Å, angles in degrees."""
    return {
        "formula": entry.formula,
        "space_group": entry.space_group,
        "behaviour": entry.behaviour.name,
        "cell": list(entry.cell),
        "n_atoms": entry.n_atoms,
        "key": entry.key,
        "source": entry.source,
        "source_id": entry.source_id,
        "licence": entry.licence,
        "mirrored": entry.mirrored,
    }


def _table(entries: tuple[CatalogueEntry, ...]) -> str:
    rows = [("formula", "group", "behaviour", "a [Å]", "atoms", "source id", "licence")]
    rows += [
        (
            e.formula,
            str(e.space_group),
            e.behaviour.name,
            f"{e.cell[0]:.4f}",
            str(e.n_atoms),
            e.key,
            e.licence,
        )
        for e in entries
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = {1, 3, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k in numbers else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _build(options: argparse.Namespace) -> int:
    from napari_sadp.errors import StructureError
    from napari_sadp.io.catalogue_file import build_catalogue, write_catalogue

    out = Path(options.out)
    if not out.name.lower().endswith(".json.gz") or not out.absolute().parent.is_dir():
        raise ValueError(
            f"--out is {options.out!r}, expected a name ending in .json.gz in a folder that exists"
        )
    entries: list[dict[str, Any]] = []
    failed = 0
    for path, entry in build_catalogue(options.build):
        if isinstance(entry, StructureError):
            show_progress("")
            message = str(entry) if str(path) in str(entry) else f"{path}: {entry}"
            print(f"napari-sadp: {message}", file=sys.stderr)
            failed += 1
        else:
            entries.append(entry)
            show_progress(f"{len(entries)} structures: {path.name}")
    show_progress("")
    if not entries:
        raise StructureError(f"{options.build}: none of {failed} CIFs can be used")
    write_catalogue(out, entries)
    result = {"out": str(out), "n_entries": len(entries), "n_failed": failed}
    print(json.dumps(result) if options.json else f"{len(entries)} structures, {failed} left out: {out}")
    return EXIT_OK
