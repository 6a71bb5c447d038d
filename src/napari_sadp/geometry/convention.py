"""The image convention: how any pattern, simulated or measured, becomes the image that a network sees.

One owner of these facts, for the simulator's renderer, the training stream and real patterns:

- square image of `size` pixels (256 unless a network says otherwise), beam at ``(size - 1) / 2`` in both directions,
  the one point that flips and quarter turns leave in place (127.5 for 256);
- *aligned*: the shortest lattice vector g1 points along the row axis (axis 0) and is ``size / 12`` px long;
  *article*: same scale, orientation as acquired;
- the disc of radius ``0.45 |g1|`` around the direct beam is zero, since that beam may be saturated, dim or behind a
  stop and carries no information about the class;
- intensity over the strongest remaining pixel, clipped to 0..1, to the power `GAMMA`.

Functions that touch pixels take numpy arrays and torch tensors alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from skimage.filters import gaussian
from skimage.transform import warp

from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry.results import distorted, undistorted

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotLattice

#: Changes with any change of what is written above; data sets and weights carry it.
IMAGE_CONVENTION = "1"
IMAGE_SIZE = 256
G1_FRACTION = 1 / 12
BLANK_RADIUS = 0.45
GAMMA = 0.35

Conversion = Literal["aligned", "article"]
CONVERSIONS: tuple[str, ...] = ("aligned", "article")


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """A pattern in the image convention.

    Parameters
    ----------
    data : (size, size) ndarray of float32
        0 to 1.
    conversion : {"aligned", "article", "rendered"}
        How it was made; see `napari_sadp.geometry.conversions`.
    matrix : (2, 2) ndarray of float64
        Linear part of the map from image offsets to pattern offsets, (row, col).
    beam_rc : (2,) ndarray of float64
        Direct beam in the pattern [px].
    version : str
        `IMAGE_CONVENTION` at the time.
    radial_px2 : float
        Radial distortion of the pattern that the image is free of, see `SpotLattice` [px^-2]; 0 where the pattern was resampled
        as it is, and the map is linear.
    """

    data: np.ndarray
    conversion: str
    matrix: np.ndarray
    beam_rc: np.ndarray
    version: str = IMAGE_CONVENTION
    radial_px2: float = 0.0

    def to_pattern(self, rc: np.ndarray) -> np.ndarray:
        """Map image coordinates (n, 2) [px] to coordinates in the pattern (n, 2) [px]."""
        g = (np.asarray(rc, dtype=float) - beam_position(len(self.data))) @ self.matrix.T
        return self.beam_rc + distorted(g, self.radial_px2)

    def from_pattern(self, rc: np.ndarray) -> np.ndarray:
        """Map coordinates in the pattern (n, 2) [px] to image coordinates (n, 2) [px]."""
        g = undistorted(np.asarray(rc, dtype=float) - self.beam_rc, self.radial_px2)
        return g @ np.linalg.inv(self.matrix).T + beam_position(len(self.data))


def beam_position(size: int) -> float:
    """Return the coordinate of the direct beam in an image of `size` pixels, for row and column alike [px]."""
    return (size - 1) / 2


def g1_length(size: int) -> float:
    """Return the length of the shortest lattice vector in an aligned image of `size` pixels [px]."""
    return size * G1_FRACTION


def normalise_image(image: Any, gamma: Any = GAMMA) -> Any:
    """Blank the direct beam, scale to the strongest diffracted pixel, clip, and apply the gamma.

    Parameters
    ----------
    image : (..., size, size) ndarray or torch.Tensor
        Intensities above the background, in the geometry of the convention.
    gamma : float or array broadcastable against the image
        Exponent; smaller shows weaker spots.

    Returns
    -------
    ndarray or torch.Tensor
        Same shape, 0 to 1.
    """
    size = image.shape[-1]
    if isinstance(image, np.ndarray):
        axis = np.arange(size, dtype=np.float32) - beam_position(size)
    else:
        # counted on its device: what is copied there makes the host wait for all that the device was told before
        axis = image.new_ones(size).cumsum(0) - (1 + beam_position(size))
    keep = axis[:, None] ** 2 + axis**2 > (BLANK_RADIUS * g1_length(size)) ** 2
    clipped = (image * keep).clip(0.0)
    if isinstance(image, np.ndarray):
        strongest = clipped.max(axis=(-2, -1), keepdims=True)
        strongest = np.where(strongest > 0, strongest, 1.0)
    else:
        strongest = clipped.amax(dim=(-2, -1), keepdim=True).clip(min=1e-30)
    return (clipped / strongest) ** gamma


def image_map(lattice: SpotLattice, size: int, conversion: Conversion) -> np.ndarray:
    """Return the (2, 2) matrix that maps image offsets to pattern offsets, (row, col).

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice.
    size : int
        Size of the image [px].
    conversion : {"aligned", "article"}
        Whether to turn g1 on to the row axis.

    Returns
    -------
    (2, 2) ndarray of float64
        A rotation (identity for ``"article"``) times a scale; never a mirror.
    """
    scale = np.linalg.norm(lattice.g1_px) / g1_length(size)
    if conversion == "article":
        return scale * np.eye(2)
    cosine, sine = lattice.g1_px / np.linalg.norm(lattice.g1_px)
    return scale * np.array([[cosine, -sine], [sine, cosine]])


def to_training_image(
    image: np.ndarray,
    lattice: SpotLattice,
    *,
    conversion: Conversion = "aligned",
    size: int = IMAGE_SIZE,
    gamma: float = GAMMA,
) -> TrainingImage:
    """Bring a measured pattern into the image convention.

    Parameters
    ----------
    image : (n_rows, n_cols) ndarray of float
        Pattern after background subtraction, zero where it is masked.
    lattice : SpotLattice
        Its lattice.
    conversion : {"aligned", "article"}
        How to turn it.
    size : int
        Size of the image [px].
    gamma : float
        Exponent of the intensities.

    Returns
    -------
    TrainingImage
        The image and its coordinate map.

    Raises
    ------
    ValueError
        If an option is unknown or a number out of range.
    """
    check_option("conversion", conversion, CONVERSIONS)
    check_range("size", size, 16, 4096, "px")
    check_range("gamma", gamma, 0.0, 2.0, low_inclusive=False)
    matrix = image_map(lattice, size, conversion)
    step = float(np.sqrt(abs(np.linalg.det(matrix))))  # pattern pixels per image pixel
    source = np.asarray(image, dtype=np.float64)
    if step > 1:
        # the usual anti-aliasing width; without it a downscaled sharp spot may fall between samples
        source = gaussian(source, sigma=(step - 1) / 2, preserve_range=True)

    centre = beam_position(size)

    def pattern_xy(xy: np.ndarray) -> np.ndarray:
        rc = (xy[:, ::-1] - centre) @ matrix.T + lattice.beam_rc
        return rc[:, ::-1]

    turned = warp(source, pattern_xy, output_shape=(size, size), order=1, mode="constant", cval=0.0)
    data = normalise_image(turned.astype(np.float32), gamma)
    return TrainingImage(
        data.astype(np.float32), conversion, matrix, np.asarray(lattice.beam_rc, dtype=float)
    )
