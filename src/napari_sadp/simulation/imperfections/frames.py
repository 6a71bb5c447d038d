"""From spots to frames as a camera gives them, with everything known about them: for one pattern, or a batch on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._validate import check_range, check_zone_axis
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.pattern import DiffractionPattern
from napari_sadp.simulation.imperfections import _camera, _optics
from napari_sadp.simulation.imperfections.parameters import FrameParameters, draw_parameters, draw_specimen
from napari_sadp.simulation.imperfections.ranges import Imperfections, choose_imperfections
from napari_sadp.simulation.render import check_profile, spot_positions
from napari_sadp.simulation.zone_pattern import PatternSettings, beams_in_frame, take_beams, zone_beams

if TYPE_CHECKING:
    import torch

    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.kinematic import SpotPattern
    from napari_sadp.simulation.zone_pattern import SimulatedPattern

#: Beams weaker than this, over the strongest, are not drawn: less than a tenth of a count at the largest dose of the presets.
_FAINTEST = 1e-6
#: A pixel whose light is cut by more than this is hidden.
_HIDDEN = 0.5


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of a camera and what is known about them.

    Parameters
    ----------
    image : (n, size, size) torch.Tensor
        Counts, or 0 to 255 where scaled to 8 bits.
    beam_rc : (n, 2) torch.Tensor
        Direct beam (row, col) [px]; may lie outside the frame.
    rc : (n, k, 2) torch.Tensor
        Positions of the spots (row, col) [px].
    hidden : (n, size, size) torch.Tensor of bool
        Behind the beam stop, a margin, or a scale bar.
    saturated : (n, size, size) torch.Tensor of bool
        Where the camera was full.
    affine : (n, 2, 2) torch.Tensor of float64
        Linear map, at the direct beam, of an offset (row, col) of the perfect pattern to that in the frame.
    """

    image: torch.Tensor
    beam_rc: torch.Tensor
    rc: torch.Tensor
    hidden: torch.Tensor
    saturated: torch.Tensor
    affine: torch.Tensor


def draw_frames(
    rc: torch.Tensor,
    intensity: torch.Tensor,
    direct_beam: torch.Tensor,
    parameters: FrameParameters,
    size: int,
    *,
    spot_sigma_px: float = 2.0,
    disc_radius_px: float = 0.0,
    spot_profile: np.ndarray | None = None,
) -> Frames:
    """Draw frames with imperfections, on the device of the spots.

    Parameters
    ----------
    rc : (n, k, 2) torch.Tensor of float
        Offsets (row, col) of the spots from the direct beam in the perfect patterns [px].
    intensity : (n, k) torch.Tensor of float
        Heights over the strongest of each pattern; 0 for padding.
    direct_beam : (n,) torch.Tensor of float
        Height of the direct beam over the strongest diffracted beam.
    parameters : FrameParameters
        What is wrong with each.
    size : int
        Rows and columns [px].
    spot_sigma_px, disc_radius_px : float
        Shape of the spots where the parameters say nothing of it [px].
    spot_profile : (h, w) ndarray of float, optional
        Image of one spot, whose shape all spots take, whatever the parameters say.

    Returns
    -------
    Frames
        Images and truth. An image depends on its own spots and parameters, not on the others of the batch.

    Raises
    ------
    ValueError
        If the shapes do not agree.
    """
    n = len(parameters)
    if rc.shape != (n, rc.shape[1], 2) or intensity.shape != rc.shape[:2] or direct_beam.shape != (n,):
        raise ValueError(
            f"rc, intensity, direct_beam have shapes {tuple(rc.shape)}, {tuple(intensity.shape)}, "
            f"{tuple(direct_beam.shape)}, expected ({n}, k, 2), ({n}, k), ({n},)"
        )
    p = _optics.tensors(parameters, rc)
    turned = _optics.orient(rc, p)
    spacing = _optics.shortest_spacing(turned, intensity)
    beam = _optics.beam_of(p, size)
    light = _optics.draw_light(
        turned,
        intensity,
        direct_beam,
        spacing,
        p,
        size,
        sigma_px=spot_sigma_px,
        disc_radius_px=disc_radius_px,
        profile=None if spot_profile is None else check_profile(spot_profile),
    )
    shadow = _optics.stop_shadow(beam, spacing, p, size)
    counts, saturated = _camera.expose(light * (1 - shadow), p, parameters)
    image, covered = _camera.burn_in(counts, saturated, p, parameters)
    return Frames(
        image=image,
        beam_rc=beam,
        rc=_optics.distort(turned, p, size) + beam[:, None],
        hidden=covered | (shadow > _HIDDEN),
        saturated=saturated,
        affine=_optics.affine_of(p),
    )


@dataclass(frozen=True, eq=False)
class ImperfectPattern:
    """One simulated pattern as a camera would give it, and the truth about it.

    Parameters
    ----------
    pattern : DiffractionPattern
        The frame; nothing in it says what is hidden.
    spots : SpotPattern
        The beams of the first grain whose centres lie in the frame, from small to large |g|.
    rc : (n, 2) ndarray of float64
        Where they are (row, col) [px].
    beam_rc : (2,) ndarray of float64
        Direct beam (row, col) [px].
    hidden, saturated : (size, size) ndarray of bool
        Behind beam stop, margins or marks; where the camera was full.
    affine : (2, 2) ndarray of float64
        Linear map, at the direct beam, of an offset (row, col) of the perfect pattern to that in the frame.
    settings : PatternSettings
        What the perfect pattern is made with, the drawn thickness and tilt among them.
    parameters : dict
        What was drawn, see `FrameParameters`.
    """

    pattern: DiffractionPattern
    spots: SpotPattern
    rc: np.ndarray
    beam_rc: np.ndarray
    hidden: np.ndarray
    saturated: np.ndarray
    affine: np.ndarray
    settings: PatternSettings
    parameters: dict[str, Any]


