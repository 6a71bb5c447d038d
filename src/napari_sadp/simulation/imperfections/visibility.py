"""Which spots of a frame with imperfections can be seen: the truth that a search for spots is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.simulation.imperfections._optics import shortest_spacing

if TYPE_CHECKING:
    from napari_sadp.simulation.imperfections.frames import ImperfectPattern


def spot_spacing(offset: np.ndarray, intensity: np.ndarray) -> float:
    """Return how far the spots of a pattern are apart, by which an operator chooses camera length and convergence.

    Parameters
    ----------
    offset : (n, 2) ndarray of float
        From the direct beam, in any unit.
    intensity : (n,) ndarray of float
        In any unit.

    Returns
    -------
    float
        Distance of the nearest spot from the direct beam, or of the strongest from each other where that is less: the row through the
        beam may be extinct. Never less than a twentieth of the first.

    Raises
    ------
    ValueError
        If there is no spot.
    """
    import torch

    offset, intensity = np.asarray(offset, float), np.asarray(intensity, float)
    distance = np.hypot(*offset.T)
    seen = (intensity > 0) & (distance > 0)
    if not seen.any():
        raise ValueError("there is no spot with an intensity above 0 beside the direct beam")
    # of the order of a camera frame, whatever the unit
    unit = distance[seen].min() / 20
    rc, height = (torch.from_numpy(values[seen])[None] for values in (offset / unit, intensity))
    return float(shortest_spacing(rc, height)[0] * unit)


def spot_visibility(made: ImperfectPattern) -> np.ndarray:
    """Return the signal to noise ratio of each spot for an ideal filter, which knows where to look and what for.

    Noise is that of counting the diffuse light and half of the spot itself, of the readout, and of rounding to grey levels; arcs
    and streaks spread a spot over more pixels.

    Parameters
    ----------
    made : ImperfectPattern
        The frame and what was drawn for it.

    Returns
    -------
    (n,) ndarray of float64
        0 for spots that a beam stop or a margin hides, or that lie in a plateau of full pixels wider than themselves.
    """
    p, size = made.parameters, made.settings.size
    offset = made.rc - made.beam_rc
    radius = np.hypot(*offset.T) / size
    light = p["inelastic"] * (1 + (radius / p["inelastic_width"]) ** 2) ** -1.5
    light += (
        p["halo"] * np.exp(-0.5 * ((radius - p["halo_radius"]) / p["halo_width"]) ** 2) + 0.5 * p["slope"]
    )
    height = made.spots.intensity / made.spots.intensity.max()
    dose = p["dose"] or np.inf
    noise = np.sqrt(light / dose + (p["readout"] ** 2 + 1.0) / dose**2)
    if p["eight_bit"]:
        top = max(2.5, 3.0 * p["direct_beam"])
        top = min(top, p["saturation"]) if p["saturation"] > 0 else top
        noise = np.hypot(noise, 0.6 * top / 255)
    spacing = spot_spacing(offset, height)
    sigma = max(0.6, p["spot_sigma"] * spacing)
    area = np.pi * sigma**2
    if p["disc_radius"] > 0:
        area = np.pi * (p["disc_radius"] * spacing) ** 2
    # arcs and streaks spread the same light over more pixels
    arc = np.radians(p["mosaic_deg"]) * radius * size
    spread = np.sqrt((1 + (arc / sigma) ** 2) * (1 + (p["streak"] * spacing / sigma) ** 2))
    if p["disc_radius"] > 0:
        spread = 1.0
    snr = height * np.sqrt(area / spread) / np.maximum(np.sqrt(noise**2 + 0.5 * height / dose), 1e-12)
    pixel = np.round(made.rc).astype(int)
    inside = ((pixel >= 0) & (pixel < size)).all(axis=1)
    pixel = np.clip(pixel, 0, size - 1)
    lost = made.hidden[pixel[:, 0], pixel[:, 1]] | ~inside
    # in a plateau of full pixels that is wider than the spot nothing can be told apart
    reach = max(2.5 * sigma, p["disc_radius"] * spacing) + 1
    around = _share_of_ring(made.saturated, pixel, reach)
    return np.where(lost | (around > 0.5), 0.0, snr)


def _share_of_ring(where: np.ndarray, pixel: np.ndarray, radius: float) -> np.ndarray:
    """Return the share of a circle around each pixel that is marked (n,)."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    ring = np.round(pixel[:, None] + radius * np.column_stack([np.sin(angle), np.cos(angle)])).astype(int)
    ring = np.clip(ring, 0, np.array(where.shape) - 1)
    return where[ring[..., 0], ring[..., 1]].mean(axis=1)
