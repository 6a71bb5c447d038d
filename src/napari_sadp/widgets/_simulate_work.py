"""What the *Simulate* widget does off the GUI thread. No Qt, no viewer and no layers in here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.lattice import move_origin
from napari_sadp.io.simulated import write_simulated
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.simulation.imperfections import degrade_pattern
from napari_sadp.simulation.render import spot_positions
from napari_sadp.simulation.zone_pattern import (
    PatternSettings,
    SimulatedPattern,
    simulate_pattern,
    take_beams,
    zone_beams,
)
from napari_sadp.widgets._simulate_align import Alignment, align_zone

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.kinematic import SpotPattern
    from napari_sadp.widgets._sources import Source

#: Scattering factors, and so the engines, end here [1/Å].
_LARGEST_G = 4.0
#: |g| to which a zone axis is simulated for its lattice [1/Å].
_ALIGN_REACH = 1.5


@dataclass(frozen=True)
class Overlay:
    """Where the simulation lies on a measured frame.

    Parameters
    ----------
    layer_id : str
        `unique_id` of the image layer.
    frame : int
        Flat index of the frame.
    shape : tuple of 2 int
        Rows and columns of the frame with square pixels.
    centre_rc : tuple of 2 float
        Direct beam (row, col) [px].
    pixel_size_inv_angstrom : float
        Size of a pixel [1/Å].
    pixel_step : tuple of 2 float
        Size of a square pixel along rows and columns of the layer [px of the layer].
    """

    layer_id: str
    frame: int
    shape: tuple[int, int]
    centre_rc: tuple[float, float]
    pixel_size_inv_angstrom: float
    pixel_step: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Request:
    """What to simulate.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis.
    settings : PatternSettings
        How; its scale is not used over a measured pattern.
    imperfections : str or None
        Preset of the imperfections of the image, None for none.
    seed : int
        Of the imperfections.
    overlay : Overlay or None
        The measured frame over which the spots are drawn; None makes an image.
    """

    crystal: Crystal
    zone: tuple[int, int, int]
    settings: PatternSettings
    imperfections: str | None = None
    seed: int = 0
    overlay: Overlay | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What was simulated.

    Parameters
    ----------
    request : Request
        What was asked.
    spots : SpotPattern
        Beams in the frame.
    rc : (n, 2) ndarray of float64
        Where they are (row, col) [px].
    made : SimulatedPattern or None
        Image and spots as the camera shows them, None over a measured pattern.
    seconds : float
        How long it took [s].
    """

    request: Request
    spots: SpotPattern
    rc: np.ndarray
    made: SimulatedPattern | None
    seconds: float = 0.0


def simulate(request: Request) -> Answer:
    """Run a request.

    Raises
    ------
    ValueError
        If a parameter is out of range, or nothing diffracts into the frame.
    StructureError
        If an element has no electron scattering factor.
    """
    start = time.perf_counter()
    answer = (
        _simulate_image(request) if request.overlay is None else _simulate_overlay(request, request.overlay)
    )
    return replace(answer, seconds=time.perf_counter() - start)


def _simulate_image(request: Request) -> Answer:
    """Return spots and image as the camera shows them."""
    made = simulate_pattern(request.crystal, request.zone, request.settings)
    if request.imperfections is not None:
        seen = degrade_pattern(made, request.imperfections, seed=request.seed)
        beam = (float(seen.beam_rc[0]), float(seen.beam_rc[1]))
        made = SimulatedPattern(seen.pattern, seen.spots, seen.rc, beam, seen.settings)
    return Answer(request, made.spots, made.rc, made)


def _simulate_overlay(request: Request, overlay: Overlay) -> Answer:
    """Return the beams that fall on the measured frame; no image is drawn."""
    corners = np.array([[r, c] for r in (0, overlay.shape[0]) for c in (0, overlay.shape[1])])
    reach_px = float(np.hypot(*(corners - overlay.centre_rc).T).max())
    reach = min(reach_px * overlay.pixel_size_inv_angstrom, _LARGEST_G)
    settings = request.settings
    if settings.engine == "kinematic":
        limit = settings.g_max_inv_angstrom
        settings = replace(settings, g_max_inv_angstrom=reach if limit is None else min(limit, reach))
    spots, _ = zone_beams(request.crystal, request.zone, settings)
    rc = spot_positions(
        spots,
        pixel_size_inv_angstrom=overlay.pixel_size_inv_angstrom,
        beam_rc=overlay.centre_rc,
        rotation_deg=settings.rotation_deg,
    )
    inside = np.flatnonzero(((rc > -0.5) & (rc < np.array(overlay.shape) - 0.5)).all(axis=1))
    if len(inside) == 0:
        raise ValueError(
            f"pixel size is {overlay.pixel_size_inv_angstrom:.4g} 1/Å: no beam of {request.crystal.name} falls into the measured frame"
        )
    return Answer(request, take_beams(spots, inside), rc[inside], None)


