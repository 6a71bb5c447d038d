"""Diffraction spots: position, intensity and significance, from sharp spots to small convergent-beam discs.

The detector is the scale-normalised Laplacian of Gaussian (Lindeberg 1998, doi:10.1023/A:1008045108935): its response to a
Gaussian spot of standard deviation s is largest at the scale s, to a disc of radius r at r / sqrt(2). One scale is chosen
for the pattern, because all spots of a pattern share the beam that made them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_sadp._validate import check_range
from napari_sadp.geometry.background import PreparedImage, local_quantile, prepare_image
from napari_sadp.geometry.results import SpotList

if TYPE_CHECKING:
    from napari_sadp.pattern import DiffractionPattern

_MIN_SIGMA = 0.9
_SCALE_STEP = 1.35
_ROUGHNESS_SHARE = 0.6
_MIN_ROUNDNESS = (
    0.18  # smaller curvature over larger one; bands and streaks are far below, tilted spots above
)


def find_spots(
    pattern: DiffractionPattern,
    *,
    min_snr: float = 6.0,
    max_spots: int = 300,
    sigma_range_px: tuple[float, float] | None = None,
    prepared: PreparedImage | None = None,
) -> SpotList:
    """Find the spots of a pattern; their common size is found too.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    min_snr : float
        Smallest ratio of a peak to the noise of the filtered image.
    max_spots : int
        Only the most significant ones are kept.
    sigma_range_px : tuple of float, optional
        Smallest and largest standard deviation of a spot [px]; 0.9 px to a 22nd of the frame when None.
    prepared : PreparedImage, optional
        The result of `prepare_image`, if it is at hand.

    Returns
    -------
    SpotList
        Spots by falling signal to noise ratio; empty if there are none. The direct beam is among them when visible.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    min_snr = check_range("min_snr", min_snr, 1, 1e6)
    max_spots = int(check_range("max_spots", max_spots, 1, 1e5))
    prepared = prepare_image(pattern) if prepared is None else prepared
    low, high = (_MIN_SIGMA, max(3.0, min(pattern.shape) / 22)) if sigma_range_px is None else sigma_range_px
    low = check_range("sigma_range_px[0]", low, 0.5, 1e3, "px")
    high = check_range("sigma_range_px[1]", high, low, 1e3, "px")
    if min(pattern.shape) < 8 or not np.any(prepared.signal):
        return _empty(low)
    sigmas = low * _SCALE_STEP ** np.arange(np.floor(np.log(high / low) / np.log(_SCALE_STEP)) + 1)
    layers = [_filtered(prepared, sigma) for sigma in sigmas]
    level = _common_level(prepared, layers, sigmas, min_snr)
    if level is None:
        return _empty(low)
    blobs = _maxima(prepared, layers, sigmas, level, min_snr)
    blobs = blobs[np.argsort(-blobs[:, 4], kind="stable")][:max_spots]
    return _measure(prepared, blobs, layers, sigmas, float(sigmas[level]))


def _empty(sigma: float) -> SpotList:
    """Return a list without spots."""
    return SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), float(sigma))


