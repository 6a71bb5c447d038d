"""Convergent-beam discs, found by their edge: inside brighter than outside, all the way round.

The Laplacian of Gaussian of `napari_sadp.geometry.spots` sees a disc as a broad hump: neighbours that nearly touch run together, what
is inside of a disc counts as spots, and so do edges of anything. The template here is a thin ring just inside of a radius against
one just outside of it, cut into sectors (compare the radial gradient template of Clausen et al. 2020,
doi:10.21105/joss.02006); most of the sectors must agree, which a straight edge cannot make them do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage
from scipy.special import ndtr

from napari_sadp.geometry._scales import binned
from napari_sadp.geometry.results import SpotList
from napari_sadp.geometry.spots import integrate_spots

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage

#: Smallest radius that is looked for and the largest, as shares of the shorter side of the frame, and the least of all [px].
_SMALLEST, _LARGEST, _LEAST = 1 / 85, 1 / 9, 3.0
_STEP = 1.15
#: Copies are binned as long as the radius has this many pixels left.
_BINNED_RADIUS = 3.0
_SECTORS = 8
#: Sectors that see the least of the edge and still count: so many of the others may be spoilt by neighbours.
_AGREEING = 6
#: Fewer sectors in view than this, and the place is unknown.
_LEAST_SECTORS = 5
#: Thickness of each ring over the radius.
_RING = 0.3
#: Softness of the edge and radius of the window of a fit, over the radius.
_EDGE, _WINDOW = 0.15, 1.3
#: Other radii are tried where they have this share of the best one's score.
_RIVAL = 0.6
#: Discs whose scores choose the radius.
_VOTERS = 16
#: Brightness of a disc over that of most from which it may look larger, and by how much it does over the common radius.
_OUTSHINES, _LARGER = 3.0, (1.1, 1.6)
#: How much sharper the edge of such a disc is than those of the discs that were found where it is.
_SHARPER = 1.5
#: Least ratio of the variances of the pixels of such a disc along its axes: more than one disc is longer.
_ROUND = 0.85
#: Least distance of two discs, over the radius; closer ones are one.
_CLOSEST = 1.2
#: Places that are looked at closely, for each radius.
_CANDIDATES = 200


def disc_hypotheses(
    prepared: PreparedImage, seen_in: PreparedImage, *, min_snr: float = 6.0, max_spots: int = 300
) -> list[SpotList]:
    """Find discs for each radius that they may have in common.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern, in which the discs are measured.
    seen_in : PreparedImage
        The same as `napari_sadp.geometry.background.compressed` gives it, in which they are found.
    min_snr : float
        Smallest ratio of the contrast at the edge to its noise.
    max_spots : int
        Only the most significant ones are kept.

    Returns
    -------
    list of SpotList
        None to two, the most probable radius first; `SpotList.sigma_px` is half of the radius.
    """
    side = min(prepared.mask.shape)
    smallest = max(_LEAST, _SMALLEST * side)
    n_steps = int(np.log(max(1e-9, _LARGEST * side / smallest)) / np.log(_STEP)) + 1
    copies: dict[int, _Copy] = {}
    tried: list[tuple[_Copy, float, np.ndarray]] = []
    for step in range(max(0, n_steps)):
        radius = smallest * _STEP**step
        binning = 1
        while binning < 8 and radius / (2 * binning) >= _BINNED_RADIUS:
            binning *= 2
        for number in {binning, max(1, binning // 2)} - copies.keys():
            copies[number] = _Copy(prepared, seen_in, number, _LARGEST * side)
        tried.append((copies[binning], radius, copies[binning].candidates(radius, min_snr)))
    # a large contrast of each, not many of them: small radii find more
    scores = np.array([copy.contrast(rc, radius)[:_VOTERS].sum() for copy, radius, rc in tried])
    found: list[SpotList] = []
    for k in np.argsort(-scores, kind="stable"):
        if scores[k] <= 0 or scores[k] < _RIVAL * scores.max() or len(found) == 2:
            break
        if scores[k] == scores[max(0, k - 2) : k + 3].max():
            copy, radius, rc = tried[k]
            sharper = copies[max(1, copy.binning // 2)]
            rc, snr, radius = sharper.discs(copy.moved(rc, sharper), radius, min_snr)
            found.append(_measured(prepared, rc, snr, radius, max_spots))
    return [spots for spots in found if len(spots)]


def _measured(
    prepared: PreparedImage, rc: np.ndarray, snr: np.ndarray, radius: float, max_spots: int
) -> SpotList:
    """Integrate discs over the ring around them, and leave out those that lie on a stronger one."""
    order = np.argsort(-snr, kind="stable")
    rc, snr = rc[order], snr[order]
    keep = np.ones(len(rc), bool)
    for i in range(len(rc)):
        if keep[i]:
            keep[i + 1 :] &= np.hypot(*(rc[i + 1 :] - rc[i]).T) > _CLOSEST * radius
    rc, snr = rc[keep][:max_spots], snr[keep][:max_spots]
    total = integrate_spots(prepared.signal, prepared.mask, rc, radius / 2)
    good = total > 0
    return SpotList(rc[good], total[good], snr[good], radius / 2, _CLOSEST * 2)


class _Copy:
    """A binned copy of the compressed signal with its transform, and of the signal as it is."""

    def __init__(self, prepared: PreparedImage, seen_in: PreparedImage, binning: int, largest: float) -> None:
        self.binning = binning
        self.live = 1 - binned(prepared.mask.astype(np.float32), binning)
        self.masked = bool(prepared.mask.any())
        self.linear = (binned(prepared.signal, binning) * self.live).astype(np.float32)
        self.signal = (binned(seen_in.signal, binning) * self.live).astype(np.float32)
        pad = int((1 + _RING) * min(largest / binning, 2 * _BINNED_RADIUS)) + 3
        self.padded = tuple(fft.next_fast_len(n + pad, real=True) for n in self.signal.shape)
        self.transform = fft.rfft2(self.signal, self.padded)
        row, col = (np.minimum(np.arange(n), n - np.arange(n)) for n in self.padded)
        self.distance = np.hypot(row[:, None], col).astype(np.float32)

    def _thickness(self, radius: float) -> float:
        """Return the thickness of a ring [px here]."""
        return max(1.0, _RING * radius / self.binning)

    def _noise(self, radius: float) -> float:
        """Return the standard deviation of the contrast of all sectors in white noise, whose own is 1 in the frame."""
        r, thick = radius / self.binning, self._thickness(radius)
        areas = np.pi * (r**2 - max(r - thick, 0.0) ** 2), np.pi * ((r + thick) ** 2 - r**2)
        return float(np.sqrt(1 / areas[0] + 1 / areas[1])) / self.binning

    def candidates(self, radius: float, min_snr: float) -> np.ndarray:
        """Return where the rings as wholes differ (n, 2) [px here], the strongest first."""
        r, thick = radius / self.binning, self._thickness(radius)
        # weights fall off over one pixel
        inner = np.clip(r - self.distance + 0.5, 0, 1) * np.clip(self.distance - (r - thick) + 0.5, 0, 1)
        outer = np.clip(self.distance - r + 0.5, 0, 1) * np.clip(r + thick - self.distance + 0.5, 0, 1)
        kernel = fft.rfft2(
            inner / inner.sum() - outer / outer.sum()
        ).real  # even, so that it has no imaginary part
        shape = self.signal.shape
        difference = fft.irfft2(self.transform * kernel, self.padded)[: shape[0], : shape[1]]
        top = difference == ndimage.maximum_filter(difference, size=2 * round(0.3 * r) + 1)
        row, col = np.nonzero(top & (difference > min_snr * self._noise(radius)))
        order = np.argsort(-difference[row, col], kind="stable")[:_CANDIDATES]
        return np.column_stack([row[order], col[order]]).astype(float)

    def contrast(self, rc: np.ndarray, radius: float) -> np.ndarray:
        """Return the mean contrast of the sectors that see the least of it (n,), the largest first."""
        return np.sort(self._sectors(rc, radius))[::-1]

    def moved(self, rc: np.ndarray, other: _Copy) -> np.ndarray:
        """Return positions here as positions in another copy (n, 2) [px there]."""
        return (rc + 0.5) * self.binning / other.binning - 0.5

    def discs(self, rc: np.ndarray, radius: float, min_snr: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Return positions (n, 2) [px of the frame] and signal to noise ratio (n,) of candidates that are discs, and their radius.

        Compression moves the edges outwards. The last word has the signal as it is, cut off a little above each disc, so that a
        brighter neighbour pulls no harder than an equal one.
        """
        rc = rc[self._sectors(rc, radius) > 0]
        if not len(rc):
            return rc, np.zeros(0), radius
        rc = self._centred(rc, radius, None)
        cap = 1.2 * self._inside(rc, 0.7 * radius)
        bright = np.argsort(-cap, kind="stable")[:_VOTERS]
        radii = radius * np.geomspace(0.7, 1.1, 10)
        edge = [
            (np.maximum(self._balance(rc[bright], r, cap[bright]), 0) / np.maximum(cap[bright], 1e-12)).sum()
            for r in radii
        ]
        radius = float(radii[int(np.argmax(edge))])
        rc = self._fitted(self._centred(rc, radius, cap), radius, cap)
        rc, contrast = self._outshining(rc, radius)
        snr = contrast / (
            self._noise(radius)
            * np.sqrt(_SECTORS / _AGREEING)
            * max(1.0, _calm_spread(self.signal, self.live) * self.binning)
        )
        return (rc[snr > min_snr] + 0.5) * self.binning - 0.5, snr[snr > min_snr], radius

    def _outshining(self, rc: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (n, 2) [px here] and contrast (n,), those of larger discs that outshine the others by what is bright of them.

        A direct beam that fills the pixels spills over: rings of the radius of the others fit it on all sides, or nowhere.
        """
        smooth = ndimage.uniform_filter(self.linear, 2 * round(0.4 * radius / self.binning) + 1)
        brightest = np.array(np.unravel_index(np.argmax(smooth), smooth.shape), float)
        usual = float(np.median(self._inside(rc, 0.5 * radius)))
        larger: list[tuple[np.ndarray, float]] = []
        for place in [brightest, *rc]:
            light = float(smooth[tuple(np.clip(np.round(place).astype(int), 0, np.array(smooth.shape) - 1))])
            found = self._bright_disc(place, radius, 0.5 * light) if light > _OUTSHINES * usual else None
            if found is not None and all(np.hypot(*(found[0] - middle)) > 1 for middle, _ in larger):
                larger.append(found)
        contrast = self._sectors(rc, radius)
        for middle, own in larger:
            others = np.hypot(*(rc - middle).T) * self.binning > own
            edge = max(self._sectors(middle[None], size)[0] for size in (radius, own))
            # bright discs that overlap look like a larger one, but their own edges are the sharper ones
            if edge > _SHARPER * contrast[~others].max(initial=0.0):
                rc, contrast = np.concatenate([rc[others], middle[None]]), np.append(contrast[others], edge)
        return rc, contrast

    def _bright_disc(self, rc: np.ndarray, radius: float, level: float) -> tuple[np.ndarray, float] | None:
        """Return middle [px here] and radius [px] of what is above a level around a place, None unless it is one larger disc."""
        r = radius / self.binning
        low = np.maximum(np.floor(rc - 2.5 * r).astype(int), 0)
        high = np.ceil(rc + 2.5 * r).astype(int) + 1
        window = self.linear[low[0] : high[0], low[1] : high[1]]
        number, _ = ndimage.label(window > level)
        which = number[tuple(np.clip(np.round(rc - low).astype(int), 0, np.array(window.shape) - 1))]
        row, col = np.nonzero(number == which)
        if which == 0 or len(row) < np.pi * r**2:
            return None
        middle = low + np.array([row.mean(), col.mean()])
        own = float(np.sqrt(len(row) / np.pi)) * self.binning
        short, long = np.linalg.eigvalsh(np.cov(row, col))
        larger = _LARGER[0] * radius <= own <= _LARGER[1] * radius
        return (middle, own) if larger and short > _ROUND * long and np.hypot(*(middle - rc)) <= r else None

    def _centred(self, rc: np.ndarray, radius: float, cap: np.ndarray | None) -> np.ndarray:
        """Return positions (n, 2) [px here] moved to where the edge has most contrast."""
        r = radius / self.binning
        grid = np.stack(np.meshgrid(*2 * [np.linspace(-2, 2, 5)], indexing="ij"), axis=-1).reshape(-1, 2)
        caps = None if cap is None else np.repeat(cap, len(grid))
        for step in (0.15 * r, 0.1 * r):
            value = self._balance((rc[:, None] + step * grid).reshape(-1, 2), radius, caps).reshape(
                -1, len(grid)
            )
            # the contrast falls off in a straight line on all sides, which a parabola does not fit
            weight = np.clip(value - 0.5 * value.max(axis=1, keepdims=True), 0, None)
            rc = rc + step * (weight @ grid) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
        return rc

    def _fitted(self, rc: np.ndarray, radius: float, cap: np.ndarray) -> np.ndarray:
        """Return positions (n, 2) [px here] by least squares, of discs whose brightness slopes on a background that slopes.

        The intensity across a disc follows the rocking curve, brighter on one side; that side must not pull. The residual at
        the edge, bright on one side and dark on the other, says how far the disc is off.
        """
        r = radius / self.binning
        soft = max(0.7, _EDGE * r)
        half = int(np.ceil(_WINDOW * r))
        offset = np.stack(np.meshgrid(*2 * [np.arange(-half, half + 1.0)], indexing="ij"), axis=-1).reshape(
            -1, 2
        )
        distance = np.hypot(*offset.T)
        offset, distance = offset[distance <= _WINDOW * r], distance[distance <= _WINDOW * r]
        disc = ndtr((r - distance) / soft)
        edge = np.exp(-0.5 * ((distance - r) / soft) ** 2) / (np.sqrt(2 * np.pi) * soft)
        towards = offset / np.maximum(distance, 1e-9)[:, None]
        parts = np.column_stack(
            [disc, disc[:, None] * offset / r, np.ones(len(offset)), offset / r, edge[:, None] * towards]
        )
        start = rc
        for _ in range(4):
            at = (rc[:, None] + offset).reshape(-1, 2).T
            light = ndimage.map_coordinates(self.linear, at, order=1).reshape(len(rc), -1)
            weight = ndimage.map_coordinates(self.live, at, order=1).reshape(len(rc), -1)
            light = np.minimum(light, cap[:, None])
            normal = np.einsum("nk,ki,kj->nij", weight, parts, parts, optimize=True)
            normal += 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(parts.shape[1])
            found = np.linalg.solve(
                normal, np.einsum("nk,ki->ni", weight * light, parts, optimize=True)[..., None]
            )[..., 0]
            step = found[:, -2:] / np.maximum(found[:, :1], 1e-12)
            rc = rc + np.where(found[:, :1] > 0, np.clip(step, -0.1 * r, 0.1 * r), 0.0)
        lost = np.hypot(*(rc - start).T) > 0.3 * r
        return np.where(lost[:, None], start, rc)

    def _inside(self, rc: np.ndarray, radius: float) -> np.ndarray:
        """Return the median of the signal at a distance from positions (n,)."""
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = radius / self.binning * np.column_stack([np.sin(angle), np.cos(angle)])
        at = (rc[:, None] + ring).reshape(-1, 2).T
        return np.median(ndimage.map_coordinates(self.linear, at, order=1).reshape(-1, 16), axis=1)

    def _sectors(self, rc: np.ndarray, radius: float) -> np.ndarray:
        """Return the mean contrast of the sectors that see the least of it (n,), less where few are in view and 0 where too few are."""
        contrast = np.sort(self._contrasts(self.signal, rc, radius, None), axis=1)
        # sectors out of view are no reason for a disc, nor against one; the two that see most of it are left out of those in view too,
        # or where a straight edge leaves the frame it would pass
        n_used = np.maximum(np.isfinite(contrast).sum(axis=1) - (_SECTORS - _AGREEING), 0)
        total = np.where(np.arange(_SECTORS) < n_used[:, None], contrast, 0).sum(axis=1)
        # as many sectors have less noise together
        total /= np.sqrt(np.maximum(n_used, 1) * _AGREEING)
        return np.where(n_used >= _LEAST_SECTORS - (_SECTORS - _AGREEING), total, 0.0)

    def _balance(self, rc: np.ndarray, radius: float, cap: np.ndarray | None) -> np.ndarray:
        """Return the contrast of a typical pair of opposite sectors (n,), for which a slope of the background makes no difference.

        Of the compressed signal, or with caps (n,) of the signal as it is up to these.
        """
        contrast = self._contrasts(self.signal if cap is None else self.linear, rc, radius, cap)
        half = _SECTORS // 2
        pairs = np.sort(contrast[:, :half] + contrast[:, half:], axis=1)
        n_seen = np.isfinite(pairs).sum(axis=1)
        # neighbours spoil a pair, and so does what covers half of it: the middle of the others is taken
        rank = np.arange(half)
        use = (rank >= (n_seen - 1)[:, None] // 2) & (rank <= n_seen[:, None] // 2)
        total = np.where(use, pairs, 0).sum(axis=1) / np.maximum(use.sum(axis=1), 1) / 2
        return np.where(n_seen >= 2, total, 0.0)

    def _contrasts(
        self, image: np.ndarray, rc: np.ndarray, radius: float, cap: np.ndarray | None
    ) -> np.ndarray:
        """Return inside minus outside for every sector (n, sectors), infinite where it is not in view."""
        r, thick = radius / self.binning, self._thickness(radius)
        each = max(3, round(2 * np.pi * r / _SECTORS))
        angle = (np.arange(_SECTORS * each) + 0.5) * 2 * np.pi / (_SECTORS * each)
        depth = thick * (np.arange(3) + 0.5) / 3
        radii = np.concatenate([r - depth, r + depth])
        offset = radii[:, None, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        at = (rc[:, None, None, :] + offset).reshape(-1, 2).T
        shape = (len(rc), 2, 3, _SECTORS, each)
        light = ndimage.map_coordinates(image, at, order=1, mode="constant").reshape(shape)
        if cap is not None:
            light = np.minimum(light, cap.astype(np.float32)[:, None, None, None, None])
        if self.masked:
            live = ndimage.map_coordinates(self.live, at, order=1, mode="constant").reshape(shape)
        else:
            limit = np.array(image.shape)[:, None] - 1
            live = np.all((at >= 0) & (at <= limit), axis=0).reshape(shape)
        seen = live.sum(axis=(2, 4))
        mean = light.sum(axis=(2, 4)) / np.maximum(seen, 1e-6)
        in_view = (seen > 0.5 * 3 * each).all(axis=1)
        return np.where(in_view, mean[:, 0] - mean[:, 1], np.inf)


def _calm_spread(image: np.ndarray, live: np.ndarray) -> float:
    """Return the robust standard deviation of neighbouring pixels in the calmest quarter of the tiles, of white noise of 1."""
    size = max(8, min(image.shape) // 8)
    step = (image[:, 1:] - image[:, :-1]) / np.sqrt(2)
    both = np.minimum(live[:, 1:], live[:, :-1]) > 0.99
    spreads = []
    for r in range(0, step.shape[0] - size + 1, size):
        for c in range(0, step.shape[1] - size + 1, size):
            values = step[r : r + size, c : c + size][both[r : r + size, c : c + size]]
            if len(values) > size:
                spreads.append(1.4826 * np.median(np.abs(values)))
    return float(np.quantile(spreads, 0.25)) if spreads else 1.0