def summary(answer: Answer) -> str:
    """Return what is shown, in a line or two."""
    request, spots = answer.request, answer.spots
    settings = request.settings
    count = f"{len(spots)} spot{'s' * (len(spots) != 1)}"
    text = f"{request.crystal.name} {zone_name(spots.zone)}, {settings.engine}: {count}"
    if request.overlay is not None:
        return f"{text} over the measured frame"
    pattern = answer.made.pattern
    rows, cols = pattern.shape
    return f"{text}, {rows} x {cols} px of {pattern.pixel_size_inv_angstrom:.4g} 1/Å"


@dataclass(frozen=True, eq=False)
class AlignJob:
    """A zone axis to lay on the lattice of a measured frame.

    Parameters
    ----------
    request : Request
        The simulation, with its overlay.
    source : Source
        The measured layer.
    basis_px : (2, 2) ndarray of float or None
        Lattice vectors (row, col) that were fitted before [px]; None measures the frame.
    centre_given : bool
        Whether the user placed the centre, so that the origin is the node nearest to it.
    """

    request: Request
    source: Source
    basis_px: np.ndarray | None
    centre_given: bool


@dataclass(frozen=True, eq=False)
class Aligned:
    """The result of a job.

    Parameters
    ----------
    job : AlignJob
        What was asked.
    alignment : Alignment
        Rotation, scale and how well they fit.
    centre_rc : tuple of 2 float
        Direct beam (row, col) [px].
    basis_px : (2, 2) ndarray of float
        Lattice vectors (row, col) of the frame [px].
    """

    job: AlignJob
    alignment: Alignment
    centre_rc: tuple[float, float]
    basis_px: np.ndarray


def align(job: AlignJob) -> Aligned:
    """Run a job.

    Raises
    ------
    PatternRefusedError
        If the frame shows no lattice.
    UnreadableFileError
        If it cannot be read.
    ValueError
        If nothing of the crystal diffracts.
    """
    overlay = job.request.overlay
    pattern = job.source.load(overlay.frame)
    centre, basis = overlay.centre_rc, job.basis_px
    if basis is None:
        try:
            lattice = analyse_pattern(pattern).lattice
        except PatternRefusedError as error:
            raise PatternRefusedError(error.reason, f"{error.detail}; rotate and scale by hand") from error
        if job.centre_given:
            lattice = move_origin(lattice, np.array(centre))
        centre, basis = tuple(map(float, lattice.beam_rc)), np.stack([lattice.g1_px, lattice.g2_px])
    # the lattice does not depend on engine, thickness or tilt: single scattering on the axis shows all of it
    settings = replace(
        job.request.settings, engine="kinematic", tilt_mrad=(0.0, 0.0), g_max_inv_angstrom=_ALIGN_REACH
    )
    spots, _ = zone_beams(job.request.crystal, job.request.zone, settings)
    alignment = align_zone(
        spots,
        basis,
        beam_rc=np.array(centre),
        image=np.where(pattern.mask, 0.0, pattern.data) if pattern.mask is not None else pattern.data,
        pixel_size_inv_angstrom=job.source.stack.pixel_size_inv_angstrom,
        rotation_deg=settings.rotation_deg,
    )
    return Aligned(job, alignment, centre, basis)


def save(request: Request, answer: Answer | None, path: Path, gamma: float) -> tuple[Path, Path]:
    """Write the image and the spots of a request, as the terminal does.

    Parameters
    ----------
    request : Request
        What to write; its overlay does not matter.
    answer : Answer or None
        Its result, if it is known.
    path : pathlib.Path
        Image file.
    gamma : float
        Exponent of the intensities of a png; other formats are linear.

    Returns
    -------
    tuple of 2 Path
        Image and table.

    Raises
    ------
    ValueError, OSError
        As `write_simulated`.
    """
    if answer is None:
        answer = simulate(replace(request, overlay=None))
    made = answer.made
    degraded = request.imperfections is not None
    if path.suffix.lower() == ".png" and gamma != 1:
        top = float(made.pattern.data.max()) if degraded else 1.0
        data = np.clip(made.pattern.data / (top or 1.0), 0, 1) ** gamma
        made = replace(made, pattern=made.pattern.with_note(f"gamma {gamma:g}", data=data))
        degraded = False
    return write_simulated(path, made, full_scale=None if degraded else 1.0)
