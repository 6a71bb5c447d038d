"""A fitted lattice in reciprocal lengths, where the pattern is calibrated; and the calibration, where a spacing is known.

A camera of constant C sees a reflection of spacing d at ``R = C / d`` from the direct beam: C is the wavelength times the
camera length, here with R in pixels, so that it is the inverse of the pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.errors import CalibrationError

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.pattern import DiffractionPattern


@dataclass(frozen=True, eq=False)
class CalibratedLattice:
    """Lengths of a lattice in reciprocal and direct space.

    Parameters
    ----------
    g_inv_angstrom, g_error_inv_angstrom : (2,) ndarray of float64
        Lengths of g1 and g2, with the uncertainty of the fit; that of the calibration is not known here [1/Å].
    d_angstrom, d_error_angstrom : (2,) ndarray of float64
        Their spacings d = 1/g [Å].
    spot_d_angstrom : (n,) ndarray of float64
        Spacing of every spot that was found, by its distance from the direct beam, radial distortion taken off; inf for that
        beam [Å].
    camera_constant_px_angstrom : float
        Camera constant [px Å].
    """

    g_inv_angstrom: np.ndarray
    g_error_inv_angstrom: np.ndarray
    d_angstrom: np.ndarray
    d_error_angstrom: np.ndarray
    spot_d_angstrom: np.ndarray
    camera_constant_px_angstrom: float


def calibrated_lattice(lattice: SpotLattice, pattern: DiffractionPattern) -> CalibratedLattice:
    """Return the lengths of a lattice in reciprocal and direct space.

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice.
    pattern : DiffractionPattern
        Its pattern.

    Returns
    -------
    CalibratedLattice
        Lengths with uncertainties.

    Raises
    ------
    CalibrationError
        If the pattern is not calibrated.
    """
    pixel = pattern.pixel_size_inv_angstrom
    if pixel is None:
        raise CalibrationError(
            f"{pattern.source or 'the pattern'}: not calibrated; give its pixel_size_inv_angstrom, or find the camera constant "
            "from a known spacing (camera_constant)"
        )
    length = np.linalg.norm([lattice.g1_px, lattice.g2_px], axis=1)
    error = length_errors(lattice)
    distance = np.linalg.norm(lattice.spots.rc - lattice.beam_rc, axis=1)
    distance = distance / (1 + lattice.radial_px2 * distance**2)
    with np.errstate(divide="ignore"):
        spot_d = 1 / (pixel * np.where(distance < 0.25 * length[0], 0.0, distance))
    g = pixel * length
    return CalibratedLattice(g, pixel * error, 1 / g, error / length / g, spot_d, 1 / pixel)


def camera_constant(
    lattice: SpotLattice, d_angstrom: float, node: tuple[int, int] = (1, 0)
) -> tuple[float, float]:
    """Return the camera constant that a known spacing gives.

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice.
    d_angstrom : float
        Spacing of a node [Å].
    node : tuple of 2 int
        Which, in the basis of the lattice; g1 by default.

    Returns
    -------
    constant, error : float
        Camera constant and its uncertainty from that of the lattice [px Å]; its inverse is the pixel size [1/Å].

    Raises
    ------
    ValueError
        If the spacing is not positive, or the node is the direct beam.

    Examples
    --------
    >>> from napari_sadp.geometry.results import SpotLattice, SpotList
    >>> no_spots = SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 1.0)
    >>> lattice = SpotLattice(
    ...     np.zeros(2), np.array([40.0, 0.0]), np.array([0.0, 40.0]), 0.01 * np.eye(4), 0.0, no_spots, np.zeros((0, 2)), np.zeros(0)
    ... )
    >>> camera_constant(lattice, 2.0)
    (80.0, 0.2)
    """
    d_angstrom = check_range("d_angstrom", d_angstrom, 0, 1e3, "Å", low_inclusive=False)
    m, n = node
    if (m, n) == (0, 0):
        raise ValueError("node is (0, 0), expected another than the direct beam")
    vector = m * lattice.g1_px + n * lattice.g2_px
    length = float(np.linalg.norm(vector))
    along = np.concatenate([m * vector, n * vector]) / length
    error = float(np.sqrt(along @ lattice.covariance @ along))
    return length * d_angstrom, error * d_angstrom


def length_errors(lattice: SpotLattice) -> np.ndarray:
    """Return the uncertainties of the lengths of g1 and g2 (2,) [px].

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice.

    Returns
    -------
    (2,) ndarray of float64
        Of the fit, its systematic part included.
    """
    error = []
    for k, vector in enumerate((lattice.g1_px, lattice.g2_px)):
        part = lattice.covariance[2 * k : 2 * k + 2, 2 * k : 2 * k + 2]
        error.append(np.sqrt(vector @ part @ vector / (vector @ vector)))
    return np.array(error)
