"""Elliptical distortion: from the shape of a lattice, where symmetry or a calibration says what the shape should be.

A projector system magnifies by unlike amounts in two directions at right angles; circles become ellipses. The shape of a planar
lattice (ratio and angle) has as many degrees of freedom as such an ellipse (its axial ratio and direction), so that one
lattice of known shape gives both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from napari_sadp._validate import check_option, check_range

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotLattice

SymmetricType = Literal["A", "C"]
#: Ratio and angle [deg] of the lattice types whose symmetry fixes the shape.
SHAPES: dict[str, tuple[float, float]] = {"A": (1.0, 90.0), "C": (1.0, 60.0)}
_DRAWS = 400


@dataclass(frozen=True, eq=False)
class EllipticalDistortion:
    """What should be a circle is an ellipse.

    Parameters
    ----------
    ellipticity : float
        Long over short axis minus 1.
    error : float
        Standard uncertainty of `ellipticity`, from that of the lattice.
    azimuth_deg : float
        Direction of the long axis, anticlockwise from the columns' direction (to the right), 0 to 180 [deg].
    matrix : (2, 2) ndarray of float64
        Symmetric map, of determinant 1, of an offset (row, col) in the perfect pattern to that in the frame.
    """

    ellipticity: float
    error: float
    azimuth_deg: float
    matrix: np.ndarray

    def undo(self, offset_rc: np.ndarray) -> np.ndarray:
        """Return offsets (n, 2) from the direct beam as they are in the perfect pattern [px]."""
        return np.asarray(offset_rc, dtype=float) @ np.linalg.inv(self.matrix)


def distortion_from_shape(lattice: SpotLattice, ratio: float, angle_deg: float) -> EllipticalDistortion:
    """Return the elliptical distortion that gives a lattice of known shape the shape that was measured.

    Parameters
    ----------
    lattice : SpotLattice
        The measured lattice, reduced.
    ratio : float
        True length ratio of its two vectors, at least 1, as of a known structure on a known zone axis.
    angle_deg : float
        True angle between them [deg].

    Returns
    -------
    EllipticalDistortion
        The smallest one: the measured basis is turned, scaled and stretched from the true one, ``M = s I R S``, and the polar
        decomposition gives the stretch S (Higham 1986, doi:10.1137/0907079).

    Raises
    ------
    ValueError
        If the shape is none.
    """
    ratio = check_range("ratio", ratio, 1.0, 100.0)
    angle = np.radians(check_range("angle_deg", angle_deg, 1.0, 90.0, "deg"))
    true = np.array([[1.0, 0.0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    # the angle of a reduced basis is counted without its sense and without the signs of the vectors
    if basis[0] @ basis[1] < 0:
        basis = basis * [[1.0], [-1.0]]
    if np.linalg.det(basis) < 0:
        true[:, 1] *= -1
    matrix = _stretch(true, basis)
    root = np.linalg.cholesky(lattice.covariance + 1e-18 * np.eye(4))
    noise = (root @ np.random.default_rng(0).standard_normal((4, _DRAWS))).T.reshape(_DRAWS, 2, 2)
    # of the two components of a stretch, since its length is never negative and would hide that it is zero within the noise
    spread = _traceless(_stretch(true, basis + noise)).std(axis=0)
    values, vectors = np.linalg.eigh(matrix)
    row, col = vectors[:, 1]
    azimuth = float(np.degrees(np.arctan2(-row, col)) % 180)
    ellipticity = float(values[1] / values[0] - 1)
    return EllipticalDistortion(ellipticity, float(2 * np.sqrt(np.mean(spread**2))), azimuth, matrix)


def distortion_from_symmetry(lattice: SpotLattice, kind: SymmetricType) -> EllipticalDistortion:
    """Return the elliptical distortion, if the lattice is square or hexagonal in truth.

    Parameters
    ----------
    lattice : SpotLattice
        The measured lattice.
    kind : {"A", "C"}
        Square or hexagonal.

    Returns
    -------
    EllipticalDistortion
        See `distortion_from_shape`.

    Raises
    ------
    ValueError
        If the type is another, whose shape no symmetry fixes.

    Examples
    --------
    >>> from napari_sadp.geometry.results import SpotLattice, SpotList
    >>> no_spots = SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 1.0)
    >>> lattice = SpotLattice(
    ...     np.zeros(2), np.array([0.0, 20.0]), np.array([20.4, 0.0]), 1e-6 * np.eye(4), 0.0, no_spots, np.zeros((0, 2)), np.zeros(0)
    ... )
    >>> found = distortion_from_symmetry(lattice, "A")
    >>> round(found.ellipticity, 3), round(found.azimuth_deg)
    (0.02, 90)
    """
    check_option("kind", kind, get_args(SymmetricType))
    return distortion_from_shape(lattice, *SHAPES[kind])


def _stretch(true: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the symmetric factor, of determinant 1, of the map of one basis (rows) to one or many others (..., 2, 2)."""
    _, values, right = np.linalg.svd(np.linalg.inv(true) @ basis)
    values = values / np.sqrt(np.prod(values, axis=-1, keepdims=True))
    return np.swapaxes(right, -1, -2) @ (values[..., None] * right)


def _traceless(matrix: np.ndarray) -> np.ndarray:
    """Return the two components of the logarithm of stretches (..., 2), to first order."""
    return np.stack([0.5 * (matrix[..., 0, 0] - matrix[..., 1, 1]), matrix[..., 0, 1]], axis=-1)
