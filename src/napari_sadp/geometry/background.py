"""Masks and background: which pixels carry signal, how bright the diffuse background is, how large the noise.

Everything is estimated from the frame itself with medians, so that spots (which cover a
minor part of the frame) do not count as background. Coordinates are (row, col) [px].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sadp._validate import check_range
from napari_sadp.geometry._beam_stop import find_beam_stop
from napari_sadp.geometry._local import (
    GREY_NOISE,
    block_quantile,
    fill_holes,
    least_noise,
    local_quantile,
    median_3x3,
    pixel_noise,
    radial_quantile,
)
from napari_sadp.geometry._masks import (
    find_margins,
    find_scale_bar,
    is_saturated,
    repair_pixels,
    without_streaks,
)

if TYPE_CHECKING:
    from napari_sadp.pattern import DiffractionPattern


#: Level of the background over its noise from which the noise tells how counts scatter; readout alone is below.
_WELL_ABOVE = 1.0
#: Relative error of the streaks that are subtracted.
_STREAK_ERROR = 0.1
#: Ratio of signal to noise of a pixel up to which `compressed` is nearly linear.
_COMPRESSION = 3.0


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A pattern with its background taken off.

    Parameters
    ----------
    signal : (n_rows, n_cols) ndarray of float32
        Intensity above the background, hot and dead pixels repaired, 0 under the mask [counts].
    background : (n_rows, n_cols) ndarray of float32
        Smooth diffuse background [counts].
    noise : (n_rows, n_cols) ndarray of float32
        Local standard deviation of the noise of a pixel, > 0 wherever there is any signal [counts].
    mask : (n_rows, n_cols) ndarray of bool
        True where the data mean nothing: beam stop, margins, burnt-in bars, not finite values.
    beam_stop : (n_rows, n_cols) ndarray of bool
        The part of the mask that is the shadow of a beam stop.
    hot : (n_rows, n_cols) ndarray of bool
        Hot and dead pixels that were repaired; not part of `mask`.
    full : (n_rows, n_cols) ndarray of bool
        Where the detector was saturated; such pixels say how bright it is at least, no more.
    halo_rc : (2,) ndarray of float64 or None
        Centre of the diffuse scattering (row, col) [px], None where it has none; about where the direct beam is.
    quantum : float
        Step of the grey levels where they, and not noise, limit what can be seen; 0 otherwise [counts].
    saturated : bool
        Whether a plateau at the largest value shows that the detector was saturated.
    notes : tuple of str
        What was done, for the user.
    binning : int
        Pixels of the frame along a side of a pixel here, more than 1 in the copies that large spots are looked for in.
    """

    signal: np.ndarray
    background: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    beam_stop: np.ndarray
    hot: np.ndarray
    full: np.ndarray
    halo_rc: np.ndarray | None
    quantum: float
    saturated: bool
    notes: tuple[str, ...]
    binning: int = 1

    @cached_property
    def unsaturated(self) -> PreparedImage:
        """The same with saturated pixels under the mask; itself where there are none."""
        return replace(self, mask=self.mask | self.full) if self.full.any() else self

    @property
    def counting_gain(self) -> float:
        """The `gain` where the background is well above its noise; else 0: noise of the readout would pass for that of counting."""
        live = ~self.mask
        if not live.any():
            return 0.0
        level, noise = np.median(self.background[live][::7]), np.median(self.noise[live][::7])
        return self.gain if level > _WELL_ABOVE * noise else 0.0

    @cached_property
    def gain(self) -> float:
        """Variance per count of signal [counts], from how the noise grows with the background; 0 if it does not."""
        block = max(4, min(self.mask.shape) // 40)
        live = ~self.mask[::block, ::block]
        level = self.background[::block, ::block][live].astype(float)
        variance = self.noise[::block, ::block][live].astype(float) ** 2
        if level.size < 20:
            return 0.0
        low, high = np.quantile(level, [0.2, 0.95])
        span = high - low
        if span <= 3 * np.sqrt(np.median(variance)):
            # flat background: without an offset, the noise of counting
            middle = float(np.median(level))
            return float(np.median(variance) / middle) if middle > 0 else 0.0
        bright, dim = level >= high, level <= low
        return float(max(0.0, (np.median(variance[bright]) - np.median(variance[dim])) / span))


def prepare_image(pattern: DiffractionPattern, *, window_px: float | None = None) -> PreparedImage:
    """Mask what is no signal, repair single pixels, and subtract the diffuse background.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern as read.
    window_px : float, optional
        Side of the median window of the background [px]; must be clearly larger than a spot. A sixth of the
        shorter side of the frame when None.

    Returns
    -------
    PreparedImage
        Background-subtracted signal with mask and noise.

    Raises
    ------
    ValueError
        If `window_px` is below 5 px.
    """
    data = pattern.data.astype(np.float32)
    window = min(data.shape) / 6 if window_px is None else check_range("window_px", window_px, 5, 1e5, "px")
    notes: list[str] = []
    mask = np.zeros(data.shape, bool) if pattern.mask is None else pattern.mask.copy()
    covers = ((find_margins, "margins or bars at the edge"), (find_scale_bar, "a burnt-in scale bar"))
    for find, text in covers if pattern.find_covers else ():
        found = find(data)
        if found.any():
            mask |= found
            notes.append(f"masked {text} ({100 * found.mean():.1f} % of the frame)")
    noise = pixel_noise(data, mask)  # a median, to which single pixels and stops make little difference
    data, hot = repair_pixels(data, mask, noise)
    if hot.any():
        notes.append(f"repaired {int(hot.sum())} hot or dead pixels")
    saturated = is_saturated(data, mask)
    as_read, least, full = data, least_noise(data, mask), np.zeros(data.shape, bool)
    if saturated:
        full = ~mask & (data >= data[~mask].max())
        notes.append("the brightest spots are saturated")
        data, mask, note = without_streaks(data, mask, noise)
        notes += [note] if note else []
    stop = find_beam_stop(data, mask, noise) if pattern.find_covers else np.zeros(data.shape, bool)
    if stop.any():
        mask |= stop
        notes.append(f"masked the shadow of a beam stop ({100 * stop.mean():.1f} % of the frame)")
    halo, halo_rc = _radial_halo(data, mask)
    background = halo + local_quantile(data - halo, mask, window, 0.45)
    signal = np.where(mask, np.float32(0), data - background)
    noise = pixel_noise(data, mask, least)
    quantum = _grey_step(as_read, mask, noise)
    # rounding alone makes 0.29 of a step, also where all neighbours are rounded alike
    noise = np.maximum(noise, np.float32(0.3 * quantum))
    if data is not as_read:
        # what is left of a streak is no spot
        noise = np.hypot(noise, _STREAK_ERROR * (as_read - data))
    return PreparedImage(
        signal, background, noise, mask, stop, hot, full, halo_rc, quantum, saturated, tuple(notes)
    )


def compressed(prepared: PreparedImage) -> PreparedImage:
    """Return a prepared pattern in units of its noise, logarithmic above some of them.

    Beside strong spots the filters of a blob detector dip below zero and swallow weak ones; compressed, strong spots are hardly
    stronger than weak ones. Intensities mean nothing there, positions do.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.

    Returns
    -------
    PreparedImage
        Copy whose signal is ``k asinh(signal / noise / k)`` with k = 3, and whose noise is 1.
    """
    # nothing under the mask has a noise, and a whole frame may be under it
    ratio = prepared.signal / np.maximum(prepared.noise, np.finfo(np.float32).tiny) / np.float32(_COMPRESSION)
    signal = np.where(prepared.mask, np.float32(0), np.float32(_COMPRESSION) * np.arcsinh(ratio))
    return replace(prepared, signal=signal, noise=np.ones_like(prepared.noise), quantum=0.0)


def _grey_step(data: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> float:
    """Return the step of the grey levels if the noise of a pixel is smaller than that of rounding, else 0."""
    levels = np.unique(data[~mask][::7])
    if not 2 < len(levels) <= 256:
        return 0.0
    step = float(np.median(np.diff(levels)))
    return step if float(np.median(noise[~mask])) < GREY_NOISE * step else 0.0


def _radial_halo(data: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the part of the background that depends on the distance from one point only, and that point.

    Inelastic scattering falls off steeply around the direct beam, where no smooth local estimate can follow it. The point
    is the brightest one, or that of the coarse background where a spot is the brightest; what it explains decides.
    """
    good = ~mask
    nothing = np.zeros(data.shape, np.float32)
    if np.count_nonzero(good) < 2000:
        return nothing, None
    step = max(1, min(data.shape) // 128)
    thin = np.zeros(data.shape, bool)
    thin[::step, ::step] = True
    thin &= good
    level = float(np.median(data[thin]))
    filled = np.where(good, data, level)
    row, col = np.nonzero(thin)
    value = data[row, col]
    best_left, best = 0.85 * np.abs(value - level).sum(), None
    for point in _bright_points(filled, mask, step):
        window = tuple(
            slice(max(0, int(x) - 24), min(n, int(x) + 25)) for x, n in zip(point, data.shape, strict=True)
        )
        near_r, near_c = (a.ravel() for a in np.mgrid[window])
        inside = good[window].ravel()
        near_r, near_c = near_r[inside], near_c[inside]
        radius = np.hypot(row - point[0], col - point[1])
        profile = radial_quantile(
            np.concatenate([radius, np.hypot(near_r - point[0], near_c - point[1])]),
            np.concatenate([value, data[near_r, near_c]]),
            0.4,
        )
        left = np.abs(value - np.interp(radius, *profile)).sum()
        if left < best_left:
            best_left, best = left, (point, profile)
    if best is None:
        return nothing, None
    point, (at, profile) = best
    # the beam itself is no background: the profile is held inside of twice its half width
    floor = float(np.median(profile[len(profile) // 2 :]))
    below = np.flatnonzero(profile - floor < 0.5 * (profile[0] - floor))
    half = float(at[below[0]]) if len(below) else 0.0
    held = np.clip(2 * half, 4.0, max(6.0, 0.06 * min(data.shape)))
    profile = np.where(at < held, np.minimum(profile, np.interp(held, at, profile)), profile)
    table = np.interp(np.arange(0, 4 * sum(data.shape)) / 2, at, profile).astype(np.float32)
    axis_r, axis_c = (
        np.arange(n, dtype=np.float32) - np.float32(x) for n, x in zip(data.shape, point, strict=True)
    )
    radius = 2 * np.sqrt(axis_r[:, None] ** 2 + axis_c**2)
    index = radius.astype(np.int32)
    part = radius - index
    return table[index] * (1 - part) + table[index + 1] * part, point


def _bright_points(filled: np.ndarray, mask: np.ndarray, step: int) -> list[np.ndarray]:
    """Return places where the direct beam or its halo may be centred (row, col) [px]."""
    smooth = ndimage.uniform_filter(filled, 5)
    # spots fill no tile, so that the brightest tile is that of the diffuse light
    block = 4 * step
    tiles = median_3x3(fill_holes(block_quantile(filled, mask, block, 0.4)))
    points = [
        np.array(np.unravel_index(np.argmax(smooth), smooth.shape), float),
        (np.array(np.unravel_index(np.argmax(tiles), tiles.shape)) + 0.5) * block - 0.5,
    ]
    for point in list(points):
        r0, c0 = (max(0, int(x) - 20) for x in point)
        patch = smooth[r0 : int(point[0]) + 21, c0 : int(point[1]) + 21]
        weight = np.clip(patch - (patch.min() + 0.5 * np.ptp(patch)), 0, None)
        if weight.sum() > 0:
            axis_r, axis_c = (np.arange(n) for n in patch.shape)
            points.append(
                np.array([weight.sum(1) @ axis_r, weight.sum(0) @ axis_c]) / weight.sum() + [r0, c0]
            )
    return points
