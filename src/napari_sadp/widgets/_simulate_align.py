"""Turn and scale a simulated zone axis so that its lattice falls on the measured one. Numbers only: no Qt, no layers.

Both lattices are held as complex numbers on the screen, x to the right and y up: a rotation and a scale are then one
factor, found by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis, span

if TYPE_CHECKING:
    from napari_sadp.simulation.kinematic import SpotPattern

#: The lattice that a camera shows is spanned by the spots above one of these parts of the strongest.
_VISIBLE = (1e-4, 1e-2, 0.1)
#: Ways to lay one lattice on the other within this much of the best (relative misfit) are told apart by intensities.
_EQUALLY_GOOD = 0.01
#: A calibrated scale can be wrong by so much; other scales are tried only where none of these fits.
CALIBRATION_ERROR = 0.15
#: Largest differences at which two lattices are called the same: ratio of the lengths, angle [deg].
_RATIO_TOLERANCE, _ANGLE_TOLERANCE = 0.03, 1.5
_MIN_COMPARED = 4


@dataclass(frozen=True)
class Alignment:
    """How a simulated zone axis lies on a measured lattice.

    Parameters
    ----------
    rotation_deg : float
        Anticlockwise rotation of the simulation, -180 to 180 [deg].
    pixel_size_inv_angstrom : float
        Size of a pixel of the measured pattern [1/Å].
    ratio, simulated_ratio : float
        Length ratio of the basis vectors that were laid on each other, measured and simulated.
    angle_deg, simulated_angle_deg : float
        Angle between them, measured and simulated [deg].
    mirror_fits : bool
        Whether the mirror image fits and this does not: the pattern is seen from the other side.
    """

    rotation_deg: float
    pixel_size_inv_angstrom: float
    ratio: float
    simulated_ratio: float
    angle_deg: float
    simulated_angle_deg: float
    mirror_fits: bool

    @property
    def ratio_mismatch(self) -> float:
        """Relative difference of the ratios, measured over simulated less 1."""
        return self.ratio / self.simulated_ratio - 1

    @property
    def angle_mismatch_deg(self) -> float:
        """Difference of the angles, measured less simulated [deg]."""
        return self.angle_deg - self.simulated_angle_deg

    @property
    def fits(self) -> bool:
        """Whether the lattices agree within 3 % of the ratio and 1.5 degrees."""
        return abs(self.ratio_mismatch) < _RATIO_TOLERANCE and abs(self.angle_mismatch_deg) < _ANGLE_TOLERANCE

    def text(self) -> str:
        """Return the fit in two lines."""
        verdict = "The lattices agree" if self.fits else "The lattices do not agree: another zone axis?"
        if self.mirror_fits:
            verdict = "Only the mirror image fits: try the zone axis with all signs changed"
        return (
            f"{verdict}\n|g2|/|g1| {self.ratio:.3f}, simulated {self.simulated_ratio:.3f} ({signed(100 * self.ratio_mismatch)} %); "
            f"angle {self.angle_deg:.1f}°, simulated {self.simulated_angle_deg:.1f}° ({signed(self.angle_mismatch_deg)}°)"
        )


def signed(value: float) -> str:
    """Return a number with its sign and one digit, without a negative zero."""
    return f"{round(value, 1) + 0.0:+.1f}"


def align_zone(
    spots: SpotPattern,
    measured_basis: np.ndarray,
    *,
    beam_rc: np.ndarray,
    image: np.ndarray | None = None,
    pixel_size_inv_angstrom: float | None = None,
    rotation_deg: float = 0.0,
) -> Alignment:
    """Find rotation and scale that lay a simulated zone axis on a measured lattice.

    Parameters
    ----------
    spots : SpotPattern
        Simulated beams, not rotated.
    measured_basis : (2, 2) ndarray of float
        Basis vectors (row, col) of the measured lattice [px].
    beam_rc : (2,) ndarray of float
        Direct beam (row, col) of the measured pattern [px].
    image : (n_rows, n_cols) ndarray of float, optional
        The measured pattern: of ways that fit equally well, the one whose spots are where the image is bright.
    pixel_size_inv_angstrom : float, optional
        Calibration of the measured pattern [1/Å]: of scales that fit, the one near it.
    rotation_deg : float
        Of ways that symmetry makes equal, the one nearest to this rotation [deg].

    Returns
    -------
    Alignment
        The best way, good or not.

    Raises
    ------
    ValueError
        If the simulated spots lie on one row.
    """
    measured = _on_screen(measured_basis)
    bases = _visible_bases(spots)
    candidates = [fit for basis in bases for fit in _fits(basis, measured)]
    if pixel_size_inv_angstrom is not None:
        expected = 1 / pixel_size_inv_angstrom
        near = [fit for fit in candidates if abs(np.log(abs(fit.factor) / expected)) < CALIBRATION_ERROR]
        candidates = [fit for fit in near if fit.misfit < 0.1] or candidates
    best = min(fit.misfit for fit in candidates)
    good = [fit for fit in candidates if fit.misfit <= best + _EQUALLY_GOOD]
    scores = [0.0 if image is None else _agreement(spots, fit.factor, beam_rc, image) for fit in good]
    equal = [fit for fit, score in zip(good, scores, strict=True) if score > max(scores) - 0.02]
    chosen = min(equal, key=lambda fit: _turn(np.degrees(np.angle(fit.factor)) - rotation_deg))
    mirrored = min(fit.misfit for basis in bases for fit in _fits(basis.conj(), measured))
    first, second = chosen.measured
    a, b = chosen.simulated
    made = Alignment(
        rotation_deg=float(np.degrees(np.angle(chosen.factor))),
        pixel_size_inv_angstrom=float(1 / abs(chosen.factor)),
        ratio=float(abs(second) / abs(first)),
        simulated_ratio=float(abs(b) / abs(a)),
        angle_deg=_angle(first, second),
        simulated_angle_deg=_angle(a, b),
        mirror_fits=False,
    )
    if made.fits or mirrored > 0.02:
        return made
    return Alignment(**{**made.__dict__, "mirror_fits": True})


@dataclass(frozen=True, eq=False)
class _Fit:
    """One way to lay the lattices on each other: ``measured ~ factor * simulated``."""

    factor: complex
    misfit: float
    simulated: np.ndarray
    measured: np.ndarray


def _on_screen(basis: np.ndarray) -> np.ndarray:
    """Return (row, col) vectors as complex numbers, x to the right and y up."""
    row, col = np.asarray(basis, dtype=float).T
    return col - 1j * row


def _visible_bases(spots: SpotPattern) -> list[np.ndarray]:
    """Return reduced bases (2,) complex [1/Å] of the lattices that spots above some intensities span."""
    plane = planar_basis(spots.zone)
    zero_order = spots.hkl @ np.asarray(spots.zone) == 0
    nodes = np.rint(spots.hkl @ np.linalg.pinv(plane)).astype(int)
    # the projection of the plane's basis, from the spots themselves: they know the frame of the zone
    to_xy, *_ = np.linalg.lstsq(nodes[zero_order].astype(float), spots.g_xy[zero_order], rcond=None)
    found: list[np.ndarray] = []
    for part in _VISIBLE:
        basis = span(nodes[zero_order & (spots.intensity >= part)])
        if basis is None:
            continue
        reduced = gauss_reduce(basis, to_xy @ to_xy.T) @ to_xy
        complex_basis = reduced[:, 0] + 1j * reduced[:, 1]
        if not any(np.allclose(np.abs(complex_basis), np.abs(other)) for other in found):
            found.append(complex_basis)
    if not found:
        raise ValueError(
            f"the simulated spots on {list(spots.zone)} lie on one row: there is no lattice to align"
        )
    return found


def _fits(simulated: np.ndarray, measured: np.ndarray) -> list[_Fit]:
    """Return all ways to lay short bases of the measured lattice on the simulated one, without mirror images."""
    steps = [np.array(step) for step in product((-1, 0, 1), repeat=2) if any(step)]
    fits = []
    for one, two in product(steps, steps):
        if abs(one[0] * two[1] - one[1] * two[0]) != 1:
            continue
        target = np.array([one @ measured, two @ measured])
        factor = np.vdot(simulated, target) / np.vdot(simulated, simulated).real
        misfit = np.linalg.norm(target - factor * simulated) / np.linalg.norm(target)
        fits.append(_Fit(complex(factor), float(misfit), simulated, target))
    return fits


def _agreement(spots: SpotPattern, factor: complex, beam_rc: np.ndarray, image: np.ndarray) -> float:
    """Return the correlation of simulated amplitudes with the image at their places, between them too."""
    place = factor * (spots.g_xy[:, 0] + 1j * spots.g_xy[:, 1])
    shape = np.array(image.shape)
    spacing = float(np.abs(place).min())
    reach = int(np.clip(0.15 * spacing, 1, 0.03 * shape.min()))
    # halfway to its neighbour a simulated spot has none, but a spot of a finer measured lattice may lie there
    rc = np.asarray(beam_rc) + np.stack([-place.imag, place.real], axis=1)
    halfway = np.asarray(beam_rc) + 0.5 * (rc - np.asarray(beam_rc))
    taken = (np.abs(halfway[:, None] - rc[None]).sum(axis=-1) < 0.2 * spacing).any(axis=1)
    rc = np.concatenate([rc, halfway[~taken]])
    expected = np.concatenate([np.sqrt(spots.intensity), np.zeros(np.count_nonzero(~taken))])
    pixel = np.rint(rc).astype(int)
    inside = np.all((pixel >= reach) & (pixel < shape - reach), axis=1)
    if np.count_nonzero(inside) < _MIN_COMPARED:
        return 0.0
    seen = []
    for row, col in pixel[inside]:
        window = image[row - reach : row + reach + 1, col - reach : col + reach + 1]
        seen.append(max(float(window.max() - np.median(window)), 0.0))
    expected, measured = expected[inside], np.sqrt(seen)
    if np.ptp(measured) == 0 or np.ptp(expected) == 0:
        return 0.0
    return float(np.corrcoef(expected, measured)[0, 1])


def _turn(angle_deg: float) -> float:
    """Return the size of a turn, 0 to 180 [deg]."""
    return abs((angle_deg + 180) % 360 - 180)


def _angle(a: complex, b: complex) -> float:
    return float(abs(np.degrees(np.angle(b / a))))
