"""Two-dimensional lattice of diffraction spots: search, test against chance, refinement, covariance.

Candidate vectors are differences between spots that occur often. Every pair of them is tried as a basis, refined by least
squares from the middle of the pattern outwards, and judged by the number of false alarms (Desolneux, Moisan & Morel
2000, doi:10.1023/A:1026593302236): how many lattices as good as this one chance would make from as many random spots.
Lattices finer than needed have more nodes, explain more by chance, and lose; lattices that are too coarse leave
spots unexplained, and lose too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import binom

from napari_sadp._validate import check_range
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList

#: Relative error of a basis vector that no fit shows: residual ellipticity and distortion of the projector system.
SYSTEMATIC_ERROR = 0.005
MIN_SPOTS = 5
_TOLERANCES_PX = (0.6, 0.8, 1.1, 1.5, 2.1, 3.0, 4.2)
_MAX_COVERAGE = 0.25  # share of the cell that the tolerance discs may cover; above, everything lies on a node
_SEARCH_SPOTS = 120
_MAX_CANDIDATES = 26


@dataclass(frozen=True, eq=False)
class _Fit:
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


def fit_lattice(
    spots: SpotList,
    beam: DirectBeam | None = None,
    *,
    max_log_nfa: float = -2.0,
    min_explained: float = 0.6,
) -> SpotLattice:
    """Find and refine the lattice on which the spots lie.

    Parameters
    ----------
    spots : SpotList
        The spots; the direct beam may be among them or not.
    beam : DirectBeam, optional
        The direct beam; node (0, 0) is the node nearest to it. The node nearest to the middle of the spots when None.
    max_log_nfa : float
        Largest accepted decimal logarithm of the number of lattices as good as this one that random spots would make.
    min_explained : float
        Smallest share of the spots (weighted by the square root of their intensity) that must lie on the lattice.

    Returns
    -------
    SpotLattice
        Reduced basis with covariance. The covariance holds the scatter of the spots and a systematic part of
        0.5 % of each vector (`SYSTEMATIC_ERROR`).

    Raises
    ------
    PatternRefusedError
        "too few spots", "no lattice", "off zone" (the spots lie on one or two rows) or "several crystals".
    ValueError
        If a parameter is out of range.
    """
    min_explained = check_range("min_explained", min_explained, 0, 1)
    max_log_nfa = check_range("max_log_nfa", max_log_nfa, -1e4, 10)
    if len(spots) < MIN_SPOTS:
        raise PatternRefusedError(
            "too few spots", f"{len(spots)} spots, a lattice needs at least {MIN_SPOTS}"
        )
    fit = _search(spots)
    if fit is None or fit.log_nfa > max_log_nfa:
        _refuse_without_lattice(spots, fit)
    fit = _refine_index(spots, fit)
    fit, copies = _without_unpaired_cosets(spots, fit)
    explained = _explained(spots, fit.inlier | copies)
    if explained < min_explained:
        rest = _subset(spots, ~fit.inlier)
        other = _search(rest) if len(rest) >= MIN_SPOTS else None
        second = other is not None and other.log_nfa < max_log_nfa
        kind = "a second lattice" if second else "no one lattice"
        detail = f"the best lattice explains {100 * explained:.0f} % of the spots, {kind} the others"
        raise PatternRefusedError("several crystals" if second else "no lattice", detail)
    _require_two_dimensions(fit)
    return _result(spots, fit, beam)


def move_origin(lattice: SpotLattice, rc: np.ndarray) -> SpotLattice:
    """Return the same lattice with node (0, 0) at the node nearest to a position.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice.
    rc : (2,) ndarray of float
        Position (row, col) [px].

    Returns
    -------
    SpotLattice
        Copy with other `beam_rc` and `indices`.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    shift = np.round((np.asarray(rc, float) - lattice.beam_rc) @ np.linalg.inv(basis)).astype(int)
    return replace(lattice, beam_rc=lattice.beam_rc + shift @ basis, indices=lattice.indices - shift)


