"""Speed of the kinematic engine, spots and images, beside diffsims, and what both say about the same patterns.

    python benchmarks/kinematic.py [--write docs/results/kinematic.md] [--device cuda]

diffsims is optional: ``pip install diffsims``. The comparison runs on one thread and counts processor time, the least of
several rounds that alternate between the two codes; images per second are by the clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from _timing import machine, processor_ms, single_threaded, write_lines

from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.crystal import Crystal, expand_sites
from napari_sadp.simulation.frames import random_frames, zone_frame
from napari_sadp.simulation.kinematic import NO_BEAM, relrod_weight, simulate_kinematic
from napari_sadp.simulation.orientations import simulate_images, simulate_orientations
from napari_sadp.simulation.reflections import _sphere, reflections, zone_reflections
from napari_sadp.simulation.render import render_pattern

G_MAX, PIXEL, SIGMA, SIZE, THICKNESS_NM, B_ISO = 1.5, 0.0125, 2.0, 256, 10.0, 0.5
#: |s_g| at which the Gaussian relrod of this thickness ends [1/Å]; both codes stop there.
S_MAX = float(np.sqrt(-3 * np.log(NO_BEAM)) / (10 * np.pi * THICKNESS_NM))


def spinel() -> Crystal:
    """Return MgAl2O4, 56 atoms."""
    group = gemmi.get_spacegroup_reference_setting(227)
    sites = (("Mg", 1 / 8), ("Al", 1 / 2), ("O", 0.2624))
    orbits = [(element, expand_sites(group, np.full(3, x))) for element, x in sites]
    positions = np.concatenate([orbit for _, orbit in orbits])
    ones = np.ones(len(positions))
    elements = tuple(element for element, orbit in orbits for _ in orbit)
    return Crystal("MgAl2O4", (8.0832,) * 3 + (90.0,) * 3, elements, positions, ones, B_ISO * ones, 227)


def crystals() -> list[Crystal]:
    """Return silicon, aluminium and spinel."""
    return [find_structure("Si", 227).crystal(), find_structure("Al", 225).crystal(), spinel()]


def frames_of(crystal: Crystal, kind: str, n: int) -> np.ndarray:
    """Return n random orientations, or the sixteen shortest cubic zone axes again and again."""
    if kind == "random":
        return random_frames(n, np.random.default_rng(1))
    axes = [zone_frame(crystal, zone) for zone in CUBIC_ZONE_AXES]
    return np.array([axes[i % len(axes)] for i in range(n)])


class Diffsims:
    """The same patterns by diffsims: Lobato's scattering factors, the same B, relrod and circle."""

    def __init__(self, crystal: Crystal) -> None:
        from diffpy.structure import Atom, Lattice, Structure
        from diffsims.generators.simulation_generator import SimulationGenerator
        from orix.crystal_map import Phase

        atoms = zip(crystal.elements, crystal.positions, crystal.occupancies, strict=True)
        structure = Structure(
            atoms=[Atom(element, xyz, occupancy=occupancy) for element, xyz, occupancy in atoms],
            lattice=Lattice(*crystal.cell),
        )
        self.phase = Phase(name=crystal.name, space_group=crystal.space_group, structure=structure)
        self.damping = dict(zip(crystal.elements, crystal.b_iso.tolist(), strict=True))
        self.generator = SimulationGenerator(
            200,
            scattering_params="lobato",
            shape_factor_model=lambda s, _: relrod_weight(np.asarray(s), THICKNESS_NM, "gaussian"),
            minimum_intensity=1e-6,
        )

    def lists(self, frames: np.ndarray) -> Any:
        """Return the simulation of all orientations."""
        from orix.quaternion import Rotation

        return self.generator.calculate_diffraction2d(
            self.phase,
            rotation=Rotation.from_matrix(frames.swapaxes(1, 2)),
            reciprocal_radius=G_MAX,
            max_excitation_error=S_MAX,
            debye_waller_factors=self.damping,
        )

    def images(self, simulation: Any, n: int) -> list[np.ndarray]:
        """Return the images, spots at whole pixels, which is its fast way."""
        drawn = []
        for index in range(n):
            one = simulation.irot[index] if n > 1 else simulation
            drawn.append(one.get_diffraction_pattern(shape=(SIZE, SIZE), sigma=SIGMA, calibration=PIXEL))
        return drawn

    def spots(self, simulation: Any, index: int) -> dict[tuple[int, int, int], np.ndarray]:
        """Return x, y [1/Å] and the relative intensity of each diffracted beam of one of several orientations."""
        found = simulation.coordinates[index]
        rows = np.rint(found.hkl).astype(int)
        values = np.column_stack([found.data[:, :2], found.intensity])[rows.any(axis=1)]
        values[:, 2] /= values[:, 2].max()
        return dict(zip(map(tuple, rows[rows.any(axis=1)].tolist()), values, strict=True))


