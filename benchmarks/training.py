"""How much of its time training spends on its images: steps on the stream against steps on a fixed tensor.

    python benchmarks/training.py [--rounds 8] [--batch-size 64] [--size 96] [--device auto] [--write docs/results/training.md]

The steps are those of `napari_sadp.models.run.TrainingRun`, optimiser and moving average included. Rounds alternate between the two, so
that other work on the machine falls on both; processor time on a CPU, the clock elsewhere; the median of the ratios. Then every
architecture for a few steps, which proves the path and times it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _timing import machine, write_lines

from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.dataset.library import build_library
from napari_sadp.dataset.stream import PatternStream
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.ahead import Ahead
from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.recipe import TrainConfig
from napari_sadp.models.resnet import describe_device
from napari_sadp.models.run import TrainingRun

#: Images of a step for the table of architectures.
SMALL_BATCH = 16


class Fixed:
    """Gives the same batch again and again."""

    def __init__(self, stream, n):
        self.batch = stream.draw(n)

    def draw(self, number, n):
        """Return the batch."""
        return tuple(item[:n] for item in self.batch)

    def begin(self, number, n):
        """Do nothing."""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", type=Path, help="Markdown file to write the tables to")
    options = parser.parse_args()
    scheme = build_scheme()
    crystals = choose_crystals(scheme, validation=False, per_behaviour=10, rng=np.random.default_rng(0))
    library = build_library(crystals, scheme)
    config = TrainConfig(
        size=options.size, batch_size=options.batch_size, device=options.device, samples=10**9, validations=1
    )
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(config, scheme, Path(folder))
        device = run.device
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        lines = [
            f"{len(library)} patterns of {len(crystals)} crystals, {options.size} px, {describe_device(device)}. {machine()} torch "
            f"{torch.__version__}.",
            "",
            "| architecture | images of a step | step on the stream | on a fixed tensor | images a second: share of the fixed tensor's |",
            "|---|---|---|---|---|",
            share_line(run, library, clock, options.rounds),
            share_line(
                TrainingRun(replace(config, architecture="resnet50"), scheme, Path(folder)),
                library,
                clock,
                max(options.rounds // 3, 2),
            ),
            "",
            f"A step of {SMALL_BATCH} images of each architecture, and the loss over the first three:",
            "",
            "| architecture | images a second | loss |",
            "|---|---|---|",
        ]
        for name in ARCHITECTURES:
            small = replace(config, architecture=name, batch_size=SMALL_BATCH)
            lines.append(architecture_line(TrainingRun(small, scheme, Path(folder)), library, clock))
    print("\n".join(lines))
    if options.write:
        write_lines(options.write, [*lines, ""])


def stream_of(run, library):
    """Return the stream of a run."""
    config = run.config
    return PatternStream(library, size=config.size, n_classes=run.network.fc.out_features, device=run.device)


def timed(run, batches, clock, steps):
    """Return the seconds of a step, the mean of some; asking for the loss waits for the device."""
    start = clock()
    for _ in range(steps):
        run.step(batches)
    assert run.loss == run.loss
    return (clock() - start) / steps


def share_line(run, library, clock, rounds):
    """Return the line of an architecture on both sources."""
    steps = 1 if run.device.type == "cpu" else 20
    fixed = Fixed(stream_of(run, library), run.config.batch_size)
    drawn = Ahead(stream_of(run, library))
    timed(run, drawn, clock, 2), timed(run, fixed, clock, 2)
    pairs = np.array(
        [(timed(run, drawn, clock, steps), timed(run, fixed, clock, steps)) for _ in range(rounds)]
    )
    share = np.median(pairs[:, 1] / pairs[:, 0])
    fresh, kept = 1e3 * np.median(pairs, axis=0)
    return f"| {run.config.architecture} | {run.config.batch_size} | {fresh:.0f} ms | {kept:.0f} ms | {100 * share:.1f} % |"


def architecture_line(run, library, clock):
    """Return the line of a few steps."""
    batches = Ahead(stream_of(run, library))
    timed(run, batches, clock, 1)
    seconds = min(timed(run, batches, clock, 1) for _ in range(2))
    return f"| {run.config.architecture} | {run.config.batch_size / seconds:.1f} | {run.loss:.2f} |"


if __name__ == "__main__":
    main()
