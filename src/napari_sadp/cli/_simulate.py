"""``napari-sadp simulate``: a zone-axis pattern of a known structure, as an image and a list of spots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import EXIT_OK

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.imperfections import ImperfectPattern
    from napari_sadp.simulation.zone_pattern import SimulatedPattern

#: Options of the command and the field of `PatternSettings` that each one is.
_SETTINGS = {
    "kv": "voltage_kv",
    "thickness_nm": "thickness_nm",
    "pixel_size": "pixel_size_inv_angstrom",
    "camera_length_mm": "camera_length_mm",
    "camera_pixel_um": "camera_pixel_um",
    "size": "size",
    "g_max": "g_max_inv_angstrom",
    "tilt_mrad": "tilt_mrad",
    "relrod": "relrod",
    "spot_sigma_px": "spot_sigma_px",
    "disc_radius_px": "disc_radius_px",
    "rotation_deg": "rotation_deg",
    "gamma": "gamma",
}
#: Linear intensities in data files; an 8-bit picture would lose the weak spots.
_PNG_GAMMA = 0.5


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "simulate",
        help="simulate the pattern of a structure on a zone axis",
        description="Simulate the electron diffraction pattern of STRUCTURE on a zone axis: an image that `napari-sadp identify` "
        "and other programs read, and a CSV of its spots (h, k, l, distance g from the direct beam in 1/Angstrom, row and column in pixels, intensity, excitation "
        "error in 1/Angstrom). The strongest diffracted beam has the intensity 1.",
        epilog="Formats: hspy and emd (NCEM) with pixel size, voltage and camera length; tif (32 bit float) with the pixel size; png (8 "
        "bit, the strongest diffracted beam is 255, no calibration). Exit status: 0 done, 1 the structure cannot be used, 2 wrong usage.",
    )
    command.add_argument(
        "structure", metavar="STRUCTURE",
        help="CIF; or formula of the catalogue, such as Si or Si:227 with the space group; or its source id, such as mp-149",
    )  # fmt: skip
    command.add_argument(
        "--zone", nargs=3, type=int, required=True, metavar=("U", "V", "W"), help="zone axis, such as -1 1 0"
    )
    command.add_argument(
        "-o", "--out", required=True, metavar="OUT", help="file to write: png, tif, hspy or emd"
    )
    command.add_argument("--spots", metavar="CSV", help="file of the spots (default: OUT with .csv)")
    command.add_argument("--json", action="store_true", help="print what was made as one JSON object")
    _add_beam_options(command)
    _add_image_options(command)
    _add_imperfections(command)
    command.set_defaults(run=run)


def _add_beam_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--kv", type=float, default=200.0, help="accelerating voltage in kV (default: %(default)s)"
    )
    command.add_argument(
        "--thickness-nm", type=float, default=10.0, metavar="T", help="thickness in nm (default: %(default)s)"
    )
    command.add_argument(
        "--dynamical",
        action="store_true",
        help="Bloch waves of the zero-order Laue zone (default: kinematic)",
    )
    command.add_argument(
        "--tilt-mrad", nargs=2, type=float, default=(0.0, 0.0), metavar=("X", "Y"),
        help="tilt of the incident beam in mrad, to the right and upwards before the rotation",
    )  # fmt: skip
    command.add_argument(
        "--relrod", default="gaussian", help="gaussian, sinc or none, kinematic only (default: %(default)s)"
    )
    command.add_argument(
        "--g-max", type=float, metavar="G",
        help="largest g of a beam in 1/Angstrom (default: the corner of the image; dynamical: 2)",
    )  # fmt: skip


def _add_image_options(command: argparse.ArgumentParser) -> None:
    scale = command.add_mutually_exclusive_group()
    scale.add_argument(
        "--pixel-size", type=float, metavar="INV_ANGSTROM",
        help="size of a pixel in 1/Angstrom (default: G, or 1.5 1/Angstrom, just fits)",
    )  # fmt: skip
    scale.add_argument("--camera-length-mm", type=float, metavar="L", help="camera length in mm")
    command.add_argument(
        "--camera-pixel-um", type=float, metavar="P",
        help="size of a camera pixel in um, with --camera-length-mm (default: SIZE pixels are 30 mm)",
    )  # fmt: skip
    command.add_argument(
        "--size", type=int, default=256, help="rows and columns in pixels (default: %(default)s)"
    )
    command.add_argument(
        "--spot-sigma-px", type=float, default=2.0, metavar="S",
        help="standard deviation of the Gaussian spots in pixels (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--disc-radius-px", type=float, default=0.0, metavar="R",
        help="radius of the discs of a convergent beam in pixels; S is then their edge (default: Gaussian spots)",
    )  # fmt: skip
    command.add_argument(
        "--spot-profile", metavar="FILE", help="image of one measured spot, whose shape all spots get instead"
    )
    command.add_argument(
        "--rotation-deg", type=float, default=0.0, metavar="R",
        help="anticlockwise rotation in degrees (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--gamma", type=float, metavar="G",
        help=f"exponent of the intensities of the image (default: 1, that is linear; png: {_PNG_GAMMA:g})",
    )  # fmt: skip


def _add_imperfections(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--imperfections", default="none", metavar="STRENGTH",
        help="what a camera and a microscope add: none, mild, medium or strong (default: %(default)s). Background, noise, beam stop, "
        "distortion, off-centre beam, random rotation and more; thickness, tilt and spot size are drawn too. A png is then scaled to its brightest "
        "pixel, and the list of spots says where they fall.",
    )  # fmt: skip
    command.add_argument(
        "--seed", type=int, default=0, help="seed of the imperfections (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp._validate import check_range, check_zone_axis
    from napari_sadp.io.simulated import write_simulated
    from napari_sadp.io.structures import load_structure
    from napari_sadp.io.write import check_extension
    from napari_sadp.simulation.imperfections import choose_imperfections, simulate_imperfect
    from napari_sadp.simulation.zone_pattern import PatternSettings, simulate_pattern

    # everything that can be wrong about the arguments, before anything is read
    out = Path(options.out)
    check_extension("--out", out)
    table = Path(options.spots) if options.spots else out.with_suffix(".csv")
    for name, path in (("--out", out), ("--spots", table)):
        if not path.absolute().parent.is_dir() or path.is_dir():
            raise ValueError(f"{name} is {str(path)!r}, expected the name of a file in a folder that exists")
    if table.absolute() == out.absolute():
        raise ValueError(f"--spots is {options.spots!r}, expected another file than --out")
    zone = check_zone_axis(options.zone)
    values = {field: getattr(options, name) for name, field in _SETTINGS.items()}
    values["tilt_mrad"] = tuple(values["tilt_mrad"])
    if values["gamma"] is None:
        values["gamma"] = _PNG_GAMMA if out.suffix.lower() == ".png" else 1.0
    if options.spot_profile:
        values["spot_profile"] = _read_profile(options.spot_profile)
    settings = PatternSettings(engine="dynamical" if options.dynamical else "kinematic", **values)
    choose_imperfections(options.imperfections)
    check_range("--seed", options.seed, 0, 2**62)

    crystal = load_structure(options.structure)
    made: SimulatedPattern | ImperfectPattern
    if options.imperfections == "none":
        made = simulate_pattern(crystal, zone, settings)
        write_simulated(out, made, table=table)
    else:
        made = simulate_imperfect(crystal, zone, settings, options.imperfections, seed=options.seed)
        write_simulated(out, made, table=table, full_scale=None)
    report = _report(crystal, made, out, table)
    print(json.dumps(report, indent=1, allow_nan=False) if options.json else _sentence(report, crystal))
    return EXIT_OK


def _read_profile(name: str) -> np.ndarray:
    """Return the image of one spot."""
    from napari_sadp.io.rosetta import read_patterns
    from napari_sadp.simulation.render import check_profile

    try:
        return check_profile(next(iter(read_patterns(name))).data)
    except ValueError as error:
        raise ValueError(f"--spot-profile is {name!r}: {error}") from None


def _report(
    crystal: Crystal, made: SimulatedPattern | ImperfectPattern, out: Path, table: Path
) -> dict[str, Any]:
    """Return plain Python values, the object that ``--json`` prints."""
    imperfections = getattr(made, "parameters", None)
    return {
        "out": str(out),
        "spots": str(table),
        "structure": {
            "name": crystal.name,
            "space_group": crystal.space_group,
            "symbol": crystal.space_group_symbol,
            "cell": list(crystal.cell),
            "n_atoms": crystal.n_atoms,
            "source": crystal.source,
        },
        "zone": list(made.spots.zone),
        "engine": made.settings.engine,
        "voltage_kv": made.settings.voltage_kv,
        "thickness_nm": made.settings.thickness_nm,
        "camera_length_mm": made.settings.camera_length_mm,
        "pixel_size_inv_angstrom": float(made.pattern.pixel_size_inv_angstrom),
        "size": made.settings.size,
        "tilt_mrad": list(made.settings.tilt_mrad),
        "beam_rc": [float(x) for x in made.beam_rc],
        "gamma": made.settings.gamma,
        "n_spots": len(made.spots),
        "imperfections": imperfections,
    }


def _sentence(report: dict[str, Any], crystal: Crystal) -> str:
    from napari_sadp.labels.spacegroups import zone_name

    return (
        f"{crystal.name} ({crystal.space_group} {crystal.space_group_symbol}, {crystal.n_atoms} atoms) on "
        f"{zone_name(tuple(report['zone']))}, {report['engine']}, {report['voltage_kv']:g} kV: {report['n_spots']} spots, "
        f"{report['size']} x {report['size']} px of {report['pixel_size_inv_angstrom']:.4g} 1/Å\n"
        f"image: {report['out']}\nspots: {report['spots']}"
    )
