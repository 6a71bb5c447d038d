"""What the microscope does: where the spots fall, what shape they have, what light lies between them, what the beam stop hides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.simulation.render import draw_spots

if TYPE_CHECKING:
    import torch

#: Copies of a spot along an arc or streak, and how many standard deviations they reach.
_COPIES, _REACH = 7, 2.0
#: Narrowest Gaussian that the pixels still sample [px].
_MIN_SIGMA = 0.6
#: Images drawn at once times (spots, copies) times side, at most, to bound the memory.
_CHUNK = 40_000_000
#: Spots are never closer than this [px].
_CLOSEST = 1.0
#: The strongest spots of a pattern, whose distances from each other count, and the faintest of them over the first.
_STRONGEST, _SEEN = 32, 1e-3


def shortest_spacing(rc: torch.Tensor, intensity: torch.Tensor) -> torch.Tensor:
    """Return how far spots are apart, (n,) [px], of offsets (n, k, 2) from the direct beam and heights (n, k).

    That is the distance of the nearest one from the direct beam; where the row through the beam is extinct, the strongest spots lie
    closer to each other, and half of them have a neighbour within what is returned. A few of higher-order Laue zones do not count, nor
    do those fainter than `_SEEN`.
    """
    import torch

    nothing = float("inf")
    nearest = rc.norm(dim=-1).masked_fill(intensity <= 0, nothing).amin(dim=1)
    order = intensity.topk(min(_STRONGEST, intensity.shape[1]), dim=1).indices
    strong = rc.gather(1, order[..., None].expand(-1, -1, 2))
    height = intensity.gather(1, order)
    dark = (height <= 0) | (height < _SEEN * height[:, :1])
    apart = (strong[:, :, None] - strong[:, None]).norm(dim=-1)
    apart = apart.masked_fill(dark[:, None] | dark[:, :, None], nothing)
    itself = torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device)
    apart = apart.masked_fill(itself, nothing)
    # the upper one of the two in the middle; without a neighbour, as padding, a spot counts as infinitely far
    neighbour = apart.amin(dim=2).sort(dim=1).values
    middle = (~dark).sum(dim=1, keepdim=True) // 2
    middle = neighbour.gather(1, middle.clip(max=neighbour.shape[1] - 1)).squeeze(1)
    return torch.minimum(nearest, middle).clip(min=_CLOSEST, max=1e4)


def _turn(rc: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Rotate offsets (..., k, 2) anticlockwise on the screen by angles (...,) [rad]; rows count downwards."""
    cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
    row, col = rc[..., 0], rc[..., 1]
    return _stack(row * cosine - col * sine, row * sine + col * cosine)


