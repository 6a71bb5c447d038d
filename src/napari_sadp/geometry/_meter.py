"""Intensities at given places of a pattern: the profile of its spots, fitted with a plane below it by least squares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from napari_sadp.geometry._coarse import coarser, factor_for, to_copy
from napari_sadp.geometry._light import STEP, SpotLight, light_of_spots
from napari_sadp.geometry._local import sorted_in_groups

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice, SpotList

#: Radius of what is fitted, over the standard deviation of a spot, where there is room.
REACH = 4.0
#: Share of the weight of the profile that must fall on live pixels.
MIN_LIVE = 0.6
#: Relative errors of the light of neighbours and of its size: profiles that are not all alike.
_LIGHT_ERROR, _SIZE_ERROR = 0.1, 0.05
#: Relative error of the light of neighbours on a single pixel, whatever it is on others.
_PIXEL_ERROR = 0.03
#: Shares of these errors that a pattern may have, by what is left where light is this many times its noise.
_MISFITS, _LIT, _LEAST_LIT, _MEDIAN_CHI2 = (0.1, 0.2, 0.3, 0.5, 0.7), 2.0, 50, 0.455
_CHUNK = 20_000
#: How much the height and the plane of a fit are held at zero, over their own weight.
_HOLD = (1e-9, 1e-3, 1e-3, 1e-3)
#: Spots that a profile is learnt from, and pixels of a ring of it.
_N_PROFILE, _LEAST_PIXELS = 40, 6
#: Lights of lists of spots, and the direct beam they are for, for as long as pattern and spots live.
_LIGHTS: WeakKeyDictionary[
    PreparedImage, WeakKeyDictionary[SpotList, tuple[np.ndarray, SpotLight | None]]
] = WeakKeyDictionary()
#: Distance to which a direct beam is the same for the light around it [px].
_SAME_BEAM = 2.0


def nodes_in_view(beam_rc: np.ndarray, basis: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the nodes (n, 2) whose centre is in the frame, nearest to the beam first, without the beam."""
    size = np.array(shape) - 1
    corners = np.array([[0, 0], [0, size[1]], [size[0], 0], size], float)
    bounds = (corners - beam_rc) @ np.linalg.inv(basis)
    low, high = np.floor(bounds.min(axis=0)).astype(int), np.ceil(bounds.max(axis=0)).astype(int)
    m, n = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1), indexing="ij")
    nodes = np.column_stack([m.ravel(), n.ravel()])
    rc = beam_rc + nodes @ basis
    nodes = nodes[np.all((rc >= 0) & (rc <= size), axis=1) & np.any(nodes != 0, axis=1)]
    return nodes[np.argsort(np.linalg.norm(nodes @ basis, axis=1), kind="stable")]


def profile_spots(lattice: SpotLattice) -> np.ndarray:
    """Return the strongest spots of a lattice (n, 2) [px], whose profile all of its spots have."""
    strong = np.argsort(-lattice.spots.intensity * lattice.indexed, kind="stable")[:_N_PROFILE]
    return lattice.spots.rc[strong[lattice.indexed[strong]]]


def room_of_spots(lattice: SpotLattice, least: float) -> float:
    """Return half of the shortest vector of a lattice, or some sizes of a spot where that is more [px]."""
    return max(0.5 * float(np.linalg.norm(lattice.g1_px)), least * lattice.spots.sigma_px)


def meter_of(prepared: PreparedImage, lattice: SpotLattice, room: float) -> SpotMeter:
    """Return what measures spots by the profile of the strongest of a lattice, beside the light of all of its spots.

    Its radius is at most the room [px]. The light is worked out once for a list of spots about a direct beam.
    """
    spots = lattice.spots
    meter = SpotMeter(prepared, spots.sigma_px, room)
    meter.learn_profile(profile_spots(lattice))
    known = _LIGHTS.setdefault(prepared, WeakKeyDictionary()).get(spots)
    if known is None or np.linalg.norm(known[0] - lattice.beam_rc) > _SAME_BEAM:
        meter.light = meter.light_of(spots.rc, lattice.beam_rc)
        keep_light(prepared, lattice, meter.light)
    else:
        meter.light = known[1]
    return meter


def keep_light(prepared: PreparedImage, lattice: SpotLattice, light: SpotLight | None) -> None:
    """Remember the light of the spots of a lattice."""
    _LIGHTS.setdefault(prepared, WeakKeyDictionary())[lattice.spots] = (lattice.beam_rc, light)


