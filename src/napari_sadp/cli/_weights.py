"""``napari-sadp weights``: the networks that there are, and one's own among them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK

if TYPE_CHECKING:
    import argparse


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "weights",
        help="list networks, add or remove one's own",
        description="List the networks that `--weights NAME` of other commands and the viewer know: the one in the package, and one's own, "
        "which `napari-sadp train` makes.",
        epilog="One's own are kept in the folder that NAPARI_SADP_WEIGHTS names, else where the system keeps the data of applications.",
    )
    change = command.add_mutually_exclusive_group()
    change.add_argument(
        "--add", metavar="FILE", help="take in a network: NAME.safetensors, with NAME.json beside it"
    )
    change.add_argument("--remove", metavar="NAME", help="remove one of one's own")
    command.add_argument("--name", help="name for the network to add (default: that of the file)")
    command.add_argument("--json", action="store_true", help="print a JSON list")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp.models.registry import add_weights, describe_weights, remove_weights
    from napari_sadp.models.run_card import held_out_words, truth_words

    if options.name is not None and options.add is None:
        raise ValueError(f"--name is {options.name!r}, expected with --add only")
    if options.add is not None:
        add_weights(options.add, options.name)
    if options.remove is not None:
        remove_weights(options.remove)
    rows = describe_weights()
    if options.json:
        print(json.dumps([_plain(*row) for row in rows], indent=1))
        return EXIT_OK
    for name, path, card in rows:
        about = _plain(name, path, card)
        if "error" in about:
            print(f"{name}: {about['error']}")
            continue
        measured = ""
        if card.accuracy is not None:
            measured = (
                f", {100 * card.accuracy:.1f} % of the {truth_words(card.truth)} of held-out "
                f"{held_out_words(about['split'])}"
            )
        print(
            f"{name}: {about['architecture']}, {about['size']} px, {about['conversion']}, "
            f"groups {' '.join(map(str, about['groups']))}{measured}\n  {path}"
        )
        for line in (about["data"], about["limits"]):
            if line:
                print(f"  {line}")
    return EXIT_OK


def _plain(name: str, path: Any, card: Any) -> dict[str, Any]:
    if isinstance(card, Exception):
        return {"name": name, "file": str(path), "error": str(card)}
    from napari_sadp.models.sources import trained_on

    return {
        "name": name,
        "file": str(path),
        "architecture": card.architecture,
        "size": card.size,
        "conversion": card.conversion,
        "groups": list(card.groups),
        "zones": [list(zone) for zone in card.zones],
        "classes": len(card.labels),
        "data": card.data,
        "limits": card.limits,
        "truth": card.truth,
        "split": trained_on(card)[-1].split,
        # cards of before give those of a data set a visible class too, which they were never compared with
        "accuracy_visible_class": card.metrics.get("accuracy_visible_class")
        if card.truth == "visible"
        else None,
        "accuracy_symmetry_class": card.metrics.get("accuracy_symmetry_class"),
    }
