"""Speed of the Bloch-wave engine, and its intensities beside those of abTEM.

    python benchmarks/bloch.py                                                # patterns per second
    python benchmarks/bloch.py --abtem [--write docs/results/bloch_vs_abtem.md]  # needs abtem >= 1.0.11

One thread is meant: set ``OMP_NUM_THREADS=1``. abTEM gets the same atoms, scattering factors (table 4.3.2.2 of International
Tables C), Debye-Waller factors and circle of beams; it also takes higher Laue zones, which the engine leaves out.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from napari_sadp._atomic import atomic_write
from napari_sadp.simulation.bloch import simulate_bloch
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.kinematic import zone_frame
from napari_sadp.simulation.zone_potential import excitable_basis

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sadp.simulation.crystal import Crystal

STRUCTURES = [("SrSi2", 213), ("CsCl", 221), ("Al", 225), ("Si", 227), ("MgCu2", 227), ("Fe", 229)]
ZONES = [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
THICKNESS_NM = [5.0, 10.0, 20.0, 40.0]
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


def abtem_table(g_max: float) -> str:
    """Return the comparison as a markdown table."""
    import abtem

    lines = [
        "# Bloch waves: this package and abTEM",
        "",
        f"abTEM {abtem.__version__}, 200 kV, exact axis, B 0.5 Å², beams up to {g_max} 1/Å (abTEM: of all Laue zones",
        f"with |s| below {SG_MAX} 1/Å), the same scattering factors. Largest difference of any beam of the zone, over the",
        "strongest diffracted beam; processor time for the four thicknesses, structure",
        "factors included (abTEM's are three-dimensional). Made by `benchmarks/bloch.py --abtem`.",
        "",
        "| structure | axis | beams, ours | beams, abTEM | 5 nm | 10 nm | 20 nm | 40 nm | ours [ms] | abTEM [ms] |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for formula, group in STRUCTURES:
        crystal = find_structure(formula, group).crystal()
        for zone in ZONES:
            difference, n_ours, n_theirs = compare(crystal, zone, g_max=g_max)
            ours = best_of(
                lambda c=crystal, z=zone: fresh(c, z, thickness_nm=THICKNESS_NM, g_max_inv_angstrom=g_max)
            )
            theirs = best_of(lambda c=crystal, z=zone: abtem_intensities(c, z, THICKNESS_NM, g_max=g_max), 2)
            cells = [f"{formula} ({group})", "[{}{}{}]".format(*zone), n_ours, n_theirs]
            cells += [f"{value:.4f}" for value in difference] + [f"{1e3 * ours:.1f}", f"{1e3 * theirs:.0f}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def fresh(crystal: Crystal, zone: tuple[int, int, int], **options: object) -> None:
    """Simulate as if the axis had never been asked for before."""
    excitable_basis.cache_clear()
    simulate_bloch(crystal, zone, **options)


def best_of(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the least processor time of several calls [s]; on a shared machine the clock would count the others."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def speed() -> None:
    """Print patterns per second for 100, 200 and 400 beams."""
    silicon, strontium = (find_structure(*key).crystal() for key in (("Si", 227), ("SrSi2", 213)))
    cases = [
        ("Si [011], on the axis", silicon, (0, 1, 1), (0.0, 0.0)),
        ("Si [011], tilted", silicon, (0, 1, 1), (3.0, 2.0)),
        ("SrSi2 [001], on the axis", strontium, (0, 0, 1), (0.0, 0.0)),
        ("SrSi2 [001], tilted", strontium, (0, 0, 1), (3.0, 2.0)),
        ("SrSi2 [123], no symmetry", strontium, (1, 2, 3), (3.0, 2.0)),
    ]
    print(f"{'':28}{'beams':>6}{'setups/s':>10}{'patterns/s with 10 thicknesses':>32}{'with 50':>9}")
    for name, crystal, zone, tilt in cases:
        for beams in (100, 200, 400):
            options = {"g_max_inv_angstrom": 4.0, "n_beams_max": beams, "tilt_mrad": tilt}
            seconds = [
                best_of(
                    lambda n=n, c=crystal, z=zone, o=options: fresh(
                        c, z, thickness_nm=np.linspace(1, 60, n), **o
                    )
                )
                for n in (1, 10, 50)
            ]
            n_beams = simulate_bloch(crystal, zone, thickness_nm=1, **options).n_beams
            print(f"{name:28}{n_beams:6}{1 / seconds[0]:10.1f}{10 / seconds[1]:32.0f}{50 / seconds[2]:9.0f}")


def main() -> None:
    """Read the options and print one of the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--abtem", action="store_true", help="compare with abTEM")
    parser.add_argument("--g-max", type=float, default=1.5, help="circle of beams of the comparison [1/Å]")
    parser.add_argument("--write", type=Path, help="file for the table")
    arguments = parser.parse_args()
    if not arguments.abtem:
        speed()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of abtem are its own
        table = abtem_table(arguments.g_max)
    if arguments.write:
        with atomic_write(arguments.write) as stream:
            stream.write(table)


if __name__ == "__main__":
    main()
