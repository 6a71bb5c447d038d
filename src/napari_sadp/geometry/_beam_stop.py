"""The shadow of a beam stop: dark against its surroundings, and against what other places at its distance get."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure

from napari_sadp.geometry._local import block_quantile, fill_holes, median_3x3, radial_quantile

_STOP_WORK_PX = 128  # beam stops are large: a small copy of the frame shows them and is fast
#: Share of the light that arrives in a shadow at most; several, since a shallow one runs together with dim parts of the pattern.
_DEPTHS = (0.12, 0.25, 0.45)
#: Share of the light at the same distance from the brightest place: more is no shadow, less is a shadow wherever it ends.
_LIT, _BLACK = 0.6, 0.2
#: Quantile of the light at a distance that is between spots: a stop covers less than so much of a circle, save its head, up
#: to this share of the side of the frame.
_BETWEEN, _HEAD = 0.3, 0.2
#: Half of the width of such a shadow at most, over the side of the frame.
_WIDEST = 0.1
#: A stop takes away light that matters: shares of the brightest.
_LOSS, _LOSS_OF_BLACK = 0.05, 0.005
_DIM = 0.06  # of the light at the brightest place: no shadow shows there


def find_beam_stop(data: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return the shadow of a beam stop of any shape.

    On a small copy, an opening takes the spots away and a closing fills dark regions narrower than a quarter of the
    frame. A stop is a connected region that lost more than half of the light around it, is evenly dark, gets less light
    than places between spots at the same distance from the brightest one, and is nearly black, or compact, or reaches the
    edge of the frame or the dark outskirts of the pattern.
    """
    block = max(1, round(min(data.shape) / _STOP_WORK_PX))
    small = block_quantile(data, mask, block, 0.5)
    if not np.isfinite(small).any():
        return np.zeros(data.shape, bool)
    small = median_3x3(fill_holes(small))
    side = min(small.shape)
    calm = ndimage.grey_opening(small, size=2 * max(2, side // 28) + 1, mode="nearest")
    # outside counts as ordinary background, else a stop that covers a corner could not be filled
    padded = np.pad(calm, side // 4, constant_values=float(np.median(calm)))
    closed = ndimage.grey_closing(padded, size=2 * max(3, side // 10) + 1)
    closed = closed[side // 4 : -(side // 4), side // 4 : -(side // 4)]
    dark = float(np.percentile(small, 0.5))
    # it is smooth, so that one pixel of each tile is enough
    noise = noise[block // 2 :: block, block // 2 :: block]
    noise = (
        np.pad(noise, [(0, n - m) for n, m in zip(small.shape, noise.shape, strict=True)], mode="edge")
        / block
    )
    levels = np.unique(small)
    if 1 < len(levels) <= 256:  # a camera of few grey levels: a shadow is deeper than one of them
        noise = np.maximum(noise, 0.5 * np.median(np.diff(levels)))
    usual = _usual_of_circle(calm)
    expected = np.maximum(closed, usual)
    share = (small - dark) / np.maximum(expected - dark, 1e-30)
    # where there is no light to lose, no shadow can be seen; one may end there
    outskirts = usual - dark < np.maximum(5 * noise, _DIM * (usual.max() - dark))
    # a gap between spots, or between a spot and the edge of the frame, is as dark as others at its distance; no quantile tells
    # within the head of a stop, which hides whole circles
    between = _usual_of_circle(calm, _BETWEEN, _HEAD * side)
    of_circle = (small - dark) / np.maximum(between - dark, 1e-30)
    light = float(np.percentile(small, 99.5)) - dark
    keep = np.zeros(small.shape, bool)
    for depth in _DEPTHS:
        lost = (closed - calm > (1 - depth) * (closed - dark)) & (closed - calm > 4 * noise)
        lost |= (calm - dark < 0.75 * depth * (usual - dark)) & (usual - calm > 5 * noise)
        opened = ndimage.binary_dilation(ndimage.binary_erosion(lost, border_value=1))
        labels = measure.label(opened, connectivity=1)
        for region in measure.regionprops(labels):
            if not 0.002 * lost.size <= region.area <= 0.3 * lost.size:
                continue
            here = labels == region.label
            # a shallow shadow may leak out of the deep one that was found before
            added = here & ~keep
            of_usual = float(np.median(of_circle[added])) if added.any() else 1.0
            if of_usual > _LIT or not _is_shadow(here, share):
                continue
            # a dim corner is black too, but wider
            black = (
                of_usual < _BLACK and ndimage.distance_transform_edt(np.pad(here, 1)).max() < _WIDEST * side
            )
            if np.max((expected - small)[here]) <= (_LOSS_OF_BLACK if black else _LOSS) * light:
                continue
            r0, c0, r1, c1 = region.bbox
            ends = r0 == 0 or c0 == 0 or r1 == lost.shape[0] or c1 == lost.shape[1]
            ends |= bool(outskirts[ndimage.binary_dilation(here, iterations=3)].any())
            if ends or black or (region.solidity > 0.9 and _eccentricity(region.coords) < 0.7):
                keep |= here
    keep |= _round_head(small, dark, noise)
    if not keep.any():
        return np.zeros(data.shape, bool)
    keep = ndimage.binary_dilation(keep, iterations=2) & (share < 0.5) | keep
    # light that comes through a stop is not that of the other places
    keep = ndimage.binary_fill_holes(keep)
    keep = ndimage.binary_dilation(keep, iterations=max(1, round(2 / block)))
    return keep.repeat(block, axis=0).repeat(block, axis=1)[: data.shape[0], : data.shape[1]]


def _round_head(small: np.ndarray, dark: float, noise: np.ndarray) -> np.ndarray:
    """Return the head of a round stop: a dark disc in the brightest light, whose foot the opening would take for a spot."""
    filled = ndimage.grey_closing(small, size=2 * max(3, min(small.shape) // 10) + 1)
    share = (small - dark) / np.maximum(filled - dark, 1e-30)
    labels = measure.label((share < 0.4) & (filled - small > 6 * noise), connectivity=1)
    heads = []
    for region in measure.regionprops(labels):
        if (
            not 9 <= region.area <= 0.05 * small.size
            or _eccentricity(region.coords) >= 0.75
            or region.solidity <= 0.85
        ):
            continue
        here = labels == region.label
        if _is_shadow(here, share) and _is_surrounded(here, small - dark):
            heads.append((np.max((filled - small)[here]), here))
    # a net of spots has dark places between all of them
    if not heads or len(heads) > 2:
        return np.zeros(small.shape, bool)
    return max(heads, key=lambda head: head[0])[1]


def _eccentricity(coords: np.ndarray) -> float:
    """Return the eccentricity of the ellipse with the second moments of some pixels (n, 2), 0 for a circle."""
    short, long = np.linalg.eigvalsh(np.cov(coords.T, bias=True))
    return float(np.sqrt(max(0.0, 1 - short / long))) if long > 0 else 0.0


def _is_shadow(here: np.ndarray, share: np.ndarray) -> bool:
    """Tell whether a region is dark all over and has an edge, by the share of the light that arrives; a dim corner has none."""
    near = _around(here)
    here, share = here[near], share[near]
    inner = here & ~ndimage.binary_erosion(here, iterations=2, border_value=1)
    outer = ndimage.binary_dilation(here, iterations=4) & ~ndimage.binary_dilation(here, iterations=2)
    if not outer.any():
        return False
    within, rim, beside = np.percentile(share[here], 75), np.median(share[inner]), np.median(share[outer])
    # a little of a bright beam comes through
    even = (within < 0.35 and rim < 0.45) or max(within, rim) < 0.25 * beside
    return bool(even and beside > rim + 0.35)


def _is_surrounded(here: np.ndarray, light: np.ndarray) -> bool:
    """Tell whether it is bright on all sides of a dark region, save where an arm is; between two spots it is not."""
    near = _around(here)
    here, light = here[near], light[near]
    outer = ndimage.binary_dilation(here, iterations=3) & ~ndimage.binary_dilation(here)
    return bool(np.percentile(light[outer], 20) > 2 * np.median(light[here]))


def _around(here: np.ndarray) -> tuple[slice, slice]:
    """Return the part of a frame where a region is, with some pixels on all sides."""
    return tuple(
        slice(max(0, int(np.argmax(line)) - 6), len(line) - int(np.argmax(line[::-1])) + 6)
        for line in (here.any(1), here.any(0))
    )


def _usual_of_circle(calm: np.ndarray, quantile: float = 0.5, least_radius: float = 0.0) -> np.ndarray:
    """Return a quantile of the light at the same distance from the brightest place, inside of a radius that outside at least."""
    point = np.array(np.unravel_index(np.argmax(ndimage.uniform_filter(calm, 5)), calm.shape), float)
    row, col = np.indices(calm.shape)
    radius = np.hypot(row - point[0], col - point[1])
    at, light = radial_quantile(radius.ravel(), calm.ravel(), quantile)
    inside = np.flatnonzero(at < least_radius)
    light[inside] = np.maximum.accumulate(light[inside][::-1])[::-1]
    return np.interp(radius, at, light)
