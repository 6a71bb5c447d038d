"""How a 4D-STEM scan is measured by the workers of a Dask cluster: time with one and two workers, and memory.

    python benchmarks/scan.py [--side 64] [--workers 1 2] [--whole 2] [--write docs/results/scan.md]

Simulates a scan of two grains and vacuum, frames of 256 x 256 px with photon noise and a wandering beam, writes it as an hspy file,
loads it lazily and computes `property_maps`; and a scan of the same make with a sixteenth of the frames. Each number of workers is
measured on the small scan, in turns, best of the rounds, and those of ``--whole`` on the large one; memory is the largest sum of the
resident memory of this process and of all workers, sampled during the run. The threads of HyperSpy's default scheduler are measured on
the small scan too. On a quiet machine with two cores the default takes half an hour; ``--side 16`` two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import dask.array as da
import hyperspy.api as hs
import numpy as np
import psutil
from _timing import machine, single_threaded, write_lines
from dask.distributed import Client

from napari_sadp.signals.sad_pattern2d import LazySADPattern2D, SADPattern2D
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.zone_pattern import simulate_pattern

SIZE = 256
#: Formula, group, zone axis and rotation of each grain [deg].
GRAINS = [("Al", 225, (0, 1, 1), 20.0), ("Si", 227, (1, 1, 2), 65.0)]
DOSE, DARK = 3000.0, 12.0  # counts in the strongest diffracted spot, and everywhere
VACUUM = 0.1  # part of the rows
WANDER_PX = 6


def main() -> None:
    """Print the table, write it if asked."""
    single_threaded()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=64, help="rows and columns of the scan, a multiple of 8")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers")
    parser.add_argument(
        "--whole",
        type=int,
        nargs="+",
        help="numbers of workers for the large scan; the largest of --workers when left out",
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured; the best counts")
    parser.add_argument("--write", type=Path, help="markdown file to write")
    options = parser.parse_args()
    if options.side % 8 or options.side < 8:
        parser.error(f"--side is {options.side}, expected a multiple of 8")
    sides = {"large": options.side, "small": max(options.side // 4, 4)}
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.hspy" for name in sides}
        for name, side in sides.items():
            start = time.perf_counter()
            scan = make_scan(side)
            scan.save(paths[name], chunks=scan.data.chunksize, show_progressbar=False)
            size = paths[name].stat().st_size / 1e6
            print(f"{side} x {side} written in {time.perf_counter() - start:.0f} s, {size:.0f} MB")
        small = measure(paths["small"], options.workers, options.rounds)
        large = measure(paths["large"], options.whole or [max(options.workers)], options.rounds)
        threads = measure_threads(paths["small"], options.workers, options.rounds)
    lines = table(options, sides, about, small, large, threads)
    print("\n".join(lines))
    if options.write:
        write_lines(options.write, lines)


# ---- the scan ----------------------------------------------------------------------------------------------------


def make_scan(side: int) -> LazySADPattern2D:
    """Return a scan whose frames are made when they are asked for: two grains side by side, vacuum below."""
    frames = [
        simulate_pattern(
            find_structure(formula, group).crystal(),
            zone,
            size=SIZE,
            pixel_size_inv_angstrom=0.0125,
            rotation_deg=turn,
        ).pattern.data
        for formula, group, zone, turn in GRAINS
    ]
    # rows and columns in one piece: small enough for many pieces, large enough for little traffic
    piece = 4 if side >= 32 else 2
    data = da.map_blocks(
        _block,
        np.stack(frames),
        side,
        chunks=((piece,) * (side // piece), (piece,) * (side // piece), (SIZE,), (SIZE,)),
        dtype=np.uint16,
        meta=np.empty((0, 0, 0, 0), np.uint16),
    )
    scan = LazySADPattern2D(data)
    for axis in scan.axes_manager.signal_axes:
        axis.scale, axis.units = 0.125, "1/nm"
    for axis, name in zip(scan.axes_manager.navigation_axes, "xy", strict=True):
        axis.name, axis.scale, axis.units = name, 2.0, "nm"
    return scan


def _block(grains: np.ndarray, side: int, block_info: dict | None = None) -> np.ndarray:
    (r0, r1), (c0, c1) = block_info[None]["array-location"][:2]
    made = np.empty((r1 - r0, c1 - c0, SIZE, SIZE), np.uint16)
    for row in range(r0, r1):
        for col in range(c0, c1):
            rng = np.random.default_rng([row, col])
            if row >= (1 - VACUUM) * side:
                mean = np.full((SIZE, SIZE), DARK)
            else:
                shift = rng.integers(-WANDER_PX, WANDER_PX + 1, 2)
                mean = DARK + DOSE * np.roll(grains[int(col >= side / 2)], shift, (0, 1))
            made[row - r0, col - c0] = np.minimum(rng.poisson(mean), 65535)
    return made


# ---- measuring ---------------------------------------------------------------------------------------------------


class Peak:
    """Samples the memory of this process and its children in the background."""

    def __enter__(self) -> Peak:
        self.total, self.largest, self._on = 0.0, 0.0, True
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while self._on:
            sizes = []
            for process in [own, *own.children(recursive=True)]:
                try:
                    sizes.append(process.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue
            self.total, self.largest = max(self.total, sum(sizes)), max(self.largest, *sizes)
            time.sleep(0.1)


@dataclass
class Run:
    """What one number of workers took: wall clock and processor time of all workers [s], memory of all and of one process [MiB]."""

    seconds: float
    processor: float
    total: float
    largest: float


def measure(path: Path, workers: list[int], rounds: int) -> dict[int, Run]:
    """Return the fastest run for each number of workers, with the largest memory of all its runs.

    A round takes the numbers of workers in turns, so that what else the machine does falls on all of them.
    """
    best: dict[int, Run] = {}
    reference = None
    for _ in range(rounds):
        for count in workers:
            cluster = {
                "n_workers": count,
                "threads_per_worker": 1,
                "processes": True,
                "dashboard_address": None,
            }
            with Client(**cluster) as client:
                # imports, and what is cached, are no part of the measurement
                client.run(_warm_up)
                before = sum(client.run(time.process_time).values())
                found = hs.load(path, lazy=True).property_maps()
                with Peak() as peak:
                    start = time.perf_counter()
                    found.compute(show_progressbar=False)
                    seconds = time.perf_counter() - start
                processor = sum(client.run(time.process_time).values()) - before
            if reference is None:
                reference = found.data
            if not np.array_equal(found.data, reference, equal_nan=True):
                raise RuntimeError(f"{count} workers gave other numbers")
            run, old = Run(seconds, processor, peak.total, peak.largest), best.get(count)
            if old is not None:
                run = replace(
                    min(run, old, key=lambda item: item.seconds),
                    total=max(run.total, old.total),
                    largest=max(run.largest, old.largest),
                )
            best[count] = run
            print(
                f"{path.stem}, {count} worker(s): {seconds:.1f} s, {processor:.1f} s of processors, {peak.total:.0f} MiB"
            )
    return best


def measure_threads(path: Path, counts: list[int], rounds: int) -> dict[int, float]:
    """Return the least time for each number of threads [s]."""
    best = dict.fromkeys(counts, np.inf)
    _warm_up()
    for _ in range(rounds):
        for count in counts:
            found = hs.load(path, lazy=True).property_maps()
            start = time.perf_counter()
            with dask.config.set(scheduler="threads"):
                found.compute(num_workers=count, show_progressbar=False)
            best[count] = min(best[count], time.perf_counter() - start)
            print(f"{path.stem}, {count} thread(s): {time.perf_counter() - start:.1f} s")
    return best


def _warm_up() -> None:
    pattern = simulate_pattern(find_structure("Al", 225).crystal(), (0, 0, 1), size=128).pattern
    SADPattern2D(pattern.data).property_maps(show_progressbar=False)


def table(
    options: argparse.Namespace,
    sides: dict[str, int],
    about: str,
    small: dict[int, Run],
    large: dict[int, Run],
    threads: dict[int, float],
) -> list[str]:
    """Return the lines of the file of results."""
    first = min(small)
    rate = sides["small"] ** 2 / small[first].seconds
    work = small[first].processor / sides["small"] ** 2
    whole = " ".join(map(str, large))
    lines = [
        "# A scan measured by the workers of a Dask cluster",
        "",
        f"`python benchmarks/scan.py --side {options.side} --workers {' '.join(map(str, small))} --whole {whole} --rounds {options.rounds}`: "
        f"`property_maps` of frames of {SIZE} x {SIZE} px from an hspy file, loaded lazily; `dask.distributed`, one thread a worker; best of "
        f"{options.rounds} round(s) in turns. {about}",
        "",
        f"| frames | workers | time s | frames a second | times as fast as {first} worker(s) | processor time s | times as fast at best "
        "| memory of all processes MiB | largest process MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for side, runs in ((sides["small"], small), (sides["large"], large)):
        for count, run in runs.items():
            at_best = count * work * side**2 / (first * run.processor)
            lines.append(
                f"| {side} x {side} | {count} | {run.seconds:.1f} | {side**2 / run.seconds:.1f} | {side**2 / run.seconds / rate:.2f} "
                f"| {run.processor:.1f} | {at_best:.2f} | {run.total:.0f} | {run.largest:.0f} |"
            )
    ratios = ", ".join(
        f"{count}: {seconds:.1f} s ({threads[first] / seconds:.2f} times as fast)"
        for count, seconds in threads.items()
    )
    data = SIZE**2 * 2 / 2**20
    lines += [
        "",
        f"The large scan is {sides['large'] ** 2 * data:.0f} MiB, the small one {sides['small'] ** 2 * data:.0f} MiB. Memory that does not grow "
        "with the scan is that of the libraries in each process, and of a few pieces at work. Processor time is that of all workers; "
        '"at best" is what it allows with a processor for each worker, where other work on the machine, which the clock counts, is away.',
        "",
        f"Threads of one process on the small scan, by their number: {ratios}. Most of the analysis is Python that calls numpy on "
        "small arrays, and threads wait for each other; use processes:",
        "",
        "```python",
        "from dask.distributed import Client",
        "",
        'if __name__ == "__main__":  # in a script; not needed in a notebook',
        "    client = Client(n_workers=2, threads_per_worker=1)  # or the address of a cluster",
        '    found = hs.load("scan.hspy", signal_type="sadp", lazy=True).property_maps()',
        "    found.compute()",
        "```",
    ]
    return lines


if __name__ == "__main__":
    main()
