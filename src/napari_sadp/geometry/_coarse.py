"""Copies of a pattern in larger pixels, where its spots are large: the same spots for a fraction of the time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from napari_sadp.geometry._local import pixel_noise
from napari_sadp.geometry._scales import binned

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotList

#: Least standard deviation of a spot in a copy [px of the copy]: larger pixels would blur it.
LEAST_SIGMA = 1.05
#: Least spacing of spots in a copy [px of the copy]: closer ones run into each other.
LEAST_SPACING = 7.0
#: Shorter side that a copy keeps [px of the copy].
_LEAST_SIDE = 120
#: Copies that were made, for as long as their originals live.
_COPIES: WeakKeyDictionary[PreparedImage, dict[int, PreparedImage]] = WeakKeyDictionary()


def coarse_factors(shape: tuple[int, int]) -> list[int]:
    """Return how many pixels may become one along each side, the most first, down to 2."""
    factors = []
    factor = 2
    while min(shape) // factor >= _LEAST_SIDE:
        factors.insert(0, factor)
        factor *= 2
    return factors


def factor_for(shape: tuple[int, int], sigma_px: float) -> int:
    """Return the largest factor that spots of a size bear, 1 for none."""
    return next((factor for factor in coarse_factors(shape) if sigma_px / factor >= LEAST_SIGMA), 1)


def coarser(prepared: PreparedImage, factor: int) -> PreparedImage:
    """Return a copy in which squares of pixels are one, their mean; made once for each original."""
    if factor == 1:
        return prepared
    made = _COPIES.setdefault(prepared, {})
    if factor not in made:
        made[factor] = _copy(prepared, factor)
    return made[factor]


def _copy(prepared: PreparedImage, factor: int) -> PreparedImage:
    live = binned((~prepared.mask).astype(np.float32), factor)
    mask = live < 0.5
    signal = binned(np.where(prepared.mask, np.float32(0), prepared.signal), factor)
    signal = np.where(mask, np.float32(0), signal / np.maximum(live, np.float32(0.5)))
    background = binned(prepared.background, factor)
    # pixels of a detector share noise, so that it does not fall with the root of their number
    noise = np.maximum(pixel_noise(signal + background, mask), binned(prepared.noise, factor) / factor)
    return replace(
        prepared,
        binning=factor,
        signal=signal,
        background=background,
        noise=noise,
        mask=mask,
        beam_stop=binned(prepared.beam_stop.astype(np.float32), factor) > 0.5,
        full=binned(prepared.full.astype(np.float32), factor) > 0,
        # what was repaired is one pixel among several
        hot=np.zeros(mask.shape, bool),
        halo_rc=None if prepared.halo_rc is None else to_copy(prepared.halo_rc, factor),
    )


def to_copy(rc: np.ndarray, factor: int) -> np.ndarray:
    """Return positions of the frame in a copy [px of the copy]."""
    return (rc + 0.5) / factor - 0.5


def spots_of_frame(spots: SpotList, factor: int) -> SpotList:
    """Return the spots of a copy as those of the frame."""
    if factor == 1:
        return spots
    return replace(
        spots,
        rc=(spots.rc + 0.5) * factor - 0.5,
        intensity=spots.intensity * factor**2,
        sigma_px=spots.sigma_px * factor,
    )
