"""Masks and background: which pixels carry signal, how bright the diffuse background is, how large the noise.

A first, honest version. Everything is estimated from the frame itself with medians, so that spots (which cover a
minor part of the frame) do not count as background. Coordinates are (row, col) [px].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage import measure, morphology
from skimage.transform import resize

from napari_sadp._validate import check_range

if TYPE_CHECKING:
    from napari_sadp.pattern import DiffractionPattern

_MAX_MARGIN = 0.15  # title bars and axes take at most this share of a side; more would cut the pattern
_STOP_WORK_PX = 128  # beam stops are large: a small copy of the frame shows them and is fast


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
    saturated : bool
        Whether a plateau at the largest value shows that the detector was saturated.
    notes : tuple of str
        What was done, for the user.
    """

    signal: np.ndarray
    background: np.ndarray
    noise: np.ndarray
    mask: np.ndarray
    beam_stop: np.ndarray
    hot: np.ndarray
    saturated: bool
    notes: tuple[str, ...]


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
    for found, text in (
        (_margins(data), "margins or bars at the edge"),
        (_scale_bar(data), "a burnt-in scale bar"),
    ):
        if found.any():
            mask |= found
            notes.append(f"masked {text} ({100 * found.mean():.1f} % of the frame)")
    data, hot = _repair_pixels(data, mask)
    if hot.any():
        notes.append(f"repaired {int(hot.sum())} hot or dead pixels")
    stop = _beam_stop(data, mask)
    if stop.any():
        mask |= stop
        notes.append(f"masked the shadow of a beam stop ({100 * stop.mean():.1f} % of the frame)")
    background = local_quantile(data, mask, window, 0.45)
    signal = np.where(mask, np.float32(0), data - background)
    saturated = _is_saturated(data, mask)
    if saturated:
        notes.append("the brightest spots are saturated")
    return PreparedImage(signal, background, _noise(data, mask), mask, stop, hot, saturated, tuple(notes))


def local_quantile(data: np.ndarray, mask: np.ndarray, window_px: float, quantile: float) -> np.ndarray:
    """Return a smooth local quantile of the unmasked pixels.

    Blocks of a fifth of the window are reduced first, then a 5 x 5 median of blocks is interpolated: the cost does not
    depend on the window, and the result has no steps.

    Parameters
    ----------
    data : (n_rows, n_cols) ndarray of float
        Values.
    mask : (n_rows, n_cols) ndarray of bool
        True where `data` is ignored.
    window_px : float
        Side of the window [px].
    quantile : float
        0 to 1.

    Returns
    -------
    (n_rows, n_cols) ndarray of float32
        The local quantile; far inside a mask, the value of its surroundings.
    """
    block = max(2, round(window_px / 5))
    coarse = _block_quantile(data, mask, block, quantile)
    if not np.isfinite(coarse).any():
        return np.zeros(data.shape, np.float32)
    coarse = _fill_holes(coarse)
    coarse = ndimage.median_filter(coarse, size=5, mode="nearest")
    coarse = ndimage.gaussian_filter(coarse, 0.7, mode="nearest")
    return _enlarge(coarse, data.shape, block)


