"""The search for the lattice of some points: candidates, growth from the middle outwards, and the test against chance.

See `napari_sadp.geometry.lattice`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_sadp.labels.lattice2d import sublattices

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotList

#: Decimal logarithm of the number of false alarms of a lattice beyond doubt.
CERTAIN_LOG_NFA = -8.0
#: Fewest spots of a lattice.
MIN_SPOTS = 5
#: A given beam farther from every node than this, over the shortest vector, contradicts a lattice.
MAX_BEAM_MISS = 0.3
_TOLERANCES_PX = (0.6, 0.8, 1.1, 1.5, 2.1, 3.0, 4.2, 6.0, 8.5)
_MAX_COVERAGE = 0.25  # share of the cell that the tolerance discs may cover; above, everything lies on a node
_SEARCH_SPOTS = 120
_MAX_CANDIDATES = 26
_MAX_GROWN = 8
_MAX_STARTS = 5
_CLEAR_SHARE = 0.8  # of the spots on one lattice: no need to look for a second net
_MOST_OPPOSITE = 0.3  # of a shifted net that is no superlattice may have a counterpart by inversion
_LEAST_SHIFTED = 4  # spots of a second net that is shifted against the first


@dataclass(frozen=True, eq=False)
class Fit:
    """A lattice under test: origin and basis rows [px], tolerance [px], logarithm of the number of false alarms."""

    origin: np.ndarray
    basis: np.ndarray
    tolerance: float
    log_nfa: float
    inlier: np.ndarray
    nodes: np.ndarray


def reduce_basis(basis: np.ndarray) -> np.ndarray:
    """Return the Gauss-reduced basis with the angle between 60 and 90 degrees.

    Parameters
    ----------
    basis : (2, 2) ndarray of float
        Rows are the vectors [px].

    Returns
    -------
    (2, 2) ndarray of float64
        ``|g1| <= |g2|``, ``0 <= g1.g2 <= |g1|^2 / 2``; `g1` points to larger rows (columns, if it is horizontal).

    Examples
    --------
    >>> reduce_basis([[0, 10], [10, 20]]).tolist()
    [[0.0, 10.0], [10.0, 0.0]]
    """
    a, b = np.asarray(basis, dtype=float)
    for _ in range(100):
        if a @ a > b @ b:
            a, b = b, a
        step = np.round(a @ b / max(a @ a, 1e-30))
        if step == 0:
            break
        b = b - step * a
    if a[0] < 0 or (a[0] == 0 and a[1] < 0):
        a = -a
    if a @ b < 0:
        b = -b
    return np.array([a, b]) + 0.0


def finer_lattices(basis: np.ndarray, max_index: int) -> list[tuple[int, np.ndarray]]:
    """Return (index, basis) of all lattices that contain a lattice with index 2 to `max_index`."""
    return [
        (index, np.linalg.inv(sub.T.astype(float)) @ basis)
        for index in range(2, max_index + 1)
        for sub in sorted(sublattices(index), key=lambda sub: sub[0, 0])
    ]


def search(spots: SpotList, through_rc: np.ndarray | None = None) -> Fit | None:
    """Return the lattice with the smallest number of false alarms, None if there is no candidate.

    Of a place (row, col) [px] that it must go `through_rc`, it is known that a node is there, if no spot.
    """
    strong = np.argsort(-spots.snr, kind="stable")[:_SEARCH_SPOTS]
    bases = _candidate_bases(_candidate_vectors(spots, strong), spots.least_spacing_px)
    if not len(bases):
        return None
    weight = weights(spots)
    starts = _start_points(spots)
    best, best_odds, most = None, 0.0, 0.0
    # the first two starts are where the zero-order Laue zone is; the others are for a net that it leaves out
    groups = [(False, starts[:1]), (False, starts[1:2]), (True, starts[2:])]
    if through_rc is not None:
        groups = [(False, [through_rc]), *groups[:2]]
    for far, group in groups:
        if not group or (far and _is_clear(best, spots)):
            continue
        promise = np.stack([_promise(spots.rc[strong], bases, start) for start in group])
        most = most if far else promise.max()
        for row, column in _by_promise(promise):
            if far and _is_clear(best, spots):
                break
            good = promise[row, column] >= 0.6 * most
            if best is not None and best.log_nfa < CERTAIN_LOG_NFA and not good:
                continue
            fit = grow(spots.rc, weight, bases[column], group[row], through_rc)
            if fit is None or (through_rc is not None and beside_nodes(through_rc, fit) > MAX_BEAM_MISS):
                continue
            odds = fit.log_nfa + shifted_net(spots.rc, fit)[1]
            if best is None or odds < best_odds:
                best, best_odds = fit, odds
    return best


def beside_nodes(rc: np.ndarray, fit: Fit) -> float:
    """Return how far a place is from the nearest node of a lattice, over the shortest vector."""
    miss = index_spots(rc[None], fit.origin, fit.basis)[1][0]
    return float(miss / np.linalg.norm(fit.basis, axis=1).min())


def shifted_net(rc: np.ndarray, fit: Fit) -> tuple[np.ndarray, float]:
    """Find a second net of the same periods, shifted: what a higher-order Laue zone shows beside the zero order.

    Parameters
    ----------
    rc : (n, 2) ndarray of float
        Spots [px].
    fit : Fit
        A lattice of some of them.

    Returns
    -------
    (n,) ndarray of bool, float
        The spots of the second net, and the decimal logarithm of the odds that chance makes one as large; none and 0.0 where
        chance may.
    """
    nothing = np.zeros(len(rc), bool)
    rest = np.flatnonzero(~fit.inlier)
    if len(rest) < _LEAST_SHIFTED:
        return nothing, 0.0
    part = (rc[rest] - fit.origin) @ np.linalg.inv(fit.basis)
    apart = part[:, None] - part[None]
    apart = np.linalg.norm((apart - np.round(apart)) @ fit.basis, axis=2)
    # far spots of a net that was fitted elsewhere are off by more
    tolerance = 1.5 * fit.tolerance
    share = np.pi * tolerance**2 / abs(np.linalg.det(fit.basis))
    together = apart <= tolerance
    count = together.sum(axis=1)
    best = int(np.argmax(count))
    if count[best] < _LEAST_SHIFTED or share > _MAX_COVERAGE:
        return nothing, 0.0
    odds = np.log10(len(rest)) + log_tail(int(count[best]) - 1, len(rest) - 1, share)
    if odds > -2:
        return nothing, 0.0
    # a superlattice is a shifted net too, but one that inversion maps on to itself or on to another
    shift = part[together[best]]
    opposite = -np.median(shift - np.round(shift - part[best]), axis=0) - part
    opposite = np.linalg.norm((opposite - np.round(opposite)) @ fit.basis, axis=1) <= tolerance
    if np.count_nonzero(opposite) > _MOST_OPPOSITE * count[best]:
        return nothing, 0.0
    nothing[rest[together[best]]] = True
    return nothing, float(odds)


def _by_promise(promise: np.ndarray) -> list[tuple[int, int]]:
    """Return the most promising pairs of start (row) and basis (column)."""
    best = np.argsort(-promise, axis=None, kind="stable")[:_MAX_GROWN]
    return [divmod(i, promise.shape[1]) for i in best.tolist()]


def _is_clear(fit: Fit | None, spots: SpotList) -> bool:
    """Tell whether a lattice holds so many of the spots that there is no second net to look for."""
    return fit is not None and np.count_nonzero(fit.inlier) >= _CLEAR_SHARE * len(spots)


def _candidate_bases(vectors: np.ndarray, least_px: float) -> np.ndarray:
    """Return the reduced bases (n, 2, 2) of all pairs of vectors that may be one, each once."""
    if len(vectors) < 2:
        return np.zeros((0, 2, 2))
    i, j = np.triu_indices(len(vectors), 1)
    bases = _reduce_all(np.stack([vectors[i], vectors[j]], axis=1))
    length = np.linalg.norm(bases, axis=2)
    area = np.abs(np.linalg.det(bases))
    good = (length[:, 0] >= least_px) & (area >= 0.5 * length[:, 0] * length[:, 1])
    good &= length[:, 1] <= 15 * length[:, 0]
    bases = bases[good]
    if not len(bases):
        return bases
    # those that agree to about 3 % of the shortest are one
    unit = 0.04 * float(np.median(length[good, 0]))
    _, first = np.unique(np.round(bases.reshape(-1, 4) / unit).astype(int), axis=0, return_index=True)
    return bases[np.sort(first)]


def _reduce_all(bases: np.ndarray) -> np.ndarray:
    """Return the reduced bases of many, as `reduce_basis` does for one (n, 2, 2)."""
    a, b = bases[:, 0].copy(), bases[:, 1].copy()
    for _ in range(60):
        swap = (a * a).sum(1) > (b * b).sum(1)
        a[swap], b[swap] = b[swap], a[swap]
        step = np.round((a * b).sum(1) / np.maximum((a * a).sum(1), 1e-30))
        if not step.any():
            break
        b -= step[:, None] * a
    a[(a[:, 0] < 0) | ((a[:, 0] == 0) & (a[:, 1] < 0))] *= -1
    b[(a * b).sum(1) < 0] *= -1
    return np.stack([a, b], axis=1)


def _promise(rc: np.ndarray, bases: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return how improbable it is (-log10 of a bound) that so many spots lie on each lattice as it stands (n,).

    The tolerance grows with the distance from the start, as the error of an unrefined basis does.
    """
    step = (rc - start) @ np.linalg.inv(bases)  # (n, spots, 2)
    nodes = np.round(step)
    miss = np.linalg.norm((step - nodes) @ bases, axis=2)
    short = np.linalg.norm(bases, axis=2)[:, :1]
    reach = np.abs(nodes).sum(axis=2)
    tolerance = np.minimum(1.0 + 0.02 * short * reach, 0.16 * short)
    share = np.pi * tolerance**2 / np.abs(np.linalg.det(bases))[:, None]
    asked = reach <= 6
    n = asked.sum(axis=1)
    hits = ((miss <= tolerance) & asked).sum(axis=1)
    chance = (share * asked).sum(axis=1) / np.maximum(n, 1)
    return -np.array([log_tail(k - 1, m - 1, p) for k, m, p in zip(hits, n, chance, strict=True)])