def _search(spots: SpotList) -> _Fit | None:
    """Return the lattice with the smallest number of false alarms, None if there is no candidate."""
    strong = np.argsort(-spots.snr, kind="stable")[:_SEARCH_SPOTS]
    vectors = _candidate_vectors(spots.rc[strong], spots.sigma_px)
    weight = _weights(spots)
    middle = _start_points(spots)
    best: _Fit | None = None
    seen = np.zeros((0, 2, 2))
    for i, j in combinations(range(len(vectors)), 2):
        basis = reduce_basis(vectors[[i, j]])
        short, long = np.linalg.norm(basis, axis=1)
        area = abs(np.linalg.det(basis))
        if short < max(3 * spots.sigma_px, 4.0) or area < 0.5 * short * long or long > 15 * short:
            continue
        if np.any(np.abs(seen - basis).max(axis=(1, 2)) < 0.03 * short):
            continue
        seen = np.concatenate([seen, basis[None]])
        for start in middle:
            fit = _grow(spots.rc, weight, basis, start)
            if fit is not None and (best is None or fit.log_nfa < best.log_nfa):
                best = fit
    return best


def _candidate_vectors(rc: np.ndarray, sigma: float) -> np.ndarray:
    """Return difference vectors that occur often, each direction once, averaged over their cluster."""
    i, j = np.triu_indices(len(rc), 1)
    vectors = rc[i] - rc[j]
    vectors[(vectors[:, 0] < 0) | ((vectors[:, 0] == 0) & (vectors[:, 1] < 0))] *= -1
    length = np.linalg.norm(vectors, axis=1)
    # lattice vectors short enough to be a basis; long ones only repeat these
    keep = (length > max(3 * sigma, 4.0)) & (length <= np.quantile(length, 0.75))
    vectors = vectors[keep]
    if not len(vectors):
        return vectors
    reach = max(1.0, 0.5 * sigma)
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
            for sign in (1, -1):
                alive &= np.abs(vectors - sign * mean).max(axis=1) > 1.5 * reach
    # the shortest ones too: few spots repeat nothing
    return np.array(chosen + [vectors[i] for i in np.argsort(length, kind="stable")[:6] if alive[i]])


def _weights(spots: SpotList) -> np.ndarray:
    """Return inverse variances of the positions [px^-2]: photon statistics, and a floor for pixels and spot shape."""
    return 1 / ((spots.sigma_px / spots.snr) ** 2 + (0.1 + 0.05 * spots.sigma_px) ** 2)


