"""The node map: for every lattice node in view, whether a spot is there and how strong it is.

A node is measured at the place that the lattice predicts, whether or not the spot search saw something there. The profile
of the pattern's own strong spots is fitted, together with a sloping local background, by least squares: the optimal
estimate for weak spots (Naylor 1998, doi:10.1046/j.1365-8711.1998.01314.x). Positions between the nodes, measured in the
same way, and negative results, say how far the texture of the background scatters such a fit.

The probability of presence compares two statements about the measured intensity: *absent*, zero plus noise with a few
outliers; *present*, any intensity from `WEAKEST` of the strongest that spots at this distance from the beam reach, up to
that, all magnitudes alike. Where even the strongest would be lost in the noise, both say the same and nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from napari_sadp.labels.lattice2d import span

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice

#: Weakest spot that counts as present, relative to the strongest that the pattern shows at the same distance.
WEAKEST = 2e-3
#: Share and width of outliers among absent nodes, in units of the uncertainty: texture, streaks, tails of neighbours.
OUTLIER_SHARE, OUTLIER_WIDTH = 0.03, 5.0
#: Relative error of an intensity from a profile that does not fit quite.
PROFILE_ERROR = 0.03

_MIN_LIVE = 0.6  # share of the weight of the profile that must fall on live pixels
_MIN_REACH_SNR = 3.0  # where the strongest spots would not reach it, a node is unknown
_PRESENT, _ABSENT, _UNKNOWN = 1, 0, -1
_N_PROFILE = 40
_CLEAR = 8.0  # signal to noise ratio of a node beyond doubt
_CHUNK = 20_000


@dataclass(frozen=True, eq=False)
class NodeMap:
    """What every lattice node in view shows; the direct beam (0, 0) is left out.

    Parameters
    ----------
    indices : (n, 2) ndarray of int
        Node (m, n) of each row, in the basis of the lattice.
    rc : (n, 2) ndarray of float64
        Where it was measured (row, col) [px].
    intensity : (n,) ndarray of float64
        Integrated intensity above the local background [counts]; NaN where unknown.
    sigma : (n,) ndarray of float64
        Its standard uncertainty [counts]; NaN where unknown.
    presence : (n,) ndarray of float64
        Probability that a spot is there; 0.5 where unknown.
    state : (n,) ndarray of int8
        1 present, 0 absent, -1 unknown: masked, at the edge, or where the pattern is too faint to show any spot.
    """

    indices: np.ndarray
    rc: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    presence: np.ndarray
    state: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def present(self) -> np.ndarray:
        """Rows of the nodes that show a spot (n,) bool."""
        return self.state == _PRESENT

    @property
    def absent(self) -> np.ndarray:
        """Rows of the nodes that show none (n,) bool."""
        return self.state == _ABSENT


def measure_nodes(geometry: PatternGeometry) -> NodeMap:
    """Measure every lattice node in view.

    Parameters
    ----------
    geometry : PatternGeometry
        Pattern, lattice, mask and background, from `analyse_pattern`.

    Returns
    -------
    NodeMap
        Nodes by increasing distance from the direct beam.
    """
    lattice, prepared = geometry.lattice, geometry.prepared
    spots = lattice.spots
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    indices = _nodes_in_view(lattice.beam_rc, basis, prepared.mask.shape)
    rc = lattice.node_rc(indices)
    # a spot that was found tells the place of its node better than the lattice does
    number = {tuple(node): row for row, node in enumerate(indices.tolist())}
    seen = np.array([number.get(tuple(node), -1) for node in lattice.indices.tolist()], dtype=int)
    seen = np.where(lattice.indexed, seen, -1)
    rc[seen[seen >= 0]] = spots.rc[seen >= 0]
    bad = prepared.mask | _saturated_pixels(geometry)
    meter = _Meter(prepared, bad, spots.sigma_px, 0.5 * float(np.linalg.norm(lattice.g1_px)))
    strong = np.argsort(-spots.intensity * lattice.indexed, kind="stable")[:_N_PROFILE]
    meter.learn_profile(spots.rc[strong[lattice.indexed[strong]]])
    intensity, sigma, live = meter.measure(rc)
    known = live >= _MIN_LIVE
    sigma *= _texture(meter, (intensity / sigma)[known], lattice.beam_rc, basis, spots.sigma_px)
    sigma = np.hypot(sigma, PROFILE_ERROR * np.clip(intensity, 0, None))
    found = np.zeros(len(rc), bool)
    found[seen[seen >= 0]] = True
    limit = _strongest(np.linalg.norm(rc - lattice.beam_rc, axis=1), intensity, sigma, known)
    presence = np.where(known, _presence(intensity, sigma, limit), 0.5)
    # a saturated spot has no intensity, but is there
    presence[found] = np.maximum(presence[found], 0.95)
    faint = (limit < _MIN_REACH_SNR * sigma) & (presence < 0.9)
    state = np.where(presence >= 0.5, _PRESENT, _ABSENT).astype(np.int8)
    state[(~known | faint) & ~found] = _UNKNOWN
    presence[state == _UNKNOWN] = 0.5
    intensity[~known], sigma[~known] = np.nan, np.nan
    return NodeMap(indices, rc, intensity, sigma, presence, state)


def friedel_agreement(nodes: NodeMap, lattice: SpotLattice) -> tuple[float, int]:
    """Return how well the intensities of opposite nodes agree, -1 to 1, and the number of pairs that say so.

    It is the intraclass correlation of ln I over the pairs of which one at least is clear. A tilt off the zone axis
    multiplies the ratio of a pair by about ``exp(t.g)``; that trend is fitted and taken away.

    Parameters
    ----------
    nodes : NodeMap
        Intensities.
    lattice : SpotLattice
        Their lattice.

    Returns
    -------
    float, int
        NaN and the number where there are fewer than six pairs.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    return _agreement(nodes.indices, nodes.intensity, nodes.sigma, basis, (0, 0))


