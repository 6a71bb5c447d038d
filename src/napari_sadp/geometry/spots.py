"""Diffraction spots: position, intensity and significance, from sharp spots to small convergent-beam discs.

The detector is the scale-normalised Laplacian of Gaussian (Lindeberg 1998, doi:10.1023/A:1008045108935): its response to a
Gaussian spot of standard deviation s is largest at the scale s, to a disc of radius r at r / sqrt(2). One scale is chosen
for the pattern, because all spots of a pattern share the beam that made them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_sadp._validate import check_range
from napari_sadp.geometry._scales import Level, contour_noise, scale_space, trusting, without_strong
from napari_sadp.geometry.background import PreparedImage, prepare_image
from napari_sadp.geometry.results import SpotList

if TYPE_CHECKING:
    from napari_sadp.pattern import DiffractionPattern

_MIN_SIGMA = 0.9
MAX_SPOTS = 300
#: Smaller curvature over larger one; bands and streaks are far below, tilted spots above.
_MIN_ROUNDNESS = 0.18
#: A second or third common scale is tried where it has this share of the votes of the first.
_RIVAL_VOTES = 0.15
_STRONG_SNR = 15.0
#: Radius of the window in which a spot on a slope is fitted, over its size.
_SLOPE_REACH = 2.5
#: Change of the background over the size of a spot, in units of its height, from which it is steep.
_STEEP = 0.06
#: Standard deviations of spots sharper than the smallest scale [px], the sharpest first; the largest part of the light on 5 x 5 pixels that
#: is none of such a Gaussian; and the least light beside its brightest pixels, over that of the one that fits best.
_SHARP_SIGMAS, _SHARP_REST, _SHARP_FLANK = (0.6, 0.7, 0.85), 0.04, 0.5
#: How far a place may be off before the Gaussian is fitted [px].
_SHARP_SHIFTS = (-0.25, 0.0, 0.25)
#: Largest scale at which what is left of a cluster of hot pixels looks like a spot [px].
_LARGEST_REMAINS = 1.3


def find_spots(
    pattern: DiffractionPattern,
    *,
    min_snr: float = 6.0,
    max_spots: int = MAX_SPOTS,
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
    spots = spot_hypotheses(prepared, min_snr=min_snr, max_spots=max_spots, sigma_range_px=sigma_range_px)[0]
    return replace(spots, gain=prepared.counting_gain)


def spot_hypotheses(
    prepared: PreparedImage,
    *,
    min_snr: float = 6.0,
    max_spots: int = MAX_SPOTS,
    sigma_range_px: tuple[float, float] | None = None,
    rough: bool = True,
    seen_in: PreparedImage | None = None,
) -> list[SpotList]:
    """Find the spots for each size that they may have in common.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    min_snr, max_spots, sigma_range_px
        See `find_spots`.
    rough : bool
        Whether a spot must stand out from rough surroundings as well as from the noise of the pixels. Without, the weak
        spots of dense lattices are found, and the texture of rings, bands and halos too: a lattice must tell them apart.
    seen_in : PreparedImage, optional
        Where to look for spots, such as `compressed` gives; they are measured in `prepared` all the same.

    Returns
    -------
    list of SpotList
        One to three, the most probable size first; a lattice may tell which is right.

    Raises
    ------
    ValueError
        If the range of sizes is wrong.
    """
    sizes = SpotSizes(prepared, min_snr=min_snr, sigma_range_px=sigma_range_px, rough=rough, seen_in=seen_in)
    return sizes.spots(max_spots)


class SpotSizes:
    """The sizes that the spots of a pattern may have in common, the most probable first; spots are measured when asked for.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    min_snr, sigma_range_px, rough, seen_in
        See `spot_hypotheses`.
    """

    def __init__(
        self,
        prepared: PreparedImage,
        *,
        min_snr: float,
        sigma_range_px: tuple[float, float] | None = None,
        rough: bool = True,
        seen_in: PreparedImage | None = None,
    ) -> None:
        shape = prepared.mask.shape
        low, high = (_MIN_SIGMA, max(3.0, min(shape) / 22)) if sigma_range_px is None else sigma_range_px
        self._low = check_range("sigma_range_px[0]", low, 0.5, 1e3, "px")
        high = check_range("sigma_range_px[1]", high, low, 1e3, "px")
        self._prepared, self._seen_in = prepared, prepared if seen_in is None else seen_in
        self._min_snr, self._rough = min_snr, rough
        self._levels: list[Level] = []
        self._numbers: list[int] = []
        if min(shape) >= 8 and np.any(prepared.signal):
            levels = scale_space(self._seen_in, low, high)
            self._levels = levels if rough else [trusting(level) for level in levels]
            self._numbers = _common_levels(self._levels, min_snr, prepared.hot)

    @property
    def are_smallest(self) -> bool:
        """Whether the most probable size is the smallest that was asked for, or there is none."""
        return not self._numbers or self._numbers[0] == 0

    def spots(self, max_spots: int = MAX_SPOTS) -> list[SpotList]:
        """Return the spots for each of the sizes, as `spot_hypotheses` does."""
        found = []
        for number in self._numbers:
            blobs = _maxima(self._seen_in, self._levels, number, self._min_snr, rough=self._rough)
            blobs = blobs[np.argsort(-blobs[:, 4], kind="stable")][:max_spots]
            found.append(_measure(self._prepared, blobs, self._levels, number))
        return found or [_empty(self._low)]


def _empty(sigma: float) -> SpotList:
    """Return a list without spots."""
    return SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), float(sigma))


def _common_levels(levels: list[Level], min_snr: float, hot: np.ndarray) -> list[int]:
    """Return the levels of the scales that significant blobs share, the best first; nothing without blobs.

    A blob votes for the scale where its normalised response is largest in position and scale (Lindeberg), with its
    signal to noise ratio as weight, of which the brightest have no more than others.
    """
    rc, number, weight = [], [], []
    for k, level in enumerate(levels):
        row, col = level.peaks(min_snr)
        if not len(row):
            continue
        value, place = level.response[row, col], level.to_frame(row, col)
        keep = ~_beside_hot(hot, place, value / level.noise[row, col], level.sigma)
        for other in levels[max(0, k - 1) : k] + levels[k + 1 : k + 2]:
            keep &= value >= other.at(place, reach=1)
        rc.append(place[keep])
        number.append(np.full(int(keep.sum()), k))
        weight.append((value / level.noise[row, col])[keep])
    if not rc or not sum(map(len, rc)):
        return []
    number, weight = np.concatenate(number), np.concatenate(weight)
    strongest = np.argsort(-weight, kind="stable")[:80]
    number, weight = number[strongest], weight[strongest]
    votes = np.bincount(number, np.minimum(weight, np.quantile(weight, 0.9)), len(levels))
    votes = np.convolve(votes, [0.5, 1.0, 0.5], mode="same")
    order = np.argsort(-votes, kind="stable")
    chosen: list[int] = []
    for k in order.tolist():
        far = all(abs(k - other) >= 2 for other in chosen)
        if far and votes[k] >= _RIVAL_VOTES * votes[order[0]] and votes[k] > 0 and len(chosen) < 3:
            chosen.append(k)
    return chosen


def _beside_hot(hot: np.ndarray, rc: np.ndarray, snr: np.ndarray, sigma: float) -> np.ndarray:
    """Tell which small weak blobs touch a repaired pixel (n,): what is left of a cluster."""
    if sigma > _LARGEST_REMAINS or not hot.any() or not len(rc):
        return np.zeros(len(rc), bool)
    row, col = np.round(rc).astype(int).T
    touched = np.zeros(len(rc), bool)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            touched |= hot[np.clip(row + dr, 0, hot.shape[0] - 1), np.clip(col + dc, 0, hot.shape[1] - 1)]
    return touched & (snr < _STRONG_SNR)


def _maxima(
    prepared: PreparedImage, levels: list[Level], number: int, min_snr: float, *, rough: bool
) -> np.ndarray:
    """Return the blobs of the common scale, and broad ones that are no sum of sharper spots.

    Columns are row, col, level, response, snr.
    """
    inside = _distance_inside(prepared.mask)
    sigma = levels[number].sigma
    levels = list(levels)
    row, col = levels[number].peaks(_STRONG_SNR)
    if len(row) and rough:
        levels[number] = without_strong(
            levels[number], levels[number].to_frame(row, col), contour_noise(prepared, levels[number])
        )
    found: list[np.ndarray] = []
    for k in [number, *range(number + 2, len(levels))]:
        level = levels[k]
        row, col = level.peaks(min_snr)
        rc = level.to_frame(row, col)
        value, noise = level.response[row, col], level.noise[row, col]
        pixel = np.clip(np.round(rc), 0, np.array(inside.shape) - 1).astype(int)
        good = inside[pixel[:, 0], pixel[:, 1]] > 1.5 * sigma
        good &= _roundness(level.response, row, col) > _MIN_ROUNDNESS
        good &= ~_beside_hot(prepared.hot, rc, value / noise, level.sigma)
        if k > number and len(found[0]):
            # the edge of a flat disc answers with 0.24 of its height at small scales, the disc itself with 0.74
            sharp = levels[number].at(rc, reach=max(1, round(1.5 * level.sigma / levels[number].binning)))
            good &= (value > 2 * sharp) & (value > 0.5 * found[0][:, 3].max())
        elif k == number and k + 3 < len(levels):
            # a hump more than 2.5 times too broad; the direct beam in its halo, and bright spots, stay
            good &= (levels[k + 3].at(rc) < 2 * value) | (value > 0.2 * value.max(initial=0))
        found.append(np.column_stack([rc, np.full(len(row), k), value, value / noise])[good])
    return _without_overlap(np.concatenate(found), np.array([level.sigma for level in levels]))


def _distance_inside(mask: np.ndarray) -> np.ndarray:
    """Return how far pixels are from the next masked one, or one out of the frame [px]."""
    if mask.any():
        return ndimage.distance_transform_edt(~np.pad(mask, 1, constant_values=True))[1:-1, 1:-1]
    row, col = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1 for n in mask.shape)
    return np.minimum(row[:, None], col)


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
    near = cKDTree(blobs[:, :2]).query_ball_point(blobs[:, :2], 1.8 * sigmas[blobs[:, 2].astype(int)])
    alive = np.ones(len(blobs), bool)
    for i, others in enumerate(near):
        if alive[i]:
            alive[[j for j in others if j > i]] = False
    return blobs[alive]


def _common_sigma(rc: np.ndarray, levels: list[Level], number: int) -> float:
    """Return the scale of the largest mean response, between the levels by a parabola [px]."""
    if not 0 < number < len(levels) - 1:
        return levels[number].sigma
    low, middle, high = (float(np.mean(levels[k].at(rc, reach=1))) for k in (number - 1, number, number + 1))
    bend = low - 2 * middle + high
    shift = float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return float(levels[number].sigma * (levels[number + 1].sigma / levels[number].sigma) ** shift)


def _measure(prepared: PreparedImage, blobs: np.ndarray, levels: list[Level], number: int) -> SpotList:
    """Refine positions and integrate intensities."""
    if not len(blobs):
        return _empty(levels[number].sigma)
    numbers = blobs[:, 2].astype(int)
    sigmas = np.array([level.sigma for level in levels])
    sigma = (
        _common_sigma(blobs[numbers == number, :2][:40], levels, number)
        if number in numbers
        else sigmas[number]
    )
    own = np.where(numbers == number, sigma, sigmas[numbers])
    rc = blobs[:, :2].copy()
    wide = _are_discs(rc, numbers, levels)
    for size in np.unique(own):
        these = (own == size) & ~wide
        rc[these] = spot_centroids(prepared.signal, prepared.mask, rc[these], float(size))
        rc[these] = _on_slope(prepared.signal, prepared.mask, rc[these], float(size))
    for i in np.flatnonzero(wide):
        rc[i] = _disc_centre(prepared.signal, prepared.mask, rc[i], own[i])
    total = np.zeros(len(blobs))
    edge = np.zeros(len(blobs), bool)
    for size in np.unique(own):
        these = own == size
        total[these] = integrate_spots(prepared.signal, prepared.mask, rc[these], float(size))
        if size < 2.5 and prepared.binning == 1:
            edge[these] = _has_pixel_edge(prepared, rc[these], float(size))
    good = (total > 0) & ~edge
    return SpotList(rc[good], total[good], blobs[good, 4], float(sigma))


def _are_discs(rc: np.ndarray, numbers: np.ndarray, levels: list[Level]) -> np.ndarray:
    """Tell which blobs are flat (n,): their inner structure would pull a narrow window.

    Two scales (a factor 1.82) below the best one, a Gaussian answers with 0.71 of its largest response, a disc with 0.33.
    """
    responses = np.stack([level.at(rc) for level in levels])
    rows = np.arange(len(levels))[:, None]
    near = np.where((rows >= numbers - 1) & (rows <= numbers + 3), responses, -np.inf)
    best = np.argmax(near, axis=0)
    columns = np.arange(len(rc))
    small = responses[np.maximum(best - 2, 0), columns]
    return (best >= 2) & (small < 0.52 * responses[best, columns])


class _Patches:
    """Square windows around positions: values (n, k, k), live pixels, and distances of rows (n, k) and columns (n, k)."""

    def __init__(self, image: np.ndarray, mask: np.ndarray, rc: np.ndarray, reach: float) -> None:
        half = int(np.ceil(reach))
        offset = np.arange(-half, half + 1)
        row = np.round(rc[:, :1]).astype(int) + offset
        col = np.round(rc[:, 1:]).astype(int) + offset
        inside_r, inside_c = (row >= 0) & (row < image.shape[0]), (col >= 0) & (col < image.shape[1])
        rows, cols = np.clip(row, 0, image.shape[0] - 1), np.clip(col, 0, image.shape[1] - 1)
        self.values = image[rows[:, :, None], cols[:, None, :]]
        self.live = ~mask[rows[:, :, None], cols[:, None, :]] & inside_r[:, :, None] & inside_c[:, None, :]
        self.dr, self.dc = row - rc[:, :1], col - rc[:, 1:]

    def distance(self) -> np.ndarray:
        """Return distances of all pixels (n, k, k) [px]."""
        return np.hypot(self.dr[:, :, None], self.dc[:, None, :])


def _quantile_where(values: np.ndarray, where: np.ndarray, quantile: float) -> np.ndarray:
    """Return a quantile over the last two axes of the values chosen (n,), 0 where there are fewer than five."""
    flat = np.where(where, values, np.inf).reshape(len(values), values.shape[1] * values.shape[2])
    flat.sort(axis=1)
    count = where.sum(axis=(1, 2))
    pick = np.clip(np.round(quantile * (count - 1)), 0, None).astype(int)
    return np.where(count >= 5, flat[np.arange(len(flat)), pick], 0.0)


def _has_pixel_edge(prepared: PreparedImage, rc: np.ndarray, sigma: float) -> np.ndarray:
    """Tell whether blobs rise to their full height within one pixel: clusters of hot pixels, lettering (n,).

    The steepest step between pixels of a Gaussian of standard deviation 0.9 px is 0.7 of its height. Sharper spots rise more
    steeply, up to 0.94 of their height at 0.6 px, but are round and have the flanks of a Gaussian. Saturated discs rise steeply
    too, but from a foot of scattered light, and they are larger.
    """
    near = _Patches(prepared.signal, prepared.mask, rc, 1.5 * sigma + 1)
    height = near.values.max(axis=(1, 2)) - np.quantile(near.values, 0.2, axis=(1, 2))
    step = np.maximum(
        np.abs(np.diff(near.values, axis=1)).max(axis=(1, 2)),
        np.abs(np.diff(near.values, axis=2)).max(axis=(1, 2)),
    )
    pixel = np.clip(np.round(rc), 0, np.array(prepared.mask.shape) - 1).astype(int)
    noise = prepared.noise[pixel[:, 0], pixel[:, 1]]
    # the direct beam of a pixel detector may be as sharp, but stands in its own scattered light
    far = _Patches(prepared.signal, prepared.mask, rc, 4.5)
    distance = far.distance()
    foot = _quantile_where(far.values, (distance > 2.5) & (distance <= 4.5), 0.5)
    edge = (step - 3 * noise > 0.8 * height) & (foot < np.maximum(0.03 * height, 3 * noise))
    edge[edge] = ~_is_sharp_spot(prepared, rc[edge], noise[edge])
    return edge


def _is_sharp_spot(prepared: PreparedImage, rc: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Tell which blobs are Gaussians of about a pixel (n,), as far as the noise (n,) of their pixels lets one tell.

    They have the shape of a Gaussian, and flanks: clusters of hot pixels end at once, however round they are.
    """
    near = _Patches(prepared.signal, prepared.mask, rc, 2.0)
    values = near.values * near.live
    power = np.maximum((values**2).sum(axis=(1, 2)), 1e-30)
    rest, flank = np.ones(len(rc)), np.zeros(len(rc))
    for sigma, d_row, d_col in product(_SHARP_SIGMAS, _SHARP_SHIFTS, _SHARP_SHIFTS):
        row, col = near.dr - d_row, near.dc - d_col
        row, col = np.exp(-0.5 * (row / sigma) ** 2), np.exp(-0.5 * (col / sigma) ** 2)
        model = row[:, :, None] * col[:, None, :] * near.live
        height = _height_of(model, values)
        left = 1 - height**2 * (model**2).sum(axis=(1, 2)) / power
        beside = model * (model < 0.4 * model.max(axis=(1, 2), keepdims=True))
        better = left < rest
        # a wider spot has more light beside its middle
        more = _height_of(beside, values) / np.maximum(height, 1e-30)
        rest, flank = np.where(better, left, rest), np.where(better, more, flank)
    allowed = _SHARP_REST + near.live.sum(axis=(1, 2)) * noise**2 / power
    return (rest < allowed) & (flank > _SHARP_FLANK)