class _Patches(NamedTuple):
    """Pixels around places, each (n, k): values, weights, and distances from the place along rows, columns and straight [px]."""

    value: np.ndarray
    weight: np.ndarray
    dr: np.ndarray
    dc: np.ndarray
    distance: np.ndarray


class SpotMeter:
    """Fits the profile of a spot, and a plane below it, at many places at once.

    Large spots are measured on a copy in larger pixels; all that goes in and comes out is of the frame.

    Parameters
    ----------
    prepared : PreparedImage
        Signal and noise; saturated pixels do not count.
    sigma : float
        Standard deviation of a spot [px].
    half_gap : float
        Half of the distance to the next node [px].
    """

    def __init__(self, prepared: PreparedImage, sigma: float, half_gap: float) -> None:
        factor = self.factor = factor_for(prepared.mask.shape, sigma)
        # of a square that is saturated in part, the other pixels count
        copy = coarser(prepared.unsaturated, factor)
        bad = copy.mask
        self._reach = float(max(min(REACH * sigma, half_gap) / factor, 2.0))
        self.half = int(np.ceil(self._reach))
        pad = self.half + 1
        self.pad = pad
        self.signal = np.pad(np.where(bad, 0.0, copy.signal), pad)
        self.live, self.variance = ~bad, copy.noise.astype(float) ** 2
        self.certainty = np.pad(self.live / self.variance, pad)
        offset = np.arange(-self.half, self.half + 1)
        self._offset = np.stack([a.ravel() for a in np.meshgrid(offset, offset, indexing="ij")])
        # a place is at most half a pixel from the middle of one, in either coordinate
        self._offset = self._offset[:, np.hypot(*self._offset) <= self._reach + np.sqrt(0.5)]
        # background and noise are smooth, and known at saturated pixels of a frame too
        self.gain = (prepared if factor == 1 else copy).gain
        self.step = STEP
        self.sigma = sigma / factor
        self.radius = np.arange(0, self._reach + 1 + self.step, self.step)
        self.profile = np.exp(-0.5 * (self.radius * factor / sigma) ** 2)
        self.light: SpotLight | None = None

    @property
    def reach(self) -> float:
        """Radius of what is fitted [px]."""
        return self._reach * self.factor

    def learn_profile(self, rc: np.ndarray) -> None:
        """Replace the Gaussian by the mean radial profile of strong spots, if there are some."""
        if len(rc) < 3:
            return
        pixels = self._patches(to_copy(rc, self.factor))
        weight, number = pixels.weight, np.round(pixels.distance / self.step).astype(int)
        start = self.profile
        for _ in range(3):
            height, _, plane = self._fit(pixels, self._profile_at(pixels.distance), weight)
            good = height > 0
            if np.count_nonzero(good) < 3:
                self.profile = start
                return
            below = plane[:, :1] + plane[:, 1:2] * pixels.dr + plane[:, 2:] * pixels.dc
            shape = (pixels.value - below)[good] / height[good, None]
            live = weight[good] > 0
            order, first = sorted_in_groups(number[good][live], shape[live], len(start))
            value, count = shape[live][order], np.diff(first)
            profile = np.zeros(len(start))
            for k in range(len(start)):
                if count[k] >= _LEAST_PIXELS:
                    low, high = first[k] + (count[k] - 1) // 2, first[k] + count[k] // 2
                    profile[k] = 0.5 * (value[low] + value[high])
                elif k and profile[k - 1] > 0:
                    profile[k] = profile[k - 1] * start[k] / max(start[k - 1], 1e-12)
            if count[0] < _LEAST_PIXELS:  # few pixels are as near to a centre as that
                profile[0] = profile[1] * start[0] / start[1]
            # a profile falls outwards; what is left at the end of the reach is background
            profile = np.minimum.accumulate(profile)
            last = int(self._reach / self.step)
            profile = np.clip(profile - max(profile[last], 0.0), 0, None)
            profile[last:] = 0.0
            if profile[0] <= 0:
                self.profile = start
                return
            self.profile = profile / profile[0]

    def light_of(self, rc: np.ndarray, beam_rc: np.ndarray | None = None) -> SpotLight | None:
        """Return the light of known spots (n, 2) [px], to be taken into account as `light` when something is measured.

        It fits all meters of the same pattern and size of spot. With the direct beam (2,) [px], what is left around it is part of it;
        None without spots.
        """
        if not len(rc):
            return None
        rc = to_copy(rc, self.factor)
        pixels = self._patches(rc)
        height, error, _ = self._fit(pixels, self._profile_at(pixels.distance), pixels.weight)
        height = np.where(np.isfinite(error), height, 0.0)
        signal, live = self._in_view()
        light = light_of_spots(signal, live, rc, height, self.sigma, self.profile)
        if beam_rc is not None:
            centre = to_copy(beam_rc, self.factor)
            between = light.between(signal, live, centre)
            if between is not None:
                rest, profile = signal - between, light.shape[0]
                light = light_of_spots(rest, live, rc, light.height, self.sigma, profile, rounds=2)
                light = light.with_rest(light.between(signal, live, centre))
        return replace(light, misfit=self._misfit(light, signal, live))

    def light_moved(self, light: SpotLight, rc: np.ndarray) -> SpotLight:
        """Return the light of the same spots at better places (n, 2) [px]."""
        signal, live = self._in_view()
        of_spots = signal if light.rest is None else signal - light.rest
        # the first round learns the profile only: heights that do not go with it would look like weak spots
        moved = light_of_spots(
            of_spots, live, to_copy(rc, self.factor), light.height, self.sigma, light.shape[0], rounds=2
        ).with_rest(light.rest)
        return replace(moved, misfit=self._misfit(moved, signal, live))

    def _misfit(self, light: SpotLight, signal: np.ndarray, live: np.ndarray) -> float:
        """Return the errors of light, over those that it has at most, from what is left of the signal where it is strong."""
        counting, unknown = self._variances(light.image)
        variance = self.variance + counting
        lit = live & (light.image[0] > _LIT * np.sqrt(variance))
        if np.count_nonzero(lit) < _LEAST_LIT:
            return 1.0
        square, variance, unknown = (signal - light.image[0])[lit] ** 2, variance[lit], unknown[lit]
        for misfit in _MISFITS:
            if np.median(square / (variance + misfit**2 * unknown)) < _MEDIAN_CHI2:
                return misfit
        return 1.0

    def places(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where spots are that are about at some places (n, 2) [px], and the uncertainty of either coordinate (n,) [px].

        The profile is moved until it fits; the uncertainty is infinite where there is nothing to fit.
        """
        start = to_copy(rc, self.factor)
        shift, error = np.zeros_like(start), np.full(len(start), np.inf)
        light = self._light_at(start)
        most, own = 0.5 * self.sigma + 0.5, 0.0
        pixels = self._patches(start)
        rest = pixels.value if light is None else pixels.value - light[0]
        certainty = self._in_light(pixels.weight, light)
        for _ in range(4):
            dr, dc = pixels.dr - shift[:, :1], pixels.dc - shift[:, 1:]
            distance = np.hypot(dr, dc)
            template = self._profile_at(distance)
            slope = np.interp(distance, self.radius, np.gradient(self.profile, self.step), right=0.0)
            slope = -slope / np.maximum(distance, 1e-6)
            parts = [template, slope * dr, slope * dc, np.ones_like(dr), dr, dc]
            # photon noise of the spot itself
            weight = certainty / (1 + self.gain * own * certainty)
            answer, spread = _solve(parts, weight, rest, _HOLD[:1] * 3 + _HOLD[1:])
            height = answer[:, 0]
            good = height > 0
            height = np.where(good, height, 1.0)
            step = answer[:, 1:3] / height[:, None]
            own = height[:, None] * template * good[:, None]
            shift = np.where(good[:, None], shift + np.clip(step, -0.3 * self.sigma, 0.3 * self.sigma), shift)
            error = np.where(good, np.hypot(*spread[:, 1:3].T) / np.sqrt(2) / height, np.inf)
        error[(np.hypot(*shift.T) > most) | ~np.isfinite(error)] = np.inf
        shift[~np.isfinite(error)] = 0.0
        return rc + shift * self.factor, error * self.factor

    def measure(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return integrated intensity, its uncertainty, and the share of the profile on live pixels, each (n,)."""
        parts = [self._measure(rc[i : i + _CHUNK]) for i in range(0, len(rc), _CHUNK)]
        if not parts:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _measure(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = self._patches(to_copy(rc, self.factor))
        template = self._profile_at(pixels.distance)
        light = self._light_at(to_copy(rc, self.factor))
        weight = self._in_light(pixels.weight, light)
        height, error, _ = self._fit(pixels, template, weight, light)
        volume = float(self.factor**2 * 2 * np.pi * np.trapezoid(self.profile * self.radius, self.radius))
        # photon noise of the spot itself, by the same weights as the fit
        own = self.gain * np.clip(height, 0, None)[:, None] * template
        square = (weight * template**2).sum(axis=1)
        extra = (weight**2 * template**2 * own).sum(axis=1) / np.maximum(square, 1e-30) ** 2
        inside = template * (pixels.distance <= self._reach)
        live = (inside * (weight > 0)).sum(axis=1) / np.maximum(inside.sum(axis=1), 1e-30)
        live[~np.isfinite(error)] = 0.0
        return height * volume, np.sqrt(error**2 + extra) * volume, live

    def _in_view(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the signal, and whether each pixel counts (n_rows, n_cols)."""
        return self.signal[self.pad : -self.pad, self.pad : -self.pad], self.live

    def _patches(self, rc: np.ndarray) -> _Patches:
        """Return the pixels around places of the copy; weights are 0 outside of the reach."""
        row, col = self._pixels(rc)
        dr, dc = row - rc[:, :1], col - rc[:, 1:]
        distance = np.hypot(dr, dc)
        place = (row + self.pad) * self.signal.shape[1] + (col + self.pad)
        weight = self.certainty.take(place) * (distance <= self._reach)
        return _Patches(self.signal.take(place), weight, dr, dc, distance)

    def _pixels(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the pixels around places of the copy, each (n, k); some may be out of view."""
        # of places farther out, what is within reach and in view is around the nearest of these too
        limit = np.array(self.signal.shape) - 2 * self.pad
        centre = np.clip(np.round(rc).astype(int), -1, limit)
        return centre[:, :1] + self._offset[0], centre[:, 1:] + self._offset[1]

    def _light_at(self, rc: np.ndarray) -> np.ndarray | None:
        """Return `SpotLight.at` for places of the copy (2, n, k), None where no spots are known."""
        if self.light is None:
            return None
        return self.light.at(rc, *self._pixels(rc))

    def _in_light(self, weight: np.ndarray, light: np.ndarray | None) -> np.ndarray:
        """Return weights of pixels that know less where the light of neighbours is strong, or changes fast with their size (n, k)."""
        if light is None:
            return weight
        counting, unknown = self._variances(light)
        return weight / (1 + weight * (self.light.misfit**2 * unknown + counting))

    def _variances(self, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the variance of counting light (2, ...), as `SpotLight.image` holds it, and that of what is not known of it at most."""
        bright = np.clip(light[0], 0, None)
        return self.gain * bright, (_PIXEL_ERROR * bright) ** 2 + (_SIZE_ERROR * light[1]) ** 2

    def _profile_at(self, distance: np.ndarray) -> np.ndarray:
        return np.interp(distance, self.radius, self.profile, right=0.0)

    def _fit(
        self, pixels: _Patches, template: np.ndarray, weight: np.ndarray, light: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return height, its uncertainty (infinite where it is not fixed), each (n,), and level and slopes of the plane (n, 3).

        The light of neighbours is taken off. That it may be brighter by `_LIGHT_ERROR`, and larger by `_SIZE_ERROR`, than
        what is known of it are two more things to fit.
        """
        parts, hold = [template, np.ones_like(template), pixels.dr, pixels.dc], _HOLD
        value = pixels.value
        if light is not None:
            value = value - light[0]
            parts += list(light)
            hold = (
                *_HOLD,
                -((_LIGHT_ERROR * self.light.misfit) ** -2),
                -((_SIZE_ERROR * self.light.misfit) ** -2),
            )
        answer, error = _solve(parts, weight, value, hold)
        return answer[:, 0], error[:, 0], answer[:, 1:4]


def _solve(
    parts: list[np.ndarray], weight: np.ndarray, value: np.ndarray, hold: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of each part (n, k) there is in some values (n, k), and the uncertainties, infinite where too few pixels are left.

    By least squares, each (n, p). Each unknown is held at zero by a share of its own weight or, where `hold` is negative, by that
    weight.
    """
    # the values beside the parts: one product of matrices is faster than two
    both = np.stack([*parts, value], axis=1)
    normal = (both[:, :-1] * weight[:, None]) @ both.swapaxes(1, 2)
    normal, right = normal[:, :, :-1], normal[:, :, -1]
    lost = (weight.astype(bool).sum(axis=1) < 6) | (normal[:, 0, 0] < 1e-6 * weight.sum(axis=1))
    held = np.array(hold)
    normal += np.diag(np.where(held < 0, -held, 0.0))
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
    # where too few pixels are left, the plane is held at zero rather than extrapolated
    scaled = normal / (scale[:, :, None] * scale[:, None, :]) + np.diag(np.clip(held, 1e-9, None))
    scaled[lost] = np.eye(len(hold))
    inverse = np.linalg.inv(scaled)
    answer = np.einsum("nij,nj->ni", inverse, right / scale) / scale
    error = np.sqrt(np.clip(np.einsum("nii->ni", inverse), 0, None)) / scale
    error[lost] = np.inf
    return answer, error
