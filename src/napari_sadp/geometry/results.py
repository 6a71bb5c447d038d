"""What the geometry steps return: frozen values in pixels of the original pattern, (row, col)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class SpotList:
    """Diffraction spots found in a pattern.

    Parameters
    ----------
    rc : (n, 2) ndarray of float64
        Sub-pixel positions (row, col) [px].
    intensity : (n,) ndarray of float64
        Integrated intensity above the local background [counts].
    snr : (n,) ndarray of float64
        Signal to noise ratio of the peak.
    sigma_px : float
        Typical standard deviation of a spot [px].
    """

    rc: np.ndarray
    intensity: np.ndarray
    snr: np.ndarray
    sigma_px: float

    def __len__(self) -> int:
        return len(self.rc)


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
    experimental error. Node (m, n) lies at ``beam_rc + m g1_px + n g2_px``.

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
    """

    beam_rc: np.ndarray
    g1_px: np.ndarray
    g2_px: np.ndarray
    covariance: np.ndarray
    rms_px: float
    spots: SpotList
    indices: np.ndarray
    indexed: np.ndarray

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

    def node_rc(self, indices: np.ndarray) -> np.ndarray:
        """Return the positions (n, 2) [px] of lattice nodes given as integers (n, 2)."""
        return self.beam_rc + np.asarray(indices, dtype=float) @ np.stack([self.g1_px, self.g2_px])
