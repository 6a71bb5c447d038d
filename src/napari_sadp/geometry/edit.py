"""What a user changes in an analysed pattern, and the analysis that follows from it.

The word of the user counts: a beam, a lattice or a mask that was given is not searched for again, and a spot that was deleted is
neither fitted nor measured. What was not given is found as `analyse_pattern` finds it, with the same refusals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._checks import (
    doubts,
    require_likeness,
    require_zone,
    with_mask,
    with_weak_spots,
)
from napari_sadp.geometry._finder import SpotsGiven
from napari_sadp.geometry._search import grow, one_spot_per_node, reduce_basis, weights
from napari_sadp.geometry.analyse import PatternGeometry, analyse_pattern, lattice_and_beam
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.center import find_direct_beam
from napari_sadp.geometry.lattice import SYSTEMATIC_ERROR, move_origin, refit
from napari_sadp.geometry.refine import refine_lattice
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.geometry.spots import find_spots, integrate_spots, spot_centroids

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.pattern import DiffractionPattern

_SHORTEST_PX = 4.0  # shorter vectors are not told from the grid of the pixels
_REMOVED_SIGMAS = 3.0  # radius around a deleted spot that counts as not known, in its standard deviations
_ON_NODE = 0.15  # of |g1|: spots nearer to a node of a given lattice belong to it
_SAME_VECTOR = 0.2  # of a vector: farther from what was given, the fit is another lattice
_LEAST_INDEXED = 5  # fewer spots do not improve on vectors that were given


@dataclass(frozen=True, eq=False)
class Edits:
    """What the user gave; None everywhere is an analysis without a user.

    Parameters
    ----------
    beam_rc : (2,) ndarray of float64, optional
        Direct beam (row, col) [px].
    mask : (n_rows, n_cols) ndarray of bool, optional
        True where the data mean nothing.
    spots : SpotList, optional
        All spots, in place of those that a search would find. Rows with an intensity of nan were added by hand: they are moved to
        the nearest maximum and measured.
    removed_rc : (n, 2) ndarray of float64, optional
        Where the user deleted spots (row, col) [px]. Nodes there become unknown, not absent: something is there, but it is not of
        this crystal.
    basis_px : (2, 2) ndarray of float64, optional
        Lattice vectors (rows) from the beam [px]; needs `beam_rc`. They are refined on the spots, but no other lattice is looked for.

    Raises
    ------
    ValueError
        If something has the wrong shape, is not finite, or a basis comes without a beam.
    """

    beam_rc: np.ndarray | None = None
    mask: np.ndarray | None = None
    spots: SpotList | None = None
    removed_rc: np.ndarray | None = None
    basis_px: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, shape in (("beam_rc", (2,)), ("basis_px", (2, 2)), ("removed_rc", None)):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value, dtype=float)
            expected = (len(value), 2) if shape is None and value.ndim else shape
            if value.shape != expected or not np.isfinite(value).all():
                raise ValueError(
                    f"{name} is {value.tolist()}, expected finite numbers of shape {shape or '(n, 2)'}"
                )
            object.__setattr__(self, name, value)
        if self.basis_px is not None and self.beam_rc is None:
            raise ValueError("beam_rc is None, expected the position from which the vectors basis_px start")

    @property
    def any(self) -> bool:
        """Whether anything was given."""
        return any(
            value is not None
            for value in (self.beam_rc, self.mask, self.spots, self.removed_rc, self.basis_px)
        )


def analyse_edited(
    pattern: DiffractionPattern, edits: Edits, *, min_snr: float = 6.0, min_explained: float = 0.6
) -> PatternGeometry:
    """Analyse a pattern with what the user gave.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    edits : Edits
        What is given; the rest is found.
    min_snr : float
        Smallest signal to noise ratio of a spot that is found.
    min_explained : float
        Smallest share of the spots that must lie on one lattice that is found.

    Returns
    -------
    PatternGeometry
        The geometry; its notes say what the user gave.

    Raises
    ------
    PatternRefusedError
        If what is left is no single-crystal pattern with a two-dimensional lattice. A lattice that was given is refused only where its
        vectors span none.
    ValueError
        If a parameter is out of range or the mask has another shape.
    """
    if edits.spots is None and edits.removed_rc is None and edits.basis_px is None:
        try:
            found = analyse_pattern(
                pattern,
                beam_rc=edits.beam_rc,
                mask=edits.mask,
                min_snr=min_snr,
                min_explained=min_explained,
            )
        except PatternRefusedError as error:
            error.notes += _what_was_given(edits)
            raise
        return replace(found, notes=(*found.notes, *_what_was_given(edits)))
    if edits.mask is not None:
        pattern = with_mask(pattern, edits.mask)
    given = None if edits.beam_rc is None else DirectBeam(edits.beam_rc, 1.0, "given")
    prepared = prepare_image(pattern)
    spots = (
        find_spots(pattern, min_snr=min_snr, prepared=prepared)
        if edits.spots is None
        else measure_spots(prepared, edits.spots)
    )
    spots = replace(spots, gain=prepared.counting_gain)
    removed = np.zeros((0, 2)) if edits.removed_rc is None else edits.removed_rc
    prepared = without_places(prepared, removed, spots)
    spots = _outside_mask(spots, prepared.mask)
    beam = given
    try:
        if edits.basis_px is not None:
            lattice = lattice_from_basis(
                spots, edits.beam_rc, edits.basis_px, prepared=prepared, move=edits.spots is None
            )
        else:
            # with the same ways out as without a user: a lattice may be known by the direct beam alone
            lattice, beam = lattice_and_beam(pattern, SpotsGiven(prepared, spots, min_explained), given)
            lattice = refine_lattice(prepared, move_origin(lattice, beam.rc), move=edits.spots is None)
            lattice = with_weak_spots(prepared, lattice)
            require_zone(prepared, lattice, beam)
    except PatternRefusedError as error:
        beam = beam or find_direct_beam(pattern, spots, prepared=prepared)
        notes = (*prepared.notes, *_what_was_given(edits))
        raise PatternRefusedError(
            error.reason, error.detail, beam=beam, spots=spots, notes=notes, mask=prepared.mask
        ) from error
    if given is None:
        beam = DirectBeam(lattice.beam_rc.copy(), beam.score, beam.method)
    notes = (
        *pattern.notes,
        *prepared.notes,
        *doubts(lattice, prepared.mask.shape, beam),
        *_what_was_given(edits),
    )
    found = PatternGeometry(pattern, beam, lattice.spots, lattice, prepared, notes)
    if edits.basis_px is None:
        require_likeness(found)
    return found


def lattice_from_basis(
    spots: SpotList,
    beam_rc: np.ndarray,
    basis_px: np.ndarray,
    *,
    prepared: PreparedImage | None = None,
    move: bool = False,
) -> SpotLattice:
    """Return the lattice that given vectors span, refined on the spots that lie on it.

    Parameters
    ----------
    spots : SpotList
        All spots.
    beam_rc : (2,) ndarray of float
        Node (0, 0), (row, col) [px].
    basis_px : (2, 2) ndarray of float
        Rows are the vectors [px]; good to a tenth of the shortest or better.
    prepared : PreparedImage, optional
        The pattern, to find how much each spot counts; without it, by its signal to noise ratio.
    move : bool
        Whether spots go where their profile fits the pattern, see `refine_lattice`; not those that a user placed.

    Returns
    -------
    SpotLattice
        Reduced. Where the spots do not fix it, it is what was given, with the uncertainty of a hand that placed the vectors to
        about the size of a spot; `log_nfa` is nan, since nobody counted what chance would make.

    Raises
    ------
    PatternRefusedError
        If the vectors are too short, or span no lattice.
    """
    given = np.asarray(basis_px, dtype=float)
    reduced = reduce_basis(given)
    lengths = np.linalg.norm(reduced, axis=1)
    if lengths[0] < _SHORTEST_PX or abs(np.linalg.det(reduced)) < 0.2 * lengths[0] * lengths[1]:
        detail = (
            f"the given vectors {np.round(given, 1).tolist()} px span no lattice: they lie on one line, or are shorter than "
            f"{_SHORTEST_PX:g} px"
        )
        raise PatternRefusedError("no lattice", detail)
    start = _as_given(spots, np.asarray(beam_rc, dtype=float), reduced)
    if len(spots) < _LEAST_INDEXED:
        return start
    grown = grow(spots.rc, weights(spots), reduced, start.beam_rc)
    if grown is None:
        return start
    nobody = replace(start, beam_rc=grown.origin, indexed=np.zeros(len(spots), bool))
    fitted = refit(nobody, grown.basis)
    if fitted is None or fitted.n_spots < _LEAST_INDEXED:
        return start
    fitted = move_origin(fitted, start.beam_rc)
    basis = np.stack([fitted.g1_px, fitted.g2_px])
    steps = given @ np.linalg.inv(basis)
    far = np.abs(steps - np.round(steps)).max() > _SAME_VECTOR
    moved = np.linalg.norm(fitted.beam_rc - start.beam_rc) > 2 * _SAME_VECTOR * lengths[0]
    if far or moved or abs(round(np.linalg.det(np.round(steps)))) != 1:
        return start
    if prepared is not None:
        fitted = refine_lattice(prepared, fitted, move=move)
    return replace(fitted, log_nfa=float("nan"))


def measure_spots(prepared: PreparedImage, spots: SpotList) -> SpotList:
    """Return spots with those measured that have no intensity yet.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    spots : SpotList
        Rows with an intensity of nan were placed by hand.

    Returns
    -------
    SpotList
        Those rows moved to the centroid of what is there, within about the size of a spot, with intensity and signal to noise ratio, which
        are at least that of the noise; all others as they are.
    """
    new = ~np.isfinite(spots.intensity)
    if not new.any():
        return spots
    shape, sigma = np.array(prepared.mask.shape), spots.sigma_px
    rc, intensity, snr = spots.rc.copy(), spots.intensity.copy(), spots.snr.copy()
    placed = np.clip(rc[new], 0, shape - 1)
    rc[new] = np.clip(spot_centroids(prepared.signal, prepared.mask, placed, sigma), 0, shape - 1)
    pixel = np.round(rc[new]).astype(int)
    # intensity of a Gaussian spot whose matched filter answers with the noise
    one = 2 * np.sqrt(np.pi) * sigma * np.maximum(prepared.noise[pixel[:, 0], pixel[:, 1]], 1e-12)
    intensity[new] = np.maximum(integrate_spots(prepared.signal, prepared.mask, rc[new], sigma), one)
    snr[new] = intensity[new] / one
    return replace(spots, rc=rc, intensity=intensity, snr=snr)


def without_places(prepared: PreparedImage, removed_rc: np.ndarray, kept: SpotList) -> PreparedImage:
    """Return a pattern with the surroundings of deleted spots masked, as far as they are not those of kept spots.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    removed_rc : (n, 2) ndarray of float
        Deleted spots [px].
    kept : SpotList
        The others. A deleted spot that touches one of them was replaced by it, and nothing is masked.

    Returns
    -------
    PreparedImage
        The same with a larger mask, and signal 0 under it.
    """
    radius = max(_REMOVED_SIGMAS * kept.sigma_px, 2.0)
    shape = prepared.mask.shape
    mask = prepared.mask.copy()
    for place in removed_rc:
        distance = np.linalg.norm(kept.rc - place, axis=1)
        if np.any(distance < radius):
            continue
        window = tuple(
            slice(max(0, int(x - radius)), max(0, min(n, int(x + radius) + 2)))
            for x, n in zip(place, shape, strict=True)
        )
        row, col = np.mgrid[window]
        own = np.hypot(row - place[0], col - place[1])
        for other in kept.rc[distance < 2 * radius + 2]:
            own = np.where(np.hypot(row - other[0], col - other[1]) <= own, np.inf, own)
        mask[window] |= own <= radius
    if np.array_equal(mask, prepared.mask):
        return prepared
    return replace(prepared, mask=mask, signal=np.where(mask, np.float32(0), prepared.signal))


def _as_given(spots: SpotList, beam_rc: np.ndarray, basis: np.ndarray) -> SpotLattice:
    """Return a lattice as it was given, with the spots that lie on it."""
    lengths = np.linalg.norm(basis, axis=1)
    indices = np.round((spots.rc - beam_rc) @ np.linalg.inv(basis)).astype(int).reshape(-1, 2)
    miss = np.linalg.norm(spots.rc - beam_rc - indices @ basis, axis=1)
    indexed = one_spot_per_node(indices, miss, min(_ON_NODE * lengths[0], 6.0))
    placed = np.repeat(spots.sigma_px**2 + (SYSTEMATIC_ERROR * lengths) ** 2, 2)
    rms = float(np.sqrt(np.mean(miss[indexed] ** 2))) if indexed.any() else 0.0
    return SpotLattice(beam_rc, basis[0], basis[1], np.diag(placed), rms, spots, indices, indexed)


def _outside_mask(spots: SpotList, mask: np.ndarray) -> SpotList:
    """Return the spots whose centre is on a live pixel."""
    pixel = np.clip(np.round(spots.rc), 0, np.array(mask.shape) - 1).astype(int)
    keep = ~mask[pixel[:, 0], pixel[:, 1]]
    return replace(spots, rc=spots.rc[keep], intensity=spots.intensity[keep], snr=spots.snr[keep])


def _what_was_given(edits: Edits) -> tuple[str, ...]:
    """Return notes on what the user gave."""
    notes = []
    if edits.mask is not None and np.any(edits.mask):
        notes.append(f"masked by the user: {100 * np.mean(edits.mask):.1f} % of the frame")
    if edits.beam_rc is not None:
        notes.append(f"direct beam given by the user at ({edits.beam_rc[0]:.1f}, {edits.beam_rc[1]:.1f}) px")
    if edits.removed_rc is not None and len(edits.removed_rc):
        notes.append(f"spots deleted by the user: {len(edits.removed_rc)}")
    if edits.spots is not None:
        added = int(np.count_nonzero(~np.isfinite(edits.spots.intensity)))
        notes += [f"spots added by the user: {added}"] if added else []
    if edits.basis_px is not None:
        notes.append("lattice vectors given by the user")
    return tuple(notes)