def _block_quantile(data: np.ndarray, mask: np.ndarray, block: int, quantile: float) -> np.ndarray:
    """Return the quantile of each block x block tile (NaN where a tile is mostly masked)."""
    pad = [(0, -size % block) for size in data.shape]
    values = np.pad(np.where(mask, np.nan, data).astype(np.float32), pad, constant_values=np.nan)
    rows, cols = (size // block for size in values.shape)
    tiles = values.reshape(rows, block, cols, block).swapaxes(1, 2).reshape(rows, cols, block * block)
    tiles = np.sort(tiles, axis=-1)  # NaN goes last
    count = np.isfinite(tiles).sum(-1)
    rank = np.clip(np.round(quantile * (count - 1)), 0, None).astype(int)
    result = np.take_along_axis(tiles, rank[..., None], -1)[..., 0]
    return np.where(count >= 0.3 * block * block, result, np.nan)


def _fill_holes(coarse: np.ndarray) -> np.ndarray:
    """Return a copy whose NaN hold the nearest finite value."""
    bad = ~np.isfinite(coarse)
    if not bad.any():
        return coarse
    nearest = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    return coarse[tuple(nearest)]


def _enlarge(coarse: np.ndarray, shape: tuple[int, int], block: int) -> np.ndarray:
    """Interpolate tile values to pixels."""
    full = resize(coarse, [size * block for size in coarse.shape], order=1, mode="edge", preserve_range=True)
    return full[: shape[0], : shape[1]].astype(np.float32)


def _noise(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the local noise of a pixel: 1.4826 MAD of the second differences, in both directions.

    The mask (1, -2, 1) x (1, -2, 1) is blind to planes and nearly to spots; white noise comes out times 6 (Immerkaer
    1996, doi:10.1006/cviu.1996.0060).
    """
    kernel = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
    rough = np.abs(ndimage.convolve(data, kernel, mode="nearest")) / 6
    near_mask = ndimage.binary_dilation(mask, np.ones((3, 3)))
    window = max(24.0, min(data.shape) / 6)
    noise = 1.4826 * local_quantile(rough, near_mask, window, 0.5)
    good = data[~mask]
    if not good.size:
        return noise
    spread = float(good.max() - good.min())
    integer = bool(np.all(good == np.round(good)))
    # rounding to integers alone makes 0.29 counts; float images without noise still need a finite signal to noise
    return np.maximum(noise, max(1e-4 * spread, 0.3 if integer else 0.0)).astype(np.float32)


def _margins(data: np.ndarray) -> np.ndarray:
    """Return constant margins, and bars (titles, axes, colour bars) that a straight step cuts off the frame."""
    mask = np.zeros(data.shape, bool)
    low, high = np.percentile(data, [1, 99.9])
    for axis in (0, 1):
        lines = data if axis == 0 else data.T
        for flipped in (False, True):
            view = lines[::-1] if flipped else lines
            cut = max(_constant_run(view), _step_run(view, float(high - low)))
            target = mask if axis == 0 else mask.T
            target = target[::-1] if flipped else target
            target[:cut] = True
    return mask


def _constant_run(lines: np.ndarray) -> int:
    """Return how many rows from the first on hold one and the same value; 0 if the whole frame does."""
    same = np.ptp(lines, axis=1) == 0
    same &= lines[:, 0] == lines[0, 0]
    return 0 if same.all() else int(np.argmin(same))


def _step_run(lines: np.ndarray, spread: float) -> int:
    """Return where the last full-width step within the outer part of the frame is, 0 if there is none."""
    n_edge = int(_MAX_MARGIN * len(lines))
    if n_edge < 2 or spread <= 0:
        return 0
    middle = np.median(lines[: n_edge + 1], axis=1)
    steps = np.flatnonzero(np.abs(np.diff(middle)) > 0.2 * spread)
    return int(steps[-1]) + 1 if len(steps) else 0


def _scale_bar(data: np.ndarray) -> np.ndarray:
    """Return a burnt-in scale bar with the box where its lettering sits."""
    mask = np.zeros(data.shape, bool)
    low, top = float(np.median(data)), float(data.max())
    if top <= low:
        return mask
    for region in measure.regionprops(measure.label(data >= low + 0.97 * (top - low), connectivity=1)):
        r0, c0, r1, c1 = region.bbox
        thick, long = sorted((r1 - r0, c1 - c0))
        if not (long >= 4 * thick and long >= 0.05 * max(data.shape) and region.extent > 0.9):
            continue
        horizontal = c1 - c0 == long
        across, along = max(8 * thick, 0.25 * long), 0.15 * long + 3
        dr, dc = (across, along) if horizontal else (along, across)
        mask[max(0, int(r0 - dr)) : int(r1 + dr) + 1, max(0, int(c0 - dc)) : int(c1 + dc) + 1] = True
    return mask if mask.mean() < 0.1 else np.zeros(data.shape, bool)


def _repair_pixels(data: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace hot and dead pixels by the median of their surroundings.

    A Gaussian spot of standard deviation 0.9 px or more raises the 3 x 3 median to a quarter of its height or more;
    a hot pixel, or a cluster of up to four, leaves it at the background.
    """
    hot = np.zeros(data.shape, bool)
    data = data.copy()
    for _ in range(2):
        noise = _noise(data, mask)
        median = ndimage.median_filter(data, size=3, mode="reflect")
        row, col = np.nonzero((np.abs(data - median) > 8 * noise) & ~mask)
        if not len(row):
            break
        offset = np.arange(-3, 4)
        patch_r = np.clip(row[:, None, None] + offset[None, :, None], 0, data.shape[0] - 1)
        patch_c = np.clip(col[:, None, None] + offset[None, None, :], 0, data.shape[1] - 1)
        around = np.median(data[patch_r, patch_c].reshape(len(row), -1), axis=1)
        value, centre = data[row, col], median[row, col]
        bad = np.abs(value - centre) > 0.78 * np.abs(value - around)
        # a dark pixel inside a bright spot is dead only if it is nearly without counts
        bad &= (value > centre) | (value < 0.3 * np.maximum(centre, 0))
        row, col, centre = row[bad], col[bad], centre[bad]
        hot[row, col] = True
        data[row, col] = centre
        if not len(row):
            break
    return data, hot


def _beam_stop(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the shadow of a beam stop of any shape.

    On a small copy, an opening takes the spots away and a closing fills dark regions narrower than a quarter of the
    frame. A stop is a connected region that lost more than half of the light around it, is evenly dark, and either
    reaches the edge of the frame or is compact.
    """
    block = max(1, round(min(data.shape) / _STOP_WORK_PX))
    small = _block_quantile(data, mask, block, 0.5)
    if not np.isfinite(small).any():
        return np.zeros(data.shape, bool)
    small = ndimage.median_filter(_fill_holes(small), size=3, mode="nearest")
    side = min(small.shape)
    calm = ndimage.grey_opening(small, footprint=morphology.disk(max(2, side // 24)), mode="nearest")
    # outside counts as ordinary background, else a stop that covers a corner could not be filled
    padded = np.pad(calm, side // 4, constant_values=float(np.median(calm)))
    closed = ndimage.grey_closing(padded, footprint=morphology.disk(max(3, side // 9)))
    closed = closed[side // 4 : -(side // 4), side // 4 : -(side // 4)]
    dark = float(np.percentile(small, 0.5))
    noise = _block_quantile(_noise(data, mask), mask, block, 0.5)
    noise = np.where(np.isfinite(noise), noise, np.nanmedian(noise)) / block
    lost = (closed - calm > 0.55 * (closed - dark)) & (closed - calm > 4 * noise)
    lost = morphology.opening(lost, morphology.disk(1))
    labels = measure.label(lost, connectivity=1)
    keep = np.zeros(lost.shape, bool)
    for region in measure.regionprops(labels, intensity_image=small):
        if region.area < 0.002 * lost.size or region.area > 0.25 * lost.size:
            continue
        inside = small[labels == region.label]
        around = closed[labels == region.label]
        even = np.percentile(inside, 75) - dark < 0.25 * (np.median(around) - dark)
        inner = (labels == region.label) & ~ndimage.binary_erosion(
            labels == region.label, iterations=2, border_value=1
        )
        outer = ndimage.binary_dilation(labels == region.label, iterations=4)
        outer &= ~ndimage.binary_dilation(labels == region.label, iterations=2)
        # a shadow has an edge; the dim corner of a frame has none
        even &= np.median(small[outer]) - np.median(small[inner]) > 0.5 * (np.median(around) - dark)
        r0, c0, r1, c1 = region.bbox
        at_edge = r0 == 0 or c0 == 0 or r1 == lost.shape[0] or c1 == lost.shape[1]
        if even and (at_edge or (region.solidity > 0.9 and region.eccentricity < 0.7)):
            keep |= labels == region.label
    keep = ndimage.binary_dilation(keep, iterations=2) & (small < 0.5 * (closed + dark)) | keep
    keep = ndimage.binary_dilation(keep, iterations=max(1, round(2 / block)))
    return np.kron(keep, np.ones((block, block), bool))[: data.shape[0], : data.shape[1]]


def _is_saturated(data: np.ndarray, mask: np.ndarray) -> bool:
    """Tell whether more than a few touching pixels share the largest value."""
    good = np.where(mask, -np.inf, data)
    top = good.max()
    if not np.isfinite(top) or top <= np.median(data):
        return False
    labels, count = ndimage.label(good >= top)
    return bool(count and np.bincount(labels.ravel())[1:].max() >= 6)
