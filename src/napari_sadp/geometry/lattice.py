"""Two-dimensional lattice of diffraction spots: search, test against chance, refinement, covariance.

Candidate vectors are differences between spots that occur often. Every pair of them is tried as a basis, refined by least
squares from the middle of the pattern outwards, and judged by the number of false alarms (Desolneux, Moisan & Morel
2000, doi:10.1023/A:1026593302236): how many lattices as good as this one chance would make from as many random spots.
Lattices finer than needed have more nodes, explain more by chance, and lose; lattices that are too coarse leave
spots unexplained, and lose too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._first_fit import RING, first_fit, refine_index, subset
from napari_sadp.geometry._search import (
    CERTAIN_LOG_NFA,
    MIN_SPOTS,
    Fit,
    beside_nodes,
    judge,
    least_squares,
    one_spot_per_node,
    reduce_basis,
    search,
    weights,
)
from napari_sadp.geometry._second_nets import without_copies, zero_order_net
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList

#: Relative error of a basis vector that no fit shows: residual ellipticity and distortion of the projector system.
SYSTEMATIC_ERROR = 0.005
#: Rows that a zone axis shows at least.
MIN_ROWS = 3
#: A spot as near as this to a node that was added, over the shortest vector, is taken for one of the lattice.
_BETWEEN = 0.1
#: A lattice as certain as `CERTAIN_LOG_NFA` may leave more spots to others, as long as they make no lattice half as certain.
_LEAST_EXPLAINED = 0.6
#: Products of a node with these count rows along the shortest directions.
_ACROSS = np.array([[0, -1], [1, 0], [1, -1], [-1, -1]])


def fit_lattice(
    spots: SpotList,
    beam: DirectBeam | None = None,
    *,
    centre_rc: np.ndarray | None = None,
    max_log_nfa: float = -2.0,
    min_explained: float = 0.6,
    min_rows: int = MIN_ROWS,
) -> SpotLattice:
    """Find and refine the lattice on which the spots lie.

    Parameters
    ----------
    spots : SpotList
        The spots; the direct beam may be among them or not.
    beam : DirectBeam, optional
        The direct beam, through which the lattice must go; node (0, 0) is the node nearest to it. The node nearest to the middle
        of the spots when None.
    centre_rc : (2,) ndarray of float, optional
        About where the direct beam is (row, col) [px], if `beam` is not known: spots near to it belong to the zero-order Laue
        zone, spots far from it may not. The brightest spots' middle when None.
    max_log_nfa : float
        Largest accepted decimal logarithm of the number of lattices as good as this one that random spots would make.
    min_explained : float
        Smallest share of the spots (weighted by the square root of their intensity) that must lie on the lattice; it is
        asked of the inner half of the spots, where others from higher-order Laue zones surround it.
    min_rows : int
        Rows, in any direction, that the spots must lie on at least; a zone axis shows three or more.

    Returns
    -------
    SpotLattice
        Reduced basis with covariance. The covariance holds the scatter of the spots and a systematic part of
        0.5 % of each vector (`SYSTEMATIC_ERROR`).

    Raises
    ------
    PatternRefusedError
        "too few spots", "no lattice", "off zone" (the spots lie on fewer than `min_rows`) or "several crystals".
    ValueError
        If a parameter is out of range.
    """
    min_explained = check_range("min_explained", min_explained, 0, 1)
    max_log_nfa = check_range("max_log_nfa", max_log_nfa, -1e4, 10)
    if len(spots) < MIN_SPOTS:
        raise PatternRefusedError(
            "too few spots", f"{len(spots)} spots, a lattice needs at least {MIN_SPOTS}"
        )
    middle = (
        _middle(spots)
        if centre_rc is None and beam is None
        else np.asarray(beam.rc if beam is not None else centre_rc, float)
    )
    distance = np.linalg.norm(spots.rc - middle, axis=1)
    fit = first_fit(spots, distance, max_log_nfa, None if beam is None else middle)
    if fit is None or fit.log_nfa > max_log_nfa:
        if beam is not None and beam.method == "given":
            # the user wants to know how far off it is
            beside = first_fit(spots, distance, max_log_nfa, None)
            if beside is not None and beside.log_nfa <= max_log_nfa:
                raise beam_beside(beside_nodes(middle, beside))
        _refuse_without_lattice(spots, fit)
    fit, copies = zero_order_net(spots, fit, middle)
    if not copies.any():
        reach = min(float(np.median(distance)), RING * float(distance[fit.inlier].max()))
        fit = refine_index(spots, fit, distance <= reach)
        fit, copies = without_copies(spots, fit, distance)
    explained = _explained_inside(spots, fit.inlier | copies, distance, min_explained)
    if explained < min_explained:
        rest = subset(spots, ~(fit.inlier | copies))
        other = search(rest) if len(rest) >= MIN_SPOTS else None
        second = other is not None and other.log_nfa < max_log_nfa
        rival = 0.0 if other is None else other.log_nfa
        weak_rest = fit.log_nfa < CERTAIN_LOG_NFA and rival > 0.5 * fit.log_nfa
        if not (weak_rest and explained >= _LEAST_EXPLAINED * min_explained):
            kind = "a second lattice" if second else "no one lattice"
            detail = f"the best lattice explains {100 * explained:.0f} % of the spots, {kind} the others"
            raise PatternRefusedError("several crystals" if second else "no lattice", detail)
    nodes = fit.nodes[fit.inlier]
    n_rows = len(np.unique(nodes @ across_rows(nodes)))
    if n_rows < min_rows:
        raise too_few_rows(n_rows, len(nodes))
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
        Copy with other `beam_rc` and `indices`, and no radial distortion, which was about another place; the same one where
        nothing moves.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    shift = np.round((np.asarray(rc, float) - lattice.beam_rc) @ np.linalg.inv(basis)).astype(int)
    if not shift.any():
        return lattice
    return replace(lattice, beam_rc=lattice.node_rc(shift), indices=lattice.indices - shift, radial_px2=0.0)


def refit(lattice: SpotLattice, basis: np.ndarray) -> SpotLattice | None:
    """Fit a lattice anew from a better guess of its basis, with the same origin and spots.

    Parameters
    ----------
    lattice : SpotLattice
        What was found.
    basis : (2, 2) ndarray of float
        Rows are the vectors [px].

    Returns
    -------
    SpotLattice or None
        None where the spots do not fix it.
    """
    found = refit_spots(lattice, np.ones(len(lattice.spots), bool), basis)
    return None if found is None or found.n_spots < lattice.n_spots else found


def on_finer_basis(lattice: SpotLattice, basis: np.ndarray) -> SpotLattice:
    """Return a lattice on a finer basis that holds it, and spots between its nodes that are as near to those of the finer one.

    Parameters
    ----------
    lattice : SpotLattice
        What was found.
    basis : (2, 2) ndarray of float
        Rows are the vectors [px], of which those of the lattice are whole combinations.

    Returns
    -------
    SpotLattice
        Its spots stay where they are, and stay its spots.
    """
    spots, use = lattice.spots, lattice.indexed
    basis = reduce_basis(basis)
    change = np.round(np.stack([lattice.g1_px, lattice.g2_px]) @ np.linalg.inv(basis)).astype(int)
    step = spots.rc - lattice.beam_rc
    nodes = np.round(step @ np.linalg.inv(basis)).astype(int)
    nodes[use] = lattice.indices[use] @ change
    miss = np.linalg.norm(step - nodes @ basis, axis=1)
    allowed = max(2 * lattice.rms_px, _BETWEEN * float(np.linalg.norm(basis[0])))
    more = one_spot_per_node(nodes, np.where(use, np.inf, miss), allowed)
    taken = {tuple(node) for node in nodes[use].tolist()}
    more &= np.array([tuple(node) not in taken for node in nodes.tolist()], dtype=bool)
    indexed = use | more
    weight, left = weights(spots)[indexed], (step - nodes @ basis)[indexed]
    return replace(
        lattice,
        g1_px=basis[0],
        g2_px=basis[1],
        covariance=covariance_of(nodes[indexed], weight, left, basis),
        rms_px=float(np.sqrt(np.mean(np.sum(left**2, axis=1)))),
        indices=nodes,
        indexed=indexed,
    )


def refit_spots(lattice: SpotLattice, keep: np.ndarray, basis: np.ndarray) -> SpotLattice | None:
    """Fit a lattice to some of its spots, from a guess of its basis and with the same origin.

    Parameters
    ----------
    lattice : SpotLattice
        What was found.
    keep : (n,) ndarray of bool
        Spots to go on with.
    basis : (2, 2) ndarray of float
        Rows are the vectors [px].

    Returns
    -------
    SpotLattice or None
        None where the spots do not fix it.
    """
    spots = subset(lattice.spots, keep)
    fit = judge(spots.rc, weights(spots), lattice.beam_rc, reduce_basis(basis)) if len(spots) >= 3 else None
    if fit is None or np.count_nonzero(fit.inlier) < 3:
        return None
    nodes = fit.nodes[fit.inlier]
    if np.linalg.matrix_rank(nodes - nodes[0]) < 2:
        return None
    return replace(_result(spots, fit, DirectBeam(lattice.beam_rc, 1.0, "lattice")), log_nfa=lattice.log_nfa)


def _middle(spots: SpotList) -> np.ndarray:
    """Return the median place of the brightest spots (2,) [px]."""
    return np.median(spots.rc[np.argsort(-spots.intensity, kind="stable")[:7]], axis=0)


def _explained(spots: SpotList, inlier: np.ndarray) -> float:
    """Return the share of the spots on the lattice, weighted by amplitude, the brightest counting no more than others."""
    weight = np.sqrt(spots.intensity)
    weight = np.minimum(weight, np.quantile(weight, 0.9))
    return float(weight[inlier].sum() / weight.sum())


def _explained_inside(spots: SpotList, inlier: np.ndarray, distance: np.ndarray, wanted: float) -> float:
    """Return the share of the spots on the lattice, of all or of the inner half where that is more than wanted."""
    whole = _explained(spots, inlier)
    if whole >= wanted or len(spots) < 12:
        return whole
    inner = distance <= np.median(distance)
    if np.count_nonzero(inner & inlier) < 6:
        return whole
    return _explained(subset(spots, inner), inlier[inner])


def _refuse_without_lattice(spots: SpotList, fit: Fit | None) -> None:
    """Raise the refusal that fits spots on which no significant lattice was found."""
    if len(spots) < 8:
        detail = f"{len(spots)} spots are too few to tell a lattice from chance"
        raise PatternRefusedError("too few spots", detail)
    chance = (
        "none was found" if fit is None else f"chance makes one as good with odds of 10^{fit.log_nfa:.1f}"
    )
    raise PatternRefusedError("no lattice", f"{len(spots)} spots lie on no common lattice ({chance})")


def across_rows(nodes: np.ndarray) -> np.ndarray:
    """Return the (2,) whose product with a node is the number of its row, in the direction in which nodes (n, 2) make the fewest."""
    return min(_ACROSS, key=lambda across: len(np.unique(nodes @ across)))


def too_few_rows(n_rows: int, n_spots: int) -> PatternRefusedError:
    """Return the refusal of a lattice whose second vector hangs on one or two spots."""
    detail = f"the {n_spots} spots lie on {n_rows} row(s), a zone axis shows at least three"
    return PatternRefusedError("off zone", detail)


def beam_beside(miss: float) -> PatternRefusedError:
    """Return the refusal of a lattice that passes a given beam at a distance, over the shortest vector."""
    detail = f"the given beam lies {miss:.2f} of the shortest spacing away from the nearest node"
    return PatternRefusedError("no lattice", detail)


def _result(spots: SpotList, fit: Fit, beam: DirectBeam | None) -> SpotLattice:
    """Return the public result with reduced basis and covariance."""
    basis = reduce_basis(fit.basis)
    indices = np.round((spots.rc - fit.origin) @ np.linalg.inv(basis)).astype(int)
    weight = weights(spots)
    use = fit.inlier
    fitted = least_squares(spots.rc, weight, indices, use)
    origin, basis = (fit.origin, basis) if fitted is None else fitted
    miss = spots.rc - origin - indices @ basis
    rms = float(np.sqrt(np.mean(np.sum(miss[use] ** 2, axis=1))))
    lattice = SpotLattice(
        origin,
        basis[0],
        basis[1],
        covariance_of(indices[use], weight[use], miss[use], basis),
        rms,
        spots,
        indices,
        use,
        fit.log_nfa,
    )
    return move_origin(lattice, np.median(spots.rc[use], axis=0) if beam is None else beam.rc)


def covariance_of(nodes: np.ndarray, weight: np.ndarray, miss: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the covariance of (g1_row, g1_col, g2_row, g2_col) [px^2].

    What a radial distortion leaves open is part of the systematic error.
    """
    design = np.column_stack([np.ones(len(nodes)), nodes])
    freedom = max(1, 2 * len(nodes) - 6)
    # spots that scatter more than their statistics say make the whole fit less certain, never more
    excess = max(1.0, float((weight[:, None] * miss**2).sum()) / freedom)
    one = np.linalg.inv(design.T @ (weight[:, None] * design))[1:, 1:] * excess
    covariance = np.kron(one, np.eye(2))
    return covariance + np.diag(np.repeat((SYSTEMATIC_ERROR * np.linalg.norm(basis, axis=1)) ** 2, 2))