def _height_of(model: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the height of a model (n, k, k) that comes nearest to values (n, k, k) in the squares (n,)."""
    return (values * model).sum(axis=(1, 2)) / np.maximum((model**2).sum(axis=(1, 2)), 1e-30)


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


def spot_centroids(image: np.ndarray, mask: np.ndarray, start: np.ndarray, sigma: float) -> np.ndarray:
    """Return the fixed points of Gaussian-weighted centroids, which are unbiased for symmetric spots.

    Parameters
    ----------
    image : (n_rows, n_cols) ndarray of float
        Signal above the background.
    mask : (n_rows, n_cols) ndarray of bool
        True where it means nothing.
    start : (n, 2) ndarray of float
        About where the spots are (row, col) [px].
    sigma : float
        Their standard deviation [px].

    Returns
    -------
    (n, 2) ndarray of float64
        Positions [px]; the start where no centroid is near it.
    """
    if not len(start):
        return start
    drift = sigma + 1
    patch = _Patches(image, mask, start, 2.5 * sigma + drift)
    floor = _quantile_where(patch.values, patch.live, 0.2)
    value = np.clip(patch.values - floor[:, None, None], 0, None) * patch.live
    shift = np.zeros_like(start)
    failed = np.zeros(len(start), bool)
    for _ in range(10):
        dr, dc = patch.dr - shift[:, :1], patch.dc - shift[:, 1:]
        weight_r = np.exp(-0.5 * (dr / sigma) ** 2) * (np.abs(dr) <= 2.5 * sigma)
        weight_c = np.exp(-0.5 * (dc / sigma) ** 2) * (np.abs(dc) <= 2.5 * sigma)
        over_c = np.einsum("nij,nj->ni", value, weight_c)
        total = np.einsum("ni,ni->n", over_c, weight_r)
        failed |= total <= 0
        moment_r = np.einsum("ni,ni,ni->n", over_c, weight_r, dr)
        moment_c = np.einsum("nij,ni,nj,nj->n", value, weight_r, weight_c, dc, optimize=True)
        # the weight halves the apparent variance, so the step is doubled
        step = 2 * np.column_stack([moment_r, moment_c]) / np.where(failed, 1.0, total)[:, None]
        shift = np.where(failed[:, None], 0.0, shift + np.clip(step, -sigma, sigma))
        failed |= np.hypot(*shift.T) > drift
        shift[failed] = 0.0
        if np.abs(step[~failed]).max(initial=0) < 2e-3:
            break
    return start + shift


def _on_slope(image: np.ndarray, mask: np.ndarray, start: np.ndarray, sigma: float) -> np.ndarray:
    """Return the places of Gaussian spots on a sloping background by least squares (n, 2).

    In the steep light around the direct beam a centroid is pulled towards it; where the light is not steep, nothing is changed.
    """
    if not len(start):
        return start
    patch = _Patches(image, mask, start, _SLOPE_REACH * sigma + 1)
    n = len(start)
    value, live = patch.values.reshape(n, -1).astype(float), patch.live.reshape(n, -1)
    shift, height = np.zeros_like(start), np.zeros(n)
    for _ in range(4):
        dr = np.broadcast_to((patch.dr - shift[:, :1])[:, :, None], patch.values.shape).reshape(n, -1)
        dc = np.broadcast_to((patch.dc - shift[:, 1:])[:, None, :], patch.values.shape).reshape(n, -1)
        spot = np.exp(-0.5 * (dr**2 + dc**2) / sigma**2)
        weight = live * (dr**2 + dc**2 <= (_SLOPE_REACH * sigma) ** 2)
        # derivatives by the position are what a shift leaves
        parts = np.stack([spot, spot * dr / sigma**2, spot * dc / sigma**2, np.ones_like(dr), dr, dc], axis=2)
        normal = np.einsum("nki,nk,nkj->nij", parts, weight, parts, optimize=True)
        normal += 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(6) + 1e-12 * np.eye(6)
        right = np.einsum("nki,nk->ni", parts, weight * value, optimize=True)
        found = np.linalg.solve(normal, right[..., None])[..., 0]
        height = found[:, 0]
        step = found[:, 1:3] / np.where(height > 0, height, 1.0)[:, None]
        shift = shift + np.where((height > 0)[:, None], np.clip(step, -0.3 * sigma, 0.3 * sigma), 0.0)
    # on flat ground the centroid is the better one: it leaves fewer things open
    steep = np.hypot(*found[:, 4:].T) * sigma > _STEEP * np.maximum(height, 0)
    good = steep & (height > 0) & (np.hypot(*shift.T) <= 0.7 * sigma)
    return np.where(good[:, None], start + shift, start)


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


def integrate_spots(image: np.ndarray, mask: np.ndarray, rc: np.ndarray, sigma: float) -> np.ndarray:
    """Return the sums over 2.5 standard deviations above the median of the ring around.

    Parameters
    ----------
    image : (n_rows, n_cols) ndarray of float
        Signal above the background.
    mask : (n_rows, n_cols) ndarray of bool
        True where it means nothing.
    rc : (n, 2) ndarray of float
        Positions (row, col) [px].
    sigma : float
        Standard deviation of the spots [px].

    Returns
    -------
    (n,) ndarray of float64
        Integrated intensities [counts].
    """
    patch = _Patches(image, mask, rc, 4 * sigma)
    distance = patch.distance() / sigma
    floor = _quantile_where(patch.values, (distance > 2.75) & (distance <= 4) & patch.live, 0.5)
    core = (distance <= 2.5) & patch.live
    return ((patch.values - floor[:, None, None]) * core).sum(axis=(1, 2), dtype=float)
