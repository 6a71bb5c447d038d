"""Robust local statistics of a frame: quantiles of tiles and rings, the noise of a pixel, and a fast small median."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Below this noise of a pixel, in steps of the grey levels, the rounding shows instead: a gradient has contours.
GREY_NOISE = 0.4
#: Pixels that fix a quantile of a frame.
_ENOUGH = 2000
#: Pixels of a strip that stays in the cache of a processor.
_STRIP = 8192
#: Step of a table of radii [px].
_RING_STEP = 0.25
#: Exchanges of the median of nine.
_EXCHANGES = (
    *((1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3)),
    *((5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2)),
)


def few_pixels(data: np.ndarray) -> np.ndarray:
    """Return every seventh pixel or so (n,): enough for a quantile of a frame, and fast."""
    return data.ravel()[:: 7 if data.size > 7 * _ENOUGH else 1]


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
    coarse = block_quantile(data, mask, block, quantile)
    if not np.isfinite(coarse).any():
        return np.zeros(data.shape, np.float32)
    coarse = ndimage.gaussian_filter(_median_5x5(fill_holes(coarse)), 0.7, mode="nearest")
    return _enlarge(coarse, data.shape, block)


def block_quantile(data: np.ndarray, mask: np.ndarray, block: int, quantile: float) -> np.ndarray:
    """Return the quantile of each block x block tile (NaN where a tile is mostly masked).

    Of large tiles every second or third row and column is asked: a hundred values fix a quantile.
    """
    shape = tuple(-(-size // block) for size in data.shape)
    step = max(1, block // 9)
    values = np.full((shape[0] * block, shape[1] * block), np.nan, np.float32)
    values[: data.shape[0], : data.shape[1]] = np.where(mask, np.float32(np.nan), data)
    tiles = values.reshape(shape[0], block, shape[1], block)[:, ::step, :, ::step]
    n = tiles.shape[1] * tiles.shape[3]
    tiles = np.sort(tiles.swapaxes(1, 2).reshape(*shape, n), axis=-1)  # NaN goes last
    count = np.isfinite(tiles).sum(-1)
    rank = np.clip(np.round(quantile * (count - 1)), 0, None).astype(int)
    result = np.take_along_axis(tiles, rank[..., None], -1)[..., 0]
    return np.where(count >= 0.3 * n, result, np.nan)


def fill_holes(coarse: np.ndarray) -> np.ndarray:
    """Return a copy whose NaN hold the nearest finite value."""
    bad = ~np.isfinite(coarse)
    if not bad.any():
        return coarse
    nearest = ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    return coarse[tuple(nearest)]


def _enlarge(coarse: np.ndarray, shape: tuple[int, int], block: int) -> np.ndarray:
    """Interpolate tile values linearly to pixels."""
    down, across = (interpolation(n, size, block) for n, size in zip(coarse.shape, shape, strict=True))
    return down.astype(np.float32) @ coarse.astype(np.float32) @ across.T.astype(np.float32)


def interpolation(n_tiles: int, n_pixels: int, block: int) -> np.ndarray:
    """Return the weights (n_pixels, n_tiles) of linear interpolation between the centres of tiles."""
    place = np.clip((np.arange(n_pixels) + 0.5) / block - 0.5, 0, n_tiles - 1)
    first = np.minimum(place.astype(int), max(n_tiles - 2, 0))
    weights = np.zeros((n_pixels, n_tiles))
    rows = np.arange(n_pixels)
    weights[rows, first] = 1 - (place - first)
    if n_tiles > 1:
        weights[rows, first + 1] = place - first
    return weights


def radial_quantile(radius: np.ndarray, value: np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Return radii and a quantile of the values around them, from rings that grow wider outwards."""
    edges = np.unique(np.concatenate([np.arange(0, 24, 1.5), 24 * 1.06 ** np.arange(80)]))
    edges = edges[: np.searchsorted(edges, radius.max()) + 1]
    order, first = sorted_in_groups(_ring_of(radius, edges), value, len(edges))
    value, count = value[order], np.diff(first)
    full = np.flatnonzero(count >= 8)
    pick = first[full] + np.round(quantile * (count[full] - 1)).astype(int)
    middle = edges[full] + 0.5 * np.diff(np.append(edges, edges[-1] * 1.06))[full]
    # steps of the rings, not of the pattern, would look like rings
    level = value[pick]
    smooth = level.copy()
    smooth[1:-1] = np.median(np.stack([level[:-2], level[1:-1], level[2:]]), axis=0)
    return middle, smooth


