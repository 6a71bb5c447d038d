"""``napari-sadp evaluate``: measure a network and the chain around it, and write a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK, show_progress

if TYPE_CHECKING:
    import argparse


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "evaluate",
        help="measure a network on structures that it has not seen",
        description="Measure a network, and the whole chain from the camera frame to the space group, on structures that training held "
        "out, and write a report: Markdown, CSV and PNG. The report says so where the card of the network leaves open what "
        "training held out. What a folder holds of the same settings is not measured again, so that an evaluation that was stopped goes on, and all "
        "parts that are complete are in the report.",
    )
    command.add_argument(
        "--out",
        default="docs/evaluation",
        metavar="FOLDER",
        help="folder of the report (default: %(default)s)",
    )
    command.add_argument(
        "--replace", action="store_true",
        help="let rows of another network, seed, number of patterns or catalogue in the folder be replaced, part by part, as new ones are "
        "measured; without it they are an error",
    )  # fmt: skip
    command.add_argument("--weights", metavar="WEIGHTS", help="name or file (default: that of the package)")
    command.add_argument(
        "--compare", action="append", default=[], metavar="WEIGHTS",
        help="another network for the table of architectures, one that held out the same structures; where the folder has its rows already, "
        "its card (.json) is enough; may be given several times",
    )  # fmt: skip
    command.add_argument(
        "--patterns", type=int, default=2000, metavar="N",
        help="aligned patterns; frames of the other parts are a share of it, hence the time too (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--parts", type=_parts, metavar="LIST",
        help="some of aligned,frames,sweeps,groups,foreign,speed (default: all)",
    )  # fmt: skip
    command.add_argument(
        "--catalogue", metavar="FILE",
        help="a catalogue of more structures, see `napari-sadp catalogue`; those of a composition that training knew are left out, "
        "and those that it can have drawn from a catalogue of your own",
    )  # fmt: skip
    command.add_argument(
        "--workers", type=int, metavar="N",
        help="processes that work out the spots of the structures (default: the processors of this machine)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp.dataset.processes import processors
    from napari_sadp.evaluate.parts import PARTS
    from napari_sadp.evaluate.report import write_report
    from napari_sadp.evaluate.run import EvaluationConfig, evaluate
    from napari_sadp.models.resnet import choose_device, describe_device

    config = EvaluationConfig(
        weights=options.weights,
        compare=tuple(options.compare),
        patterns=options.patterns,
        parts=options.parts or PARTS,
        seed=options.seed,
        device=options.device,
        catalogue=options.catalogue,
        workers=processors() if options.workers is None else options.workers,
        replace=options.replace,
    )
    print(f"device: {describe_device(choose_device(config.device))}", file=sys.stderr)
    folder, shown = Path(options.out), ("", -1)
    steps = evaluate(config, folder / "rows")
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found = end.value
            break
        percent = 100 * step.done // max(step.total, 1)
        line = f"{step.part}: {step.done} of {step.total}"
        if sys.stderr.isatty():
            show_progress(line)
        elif (step.part, percent // 10) != shown:  # logs get a line for every tenth
            print(line, file=sys.stderr, flush=True)
            shown = (step.part, percent // 10)
    show_progress("")
    print(write_report(found, folder))
    return EXIT_OK


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
