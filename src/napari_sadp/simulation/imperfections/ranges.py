"""What may be wrong with an acquired pattern: ranges to draw from, and three strengths of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from napari_sadp._validate import check_option, check_range

Range = tuple[float, float]


@dataclass(frozen=True)
class Imperfections:
    """Ranges and probabilities of the imperfections of a pattern; by default there are none.

    Values are drawn uniformly from a range (low, high), those marked *log* uniformly in the logarithm; a number stands for a
    range of that one value. *Probability* marks switches that are drawn for every image. The *shortest spacing* is how far spots are
    apart, see `napari_sadp.simulation.imperfections.visibility.spot_spacing`.

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
