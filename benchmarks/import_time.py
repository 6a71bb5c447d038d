"""What importing costs, as the lowest of several fresh processes, since other work on the machine only adds.

    python benchmarks/import_time.py

`import napari_sadp` stays below 0.3 s; registering the extension does not slow `import hyperspy.api`, measured against the
same import with this package's entry point hidden.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 15
CLOCK = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
HIDE = (
    "import importlib.metadata as m; old = m.entry_points; "
    "m.entry_points = lambda **k: type(old(**k))(e for e in old(**k) if e.value != 'napari_sadp'); "
)


def seconds(statement: str, before: str = "import importlib.metadata; ") -> float:
    """Return the time of a statement in a fresh process [s]."""
    code = before + CLOCK.format(statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure in turns, and print a table."""
    cases = {
        "napari_sadp": ("import napari_sadp",),
        "hyperspy.api": ("import hyperspy.api",),
        "hyperspy.api, extension hidden": ("import hyperspy.api", HIDE),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(RUNS):
        for name, case in cases.items():
            times[name].append(seconds(*case))
    print("| import | lowest s | median s |\n|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {min(values):.3f} | {statistics.median(values):.3f} |")
    extra = min(times["hyperspy.api"]) - min(times["hyperspy.api, extension hidden"])
    print(f"\nThe extension adds {extra:+.3f} s to hyperspy.api.")


if __name__ == "__main__":
    main()
