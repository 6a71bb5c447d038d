"""Sample patterns: made by the simulator from the catalogue, and the folder of sample files.

The samples look like what a camera gives, as far as kinematic diffraction goes: whole counts, a direct beam away from
the centre, a rotated crystal, diffuse background and shot noise. The same arguments give the same counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range, check_zone_axis
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.render import render_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sadp.pattern import DiffractionPattern

#: Zone axes of the sample stacks.
SAMPLE_ZONES: tuple[tuple[int, int, int], ...] = ((0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 3))
#: Pixel size of all samples [1/Å]: half a frame of 256 px reaches 1.6 1/Å.
SAMPLE_PIXEL_SIZE = 0.0125

_SIZE = 256
_BEAM_SHIFT = 8.0  # the direct beam is this far from the centre of the frame, at most [px]
_SPOT_SIGMA = 2.0  # [px]
_STRONGEST = 4000.0  # height of the strongest diffracted beam [counts]
_DIRECT_BEAM = 4.0  # height of the direct beam over that
_THICKNESS = 5.0  # [nm]
_FLOOR = 12.0  # constant background [counts]
_DIFFUSE = 150.0  # background under the direct beam [counts] ...
_DIFFUSE_RADIUS = 30.0  # ... and the radius at which it has fallen to 1/e [px]


@dataclass(frozen=True)
class Sample:
    """A crystal of the sample menu.

    Parameters
    ----------
    formula : str
        As the catalogue spells it.
    space_group : int
        Number.
    seed : int
        Of the random numbers.
    """

    formula: str
    space_group: int
    seed: int


#: The samples by key, one for each space group of the bundled network.
SAMPLES: dict[str, Sample] = {
    "si": Sample("Si", 227, 1),
    "al": Sample("Al", 225, 2),
    "fe": Sample("Fe", 229, 3),
    "cscl": Sample("CsCl", 221, 4),
    "srsi2": Sample("SrSi2", 213, 5),
}


def sample_dir() -> Path:
    """Return the folder of the sample files, of an installed package or of a checkout.

    Returns
    -------
    pathlib.Path
        The folder ``sample_data``.
    """
    packaged = Path(str(files("napari_sadp"))) / "sample_data"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "sample_data"


def simulated_sample(
    formula: str,
    space_group: int | None,
    zone: tuple[int, int, int],
    *,
    voltage_kv: float = 200.0,
    pixel_size_inv_angstrom: float = SAMPLE_PIXEL_SIZE,
    seed: int = 0,
) -> DiffractionPattern:
    """Simulate a zone-axis pattern as a camera would record it.

    Parameters
    ----------
    formula : str
        Formula of a structure of the catalogue, such as ``"Si"``.
    space_group : int or None
        Number of its space group; None takes the structure with the fewest atoms.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    voltage_kv : float
        Accelerating voltage [kV].
    pixel_size_inv_angstrom : float
        Size of a pixel [1/Å].
    seed : int
        Of the position of the beam, the rotation and the noise.

    Returns
    -------
    DiffractionPattern
        256 x 256 px of whole counts, calibrated.

    Raises
    ------
    StructureError
        If the catalogue holds no such structure.
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> pattern = simulated_sample("Al", 225, (0, 0, 1), seed=7)
    >>> pattern.shape, pattern.kind, pattern.pixel_size_inv_angstrom
    ((256, 256), 'diffraction', 0.0125)
    """
    check_range("pixel_size_inv_angstrom", pixel_size_inv_angstrom, 1e-3, 0.1, "1/Å")
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-_BEAM_SHIFT, _BEAM_SHIFT, 2)
    rotation = float(rng.uniform(0.0, 360.0))
    beam = (_SIZE - 1) / 2 + shift
    corner = float(np.hypot(*(_SIZE / 2 + np.abs(shift)))) * pixel_size_inv_angstrom
    crystal = find_structure(formula, space_group).crystal()
    spots = simulate_kinematic(
        crystal, zone, voltage_kv=voltage_kv, thickness_nm=_THICKNESS, g_max_inv_angstrom=min(corner, 4.0)
    )
    clean = render_pattern(
        spots,
        size=_SIZE,
        pixel_size_inv_angstrom=pixel_size_inv_angstrom,
        spot_sigma_px=_SPOT_SIGMA,
        direct_beam=_DIRECT_BEAM,
        rotation_deg=rotation,
        beam_rc=(float(beam[0]), float(beam[1])),
    )
    distance = np.hypot(*(np.indices((_SIZE, _SIZE)) - beam[:, None, None]))
    expected = _STRONGEST * clean.data + _FLOOR + _DIFFUSE * np.exp(-distance / _DIFFUSE_RADIUS)
    note = f"simulated: kinematic, {_THICKNESS:g} nm thick, {_STRONGEST:g} counts in the strongest spot, seed {seed}"
    return clean.with_note(note, data=rng.poisson(expected))


def sample_stack(
    sample: Sample, zones: Iterable[tuple[int, int, int]] = SAMPLE_ZONES, *, voltage_kv: float = 200.0
) -> list[DiffractionPattern]:
    """Simulate patterns of one crystal on several zone axes.

    Parameters
    ----------
    sample : Sample
        The crystal, such as ``SAMPLES["si"]``.
    zones : iterable of tuple of 3 int
        Zone axes.
    voltage_kv : float
        Accelerating voltage [kV].

    Returns
    -------
    list of DiffractionPattern
        One for each axis, all of the same size and pixel size; `frame` counts them.
    """
    patterns = []
    for frame, zone in enumerate(map(check_zone_axis, zones)):
        # seeds of sequences are independent, also when two samples use neighbouring numbers
        seed = int(np.random.SeedSequence([sample.seed, frame]).generate_state(1)[0])
        pattern = simulated_sample(sample.formula, sample.space_group, zone, voltage_kv=voltage_kv, seed=seed)
        patterns.append(replace(pattern, frame=frame))
    return patterns