def _start_points(spots: SpotList) -> list[np.ndarray]:
    """Return spots to grow a lattice from: the brightest, and the strong ones nearest to the middle of all."""
    strong = np.argsort(-spots.intensity, kind="stable")
    half = strong[: max(4, len(strong) // 2)]
    middle = np.median(spots.rc, axis=0)
    central = half[np.argsort(np.linalg.norm(spots.rc[half] - middle, axis=1), kind="stable")]
    picked = dict.fromkeys([int(strong[0]), int(central[0])])
    return [spots.rc[index] for index in picked]


def _grow(rc: np.ndarray, weight: np.ndarray, basis: np.ndarray, start: np.ndarray) -> _Fit | None:
    """Refine a lattice from a start point outwards, so that a small error of the basis does not misindex far spots."""
    origin = start.astype(float)
    distance = np.linalg.norm(rc - start, axis=1)
    reach = 1.6 * np.linalg.norm(basis, axis=1).max()
    for step in range(20):
        nodes = np.round((rc - origin) @ np.linalg.inv(basis))
        miss = np.linalg.norm(rc - origin - nodes @ basis, axis=1)
        allowed = min(0.15 * np.linalg.norm(basis, axis=1).min(), 6.0)
        use = (miss < allowed) & (distance <= reach)
        fitted = _least_squares(rc, weight, nodes, use)
        if fitted is None:
            if reach > distance.max() or step > 2:
                return None
        else:
            origin, basis = fitted
        if reach > distance.max():
            break
        reach *= 1.7
    if np.linalg.norm(basis, axis=1).min() < 4.0:
        return None
    return _judge(rc, weight, origin, basis)


def _least_squares(
    rc: np.ndarray, weight: np.ndarray, nodes: np.ndarray, use: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return origin and basis from indexed spots, None if the spots do not fix them."""
    if np.count_nonzero(use) < 3:
        return None
    design = np.column_stack([np.ones(use.sum()), nodes[use]])
    root = np.sqrt(weight[use])[:, None]
    solution, _, rank, _ = np.linalg.lstsq(design * root, rc[use] * root, rcond=1e-9)
    return None if rank < 3 or abs(np.linalg.det(solution[1:])) < 16 else (solution[0], solution[1:])


def _judge(rc: np.ndarray, weight: np.ndarray, origin: np.ndarray, basis: np.ndarray) -> _Fit | None:
    """Return the lattice with the tolerance that chance explains worst."""
    n = len(rc)
    best = None
    for _ in range(2):
        inverse = np.linalg.inv(basis)
        nodes = np.round((rc - origin) @ inverse).astype(int)
        miss = np.linalg.norm(rc - origin - nodes @ basis, axis=1)
        area = abs(np.linalg.det(basis))
        best = None
        trials = np.log10(n * (n - 1) * (n - 2) / 6 * len(_TOLERANCES_PX))
        for tolerance in _TOLERANCES_PX:
            share = np.pi * tolerance**2 / area
            if share > _MAX_COVERAGE:
                break
            inlier = _one_spot_per_node(nodes, miss, tolerance)
            # three spots are spent on origin and basis; every choice of three, and every tolerance, was a trial
            log_nfa = trials + _log_tail(np.count_nonzero(inlier) - 3, n - 3, share)
            if best is None or log_nfa < best.log_nfa:
                best = _Fit(origin, basis, tolerance, float(log_nfa), inlier, nodes)
        if best is None:
            return None
        fitted = _least_squares(rc, weight, nodes, best.inlier)
        if fitted is None:
            return best
        origin, basis = fitted
    return best


def _log_tail(k: int, n: int, p: float) -> float:
    """Return a bound of log10 P(at least k of n) for a binomial of probability p (Hoeffding 1963, doi:10.2307/2282952)."""
    if n <= 0 or k <= n * p:
        return 0.0
    rate = k / n
    other = 0.0 if k == n else (1 - rate) * np.log((1 - rate) / (1 - p))
    return -n * (rate * np.log(rate / p) + other) / np.log(10)


def _one_spot_per_node(nodes: np.ndarray, miss: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the spots within the tolerance, of several at a node only the nearest."""
    inlier = np.zeros(len(miss), bool)
    near = np.flatnonzero(miss <= tolerance)
    near = near[np.argsort(miss[near], kind="stable")]
    _, first = np.unique(nodes[near, 0] * 100003 + nodes[near, 1], return_index=True)
    inlier[near[first]] = True
    return inlier


def _refine_index(spots: SpotList, fit: _Fit) -> _Fit:
    """Go to a finer lattice where spots that were left out lie on its additional nodes, more than chance puts there.

    The number of false alarms alone would give up a few weak superlattice spots for a larger cell in direct space.
    """
    weight = _weights(spots)
    for _ in range(2):
        rest = ~fit.inlier
        area = abs(np.linalg.det(fit.basis))
        miss = np.linalg.norm(spots.rc - fit.origin - fit.nodes @ fit.basis, axis=1)
        tolerance = float(np.clip(3 * np.sqrt(np.mean(miss[fit.inlier] ** 2)), 0.7, fit.tolerance + 0.2))
        best, best_log = None, -3.0
        for index, finer in _finer_lattices(fit.basis):
            if np.linalg.norm(reduce_basis(finer)[0]) < max(3 * spots.sigma_px, 4.0):
                continue
            nodes = np.round((spots.rc - fit.origin) @ np.linalg.inv(finer))
            on_node = np.linalg.norm(spots.rc - fit.origin - nodes @ finer, axis=1) <= tolerance
            hits = int(np.count_nonzero(on_node & rest))
            if hits < 2:
                continue
            share = min(0.99, (index - 1) * np.pi * tolerance**2 / area)
            log_p = binom.logsf(hits - 1, int(rest.sum()), share) / np.log(10) + np.log10(14)
            if log_p < best_log:
                best, best_log = finer, log_p
        if best is None:
            break
        finer_fit = _judge(spots.rc, weight, fit.origin, reduce_basis(best))
        if finer_fit is None:
            break
        fit = finer_fit
    return fit


def _without_unpaired_cosets(spots: SpotList, fit: _Fit) -> tuple[_Fit, np.ndarray]:
    """Go to a coarser lattice where the finer one only joins it to a shifted copy of itself.

    Spots of a higher-order Laue zone, or of a second crystal, repeat the net at a rational shift now and then; one
    finer lattice then fits both. A reciprocal lattice has with each node its inverse, so that a true finer lattice
    fills the cosets c and -c alike; a shifted copy fills only one of them.

    Returns
    -------
    _Fit, (n,) ndarray of bool
        The lattice to go on with, and the spots of the shifted copies.
    """
    nothing = np.zeros(len(spots), bool)
    weight = np.sqrt(spots.intensity)
    best, best_inside = None, 0.5
    for index in (3, 4, 5, 6):
        for a in (d for d in range(1, index + 1) if index % d == 0):
            for b in range(a):
                # rows of the sublattice basis in terms of the fine one (Hermite normal form)
                sub = np.array([[index // a, b], [0, a]])
                key = np.round((fit.nodes @ np.linalg.inv(sub) % 1.0) * index).astype(int) % index
                verdict = _coset_verdict(key, weight, fit.inlier, index)
                # of those that hold nearly the same spots, the coarsest
                if verdict is not None and verdict[0] > best_inside:
                    best, best_inside = (sub, verdict[1]), verdict[0] - 0.08
    if best is None:
        return fit, nothing
    sub, inside = best
    origin = spots.rc[inside][np.argmax(spots.intensity[inside])]
    coarse = _grow(spots.rc[inside], _weights(spots)[inside], reduce_basis(sub @ fit.basis), origin)
    if coarse is None or np.count_nonzero(coarse.inlier) < 0.8 * np.count_nonzero(inside):
        return fit, nothing
    nodes = np.round((spots.rc - coarse.origin) @ np.linalg.inv(coarse.basis)).astype(int)
    inlier = nothing.copy()
    inlier[np.flatnonzero(inside)[coarse.inlier]] = True
    return replace(coarse, nodes=nodes, inlier=inlier), fit.inlier & ~inside


def _coset_verdict(
    key: np.ndarray, weight: np.ndarray, inlier: np.ndarray, index: int
) -> tuple[float, np.ndarray] | None:
    """Return (share of the main coset, its spots) if the others have no inverse counterpart, else None."""
    number = key[:, 0] * index + key[:, 1]
    total = np.bincount(number[inlier], weight[inlier], index**2)
    main = int(np.argmax(total))
    share = total[main] / total.sum()
    others = np.flatnonzero(total > 0)
    others = others[others != main]
    inverse = [
        ((2 * (main // index) - c // index) % index) * index + (2 * (main % index) - c % index) % index
        for c in others
    ]
    unpaired = sum(max(0.0, total[c] - total[m]) for c, m in zip(others, inverse, strict=True))
    outside = total.sum() - total[main]
    count = np.count_nonzero(inlier & (number != main))
    if share < 0.5 or count < 4 or unpaired < 0.7 * outside:
        return None
    return float(share), inlier & (number == main)


def _finer_lattices(basis: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (index, basis) of all lattices that contain a lattice with index 2, 3 or 4."""
    found = []
    for index in (2, 3, 4):
        for a in (d for d in range(1, index + 1) if index % d == 0):
            for b in range(index // a):
                # Hermite normal forms: each sublattice of the finer lattice once
                found.append(
                    (index, np.linalg.inv(np.array([[a, b], [0, index // a]]).T.astype(float)) @ basis)
                )
    return found


def _explained(spots: SpotList, inlier: np.ndarray) -> float:
    """Return the share of the spots on the lattice, weighted by amplitude, the brightest counting no more than others."""
    weight = np.sqrt(spots.intensity)
    weight = np.minimum(weight, np.quantile(weight, 0.9))
    return float(weight[inlier].sum() / weight.sum())


def _subset(spots: SpotList, keep: np.ndarray) -> SpotList:
    """Return some of the spots."""
    return SpotList(spots.rc[keep], spots.intensity[keep], spots.snr[keep], spots.sigma_px)


def _refuse_without_lattice(spots: SpotList, fit: _Fit | None) -> None:
    """Raise the refusal that fits spots on which no significant lattice was found."""
    if len(spots) < 8:
        detail = f"{len(spots)} spots are too few to tell a lattice from chance"
        raise PatternRefusedError("too few spots", detail)
    chance = (
        "none was found" if fit is None else f"chance makes one as good with odds of 10^{fit.log_nfa:.1f}"
    )
    raise PatternRefusedError("no lattice", f"{len(spots)} spots lie on no common lattice ({chance})")


def _require_two_dimensions(fit: _Fit) -> None:
    """Refuse a lattice whose second vector hangs on one or two spots."""
    nodes = fit.nodes[fit.inlier]
    for direction in ((1, 0), (0, 1), (1, 1), (1, -1)):
        rows = nodes @ np.array([direction[1], -direction[0]])
        if len(np.unique(rows)) < 3:
            detail = f"the {len(nodes)} spots lie on {len(np.unique(rows))} row(s), a zone axis shows at least three"
            raise PatternRefusedError("off zone", detail)


def _result(spots: SpotList, fit: _Fit, beam: DirectBeam | None) -> SpotLattice:
    """Return the public result with reduced basis and covariance."""
    basis = reduce_basis(fit.basis)
    indices = np.round((spots.rc - fit.origin) @ np.linalg.inv(basis)).astype(int)
    weight = _weights(spots)
    use = fit.inlier
    fitted = _least_squares(spots.rc, weight, indices, use)
    origin, basis = (fit.origin, basis) if fitted is None else fitted
    miss = spots.rc - origin - indices @ basis
    rms = float(np.sqrt(np.mean(np.sum(miss[use] ** 2, axis=1))))
    lattice = SpotLattice(
        origin,
        basis[0],
        basis[1],
        _covariance(indices[use], weight[use], miss[use], basis),
        rms,
        spots,
        indices,
        use,
    )
    return move_origin(lattice, np.median(spots.rc[use], axis=0) if beam is None else beam.rc)


def _covariance(nodes: np.ndarray, weight: np.ndarray, miss: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the covariance of (g1_row, g1_col, g2_row, g2_col) [px^2]."""
    design = np.column_stack([np.ones(len(nodes)), nodes])
    freedom = max(1, 2 * len(nodes) - 6)
    # spots that scatter more than their statistics say make the whole fit less certain, never more
    excess = max(1.0, float((weight[:, None] * miss**2).sum()) / freedom)
    one = np.linalg.inv(design.T @ (weight[:, None] * design))[1:, 1:] * excess
    covariance = np.kron(one, np.eye(2))
    return covariance + np.diag(np.repeat((SYSTEMATIC_ERROR * np.linalg.norm(basis, axis=1)) ** 2, 2))
