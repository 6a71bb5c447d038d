"""Results as layers, in the coordinates of the image that they belong to. No viewer here, only layer data.

Every layer repeats scale, translation, units and axis labels of its image: napari draws layers of unlike units side by
side without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.geometry.nodes import STATE_NAMES
from napari_sadp.napari_io import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Layer

    from napari_sadp.identify import PatternResult
    from napari_sadp.widgets._sources import Source
    from napari_sadp.widgets._work import FrameResult

    LayerData = tuple[np.ndarray, dict[str, Any], str]

INDEXED_COLOUR = "#2bb5ff"
OTHER_COLOUR = "#ffb000"
BEAM_COLOUR = "#ff5a36"
G1_COLOUR = "#ff5a36"
G2_COLOUR = "#c792ea"
#: By the state of a node: present, absent, unknown.
NODE_COLOURS = {1: "#7ee787", 0: "#ff5a36", -1: "#b0b0b0"}
LEFT_OUT_COLOUR = "#b388ff"
#: What the user may change in a viewer; the arrows of the lattice and its nodes follow.
EDITABLE = ("beam", "spots", "vectors")
#: What a run makes, and the next one replaces.
RESULT_ROLES = ("left out", "nodes", "spots", "lattice", "vectors", "beam")

_RING_SIGMAS = 7.0  # diameter of the ring around a spot, in standard deviations of the spot
_RING_OF_G1 = 0.6  # at most this part of |g1|, so that rings of neighbours do not touch
_RING_OF_FRAME = (0.02, 0.08)  # at least and at most these parts of the shorter side


def placement(layer: Image) -> dict[str, Any]:
    """Return the keywords that put another layer into the coordinates of an image layer."""
    keywords: dict[str, Any] = {
        "scale": np.array(layer.scale),
        "translate": np.array(layer.translate),
        "units": tuple(str(unit) for unit in layer.units),
        "axis_labels": tuple(layer.axis_labels),
    }
    # rarely used, and not all of them can be given at once when they are trivial
    if not np.allclose(layer.rotate, np.eye(layer.ndim)):
        keywords["rotate"] = layer.rotate
    if np.any(layer.shear):
        keywords["shear"] = layer.shear
    if not np.allclose(layer.affine.affine_matrix, np.eye(layer.ndim + 1)):
        keywords["affine"] = layer.affine.affine_matrix
    return keywords


def derived_from(layer: Layer) -> str | None:
    """Return the `unique_id` of the image that a layer was made for, None for other layers."""
    return _about(layer).get("derived_from")


def role_of(layer: Layer) -> str | None:
    """Return what a layer of ours shows or gives, None for other layers."""
    return _about(layer).get("role")


def _about(layer: Layer) -> dict[str, Any]:
    about = layer.metadata.get(METADATA_KEY)
    return about if isinstance(about, dict) else {}


def result_layers(
    source: Source, frames: Sequence[FrameResult], *, nodes: bool = False, left_out: bool = False
) -> list[LayerData]:
    """Return the layers that show what was found in the frames of one image layer.

    Parameters
    ----------
    source : Source
        The image layer.
    frames : sequence of FrameResult
        Results of its frames.
    nodes : bool
        Whether to draw the nodes of the lattice too.
    left_out : bool
        Whether to show the pixels that did not count.

    Returns
    -------
    list of LayerData
        Pixels left out and nodes (if asked for), spots, lattice, vectors, beam, in drawing order, as far as anything was found; without placement. The lattice
        are arrows to look at, the vectors their tips, which can be moved.
    """
    layers = [
        _spots(source, frames),
        _lattice(source, frames),
        _vectors(source, frames),
        _beam(source, frames),
    ]
    if nodes:
        layers.insert(0, _nodes(source, frames))
    if left_out:
        layers.insert(0, _left_out(source, frames))
    return [layer for layer in layers if layer is not None]


def _beam(source: Source, frames: Sequence[FrameResult]) -> LayerData | None:
    seen = [item for item in frames if item.result.beam is not None]
    if not seen:
        return None
    rows = [_in_layer(source, item.frame, item.result.beam.rc[None]) for item in seen]
    keywords = _common(source, "beam") | {
        "symbol": "cross",
        "face_color": BEAM_COLOUR,
        "border_color": "black",
        "border_width": 0.04,
        "size": 0.04 * min(source.stack.frame_shape),
        "features": {
            "score": np.array([item.result.beam.score for item in seen]),
            "method": np.array([item.result.beam.method for item in seen]),
        },
    }
    return np.concatenate(rows), keywords, "points"


def _spots(source: Source, frames: Sequence[FrameResult]) -> LayerData | None:
    seen = [item for item in frames if item.result.spots is not None and len(item.result.spots)]
    if not seen:
        return None
    points = np.concatenate([_in_layer(source, item.frame, item.result.spots.rc) for item in seen])
    columns = [_spot_features(item.result) for item in seen]
    features = {key: np.concatenate([column[key] for column in columns]) for key in columns[0]}
    sizes = [np.full(len(item.result.spots), _ring_diameter(source, item.result)) for item in seen]
    colours = np.where(features["indexed"], INDEXED_COLOUR, OTHER_COLOUR)
    keywords = _common(source, "spots") | {
        "symbol": "disc",
        "face_color": "transparent",
        "border_color": colours.tolist(),
        "border_width": 0.08,
        "size": np.concatenate(sizes),
        "features": features,
    }
    return points, keywords, "points"


def _spot_features(result: PatternResult) -> dict[str, np.ndarray]:
    """Return what is known of the spots of a frame; nodes and |g| are NaN where they mean nothing."""
    spots, lattice = result.spots, result.lattice
    unknown = np.full(len(spots), np.nan)
    indexed = np.zeros(len(spots), dtype=bool)
    nodes, g = np.stack([unknown, unknown], axis=1), unknown
    # a lattice keeps the spots that it was fitted to, so that its rows are theirs
    if lattice is not None and len(lattice.indexed) == len(spots):
        indexed = np.asarray(lattice.indexed, dtype=bool)
        nodes = np.where(indexed[:, None], lattice.indices, np.nan)
    if result.beam is not None and result.pattern.pixel_size_inv_angstrom is not None:
        g = np.linalg.norm(spots.rc - result.beam.rc, axis=1) * result.pattern.pixel_size_inv_angstrom
    return {
        "m": nodes[:, 0],
        "n": nodes[:, 1],
        "g_inv_angstrom": g,
        "intensity": np.asarray(spots.intensity, dtype=float),
        "intensity_error": np.asarray(spots.intensity_error, dtype=float),
        "snr": np.asarray(spots.snr, dtype=float),
        "indexed": indexed,
    }


def _lattice(source: Source, frames: Sequence[FrameResult]) -> LayerData | None:
    seen = [item for item in frames if item.result.lattice is not None]
    if not seen:
        return None
    arrows = []
    for item in seen:
        lattice = item.result.lattice
        start = _in_layer(source, item.frame, lattice.beam_rc[None])[0]
        for vector in (lattice.g1_px, lattice.g2_px):
            step = np.zeros_like(start)
            step[-2:] = vector * source.pixel_step
            arrows.append([start, step])
    keywords = _common(source, "lattice") | {
        "vector_style": "arrow",
        "edge_color": [G1_COLOUR, G2_COLOUR] * len(seen),
        "edge_width": 0.008 * min(source.stack.frame_shape),
        "length": 1.0,
        "opacity": 1.0,
        "features": {"vector": np.array(["g1", "g2"] * len(seen))},
    }
    return np.array(arrows), keywords, "vectors"


def _vectors(source: Source, frames: Sequence[FrameResult]) -> LayerData | None:
    """Return the tips of the lattice vectors; an empty layer where only a beam was found, so that they can be given."""
    found = [(item, tips_of(item)) for item in frames]
    seen = [item for item, rc in found if rc is not None]
    if not seen and not any(item.result.beam is not None for item in frames):
        return None
    ndim = len(source.stack.navigation_shape) + 2
    tips = [_in_layer(source, item.frame, rc) for item, rc in found if rc is not None]
    keywords = _common(source, "vectors") | {
        "symbol": "diamond",
        "face_color": [G1_COLOUR, G2_COLOUR] * len(seen) or G1_COLOUR,
        "border_color": "black",
        "border_width": 0.08,
        "size": 0.03 * min(source.stack.frame_shape),
        "features": {"vector": np.array(["g1", "g2"] * len(seen), dtype=object)},
        "text": {
            "string": "{vector}",
            "color": "white",
            "size": 10,
            "anchor": "center",
            "translation": np.array([0.0] * (ndim - 2) + [0.0, 0.04 * min(source.stack.frame_shape)]),
        },
    }
    return np.concatenate(tips) if tips else np.zeros((0, ndim)), keywords, "points"


def tips_of(item: FrameResult) -> np.ndarray | None:
    """Return the tips of the lattice vectors of a frame.

    Parameters
    ----------
    item : FrameResult
        Its result.

    Returns
    -------
    (2, 2) ndarray of float64 or None
        Of the lattice; where no lattice follows from those that the user gave, these [px]. None where there are none.
    """
    lattice, edits = item.result.lattice, item.edits
    if lattice is not None:
        # the vectors themselves, as the arrows show them: a node lies beside the tip by what the distortion is there
        return lattice.beam_rc + np.stack([lattice.g1_px, lattice.g2_px])
    return None if edits.basis_px is None else edits.beam_rc + edits.basis_px


def _nodes(source: Source, frames: Sequence[FrameResult]) -> LayerData | None:
    seen = [item for item in frames if item.result.nodes is not None]
    if not seen:
        return None
    maps = [item.result.nodes for item in seen]
    points = [
        _in_layer(source, item.frame, item.result.lattice.node_rc(item.result.nodes.indices)) for item in seen
    ]
    indices = np.concatenate([nodes.indices for nodes in maps])
    state = np.concatenate([nodes.state for nodes in maps]).tolist()
    keywords = _common(source, "nodes") | {
        "symbol": "disc",
        "face_color": [NODE_COLOURS[value] for value in state],
        "border_width": 0.0,
        "opacity": 0.8,
        "size": 0.01 * min(source.stack.frame_shape),
        "features": {
            "m": indices[:, 0],
            "n": indices[:, 1],
            "state": np.array([STATE_NAMES[value] for value in state], dtype=object),
            "presence": np.concatenate([nodes.presence for nodes in maps]),
            "intensity": np.concatenate([nodes.intensity for nodes in maps]),
            "intensity_error": np.concatenate([nodes.sigma for nodes in maps]),
        },
    }
    return np.concatenate(points), keywords, "points"


def _left_out(source: Source, frames: Sequence[FrameResult]) -> LayerData | None:
    seen = [item for item in frames if item.result.left_out is not None and item.result.left_out.any()]
    if not seen:
        return None
    shape = source.stack.frame_shape
    labels = np.zeros((*source.stack.navigation_shape, *shape), np.uint8)
    # each pixel of the layer is that of the square frame below its middle
    rows, cols = (
        source.from_layer(np.stack([np.arange(n), np.arange(n)], axis=1))[:, axis]
        for axis, n in enumerate(shape)
    )
    for item in seen:
        mask = item.result.left_out
        row, col = (
            np.clip(np.round(at).astype(int), 0, n - 1)
            for at, n in zip((rows, cols), mask.shape, strict=True)
        )
        labels[source.navigation_index(item.frame)] = mask[row[:, None], col]
    keywords = _common(source, "left out") | {"opacity": 0.45, "colormap": {None: None, 1: LEFT_OUT_COLOUR}}
    return labels, keywords, "labels"


def _ring_diameter(source: Source, result: PatternResult) -> float:
    """Return the diameter of the rings around the spots of a frame [px of the layer]."""
    side = min(source.stack.frame_shape)
    diameter = _RING_SIGMAS * result.spots.sigma_px
    if result.lattice is not None:
        diameter = min(diameter, _RING_OF_G1 * float(np.linalg.norm(result.lattice.g1_px)))
    low, high = _RING_OF_FRAME
    return float(np.clip(diameter, low * side, high * side))


def _in_layer(source: Source, frame: int, rc: np.ndarray) -> np.ndarray:
    """Return positions of a frame (n, 2) as coordinates of the layer (n, ndim)."""
    position = source.to_layer(rc)
    index = source.navigation_index(frame)
    return np.concatenate(
        [np.tile(index, (len(position), 1)).reshape(len(position), len(index)), position], axis=1
    )


def _common(source: Source, role: str) -> dict[str, Any]:
    return {
        "name": f"{source.name} {role}",
        "metadata": {METADATA_KEY: {"derived_from": source.layer_id, "role": role}},
    }
