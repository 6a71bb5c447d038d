"""What speaks against a lattice that was found: doubts to note, and reasons to refuse the pattern."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._meter import nodes_in_view
from napari_sadp.geometry._search import CERTAIN_LOG_NFA, MAX_BEAM_MISS
from napari_sadp.geometry.distortion import distortion_from_symmetry
from napari_sadp.geometry.lattice import (
    MIN_ROWS,
    across_rows,
    beam_beside,
    on_finer_basis,
    refit,
    too_few_rows,
)
from napari_sadp.geometry.nodes import friedel_agreement
from napari_sadp.geometry.refine import refine_lattice
from napari_sadp.geometry.superlattice import finer_basis, look_at_nodes

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import DirectBeam, SpotLattice
    from napari_sadp.pattern import DiffractionPattern

_MIN_OCCUPANCY, _LEAST_OCCUPANCY = 0.15, 0.06  # of any lattice, and of one that many spots confirm
_MAX_ASYMMETRY = 0.8
_MAX_PLANE_MISS, _MAX_PLANE_MISS_FULL = 0.15, 0.25  # of |g1|, without and with saturation
_MAX_OF_SIZE = 1.2  # over the size of a spot, with saturation
_FEW_SPOTS = 10
#: How far outside the frame a direct beam may lie that the user gives, over the longer lattice vector.
_FARTHEST_BEAM = 3.0
#: Root mean square of the elliptical distortion for which a stretch is pointed out, long over short axis minus 1.
_POSSIBLE_ELLIPTICITY = 0.03
#: Least correlation of the intensities of opposite spots, a common trend of their ratio across the pattern (a tilt) aside.
_MIN_AGREEMENT, _MIN_PAIRS = 0.2, 14
#: Signal to noise ratio of a weak spot beyond doubt, and how many of them another row needs.
_CLEAR_SCORE, _LEAST_SEEN = 6.0, 2
#: Spots of the shorter of two rows that are enough.
_LEAST_IN_ROW = 3


def with_mask(pattern: DiffractionPattern, mask: np.ndarray) -> DiffractionPattern:
    """Return the pattern with a mask of the user added to its own."""
    mask = np.asarray(mask)
    if mask.shape != pattern.shape:
        raise ValueError(f"mask has shape {mask.shape}, expected that of the pattern {pattern.shape}")
    mask = mask.astype(bool)
    return replace(pattern, mask=mask if pattern.mask is None else mask | pattern.mask)


def with_weak_spots(prepared: PreparedImage, lattice: SpotLattice) -> SpotLattice:
    """Return the lattice, refined, that holds spots too weak for the search as well."""
    distance = np.linalg.norm(lattice.spots.rc[lattice.indexed] - lattice.beam_rc, axis=1)
    basis = finer_basis(prepared, lattice, float(distance.max()) + 1)
    if basis is None:
        return lattice
    finer = refit(lattice, basis)
    # a spot may be too far from its node for a net so fine, if there were nothing but places
    finer = on_finer_basis(lattice, basis) if finer is None else finer
    # the spots are where they are; how much each counts, and the distortion, are found anew
    return refine_lattice(prepared, finer, move=False)


def require_rows(prepared: PreparedImage, lattice: SpotLattice) -> None:
    """Refuse a lattice whose spots lie on two rows, unless both are beyond doubt, or weak spots show on others."""
    nodes = lattice.indices[lattice.indexed]
    across = across_rows(nodes)
    rows, count = np.unique(nodes @ across, return_counts=True)
    if len(rows) >= MIN_ROWS or (count.min() >= _LEAST_IN_ROW and lattice.log_nfa < CERTAIN_LOG_NFA):
        return
    basis, shape = np.stack([lattice.g1_px, lattice.g2_px]), prepared.mask.shape
    middle = lattice.spots.rc[lattice.indexed].mean(axis=0)
    reach = np.linalg.norm(lattice.spots.rc[lattice.indexed] - middle, axis=1).max()
    reach += np.linalg.norm(basis[1])  # the next row may be farther off than any spot of these
    others = nodes_in_view(lattice.beam_rc, basis, shape)
    others = others[~np.isin(others @ across, rows)]
    others = others[np.linalg.norm(lattice.node_rc(others) - middle, axis=1) <= reach]
    score, at_node = look_at_nodes(prepared, lattice, others)
    seen = np.count_nonzero((score > _CLEAR_SCORE) & at_node)
    against = np.count_nonzero((score > _CLEAR_SCORE) & ~at_node) + np.count_nonzero(score < -_CLEAR_SCORE)
    if seen < max(_LEAST_SEEN, against + 1):
        raise too_few_rows(len(rows), len(nodes))


def doubts(lattice: SpotLattice, shape: tuple[int, int], beam: DirectBeam) -> tuple[str, ...]:
    """Return notes on what makes the lattice, or its direct beam, in a frame of a shape less certain."""
    notes = []
    if beam.method != "given" and not np.all((beam.rc >= 0) & (beam.rc <= np.array(shape) - 1)):
        notes.append(
            f"the direct beam seems to lie outside the frame, at row {beam.rc[0]:.0f}, column {beam.rc[1]:.0f}: give it if you know it"
        )
    n, total = lattice.n_spots, len(lattice.spots)
    if total - n >= max(3, 0.15 * total):
        notes.append(
            f"{total - n} of {total} spots lie on no node: a second grain or twin, or a higher-order Laue zone"
        )
    if n < _FEW_SPOTS:
        notes.append(f"only {n} spots fix the lattice: low confidence")
    chances = lattice.type_probabilities(ellipticity=_POSSIBLE_ELLIPTICITY)
    for kind, name in (("A", "square"), ("C", "hexagonal")):
        if chances[kind] > 0.5:
            found = distortion_from_symmetry(lattice, kind)
            if found.ellipticity > 3 * found.error:
                notes.append(
                    f"if the lattice is {name}, the pattern is stretched by {100 * found.ellipticity:.1f} % "
                    f"(± {100 * found.error:.1f}) along {found.azimuth_deg:.0f} deg"
                )
    return tuple(notes)


def require_zone(prepared: PreparedImage, lattice: SpotLattice, beam: DirectBeam) -> None:
    """Refuse lattices that are hardly filled or filled on one side of the beam only: tilted off the zone axis."""
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    if beam.method == "given":
        outside = np.maximum(np.maximum(-beam.rc, beam.rc - (np.array(prepared.mask.shape) - 1)), 0)
        if np.linalg.norm(outside) > _FARTHEST_BEAM * np.linalg.norm(basis[1]):
            detail = (
                f"the given beam lies {np.linalg.norm(outside):.0f} px outside the frame, expected at most "
                f"{_FARTHEST_BEAM * np.linalg.norm(basis[1]):.0f}, three of the longer lattice vectors"
            )
            raise PatternRefusedError("no lattice", detail)
        miss = np.linalg.norm(beam.rc - lattice.beam_rc) / np.linalg.norm(basis[0])
        if miss > MAX_BEAM_MISS:
            raise beam_beside(float(miss))
    else:
        _require_beam_in_plane(prepared, lattice, beam)
    use = lattice.indexed & np.any(lattice.indices != 0, axis=1)
    vectors = lattice.indices[use] @ basis
    mirror = lattice.beam_rc - vectors
    shape = np.array(prepared.mask.shape)
    seen = np.all((mirror > 0) & (mirror < shape - 1), axis=1)
    pixel = np.clip(np.round(mirror), 0, shape - 1).astype(int)
    seen &= ~prepared.mask[pixel[:, 0], pixel[:, 1]]
    weight = np.sqrt(lattice.spots.intensity[use]) * seen
    if np.count_nonzero(seen) >= 4:
        moment = np.linalg.norm(weight @ vectors) / (weight @ np.linalg.norm(vectors, axis=1))
        if moment > _MAX_ASYMMETRY:
            detail = f"the spots lie on one side of the direct beam (asymmetry {moment:.2f}, at most {_MAX_ASYMMETRY})"
            raise PatternRefusedError("off zone", detail)
    require_occupancy(prepared, lattice)


def require_likeness(found: PatternGeometry) -> None:
    """Refuse a pattern whose opposite spots do not resemble each other."""
    agreement, n_pairs = friedel_agreement(found.nodes, found.lattice)
    if n_pairs >= _MIN_PAIRS and agreement < _MIN_AGREEMENT:
        detail = (
            f"opposite spots do not resemble each other (agreement {agreement:.2f} of {n_pairs} pairs, at least "
            f"{_MIN_AGREEMENT}), as they do near a zone axis"
        )
        raise PatternRefusedError("off zone", detail, beam=found.beam, spots=found.spots)


def _require_beam_in_plane(prepared: PreparedImage, lattice: SpotLattice, beam: DirectBeam) -> None:
    """Refuse a net that passes beside the visible direct beam.

    On a zone axis the zero-order Laue zone holds the origin. Off the axis, the spots may be a slice of reciprocal space that
    does not: a net with its own periods, shifted against the direct beam.
    """
    distance = np.linalg.norm(lattice.spots.rc - beam.rc, axis=1)
    nearest = int(np.argmin(distance))
    # its spot was measured anew since
    visible = distance[nearest] < 0.5 * lattice.spots.sigma_px + 0.5 and lattice.spots.intensity[
        nearest
    ] >= np.quantile(lattice.spots.intensity, 0.9)
    miss = float(np.linalg.norm(beam.rc - lattice.beam_rc))
    spacing = float(np.linalg.norm(lattice.g1_px))
    # the middle of a plateau of full pixels, with what it spilt, is not quite the middle of the beam; beside discs that touch it
    # it is hardly known
    full = prepared.saturated
    allowed = max(
        (_MAX_PLANE_MISS_FULL if full else _MAX_PLANE_MISS) * spacing,
        _MAX_OF_SIZE * lattice.spots.sigma_px if full else 0.0,
    )
    if visible and beam.score > 0.8 and miss > max(2.0, 5 * lattice.rms_px, allowed):
        detail = f"the net of the spots passes {miss:.1f} px beside the direct beam ({miss / spacing:.2f} of a spacing)"
        raise PatternRefusedError("off zone", detail)


def require_occupancy(prepared: PreparedImage, lattice: SpotLattice) -> None:
    """Refuse lattices that are hardly filled: few spots lie on one by chance if it is fine enough."""
    occupancy = _occupancy(prepared, lattice)
    beyond_doubt = lattice.log_nfa < 2 * CERTAIN_LOG_NFA
    if occupancy < (_LEAST_OCCUPANCY if beyond_doubt else _MIN_OCCUPANCY):
        detail = f"only {100 * occupancy:.0f} % of the lattice nodes in the area of the spots carry a spot"
        raise PatternRefusedError("no lattice", detail)


def _occupancy(prepared: PreparedImage, lattice: SpotLattice) -> float:
    """Return the share of visible nodes that carry a spot, within the distance that holds three quarters of the spots."""
    distance = np.linalg.norm(lattice.spots.rc[lattice.indexed] - lattice.beam_rc, axis=1)
    reach = float(np.quantile(distance, 0.75)) + 1e-6
    step = int(np.ceil(2 * reach / np.linalg.norm(lattice.g1_px))) + 1
    m, n = (axis.ravel() for axis in np.meshgrid(np.arange(-step, step + 1), np.arange(-step, step + 1)))
    nodes = lattice.node_rc(np.column_stack([m, n]))
    shape = np.array(prepared.mask.shape)
    inside = np.all((nodes >= 2) & (nodes <= shape - 3), axis=1)
    inside &= np.linalg.norm(nodes - lattice.beam_rc, axis=1) <= reach + 1
    nodes = np.round(nodes[inside]).astype(int)
    live = ~prepared.mask[nodes[:, 0], nodes[:, 1]]
    return float(np.count_nonzero(distance <= reach) / max(1, np.count_nonzero(live)))