def _candidate_vectors(spots: SpotList, which: np.ndarray) -> np.ndarray:
    """Return difference vectors of some spots that occur often, each direction once, averaged over their cluster."""
    rc = spots.rc[which]
    i, j = np.triu_indices(len(rc), 1)
    vectors = rc[i] - rc[j]
    vectors[(vectors[:, 0] < 0) | ((vectors[:, 0] == 0) & (vectors[:, 1] < 0))] *= -1
    length = np.linalg.norm(vectors, axis=1)
    # lattice vectors short enough to be a basis; long ones only repeat these
    keep = (length > spots.least_spacing_px) & (length <= np.quantile(length, 0.75))
    vectors = vectors[keep]
    if not len(vectors):
        return vectors
    reach = max(1.0, 0.5 * spots.sigma_px)
    both = np.concatenate([vectors, -vectors])
    tree = cKDTree(both)
    # difference vectors of random spots grow in number with length, so short frequent ones come first
    count = tree.query_ball_point(vectors, reach, return_length=True)
    length = np.linalg.norm(vectors, axis=1)
    order = np.lexsort((length, -count))
    chosen: list[np.ndarray] = []
    alive = np.ones(len(vectors), bool)
    for index in order:
        if len(chosen) == _MAX_CANDIDATES:
            break
        if alive[index]:
            mean = both[tree.query_ball_point(vectors[index], reach)].mean(axis=0)
            chosen.append(mean)
            for row, col in (mean, -mean):
                alive &= (np.abs(vectors[:, 0] - row) > 1.5 * reach) | (
                    np.abs(vectors[:, 1] - col) > 1.5 * reach
                )
    # the shortest ones too: few spots repeat nothing
    return np.array(chosen + [vectors[i] for i in np.argsort(length, kind="stable")[:6] if alive[i]])