def simulate_imperfect(
    crystal: Crystal,
    zone: tuple[int, int, int],
    settings: PatternSettings | None = None,
    imperfections: str | Imperfections = "medium",
    *,
    seed: int = 0,
    **changes: Any,
) -> ImperfectPattern:
    """Simulate a zone-axis pattern as a camera would give it.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    settings : PatternSettings, optional
        The perfect pattern. Thickness, tilt and spot size are those of `imperfections`, where these have them; rotations add.
    imperfections : {"none", "mild", "medium", "strong"} or Imperfections
        What may be wrong.
    seed : int
        Seed; the same seed gives the same frame.
    **changes
        Fields of `PatternSettings` that differ from `settings`.

    Returns
    -------
    ImperfectPattern
        Frame and truth.

    Raises
    ------
    ValueError
        If a value is out of range, or nothing diffracts into the image.
    StructureError
        If an element has no electron scattering factor.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> turned = choose_imperfections("none", rotation_deg=90)
    >>> made = simulate_imperfect(find_structure("Al", 225).crystal(), (0, 0, 1), imperfections=turned)
    >>> made.affine.round(9).tolist()  # what was to the right lies above the beam now
    [[0.0, -1.0], [1.0, 0.0]]
    """
    import torch

    spec = choose_imperfections(imperfections)
    settings = replace(settings or PatternSettings(), **changes)
    zone = check_zone_axis(zone)
    rng = np.random.default_rng([int(check_range("seed", seed, 0, 2**62)), 0x5AD])
    thickness, tilt = draw_specimen(spec, rng, settings.thickness_nm)
    x, y = settings.tilt_mrad
    settings = replace(settings, thickness_nm=thickness, tilt_mrad=(x + tilt[0], y + tilt[1]))
    parameters = draw_parameters(spec, 1, rng)
    turned = parameters.rotation_deg + settings.rotation_deg
    parameters = replace(parameters, rotation_deg=turned)
    # a beam off the centre brings far spots into the frame, distortions a little more
    beams, direct_beam = zone_beams(crystal, zone, settings, margin=1.1 * (1 + 2 * spec.offset[1]))
    beams = take_beams(beams, np.flatnonzero(beams.intensity > _FAINTEST))
    offset = spot_positions(beams, pixel_size_inv_angstrom=settings.pixel_size(), beam_rc=(0.0, 0.0))
    frames = draw_frames(
        torch.as_tensor(offset)[None],
        torch.as_tensor(beams.intensity)[None],
        torch.tensor([direct_beam], dtype=torch.float64),
        parameters,
        settings.size,
        spot_sigma_px=settings.spot_sigma_px,
        disc_radius_px=settings.disc_radius_px,
        spot_profile=settings.spot_profile,
    )
    rc = frames.rc[0].numpy()
    order = beams_in_frame(beams, rc, settings.size)
    image = frames.image[0].numpy()
    name = imperfections if isinstance(imperfections, str) else "chosen"
    pattern = DiffractionPattern(
        image if settings.gamma == 1 else np.clip(image, 0.0, None) ** settings.gamma,
        pixel_size_inv_angstrom=settings.pixel_size(),
        voltage_kv=settings.voltage_kv,
        camera_length_mm=settings.camera_length_mm,
        source=f"{crystal.name} {zone_name(zone)}, simulated, {settings.voltage_kv:g} kV",
        kind="diffraction",
        notes=(
            f"simulated: {settings.engine}, {settings.thickness_nm:.3g} nm thick, imperfections: {name}, seed {seed}",
        ),
    )
    return ImperfectPattern(
        pattern=pattern,
        spots=take_beams(beams, order),
        rc=rc[order],
        beam_rc=frames.beam_rc[0].numpy(),
        hidden=frames.hidden[0].numpy(),
        saturated=frames.saturated[0].numpy(),
        affine=frames.affine[0].numpy(),
        settings=settings,
        parameters=parameters.row(0),
    )


def degrade_pattern(
    simulated: SimulatedPattern, imperfections: str | Imperfections = "medium", *, seed: int = 0
) -> ImperfectPattern:
    """Return a simulated pattern as a camera would give it, at the thickness and tilt that it has.

    Parameters
    ----------
    simulated : SimulatedPattern
        A perfect pattern.
    imperfections : {"none", "mild", "medium", "strong"} or Imperfections
        What may be wrong.
    seed : int
        Seed; the same seed gives the same frame.

    Returns
    -------
    ImperfectPattern
        Frame and truth.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    spec = choose_imperfections(imperfections, thickness_nm=None, tilt_mrad=0.0)
    spots = simulated.spots
    return simulate_imperfect(spots.crystal, spots.zone, simulated.settings, spec, seed=seed)
