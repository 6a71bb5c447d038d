"""The light of known spots, tails included: what has to be taken off before the weak ones between them can be measured.

Pixels are those of the image at hand, which may be a copy of a frame in larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from napari_sadp.geometry._local import radial_quantile, sorted_in_groups

#: Width of the rings of a profile [px].
STEP = 0.5
#: How far the light of a spot is followed, over its standard deviation.
_REACH = 7.0
#: Spots fainter than this share of the third strongest tell little of the profile, and brighter ones no more than it: the direct
#: beam may outshine all others, and is wider.
_FAINT, _RANK = 0.05, 3
#: Quantile of what others leave around a spot that is its floor.
_FLOOR = 0.1
#: Fewer pixels in a ring tell nothing.
_LEAST_PIXELS = 6
#: Pixels farther from a spot than this, over its standard deviation, are between spots; fewer of them tell nothing.
_FREE, _LEAST_FREE = 2.2, 50
#: Pixels along the shorter side of a frame that are asked.
_RING_PIXELS = 160
_TABLE_STEP = 0.25  # [px]
#: Quantile of the light between spots on a circle: weak spots may cover much of it.
_REST = 0.35
_ROUNDS = 4
#: Relative change of size that its effect is worked out from.
_LARGER = 0.05


@dataclass(frozen=True, eq=False)
class SpotLight:
    """The light that known spots throw on an image.

    Parameters
    ----------
    image : (2, n_rows, n_cols) ndarray of float64
        Of all of them, and how it changes with the size of their profile, per relative change.
    rc : (n, 2) ndarray of float64
        Where they are (row, col) [px].
    height : (n,) ndarray of float64
        Their heights.
    shape : (2, k) ndarray of float64
        Height over that of the centre at multiples of `STEP` from it, and how it changes with the size.
    near : float
        What is closer to a spot than this is that spot [px].
    misfit : float
        Its errors, over those that are feared.
    rest : (n_rows, n_cols) ndarray of float64, optional
        The part of the image that is of no spot, see `between`.
    """

    image: np.ndarray
    rc: np.ndarray
    height: np.ndarray
    shape: np.ndarray
    near: float
    misfit: float = 1.0
    rest: np.ndarray | None = None

    def with_rest(self, rest: np.ndarray | None) -> SpotLight:
        """Return light of spots alone with what is left between them (n_rows, n_cols) added."""
        if rest is None:
            return self
        return replace(self, image=self.image + np.stack([rest, np.zeros_like(rest)]), rest=rest)

    def at(self, rc: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Return the light of the neighbours of places (n, 2), and its change with size, on the pixels around each (2, n, k).

        Rows and columns of the pixels are (n, k).
        """
        _, rows, cols = self.image.shape
        place = np.clip(row, 0, rows - 1) * cols + np.clip(col, 0, cols - 1)
        light = self.image.reshape(2, -1).take(place, axis=1)
        gap, which = cKDTree(self.rc).query(rc)
        own = np.flatnonzero(gap <= self.near)
        which = which[own]
        place = self.rc[which]
        distance = np.hypot(row[own] - place[:, :1], col[own] - place[:, 1:])
        for part, shape in zip(light, self.shape, strict=True):
            part[own] -= self.height[which, None] * _profile_at(distance, shape)
        return light

    def between(self, image: np.ndarray, live: np.ndarray, centre: np.ndarray) -> np.ndarray | None:
        """Return what is left between the spots, as far as it depends on the distance from a place (row, col) [px] alone.

        Parameters
        ----------
        image : (n_rows, n_cols) ndarray of float
            Signal above the background.
        live : (n_rows, n_cols) ndarray of bool
            Pixels that count.
        centre : (2,) ndarray of float
            The place.

        Returns
        -------
        (n_rows, n_cols) ndarray of float64 or None
            Where many spots crowd a circle they were taken for background in part: negative there. None where spots leave no room.
        """
        # the direct beam has a profile of its own
        others = np.hypot(*(self.rc - centre).T) > self.near
        free = live.copy()
        free.flat[_Windows(image, live, self.rc[others], _FREE * self.near).place] = False
        # a few thousand pixels are enough for rings
        step = max(1, min(live.shape) // _RING_PIXELS)
        row, col = (step * index for index in np.nonzero(free[::step, ::step]))
        if len(row) < _LEAST_FREE:
            return None
        at, level = radial_quantile(
            np.hypot(row - centre[0], col - centre[1]), (image - self.image[0])[row, col], _REST
        )
        # rings are some pixels wide: a table with fine steps is as good as interpolation, and faster
        square = [
            (np.arange(n, dtype=np.float32) - np.float32(x)) ** 2
            for n, x in zip(live.shape, centre, strict=True)
        ]
        radius = np.sqrt(square[0][:, None] + square[1])
        radius *= np.float32(1 / _TABLE_STEP)
        index = radius.astype(np.int32)
        return np.interp(_TABLE_STEP * (np.arange(index.max() + 1) + 0.5), at, level)[index]


def light_of_spots(
    image: np.ndarray,
    live: np.ndarray,
    rc: np.ndarray,
    height: np.ndarray,
    sigma: float,
    profile: np.ndarray,
    rounds: int = _ROUNDS,
) -> SpotLight:
    """Return the light of spots of one radial profile, all of them at once.

    The profile is followed outwards from its core, which is known, to where it is lost; heights and profile are improved in turn.

    Parameters
    ----------
    image : (n_rows, n_cols) ndarray of float
        Signal above the background.
    live : (n_rows, n_cols) ndarray of bool
        Pixels that count.
    rc : (n, 2) ndarray of float
        Positions (row, col) [px].
    height : (n,) ndarray of float
        Heights, to begin with.
    sigma : float
        Standard deviation of a spot [px].
    profile : (k,) ndarray of float
        Height over that of the centre at multiples of `STEP` from it, to begin with.
    rounds : int
        How often heights and profile are improved.

    Returns
    -------
    SpotLight
        The light.
    """
    light = np.zeros(image.shape)
    spots = _Windows(image, live, rc, _REACH * sigma)
    height = np.clip(height, 0.0, None)
    shape = np.zeros(int(_REACH * sigma / STEP) + 2)
    shape[: min(len(profile), len(shape))] = profile[: len(shape)]
    for turn in range(rounds):
        own = spots.draw(height, shape, light)
        rest = own + spots.values(image - light)
        if turn:
            height = spots.heights(rest, shape, sigma)
            own = spots.draw(height, shape, light)
            rest = own + spots.values(image - light)
        shape = spots.profile(rest, height, shape)
    larger = _profile_at(STEP * np.arange(len(shape)) / (1 + _LARGER), shape)
    shapes = np.stack([shape, (larger - shape) / _LARGER])
    both = np.zeros((2, *light.shape))
    for part, one in zip(both, shapes, strict=True):
        spots.draw(height, one, part)
    return SpotLight(both, rc, height, shapes, sigma)


def _profile_at(distance: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.interp(distance, STEP * np.arange(len(shape)), shape, right=0.0)


class _Windows:
    """Windows around spots: pixels (n, k) and their distances from the centre [px]."""

    def __init__(self, image: np.ndarray, live: np.ndarray, rc: np.ndarray, reach: float) -> None:
        half = int(np.ceil(reach))
        offset = np.arange(-half, half + 1)
        d_row, d_col = (a.ravel() for a in np.meshgrid(offset, offset, indexing="ij"))
        inside = np.hypot(d_row, d_col) <= reach
        centre = np.round(rc).astype(int)
        row, col = centre[:, :1] + d_row[inside], centre[:, 1:] + d_col[inside]
        limit = np.array(image.shape) - 1
        self.seen = (row >= 0) & (row <= limit[0]) & (col >= 0) & (col <= limit[1])
        self._pixel = np.clip(row, 0, limit[0]) * image.shape[1] + np.clip(col, 0, limit[1])
        self.place = self._pixel[self.seen]
        self.good = self.seen & live.take(self._pixel)
        self.distance = np.hypot(row - rc[:, :1], col - rc[:, 1:])
        self.ring = np.round(self.distance / STEP).astype(int)

    def values(self, image: np.ndarray) -> np.ndarray:
        """Return what an image holds in the windows (n, k)."""
        return image.take(self._pixel)

    def draw(self, height: np.ndarray, shape: np.ndarray, light: np.ndarray) -> np.ndarray:
        """Draw all spots anew into an image, and return the part of each in its window (n, k)."""
        own = height[:, None] * _profile_at(self.distance, shape)
        light[:] = np.bincount(self.place, own[self.seen], light.size).reshape(light.shape)
        return own

    def heights(self, rest: np.ndarray, shape: np.ndarray, sigma: float) -> np.ndarray:
        """Return the heights that fit what others leave (n,), from the core of each, or from its tails where the core is lost."""
        template = _profile_at(self.distance, shape)
        core = self.good & (self.distance <= 2.0 * sigma)
        weight = np.where(core.any(axis=1, keepdims=True), core, self.good)
        square = (weight * template**2).sum(axis=1)
        return np.clip((weight * template * rest).sum(axis=1) / np.maximum(square, 1e-9), 0.0, None)

    def profile(self, rest: np.ndarray, height: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Return the median profile of what others leave of the stronger spots, falling outwards to zero."""
        leading = float(np.sort(height)[-min(_RANK, len(height))])
        strong = height > max(_FAINT * leading, 0.0)
        if np.count_nonzero(strong) < 2:
            return before
        good, ring = self.good[strong], self.ring[strong]
        # between close spots the background holds their tails: what counts is how far they rise above the lowest place
        ordered = np.sort(np.where(good, rest[strong], np.inf), axis=1)
        lowest = (_FLOOR * np.clip(good.sum(axis=1) - 1, 0, None)).astype(int)
        floor = np.minimum(np.take_along_axis(ordered, lowest[:, None], axis=1), 0.0)
        value = (rest[strong] - floor) / height[strong, None]
        weight = np.broadcast_to(np.minimum(height[strong], leading)[:, None], value.shape)
        order, first = sorted_in_groups(ring[good], value[good], len(before))
        value, weight = value[good][order], weight[good][order]
        shape, known = before.copy(), np.diff(first) >= _LEAST_PIXELS
        for k in range(len(shape)):
            if known[k]:
                total = np.cumsum(weight[first[k] : first[k + 1]])
                shape[k] = value[first[k] + np.searchsorted(total, 0.5 * total[-1])]
            elif known[:k].any():
                shape[k] = shape[k - 1] * before[k] / max(before[k - 1], 1e-12)
        if not known.any():
            return before
        # few pixels are near a centre
        for k in range(int(np.argmax(known)) - 1, -1, -1):
            shape[k] = shape[k + 1] * before[k] / max(before[k + 1], 1e-12)
        shape = np.minimum.accumulate(shape)
        # the last rings are beyond the window
        shape = np.clip(shape - max(shape[-3], 0.0), 0.0, None)
        return shape / shape[0] if shape[0] > 0 else before
