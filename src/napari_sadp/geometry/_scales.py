"""Responses of a pattern to blobs of many sizes: the scale-normalised Laplacian of Gaussian, by Fourier transform.

Broad filters run on a binned copy, whose pixels are still small against them; positions are always (row, col) of the
full frame [px].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from napari_sadp.geometry._local import GREY_NOISE, local_quantile

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage

_SCALE_STEP = 1.35
#: Smallest scale of a binned copy, in its pixels; below, the binning itself would blur the blobs.
_MIN_BINNED_SIGMA = 1.1
_MAX_BINNING = 4
#: Where the surroundings are rough at a scale (bands, rings, speckle), a spot must stand out from that as well; the share is
#: low because the side lobes of a dense lattice are rough too.
_ROUGHNESS_SHARE = 0.6
#: Response to the contours between grey levels, in units of their step.
_CONTOUR = 0.35
#: Rise of the background under the filter that makes a contour likely, in units of the step.
_LEAST_RISE = 0.03


@dataclass(frozen=True, eq=False)
class Level:
    """The response at one scale.

    Parameters
    ----------
    sigma : float
        Standard deviation of the filter [px of the frame].
    binning : int
        Pixels of the frame along a side of a pixel here.
    response : (h, w) ndarray of float32
        Scale-normalised Laplacian; half of its height at the centre of a Gaussian spot of this size.
    noise : (h, w) ndarray of float32
        Standard deviation of the response where there is no blob.
    white : (h, w) ndarray of float32
        The part of it that the noise of the pixels makes.
    calm : (h, w) ndarray of float32
        `white`, made larger where the noise of the pixels is not white; blind to rough surroundings.
    mask : (h, w) ndarray of bool
        Pixels that are mostly masked.
    """

    sigma: float
    binning: int
    response: np.ndarray
    noise: np.ndarray
    white: np.ndarray
    calm: np.ndarray
    mask: np.ndarray

    def peaks(self, min_snr: float) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns here of the local maxima above a signal to noise ratio, live ones only."""
        row, col = np.nonzero((self.response >= min_snr * self.noise) & ~self.mask)
        # few pixels are that bright: only they look at their neighbours
        top = self.response[row, col] >= self._largest(row, col, 1)
        return row[top], col[top]

    def to_frame(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Return positions (n, 2) [px] of pixels here."""
        return (np.column_stack([row, col]) + 0.5) * self.binning - 0.5

    def at(self, rc: np.ndarray, reach: int = 0) -> np.ndarray:
        """Return the response at positions of the frame (n,), or the largest within some pixels here."""
        row, col = self._pixels(rc)
        return self.response[row, col] if reach == 0 else self._largest(row, col, reach)

    def _largest(self, row: np.ndarray, col: np.ndarray, reach: int) -> np.ndarray:
        """Return the largest response within some pixels of others (n,)."""
        offset = np.arange(-reach, reach + 1)
        rows = np.clip(row[:, None, None] + offset[:, None], 0, self.response.shape[0] - 1)
        cols = np.clip(col[:, None, None] + offset, 0, self.response.shape[1] - 1)
        return self.response[rows, cols].max(axis=(1, 2))

    def snr(self, rc: np.ndarray) -> np.ndarray:
        """Return the signal to noise ratio at positions of the frame (n,)."""
        row, col = self._pixels(rc)
        return self.response[row, col] / self.noise[row, col]

    def _pixels(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixel = np.round((np.asarray(rc) + 0.5) / self.binning - 0.5).astype(int)
        return tuple(np.clip(pixel[:, k], 0, self.response.shape[k] - 1) for k in (0, 1))


def scale_space(prepared: PreparedImage, low: float, high: float) -> list[Level]:
    """Return the responses from one scale to another.

    Parameters
    ----------
    prepared : PreparedImage
        Signal, noise and mask.
    low, high : float
        Smallest and largest standard deviation of the filter [px].

    Returns
    -------
    list of Level
        From small to large, a factor 1.35 apart.
    """
    copies: dict[int, _Copy] = {}
    levels = []
    for step in range(int(np.floor(np.log(high / low) / np.log(_SCALE_STEP))) + 1):
        sigma = low * _SCALE_STEP**step
        binning = 1
        while binning < _MAX_BINNING and sigma / (2 * binning) >= _MIN_BINNED_SIGMA:
            binning *= 2
        if binning not in copies:
            copies[binning] = _Copy(prepared, binning, high)
        level = copies[binning].level(float(sigma))
        if prepared.quantum:
            # the contours of a gradient in few grey levels are no noise that averages out
            level = replace(level, noise=np.maximum(level.noise, contour_noise(prepared, level)))
        levels.append(level)
    return levels


def contour_noise(prepared: PreparedImage, level: Level) -> np.ndarray:
    """Return the response to the contours between grey levels, on the pixels of a level.

    It is 0 where noise dissolves the contours, and where the background is too flat to have any under the filter.
    """
    if not prepared.quantum:
        return np.zeros(level.response.shape, np.float32)
    background = binned(prepared.background, level.binning)
    size = max(3, 2 * round(2 * level.sigma / level.binning) + 1)
    rise = ndimage.maximum_filter(background, size) - ndimage.minimum_filter(background, size)
    contours = (rise > _LEAST_RISE * prepared.quantum) & (
        binned(prepared.noise, level.binning) < GREY_NOISE * prepared.quantum
    )
    return np.where(contours, np.float32(_CONTOUR * prepared.quantum), np.float32(0))


def without_strong(level: Level, rc: np.ndarray, floor: np.ndarray | float = 0.0) -> Level:
    """Return the level with its noise measured away from strong spots, so that their tails do not hide weak ones.

    Parameters
    ----------
    level : Level
        The level.
    rc : (n, 2) ndarray of float
        Strong spots [px of the frame].
    floor : float or (h, w) ndarray of float
        Least noise.

    Returns
    -------
    Level
        Copy with other noise; the same where too little of the frame is left.
    """
    near = level.mask.copy()
    row, col = level._pixels(rc)
    near[row, col] = True
    near = ndimage.distance_transform_edt(~near) < 3.5 * level.sigma / level.binning
    if near.mean() > 0.8:
        return level
    away = _with_noise(level, near | level.mask)
    return replace(level, noise=np.minimum(level.noise, np.maximum(away.noise, floor)))


def trusting(level: Level) -> Level:
    """Return the level with the noise of the pixels as its only noise: roughness of the surroundings counts as spots.

    A dense lattice is rough at the scale of its spots, so that its weaker ones drown in the roughness that it makes itself.
    """
    return replace(level, noise=level.calm)


class _Copy:
    """A binned copy of the signal with its transform."""

    def __init__(self, prepared: PreparedImage, binning: int, high: float) -> None:
        self.binning = binning
        signal = binned(prepared.signal, binning)
        self.noise = binned(prepared.noise, binning) / binning
        self.mask = (
            binned(prepared.mask, binning) > 0.5 if prepared.mask.any() else np.zeros(signal.shape, bool)
        )
        self.shape = signal.shape
        pad = int(3 * min(high, _MAX_BINNING * 3 * _MIN_BINNED_SIGMA) / binning) + 1
        self.padded = tuple(fft.next_fast_len(n + pad, real=True) for n in signal.shape)
        self.transform = fft.rfft2(signal.astype(np.float32), self.padded)
        row = (2 * np.pi * fft.fftfreq(self.padded[0])).astype(np.float32)
        col = (2 * np.pi * fft.rfftfreq(self.padded[1])).astype(np.float32)
        self.square = row[:, None] ** 2 + col**2

    def level(self, sigma: float) -> Level:
        power = np.float32((sigma / self.binning) ** 2) * self.square
        transfer = power * np.exp(-0.5 * power)
        response = fft.irfft2(self.transform * transfer, self.padded)[: self.shape[0], : self.shape[1]]
        # white noise of unit variance leaves the filter with the mean square of its transfer function
        white = self.noise * float(np.sqrt(np.mean(np.square(transfer))))
        bare = Level(sigma, self.binning, response, white, white, white, self.mask)
        return _with_noise(bare, self.mask)


def _with_noise(level: Level, ignored: np.ndarray) -> Level:
    window = max(24.0, 16 * level.sigma) / level.binning
    spread = 1.4826 * local_quantile(np.abs(level.response), ignored, window, 0.5)
    # noise is never quite white (detector blur, compression): take the factor where the pattern is quietest
    some = np.flatnonzero(~ignored)[::7]
    factor = float(np.quantile(spread.flat[some] / level.white.flat[some], 0.25)) if len(some) else 1.0
    calm = level.white * max(factor, 1.0)
    return replace(level, noise=np.maximum(calm, _ROUGHNESS_SHARE * spread), calm=calm)


def binned(image: np.ndarray, binning: int) -> np.ndarray:
    """Return the means of square blocks; the last ones repeat the edge."""
    if binning == 1:
        return image
    pad = [(0, -n % binning) for n in image.shape]
    image = np.pad(image, pad, mode="edge") if any(p[1] for p in pad) else image
    total = sum(
        image[i::binning, j::binning].astype(np.float32) for i in range(binning) for j in range(binning)
    )
    return total / binning**2
