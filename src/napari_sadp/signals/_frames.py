"""The functions that signal methods map over frames: one array in, one array out, no HyperSpy.

`Frame` holds what the signal's axes say, so that a map and `identify` see the same pattern: an image is refused, oblong pixels are
resampled, and positions are in px of the square frame. Everything here can be pickled: Dask sends it to its workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.conversions import convert_pattern
from napari_sadp.geometry.faint import without_faint
from napari_sadp.io._pixels import resample_square
from napari_sadp.pattern import DiffractionPattern, PatternKind
from napari_sadp.signals._properties import Measured, class_part, property_row

if TYPE_CHECKING:
    from napari_sadp.identify import PatternResult
    from napari_sadp.models.predict import Views

#: Columns of the lattice signal; a refused frame has nan everywhere but in n_spots.
LATTICE_COLUMNS: tuple[str, ...] = (
    "beam_row_px", "beam_col_px", "g1_row_px", "g1_col_px", "g2_row_px", "g2_col_px",
    "ratio", "angle_deg", "rms_px", "n_spots",
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What all frames of a signal have in common.

    Parameters
    ----------
    kind : {"diffraction", "image", "unknown"}
        What the axes say that the data are.
    scale : tuple of 2 float or None
        Size of oblong pixels along (row, col), None for square ones.
    pixel_size : float or None
        Size of a square pixel [1/Å], None when uncalibrated.
    find_covers : bool
        Whether beam stops, margins and bars are looked for.
    """

    kind: PatternKind
    scale: tuple[float, float] | None = None
    pixel_size: float | None = None
    find_covers: bool = True

    def pattern(self, data: np.ndarray, mask: np.ndarray | None) -> DiffractionPattern:
        """Return a frame (n_rows, n_cols), masked where `mask` is true, as the package's own value."""
        if mask is not None:
            mask = square_mask(np.asarray(mask, dtype=bool), self.scale)
        if self.scale is not None:
            data = resample_square(data, *self.scale)
        pattern = DiffractionPattern(data, pixel_size_inv_angstrom=self.pixel_size, mask=mask, kind=self.kind)
        return pattern if self.find_covers else pattern.with_given_covers()


def square_mask(mask: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """Return the mask of a stored frame (n_rows, n_cols) as one of its square pixels; they are those of the frame without a scale."""
    return mask if scale is None else resample_square(mask.astype(np.float32), *scale) > 0


def beam_or_none(beam_rc: np.ndarray | None) -> np.ndarray | None:
    """Return a given beam position, None where it is nan: a map of positions may have holes."""
    return None if beam_rc is None or np.isnan(beam_rc).any() else beam_rc


def lattice_row(
    data: np.ndarray,
    *,
    frame: Frame,
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
) -> np.ndarray:
    """Return the values of `LATTICE_COLUMNS` for one frame (n_rows, n_cols)."""
    row = np.full(len(LATTICE_COLUMNS), np.nan)
    try:
        lattice = analyse_pattern(
            frame.pattern(data, mask), beam_rc=beam_or_none(beam_rc), min_snr=min_snr
        ).lattice
    except PatternRefusedError:
        row[-1] = 0
        return row
    row[:6] = np.concatenate([lattice.beam_rc, lattice.g1_px, lattice.g2_px])
    row[6:] = lattice.ratio, lattice.angle_deg, lattice.rms_px, lattice.n_spots
    return row


def beam_row(
    data: np.ndarray,
    *,
    frame: Frame,
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
) -> np.ndarray:
    """Return the direct beam (row, col) [px] of one frame, also of refused ones where it was found, else nan."""
    try:
        geometry = analyse_pattern(frame.pattern(data, mask), beam_rc=beam_or_none(beam_rc), min_snr=min_snr)
    except PatternRefusedError as refusal:
        return np.full(2, np.nan) if refusal.beam is None else np.asarray(refusal.beam.rc, dtype=float)
    # a beam that was given is a hint: the lattice knows it to a fraction of a pixel
    return np.asarray(geometry.lattice.beam_rc, dtype=float)


def training_image(
    data: np.ndarray,
    *,
    frame: Frame,
    conversion: str,
    size: int,
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
) -> np.ndarray:
    """Return one frame in the image convention, zeros where it is refused."""
    try:
        geometry = analyse_pattern(frame.pattern(data, mask), beam_rc=beam_or_none(beam_rc), min_snr=min_snr)
    except PatternRefusedError:
        return np.zeros((size, size), dtype=np.float32)
    return convert_pattern(geometry, conversion, size=size).data


def properties(
    data: np.ndarray,
    *,
    frame: Frame,
    classify: bool,
    weights: str | None,
    device: str,
    views: Views,
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
    faintest: float = 0.0,
) -> np.ndarray:
    """Return the property columns of one frame, and the class columns where it is to be classified; one analysis for all."""
    pattern, beam_rc = frame.pattern(data, mask), beam_or_none(beam_rc)
    if classify:
        found = _identified(pattern, weights, device, views, beam_rc, min_snr, faintest)
        measured = Measured(found.reason, found.beam, found.lattice, found.nodes, frame.pixel_size)
        return np.append(property_row(measured), class_part(found.stated))
    try:
        geometry = without_faint(analyse_pattern(pattern, beam_rc=beam_rc, min_snr=min_snr), faintest)
    except PatternRefusedError as refusal:
        return property_row(Measured(refusal.reason, refusal.beam, None, None, frame.pixel_size))
    return property_row(Measured(None, geometry.beam, geometry.lattice, geometry.nodes, frame.pixel_size))


def class_row(
    data: np.ndarray,
    *,
    frame: Frame,
    weights: str | None,
    device: str,
    views: Views,
    n_classes: int,
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
    faintest: float,
) -> np.ndarray:
    """Return the class probabilities of one frame and, last, that of none of them; nan where it is refused."""
    pattern, beam_rc = frame.pattern(data, mask), beam_or_none(beam_rc)
    found = _identified(pattern, weights, device, views, beam_rc, min_snr, faintest)
    return np.full(n_classes + 1, np.nan) if found.stated is None else found.stated


def _identified(
    pattern: DiffractionPattern,
    weights: str | None,
    device: str,
    views: Views,
    beam_rc: np.ndarray | None,
    min_snr: float,
    faintest: float,
) -> PatternResult:
    """Return a classified frame; the network is loaded once in each process."""
    from napari_sadp.identify import identify_pattern
    from napari_sadp.models.predict import load_classifier

    return identify_pattern(
        pattern,
        load_classifier(weights, device, views=views),
        beam_rc=beam_rc,
        min_snr=min_snr,
        faintest=faintest,
    )