def agreement(crystal: Crystal, peer: Diffsims, frames: np.ndarray) -> tuple[float, float]:
    """Return the largest differences of places [1/Å] and of relative intensities over all orientations."""
    theirs, ours = peer.lists(frames), simulate_orientations(crystal, frames, g_max_inv_angstrom=G_MAX)
    place = strength = 0.0
    for index in range(len(frames)):
        spots = peer.spots(theirs, index)
        n = int(ours.count[index])
        for hkl, xy, value in zip(
            ours.hkl(index).tolist(), ours.g_xy[index, :n], ours.intensity[index, :n], strict=True
        ):
            x, y, other = spots.pop(tuple(hkl), (*xy, 0.0))
            place = max(place, float(np.hypot(xy[0] - x, xy[1] - y)))
            strength = max(strength, abs(float(value) - other))
        strength = max([strength, *(value[2] for value in spots.values())])
    return place, strength


def together_row(crystal: Crystal, kind: str, n: int, rounds: int) -> str:
    """Return the row of many orientations in one call."""
    frames = frames_of(crystal, kind, n)
    peer = Diffsims(crystal)
    simulation = peer.lists(frames)
    spots = simulate_orientations(crystal, frames, g_max_inv_angstrom=G_MAX)
    times = processor_ms(
        {
            "their list": lambda: peer.lists(frames),
            "their image": lambda: peer.images(simulation, n),
            "our list": lambda: simulate_orientations(crystal, frames, g_max_inv_angstrom=G_MAX),
            "our image": lambda: spots.images(pixel_size_inv_angstrom=PIXEL, spot_sigma_px=SIGMA, size=SIZE),
        },
        rounds,
    )
    a, b, c, d = (value / n for value in times.values())
    count = np.mean([len(peer.spots(simulation, index)) for index in range(n)])
    place, strength = agreement(crystal, peer, frames)
    return (
        f"| {crystal.name} | {kind} | {spots.count.mean():.0f} / {count:.0f} | {c:.3f} + {d:.3f} | {a:.2f} + {b:.2f} | "
        f"**{(a + b) / (c + d):.0f}** | {place:.0e} | {strength:.3f} |"
    )


def single_row(crystal: Crystal, rounds: int) -> str:
    """Return the row of one zone axis per call, as a person asks for it."""
    frames = frames_of(crystal, "zone axes", len(CUBIC_ZONE_AXES))
    peer = Diffsims(crystal)

    def theirs() -> None:
        for frame in frames:
            peer.images(peer.lists(frame[None]), 1)

    def again() -> None:
        for zone in CUBIC_ZONE_AXES:
            spots = simulate_kinematic(crystal, zone, thickness_nm=THICKNESS_NM, g_max_inv_angstrom=G_MAX)
            render_pattern(spots, pixel_size_inv_angstrom=PIXEL, spot_sigma_px=SIGMA)

    def new_axes() -> None:
        zone_reflections.cache_clear()
        zone_frame.cache_clear()
        again()

    def new_crystals() -> None:
        for zone in CUBIC_ZONE_AXES:
            _sphere.cache_clear()
            zone_reflections.cache_clear()
            zone_frame.cache_clear()
            spots = simulate_kinematic(crystal, zone, thickness_nm=THICKNESS_NM, g_max_inv_angstrom=G_MAX)
            render_pattern(spots, pixel_size_inv_angstrom=PIXEL, spot_sigma_px=SIGMA)

    calls = {"theirs": theirs, "crystal": new_crystals, "axis": new_axes, "known": again}
    times = {name: value / len(frames) for name, value in processor_ms(calls, rounds).items()}
    theirs_ms = times.pop("theirs")
    ours = " | ".join(f"{value:.2f}" for value in times.values())
    ratios = ", ".join(f"**{theirs_ms / value:.0f}**" for value in times.values())
    return f"| {crystal.name} | {ours} | {theirs_ms:.1f} | {ratios} |"


