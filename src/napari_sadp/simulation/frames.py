"""Orientations of a crystal before the viewer.

An orientation is a frame: a (3, 3) matrix whose rows are the axes x (right), y (up) and z (at the viewer, against the beam)
of the pattern, as unit vectors in the Cartesian frame of the crystal (`Crystal.direct_basis`: a along x, b in the xy plane).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.labels.lattice2d import planar_basis

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal


@lru_cache(maxsize=1024)
def zone_frame(crystal: Crystal, zone: tuple[int, int, int]) -> np.ndarray:
    """Return the right-handed frame of a zone axis: rows x (right), y (up), z (the axis, at the viewer).

    x lies along the shortest reciprocal-lattice vector of the zero-order zone, so that the frame does not depend on the
    setting of the cell in space.
    """
    axis = np.asarray(zone, dtype=float) @ crystal.direct_basis()
    z = axis / np.linalg.norm(axis)
    plane = planar_basis(zone) @ crystal.reciprocal_basis()
    a, b = plane
    while True:  # Gauss reduction in floating point
        if b @ b < a @ a:
            a, b = b, a
        shift = np.rint(a @ b / (a @ a))
        if shift == 0:
            break
        b = b - shift * a
    x = a / np.linalg.norm(a)
    frame = np.stack([x, np.cross(z, x), z])
    frame.flags.writeable = False  # it is remembered
    return frame


def beam_frames(
    crystal: Crystal, directions: np.ndarray, in_plane_deg: float | np.ndarray = 0.0
) -> np.ndarray:
    """Return the orientations that look along some directions of the crystal.

    Parameters
    ----------
    crystal : Crystal
        For its cell.
    directions : (3,) or (b, 3) array_like of float
        Directions [u, v, w] on a, b, c, not of integers only, that point at the viewer, against the beam.
    in_plane_deg : float or (b,) array_like
        Anticlockwise rotation of the pattern [deg].

    Returns
    -------
    (b, 3, 3) ndarray of float64
        Before the rotation, x is the projection of that of a*, b*, c* that is most nearly normal to the direction, the
        first of equal ones. On a zone axis that need not be the x of `zone_frame`.

    Raises
    ------
    ValueError
        If a direction is zero or no three numbers.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> beam_frames(find_structure("Al", 225).crystal(), [0, 0, 1])[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    uvw = np.atleast_2d(np.asarray(directions, dtype=float))
    if uvw.ndim != 2 or uvw.shape[1] != 3 or not np.isfinite(uvw).all() or not uvw.any(axis=1).all():
        raise ValueError(f"directions is {directions!r}, expected three numbers [u, v, w] each, not all zero")
    z = uvw @ crystal.direct_basis()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    starred = crystal.reciprocal_basis() / np.linalg.norm(crystal.reciprocal_basis(), axis=1, keepdims=True)
    slope = np.abs(z @ starred.T)
    x = starred[(slope < slope.min(axis=1, keepdims=True) + 1e-9).argmax(axis=1)]
    x = x - (x * z).sum(axis=1, keepdims=True) * z
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(z, x)
    turn = np.broadcast_to(np.radians(np.asarray(in_plane_deg, dtype=float)), len(uvw))[:, None]
    # turning the crystal anticlockwise turns the axes of the camera clockwise as the crystal sees them
    turned = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    return np.stack([*turned, z], axis=1)


def random_frames(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n orientations (n, 3, 3), uniform over all rotations."""
    q = rng.normal(size=(n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def check_frames(frames: Any) -> np.ndarray:
    """Return orientations (b, 3, 3) as float64, or raise `ValueError` where they are none."""
    array = np.asarray(frames, dtype=float)
    if array.ndim != 3 or array.shape[1:] != (3, 3) or len(array) == 0:
        raise ValueError(f"frames has shape {array.shape}, expected (b, 3, 3) with at least one orientation")
    handed = np.einsum("bi,bi->b", np.cross(array[:, 0], array[:, 1]), array[:, 2])
    error = np.abs(array @ array.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2)) + np.abs(handed - 1)
    if not (error < 1e-4).all():
        wrong = int(np.flatnonzero(~(error < 1e-4))[0])
        raise ValueError(
            f"frames[{wrong}] is {array[wrong].tolist()}, expected right-handed orthogonal unit vectors"
        )
    return array