def weights(spots: SpotList) -> np.ndarray:
    """Return inverse variances of the positions [px^-2]: photon statistics, and a floor for pixels and spot shape."""
    return 1 / ((spots.sigma_px / spots.snr) ** 2 + (0.1 + 0.05 * spots.sigma_px) ** 2)


def _start_points(spots: SpotList) -> list[np.ndarray]:
    """Return spots to grow a lattice from: the brightest, the strong one nearest to the middle of all, and strong ones far off.

    The last are for a net that does not hold the first two, as that of a higher-order Laue zone.
    """
    strong = np.argsort(-spots.intensity, kind="stable")
    half = strong[: max(4, len(strong) // 2)]
    middle = np.median(spots.rc, axis=0)
    central = half[np.argsort(np.linalg.norm(spots.rc[half] - middle, axis=1), kind="stable")]
    picked = [int(strong[0]), int(central[0])]
    while len(picked) < min(_MAX_STARTS, len(half)):
        apart = np.linalg.norm(spots.rc[half][:, None] - spots.rc[picked], axis=2).min(axis=1)
        picked.append(int(half[np.argmax(apart)]))
    return [spots.rc[index] for index in dict.fromkeys(picked)]


def grow(
    rc: np.ndarray,
    weight: np.ndarray,
    basis: np.ndarray,
    start: np.ndarray,
    through_rc: np.ndarray | None = None,
) -> Fit | None:
    """Refine a lattice from a start point outwards, so that a small error of the basis does not misindex far spots."""
    origin = start.astype(float)
    distance = np.hypot(*(rc - start).T)
    farthest = distance.max()
    reach = 1.6 * np.hypot(*basis.T).max()
    for step in range(20):
        nodes, miss = index_spots(rc, origin, basis)
        allowed = min(0.15 * np.hypot(*basis.T).min(), _TOLERANCES_PX[-1])
        use = (miss < allowed) & (distance <= reach)
        fitted = least_squares(rc, weight, nodes, use)
        if fitted is None:
            if reach > farthest or step > 2:
                return None
        else:
            origin, basis = fitted
        if reach > farthest:
            break
        reach *= 1.7
    if np.hypot(*basis.T).min() < 4.0:
        return None
    return judge(rc, weight, origin, basis, through_rc)


def _det(basis: np.ndarray) -> float:
    """Return the determinant of a basis, many times faster than `numpy.linalg` does for such small ones."""
    (a, b), (c, d) = basis.tolist()
    return a * d - b * c


def index_spots(rc: np.ndarray, origin: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes nearest to places (n, 2), whole numbers as float, and how far these are from them (n,) [px]."""
    (a, b), (c, d) = basis.tolist()
    step = rc - origin
    nodes = np.round(step @ (np.array([[d, -b], [-c, a]]) / (a * d - b * c)))
    row, col = (step - nodes @ basis).T
    return nodes, np.hypot(row, col)


def least_squares(
    rc: np.ndarray, weight: np.ndarray, nodes: np.ndarray, use: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return origin and basis from indexed spots, None if the spots do not fix them."""
    if np.count_nonzero(use) < 3:
        return None
    weight, nodes, rc = weight[use] / weight[use].sum(), nodes[use], rc[use]
    # from their centres of mass two unknown vectors are left, whose normal equations a formula solves
    mean_node, mean_rc = weight @ nodes, weight @ rc
    step = nodes - mean_node
    weighted = weight[:, None] * step
    (a, b), (_, d) = weighted.T @ step
    det = a * d - b * b
    if det <= 1e-9 * (a + d) ** 2:  # on one row
        return None
    basis = np.array([[d, -b], [-b, a]]) @ (weighted.T @ (rc - mean_rc)) / det
    if abs(_det(basis)) < 16:
        return None
    return mean_rc - mean_node @ basis, basis


def judge(
    rc: np.ndarray,
    weight: np.ndarray,
    origin: np.ndarray,
    basis: np.ndarray,
    through_rc: np.ndarray | None = None,
) -> Fit | None:
    """Return the lattice with the tolerance that chance explains worst, where one of its nodes may be known."""
    n = len(rc)
    best = None
    for _ in range(2):
        nodes, miss = index_spots(rc, origin, basis)
        nodes = nodes.astype(int)
        area = abs(_det(basis))
        best = None
        nearest = one_spot_per_node(nodes, miss, _TOLERANCES_PX[-1])
        others, beside = np.ones(n, bool), np.inf
        if through_rc is not None:
            # the known node is one more that chance would have to hit, and a spot there is no news
            known, miss_known = index_spots(through_rc[None], origin, basis)
            others, beside = np.any(nodes != known, axis=1), float(miss_known[0])
        n_others = np.count_nonzero(others)
        # three spots are spent on origin and basis; every choice of three, and every tolerance, was a trial
        trials = np.log10(max(1, comb(n_others, 3)) * len(_TOLERANCES_PX))
        for tolerance in _TOLERANCES_PX:
            share = np.pi * tolerance**2 / area
            if share > _MAX_COVERAGE:
                break
            inlier = nearest & (miss <= tolerance)
            log_nfa = trials + log_tail(np.count_nonzero(inlier & others) - 3, n_others - 3, share)
            if np.isfinite(beside):
                log_nfa += np.log10(min(1.0, np.pi * max(beside, tolerance) ** 2 / area))
            if best is None or log_nfa < best.log_nfa:
                best = Fit(origin, basis, tolerance, float(log_nfa), inlier, nodes)
        if best is None:
            return None
        fitted = least_squares(rc, weight, nodes, best.inlier)
        if fitted is None:
            return best
        origin, basis = fitted
    return best


def log_tail(k: int, n: int, p: float) -> float:
    """Return a bound of log10 P(at least k of n) for a binomial of probability p (Hoeffding 1963, doi:10.2307/2282952)."""
    if n <= 0 or k <= n * p:
        return 0.0
    rate = k / n
    other = 0.0 if k == n else (1 - rate) * np.log((1 - rate) / (1 - p))
    return -n * (rate * np.log(rate / p) + other) / np.log(10)


def one_spot_per_node(nodes: np.ndarray, miss: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the spots within the tolerance, of several at a node only the nearest."""
    inlier = np.zeros(len(miss), bool)
    near = np.flatnonzero(miss <= tolerance)
    near = near[np.argsort(miss[near], kind="stable")]
    _, first = np.unique(nodes[near, 0] * 100003 + nodes[near, 1], return_index=True)
    inlier[near[first]] = True
    return inlier
