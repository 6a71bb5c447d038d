"""What the geometry steps return: frozen values in pixels of the original pattern, (row, col)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range

if TYPE_CHECKING:
    from napari_sadp.labels.lattice2d import LatticeType

#: Elliptical distortion of an ordinary projector system, root mean square of long over short axis minus 1.
TYPICAL_ELLIPTICITY = 0.015
_NEWTON_STEPS = 30
#: Relative error of an intensity from a profile that does not fit quite, or that a sum does not hold whole.
PROFILE_ERROR = 0.03


def intensity_error(noise: np.ndarray, intensity: np.ndarray) -> np.ndarray:
    """Return the standard uncertainty of intensities from their noise and `PROFILE_ERROR`.

    Parameters
    ----------
    noise : (n,) ndarray of float
        Standard deviation that noise alone gives them [counts].
    intensity : (n,) ndarray of float
        Integrated intensities; negative ones are those of no spot [counts].

    Returns
    -------
    (n,) ndarray of float64
        Uncertainty [counts].
    """
    return np.hypot(noise, PROFILE_ERROR * np.clip(intensity, 0, None))


@dataclass(frozen=True, eq=False)
class SpotList:
    """Diffraction spots found in a pattern.

    Parameters
    ----------
    rc : (n, 2) ndarray of float64
        Sub-pixel positions (row, col) [px].
    intensity : (n,) ndarray of float64
        Intensity above the local background, summed over 2.5 standard deviations of a spot [counts]: 4 to 12 % of a Gaussian spot
        lies outside or counts as background, the same share of all spots of a pattern.
    snr : (n,) ndarray of float64
        Signal to noise ratio of the peak.
    sigma_px : float
        Typical standard deviation of a spot [px].
    closest : float
        Distance, over `sigma_px`, below which two spots were not told apart: less for discs, whose edge shows where they overlap.
    gain : float
        Variance of counting a spot per count of its intensity, 1 for counted electrons [counts]; 0 where it is not known.
    """

    rc: np.ndarray
    intensity: np.ndarray
    snr: np.ndarray
    sigma_px: float
    closest: float = 3.0
    gain: float = 0.0

    def __len__(self) -> int:
        return len(self.rc)

    @property
    def least_spacing_px(self) -> float:
        """Shortest lattice vector that these spots can show [px]."""
        return max(self.closest * self.sigma_px, 4.0)

    @property
    def intensity_error(self) -> np.ndarray:
        """Standard uncertainty of `intensity` against the other spots of the pattern (n,) [counts].

        Noise of the background, of counting the spot itself, and `PROFILE_ERROR`; not the share that all of them lack.
        """
        counting = self.gain * np.clip(self.intensity, 0, None)
        return intensity_error(np.sqrt((self.intensity / self.snr) ** 2 + counting), self.intensity)


@dataclass(frozen=True, eq=False)
class DirectBeam:
    """Position of the direct (central) beam.

    Parameters
    ----------
    rc : (2,) ndarray of float64
        Sub-pixel position (row, col) [px]; may lie outside the frame.
    score : float
        0 to 1, how sure the position is.
    method : str
        How it was found, for the report.
    """

    rc: np.ndarray
    score: float
    method: str


@dataclass(frozen=True, eq=False)
class SpotLattice:
    """Reduced two-dimensional lattice of the spots.

    The basis is Gauss-reduced: ``|g1| <= |g2|`` and the angle between the vectors is 60 to 90 degrees, up to
    experimental error. Without distortion node (m, n) lies at ``beam_rc + m g1_px + n g2_px``; see `node_rc`.

    Parameters
    ----------
    beam_rc : (2,) ndarray of float64
        Direct beam (row, col) [px].
    g1_px, g2_px : (2,) ndarray of float64
        Basis vectors (row, col) [px].
    covariance : (4, 4) ndarray of float64
        Covariance of ``(g1_row, g1_col, g2_row, g2_col)`` [px^2].
    rms_px : float
        Root mean square distance of the indexed spots from their nodes [px].
    spots : SpotList
        All spots found.
    indices : (n, 2) ndarray of int
        Node (m, n) of each spot; meaningful where `indexed`.
    indexed : (n,) ndarray of bool
        Whether the spot lies on the lattice.
    log_nfa : float
        Decimal logarithm of the number of lattices as good as this one that as many random spots would make; NaN where
        nobody counted.
    radial_px2 : float
        Radial distortion: a spot at the distance r from the beam is displaced outwards by ``radial_px2 * r^3``; more than 0 for a
        pincushion, less for a barrel [px^-2].
    """

    beam_rc: np.ndarray
    g1_px: np.ndarray
    g2_px: np.ndarray
    covariance: np.ndarray
    rms_px: float
    spots: SpotList
    indices: np.ndarray
    indexed: np.ndarray
    log_nfa: float = float("nan")
    radial_px2: float = 0.0

    @property
    def n_spots(self) -> int:
        """Number of spots on the lattice."""
        return int(np.count_nonzero(self.indexed))

    @property
    def ratio(self) -> float:
        """Length ratio ``|g2| / |g1|`` >= 1."""
        return float(np.linalg.norm(self.g2_px) / np.linalg.norm(self.g1_px))

    @property
    def angle_deg(self) -> float:
        """Angle between the basis vectors, 0 to 90 [deg]."""
        cosine = self.g1_px @ self.g2_px / (np.linalg.norm(self.g1_px) * np.linalg.norm(self.g2_px))
        return float(np.degrees(np.arccos(np.clip(abs(cosine), 0.0, 1.0))))

    def shape_covariance(self) -> np.ndarray:
        """Covariance of (ln ratio, angle in radians), by linear propagation.

        Returns
        -------
        (2, 2) ndarray of float64
            Dimensionless and rad.
        """
        rows = []
        for vector, sign in ((self.g1_px, -1.0), (self.g2_px, 1.0)):
            square = vector @ vector
            length = sign * vector / square
            # d(polar angle)/d(row, col), with the angle measured from +col towards +row
            turn = sign * np.array([vector[1], -vector[0]]) / square
            rows.append(np.stack([length, turn]))
        jacobian = np.concatenate(rows, axis=1)
        return jacobian @ self.covariance @ jacobian.T

    def type_probabilities(self, *, ellipticity: float = TYPICAL_ELLIPTICITY) -> dict[LatticeType, float]:
        """Probability of each lattice type of the article, given how well the shape is known.

        Square and hexagonal lattices are points in the plane of (ln ratio, angle), rectangles and the two kinds of centred
        rectangle are lines, other oblique ones fill it; each type counts the same before the measurement.

        Parameters
        ----------
        ellipticity : float
            Root mean square of the elliptical distortion that is to be expected, long over short axis minus 1.

        Returns
        -------
        dict of str to float
            ``{"A": ..., "B": ..., "C": ..., "D": ...}``, which sum to 1; see `napari_sadp.labels.lattice2d.LATTICE_TYPES`.

        Raises
        ------
        ValueError
            If `ellipticity` is out of range.
        """
        check_range("ellipticity", ellipticity, 0, 0.5)
        return lattice_type_probabilities(
            np.log(self.ratio), np.radians(self.angle_deg), self.shape_covariance(), ellipticity
        )

    def node_rc(self, indices: np.ndarray) -> np.ndarray:
        """Return the positions (n, 2) [px] of lattice nodes given as integers (n, 2)."""
        return self.rc_of(np.asarray(indices, dtype=float) @ np.stack([self.g1_px, self.g2_px]))

    def rc_of(self, g: np.ndarray) -> np.ndarray:
        """Return the positions (n, 2) [px] of vectors (n, 2) from the direct beam that no distortion has moved [px]."""
        return self.beam_rc + distorted(g, self.radial_px2)


def distorted(g: np.ndarray, radial_px2: float) -> np.ndarray:
    """Return vectors from the direct beam (n, 2) [px] as a radial distortion [px^-2] displaces them, see `SpotLattice`."""
    return g * (1 + radial_px2 * np.sum(g**2, axis=-1, keepdims=True))


def undistorted(offset: np.ndarray, radial_px2: float) -> np.ndarray:
    """Return the vectors (n, 2) [px] that `distorted` displaces to these (n, 2) [px].

    Beyond the edge of a barrel, where no vector is displaced to, they are a longer one by half.
    """
    # length over that of the displaced vector: the root of u + q u^3 = 1, to which Newton's steps from 1 lead without passing it
    q = np.maximum(radial_px2 * np.sum(offset**2, axis=-1, keepdims=True), -4 / 27)
    u = np.ones_like(q)
    for _ in range(_NEWTON_STEPS):
        u = u - (u + q * u**3 - 1) / np.maximum(1 + 3 * q * u**2, 1e-9)
    return offset * u


def lattice_type_probabilities(
    log_ratio: float, angle: float, covariance: np.ndarray, ellipticity: float
) -> dict[LatticeType, float]:
    """Return the probability of each lattice type from a measured shape.

    Parameters
    ----------
    log_ratio : float
        ln(|g2| / |g1|), at least 0.
    angle : float
        Angle between the reduced vectors [rad].
    covariance : (2, 2) ndarray of float
        Of (ln ratio, angle in rad).
    ellipticity : float
        Expected elliptical distortion, root mean square.

    Returns
    -------
    dict of str to float
        Sum 1.

    Notes
    -----
    An ellipse of random direction with long over short axis ``1 + e`` changes ln ratio and angle independently, with the
    variance ``e^2 sin^2(angle) / 2`` each. A lattice of higher symmetry has several bases that the error may turn into
    the reduced one, hence the factors 4, 2, 6 and 2.
    """
    wide = np.asarray(covariance, float) + np.eye(2) * 0.5 * (ellipticity * np.sin(angle)) ** 2
    shape = np.array([log_ratio, angle])
    inverse, root = np.linalg.inv(wide), np.sqrt(np.linalg.det(wide))

    def point(at: tuple[float, float]) -> float:
        miss = shape - at
        return float(np.exp(-0.5 * miss @ inverse @ miss) / (2 * np.pi * root))

    def line(miss: float, gradient: tuple[float, float]) -> float:
        """Density of a distance from a line, in units of the other coordinate along it."""
        variance = float(np.array(gradient) @ wide @ gradient)
        return float(np.exp(-0.5 * miss**2 / variance) / np.sqrt(2 * np.pi * variance))

    right, sixty = np.pi / 2, np.pi / 3
    # on the last line the projection of g2 on g1 is half of g1: cos(angle) = 1 / (2 ratio)
    centred = np.cos(angle) - 0.5 * np.exp(-log_ratio)
    density = {
        "A": 4 * point((0.0, right)),
        "B": 2 * line(angle - right, (0.0, 1.0)) / _LOG_RATIOS,
        "C": 6 * point((0.0, sixty)),
        "D": (
            1 / (_LOG_RATIOS * _ANGLES)
            + 2 * line(log_ratio, (1.0, 0.0)) / _ANGLES
            + 2 * line(centred, (0.5 * np.exp(-log_ratio), -np.sin(angle))) / _LOG_RATIOS
        )
        / 3,
    }
    total = sum(density.values())
    return {kind: value / total for kind, value in density.items()}


#: Extent of the plane of shapes: ratios up to 5, reduced angles from 60 to 90 deg.
_LOG_RATIOS, _ANGLES = np.log(5.0), np.radians(30.0)
