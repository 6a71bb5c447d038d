"""What may be wrong with an acquired pattern: ranges to draw from, three strengths, and what was drawn for each image."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from napari_sadp._validate import check_option, check_range

Range = tuple[float, float]

#: Shapes of a beam stop.
STOPS: tuple[str, ...] = ("straight", "round", "pointer")


@dataclass(frozen=True)
class Imperfections:
    """Ranges and probabilities of the imperfections of a pattern; by default there are none.

    Values are drawn uniformly from a range (low, high), those marked *log* uniformly in the logarithm; a number stands for a
    range of that one value. *Probability* marks switches that are drawn for every image.

    Parameters
    ----------
    rotation_deg : tuple of 2 float
        Anticlockwise rotation [deg].
    mirror : float
        Probability of a mirror image.
    offset : tuple of 2 float
        Distance of the direct beam from the centre of the image, over the image size.
    ellipticity : tuple of 2 float
        Longer over shorter axis of what should be a circle, minus 1, in any direction.
    radial : tuple of 2 float
        Lengthening of a distance from the direct beam of half the image size, relative; it grows with its square (pincushion;
        barrel if negative).
    spot_sigma : tuple of 2 float, optional
        Standard deviation of the spots over the shortest spacing, log; None leaves that of the settings.
    disc : float
        Probability of discs instead of Gaussian spots, as of a convergent beam.
    disc_radius : tuple of 2 float
        Their radius over the shortest spacing; `spot_sigma` of them is their edge, at most a fifth of it.
    mosaic_deg : tuple of 2 float
        Standard deviation of the azimuth of the mosaic blocks, which makes arcs of the spots [deg].
    streak : tuple of 2 float
        Standard deviation of the length of streaks in one direction, over the shortest spacing.
    second_grain : float
        Probability of a second grain on the same zone axis, rotated at random.
    second_grain_weight : tuple of 2 float
        Its intensity over that of the first.
    direct_beam : tuple of 2 float
        Factor on the direct beam, log.
    inelastic : tuple of 2 float
        Height of the inelastic background around the direct beam over the strongest diffracted beam.
    halo : tuple of 2 float
        Height of an amorphous ring over the strongest diffracted beam.
    slope : tuple of 2 float
        Difference of a linear background between opposite edges over the strongest diffracted beam.
    dose : tuple of 2 float
        Counts in the brightest pixel of the strongest diffracted beam, log; 0 leaves Poisson noise out.
    readout : tuple of 2 float
        Standard deviation of the readout noise [counts].
    saturation : tuple of 2 float
        Level of saturation over the strongest diffracted beam, log; 0 for a camera without one.
    blooming : float
        Probability that saturated pixels spill along their column.
    dead, hot : tuple of 2 float
        Share of dead pixels, and of hot ones.
    eight_bit : float
        Probability of an image scaled to 0 to 255.
    beam_stop : float
        Probability of a beam stop: straight, round on a wire, or pointer.
    stop_width : tuple of 2 float
        Width of the beam stop over the shortest spacing.
    stop_opacity : tuple of 2 float
        What it takes away.
    scale_bar : float
        Probability of a scale bar with its text burnt in.
    margin : float
        Probability of margins, perhaps with a title, around a smaller frame.
    thickness_nm : tuple of 2 float, optional
        Thickness of the crystal [nm], log; None leaves that of the settings.
    tilt_mrad : tuple of 2 float
        Tilt off the zone axis, in any direction [mrad].

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    rotation_deg: Range = (0.0, 0.0)
    mirror: float = 0.0
    offset: Range = (0.0, 0.0)
    ellipticity: Range = (0.0, 0.0)
    radial: Range = (0.0, 0.0)
    spot_sigma: Range | None = None
    disc: float = 0.0
    disc_radius: Range = (0.15, 0.4)
    mosaic_deg: Range = (0.0, 0.0)
    streak: Range = (0.0, 0.0)
    second_grain: float = 0.0
    second_grain_weight: Range = (0.05, 0.2)
    direct_beam: Range = (1.0, 1.0)
    inelastic: Range = (0.0, 0.0)
    halo: Range = (0.0, 0.0)
    slope: Range = (0.0, 0.0)
    dose: Range = (0.0, 0.0)
    readout: Range = (0.0, 0.0)
    saturation: Range = (0.0, 0.0)
    blooming: float = 0.0
    dead: Range = (0.0, 0.0)
    hot: Range = (0.0, 0.0)
    eight_bit: float = 0.0
    beam_stop: float = 0.0
    stop_width: Range = (0.3, 1.0)
    stop_opacity: Range = (0.98, 1.0)
    scale_bar: float = 0.0
    margin: float = 0.0
    thickness_nm: Range | None = None
    tilt_mrad: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high, unit = _BOUNDS.get(field.name, (0.0, 1.0, ""))
            if isinstance(field.default, float):
                object.__setattr__(
                    self, field.name, float(check_range(f"{field.name} (a probability)", value, 0, 1))
                )
                continue
            if value is None and field.default is None:
                continue
            pair = _pair(field.name, value)
            for end in pair:
                check_range(field.name, end, low, high, unit)
            if pair[0] > pair[1]:
                raise ValueError(f"{field.name} is {value!r}, expected (low, high) with low <= high")
            object.__setattr__(self, field.name, pair)
        for name in ("dose", "saturation", "thickness_nm"):
            pair = getattr(self, name)
            if pair is not None and pair[0] == 0 != pair[1]:
                raise ValueError(f"{name} is {pair!r}, expected 0 for none, or two values above 0")


