"""Drawing of round spots, for the simulator, for training streams, and for patterns redrawn from their measured nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Natural logarithm of the height below which the tail of a spot is zero: 4e-18, nothing at any gamma and bit depth.
TAIL = -40.0


def render_gaussians(rc: Any, intensity: Any, sigma: Any, shape: tuple[int, int]) -> Any:
    """Draw round Gaussian spots.

    Parameters
    ----------
    rc : (..., n, 2) ndarray or torch.Tensor
        Positions (row, col) [px].
    intensity : (..., n) ndarray or torch.Tensor
        Height of each spot.
    sigma : float or (..., 1, 1) array
        Standard deviation [px].
    shape : tuple of 2 int
        Rows and columns of the image.

    Returns
    -------
    (..., n_rows, n_cols) ndarray or torch.Tensor
        The sum of ``I exp(-r^2 / 2 sigma^2)``, as the product of a column and a row profile for every spot.
    """
    if isinstance(rc, np.ndarray):
        rows, cols = (np.arange(n, dtype=rc.dtype) for n in shape)
    else:
        # counted on the device itself: what is copied to it makes the host wait for all that it was told before
        rows, cols = (rc.new_ones(n).cumsum(0) - 1 for n in shape)
    profile_r = _profile(rows - rc[..., :, :1], sigma)
    profile_c = _profile(cols - rc[..., :, 1:], sigma)
    profile_r *= intensity[..., None]
    return profile_r.swapaxes(-1, -2) @ profile_c


def _profile(distance: Any, sigma: Any) -> Any:
    """Return ``exp(-d^2 / 2 sigma^2)`` in place of the distance, zero below 4e-18.

    Denormal numbers would make the matrix product many times slower.
    """
    distance *= np.sqrt(0.5) / sigma
    distance *= distance
    if isinstance(distance, np.ndarray):
        np.negative(distance, out=distance)
        np.maximum(distance, distance.dtype.type(TAIL), out=distance)
        np.exp(distance, out=distance)
        # what was bounded becomes exactly zero, the rest changes by less than its rounding
        distance -= np.exp(distance.dtype.type(TAIL))
        return distance
    return distance.neg_().clip_(min=TAIL).exp_().sub_(distance.new_full((), TAIL).exp_())
