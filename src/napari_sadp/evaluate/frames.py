"""Camera frames to evaluate the whole chain on: conditions of acquisition, and the truth about each frame."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis
from napari_sadp.labels.visible import visible_pattern
from napari_sadp.simulation.imperfections.frames import simulate_imperfect
from napari_sadp.simulation.imperfections.ranges import PRESETS, Imperfections, choose_imperfections
from napari_sadp.simulation.imperfections.visibility import spot_spacing, spot_visibility
from napari_sadp.simulation.kinematic import simulate_kinematic

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme, Zone
    from napari_sadp.pattern import DiffractionPattern
    from napari_sadp.simulation.crystal import Crystal

#: Intensity over the strongest diffracted beam from which a spot counts as visible.
VISIBLE = 2e-3
#: Signal to noise ratio, of an ideal filter, from which it does.
CLEAR = 6.0
#: The class is *settled* where every limit in this range in place of `CLEAR` gives the same: it does not hang on a spot that noise
#: may hide or not.
CLEAR_RANGE = (3.5, 12.0)


@dataclass(frozen=True)
class Condition:
    """How frames are acquired.

    Parameters
    ----------
    name : str
        For the report.
    imperfections : Imperfections
        What is drawn at random for every frame.
    voltages_kv : tuple of float
        One is drawn.
    camera_lengths_mm : tuple of float
        One is drawn; empty to draw the spacing instead.
    spacing_px : tuple of 2 float
        Range of the distance between spots (`spot_spacing`), as an operator would choose the camera length [px].
    settings : dict
        Fields of `napari_sadp.simulation.zone_pattern.PatternSettings`.
    """

    name: str
    imperfections: Imperfections
    voltages_kv: tuple[float, ...] = (80.0, 120.0, 200.0, 300.0)
    camera_lengths_mm: tuple[float, ...] = ()
    spacing_px: tuple[float, float] = (10.0, 32.0)
    settings: dict[str, Any] = field(default_factory=dict)


#: The article's frames as far as it describes them: those of the data set ``article``, with its crops and little noise.
ARTICLE = Condition(
    "article",
    Imperfections(rotation_deg=(0, 30), offset=(0, 0.0625), dose=(1e4, 1e5), readout=(0, 2)),
    voltages_kv=(120.0, 160.0, 200.0, 250.0, 300.0),
    camera_lengths_mm=(250.0, 290.0, 340.0, 400.0),
    settings={"camera_pixel_um": 100.0, "thickness_nm": 6.0, "spot_sigma_px": 1.5},
)
_MILD = PRESETS["mild"]
#: What the accuracy is stated for.
CONDITIONS: tuple[Condition, ...] = (
    ARTICLE,
    Condition("mild", _MILD),
    Condition("medium", PRESETS["medium"]),
    Condition("Bloch 20 nm", replace(_MILD, thickness_nm=(20.0, 20.0)), settings={"engine": "dynamical"}),
)


def _fixed(**changes: Any) -> Condition:
    return Condition("", choose_imperfections(_MILD, **changes))


def _sweeps() -> dict[str, dict[float, Condition]]:
    plain = Condition("", _MILD)
    stop = {width: _fixed(beam_stop=1.0, stop_width=width) for width in (0.3, 0.6, 1.0, 2.0)}
    return {
        "rotation / deg": {v: _fixed(rotation_deg=v) for v in (0.0, 15.0, 30.0, 45.0, 90.0)},
        "shortest spacing / px": {
            v: replace(plain, spacing_px=(v, v)) for v in (6.0, 8.0, 12.0, 18.0, 27.0, 40.0)
        },
        "voltage / kV": {v: replace(plain, voltages_kv=(v,)) for v in (80.0, 120.0, 200.0, 300.0)},
        "counts in the strongest spot": {v: _fixed(dose=v) for v in (30.0, 100.0, 300.0, 1000.0, 10_000.0)},
        "thickness / nm, Bloch waves": {
            v: replace(_fixed(thickness_nm=v), settings={"engine": "dynamical"})
            for v in (5.0, 10.0, 20.0, 40.0, 80.0)
        },
        "tilt / mrad": {v: _fixed(tilt_mrad=v) for v in (0.0, 2.0, 4.0, 8.0, 16.0)},
        "beam stop, width over the shortest spacing": {0.0: plain} | stop,
        "field of view, radius over the shortest spacing": {
            v: replace(plain, spacing_px=(14.0, 14.0), settings={"size": round(2 * v * 14)})
            for v in (2.5, 4.0, 6.0, 9.0)
        },
    }


#: What is varied, one at a time, on frames that are mild otherwise: by name and value.
SWEEPS: dict[str, dict[float, Condition]] = _sweeps()


class Acquired(NamedTuple):
    """A frame.

    Parameters
    ----------
    pattern : DiffractionPattern
        Without its calibration: the chain must do without.
    visible : int or None
        Class of what can be seen in it, see `visible_class`.
    settled : bool
        Whether that class is the same for every limit of the noise in `CLEAR_RANGE`.
    """

    pattern: DiffractionPattern
    visible: int | None
    settled: bool


def acquire(crystal: Crystal, zone: Zone, condition: Condition, scheme: PatternScheme, seed: int) -> Acquired:
    """Simulate a frame.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis.
    condition : Condition
        How it is acquired.
    scheme : PatternScheme
        The classes.
    seed : int
        Seed of all that is drawn.

    Returns
    -------
    Acquired
        The frame, and what can be seen in it.

    Raises
    ------
    ValueError
        If nothing diffracts into the frame.
    """
    rng = np.random.default_rng([seed, 0xE7A1])
    kv = float(rng.choice(condition.voltages_kv))
    scale: dict[str, float]
    if condition.camera_lengths_mm:
        scale = {"camera_length_mm": float(rng.choice(condition.camera_lengths_mm))}
    else:
        spots = simulate_kinematic(crystal, zone, voltage_kv=kv, g_max_inv_angstrom=2.2, laue_zones=0)
        nearest = spot_spacing(spots.g_xy, spots.intensity)
        scale = {"pixel_size_inv_angstrom": min(nearest / float(rng.uniform(*condition.spacing_px)), 1.0)}
    made = simulate_imperfect(
        crystal,
        zone,
        imperfections=condition.imperfections,
        seed=int(rng.integers(2**62)),
        voltage_kv=kv,
        **scale,
        **condition.settings,
    )
    # spots of higher-order Laue zones are seen too, but say nothing about the lattice of this one
    flat = made.spots.hkl @ np.array(zone) == 0
    hkl, intensity, snr = made.spots.hkl[flat], made.spots.intensity[flat], spot_visibility(made)[flat]

    def seen(limit: float) -> int | None:
        return visible_class(hkl[snr > limit], intensity[snr > limit], zone, scheme)

    pattern = replace(made.pattern, pixel_size_inv_angstrom=None, camera_length_mm=None)
    # the class changes at the ratios that spots have, and of these at those that are strong enough to count
    inside = (snr > CLEAR_RANGE[0]) & (snr < CLEAR_RANGE[1])
    counts = intensity > VISIBLE * intensity[snr > CLEAR].max(initial=0.0)
    limits = [CLEAR_RANGE[0], *snr[inside & counts]]
    visible = seen(CLEAR)
    return Acquired(pattern, visible, all(seen(limit) == visible for limit in limits))


def visible_class(
    hkl: np.ndarray, intensity: np.ndarray, zone: Zone, scheme: PatternScheme, threshold: float = VISIBLE
) -> int | None:
    """Return the class of the beams that can be seen.

    Parameters
    ----------
    hkl : (n, 3) ndarray of int
        Beams of the zero-order Laue zone.
    intensity : (n,) ndarray of float
        Intensities in any unit.
    zone : tuple of 3 int
        Zone axis.
    scheme : PatternScheme
        The classes.
    threshold : float
        Weakest over strongest that counts.

    Returns
    -------
    int or None
        None where the visible lattice has the shape of no class, or the spots span no lattice.
    """
    if not len(hkl):
        return None
    plane = gauss_reduce(planar_basis(zone), np.eye(3, dtype=int))
    nodes = np.rint(hkl @ np.linalg.pinv(plane.astype(float))).astype(int)
    seen = visible_pattern(nodes, intensity > threshold * intensity.max(), plane @ plane.T, scheme)
    return None if seen is None else seen.class_index
