"""What the benchmarks of the simulation share: timing on one thread, the machine in words, and files of results."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._atomic import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Threads of the libraries under numpy and numba, read when they are loaded.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def single_threaded() -> None:
    """Start again with one thread per library, unless that is so."""
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))


def processor_ms(
    calls: dict[str, Callable[[], object]], rounds: int, before: Callable[[], object] | None = None
) -> dict[str, float]:
    """Return the least processor time of each call over some rounds of all of them [ms]; `before` each is not counted.

    On a shared machine the clock would count the work of others.
    """
    best = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            if before is not None:
                before()
            start = time.process_time()
            call()
            best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def machine() -> str:
    """Return processor, versions and load, without names."""
    model = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = listing.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, numpy {np.__version__}{load}."
    )


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of results."""
    with atomic_write(path) as stream:
        stream.write("\n".join(lines))
