"""``napari-sadp train``: train a network on simulated patterns."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK, group_list, show_progress

if TYPE_CHECKING:
    import argparse


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "train",
        help="train a network on simulated patterns",
        description="Train a ResNet on patterns simulated on the fly from the package's structures. A killed run goes on with "
        "--resume. The run folder gets metrics.csv and, at the end, NAME.safetensors and NAME.json for --weights.",
    )
    command.add_argument("--out", required=True, metavar="FOLDER", help="run folder")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    command.add_argument(
        "--minutes",
        type=float,
        default=40.0,
        help="time budget of the whole run in minutes (default: %(default)s)",
    )
    command.add_argument(
        "--samples",
        type=int,
        help="budget in images instead of minutes; then the seed alone fixes the result",
    )
    command.add_argument(
        "--architecture", default="resnet18", help="resnet18, 34, 50, 101 or 152 (default: %(default)s)"
    )
    command.add_argument(
        "--groups",
        type=group_list,
        metavar="LIST",
        help="cubic space groups, such as 221,225 (default: the article's five)",
    )
    command.add_argument("--size", type=int, default=96, help="image size in pixels (default: %(default)s)")
    command.add_argument(
        "--crystals", type=int, default=120, help="crystals per extinction behaviour (default: %(default)s)"
    )
    command.add_argument("--batch-size", type=int, default=64, help="images per step (default: %(default)s)")
    command.add_argument("--name", default="sadp_resnet18", help="name of the weights (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp.labels.spacegroups import ARTICLE_GROUPS
    from napari_sadp.models.train import TrainConfig, train

    config = TrainConfig(
        name=options.name,
        architecture=options.architecture,
        groups=options.groups or ARTICLE_GROUPS,
        size=options.size,
        crystals_per_behaviour=options.crystals,
        batch_size=options.batch_size,
        minutes=options.minutes,
        samples=options.samples,
        seed=options.seed,
        device=options.device,
    )
    stage, shown = "", -1.0
    for step in train(config, options.out, resume=options.resume):
        # terminals get every step, logs a line for every percent
        line = (
            f"{step.stage} {100 * step.fraction:5.1f} %  {step.samples} images, {step.seconds / 60:.1f} min"
        )
        if step.loss == step.loss:
            line += f", loss {step.loss:.3f}, accuracy {step.accuracy:.3f}"
        if sys.stderr.isatty():
            show_progress(line)
        elif step.stage != stage or step.fraction - shown >= 0.01:
            print(line, file=sys.stderr, flush=True)
            stage, shown = step.stage, step.fraction
    show_progress("")
    print(json.dumps(step.metrics, indent=1))
    print(f"weights: {step.weights}")
    return EXIT_OK
