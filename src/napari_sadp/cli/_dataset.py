"""``napari-sadp dataset``: a labelled data set of simulated patterns on the disk."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_INTERRUPTED, EXIT_OK, show_progress

if TYPE_CHECKING:
    import argparse

    from napari_sadp.dataset.images import DatasetPlan


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "dataset",
        help="make a labelled data set of simulated patterns",
        description="Simulate zone-axis patterns of the package's structures, or of CIFs, as labelled images with a manifest of "
        "every parameter. CONFIG is a TOML file (voltages in kV, camera lengths in mm, camera pixels in um, pixel sizes in "
        "1/Angstrom, thickness in nm, rotation in degrees), or article (the 79680 images of Ra et al. 2021), or quick. The same "
        "CONFIG gives the same bytes. A run that was stopped or killed goes on when the same command is given again.",
    )
    command.add_argument("config", metavar="CONFIG", help="TOML file, or article, or quick")
    command.add_argument("-o", "--out", required=True, metavar="FOLDER", help="folder of the data set")
    command.add_argument(
        "--workers", type=int, default=None, metavar="N",
        help="processes (default: the processors of this machine)",
    )  # fmt: skip
    command.add_argument(
        "--format", choices=("png", "shards"), default=None,
        help="one PNG for each image, or .npy arrays of many (default: what CONFIG says)",
    )  # fmt: skip
    command.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="Dask scheduler such as tcp://host:8786, whose workers see FOLDER, instead of processes here",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print a JSON summary instead of the lines")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from dataclasses import replace

    from napari_sadp.dataset.build import build_dataset
    from napari_sadp.dataset.config import load_config
    from napari_sadp.dataset.images import plan_dataset
    from napari_sadp.dataset.processes import processors

    config = load_config(options.config)
    if options.format is not None:
        config = replace(config, format=options.format)
    workers = processors() if options.workers is None else options.workers
    steps = build_dataset(config, options.out, workers=workers, scheduler=options.scheduler)
    shown, step = -1.0, None
    try:
        for step in steps:
            left = (step.total - step.done) / step.images_per_second if step.done > step.resumed else 0.0
            line = f"{step.done} of {step.total} images, {step.images_per_second:.0f}/s, {left:.0f} s left"
            # terminals get every step, logs a line for every tenth
            if sys.stderr.isatty():
                show_progress(line)
            elif step.done / step.total - shown >= 0.1:
                print(line, file=sys.stderr, flush=True)
                shown = step.done / step.total
    except KeyboardInterrupt:
        steps.close()
        show_progress("")
        done = "" if step is None else f" after {step.done} of {step.total} images"
        print(f"napari-sadp: interrupted{done}; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    show_progress("")
    found = summary(plan_dataset(config), options.out)
    found |= {"images_made": step.total - step.resumed, "seconds": round(step.seconds, 3)}
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        made = "was complete" if step.resumed == step.total else f"{found['images_made']} images made"
        print(
            f"{options.out}: {made}; {found['n_images']} images of {found['n_structures']} structures in "
            f"{found['n_classes']} classes: {found['images']['train']} for training, "
            f"{found['images']['validation']} for validation"
        )
    return EXIT_OK


def summary(plan: DatasetPlan, folder: str) -> dict[str, Any]:
    """Return plain Python values, what ``--json`` prints: counts for each part and class."""
    config = plan.config
    per_axis = len(config.settings) * config.repeats
    parts = ("train", "validation")
    images, structures = Counter(dict.fromkeys(parts, 0)), Counter(dict.fromkeys(parts, 0))
    classes = {label: dict.fromkeys(parts, 0) for label in plan.labels}
    for structure in plan.structures:
        part = parts[structure.validation]
        structures[part] += 1
        for zone in config.zones:
            images[part] += per_axis
            label = plan.labels[plan.scheme.index_of[structure.behaviour.name, zone]]
            classes[label][part] += per_axis
    return {
        "folder": folder,
        "format": config.format,
        "n_images": len(plan),
        "n_classes": len(classes),
        "n_structures": len(plan.structures),
        "images": dict(images),
        "structures": dict(structures),
        "classes": classes,
        "scheme_version": plan.scheme.version,
        "fingerprint": plan.fingerprint,
    }
