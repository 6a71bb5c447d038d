"""The whole way from a pattern to its lattice, or to an honest refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.background import PreparedImage, prepare_image
from napari_sadp.geometry.center import find_direct_beam
from napari_sadp.geometry.lattice import fit_lattice, move_origin
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.geometry.rings import radial_features
from napari_sadp.geometry.spots import find_spots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.pattern import DiffractionPattern

_MIN_OCCUPANCY = 0.15
_MAX_ASYMMETRY = 0.55
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
    image : (n_rows, n_cols) ndarray of float32
        Intensity above the background, 0 under the mask [counts].
    mask : (n_rows, n_cols) ndarray of bool
        True where the data mean nothing.
    notes : tuple of str
        Notes of the pattern and of each step.
    """

    pattern: DiffractionPattern
    beam: DirectBeam
    spots: SpotList
    lattice: SpotLattice
    image: np.ndarray
    mask: np.ndarray
    notes: tuple[str, ...]


def analyse_pattern(
    pattern: DiffractionPattern,
    *,
    beam_rc: Sequence[float] | np.ndarray | None = None,
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
    if pattern.kind == "image":
        raise PatternRefusedError("image", "the file says that this is an image in real space, not a diffraction pattern")
    _require_signal(pattern)
    prepared = prepare_image(pattern)
    spots = find_spots(pattern, min_snr=min_snr, prepared=prepared)
    try:
        lattice = fit_lattice(spots, given, min_explained=min_explained)
        beam = given or find_direct_beam(pattern, spots, method="lattice", lattice=lattice, prepared=prepared)
        lattice = move_origin(lattice, beam.rc)
        _require_zone(prepared, lattice, beam)
    except PatternRefusedError as error:
        _refuse(pattern, prepared, spots, given, error)
    if given is None:
        beam = DirectBeam(lattice.beam_rc.copy(), beam.score, beam.method)
    notes = (*pattern.notes, *prepared.notes)
    return PatternGeometry(pattern, beam, spots, lattice, prepared.signal, prepared.mask, notes)


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
        raise PatternRefusedError("empty", f"{live.size} live pixels in a frame of {pattern.shape}, too few to measure")
    if np.ptp(live) == 0:
        raise PatternRefusedError("empty", f"every pixel holds the same value {live.flat[0]:g}")


def _require_zone(prepared: PreparedImage, lattice: SpotLattice, beam: DirectBeam) -> None:
    """Refuse lattices that are hardly filled or filled on one side of the beam only: tilted off the zone axis."""
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    if beam.method == "given":
        miss = np.linalg.norm(beam.rc - lattice.beam_rc) / np.linalg.norm(basis[0])
        if miss > _MAX_BEAM_MISS:
            detail = f"the given beam lies {miss:.2f} of the shortest spacing away from the nearest node"
            raise PatternRefusedError("no lattice", detail)
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
    occupancy = _occupancy(prepared, lattice)
    if occupancy < _MIN_OCCUPANCY:
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
    contrasted = _n_contrasted(prepared, spots)
    if len(features.rings) and (contrasted < 5 or reason != "off zone"):
        radii = ", ".join(f"{radius:.0f}" for radius in np.sort(features.rings[:6]))
        reason, detail, beam = "rings", f"closed rings of radius {radii} px, as a polycrystal makes them", centre
    elif len(features.halos) and contrasted < 5:
        reason, detail, beam = "amorphous", f"a broad halo of radius {features.halos[0]:.0f} px and no spots", centre
    elif not len(spots):
        reason, detail, beam = "empty", "no spots, rings or halos above the noise", None
    raise PatternRefusedError(reason, detail, beam=beam, spots=spots) from error


def _n_contrasted(prepared: PreparedImage, spots: SpotList) -> int:
    """Return how many spots stand out from the diffuse background under them, not only from its noise."""
    if not len(spots):
        return 0
    row, col = np.clip(np.round(spots.rc).astype(int), 0, np.array(prepared.mask.shape) - 1).T
    floor = float(np.percentile(prepared.background, 1))
    under = np.maximum(prepared.background[row, col] - floor, 3 * prepared.noise[row, col])
    return int(np.count_nonzero(prepared.signal[row, col] > 0.3 * under))
