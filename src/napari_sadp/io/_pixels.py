"""From the pixel types of files to native real numbers, and from oblong to square pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

#: ITU-R BT.601 luma, what image software uses for grey; R = G = B gives the same number back.
_LUMA = {"R": 0.299, "G": 0.587, "B": 0.114}
_MIN_RGB_SIDE = 8


def to_real(data: Any, *, unsigned_bytes: bool = False) -> tuple[Any, list[str]]:
    """Return native real data, lazily where the input is lazy.

    Parameters
    ----------
    data : array-like
        numpy or dask array of any type that a file may hold.
    unsigned_bytes : bool
        Whether bytes with sign are meant without (DigitalMicrograph's data type 9).

    Returns
    -------
    data : array-like or None
        The same as integers or floats in the byte order of the machine; None when it holds no numbers.
    notes : list of str
        What was changed.
    """
    names = set(data.dtype.names or ())
    if {"R", "G", "B"} <= names:
        grey = sum(data[channel].astype(np.float32) * weight for channel, weight in _LUMA.items())
        return grey, ["colour image turned to grey"]
    kind = data.dtype.kind
    if kind == "c":
        return abs(data), ["complex data: magnitude taken"]
    if kind == "b":
        return data.astype(np.uint8), []
    if kind not in "uif" or names:
        return None, []
    if unsigned_bytes and data.dtype == np.int8:
        return data.view(np.uint8), ["bytes read without sign, as the detector meant them"]
    if not data.dtype.isnative:
        return data.astype(data.dtype.newbyteorder("=")), []
    return data, []


def last_axis_is_colour(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Tell whether an array is (..., rows, cols, 3 or 4 colours)."""
    return (
        len(shape) >= 3
        and shape[-1] in (3, 4)
        and dtype.kind == "u"
        and dtype.itemsize <= 2
        and min(shape[-3:-1]) >= _MIN_RGB_SIDE
    )


def colour_to_grey(data: Any) -> Any:
    """Return the luma of (..., 3 or 4) colours as float32."""
    return sum(data[..., i].astype(np.float32) * weight for i, weight in enumerate(_LUMA.values()))


def resample_square(frame: np.ndarray, row_scale: float, col_scale: float) -> np.ndarray:
    """Resample a frame to square pixels of the smaller of both sizes.

    Parameters
    ----------
    frame : (n_rows, n_cols) ndarray
        Intensities [counts].
    row_scale, col_scale : float
        Size of a pixel along rows and columns, in one unit.

    Returns
    -------
    (n_rows', n_cols') ndarray of float64
        Linear interpolation; the outer edge of the first pixel stays where it was, and the pixel is exactly square.
    """
    from skimage.transform import AffineTransform, warp

    step = min(abs(row_scale), abs(col_scale))
    row_step, col_step = step / abs(row_scale), step / abs(col_scale)
    shape = tuple(max(1, int(n / s + 1e-6)) for n, s in zip(frame.shape, (row_step, col_step), strict=True))
    # pixel centres are integers, so that the edge of the first pixel is at -0.5
    inverse = AffineTransform(
        scale=(col_step, row_step), translation=((col_step - 1) / 2, (row_step - 1) / 2)
    )
    finite = np.isfinite(frame)
    if not finite.all():  # not finite values would smear, the caller masks what is left of them
        filled = warp(
            np.where(finite, frame, 0).astype(np.float64), inverse, output_shape=shape, order=1, mode="edge"
        )
        holes = warp((~finite).astype(np.float64), inverse, output_shape=shape, order=1, mode="edge")
        return np.where(holes > 0, np.nan, filled)
    return warp(frame.astype(np.float64), inverse, output_shape=shape, order=1, mode="edge")
