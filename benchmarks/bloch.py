"""Speed of the Bloch-wave engine, and its intensities and speed beside those of abTEM.

    python benchmarks/bloch.py [--write docs/results/bloch.md]

abTEM is optional: ``pip install "abtem>=1.0.11"``. One thread, processor time. abTEM gets the same atoms, scattering factors
(table 4.3.2.2 of International Tables C), Debye-Waller factors and circle of beams; it also takes higher Laue zones, which
the engine leaves out.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import gemmi
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for the tests, which load this file by its path
from _timing import machine, processor_ms, single_threaded, write_lines

from napari_sadp.simulation.bloch import simulate_bloch
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.frames import zone_frame
from napari_sadp.simulation.reflections import _sphere, zone_reflections
from napari_sadp.simulation.zone_potential import _table, excitable_basis

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

STRUCTURES = [
    ("SrSi2", 213),
    ("CsCl", 221),
    ("Al", 225),
    ("Si", 227),
    ("MgCu2", 227),
    ("Fe", 229),
    ("GaAs", 216),
]
ZONES = [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
THICKNESS_NM = [5.0, 10.0, 20.0, 40.0]
#: Thicknesses of the patterns per second.
MANY_NM = np.linspace(2, 60, 20)
#: Larger excitation errors [1/Å] than any beam of the zone axis has within the circle.
SG_MAX = 0.05


def abtem_intensities(
    crystal: Crystal,
    zone: tuple[int, int, int],
    thickness_nm: list[float],
    *,
    g_max: float,
    kv: float = 200.0,
) -> dict[tuple[int, int, int], np.ndarray]:
    """Return the intensities (t,) of every beam of abTEM's Bloch waves, the direct beam included."""
    import abtem
    import ase
    from abtem.bloch import BlochWaves, StructureFactor
    from abtem.parametrizations import PengParametrization

    abtem.config.set({"precision": "float64"})
    if crystal.occupancies.min() < 1 or np.ptp(crystal.b_iso) > 0:
        raise ValueError(f"{crystal.name}: expected full occupancies and one B for all atoms")
    table = {
        element: np.array([gemmi.Element(element).c4322.a, gemmi.Element(element).c4322.b])
        for element in sorted(set(crystal.elements))
    }
    atoms = ase.Atoms(
        crystal.elements, scaled_positions=crystal.positions, cell=crystal.direct_basis(), pbc=True
    )
    factors = StructureFactor(
        atoms,
        g_max=2.2 * g_max,
        parametrization=PengParametrization(table),
        thermal_sigma=float(np.sqrt(crystal.b_iso[0] / (8 * np.pi**2))),
        cutoff="hard",
    )
    waves = BlochWaves(
        factors,
        energy=1e3 * kv,
        sg_max=SG_MAX,
        g_max=g_max,
        orientation_matrix=zone_frame(crystal, zone),
    )
    patterns = waves.calculate_diffraction_patterns([10 * t for t in thickness_nm], lazy=False)
    rows = np.array(patterns.miller_indices).tolist()
    return dict(zip(map(tuple, rows), np.array(patterns.array).T, strict=True))


def compare(crystal: Crystal, zone: tuple[int, int, int], *, g_max: float) -> tuple[np.ndarray, int, int]:
    """Return the largest difference from abTEM over the strongest beam at each thickness, and the numbers of beams."""
    ours = simulate_bloch(crystal, zone, thickness_nm=THICKNESS_NM, g_max_inv_angstrom=g_max)
    theirs = abtem_intensities(crystal, zone, THICKNESS_NM, g_max=g_max)
    strongest = np.max([value for hkl, value in theirs.items() if any(hkl)], axis=0)
    relative = ours.intensity / ours.intensity.max(axis=1, keepdims=True)
    mine = dict(zip(map(tuple, ours.hkl.tolist()), relative.T, strict=True))
    nothing = np.zeros(len(THICKNESS_NM))
    in_zone = [hkl for hkl in theirs if any(hkl) and not np.dot(hkl, zone)]
    difference = [np.abs(mine.get(hkl, nothing) - theirs[hkl] / strongest) for hkl in in_zone]
    return np.max(difference, axis=0), ours.n_beams, len(theirs)


def forget() -> None:
    """Forget all that was worked out for any crystal or axis."""
    for remembered in (_sphere, zone_reflections, zone_frame, excitable_basis, _table):
        remembered.cache_clear()


