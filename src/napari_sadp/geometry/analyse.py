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
    require_zone,
    with_mask,
    with_weak_spots,
)
from napari_sadp.geometry._finder import Finder, LatticeFinder
from napari_sadp.geometry.background import PreparedImage, prepare_image
from napari_sadp.geometry.center import beam_beside_lattice, find_direct_beam
from napari_sadp.geometry.lattice import MIN_SPOTS, move_origin
from napari_sadp.geometry.nodes import NodeMap, measure_nodes
from napari_sadp.geometry.refine import refine_lattice
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.geometry.rings import radial_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.pattern import DiffractionPattern

_STRUCTURE = 6.0  # contrast of the background, in units of the noise of a pixel
_SAME_PLACE = 3.0  # [px]: no other direct beam
_CLEAR_SNR = 12.0  # a few weak blobs may be faults of the camera


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
        The direct beam (row, col) [px], if the user knows it: the lattice must go through it.
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
        lattice, beam = lattice_and_beam(pattern, LatticeFinder(prepared, min_snr, min_explained), given)
        spots = lattice.spots
        lattice = with_weak_spots(prepared, refine_lattice(prepared, move_origin(lattice, beam.rc)))
        spots = lattice.spots
        require_zone(prepared, lattice, beam)
    except PatternRefusedError as error:
        _refuse(pattern, prepared, error.spots if spots is None else spots, given, error)
    if given is None:
        beam = DirectBeam(lattice.beam_rc.copy(), beam.score, beam.method)
    notes = (*pattern.notes, *prepared.notes, *doubts(lattice, prepared.mask.shape, beam))
    found = PatternGeometry(pattern, beam, spots, lattice, prepared, notes)
    try:
        require_likeness(found)
    except PatternRefusedError as error:
        error.notes, error.mask = prepared.notes, prepared.mask
        raise
    return found


def lattice_and_beam(
    pattern: DiffractionPattern, finder: Finder, given: DirectBeam | None
) -> tuple[SpotLattice, DirectBeam]:
    """Return lattice and direct beam; where the spots alone give no lattice, or one beside the beam, of those through the beam.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    finder : Finder
        Its spots.
    given : DirectBeam or None
        The direct beam, if the user knows it.

    Returns
    -------
    lattice : SpotLattice
        Not yet refined.
    beam : DirectBeam
        That of the user, or the one that was found.

    Raises
    ------
    PatternRefusedError
        If there is no lattice; it holds the spots.
    """
    if given is not None:
        return finder.find(given), given
    prepared = finder.prepared
    try:
        lattice = finder.find()
    except PatternRefusedError as error:
        if finder.most_spots < MIN_SPOTS:
            raise
        found = [
            (finder.through(beam, alone=True), beam)
            for beam in _beams_without_lattice(pattern, prepared, error.spots)
        ]
        found = [(lattice, beam) for lattice, beam in found if lattice is not None]
        if not found:
            raise
        return min(found, key=lambda pair: pair[0].log_nfa)
    beam = find_direct_beam(pattern, lattice.spots, method="lattice", lattice=lattice, prepared=prepared)
    beside = beam_beside_lattice(prepared, lattice, beam)
    through = None if beside is None else finder.through(beside, alone=False)
    return (lattice, beam) if through is None else (through, beside)


def _beams_without_lattice(
    pattern: DiffractionPattern, prepared: PreparedImage, spots: SpotList
) -> list[DirectBeam]:
    """Return where the direct beam may be by bright spots, inversion and halo, each place once."""
    beams = [
        find_direct_beam(pattern, spots, method=method, prepared=prepared) for method in ("auto", "inversion")
    ]
    if prepared.halo_rc is not None:
        beams.append(DirectBeam(prepared.halo_rc, beams[0].score, "auto"))
    return [
        beam
        for k, beam in enumerate(beams)
        if all(np.linalg.norm(beam.rc - other.rc) > _SAME_PLACE for other in beams[:k])
    ]


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
    raise PatternRefusedError(
        reason, detail, beam=beam, spots=spots, notes=prepared.notes, mask=prepared.mask
    ) from error


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
