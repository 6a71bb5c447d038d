"""From spots to an image: separable Gaussians, so that a pattern costs one matrix product; discs and measured profiles by FFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.geometry.convention import IMAGE_SIZE, beam_position
from napari_sadp.geometry.draw import render_gaussians
from napari_sadp.pattern import DiffractionPattern

if TYPE_CHECKING:
    from napari_sadp.simulation.kinematic import SpotPattern


def draw_spots(
    rc: Any,
    intensity: Any,
    sigma: Any,
    shape: tuple[int, int],
    *,
    disc_radius: Any = None,
    profile: np.ndarray | None = None,
) -> Any:
    """Draw spots of any shape: Gaussians, discs with a Gaussian edge, or copies of a measured spot.

    Parameters
    ----------
    rc : (n, k, 2) ndarray or torch.Tensor
        Positions (row, col) [px].
    intensity : (n, k) ndarray or torch.Tensor
        Height of each spot.
    sigma : (n,) ndarray or torch.Tensor
        Standard deviation of the Gaussians, or of the edge of discs and profiles [px].
    shape : tuple of 2 int
        Rows and columns of the images.
    disc_radius : (n,) ndarray or torch.Tensor, optional
        Radius of the discs of each image [px]; 0 for Gaussians.
    profile : (h, w) ndarray of float, optional
        Image of one spot without its background, instead of discs; its centre of mass comes to lie on the positions.

    Returns
    -------
    (n, n_rows, n_cols) ndarray or torch.Tensor
        Images; a spot of intensity 1 has the height 1 whatever its shape.
    """
    width = sigma[:, None, None]
    if profile is None and (disc_radius is None or not bool((disc_radius > 0).any())):
        return render_gaussians(rc, intensity, width, shape)
    reach = int(np.ceil(float(disc_radius.max()))) + 1 if profile is None else max(profile.shape)
    # spots beyond the edge reach into the image, and the convolution is periodic
    padded = (shape[0] + 2 * reach, shape[1] + 2 * reach)
    points = render_gaussians(rc + reach, intensity, width, padded)
    fft = np.fft if isinstance(points, np.ndarray) else _torch_fft()
    if profile is None:
        kernel = _disc_kernel(points, disc_radius[:, None, None], width)
        spectrum = fft.rfft2(kernel)
    else:
        kernel, spectrum = None, _profile_spectrum(points, profile, sigma, fft)
    drawn = fft.irfft2(fft.rfft2(points) * spectrum, s=padded)
    drawn = drawn[:, reach : reach + shape[0], reach : reach + shape[1]].clip(0.0)
    if profile is not None:
        return drawn
    is_disc = (disc_radius > 0)[:, None, None]
    if is_disc.all():
        return drawn
    plain = points[:, reach : reach + shape[0], reach : reach + shape[1]]
    return drawn * is_disc + plain * ~is_disc


def _torch_fft() -> Any:
    import torch

    return torch.fft


def _disc_kernel(points: Any, radius: Any, sigma: Any) -> Any:
    """Return discs around the corner of periodic images, scaled so that Gaussians of height 1 become plateaus of height 1."""
    rows, cols = (np.minimum(np.arange(n), n - np.arange(n)) for n in points.shape[-2:])
    distance = np.hypot(rows[:, None], cols[None, :])
    if not isinstance(points, np.ndarray):
        distance = points.new_tensor(distance)
    inside = (radius - distance + 0.5).clip(0.0, 1.0)
    decay = -0.5 * (radius / sigma) ** 2
    volume = 2 * np.pi * sigma**2 * (1 - (np.exp(decay) if isinstance(points, np.ndarray) else decay.exp()))
    return inside / volume.clip(1e-12)


def _profile_spectrum(points: Any, profile: np.ndarray, sigma: Any, fft: Any) -> Any:
    """Return the Fourier transform of a measured spot whose centre of mass is the corner, scaled as `_disc_kernel`."""
    size = points.shape[-2:]
    patch = np.zeros(size)
    weight = np.clip(profile, 0.0, None)
    patch[: profile.shape[0], : profile.shape[1]] = weight
    grid = np.indices(profile.shape)
    row, col = (grid * weight).sum(axis=(1, 2)) / weight.sum()
    turn = np.fft.fftfreq(size[0])[:, None] * row + np.fft.rfftfreq(size[1])[None, :] * col
    spectrum = np.fft.rfft2(patch) * np.exp(2j * np.pi * turn)
    # the height of one spot of each image at the middle of the frame
    middle = np.array([[[size[0] // 2, size[1] // 2]]] * len(sigma), dtype=float)
    widths = np.asarray(sigma, dtype=float)[:, None, None]
    single = render_gaussians(middle, np.ones((len(middle), 1)), widths, size)
    height = np.fft.irfft2(np.fft.rfft2(single) * spectrum, s=size).max(axis=(1, 2))
    spectrum = spectrum / height[:, None, None]
    return (
        spectrum
        if isinstance(points, np.ndarray)
        else points.new_tensor(spectrum.real) + 1j * points.new_tensor(spectrum.imag)
    )


def check_profile(profile: Any) -> np.ndarray:
    """Return the image of one spot, checked.

    Parameters
    ----------
    profile : (h, w) array_like of float
        Image of one spot.

    Returns
    -------
    (h, w) ndarray of float64
        Its values above the median of its border, which is taken for its background.

    Raises
    ------
    ValueError
        If it is no image of 3 to 512 pixels a side, or nothing rises above its border.
    """
    image = np.asarray(profile, dtype=float)
    if image.ndim != 2 or not all(3 <= n <= 512 for n in image.shape) or not np.isfinite(image).all():
        raise ValueError(
            f"spot_profile has shape {image.shape}, expected a finite image of one spot, 3 to 512 px a side"
        )
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    spot = np.clip(image - np.median(border), 0.0, None)
    if spot.max() <= 0:
        raise ValueError("spot_profile has nothing brighter than its border, expected the image of one spot")
    return spot


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
    disc_radius_px: float = 0.0,
    spot_profile: np.ndarray | None = None,
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
    disc_radius_px : float
        Radius of discs, as a convergent beam makes them [px]; their edge has the standard deviation `spot_sigma_px`.
    spot_profile : (h, w) ndarray of float, optional
        Image of one spot, instead of discs, see `check_profile`; its edge is softened by `spot_sigma_px`.

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
    check_range("disc_radius_px", disc_radius_px, 0, size / 2, "px")
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
    image = draw_spots(
        rc[None],
        height[None],
        np.array([float(spot_sigma_px)]),
        (size, size),
        disc_radius=np.array([float(disc_radius_px)]),
        profile=None if spot_profile is None else check_profile(spot_profile),
    )[0]
    u, v, w = spots.zone
    return DiffractionPattern(
        image,
        pixel_size_inv_angstrom=pixel_size_inv_angstrom,
        voltage_kv=spots.voltage_kv,
        source=f"{spots.crystal.name} [{u}{v}{w}], simulated, {spots.voltage_kv:g} kV",
        kind="diffraction",
    )
