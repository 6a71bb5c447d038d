"""The functions that signal methods map over frames, one array in, one array out, and over chunks of them; no HyperSpy.

`Frame` holds what the signal's axes say, so that a map and `identify` see the same pattern: an image is refused, oblong pixels are
resampled, and positions are in px of the square frame. Everything here can be pickled: Dask sends it to its workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    from pathlib import Path

    from napari_sadp.models.predict import Classifier, Precision, Views

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
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
    faintest: float = 0.0,
) -> np.ndarray:
    """Return the property columns of one frame."""
    try:
        geometry = analyse_pattern(frame.pattern(data, mask), beam_rc=beam_or_none(beam_rc), min_snr=min_snr)
    except PatternRefusedError as refusal:
        return property_row(Measured(refusal.reason, refusal.beam, None, None, frame.pixel_size))
    geometry = without_faint(geometry, faintest)
    return property_row(Measured(None, geometry.beam, geometry.lattice, geometry.nodes, frame.pixel_size))


@dataclass(frozen=True)
class Model:
    """A network as a worker gets it: by its name or file, loaded once in each process, or loaded already.

    Parameters
    ----------
    model : str, path-like, Classifier or None
        See `napari_sadp.models.predict.as_classifier`.
    device, views, precision : str
        How it runs.
    """

    model: Path | str | Classifier | None
    device: str
    views: Views
    precision: Precision

    def load(self) -> Classifier:
        """Return the network, ready to use."""
        from napari_sadp.models.predict import as_classifier

        return as_classifier(self.model, self.device, views=self.views, precision=self.precision)


def measured(
    data: np.ndarray,
    *,
    frame: Frame,
    model: Model,
    mask: np.ndarray | None = None,
    beam_rc: np.ndarray | None = None,
    min_snr: float,
    faintest: float,
) -> np.ndarray:
    """Return what is known of one frame before the network sees it, a `PatternResult` in an array of objects (1,)."""
    from napari_sadp.identify import measure_pattern

    result = measure_pattern(
        frame.pattern(data, mask),
        model.load(),
        beam_rc=beam_or_none(beam_rc),
        min_snr=min_snr,
        faintest=faintest,
    )
    found = np.empty(1, dtype=object)
    # all frames of a chunk wait for the network: the pixels are not needed for it
    found[0] = replace(result, pattern=replace(result.pattern, data=np.zeros((1, 1)), mask=None))
    return found


def class_rows(
    block: np.ndarray, *, model: Model, n_axes: int, n_columns: int, with_properties: bool
) -> np.ndarray:
    """Classify the frames of a chunk as one batch.

    Parameters
    ----------
    block : ndarray of object
        What `measured` gave for each frame.
    model : Model
        The network.
    n_axes : int
        Number of navigation axes: HyperSpy drops a last axis of length 1, or does not.
    n_columns : int
        Columns to return.
    with_properties : bool
        Whether these are the property and class columns, or else the probability of each class and, last, of none of them.

    Returns
    -------
    (*navigation, n_columns) ndarray of float64
        nan in the columns of classes where a frame is refused.
    """
    from napari_sadp.identify import classify_results

    rows = np.full((block.size, n_columns), np.nan)
    for row, found in zip(rows, classify_results(list(block.flat), model.load()), strict=True):
        if with_properties:
            size = found.pattern.pixel_size_inv_angstrom
            row[:] = np.append(
                property_row(Measured(found.reason, found.beam, found.lattice, found.nodes, size)),
                class_part(found.stated),
            )
        elif found.stated is not None:
            row[:] = found.stated
    return rows.reshape(*block.shape[:n_axes], n_columns)
