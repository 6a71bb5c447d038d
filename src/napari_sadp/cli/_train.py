"""``napari-sadp train``: train a network on simulated patterns."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK, axis_list, group_list, show_progress

if TYPE_CHECKING:
    import argparse


#: Options that change a field of the recipe, and what argparse needs to know of them.
_CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "--minutes": (
        "minutes",
        {
            "type": float,
            "help": "time budget in minutes for the training steps alone, over all resumptions; the spots of the crystals, validations and the "
            "outlier score come on top, which the run tells and estimates: leave room for them below the limit of a batch queue",
        },
    ),
    "--samples": (
        "samples",
        {"type": int, "help": "budget in images instead of minutes; then the seed alone fixes the result"},
    ),
    "--architecture": ("architecture", {"help": "resnet18, 34, 50, 101 or 152"}),
    "--groups": (
        "groups",
        {
            "type": group_list,
            "metavar": "LIST",
            "help": "cubic space groups, such as 221,225 (default: the article's five)",
        },
    ),
    "--zones": (
        "zones",
        {
            "type": axis_list,
            "metavar": "LIST",
            "help": "zone axes, such as 001,013 (default: the sixteen shortest)",
        },
    ),
    "--size": ("size", {"type": int, "help": "image size in pixels"}),
    "--initial": (
        "initial",
        {
            "metavar": "WEIGHTS",
            "help": "network to start from, by name or file; imagenet for the weights of torchvision, or a .pth file of them",
        },
    ),
    "--data": (
        "source",
        {"metavar": "FOLDER", "help": "data set of `napari-sadp dataset` to train on, or stream for none"},
    ),
    "--conversion": (
        "conversion",
        {
            "help": "what simulated images look like: aligned, article (turned at random) or rendered (measured nodes drawn anew)"
        },
    ),
    "--crystals": ("crystals_per_behaviour", {"type": int, "help": "crystals per extinction behaviour"}),
    "--split": ("split", {"help": "hold out structures by formula or by structure type"}),
    "--batch-size": ("batch_size", {"type": int, "help": "images per step"}),
    "--parts": (
        "parts",
        {
            "type": int,
            "help": "parts of a step with batch normalisation of their own, shared by the processes of torchrun",
        },
    ),
    "--learning-rate": ("learning_rate", {"type": float, "help": "peak of the learning rate"}),
    "--precision": ("precision", {"help": "auto, single, or half (bfloat16; auto takes it on CUDA)"}),
    "--validations": (
        "validations",
        {"type": int, "help": "how often to measure on held-out structures; the best weights are kept"},
    ),
    "--outlier-images": (
        "outlier_images",
        {"type": int, "help": "images to fit the score of none-of-these on, at the end; 0 for no score"},
    ),
    "--name": ("name", {"help": "name of the weights"}),
    "--seed": ("seed", {"type": int, "help": "seed of everything"}),
    "--device": ("device", {"help": "auto, cpu, cuda or mps"}),
}


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "train",
        help="train a network on simulated patterns",
        description="Train a ResNet on patterns simulated on the fly from the package's structures, or on a data set. A killed run "
        "goes on with --resume. The run folder gets metrics.csv, validation.csv, the same for TensorBoard in tensorboard/, and, at the end, "
        "NAME.safetensors and NAME.json for --weights: the weights that were best on held-out structures. The other options change "
        "single values of the recipe.",
        epilog="Several GPUs or machines: torchrun --nproc-per-node N -m napari_sadp.cli train --parts N ...; the result is that of one "
        "process with the same number of parts.",
    )
    command.add_argument("--out", required=True, metavar="FOLDER", help="run folder")
    command.add_argument(
        "--recipe",
        "--config",
        default="default",
        metavar="RECIPE",
        help="TOML file, or one of the package: default, rendered for measured nodes drawn anew, article for that of Ra et al. 2021, "
        "gpu_resnet18 to gpu_resnet152 for ten minutes on a GPU (default: %(default)s)",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in the folder, or begin where there is none; machines of one run share the folder",
    )
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that work out the spots of the crystals (default: the processors of this machine)",
    )
    for option, (_, keywords) in _CHANGES.items():
        command.add_argument(option, **keywords)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp.dataset.processes import processors
    from napari_sadp.models.recipe import load_recipe
    from napari_sadp.models.resnet import choose_device, describe_device
    from napari_sadp.models.train import train

    given = {field: getattr(options, option[2:].replace("-", "_")) for option, (field, _) in _CHANGES.items()}
    changes = {field: value for field, value in given.items() if value is not None}
    if "minutes" in changes:  # instead of the images of the recipe
        changes.setdefault("samples", None)
    config = load_recipe(options.recipe, **changes)
    stage, shown, told, first = "", -1.0, False, int(os.environ.get("RANK", "0")) == 0
    if first:
        print(f"device: {describe_device(choose_device(config.device))}", file=sys.stderr)
        if config.samples is None:
            print(
                f"{config.minutes:g} min are for the training steps; the spots of the crystals, validations and the outlier score come on top",
                file=sys.stderr,
            )
    workers = processors() if options.workers is None else options.workers
    for step in train(config, options.out, resume=options.resume, workers=workers):
        if not first:
            continue
        if not told and step.ahead == step.ahead:
            told = True
            show_progress("")
            print(
                f"besides the steps: {step.beside / 60:.1f} min so far, about {step.ahead / 60:.1f} min to come",
                file=sys.stderr,
                flush=True,
            )
        # terminals get every step, logs a line for every percent
        line = (
            f"{step.stage} {100 * step.fraction:5.1f} %  {step.samples} images, {step.seconds / 60:.1f} min"
        )
        if step.loss == step.loss:
            line += f", loss {step.loss:.3f}, accuracy {step.accuracy:.3f}"
        if step.validation_accuracy == step.validation_accuracy:
            line += f", held out {step.validation_accuracy:.3f} (best {step.best_accuracy:.3f})"
        if sys.stderr.isatty():
            show_progress(line)
        elif step.stage != stage or step.fraction - shown >= 0.01:
            print(line, file=sys.stderr, flush=True)
            stage, shown = step.stage, step.fraction
    if not first:
        return EXIT_OK
    show_progress("")
    print(
        f"training steps: {step.seconds / 60:.1f} min over all resumptions; all else: {step.beside / 60:.1f} min this time",
        file=sys.stderr,
    )
    print(json.dumps(step.metrics, indent=1))
    print(f"weights: {step.weights}")
    return EXIT_OK
