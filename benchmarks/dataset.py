"""How fast a data set is written: images per second and memory, PNG and shards, 1 and 2 processes.

    python benchmarks/dataset.py [--share 1] [--write docs/results/dataset.md]

A tenth of the article's structures is taken and extrapolated; ``--share 1`` makes all 79 680 images. Start of the processes is
included. The load of the machine is printed, since other work makes all numbers worse.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from _timing import THREADS, machine, write_lines

from napari_sadp.dataset.build import build_dataset
from napari_sadp.dataset.config import DatasetConfig, load_config
from napari_sadp.dataset.images import plan_dataset

ARTICLE_IMAGES = 79_680
MIB_PER_KIB = 1 / 1024


def part_of_article(share: float) -> DatasetConfig:
    """Return the article's configuration with a share of the structures of every behaviour."""
    config = load_config("article")
    counts = tuple(
        (name, max(1, round(train * share)), round(held * share)) for name, train, held in config.counts
    )
    return replace(config, counts=counts)


def measure(share: float, kind: str, workers: int, folder: str | None) -> dict[str, float]:
    """Write a data set in this process and its workers; return what it took."""
    config = replace(part_of_article(share), format=kind)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for _ in build_dataset(config, f"{place}/set", workers=workers):
            pass
        seconds = time.perf_counter() - start
        size = sum(
            os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(place) for name in names
        )
    here, child = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    memory = (here + (workers * child if workers > 1 else 0)) * MIB_PER_KIB  # Linux counts in KiB
    return {"images": len(plan_dataset(config)), "seconds": seconds, "mib": memory, "bytes": size}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--share", type=float, default=0.1, help="share of the article's structures (default: %(default)s)"
    )
    parser.add_argument("--folder", help="where to write (default: the system's folder for temporary files)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file to write the table to")
    parser.add_argument("--case", nargs=2, metavar=("FORMAT", "WORKERS"), help="one case, as JSON")
    options = parser.parse_args()
    if options.case:
        kind, workers = options.case
        print(json.dumps(measure(options.share, kind, int(workers), options.folder)))
        return
    lines = [
        "# Data sets on the disk: speed",
        "",
        machine(),
        f"Made by `benchmarks/dataset.py --share {options.share:g}`: the article's configuration, images of 256 px.",
        "",
        "| format | processes | images | s | images/s | kB/image | peak memory, MiB | 79 680 images, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for kind in ("png", "shards"):
        for workers in (1, 2):
            command = [sys.executable, __file__, "--share", str(options.share), "--case", kind, str(workers)]
            command += ["--folder", options.folder] if options.folder else []
            environment = os.environ | dict.fromkeys(THREADS, "1")
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found = json.loads(done.stdout)
            rate = found["images"] / found["seconds"]
            lines.append(
                f"| {kind} | {workers} | {found['images']} | {found['seconds']:.1f} | {rate:.0f} "
                f"| {found['bytes'] / found['images'] / 1e3:.1f} | {found['mib']:.0f} | {ARTICLE_IMAGES / rate:.0f} |"
            )
            print(lines[-1], flush=True)
    if options.write:
        write_lines(options.write, [*lines, ""])


if __name__ == "__main__":
    main()
