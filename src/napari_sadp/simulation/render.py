"""From spots to an image: separable Gaussians, so that a pattern costs one matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.geometry.convention import IMAGE_SIZE, beam_position
from napari_sadp.pattern import DiffractionPattern

if TYPE_CHECKING:
    from napari_sadp.simulation.kinematic import SpotPattern

#: Natural logarithm of the height below which the tail of a spot is zero: 4e-18, nothing at any gamma and bit depth.
TAIL = -40.0


def render_gaussians(rc: Any, intensity: Any, sigma: Any, shape: tuple[int, int]) -> Any:
    """Draw round Gaussian spots.

    Parameters
    ----------
    rc : (..., n, 2) ndarray or torch.Tensor
        Positions (row, col) [px].
    intensity : (..., n) ndarray or torch.Tensor
        Height of each spot.
    sigma : float or (..., 1, 1) array
        Standard deviation [px].
    shape : tuple of 2 int
        Rows and columns of the image.

    Returns
    -------
    (..., n_rows, n_cols) ndarray or torch.Tensor
        The sum of ``I exp(-r^2 / 2 sigma^2)``, as the product of a column and a row profile for every spot.
    """
    if isinstance(rc, np.ndarray):
        rows, cols = (np.arange(n, dtype=rc.dtype) for n in shape)
    else:
        rows, cols = (rc.new_tensor(np.arange(n, dtype=np.float32)) for n in shape)
    profile_r = _profile(rows - rc[..., :, :1], sigma)
    profile_c = _profile(cols - rc[..., :, 1:], sigma)
    return (profile_r * intensity[..., None]).swapaxes(-1, -2) @ profile_c


def _profile(distance: Any, sigma: Any) -> Any:
    """Return ``exp(-d^2 / 2 sigma^2)``, zero below 4e-18: denormal numbers make the matrix product many times slower."""
    power = -0.5 * (distance / sigma) ** 2
    bounded = power.clip(TAIL)
    return (np.exp(bounded) if isinstance(bounded, np.ndarray) else bounded.exp()) * (power > TAIL)


def spot_positions(
    spots: SpotPattern,
    *,
    pixel_size_inv_angstrom: float,
    beam_rc: tuple[float, float],
    rotation_deg: float = 0.0,
) -> np.ndarray:
    """Return where the camera sees the spots.

    Parameters
    ----------
    spots : SpotPattern
        Simulated beams.
    pixel_size_inv_angstrom : float
        Size of a pixel [1/Å].
    beam_rc : tuple of 2 float
        Direct beam (row, col) [px].
    rotation_deg : float
        Anticlockwise rotation of the pattern as seen on the screen [deg].

    Returns
    -------
    (n, 2) ndarray of float64
        Positions (row, col) [px]; rows count downwards, y upwards.
    """
    turn = np.radians(rotation_deg)
    x, y = spots.g_xy.T / pixel_size_inv_angstrom
    return np.stack(
        [
            beam_rc[0] - (np.sin(turn) * x + np.cos(turn) * y),
            beam_rc[1] + (np.cos(turn) * x - np.sin(turn) * y),
        ],
        axis=1,
    )


def render_pattern(
    spots: SpotPattern,
    *,
    size: int = IMAGE_SIZE,
    pixel_size_inv_angstrom: float | None = None,
    spot_sigma_px: float = 2.0,
    direct_beam: float = 3.0,
    rotation_deg: float = 0.0,
    beam_rc: tuple[float, float] | None = None,
) -> DiffractionPattern:
    """Draw a simulated pattern.

    Parameters
    ----------
    spots : SpotPattern
        Simulated beams.
    size : int
        Rows and columns [px].
    pixel_size_inv_angstrom : float, optional
        Size of a pixel [1/Å]; by default the largest |g| just fits.
    spot_sigma_px : float
        Standard deviation of the Gaussian spots [px].
    direct_beam : float
        Height of the direct beam over that of the strongest diffracted beam.
    rotation_deg : float
        Anticlockwise rotation [deg].
    beam_rc : tuple of 2 float, optional
        Direct beam (row, col) [px]; by default the centre ``(size - 1) / 2`` of the image convention.

    Returns
    -------
    DiffractionPattern
        Calibrated image, strongest diffracted beam = 1.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    check_range("size", size, 16, 8192, "px")
    check_range("spot_sigma_px", spot_sigma_px, 0, size, "px", low_inclusive=False)
    centre = beam_position(size)
    if pixel_size_inv_angstrom is None:
        pixel_size_inv_angstrom = float(spots.g.max() / (centre - 2 * spot_sigma_px))
    check_range("pixel_size_inv_angstrom", pixel_size_inv_angstrom, 0, 1, "1/Å", low_inclusive=False)
    beam = (centre, centre) if beam_rc is None else beam_rc
    rc = spot_positions(
        spots, pixel_size_inv_angstrom=pixel_size_inv_angstrom, beam_rc=beam, rotation_deg=rotation_deg
    )
    rc = np.concatenate([rc, [beam]])
    height = np.concatenate([spots.intensity, [direct_beam]])
    image = render_gaussians(rc, height, spot_sigma_px, (size, size))
    u, v, w = spots.zone
    return DiffractionPattern(
        image,
        pixel_size_inv_angstrom=pixel_size_inv_angstrom,
        voltage_kv=spots.voltage_kv,
        source=f"{spots.crystal.name} [{u}{v}{w}], simulated, {spots.voltage_kv:g} kV",
        kind="diffraction",
    )
