"""What the camera does: counts, noise, saturation, faulty pixels; and what is burnt into the image afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from napari_sadp.simulation.imperfections.parameters import FrameParameters

#: Rows of 3 x 5 pixels of the digits, for titles and scale bars; what they say does not matter, that they look like text does.
_DIGITS = (
    "111101101101111", "010110010010111", "111001111100111", "111001011001111", "101101111001001",
    "111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111",
)  # fmt: skip
#: White of an image that is not scaled to 8 bits, over the strongest diffracted beam.
_WHITE = 3.0


def expose(
    light: torch.Tensor, p: dict[str, torch.Tensor], parameters: FrameParameters
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn light into counts.

    Parameters
    ----------
    light : (n, size, size) torch.Tensor
        The strongest diffracted beam is 1.
    p : dict of str to (n,) torch.Tensor
        Parameters.
    parameters : FrameParameters
        The same, for the seeds.

    Returns
    -------
    counts : (n, size, size) torch.Tensor
        [counts]; without a dose the light itself.
    saturated : (n, size, size) torch.Tensor of bool
        Where the camera was full.
    """
    import torch

    counted = p["dose"] > 0
    unit = torch.where(counted, p["dose"], torch.ones_like(p["dose"]))[:, None, None]
    mean = light * unit
    level = torch.where(p["saturation"] > 0, p["saturation"], torch.full_like(p["saturation"], float("inf")))
    level = level[:, None, None] * unit
    frames = []
    for index, seed in enumerate(parameters.seed.tolist()):
        # one generator for each image, so that an image does not depend on the others of its batch
        generator = torch.Generator(device=light.device).manual_seed(seed)
        frame = torch.poisson(mean[index], generator=generator) if counted[index] else mean[index]
        noise = torch.randn(frame.shape, generator=generator, device=frame.device, dtype=frame.dtype)
        frame = frame + p["readout"][index] * noise
        frames.append(_faulty(frame, level[index], p["dead"][index], p["hot"][index], generator))
    counts = _bloom(torch.stack(frames), level, p["bloom"])
    saturated = counts >= level
    return torch.minimum(counts, level), saturated


def _faulty(
    frame: torch.Tensor,
    level: torch.Tensor,
    dead: torch.Tensor,
    hot: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Add dead pixels, which give 0, and hot ones, whose height is random up to twice the brightest spot."""
    import torch

    draw = torch.rand(frame.shape, generator=generator, device=frame.device, dtype=frame.dtype)
    height = torch.rand(frame.shape, generator=generator, device=frame.device, dtype=frame.dtype)
    white = torch.minimum(frame.max(), level.squeeze())
    frame = torch.where(draw > 1 - hot, frame + 2 * height * white, frame)
    return frame.masked_fill(draw < dead, 0.0)


def _bloom(counts: torch.Tensor, level: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Spill what is above the level along the columns, over an exponential length."""
    import torch

    if not bool((length > 0).any()):
        return counts
    size = counts.shape[-1]
    excess = (counts - level).clip(min=0.0)
    axis = torch.arange(size, dtype=counts.dtype, device=counts.device)
    reach = (length * size).clip(min=1e-3)[:, None, None]
    spill = (-(axis[:, None] - axis).abs() / reach).exp() / (2 * reach)
    spilt = counts + spill @ excess
    return torch.where(length[:, None, None] > 0, spilt, counts)


def burn_in(
    counts: torch.Tensor, saturated: torch.Tensor, p: dict[str, torch.Tensor], parameters: FrameParameters
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add scale bars, margins and titles; scale to 8 bits what is to be.

    Returns
    -------
    frames : (n, size, size) torch.Tensor
        Counts, or 0 to 255.
    covered : (n, size, size) torch.Tensor of bool
        What the marks cover.
    """
    import torch

    size = counts.shape[-1]
    covered = torch.zeros_like(saturated)
    frames = []
    for index, frame in enumerate(counts):
        dose = float(parameters.dose[index]) or 1.0
        top = float(frame.max())
        white = top if bool(saturated[index].any()) else min(top, _WHITE * dose)
        frame = frame.clone()
        if parameters.eight_bit[index]:
            frame = (frame * (255.0 / max(white, 1e-30))).round().clip(0.0, 255.0)
            white = 255.0
        hide = covered[index]
        generator = torch.Generator().manual_seed(int(parameters.seed[index]) ^ 0x5CA1E)
        _scale_bar(frame, hide, float(parameters.scale_bar[index]), white, generator)
        margins = [
            round(size * float(getattr(parameters, f"margin_{side}")[index]))
            for side in ("top", "bottom", "left", "right")
        ]
        _margins(frame, hide, margins, bool(parameters.margin_white[index]), white, generator)
        frames.append(frame)
    return torch.stack(frames), covered


def _scale_bar(
    frame: torch.Tensor, hide: torch.Tensor, length: float, white: float, generator: torch.Generator
) -> None:
    size = frame.shape[-1]
    if length <= 0:
        return
    row, col = round(0.93 * size), round(0.05 * size)
    box = (slice(row, row + max(2, size // 80)), slice(col, col + round(length * size)))
    frame[box], hide[box] = white, True
    _text(frame, hide, row - size // 25, col, size, white, generator)


def _margins(
    frame: torch.Tensor,
    hide: torch.Tensor,
    margins: list[int],
    bright: bool,
    white: float,
    generator: torch.Generator,
) -> None:
    top, bottom, left, right = margins
    size = frame.shape[-1]
    fill = white if bright else 0.0
    for box in (
        (slice(0, top), slice(None)),
        (slice(size - bottom, size), slice(None)),
        (slice(None), slice(0, left)),
        (slice(None), slice(size - right, size)),
    ):
        frame[box], hide[box] = fill, True
    if top > size // 20:  # room for a title
        _text(frame, hide, top // 4, left + size // 40, size, 0.0 if bright else white, generator)


def _text(
    frame: torch.Tensor,
    hide: torch.Tensor,
    row: int,
    col: int,
    size: int,
    value: float,
    generator: torch.Generator,
) -> None:
    """Write a few digits of 3 x 5 pixels, enlarged for large images."""
    import torch

    zoom = max(1, size // 256)
    for digit in torch.randint(10, (6,), generator=generator).tolist():
        glyph = torch.tensor([int(bit) for bit in _DIGITS[digit]]).reshape(5, 3).bool()
        glyph = glyph.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1).to(frame.device)
        box = (slice(row, row + 5 * zoom), slice(col, col + 3 * zoom))
        if frame[box].shape == glyph.shape:
            frame[box] = torch.where(glyph, value, frame[box])
            hide[box] |= glyph
        col += 4 * zoom