def _stack(row: torch.Tensor, col: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.stack([row, col], dim=-1)


def orient(rc: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mirror and rotate offsets (n, k, 2)."""
    flip = 1.0 - 2.0 * p["mirrored"]
    rc = _stack(rc[..., 0], rc[..., 1] * flip[:, None])
    return _turn(rc, p["rotation_deg"].deg2rad())


def distort(rc: torch.Tensor, p: dict[str, torch.Tensor], size: int) -> torch.Tensor:
    """Apply the elliptical, then the radial distortion to offsets (n, ..., 2) [px]."""
    shape = (-1, *[1] * (rc.ndim - 2))
    angle = p["ellipse_deg"].deg2rad().view(shape)
    # the axes are stretched and squeezed, so that the area stays
    long = (1 + p["ellipticity"]).sqrt().view(shape)
    cosine, sine = angle.cos(), -angle.sin()  # rows count downwards
    along = rc[..., 1] * cosine + rc[..., 0] * sine
    across = -rc[..., 1] * sine + rc[..., 0] * cosine
    along, across = along * long, across / long
    rc = _stack(along * sine + across * cosine, along * cosine - across * sine)
    radius = rc.norm(dim=-1) / (size / 2)
    return rc * (1 + p["radial"].view(shape) * radius**2)[..., None]


def affine_of(p: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the linear map at the direct beam of the undistorted offset to the distorted one, (n, 2, 2): ``new = A @ old``."""
    import torch

    n = len(p["radial"])
    unit = torch.eye(2, dtype=torch.float64, device=p["radial"].device).expand(n, 2, 2)
    p = {name: value.double() for name, value in p.items()}
    flat = dict(p, radial=torch.zeros_like(p["radial"]))
    return distort(orient(unit, p), flat, 2).mT


def beam_of(p: dict[str, torch.Tensor], size: int) -> torch.Tensor:
    """Return the direct beam (n, 2) [px]."""
    return _stack(p["offset_row"], p["offset_col"]) * size + (size - 1) / 2


def draw_light(
    rc: torch.Tensor,
    intensity: torch.Tensor,
    direct_beam: torch.Tensor,
    spacing: torch.Tensor,
    p: dict[str, torch.Tensor],
    size: int,
    *,
    sigma_px: float,
    disc_radius_px: float,
    profile: np.ndarray | None,
) -> torch.Tensor:
    """Draw what reaches the plane of the camera, the strongest diffracted beam 1.

    Parameters
    ----------
    rc : (n, k, 2) torch.Tensor
        Offsets from the direct beam, oriented, not distorted [px].
    intensity : (n, k) torch.Tensor
        Heights; 0 for padding.
    direct_beam : (n,) torch.Tensor
        Height of the direct beam.
    spacing : (n,) torch.Tensor
        From `shortest_spacing` [px].
    p : dict of str to (n,) torch.Tensor
        Parameters.
    size : int
        Rows and columns.
    sigma_px, disc_radius_px : float
        Shape of the spots where the parameters say nothing of it [px].
    profile : (h, w) ndarray or None
        Image of one spot, whose shape all take.

    Returns
    -------
    (n, size, size) torch.Tensor
        The image.
    """
    import torch

    spots, height = _grains(rc, intensity, p)
    spots, height = _smear(spots, height, spacing, p)
    beam = beam_of(p, size)
    spots = torch.cat([distort(spots, p, size), torch.zeros_like(spots[:, :1])], dim=1) + beam[:, None]
    height = torch.cat([height, (direct_beam * p["direct_beam"])[:, None]], dim=1)
    given = p["spot_sigma"] > 0
    sigma = torch.where(given, (p["spot_sigma"] * spacing).clip(min=_MIN_SIGMA), sigma_px)
    radius = torch.where(p["disc_radius"] > 0, p["disc_radius"] * spacing, disc_radius_px)
    sigma = torch.where(radius > 0, torch.minimum(sigma, 0.2 * radius).clip(min=_MIN_SIGMA), sigma)
    image = torch.cat(
        [
            draw_spots(
                spots[part],
                height[part],
                sigma[part],
                (size, size),
                disc_radius=radius[part],
                profile=profile,
            )
            for part in _parts(len(rc), spots.shape[1] * size)
        ]
    )
    return image + _background(beam, p, size)


def _parts(n: int, cost: int) -> list[slice]:
    step = max(1, _CHUNK // cost)
    return [slice(start, start + step) for start in range(0, n, step)]


def _grains(
    rc: torch.Tensor, intensity: torch.Tensor, p: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the second grain."""
    import torch

    if not bool((p["grain_weight"] > 0).any()):
        return rc, intensity
    other = _turn(rc, p["grain_deg"].deg2rad())
    return torch.cat([rc, other], dim=1), torch.cat(
        [intensity, intensity * p["grain_weight"][:, None]], dim=1
    )


def _smear(
    rc: torch.Tensor, height: torch.Tensor, spacing: torch.Tensor, p: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace every spot by copies along an arc, then by copies along a streak; the sum of the heights stays."""
    import torch

    steps = torch.linspace(-_REACH, _REACH, _COPIES, dtype=rc.dtype, device=rc.device)
    weight = torch.exp(-0.5 * steps**2)
    weight = weight / weight.sum()

    def spread(copies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n, m, k, _ = copies.shape
        return copies.reshape(n, m * k, 2), (weight[:, None] * height[:, None]).reshape(n, m * k)

    if bool((p["mosaic_deg"] > 0).any()):
        angle = p["mosaic_deg"].deg2rad()[:, None] * steps
        rc, height = spread(_turn(rc[:, None], angle))
    if bool((p["streak"] > 0).any()):
        angle = p["streak_deg"].deg2rad()
        axis = _stack(-angle.sin(), angle.cos()) * (p["streak"] * spacing)[:, None]
        rc, height = spread(rc[:, None] + steps[:, None, None] * axis[:, None, None])
    return rc, height


def _grid(beam: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns from the direct beam, (n, size, 1) and (n, 1, size) [px]."""
    import torch

    axis = torch.arange(size, dtype=beam.dtype, device=beam.device)
    return axis[:, None] - beam[:, 0, None, None], axis - beam[:, 1, None, None]


def _background(beam: torch.Tensor, p: dict[str, torch.Tensor], size: int) -> torch.Tensor:
    """Return inelastic scattering around the direct beam, the amorphous ring and its wing, and the slope."""

    def cube(name: str) -> torch.Tensor:
        return p[name][:, None, None]

    row, col = _grid(beam, size)
    radius = (row**2 + col**2).sqrt() / size
    # a Lorentzian in three dimensions, as single inelastic scattering has
    light = cube("inelastic") * (1 + (radius / cube("inelastic_width")) ** 2) ** -1.5
    ring = (-0.5 * ((radius - cube("halo_radius")) / cube("halo_width")) ** 2).exp()
    light = light + cube("halo") * ring
    angle = cube("slope_deg").deg2rad()
    along = (col * angle.cos() - row * angle.sin()) / size
    return light + cube("slope") * (along + 0.5).clip(min=0.0)


def stop_shadow(
    beam: torch.Tensor, spacing: torch.Tensor, p: dict[str, torch.Tensor], size: int
) -> torch.Tensor:
    """Return how much of the light the beam stop takes away, (n, size, size), 0 to 1, its edge one pixel soft."""
    import torch

    def cube(value: torch.Tensor) -> torch.Tensor:
        return value[:, None, None]

    row, col = _grid(beam, size)
    angle = cube(p["stop_deg"].deg2rad())
    along = col * angle.cos() - row * angle.sin()
    across = (col * angle.sin() + row * angle.cos()).abs()
    beyond = cube(p["stop_beyond"] * spacing)
    half = cube(p["stop_half_width"] * spacing)
    # depth inside the arm, and inside the head of a round stop [px]; below 0 outside
    arm = torch.minimum(
        half + cube(p["stop_slope"]) * (along + beyond).clip(min=0.0) - across, along + beyond
    )
    head = cube(p["stop_radius"] * spacing) - (row**2 + col**2).sqrt()
    depth = torch.where(cube(p["stop_radius"]) > 0, torch.maximum(arm, head), arm)
    there = cube((p["stop_half_width"] > 0).to(beam.dtype))
    return there * cube(p["stop_opacity"]) * (depth + 0.5).clip(0.0, 1.0)


def tensors(parameters: Any, like: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the parameters that are numbers as tensors of the type and on the device of another."""
    import torch

    return {
        name: torch.as_tensor(np.asarray(value, dtype=np.float64)).to(like)
        for name, value in vars(parameters).items()
        if value.dtype.kind in "bf"
    }