def abtem_text(g_max: float, rounds: int) -> list[str]:
    """Return the table beside abTEM."""
    import abtem

    lines = [
        "## Beside abTEM",
        "",
        f"abTEM {abtem.__version__}, 200 kV, exact axis, B 0.5 Å², beams up to {g_max} 1/Å (abTEM: of all Laue zones with |s| below",
        f"{SG_MAX} 1/Å), the same scattering factors. Largest difference of any beam of the zone, over the strongest diffracted",
        f"beam; and patterns per second for {len(MANY_NM)} thicknesses of a new crystal, structure factors included (abTEM's are",
        "three-dimensional), each thickness a pattern.",
        "",
        "| structure | axis | beams, ours / abTEM | 5 nm | 10 nm | 20 nm | 40 nm | ours [patterns/s] | abTEM [patterns/s] | times faster |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for formula, group in STRUCTURES:
        crystal = find_structure(formula, group).crystal()
        for zone in ZONES:
            difference, n_ours, n_theirs = compare(crystal, zone, g_max=g_max)
            calls = {
                "ours": lambda c=crystal, z=zone: simulate_bloch(
                    c, z, thickness_nm=MANY_NM, g_max_inv_angstrom=g_max, n_beams_max=4000
                ),
                "abTEM": lambda c=crystal, z=zone: abtem_intensities(c, z, MANY_NM.tolist(), g_max=g_max),
            }
            times = processor_ms(calls, rounds, forget)
            ours, theirs = (1e3 * len(MANY_NM) / times[name] for name in calls)
            cells = [f"{formula} ({group})", "[{}{}{}]".format(*zone), f"{n_ours} / {n_theirs}"]
            cells += [f"{value:.4f}" for value in difference]
            cells += [f"{ours:.0f}", f"{theirs:.0f}", f"**{ours / theirs:.0f}**"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            print(lines[-1], flush=True)
    return [*lines, ""]


def speed_text(rounds: int) -> list[str]:
    """Return the table of patterns per second for 100, 200 and 400 beams."""
    silicon, strontium = (find_structure(*key).crystal() for key in (("Si", 227), ("SrSi2", 213)))
    cases = [
        ("Si [011], on the axis", silicon, (0, 1, 1), (0.0, 0.0)),
        ("Si [011], tilted", silicon, (0, 1, 1), (3.0, 2.0)),
        ("SrSi2 [001], on the axis", strontium, (0, 0, 1), (0.0, 0.0)),
        ("SrSi2 [001], tilted", strontium, (0, 0, 1), (3.0, 2.0)),
        ("SrSi2 [123], tilted, no symmetry", strontium, (1, 2, 3), (3.0, 2.0)),
    ]
    counts = (1, 10, 50)
    lines = [
        "## Patterns per second and core",
        "",
        "Each thickness a pattern; an axis never asked for before, structure factors and everything else included, and a known",
        "axis with another tilt, voltage or thickness.",
        "",
        "| axis | beams | "
        + " | ".join(f"{n} thickness{'es' if n > 1 else ''}" for n in counts)
        + " | 10, known axis |",
        "|---|---|" + "---|" * (len(counts) + 1),
    ]
    for name, crystal, zone, tilt in cases:
        for beams in (100, 200, 400):
            options = {"g_max_inv_angstrom": 4.0, "n_beams_max": beams, "tilt_mrad": tilt}
            calls = {
                n: lambda n=n, c=crystal, z=zone, o=options: simulate_bloch(
                    c, z, thickness_nm=np.linspace(1, 60, n), **o
                )
                for n in counts
            }
            times = processor_ms(calls, rounds, forget)
            known = processor_ms({"": calls[10]}, 2 * rounds)[""]
            found = simulate_bloch(crystal, zone, thickness_nm=1, **options).n_beams
            rates = [1e3 * n / times[n] for n in counts] + [1e4 / known]
            lines.append(f"| {name} | {found} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |")
            print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Read the options, print the tables, and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--g-max", type=float, default=1.5, help="circle of beams of the comparison [1/Å]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    single_threaded()
    lines = ["# Bloch waves: speed, and beside abTEM", "", machine(), "Made by `benchmarks/bloch.py`.", ""]
    print("\n".join(lines))
    lines += speed_text(arguments.rounds)
    if importlib.util.find_spec("abtem"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of abtem are its own
            lines += abtem_text(arguments.g_max, arguments.rounds)
    else:
        print("abtem is not installed: nothing to compare with")
    if arguments.write:
        write_lines(arguments.write, lines)


if __name__ == "__main__":
    main()
