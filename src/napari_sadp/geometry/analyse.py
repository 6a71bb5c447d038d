"""The whole way from a pattern to its lattice, or to an honest refusal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._checks import (
    doubts,
    require_likeness,
    require_occupancy,
    require_rows,
    require_zone,
    with_mask,
    with_weak_spots,
)
from napari_sadp.geometry._coarse import LEAST_SIGMA, LEAST_SPACING, coarse_factors, coarser, spots_of_frame
from napari_sadp.geometry._search import CERTAIN_LOG_NFA
from napari_sadp.geometry.background import PreparedImage, compressed, prepare_image
from napari_sadp.geometry.center import beam_beside_lattice, find_direct_beam
from napari_sadp.geometry.discs import disc_hypotheses
from napari_sadp.geometry.lattice import MIN_SPOTS, fit_lattice, move_origin
from napari_sadp.geometry.nodes import NodeMap, measure_nodes
from napari_sadp.geometry.refine import refine_lattice
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.geometry.rings import radial_features
from napari_sadp.geometry.spots import spot_hypotheses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.pattern import DiffractionPattern

_STRUCTURE = 6.0  # contrast of the background, in units of the noise of a pixel
_CLEAR_SNR = 12.0  # a few weak blobs may be faults of the camera
#: Largest logarithm of the number of false alarms of a lattice of spots that were looked for with less caution.
_BOLD_LOG_NFA = -4.0
#: Size of spots that may be discs [px].
_BROAD = 2.5
#: Share of the spots that a lattice beyond doubt holds.
_MOST_SPOTS = 0.7


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
        pattern = with_mask(pattern, mask)
    if pattern.kind == "image":
        raise PatternRefusedError(
            "image", "the file says that this is an image in real space, not a diffraction pattern"
        )
    _require_signal(pattern)
    prepared = prepare_image(pattern)
    spots = None
    try:
        lattice, beam = _lattice_and_beam(pattern, prepared, given, min_snr, min_explained)
        spots = lattice.spots
        lattice = with_weak_spots(prepared, refine_lattice(prepared, move_origin(lattice, beam.rc)))
        spots = lattice.spots
        require_zone(prepared, lattice, beam)
    except PatternRefusedError as error:
        _refuse(pattern, prepared, error.spots if spots is None else spots, given, error)
    if given is None:
        beam = DirectBeam(lattice.beam_rc.copy(), beam.score, beam.method)
    notes = (*pattern.notes, *prepared.notes, *doubts(lattice))
    found = PatternGeometry(pattern, beam, spots, lattice, prepared, notes)
    require_likeness(found)
    return found


def _find_lattice(
    prepared: PreparedImage, given: DirectBeam | None, min_snr: float, min_explained: float
) -> SpotLattice:
    """Return the lattice, from a copy in larger pixels where that is beyond doubt; a refusal holds the spots."""
    lattice = _lattice_in_copy(prepared, given, min_snr, min_explained)
    if lattice is not None and lattice.log_nfa <= CERTAIN_LOG_NFA:
        return lattice
    hypotheses = spot_hypotheses(prepared, min_snr=min_snr)
    try:
        other = _best_lattice(prepared, prepared, hypotheses, given, min_snr, min_explained)
    except PatternRefusedError as error:
        if lattice is None:
            error.spots = hypotheses[0]
            raise
        return lattice
    return other if lattice is None or other.log_nfa < lattice.log_nfa else lattice


def _lattice_and_beam(
    pattern: DiffractionPattern,
    prepared: PreparedImage,
    given: DirectBeam | None,
    min_snr: float,
    min_explained: float,
) -> tuple[SpotLattice, DirectBeam]:
    """Return lattice and direct beam; where the spots alone give no lattice, or one beside the beam, of those through the beam."""
    if given is not None:
        return _find_lattice(prepared, given, min_snr, min_explained), given
    try:
        lattice = _find_lattice(prepared, None, min_snr, min_explained)
    except PatternRefusedError as error:
        if len(error.spots) < MIN_SPOTS:
            raise
        beam = find_direct_beam(pattern, error.spots, prepared=prepared)
        through = _through(prepared, beam, min_snr, min_explained)
        if through is None:
            raise
        return through, beam
    beam = find_direct_beam(pattern, lattice.spots, method="lattice", lattice=lattice, prepared=prepared)
    beside = beam_beside_lattice(prepared, lattice, beam)
    through = None if beside is None else _through(prepared, beside, min_snr, min_explained)
    return (lattice, beam) if through is None else (through, beside)


def _through(
    prepared: PreparedImage, beam: DirectBeam, min_snr: float, min_explained: float
) -> SpotLattice | None:
    """Return a lattice through a direct beam that was found without one, None unless chance hardly makes one as good."""
    try:
        lattice = _find_lattice(prepared, beam, min_snr, min_explained)
    except PatternRefusedError:
        return None
    return lattice if lattice.log_nfa < _BOLD_LOG_NFA else None


def _lattice_in_copy(
    prepared: PreparedImage, given: DirectBeam | None, min_snr: float, min_explained: float
) -> SpotLattice | None:
    """Return the lattice from a copy in larger pixels, None unless its spots are large and chance hardly makes one as good."""
    for factor in coarse_factors(prepared.mask.shape):
        copy = coarser(prepared, factor)
        hypotheses = spot_hypotheses(copy, min_snr=min_snr)
        if hypotheses[0].sigma_px < LEAST_SIGMA:
            continue
        try:
            lattice = _best_lattice(prepared, copy, hypotheses, given, min_snr, min_explained)
        except PatternRefusedError:
            return None
        open_ = np.linalg.norm(lattice.g1_px) >= LEAST_SPACING * factor
        return lattice if open_ and lattice.log_nfa < _BOLD_LOG_NFA else None
    return None


def _best_lattice(
    prepared: PreparedImage,
    copy: PreparedImage,
    hypotheses: list[SpotList],
    given: DirectBeam | None,
    min_snr: float,
    min_explained: float,
) -> SpotLattice:
    """Return the lattice that chance explains worst, over the sizes that the spots of a copy, or of the pattern itself, may have.

    Where none is beyond doubt, spots are looked for with less caution too: lattices are rough themselves, and hide their
    weaker spots from a search that takes roughness for noise. There, and where the spots are broad, discs are looked for.
    """
    best, refusal = _most_certain(hypotheses, copy.binning, given, prepared, min_explained)
    doubt = best is None or best.log_nfa > CERTAIN_LOG_NFA or best.n_spots < _MOST_SPOTS * len(best.spots)
    broad = max(spots.sigma_px for spots in hypotheses) > _BROAD
    if doubt or broad:
        seen_in = compressed(copy)
        bold = disc_hypotheses(copy, seen_in, min_snr=min_snr)
        if doubt:
            bold += spot_hypotheses(copy, min_snr=min_snr, rough=False, seen_in=seen_in)
        other, _ = _most_certain(bold, copy.binning, given, prepared, min_explained)
        # more tries make more lattices by chance
        if other is not None and other.log_nfa < min(_BOLD_LOG_NFA, 0.0 if best is None else best.log_nfa):
            best = other
    if best is None:
        raise refusal
    return best


def _most_certain(
    hypotheses: list[SpotList],
    factor: int,
    given: DirectBeam | None,
    prepared: PreparedImage,
    min_explained: float,
) -> tuple[SpotLattice | None, PatternRefusedError | None]:
    """Return the lattice that chance explains worst, in the frame, and the first refusal."""
    best: SpotLattice | None = None
    refusal: PatternRefusedError | None = None
    for spots in hypotheses:
        try:
            in_frame = spots_of_frame(spots, factor)
            lattice = fit_lattice(
                in_frame, given, centre_rc=prepared.halo_rc, min_explained=min_explained, min_rows=2
            )
            require_rows(prepared, lattice)
            require_occupancy(prepared, lattice)
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
    # what lies on a lattice, though the wrong one, is neither rings nor speckle
    if polycrystal and reason != "off zone":
        radii = ", ".join(f"{radius:.0f}" for radius in np.sort(features.rings[:6]))
        reason, detail, beam = (
            "rings",
            f"closed rings of radius {radii} px, as a polycrystal makes them",
            centre,
        )
    elif reason != "off zone" and len(features.halos) and _are_speckle(spots, float(features.height[0])):
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
