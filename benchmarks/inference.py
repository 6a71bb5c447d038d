"""How much of the bare forward pass the classification of a stack reaches, and what the options cost or save.

    python benchmarks/inference.py [--images 384] [--rounds 5] [--device auto] [--write docs/results/inference.md]

The stack is a dask array of frames in a file on the disk, read batch by batch while the network works. *Share of the forward pass*: time
of the network alone on batches that lie ready on the device, over the time for the stack, both with as many views of each image. Ratios
are of rounds that alternate; the median of the rounds. Processor time on a CPU, that of reading included, so that other work on the
machine does not count; the clock elsewhere.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import torch
from _timing import machine, write_lines

from napari_sadp.models.predict import VIEWS, image_views, load_classifier
from napari_sadp.models.resnet import choose_device, describe_device, run_with_features

BATCH = 64


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--compiled", action="store_true", help="measure torch.compile too; needs a C++ compiler"
    )
    parser.add_argument("--write", type=Path, help="Markdown file to write the tables to")
    options = parser.parse_args()
    device = choose_device(options.device)
    classifier = load_classifier(None, options.device)
    size = classifier.card.size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.npy"
        stack = np.lib.format.open_memmap(path, "w+", np.float32, (options.images, size, size))
        stack[:] = np.random.default_rng(0).random(stack.shape, dtype=np.float32)
        stack.flush()
        lazy = da.from_array(np.load(path, mmap_mode="r"), chunks=(7, size, size))
        lines = [
            f"{classifier.card.architecture}, {size} px, {options.images} images, batches of {BATCH}, {describe_device(device)}; median of "
            f"{options.rounds} rounds. {machine()} torch {torch.__version__}.",
            "",
            "| views averaged | images in a second | share of the forward pass |",
            "|---|---|---|",
        ]
        for views in VIEWS[:2]:
            lines.append(stack_line(replace(classifier, views=views), lazy, options.rounds))
        lines += ["", *way_lines(classifier, lazy, options)]
    print("\n".join(lines))
    if options.write:
        write_lines(options.write, [*lines, ""])


def wait(device):
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(call, device):
    """Return the seconds of a call."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    call()
    wait(device)
    return clock() - start


def stack_line(classifier, lazy, rounds):
    """Return the line of a number of views."""
    device = classifier.device
    ready = [
        torch.from_numpy(np.asarray(lazy[start : start + BATCH]))[:, None].to(device)
        for start in range(0, len(lazy), BATCH)
    ]
    views = [
        view.contiguous(memory_format=torch.channels_last)
        for batch in ready
        for view in image_views(batch, classifier.views, classifier.card.conversion)
    ]

    def bare():
        with torch.inference_mode():
            for view in views:
                classifier.network(view)

    def whole():
        batches = (lazy[start : start + 50] for start in range(0, len(lazy), 50))
        for _ in classifier.predict_batches(batches, batch_size=BATCH):
            pass

    bare()
    pairs = [(timed(bare, device), timed(whole, device)) for _ in range(rounds)]
    share = np.median([a / b for a, b in pairs])
    return (
        f"| {classifier.views} | {len(lazy) / np.median([b for _, b in pairs]):.1f} | {100 * share:.1f} % |"
    )


def way_lines(classifier, lazy, options):
    """Return the table of ways to run the same network, each against single precision in the usual order of memory."""
    device = classifier.device
    batch = torch.from_numpy(np.asarray(lazy[:BATCH]))[:, None].to(device)
    plain = load_classifier(None, options.device, views="one")
    contiguous = copy.deepcopy(plain.network).to(memory_format=torch.contiguous_format)
    kind = torch.bfloat16 if device.type == "cpu" else torch.float16

    def run(network, images, half=False, call=run_with_features):
        def once():
            with torch.inference_mode(), torch.autocast(device.type, kind, enabled=half):
                call(network, images)

        return once

    last = batch.contiguous(memory_format=torch.channels_last)
    ways = {
        "channels last (what the package does)": run(plain.network, last),
        f"channels last, {str(kind).removeprefix('torch.')}": run(plain.network, last, half=True),
    }
    if options.compiled:
        ways["channels last, compiled"] = run(
            plain.network, last, call=torch.compile(run_with_features, dynamic=False)
        )
    usual = run(contiguous, batch)
    lines = [
        f"One batch of {BATCH} images, time over that of single precision in the usual order of memory:",
        "",
        "| way | time |",
        "|---|---|",
    ]
    usual()
    for name, call in ways.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler
            call()
        ratios = [timed(call, device) / timed(usual, device) for _ in range(options.rounds)]
        lines.append(f"| {name} | {np.median(ratios):.2f} |")
    return lines


if __name__ == "__main__":
    main()
