"""What is wrong with certain images: the values drawn from the ranges."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_sadp.simulation.imperfections.ranges import Imperfections, Range

#: Shapes of a beam stop.
STOPS: tuple[str, ...] = ("straight", "round", "pointer")


@dataclass(frozen=True, eq=False)
class FrameParameters:
    """What was drawn for some images; every field has one value for each, shape (n,).

    Parameters
    ----------
    rotation_deg : ndarray of float64
        Anticlockwise rotation on the screen [deg], after the mirror.
    mirrored : ndarray of bool
        Whether left and right are exchanged.
    offset_row, offset_col : ndarray of float64
        Direct beam from the centre, over the image size.
    ellipticity, ellipse_deg : ndarray of float64
        Long over short axis minus 1; direction of the long axis from the horizontal, anticlockwise [deg].
    radial : ndarray of float64
        See `Imperfections`.
    spot_sigma, disc_radius : ndarray of float64
        Over the shortest spacing; 0 for those of the settings.
    mosaic_deg : ndarray of float64
        [deg].
    streak, streak_deg : ndarray of float64
        Over the shortest spacing; direction, as the ellipse [deg].
    grain_weight, grain_deg : ndarray of float64
        Intensity of the second grain, 0 for none; its rotation from the first [deg].
    direct_beam : ndarray of float64
        Factor on the direct beam.
    inelastic, inelastic_width : ndarray of float64
        Height; width over the image size.
    halo, halo_radius, halo_width : ndarray of float64
        Height; radius and width of the ring over the image size.
    slope, slope_deg : ndarray of float64
        Difference over the image; direction [deg].
    dose, readout : ndarray of float64
        [counts].
    saturation : ndarray of float64
        Over the strongest diffracted beam; 0 for none.
    bloom : ndarray of float64
        Length of the spill over the image size; 0 for none.
    dead, hot : ndarray of float64
        Shares.
    eight_bit : ndarray of bool
        Whether scaled to 0 to 255.
    stop : ndarray of str
        Shape of the beam stop, empty for none.
    stop_deg : ndarray of float64
        Where it comes from [deg].
    stop_half_width, stop_slope, stop_radius : ndarray of float64
        Half of its width at the tip, and radius of its head, over the shortest spacing; growth of the half width with the
        distance from the tip.
    stop_beyond : ndarray of float64
        How far its tip reaches beyond the direct beam, over the shortest spacing.
    stop_opacity : ndarray of float64
        What it takes away.
    scale_bar : ndarray of float64
        Length of the scale bar over the image size; 0 for none.
    margin_top, margin_bottom, margin_left, margin_right : ndarray of float64
        Over the image size.
    margin_white : ndarray of bool
        White margins, otherwise black.
    seed : ndarray of int64
        Seed of noise, faulty pixels and text.
    """

    rotation_deg: np.ndarray
    mirrored: np.ndarray
    offset_row: np.ndarray
    offset_col: np.ndarray
    ellipticity: np.ndarray
    ellipse_deg: np.ndarray
    radial: np.ndarray
    spot_sigma: np.ndarray
    disc_radius: np.ndarray
    mosaic_deg: np.ndarray
    streak: np.ndarray
    streak_deg: np.ndarray
    grain_weight: np.ndarray
    grain_deg: np.ndarray
    direct_beam: np.ndarray
    inelastic: np.ndarray
    inelastic_width: np.ndarray
    halo: np.ndarray
    halo_radius: np.ndarray
    halo_width: np.ndarray
    slope: np.ndarray
    slope_deg: np.ndarray
    dose: np.ndarray
    readout: np.ndarray
    saturation: np.ndarray
    bloom: np.ndarray
    dead: np.ndarray
    hot: np.ndarray
    eight_bit: np.ndarray
    stop: np.ndarray
    stop_deg: np.ndarray
    stop_half_width: np.ndarray
    stop_slope: np.ndarray
    stop_radius: np.ndarray
    stop_beyond: np.ndarray
    stop_opacity: np.ndarray
    scale_bar: np.ndarray
    margin_top: np.ndarray
    margin_bottom: np.ndarray
    margin_left: np.ndarray
    margin_right: np.ndarray
    margin_white: np.ndarray
    seed: np.ndarray

    def __len__(self) -> int:
        return len(self.seed)

    def row(self, index: int) -> dict[str, Any]:
        """Return the plain values of one image, for a manifest."""
        return {field.name: getattr(self, field.name)[index].item() for field in fields(self)}


def draw_parameters(imperfections: Imperfections, n: int, rng: np.random.Generator) -> FrameParameters:
    """Draw what is wrong with some images.

    Parameters
    ----------
    imperfections : Imperfections
        Ranges.
    n : int
        Number of images.
    rng : numpy.random.Generator
        Random numbers; the same number of them whatever the ranges, so that one range changed leaves the others' values.

    Returns
    -------
    FrameParameters
        One value for each image.
    """
    spec = imperfections

    def uniform(pair: Range, log: bool = False) -> np.ndarray:
        share, (low, high) = rng.random(n), pair
        # a range of no width exactly, so that nothing comes of rounding
        if low == high:
            return np.full(n, low)
        return low * (high / low) ** share if log else low + (high - low) * share

    def chance(probability: float) -> np.ndarray:
        return rng.random(n) < probability

    turn = (0.0, 360.0)
    offset, offset_deg = uniform(spec.offset), np.radians(uniform(turn))
    stopped, kind = chance(spec.beam_stop), rng.integers(len(STOPS), size=n)
    width = uniform(spec.stop_width)
    is_round, is_pointer = kind == STOPS.index("round"), kind == STOPS.index("pointer")
    has_margin = chance(spec.margin)
    disc, bloom, bar = chance(spec.disc), chance(spec.blooming), chance(spec.scale_bar)
    return FrameParameters(
        rotation_deg=uniform(spec.rotation_deg),
        mirrored=chance(spec.mirror),
        offset_row=offset * np.sin(offset_deg),
        offset_col=offset * np.cos(offset_deg),
        ellipticity=uniform(spec.ellipticity),
        ellipse_deg=uniform((0.0, 180.0)),
        radial=uniform(spec.radial),
        spot_sigma=uniform(spec.spot_sigma or (0.0, 0.0), log=True),
        disc_radius=uniform(spec.disc_radius) * disc,
        mosaic_deg=uniform(spec.mosaic_deg),
        streak=uniform(spec.streak),
        streak_deg=uniform((0.0, 180.0)),
        grain_weight=uniform(spec.second_grain_weight) * chance(spec.second_grain),
        grain_deg=uniform(turn),
        direct_beam=uniform(spec.direct_beam, log=True),
        inelastic=uniform(spec.inelastic),
        inelastic_width=uniform((0.02, 0.15)),
        halo=uniform(spec.halo),
        halo_radius=uniform((0.15, 0.35)),
        halo_width=uniform((0.03, 0.1)),
        slope=uniform(spec.slope),
        slope_deg=uniform(turn),
        dose=uniform(spec.dose, log=True),
        readout=uniform(spec.readout),
        saturation=uniform(spec.saturation, log=True),
        bloom=uniform((0.05, 0.3)) * bloom,
        dead=uniform(spec.dead),
        hot=uniform(spec.hot),
        eight_bit=chance(spec.eight_bit),
        stop=np.where(stopped, np.array(STOPS)[kind], ""),
        stop_deg=uniform(turn),
        # a round stop hangs on a wire; a pointer is thin at its tip and widens
        stop_half_width=0.5 * width * np.where(is_round | is_pointer, 0.2, 1.0) * stopped,
        stop_slope=uniform((0.05, 0.2)) * is_pointer * stopped,
        stop_radius=0.5 * width * is_round * stopped,
        stop_beyond=uniform((0.0, 0.5)) * width * stopped,
        stop_opacity=uniform(spec.stop_opacity),
        scale_bar=uniform((0.12, 0.3)) * bar,
        margin_top=uniform((0.0, 0.08)) * has_margin,
        margin_bottom=uniform((0.0, 0.08)) * has_margin,
        margin_left=uniform((0.0, 0.06)) * has_margin,
        margin_right=uniform((0.0, 0.06)) * has_margin,
        margin_white=chance(0.5),
        seed=rng.integers(2**62, size=n),
    )


def draw_specimen(
    imperfections: Imperfections, rng: np.random.Generator, thickness_nm: float
) -> tuple[float, tuple[float, float]]:
    """Draw the thickness and the tilt of one specimen.

    Parameters
    ----------
    imperfections : Imperfections
        Ranges.
    rng : numpy.random.Generator
        Random numbers, three of them.
    thickness_nm : float
        Thickness where the imperfections have none [nm].

    Returns
    -------
    thickness_nm : float
        [nm].
    tilt_mrad : tuple of 2 float
        Tilt of the incident beam towards x and y of the pattern [mrad].
    """
    share, tilt, angle = rng.random(), rng.uniform(*imperfections.tilt_mrad), rng.uniform(0, 2 * np.pi)
    if imperfections.thickness_nm is not None:
        low, high = imperfections.thickness_nm
        thickness_nm = low * (high / low) ** share
    return float(thickness_nm), (float(tilt * np.cos(angle)), float(tilt * np.sin(angle)))
