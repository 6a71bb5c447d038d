"""The whole way from a pattern to its lattice, or to an honest refusal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._search import CERTAIN_LOG_NFA
from napari_sadp.geometry.background import PreparedImage, compressed, prepare_image
from napari_sadp.geometry.center import find_direct_beam
from napari_sadp.geometry.discs import disc_hypotheses
from napari_sadp.geometry.distortion import distortion_from_symmetry
from napari_sadp.geometry.lattice import MIN_SPOTS, fit_lattice, move_origin, refit
from napari_sadp.geometry.nodes import NodeMap, friedel_agreement, measure_nodes
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.geometry.rings import radial_features
from napari_sadp.geometry.spots import spot_hypotheses
from napari_sadp.geometry.superlattice import finer_basis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.pattern import DiffractionPattern

_MIN_OCCUPANCY, _LEAST_OCCUPANCY = 0.15, 0.06  # of any lattice, and of one that many spots confirm
_MAX_ASYMMETRY = 0.8
_STRUCTURE = 6.0  # contrast of the background, in units of the noise of a pixel
_CLEAR_SNR = 12.0  # a few weak blobs may be faults of the camera
_MAX_PLANE_MISS, _MAX_PLANE_MISS_FULL = 0.15, 0.25  # of |g1|, without and with saturation
_FEW_SPOTS = 10
#: Largest logarithm of the number of false alarms of a lattice of spots that were looked for with less caution.
_BOLD_LOG_NFA = -4.0
#: Size of spots that may be discs [px].
_BROAD = 2.5
#: Share of the spots that a lattice beyond doubt holds.
_MOST_SPOTS = 0.7
#: Least correlation of the intensities of opposite spots, a common trend of their ratio across the pattern (a tilt) aside.
_MIN_AGREEMENT, _MIN_PAIRS = 0.15, 14
_MAX_BEAM_MISS = 0.3  # of |g1|: a given beam farther from every node contradicts the lattice


@dataclass(frozen=True, eq=False)
class PatternGeometry:
    """Where beam, spots and lattice of a pattern are.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern analysed.
    beam : DirectBeam
        Direct beam, refined to its lattice node.
    spots : SpotList
        All spots.
    lattice : SpotLattice
        Reduced lattice with the beam as origin.
    prepared : PreparedImage
        The pattern with mask, background and noise.
    notes : tuple of str
        Notes of the pattern and of each step.
    """

    pattern: DiffractionPattern
    beam: DirectBeam
    spots: SpotList
    lattice: SpotLattice
    prepared: PreparedImage
    notes: tuple[str, ...]

    @property
    def image(self) -> np.ndarray:
        """Intensity above the background, 0 under the mask (n_rows, n_cols) float32 [counts]."""
        return self.prepared.signal

    @property
    def mask(self) -> np.ndarray:
        """True where the data mean nothing (n_rows, n_cols) bool."""
        return self.prepared.mask

    @cached_property
    def nodes(self) -> NodeMap:
        """Every lattice node in view: present, absent or unknown."""
        return measure_nodes(self)


def analyse_pattern(
    pattern: DiffractionPattern,
    *,
    beam_rc: Sequence[float] | np.ndarray | None = None,
    mask: np.ndarray | None = None,
    min_snr: float = 6.0,
    min_explained: float = 0.6,
) -> PatternGeometry:
    """Find beam, spots and lattice of a pattern.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    beam_rc : sequence of 2 float, optional
        The direct beam (row, col) [px], if the user knows it.
    mask : (n_rows, n_cols) ndarray of bool, optional
        True where the user knows that the data mean nothing; added to the mask of the pattern and to what is found.
    min_snr : float
        Smallest signal to noise ratio of a spot.
    min_explained : float
        Smallest share of the spots that must lie on one lattice.

    Returns
    -------
    PatternGeometry
        The geometry.

    Raises
    ------
    PatternRefusedError
        If the pattern is no single-crystal pattern with a two-dimensional lattice; the error carries the reason,
        and the beam and spots found until then.
    ValueError
        If a parameter is out of range.
    """
    min_snr = check_range("min_snr", min_snr, 1, 1e6)
    given = None if beam_rc is None else _check_beam(beam_rc)
    if mask is not None:
        pattern = _with_mask(pattern, mask)
    if pattern.kind == "image":
        raise PatternRefusedError(
            "image", "the file says that this is an image in real space, not a diffraction pattern"
        )
    _require_signal(pattern)
    prepared = prepare_image(pattern)
    hypotheses = spot_hypotheses(prepared, min_snr=min_snr)
    spots = hypotheses[0]
    try:
        lattice = _best_lattice(prepared, hypotheses, given, min_snr, min_explained)
        spots = lattice.spots
        beam = given or find_direct_beam(pattern, spots, method="lattice", lattice=lattice, prepared=prepared)
        lattice = _with_weak_spots(prepared, move_origin(lattice, beam.rc))
        _require_zone(prepared, lattice, beam)
    except PatternRefusedError as error:
        _refuse(pattern, prepared, spots, given, error)
    if given is None:
        beam = DirectBeam(lattice.beam_rc.copy(), beam.score, beam.method)
    notes = (*pattern.notes, *prepared.notes, *_doubts(lattice))
    found = PatternGeometry(pattern, beam, spots, lattice, prepared, notes)
    _require_likeness(found)
    return found


def _with_mask(pattern: DiffractionPattern, mask: np.ndarray) -> DiffractionPattern:
    """Return the pattern with a mask of the user added to its own."""
    mask = np.asarray(mask)
    if mask.shape != pattern.shape:
        raise ValueError(f"mask has shape {mask.shape}, expected that of the pattern {pattern.shape}")
    mask = mask.astype(bool)
    return replace(pattern, mask=mask if pattern.mask is None else mask | pattern.mask)


def _with_weak_spots(prepared: PreparedImage, lattice: SpotLattice) -> SpotLattice:
    """Return the lattice that holds spots too weak for the search as well."""
    distance = np.linalg.norm(lattice.spots.rc[lattice.indexed] - lattice.beam_rc, axis=1)
    basis = finer_basis(prepared, lattice, float(np.quantile(distance, 0.8)) + 1)
    finer = None if basis is None else refit(lattice, basis)
    return lattice if finer is None else finer


def _doubts(lattice: SpotLattice) -> tuple[str, ...]:
    """Return notes on what makes the lattice less certain."""
    notes = []
    n, total = lattice.n_spots, len(lattice.spots)
    if total - n >= max(3, 0.15 * total):
        notes.append(
            f"{total - n} of {total} spots lie on no node: a second grain or twin, or a higher-order Laue zone"
        )
    if n < _FEW_SPOTS:
        notes.append(f"only {n} spots fix the lattice: low confidence")
    chances = lattice.type_probabilities()
    for kind, name in (("A", "square"), ("C", "hexagonal")):
        if chances[kind] > 0.5:
            found = distortion_from_symmetry(lattice, kind)
            if found.ellipticity > 3 * found.error:
                notes.append(
                    f"if the lattice is {name}, the pattern is stretched by {100 * found.ellipticity:.1f} % "
                    f"(± {100 * found.error:.1f}) along {found.azimuth_deg:.0f} deg"
                )
    return tuple(notes)


def _best_lattice(
    prepared: PreparedImage,
    hypotheses: list[SpotList],
    given: DirectBeam | None,
    min_snr: float,
    min_explained: float,
) -> SpotLattice:
    """Return the lattice that chance explains worst, over the sizes that the spots may have.

    Where none is beyond doubt, spots are looked for with less caution too: lattices are rough themselves, and hide their
    weaker spots from a search that takes roughness for noise. There, and where the spots are broad, discs are looked for.
    """
    best, refusal = _most_certain(hypotheses, given, prepared, min_explained)
    doubt = best is None or best.log_nfa > CERTAIN_LOG_NFA or best.n_spots < _MOST_SPOTS * len(best.spots)
    broad = max(spots.sigma_px for spots in hypotheses) > _BROAD
    if doubt or broad:
        seen_in = compressed(prepared)
        bold = disc_hypotheses(prepared, seen_in, min_snr=min_snr)
        if doubt:
            bold += spot_hypotheses(prepared, min_snr=min_snr, rough=False, seen_in=seen_in)
        other, _ = _most_certain(bold, given, prepared, min_explained)
        # more tries make more lattices by chance
        if other is not None and other.log_nfa < min(_BOLD_LOG_NFA, 0.0 if best is None else best.log_nfa):
            best = other
    if best is None:
        raise refusal
    return best


def _most_certain(
    hypotheses: list[SpotList], given: DirectBeam | None, prepared: PreparedImage, min_explained: float
) -> tuple[SpotLattice | None, PatternRefusedError | None]:
    """Return the lattice that chance explains worst, and the first refusal."""
    best: SpotLattice | None = None
    refusal: PatternRefusedError | None = None
    for spots in hypotheses:
        try:
            lattice = fit_lattice(spots, given, centre_rc=prepared.halo_rc, min_explained=min_explained)
            _require_occupancy(prepared, lattice)
        except PatternRefusedError as error:
            refusal = refusal or error
        else:
            best = lattice if best is None or lattice.log_nfa < best.log_nfa else best
    return best, refusal


def _check_beam(beam_rc: Sequence[float] | np.ndarray) -> DirectBeam:
    """Return the beam that the user gave."""
    rc = np.asarray(beam_rc, dtype=float)
    if rc.shape != (2,) or not np.isfinite(rc).all():
        raise ValueError(f"beam_rc is {beam_rc!r}, expected two finite numbers (row, col) [px]")
    return DirectBeam(rc, 1.0, "given")


def _require_signal(pattern: DiffractionPattern) -> None:
    """Refuse frames that are too small, masked, or constant."""
    live = pattern.data if pattern.mask is None else pattern.data[~pattern.mask]
    if min(pattern.shape) < 24 or live.size < 256:
        raise PatternRefusedError(
            "empty", f"{live.size} live pixels in a frame of {pattern.shape}, too few to measure"
        )
    if np.ptp(live) == 0:
        raise PatternRefusedError("empty", f"every pixel holds the same value {live.flat[0]:g}")


def _require_zone(prepared: PreparedImage, lattice: SpotLattice, beam: DirectBeam) -> None:
    """Refuse lattices that are hardly filled or filled on one side of the beam only: tilted off the zone axis."""
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    if beam.method == "given":
        outside = np.maximum(np.maximum(-beam.rc, beam.rc - (np.array(prepared.mask.shape) - 1)), 0)
        if np.linalg.norm(outside) > np.linalg.norm(basis[1]):
            detail = f"the given beam lies {np.linalg.norm(outside):.0f} px outside the frame, farther than a lattice vector"
            raise PatternRefusedError("no lattice", detail)
        miss = np.linalg.norm(beam.rc - lattice.beam_rc) / np.linalg.norm(basis[0])
        if miss > _MAX_BEAM_MISS:
            detail = f"the given beam lies {miss:.2f} of the shortest spacing away from the nearest node"
            raise PatternRefusedError("no lattice", detail)
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
    _require_occupancy(prepared, lattice)


def _require_likeness(found: PatternGeometry) -> None:
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
    visible = distance[nearest] < 1e-6 and lattice.spots.intensity[nearest] >= np.quantile(
        lattice.spots.intensity, 0.9
    )
    miss = float(np.linalg.norm(beam.rc - lattice.beam_rc))
    spacing = float(np.linalg.norm(lattice.g1_px))
    # the middle of a plateau of full pixels, with what it spilt, is not quite the middle of the beam
    allowed = _MAX_PLANE_MISS_FULL if prepared.saturated else _MAX_PLANE_MISS
    if visible and beam.score > 0.8 and miss > max(2.0, 5 * lattice.rms_px, allowed * spacing):
        detail = f"the net of the spots passes {miss:.1f} px beside the direct beam ({miss / spacing:.2f} of a spacing)"
        raise PatternRefusedError("off zone", detail)


def _require_occupancy(prepared: PreparedImage, lattice: SpotLattice) -> None:
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


def _refuse(
    pattern: DiffractionPattern,
    prepared: PreparedImage,
    spots: SpotList,
    given: DirectBeam | None,
    error: PatternRefusedError,
) -> None:
    """Raise the refusal, with rings and halos told apart from mere disorder, and what was found attached."""
    beam = given or find_direct_beam(pattern, spots, prepared=prepared)
    centre = given or find_direct_beam(pattern, spots, method="inversion", prepared=prepared)
    reason, detail = error.reason, error.detail
    features = radial_features(prepared, centre)
    polycrystal = len(features.rings) >= 2 or (len(features.rings) == 1 and features.sharp[0])
    if polycrystal and reason != "off zone":
        radii = ", ".join(f"{radius:.0f}" for radius in np.sort(features.rings[:6]))
        reason, detail, beam = (
            "rings",
            f"closed rings of radius {radii} px, as a polycrystal makes them",
            centre,
        )
    elif len(features.halos) and _are_speckle(spots, float(features.height[0])):
        reason, detail, beam = (
            "amorphous",
            f"a broad halo of radius {features.halos[0]:.0f} px and no spots",
            centre,
        )
    elif len(spots) < MIN_SPOTS and not np.any(spots.snr > _CLEAR_SNR) and not _has_structure(prepared):
        reason, detail, beam = "empty", "no spots, rings or halos above the noise", None
    raise PatternRefusedError(reason, detail, beam=beam, spots=spots) from error


def _are_speckle(spots: SpotList, halo_height: float) -> bool:
    """Tell whether spots are no more than the roughness of a halo: most are below half of its height."""
    height = spots.intensity / (2 * np.pi * spots.sigma_px**2)
    return not len(spots) or bool(np.median(height) < 0.5 * halo_height)


def _has_structure(prepared: PreparedImage) -> bool:
    """Tell whether the diffuse background varies clearly more than the noise of a pixel: light reached the camera."""
    live = ~prepared.mask
    if not live.any():
        return False
    low, high = np.percentile(prepared.background[live], [1, 99])
    return bool(high - low > _STRUCTURE * np.median(prepared.noise[live]))
