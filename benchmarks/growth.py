"""How the time of both engines grows with the size of the cell and the number of beams, as tables and a plot.

    python benchmarks/growth.py [--write docs/results/growth.md --plot docs/images/growth.png]

One thread; processor time, the least of several calls. Structures of the catalogue up to 1152 atoms, and cells of random
atoms without symmetry (P1), 16 Å³ each, which no symmetry helps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _timing import machine, processor_ms, single_threaded, write_lines

from napari_sadp.simulation.bloch import simulate_bloch
from napari_sadp.simulation.catalogue import find_source, find_structure
from napari_sadp.simulation.crystal import Crystal
from napari_sadp.simulation.frames import random_frames, zone_frame
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.orientations import simulate_images
from napari_sadp.simulation.reflections import _sphere, reflections, zone_reflections
from napari_sadp.simulation.zone_potential import _table, excitable_basis

if TYPE_CHECKING:
    from collections.abc import Callable

#: Name of the entry, source id.
REAL = (("Al", None), ("Si", None), ("ZnV2O4", None), ("Li3La2H6N9O30", "mp-722330"), ("Zeolite FAU", "FAU"), ("Zeolite TSC", "TSC"))  # fmt: skip
RANDOM = (8, 56, 200, 1000, 4000)
G_MAX, PIXEL, ZONE, N_BEAMS = 1.5, 0.0125, (0, 0, 1), 200
THICKNESS_NM = np.linspace(5, 50, 10)
COLUMNS = (
    "all reflections of a new crystal",
    "zone axis, new",
    "zone axis, known",
    "image in any orientation",
    f"Bloch waves, {N_BEAMS} beams, 10 thicknesses",
)


def random_cell(n: int) -> Crystal:
    """Return n atoms anywhere in a cube of 16 Å^3 each."""
    rng = np.random.default_rng(n)
    edge = float((16 * n) ** (1 / 3))
    elements = tuple(rng.choice(["Si", "O", "Al", "Mg"], n))
    return Crystal(f"random, {n} atoms", (edge,) * 3 + (90.0,) * 3, elements, rng.random((n, 3)), np.ones(n), np.full(n, 0.5), 1)  # fmt: skip


def cells() -> list[tuple[str, bool, Crystal]]:
    """Return name, whether it is real, and crystal, small to large."""
    found = []
    for name, key in REAL:
        entry = find_source(key) if key else find_structure(name, 225 if name == "Al" else 227)
        found.append(("Spinel ZnV2O4" if name == "ZnV2O4" else name, True, entry.crystal()))
    return found + [(f"P1, {n} random atoms", False, random_cell(n)) for n in RANDOM]


def forget() -> None:
    """Forget all that was worked out for any crystal."""
    for remembered in (_sphere, zone_reflections, zone_frame, excitable_basis, _table):
        remembered.cache_clear()


def of_cell(crystal: Crystal, rounds: int) -> list[float]:
    """Return the times of `COLUMNS` for a crystal [ms]."""
    n_images = 32 if crystal.n_atoms < 2000 else 4
    frames = random_frames(n_images, np.random.default_rng(0))
    kinematic = {"g_max_inv_angstrom": G_MAX}
    dynamical = {"thickness_nm": THICKNESS_NM, "g_max_inv_angstrom": G_MAX, "n_beams_max": N_BEAMS}

    def images() -> None:
        for _ in simulate_images(crystal, frames, pixel_size_inv_angstrom=PIXEL, **kinematic):
            pass

    def new_axis() -> None:
        zone_reflections.cache_clear()
        zone_frame.cache_clear()
        simulate_kinematic(crystal, ZONE, **kinematic)

    calls: list[tuple[Callable[[], object], bool]] = [
        (lambda: reflections(crystal, G_MAX), True),
        (new_axis, False),
        (lambda: simulate_kinematic(crystal, ZONE, **kinematic), False),
        (images, False),
        (lambda: simulate_bloch(crystal, ZONE, **dynamical), True),
    ]
    forget()
    images()
    times = [processor_ms({"": call}, rounds, forget if fresh else None)[""] for call, fresh in calls[1:]]
    times.insert(0, processor_ms({"": calls[0][0]}, rounds, forget)[""])
    times[3] /= n_images
    return times


def of_beams(rounds: int) -> list[tuple[str, int, int, float]]:
    """Return case, beams, size of the eigenvalue problem, and time [ms] of the Bloch waves."""
    silicon, strontium = (find_structure(*key).crystal() for key in (("Si", 227), ("SrSi2", 213)))
    cases = [
        ("Si [011], on the axis", silicon, (0, 1, 1), (0.0, 0.0)),
        ("Si [011], tilted", silicon, (0, 1, 1), (3.0, 2.0)),
        ("SrSi2 [123], tilted, no symmetry", strontium, (1, 2, 3), (3.0, 2.0)),
    ]
    rows = []
    for name, crystal, zone, tilt in cases:
        for beams in (25, 50, 100, 200, 400, 800):
            options = {
                "thickness_nm": THICKNESS_NM,
                "g_max_inv_angstrom": 4.0,
                "n_beams_max": beams,
                "tilt_mrad": tilt,
            }
            found = simulate_bloch(crystal, zone, **options).n_beams
            times = processor_ms(
                {"": lambda c=crystal, z=zone, o=options: simulate_bloch(c, z, **o)}, rounds, forget
            )
            rows.append((name, found, beams, times[""]))
            if found < 0.8 * beams:
                break  # the circle holds no more
    return rows


def plot(path: Path, by_cell: list, by_beams: list) -> None:
    """Draw both tables."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for k, column in enumerate(COLUMNS):
        for real, style in ((True, "o-"), (False, "s:")):
            points = sorted((n, times[k]) for _, is_real, n, times in by_cell if is_real == real)
            left.plot(
                *zip(*points, strict=True), style, color=f"C{k}", markersize=4, label=column if real else None
            )
    left.set(xscale="log", yscale="log", xlabel="atoms in the cell", ylabel="processor time [ms]")
    left.set_title("Size of the cell (lines: real structures, dots: P1)", fontsize=10)
    for k, name in enumerate(dict.fromkeys(row[0] for row in by_beams)):
        points = [(n, ms) for case, n, _, ms in by_beams if case == name]
        right.plot(*zip(*points, strict=True), "o-", color=f"C{k}", markersize=4, label=name)
    slowest = max(by_beams, key=lambda row: row[3])
    n = np.array([slowest[1] / 4, slowest[1]])
    right.plot(n, slowest[3] * (n / slowest[1]) ** 3, "--", color="0.6", label="cube of the number")
    right.set(xscale="log", yscale="log", xlabel="beams", ylabel="processor time [ms]")
    right.set_xticks([25, 50, 100, 200, 400, 800], labels=["25", "50", "100", "200", "400", "800"])
    right.set_xticks([], minor=True)
    right.set_title("Bloch waves, 10 thicknesses", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_figure(path, dpi=130)


def main() -> None:
    """Read the options, print the tables, write and plot them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="file for the tables")
    parser.add_argument("--plot", type=Path, help="file for the plot")
    arguments = parser.parse_args()
    single_threaded()
    lines = [
        "# How the time grows", "", machine(), "Made by `benchmarks/growth.py`. One thread, processor time [ms].", "",
        f"## With the size of the cell, |g| to {G_MAX} 1/Å, axis [001]", "",
        "| cell | atoms | reflections | " + " | ".join(COLUMNS) + " |", "|---|---|---|" + "---|" * len(COLUMNS),
    ]  # fmt: skip
    print("\n".join(lines))
    by_cell = []
    for name, real, crystal in cells():
        times = of_cell(crystal, arguments.rounds if crystal.n_atoms < 500 else 1)
        by_cell.append((name, real, crystal.n_atoms, times))
        cells_text = " | ".join(f"{ms:.2f}" if ms < 100 else f"{ms:.0f}" for ms in times)
        lines.append(f"| {name} | {crystal.n_atoms} | {len(reflections(crystal, G_MAX))} | {cells_text} |")
        print(lines[-1], flush=True)
        forget()
    head = ["", "## With the number of beams", "", "| axis | beams | time [ms] |", "|---|---|---|"]
    print("\n".join(head))
    by_beams = of_beams(arguments.rounds)
    rows = [f"| {name} | {n} | {ms:.1f} |" for name, n, _, ms in by_beams]
    print("\n".join(rows))
    lines += [*head, *rows, ""]
    if arguments.plot:
        plot(arguments.plot, by_cell, by_beams)
        if arguments.write:
            lines += ["![growth](../images/growth.png)", ""]
    if arguments.write:
        write_lines(arguments.write, lines)


if __name__ == "__main__":
    main()