def images_per_second(
    crystal: Crystal, kind: str, n: int, *, workers: int, device: str, rounds: int
) -> tuple[float, float]:
    """Return lists and images made per second of the clock, and per second of a processor."""
    frames = frames_of(crystal, kind, n)
    clock = processor = np.inf
    for _ in range(rounds):
        start = time.perf_counter(), time.process_time()
        for _, images in simulate_images(
            crystal,
            frames,
            pixel_size_inv_angstrom=PIXEL,
            g_max_inv_angstrom=G_MAX,
            workers=workers,
            device=device,
        ):
            last = images
        float(last[-1, 0, 0])  # a device has then done its work
        clock = min(clock, time.perf_counter() - start[0])
        processor = min(processor, time.process_time() - start[1])
    return n / clock, n / processor


def peers_text(rounds: int) -> list[str]:
    """Return the tables beside diffsims."""
    from importlib.metadata import version

    lines = [
        "## Beside diffsims, one thread",
        "",
        f"diffsims {version('diffsims')}; both: 200 kV, {THICKNESS_NM:g} nm, Gaussian relrod to |s| = {S_MAX:.4f} 1/Å, B {B_ISO} Å², |g| to",
        f"{G_MAX} 1/Å, intensities above 1e-6, {SIZE} x {SIZE} px, spots of {SIGMA:g} px. Processor time per pattern, list + image. diffsims",
        "draws at whole pixels (`fast=True`), this package between them. Scattering factors: table 4.3.2.2 of International",
        "Tables C here, Lobato's there; hence the difference of relative intensities.",
        "",
        "### Many orientations in one call",
        "",
        "| crystal | orientations | spots, ours / diffsims | ours [ms] | diffsims [ms] | times faster | places differ [1/Å] | intensities differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for crystal in crystals():
        for kind in ("random", "zone axes"):
            lines.append(together_row(crystal, kind, 64, rounds))
            print(lines[-1], flush=True)
    lines += [
        "",
        "### One zone axis per call",
        "",
        "Mean of the sixteen shortest cubic axes, `simulate_kinematic` and `render_pattern` (double precision): of a crystal",
        "never asked for before, another axis of a known crystal, and a known axis with another thickness, voltage or tilt.",
        "",
        "| crystal | ours, new crystal [ms] | new axis [ms] | known axis [ms] | diffsims [ms] | times faster |",
        "|---|---|---|---|---|---|",
    ]
    for crystal in crystals():
        lines.append(single_row(crystal, rounds))
        print(lines[-1], flush=True)
    return [*lines, ""]


def speed_text(n: int, device: str, rounds: int) -> list[str]:
    """Return the table of images per second."""
    cases = [(1, "cpu"), (2, "cpu")] + ([(1, device)] if device != "cpu" else [])
    heads = ["1 thread", "1 thread, per second of processor time", "2 threads"] + (
        [device] if device != "cpu" else []
    )
    lines = [
        "## Images per second, list and image",
        "",
        f"`simulate_images`, {n} orientations a run, float32, best of {rounds} by the clock, which other work on the machine slows",
        "down; reflections known.",
        "",
        "| crystal | orientations | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    for crystal in crystals():
        reflections(crystal, G_MAX)
        for kind in ("random", "zone axes"):
            rates = [
                images_per_second(crystal, kind, n, workers=workers, device=place, rounds=rounds)
                for workers, place in cases
            ]
            columns = [rates[0][0], rates[0][1], *(clock for clock, _ in rates[1:])]
            lines.append(
                f"| {crystal.name} | {kind} | " + " | ".join(f"{rate:.0f}" for rate in columns) + " |"
            )
            print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Read the options, print the tables, and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="torch device that is timed too, such as cuda")
    parser.add_argument("--n", type=int, default=1024, help="orientations a run for images per second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    single_threaded()
    lines = ["# Kinematic engine: speed", "", machine(), "Made by `benchmarks/kinematic.py`.", ""]
    print("\n".join(lines))
    lines += speed_text(arguments.n, arguments.device, arguments.rounds)
    if importlib.util.find_spec("diffsims"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of diffsims are its own
            lines += peers_text(arguments.rounds)
    else:
        print("diffsims is not installed: nothing to compare with")
    if arguments.write:
        write_lines(arguments.write, lines)


if __name__ == "__main__":
    main()
