"""What the user gives in other layers: a mask painted in a Labels layer, direct beams in a Points layer.

A layer that was made for one image, by *New* or as the result of a run, counts for this image alone. One of the user's own, without origin,
counts for every image that it fits. Layers are read here, in the GUI thread; what comes out are arrays of one frame with
square pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.io._pixels import resample_square
from napari_sadp.widgets._layers import derived_from, role_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Image, Labels, Layer, Points

    from napari_sadp.widgets._sources import Source

#: Roles of the layers that *New* makes for one image.
GIVEN_MASK, GIVEN_BEAM = "mask", "given beam"


# ---- which layer counts ------------------------------------------------------------------------------------------


def counting_layers(chosen: Layer | None, layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers that count while one is chosen.

    Parameters
    ----------
    chosen : napari.layers.Layer or None
        The user's choice.
    layers : iterable of napari.layers.Layer
        Layers of the viewer.

    Returns
    -------
    list of napari.layers.Layer
        The chosen one; where *New* made it for one image, after it those that *New* made for the other images, the latest first.
        A box holds one layer only, and patterns in several image layers need one each.
    """
    if chosen is None:
        return []
    if not _made_by_new(chosen):
        return [chosen]
    others = [
        layer
        for layer in layers
        if layer is not chosen and _made_by_new(layer) and role_of(layer) == role_of(chosen)
    ]
    return [chosen, *reversed(others)]


def layer_for(chosen: Layer | None, layers: Iterable[Layer], layer_id: str) -> Layer | None:
    """Return the layer that counts for an image, None where none does.

    Parameters
    ----------
    chosen : napari.layers.Layer or None
        The user's choice.
    layers : iterable of napari.layers.Layer
        Layers of the viewer.
    layer_id : str
        `unique_id` of the image layer.
    """
    mine = [layer for layer in counting_layers(chosen, layers) if derived_from(layer) in (None, layer_id)]
    return mine[0] if mine else None


def _made_by_new(layer: Layer) -> bool:
    return derived_from(layer) is not None and role_of(layer) in (GIVEN_MASK, GIVEN_BEAM)


# ---- masks -------------------------------------------------------------------------------------------------------


def mask_fits(labels: Labels, source: Source) -> bool:
    """Tell whether a Labels layer has the rows and columns of an image, and its frames or a single plane."""
    shape, lead = _mask_shape(labels), _mask_shape(labels)[:-2]
    return shape[-2:] == source.stack.frame_shape and lead in (
        source.stack.navigation_shape,
        (1,) * len(lead),
    )


def mask_misfit(labels: Labels, source: Source) -> str:
    """Return one line that says what shape a mask should have."""
    shape, where = source.stack.frame_shape, source.stack.navigation_shape
    return f"mask layer {labels.name!r} has shape {_mask_shape(labels)}, expected {shape} or {(*where, *shape)} like {source.name!r}"


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
    if not mask_fits(labels, source):
        raise ValueError(mask_misfit(labels, source))
    data = labels.data[0] if labels.multiscale else labels.data
    lead = tuple(data.shape[:-2])
    index = source.navigation_index(frame) if lead == source.stack.navigation_shape else (0,) * len(lead)
    mask = np.asarray(data[index]) != 0
    if not mask.any():
        return None
    scale = source.stack.oblong_scale
    return mask if scale is None else resample_square(mask.astype(np.float32), *scale) > 0


def _mask_shape(labels: Labels) -> tuple[int, ...]:
    data = labels.data[0] if labels.multiscale else labels.data
    return tuple(int(n) for n in data.shape)


# ---- direct beams ------------------------------------------------------------------------------------------------


def beam_of_frame(
    points: Points, image: Image, source: Source, frame: int, rows: Sequence[int] | None = None
) -> np.ndarray | None:
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
    rows : sequence of int, optional
        Points that may be of this image; all by default.

    Returns
    -------
    (2,) ndarray of float64 or None
        (row, col) in pixels of the square frame; None where the layer has no point for the frame.
    """
    index = source.navigation_index(frame)
    for row in reversed(range(len(points.data)) if rows is None else rows):
        position = _in_image(points, image, points.data[row], index)
        if tuple(np.round(position[:-2]).astype(int)) == index:
            return source.from_layer(position[None, -2:])[0]
    return None


def points_by_image(
    points: Points, images: Sequence[Image], sources: Sequence[Source]
) -> tuple[list[list[int]], list[int]]:
    """Tell which points lie in one image alone, as the viewer shows them.

    Parameters
    ----------
    points : napari.layers.Points
        Direct beams of the user's own layer.
    images : sequence of napari.layers.Image
        Layers of the patterns.
    sources : sequence of Source
        The same as patterns.

    Returns
    -------
    own : list of list of int
        For each image the rows of the points that lie in it and in no other.
    shared : list of int
        Positions in `images` of those that lie under the same point: nothing says of which of them it is the beam.
    """
    own: list[list[int]] = [[] for _ in images]
    shared: set[int] = set()
    for row, place in enumerate(np.asarray(points.data)):
        under = [
            k
            for k, (image, source) in enumerate(zip(images, sources, strict=True))
            if _lies_in(points, image, source, place)
        ]
        if len(under) == 1:
            own[under[0]].append(row)
        shared.update(under if len(under) > 1 else ())
    return own, sorted(shared)


def _in_image(points: Points, image: Image, place: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    """Return a point in the coordinates of an image; one of rows and columns only, in the frame that is asked for."""
    world = np.asarray(points.data_to_world(place))
    if points.ndim < image.ndim:
        corner = np.asarray(image.data_to_world((*index, 0.0, 0.0)))
        world = np.concatenate([corner[: image.ndim - points.ndim], world])
    return np.asarray(image.world_to_data(world[-image.ndim :]), dtype=float)


def _lies_in(points: Points, image: Image, source: Source, place: np.ndarray) -> bool:
    position = _in_image(points, image, place, source.navigation_index(0))
    shape = (*source.stack.navigation_shape, *source.stack.frame_shape)
    return bool(np.all((position >= -0.5) & (position <= np.array(shape) - 0.5)))
