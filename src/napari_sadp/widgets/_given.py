"""What the user gives in other layers: a mask painted in a Labels layer, direct beams in a Points layer.

Layers are read here, in the GUI thread; what comes out are arrays of one frame with square pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.io._pixels import resample_square

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Points

    from napari_sadp.widgets._sources import Source


def mask_of_frame(labels: Labels, source: Source, frame: int) -> np.ndarray | None:
    """Return what is painted over a frame.

    Parameters
    ----------
    labels : napari.layers.Labels
        As many rows and columns as the image layer; either its frames too, or one plane for all frames.
    source : Source
        The image layer.
    frame : int
        Flat index of the frame.

    Returns
    -------
    (n_rows, n_cols) ndarray of bool or None
        True where any label is, in pixels of the square frame; None where nothing is painted.

    Raises
    ------
    ValueError
        If the layer has another shape.
    """
    data = labels.data[0] if labels.multiscale else labels.data
    shape, where = source.stack.frame_shape, source.stack.navigation_shape
    lead = tuple(data.shape[:-2])
    if tuple(data.shape[-2:]) != shape or lead not in (where, (1,) * len(lead)):
        raise ValueError(
            f"mask layer {labels.name!r} has shape {tuple(data.shape)}, expected {shape} or {(*where, *shape)} like {source.name!r}"
        )
    index = source.navigation_index(frame) if lead == where else (0,) * len(lead)
    mask = np.asarray(data[index]) != 0
    if not mask.any():
        return None
    scale = source.stack.oblong_scale
    return mask if scale is None else resample_square(mask.astype(np.float32), *scale) > 0


def beam_of_frame(points: Points, image: Image, source: Source, frame: int) -> np.ndarray | None:
    """Return where the user put the direct beam of a frame.

    Parameters
    ----------
    points : napari.layers.Points
        One point a frame counts, the last of several; a layer of rows and columns only counts for all frames.
    image : napari.layers.Image
        The layer of the patterns. Positions are compared where the viewer shows them.
    source : Source
        The same as patterns.
    frame : int
        Flat index of the frame.

    Returns
    -------
    (2,) ndarray of float64 or None
        (row, col) in pixels of the square frame; None where the layer has no point for the frame.
    """
    index = source.navigation_index(frame)
    corner = np.asarray(image.data_to_world((*index, 0.0, 0.0)))
    for row in np.asarray(points.data)[::-1]:
        world = np.asarray(points.data_to_world(row))
        if points.ndim < image.ndim:
            world = np.concatenate([corner[: image.ndim - points.ndim], world])
        position = np.asarray(image.world_to_data(world[-image.ndim :]), dtype=float)
        if tuple(np.round(position[:-2]).astype(int)) == index:
            return source.from_layer(position[None, -2:])[0]
    return None