def _ring_of(radius: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the number of the last edge not beyond each radius (n,); rings are wider than the steps of the table that it is read from."""
    steps = np.arange(int(radius.max() / _RING_STEP) + 2) * _RING_STEP
    ring = (np.searchsorted(edges, steps, side="right") - 1)[(radius / _RING_STEP).astype(int)]
    return ring + (np.append(edges, np.inf)[ring + 1] <= radius)


def sorted_in_groups(number: np.ndarray, value: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order (n,) that sorts values by the number of their group and then by size, and where each group starts.

    Numbers are not negative; those from `n_groups` on come last, and are in no group. Starts are (n_groups + 1,). Values count to
    single precision.
    """
    # group and value as one integer, which is sorted many times faster: of a negative float a larger pattern of bits is a smaller
    # number, of another one a larger
    bits = value.astype(np.float32).view(np.int32)
    bits = np.where(bits < 0, ~bits, bits ^ np.int32(-(2**31))).view(np.uint32)
    key = (number.astype(np.uint64) << np.uint64(32)) | bits
    order = np.argsort(key)
    return order, np.searchsorted(key[order], np.arange(n_groups + 1, dtype=np.uint64) << np.uint64(32))


def pixel_noise(data: np.ndarray, mask: np.ndarray, least: float | None = None) -> np.ndarray:
    """Return the local noise of a pixel: 1.4826 MAD of the second differences, in both directions.

    The mask (1, -2, 1) x (1, -2, 1) is blind to planes and nearly to spots; white noise comes out times 6 (Immerkaer
    1996, doi:10.1006/cviu.1996.0060). The least is that of `least_noise` where it is not known.
    """
    least = least_noise(data, mask) if least is None else least
    padded = np.pad(data, 1, mode="edge")
    rough = padded[:-2] - 2 * padded[1:-1] + padded[2:]
    rough = np.abs(rough[:, :-2] - 2 * rough[:, 1:-1] + rough[:, 2:]) / 6
    near_mask = ndimage.binary_dilation(mask, np.ones((3, 3))) if mask.any() else mask
    window = max(24.0, min(data.shape) / 6)
    noise = 1.4826 * local_quantile(rough, near_mask, window, 0.5)
    return np.maximum(noise, np.float32(least)).astype(np.float32)


def least_noise(data: np.ndarray, mask: np.ndarray) -> float:
    """Return the noise of a pixel below which no frame is: that of rounding to integers, or a little of its range."""
    good = data[~mask] if mask.any() else data.ravel()
    if not good.size:
        return 0.0
    some = good[::5]
    low, high = np.percentile(some, [1, 99.9])
    integer = bool(np.all(some == np.round(some)) and np.all(good == np.round(good)))
    # rounding to integers alone makes 0.29 counts; float images without noise still need a finite signal to noise
    return max(1e-5 * float(high - low), 0.3 if integer else 0.0, 1e-30)


def _median_5x5(data: np.ndarray) -> np.ndarray:
    """Return the median of 5 x 5 values of a small array, faster than a rank filter."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(data, 2, mode="edge"), (5, 5))
    return np.sort(around.reshape(-1, 25), axis=1)[:, 12].reshape(data.shape)


def median_3x3(data: np.ndarray) -> np.ndarray:
    """Return the median of 3 x 3 pixels by exchanges of neighbours, many times faster than sorting.

    References
    ----------
    Smith, Xilinx XCELL 23 (1996): 19 exchanges give the median of nine.
    """
    padded = np.pad(data, 1, mode="edge")
    rows, cols = data.shape
    result = np.empty_like(data)
    # strips that stay in the cache of the processor
    height = max(1, _STRIP // max(cols, 1))
    for top in range(0, rows, height):
        strip = padded[top : top + height + 2]
        n = len(strip) - 2
        p = [strip[i : i + n, j : j + cols] for i in range(3) for j in range(3)]
        for i, j in _EXCHANGES:
            p[i], p[j] = np.minimum(p[i], p[j]), np.maximum(p[i], p[j])
        result[top : top + n] = p[4]
    return result