def _filtered(prepared: PreparedImage, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised response and its local noise at one scale."""
    response = -(sigma**2) * ndimage.gaussian_laplace(prepared.signal, sigma, mode="nearest")
    # white noise of unit variance leaves the filter with variance sigma^4 * integral (Laplacian of G)^2
    white = prepared.noise / (sigma * np.sqrt(2 * np.pi))
    spread = 1.4826 * local_quantile(np.abs(response), prepared.mask, max(24, 16 * sigma), 0.5)
    # noise is never quite white (detector blur, compression): take the factor where the pattern is quietest
    good = ~prepared.mask
    factor = float(np.quantile(spread[good] / white[good], 0.25)) if good.any() else 1.0
    # where the surroundings are rough at this scale (bands, rings, speckle), a spot must stand out from that as well;
    # the share is low because the side lobes of a dense lattice are rough too
    return response, np.maximum(white * max(factor, 1.0), _ROUGHNESS_SHARE * spread)


def _common_level(
    prepared: PreparedImage, layers: list[tuple[np.ndarray, np.ndarray]], sigmas: np.ndarray, min_snr: float
) -> int | None:
    """Return the level of the scale that the significant blobs share, None without any.

    Blobs are placed where the signal to noise ratio over all scales peaks: it grows with size, so that texture inside
    discs and clusters of hot pixels lose. The scale is where their mean normalised response is largest.
    """
    snr = np.max([response / noise for response, noise in layers], axis=0)
    reach = max(2, round(2 * sigmas[0]))
    row, col = np.nonzero(
        (snr == ndimage.maximum_filter(snr, size=2 * reach + 1)) & (snr >= min_snr) & ~prepared.mask
    )
    if not len(row):
        return None
    order = np.argsort(-snr[row, col], kind="stable")[:80]
    row, col = row[order], col[order]
    profile = np.stack([ndimage.maximum_filter(response, size=3)[row, col] for response, _ in layers])
    # the response of a blob keeps growing where it sits on a halo or has neighbours: its first maximum counts
    turned = np.diff(profile, axis=0) < -0.02 * profile[:-1]
    first = np.where(turned.any(axis=0), np.argmax(turned, axis=0), len(sigmas) - 1)
    weight = np.minimum(snr[row, col], np.quantile(snr[row, col], 0.8))
    order = np.argsort(first, kind="stable")
    total = np.cumsum(weight[order])
    return int(first[order][np.searchsorted(total, total[-1] / 2)])


def _maxima(
    prepared: PreparedImage,
    layers: list[tuple[np.ndarray, np.ndarray]],
    sigmas: np.ndarray,
    level: int,
    min_snr: float,
) -> np.ndarray:
    """Return the blobs of the common scale, and broad ones that are no sum of sharper spots.

    Columns are row, col, level, response, snr.
    """
    inside = ndimage.distance_transform_edt(~np.pad(prepared.mask, 1, constant_values=True))[1:-1, 1:-1]
    found = []
    for k in [level, *range(level + 2, len(sigmas))]:
        (response, noise), sigma = layers[k], sigmas[k]
        peak = response == ndimage.maximum_filter(response, size=2 * max(1, round(sigma)) + 1)
        row, col = np.nonzero(peak & (response >= min_snr * noise) & (inside > 1.5 * sigmas[level]))
        value = response[row, col]
        good = _roundness(response, row, col) > _MIN_ROUNDNESS
        if k > level and len(found[0]):
            # the edge of a flat disc answers with 0.24 of its height at small scales, the disc itself with 0.74
            sharp = ndimage.maximum_filter(layers[level][0], size=2 * round(1.5 * sigma) + 1)[row, col]
            good &= (value > 2 * sharp) & (value > 0.5 * found[0][:, 3].max())
        elif k == level and level + 3 < len(sigmas):
            # a hump more than 2.5 times too broad; the direct beam in its halo, and bright spots, stay
            good &= (layers[level + 3][0][row, col] < 2 * value) | (value > 0.2 * value.max(initial=0))
        columns = [row, col, np.full(len(row), k), value, value / noise[row, col]]
        found.append(np.column_stack(columns)[good])
    return _without_overlap(np.concatenate(found), sigmas)


def _roundness(image: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Return the ratio of the principal curvatures at pixels, 0 where the surface is no peak."""
    r0, r1 = np.clip(row - 1, 0, None), np.clip(row + 1, None, image.shape[0] - 1)
    c0, c1 = np.clip(col - 1, 0, None), np.clip(col + 1, None, image.shape[1] - 1)
    centre = image[row, col]
    rr = image[r1, col] + image[r0, col] - 2 * centre
    cc = image[row, c1] + image[row, c0] - 2 * centre
    rc = (image[r1, c1] - image[r1, c0] - image[r0, c1] + image[r0, c0]) / 4
    half, root = (rr + cc) / 2, np.hypot((rr - cc) / 2, rc)
    flat, steep = half + root, half - root
    return np.where((flat < 0) & (steep < 0), flat / np.where(steep < 0, steep, -1.0), 0.0)


def _without_overlap(blobs: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Drop blobs that lie inside a stronger one."""
    blobs = blobs[np.argsort(-blobs[:, 3], kind="stable")]
    if not len(blobs):
        return blobs
    tree = cKDTree(blobs[:, :2])
    alive = np.ones(len(blobs), bool)
    for i, blob in enumerate(blobs):
        if alive[i]:
            near = tree.query_ball_point(blob[:2], 1.8 * sigmas[int(blob[2])])
            alive[[j for j in near if j > i]] = False
    return blobs[alive]


def _measure(
    prepared: PreparedImage,
    blobs: np.ndarray,
    layers: list[tuple[np.ndarray, np.ndarray]],
    sigmas: np.ndarray,
    sigma: float,
) -> SpotList:
    """Refine positions and integrate intensities."""
    rc, intensity, snr = [], [], []
    image = prepared.signal
    for row, col, level, response, blob_snr in blobs:
        own = max(sigma, sigmas[int(level)])
        # a Gaussian loses 30 % of its response at 1.8 times its scale; what loses less is a disc, whose inner
        # structure would pull a narrow window
        r, c = int(row), int(col)
        wide = int(level) + 2 < len(sigmas) and layers[int(level) + 2][0][r, c] > 0.78 * response
        refine = _disc_centre if wide else _centroid
        position = refine(image, prepared.mask, np.array([row, col]), own)
        total = _integrate(image, prepared.mask, position, own)
        if total > 0 and not _has_pixel_edge(prepared, position, own):
            rc.append(position)
            intensity.append(total)
            snr.append(blob_snr)
    return SpotList(np.array(rc).reshape(-1, 2), np.array(intensity), np.array(snr), sigma)


def _has_pixel_edge(prepared: PreparedImage, rc: np.ndarray, sigma: float) -> bool:
    """Tell whether a blob rises to its full height within one pixel: a cluster of hot pixels, lettering.

    The steepest step between pixels of a Gaussian of standard deviation 0.9 px is 0.65 of its height. Saturated
    discs rise steeply too, but from a foot of scattered light, and they are larger.
    """
    rows, cols, _, _ = _window(prepared.signal.shape, rc, 1.5 * sigma + 1)
    patch = prepared.signal[rows, cols]
    height = float(patch.max() - np.percentile(patch, 20))
    step = max(np.abs(np.diff(patch, axis=0)).max(initial=0), np.abs(np.diff(patch, axis=1)).max(initial=0))
    noise = float(np.median(prepared.noise[rows, cols]))
    if step - 3 * noise <= 0.8 * height or sigma >= 2.5:
        return False
    # the direct beam of a pixel detector may be as sharp, but stands in its own scattered light
    rows, cols, dr, dc = _window(prepared.signal.shape, rc, 4.5)
    distance = np.hypot(dr, dc)
    foot = float(np.median(prepared.signal[rows, cols][(distance > 2.5) & (distance <= 4.5)]))
    return foot < max(0.03 * height, 3 * noise)


def _window(
    shape: tuple[int, int], rc: np.ndarray, reach: float
) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Return slices around a position and the distances of their rows and columns from it."""
    bounds = [
        (max(0, int(np.floor(x - reach))), min(n, int(np.ceil(x + reach)) + 1))
        for x, n in zip(rc, shape, strict=True)
    ]
    (r0, r1), (c0, c1) = bounds
    return (
        slice(r0, r1),
        slice(c0, c1),
        np.arange(r0, r1)[:, None] - rc[0],
        np.arange(c0, c1)[None, :] - rc[1],
    )


def _centroid(image: np.ndarray, mask: np.ndarray, start: np.ndarray, sigma: float) -> np.ndarray:
    """Return the fixed point of a Gaussian-weighted centroid, which is unbiased for a symmetric spot."""
    rc = start.astype(float)
    floor = None
    for _ in range(12):
        rows, cols, dr, dc = _window(image.shape, rc, 2.5 * sigma)
        patch = image[rows, cols]
        if floor is None:
            floor = np.partition(patch, patch.size // 5, axis=None)[patch.size // 5]
        weight = (
            np.exp(-(dr**2 + dc**2) / (2 * sigma**2)) * np.clip(patch - floor, 0, None) * ~mask[rows, cols]
        )
        total = weight.sum()
        if total <= 0:
            return start.astype(float)
        # the weight halves the apparent variance, so the step is doubled
        step = 2 * np.array([(weight * dr).sum(), (weight * dc).sum()]) / total
        rc = rc + np.clip(step, -sigma, sigma)
        if np.hypot(*(rc - start)) > 1.5 * sigma + 1:
            return start.astype(float)
        if np.hypot(*step) < 1e-3:
            break
    return rc


def _disc_centre(image: np.ndarray, mask: np.ndarray, start: np.ndarray, sigma: float) -> np.ndarray:
    """Return the centre of area of what is above half of the height: a disc, or the core of a beam in its halo."""
    rows, cols, dr, dc = _window(image.shape, start, 3.5 * sigma + 1)
    patch = np.where(mask[rows, cols], -np.inf, image[rows, cols])
    finite = patch[np.isfinite(patch)]
    floor, top = np.quantile(finite, 0.2), finite.max()
    # a saturated beam: its plateau is round, what surrounds it need not be
    plateau = np.count_nonzero(patch >= floor + 0.98 * (top - floor)) >= max(6, 0.5 * sigma**2)
    labels, _ = ndimage.label(patch >= floor + (0.9 if plateau else 0.5) * (top - floor))
    near = np.where(labels > 0, np.hypot(dr, dc), np.inf)
    blob = labels == labels[np.unravel_index(np.argmin(near), near.shape)]
    shift = np.array([(blob * dr).sum(), (blob * dc).sum()]) / blob.sum()
    return start + shift


def _integrate(image: np.ndarray, mask: np.ndarray, rc: np.ndarray, sigma: float) -> float:
    """Return the sum over 2.5 sigma above the median of the ring around it."""
    rows, cols, dr, dc = _window(image.shape, rc, 4 * sigma)
    distance = np.hypot(dr, dc) / sigma
    good = ~mask[rows, cols]
    patch = image[rows, cols]
    ring = patch[(distance > 2.75) & (distance <= 4) & good]
    floor = float(np.percentile(ring, 40)) if ring.size >= 5 else 0.0
    return float((patch - floor)[(distance <= 2.5) & good].sum())