def inversion_agreement(
    prepared: PreparedImage, lattice: SpotLattice, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how well the intensities on a lattice agree with their inverse at some of its nodes.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        A lattice with any node as origin.
    centres : (k, 2) ndarray of int
        Nodes to try.

    Returns
    -------
    agreement : (k,) ndarray of float
        As `friedel_agreement` gives it; NaN for fewer than six pairs.
    n_pairs : (k,) ndarray of int
        Pairs that say so.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    indices = np.concatenate([[[0, 0]], _nodes_in_view(lattice.beam_rc, basis, prepared.mask.shape)])
    total = prepared.signal + prepared.background
    bad = prepared.mask.copy()
    if prepared.saturated:
        bad |= total >= total[~prepared.mask].max()
    meter = _Meter(prepared, bad, lattice.spots.sigma_px, 0.5 * float(np.linalg.norm(lattice.g1_px)))
    intensity, sigma, live = meter.measure(lattice.node_rc(indices))
    intensity[live < _MIN_LIVE] = np.nan
    found = [_agreement(indices, intensity, sigma, basis, tuple(centre)) for centre in centres.tolist()]
    return np.array([value for value, _ in found]), np.array([count for _, count in found])


def _agreement(
    indices: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, basis: np.ndarray, centre: tuple[int, int]
) -> tuple[float, int]:
    """Return `friedel_agreement` for inversion through a node, the tilt about it taken away."""
    number = {tuple(node): row for row, node in enumerate(indices.tolist())}
    mate = [(2 * centre[0] - m, 2 * centre[1] - n) for m, n in number]
    pairs = np.array(
        [
            (row, number[other])
            for (node, row), other in zip(number.items(), mate, strict=True)
            if node > other and other in number
        ],
        dtype=int,
    ).reshape(-1, 2)
    known = np.isfinite(intensity)
    pairs = pairs[known[pairs].all(axis=1)]
    clear = (intensity > 8 * sigma)[pairs].any(axis=1) if len(pairs) else np.zeros(0, bool)
    pairs = pairs[clear]
    if len(pairs) < 6:
        return float("nan"), len(pairs)
    # what is not seen is weaker than twice its uncertainty
    log = np.log(np.maximum(intensity, 2 * sigma))
    first, second = log[pairs[:, 0]], log[pairs[:, 1]]
    g = (indices[pairs[:, 0]] - centre) @ basis
    ratio = first - second
    ratio = ratio - g @ np.linalg.lstsq(g, ratio, rcond=None)[0]
    between = 4 * np.var((first + second) / 2)
    within = float(np.mean(ratio**2)) * len(pairs) / max(1, len(pairs) - 2)
    return float((between - within) / max(between + within, 1e-30)), len(pairs)


def finer_basis(prepared: PreparedImage, lattice: SpotLattice, reach_px: float) -> np.ndarray | None:
    """Return the basis of a finer lattice that the pattern shows although the spot search missed its weak spots.

    At the nodes that halving or thirding the vectors would add, intensities are measured. A coset counts where many more
    are significant than negative ones are, and where the inverse of a node shows what the node shows.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        Lattice with the direct beam as origin.
    reach_px : float
        Nodes are asked to this distance from the direct beam [px].

    Returns
    -------
    (2, 2) ndarray of float64 or None
        Rows are the vectors [px]; None where nothing is added.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    sigma = lattice.spots.sigma_px
    bad = prepared.mask
    for parts in (2, 3):
        fine = basis / parts
        if np.linalg.norm(fine[0]) < max(2.6 * sigma, 4.0):
            continue
        indices = _nodes_in_view(lattice.beam_rc, fine, bad.shape)
        rc = lattice.beam_rc + indices @ fine
        distance = np.linalg.norm(rc - lattice.beam_rc, axis=1)
        keep = (distance <= reach_px) & (distance > 3 * sigma) & np.any(indices % parts != 0, axis=1)
        indices, rc = indices[keep], rc[keep]
        if len(indices) < 8:
            continue
        meter = _Meter(prepared, bad, sigma, 0.5 * float(np.linalg.norm(fine[0])))
        intensity, error, live = meter.measure(rc)
        score = np.where(live >= _MIN_LIVE, intensity / error, np.nan)
        score /= max(
            1.0, 1.4826 * float(np.nanmedian(np.abs(score[score < 0]))) if np.any(score < 0) else 1.0
        )
        added = _occupied_cosets(indices, score, parts)
        if added:
            rows = np.concatenate([parts * np.eye(2, dtype=int), np.array(added)])
            return span(rows) @ fine
    return None


def _occupied_cosets(indices: np.ndarray, score: np.ndarray, parts: int) -> list[tuple[int, int]]:
    """Return representatives of the cosets of added nodes that carry spots."""
    known = {tuple(node): value for node, value in zip(indices.tolist(), score.tolist(), strict=True)}
    found = []
    for coset in {
        tuple(sorted([tuple(c), tuple((-np.array(c)) % parts)])) for c in np.unique(indices % parts, axis=0)
    }:
        member = np.any([np.all(indices % parts == c, axis=1) for c in coset], axis=0)
        values = score[member & np.isfinite(score)]
        bright, negative = np.count_nonzero(values > 5), np.count_nonzero(values < -4)
        # few spots are enough where they are beyond doubt
        clear = np.count_nonzero(values > _CLEAR) >= 4 and not negative
        if not clear and bright < max(5, 5 * negative, 0.1 * len(values)):
            continue
        mates = np.array([known.get((-m, -n), np.nan) for m, n in indices[member & (score > 5)].tolist()])
        mates = mates[np.isfinite(mates)]
        if len(mates) >= 4 and np.mean(mates > 2.5) > 0.7:
            found.append(coset[0])
    return found


def _nodes_in_view(beam_rc: np.ndarray, basis: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
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


def _saturated_pixels(geometry: PatternGeometry) -> np.ndarray:
    """Return where the detector was saturated; such pixels say how high a spot is at least, no more."""
    data = geometry.pattern.data
    if not geometry.prepared.saturated:
        return np.zeros(data.shape, bool)
    return data >= data[~geometry.prepared.mask].max()


class _Meter:
    """Fits the profile of a spot, and a plane below it, at many places at once.

    Parameters
    ----------
    prepared : PreparedImage
        Signal and noise.
    bad : (n_rows, n_cols) ndarray of bool
        Pixels that must not count.
    sigma : float
        Standard deviation of a spot [px].
    half_gap : float
        Half of the distance to the next node [px].
    """

    def __init__(self, prepared: PreparedImage, bad: np.ndarray, sigma: float, half_gap: float) -> None:
        self.reach = float(max(min(4.0 * sigma, half_gap), 2.0))
        self.half = int(np.ceil(self.reach))
        pad = self.half + 1
        self.pad = pad
        self.signal = np.pad(np.where(bad, 0.0, prepared.signal), pad)
        self.live = np.pad(~bad, pad)
        self.variance = np.pad(prepared.noise.astype(float) ** 2, pad, mode="edge")
        self.gain = _gain(prepared)
        self.step = 0.5
        self.radius = np.arange(0, self.reach + 1 + self.step, self.step)
        self.profile = np.exp(-0.5 * (self.radius / sigma) ** 2)

    def learn_profile(self, rc: np.ndarray) -> None:
        """Replace the Gaussian by the mean radial profile of strong spots, if there are some."""
        if len(rc) < 3:
            return
        patch, weight, dr, dc = self._patches(rc)
        distance = np.hypot(dr, dc)
        number = np.round(distance / self.step).astype(int)
        start = self.profile
        for _ in range(3):
            height, _, plane = self._fit(patch, weight, self._template(dr, dc), dr, dc)
            good = height > 0
            if np.count_nonzero(good) < 3:
                self.profile = start
                return
            shape = (patch - plane)[good] / height[good, None]
            live = weight[good] > 0
            profile = np.zeros(len(start))
            for k in range(len(start)):
                inside = live & (number[good] == k)
                if np.count_nonzero(inside) >= 6:
                    profile[k] = np.median(shape[inside])
                elif k and profile[k - 1] > 0:
                    profile[k] = profile[k - 1] * start[k] / max(start[k - 1], 1e-12)
            if np.count_nonzero(live & (number[good] == 0)) < 6:  # few pixels are as near to a centre as that
                profile[0] = profile[1] * start[0] / start[1]
            # a profile falls outwards; what is left at the end of the reach is background
            profile = np.minimum.accumulate(profile)
            last = int(self.reach / self.step)
            profile = np.clip(profile - max(profile[last], 0.0), 0, None)
            profile[last:] = 0.0
            if profile[0] <= 0:
                self.profile = start
                return
            self.profile = profile / profile[0]

    def measure(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return integrated intensity, its uncertainty, and the share of the profile on live pixels, each (n,)."""
        parts = [self._measure(rc[i : i + _CHUNK]) for i in range(0, len(rc), _CHUNK)]
        if not parts:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _measure(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        patch, weight, dr, dc = self._patches(rc)
        template = self._template(dr, dc)
        height, error, _ = self._fit(patch, weight, template, dr, dc)
        volume = float(2 * np.pi * np.trapezoid(self.profile * self.radius, self.radius))
        # photon noise of the spot itself, by the same weights as the fit
        own = self.gain * np.clip(height, 0, None)[:, None] * template
        square = (weight * template**2).sum(axis=1)
        extra = (weight**2 * template**2 * own).sum(axis=1) / np.maximum(square, 1e-30) ** 2
        inside = template * (np.hypot(dr, dc) <= self.reach)
        live = (inside * (weight > 0)).sum(axis=1) / np.maximum(inside.sum(axis=1), 1e-30)
        live[~np.isfinite(error)] = 0.0
        return height * volume, np.sqrt(error**2 + extra) * volume, live

    def _patches(self, rc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return values, weights (0 outside of the reach) and distances of the pixels around places, each (n, k)."""
        centre = np.round(rc).astype(int)
        offset = np.arange(-self.half, self.half + 1)
        d_row, d_col = (a.ravel() for a in np.meshgrid(offset, offset, indexing="ij"))
        limit = np.array(self.signal.shape) - 1
        row = np.clip(centre[:, :1] + d_row + self.pad, 0, limit[0])
        col = np.clip(centre[:, 1:] + d_col + self.pad, 0, limit[1])
        dr, dc = row - self.pad - rc[:, :1], col - self.pad - rc[:, 1:]
        good = self.live[row, col] & (np.hypot(dr, dc) <= self.reach)
        return self.signal[row, col], good / self.variance[row, col], dr, dc

    def _template(self, dr: np.ndarray, dc: np.ndarray) -> np.ndarray:
        return np.interp(np.hypot(dr, dc), self.radius, self.profile, right=0.0)

    @staticmethod
    def _fit(
        patch: np.ndarray, weight: np.ndarray, template: np.ndarray, dr: np.ndarray, dc: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return height, its uncertainty (infinite where it is not fixed), and the plane (n, k)."""
        design = np.stack([template, np.ones_like(dr), dr, dc], axis=2)
        normal = np.einsum("nki,nk,nkj->nij", design, weight, design)
        right = np.einsum("nki,nk,nk->ni", design, weight, patch)
        scale = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
        scaled = normal / (scale[:, :, None] * scale[:, None, :])
        # where too few pixels are left, the plane is held at zero rather than extrapolated
        scaled += np.diag([1e-9, 1e-3, 1e-3, 1e-3])
        lost = (weight.astype(bool).sum(axis=1) < 6) | (normal[:, 0, 0] < 1e-6 * normal[:, 1, 1])
        scaled[lost] = np.eye(4)
        inverse = np.linalg.inv(scaled)
        answer = np.einsum("nij,nj->ni", inverse, right / scale) / scale
        error = np.sqrt(np.clip(inverse[:, 0, 0], 0, None)) / scale[:, 0]
        error[lost] = np.inf
        return answer[:, 0], error, np.einsum("nki,ni->nk", design[:, :, 1:], answer[:, 1:])


def _gain(prepared: PreparedImage) -> float:
    """Return the variance per count of signal, from how the noise grows with the background; 0 if it does not."""
    block = max(4, min(prepared.mask.shape) // 40)
    level = prepared.background[::block, ::block][~prepared.mask[::block, ::block]].astype(float)
    variance = prepared.noise[::block, ::block][~prepared.mask[::block, ::block]].astype(float) ** 2
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


def _texture(meter: _Meter, score: np.ndarray, beam_rc: np.ndarray, basis: np.ndarray, sigma: float) -> float:
    """Return by how much fits where no spot is scatter more than the noise says, at least 1.

    Negative intensities are no spots, whatever the node; the centres of the cells are none where spots are far enough.
    """
    below = score[score < 0]
    centre = basis.sum(axis=0) / 2
    gap = min(np.linalg.norm(centre), np.linalg.norm(centre - basis[0]), np.linalg.norm(centre - basis[1]))
    if gap > meter.reach + 3 * sigma:
        shape = (meter.signal.shape[0] - 2 * meter.pad, meter.signal.shape[1] - 2 * meter.pad)
        rc = beam_rc + centre + _nodes_in_view(beam_rc, basis, shape)[:600] @ basis
        rc = rc[np.all((rc >= 0) & (rc <= np.array(shape) - 1), axis=1)]
        intensity, error, live = meter.measure(rc)
        between = (intensity / error)[live >= _MIN_LIVE]
        below = np.concatenate([below, between - np.median(between)]) if len(between) else below
    if len(below) < 12:
        return 1.0
    return float(np.clip(1.4826 * np.median(np.abs(below)), 1.0, 20.0))


def _strongest(
    distance: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Return the intensity that the strongest spots reach at each distance from the beam (n,).

    The upper envelope of ln I against the square of the distance is a straight line for a Gaussian fall (Debye-Waller
    factor, form factors); it never rises outwards.
    """
    clear = known & (intensity > 5 * sigma)
    if np.count_nonzero(clear) < 4:
        top = np.max(intensity[clear], initial=0.0) or float(
            np.max(np.where(known, intensity, 0.0), initial=0.0)
        )
        return np.full(len(distance), max(top, 1e-30))
    x, y = distance[clear] ** 2, np.log(intensity[clear])
    slope, level = 0.0, float(np.max(y))
    if len(x) >= 8 and np.ptp(x) > 0:
        slope = min(0.0, float(np.polyfit(x, y, 1)[0]))
        level = float(np.quantile(y - slope * x, 0.95))
    limit = level + slope * np.minimum(distance**2, x.max() * 1.5)
    return np.exp(limit)


def _presence(intensity: np.ndarray, sigma: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return P(spot) (n,) for equal prior odds; see the module."""
    score = intensity / sigma
    absent = (1 - OUTLIER_SHARE) * np.exp(-0.5 * score**2)
    absent += OUTLIER_SHARE / OUTLIER_WIDTH * np.exp(-0.5 * (score / OUTLIER_WIDTH) ** 2)
    absent /= np.sqrt(2 * np.pi)
    # integral over ln I of the normal density, by the midpoint rule
    grid = np.log(WEAKEST) * (np.arange(48) + 0.5) / 48
    strength = np.exp(grid) * (np.maximum(limit, intensity) / sigma)[:, None]
    width = -np.log(WEAKEST) / 48
    edge = np.exp([width / 2])
    # the density of the score averaged over one step of the magnitude, so that large scores meet the grid
    low, high = strength / edge, strength * edge
    density = (ndtr(high - score[:, None]) - ndtr(low - score[:, None])) / np.maximum(high - low, 1e-12)
    return np.mean(density, axis=1) / (np.mean(density, axis=1) + absent + 1e-300)
