"""Exceptions of the package: one class per kind of failure.

A wrong *argument* raises `ValueError` (see `napari_sadp._validate`); the classes here are for input that the
package was right to try and could not use. Every message names the file or parameter, the value met and what
would be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np

    from napari_sadp.geometry.results import DirectBeam, SpotList

RefusalReason = Literal[
    "image",
    "empty",
    "rings",
    "amorphous",
    "too few spots",
    "no lattice",
    "off zone",
    "several crystals",
]
"""Why a pattern is refused; the words are part of the public JSON output."""

REFUSAL_REASONS: tuple[str, ...] = get_args(RefusalReason)


class SadpError(Exception):
    """Base class of every error that the package raises about its input."""


class UnreadableFileError(SadpError):
    """A file is missing, damaged, of an unknown format, or holds no two-dimensional data."""


class CalibrationError(SadpError):
    """A step needs a reciprocal-space calibration that the pattern does not carry."""


class PatternRefusedError(SadpError):
    """A pattern is not a single-crystal zone-axis pattern that can be measured.

    Parameters
    ----------
    reason : str
        One of `REFUSAL_REASONS`.
    detail : str
        What was measured, in words that a microscopist understands.
    beam : DirectBeam, optional
        The direct beam, if it was found before the refusal.
    spots : SpotList, optional
        The spots, if they were found before the refusal.
    notes : tuple of str
        What was decided about the pattern before the refusal, such as masks.
    mask : (n_rows, n_cols) ndarray of bool, optional
        True where the data meant nothing, if that was known before the refusal.
    """

    def __init__(
        self,
        reason: RefusalReason,
        detail: str,
        *,
        beam: DirectBeam | None = None,
        spots: SpotList | None = None,
        notes: tuple[str, ...] = (),
        mask: np.ndarray | None = None,
    ) -> None:
        if reason not in REFUSAL_REASONS:
            raise ValueError(f"reason is {reason!r}, expected one of {', '.join(REFUSAL_REASONS)}")
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.beam = beam
        self.spots = spots
        self.notes = notes
        self.mask = mask


class StructureError(SadpError):
    """A crystal structure cannot be read, or contradicts itself."""


class CheckpointError(SadpError):
    """A weight file is missing, damaged, or made for another scheme or image convention."""


class CancelledError(SadpError):
    """The user stopped a long computation."""