#: Lowest and highest value of the fields that are no share of 1, and their units.
_BOUNDS: dict[str, tuple[float, float, str]] = {
    "rotation_deg": (-360.0, 360.0, "deg"),
    "ellipticity": (0.0, 0.3, ""),
    "radial": (-0.2, 0.2, ""),
    "spot_sigma": (0.005, 0.5, ""),
    "disc_radius": (0.01, 2.0, ""),
    "mosaic_deg": (0.0, 10.0, "deg"),
    "direct_beam": (1e-3, 1e6, ""),
    "inelastic": (0.0, 100.0, ""),
    "halo": (0.0, 100.0, ""),
    "slope": (0.0, 100.0, ""),
    "dose": (0.0, 1e9, "counts"),
    "readout": (0.0, 1e6, "counts"),
    "saturation": (0.0, 1e9, ""),
    "stop_width": (0.0, 10.0, ""),
    "thickness_nm": (0.1, 1e4, "nm"),
    "tilt_mrad": (0.0, 200.0, "mrad"),
}


def _pair(name: str, value: Any) -> Range:
    try:
        low, high = (value, value) if np.isscalar(value) else value
        return float(low), float(high)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}, expected a number or a range (low, high)") from None


_MILD = Imperfections(
    rotation_deg=(0.0, 360.0),
    mirror=0.5,
    offset=(0.0, 0.02),
    ellipticity=(0.0, 0.01),
    radial=(-0.002, 0.002),
    spot_sigma=(0.05, 0.1),
    direct_beam=(1.0, 10.0),
    inelastic=(0.0, 0.2),
    dose=(3e3, 3e4),
    readout=(0.0, 2.0),
    dead=(0.0, 1e-4),
    hot=(0.0, 1e-4),
    thickness_nm=(5.0, 15.0),
    tilt_mrad=(0.0, 1.0),
)
_MEDIUM = replace(
    _MILD,
    offset=(0.0, 0.1),
    ellipticity=(0.0, 0.025),
    radial=(-0.005, 0.005),
    spot_sigma=(0.05, 0.14),
    disc=0.2,
    mosaic_deg=(0.0, 0.5),
    streak=(0.0, 0.05),
    second_grain=0.15,
    second_grain_weight=(0.02, 0.1),
    direct_beam=(1.0, 30.0),
    inelastic=(0.0, 0.7),
    halo=(0.0, 0.05),
    slope=(0.0, 0.03),
    dose=(500.0, 5e3),
    readout=(1.0, 4.0),
    saturation=(0.5, 30.0),
    blooming=0.1,
    dead=(0.0, 5e-4),
    hot=(0.0, 5e-4),
    eight_bit=0.2,
    beam_stop=0.35,
    scale_bar=0.2,
    margin=0.1,
    thickness_nm=(5.0, 30.0),
    tilt_mrad=(0.0, 3.0),
)
_STRONG = replace(
    _MEDIUM,
    offset=(0.0, 0.25),
    ellipticity=(0.0, 0.05),
    radial=(-0.01, 0.01),
    spot_sigma=(0.05, 0.18),
    disc=0.3,
    disc_radius=(0.15, 0.45),
    mosaic_deg=(0.0, 1.5),
    streak=(0.0, 0.12),
    second_grain=0.3,
    second_grain_weight=(0.05, 0.3),
    direct_beam=(1.0, 100.0),
    inelastic=(0.0, 2.0),
    halo=(0.0, 0.2),
    slope=(0.0, 0.1),
    dose=(50.0, 1e3),
    readout=(1.0, 6.0),
    saturation=(0.2, 10.0),
    blooming=0.3,
    dead=(0.0, 2e-3),
    hot=(0.0, 2e-3),
    eight_bit=0.4,
    beam_stop=0.6,
    stop_width=(0.4, 2.0),
    stop_opacity=(0.9, 1.0),
    scale_bar=0.4,
    margin=0.3,
    thickness_nm=(5.0, 60.0),
    tilt_mrad=(0.0, 6.0),
)

#: Imperfections by name: what a careful session, an ordinary one, and a bad one at the microscope leave.
PRESETS: dict[str, Imperfections] = {"mild": _MILD, "medium": _MEDIUM, "strong": _STRONG}


def choose_imperfections(chosen: str | Imperfections, **changes: Any) -> Imperfections:
    """Return imperfections by name, with changes.

    Parameters
    ----------
    chosen : {"none", "mild", "medium", "strong"} or Imperfections
        Where to start.
    **changes
        Fields of `Imperfections` that differ; ``beam_stop=0`` switches the beam stop off.

    Returns
    -------
    Imperfections
        Checked.

    Raises
    ------
    ValueError
        If the name, a field or a value is wrong.
    """
    if isinstance(chosen, str):
        check_option("imperfections", chosen, ("none", *PRESETS))
        chosen = PRESETS.get(chosen, Imperfections())
    for name in changes:
        check_option("imperfection", name, [field.name for field in fields(Imperfections)])
    return replace(chosen, **changes)


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
