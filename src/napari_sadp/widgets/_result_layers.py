"""The result layers of one image in the viewer, read and written frame by frame. GUI thread only.

What the user sets on a layer (visibility, opacity, name, mode) stays; a layer that the user removed stays away until the next run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Labels, Layer, Points, Vectors
from napari.layers.base import ActionType
from napari.utils.colormaps.standardize_color import transform_color

from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets._layers import (
    EDITABLE,
    RESULT_ROLES,
    derived_from,
    placement,
    result_layers,
    role_of,
    tips_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari.viewer
    from napari.layers import Image

    from napari_sadp.widgets._sources import Source
    from napari_sadp.widgets._work import FrameResult


class ResultLayers:
    """The layers that show what was found in one image layer; making them replaces those of an earlier run.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    image : napari.layers.Image
        Layer of the patterns.
    source : Source
        The same as patterns.
    frames : sequence of FrameResult
        Results of its frames.
    nodes : bool
        Whether to show the nodes of the lattice.
    left_out : bool
        Whether to show the pixels that did not count.
    on_edit : callable
        Called without arguments when the user changed a layer.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        image: Image,
        source: Source,
        frames: Sequence[FrameResult],
        *,
        nodes: bool,
        left_out: bool = False,
        on_edit: Callable[[], None],
    ) -> None:
        self._viewer, self.image, self.source = viewer, image, source
        self._shown, self._on_edit = {"nodes": nodes, "left_out": left_out}, on_edit
        self._writing = False
        self.layers: dict[str, Layer] = {}
        for old in list(viewer.layers):
            # a mask of the same image stays
            if derived_from(old) == source.layer_id and role_of(old) in RESULT_ROLES:
                viewer.layers.remove(old)
        for made in result_layers(source, frames, **self._shown):
            self._add(*made)

    def layer(self, role: str) -> Layer | None:
        """Return the layer of a role, None where nothing was found or the user removed it."""
        layer = self.layers.get(role)
        return layer if layer is not None and layer in self._viewer.layers else None

    def release(self) -> None:
        """Stop listening to the layers."""
        for role in EDITABLE:
            if role in self.layers:
                self.layers[role].events.data.disconnect(self._on_data)

    # ---- reading -------------------------------------------------------------------------------------------------

    def positions(self) -> dict[str, dict[int, np.ndarray]]:
        """Return what the editable layers hold, by role and frame: (n, 2) positions in px of the square frame.

        A role is missing where its layer is; a frame is where the layer holds nothing of it.
        """
        found: dict[str, dict[int, np.ndarray]] = {}
        for role in EDITABLE:
            layer = self.layer(role)
            if layer is not None:
                data = np.asarray(layer.data)
                number = self._frame_numbers(data)
                # sorted once: a scan has thousands of frames
                order = np.argsort(number, kind="stable")
                frames, first = np.unique(number[order], return_index=True)
                rows = np.split(self.source.from_layer(data[order][:, -2:]), first)[1:]
                found[role] = {int(frame): rc for frame, rc in zip(frames, rows, strict=True) if frame >= 0}
        return found

    def _frame_numbers(self, data: np.ndarray) -> np.ndarray:
        """Return the flat frame of each row (n,), -1 outside of the stack."""
        where = self.source.stack.navigation_shape
        if not where:
            return np.zeros(len(data), dtype=int)
        index = np.round(data[:, : len(where)]).astype(int)
        inside = np.all((index >= 0) & (index < where), axis=1)
        number = np.full(len(data), -1)
        number[inside] = np.ravel_multi_index(tuple(index[inside].T), where)
        return number

    def _on_data(self, event: Any) -> None:
        # the same event tells before and after; before, nothing has changed yet
        before = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)
        if not self._writing and event.action not in before:
            self._on_edit()

    # ---- writing -------------------------------------------------------------------------------------------------

    def show(self, item: FrameResult, before: FrameResult) -> None:
        """Replace what the layers show of one frame.

        Parameters
        ----------
        item : FrameResult
            The new result.
        before : FrameResult
            The one that the layers show. Where neither has tips of vectors to show, those that are there were put by the user, who
            may go on with them.
        """
        made = {
            keywords["metadata"][METADATA_KEY]["role"]: (data, keywords, kind)
            for data, keywords, kind in result_layers(self.source, [item], **self._shown)
        }
        for role in made.keys() - self.layers.keys():
            self._add(*made[role])
        tips_stay = tips_of(before) is None and tips_of(item) is None
        for role in self.layers:
            layer = self.layer(role)
            if isinstance(layer, Labels):
                self._write_labels(layer, item.frame, made.get(role))
            elif layer is not None and not (role == "vectors" and tips_stay):
                self._write(layer, item.frame, made.get(role))

    def _add(self, data: np.ndarray, keywords: dict[str, Any], kind: str) -> None:
        role = keywords["metadata"][METADATA_KEY]["role"]
        selected = set(self._viewer.layers.selection)
        layer = self._viewer.add_layer(Layer.create(data, keywords | placement(self.image), kind))
        if selected:
            self._viewer.layers.selection = selected
        self.layers[role] = layer
        if role in EDITABLE:
            layer.mode = "select"  # a click and a drag move a point, Delete removes it
            layer.events.data.connect(self._on_data)
        elif isinstance(layer, Labels):
            layer.editable = False  # what is painted on it would count for nothing

    def _write_labels(
        self, layer: Labels, frame: int, made: tuple[np.ndarray, dict[str, Any], str] | None
    ) -> None:
        """Replace the pixels of one frame."""
        where = self.source.navigation_index(frame)
        layer.data[where] = 0 if made is None else made[0][where]
        layer.refresh()

    def _write(self, layer: Layer, frame: int, made: tuple[np.ndarray, dict[str, Any], str] | None) -> None:
        """Replace the rows of one frame; they keep their places, and the selection, where their number does not change."""
        old = np.asarray(layer.data)
        own = self._frame_numbers(old[:, 0] if isinstance(layer, Vectors) else old) == frame
        data = np.zeros((0, *old.shape[1:])) if made is None else made[0]
        keywords = {} if made is None else made[1]
        if np.count_nonzero(own) == len(data):
            order = np.arange(len(old))
            order[own] = len(old) + np.arange(len(data))
        else:
            order = np.concatenate([np.flatnonzero(~own), len(old) + np.arange(len(data))])

        def merged(name: str) -> np.ndarray:
            """Return an attribute with the rows of the frame replaced; without new rows there is no new value."""
            now = np.asarray(getattr(layer, name))
            if not len(data):
                return now[order]
            value = keywords[name]
            if name.endswith("color"):
                value = transform_color(value)
            return np.concatenate([now, np.broadcast_to(value, (len(data), *now.shape[1:]))])[order]

        names = ("edge_color",) if isinstance(layer, Vectors) else ("size", "face_color", "border_color")
        values = {name: merged(name) for name in names if not len(data) or name in keywords}
        features = layer.features
        if len(data):
            # as plain objects: a column of categories does not take new ones
            new = pd.DataFrame(keywords["features"])
            features = pd.concat([features.astype(object), new.astype(object)], ignore_index=True)
            features = features.astype(new.dtypes)
        features = features.iloc[order].reset_index(drop=True)
        every = tuple(range(len(order)))
        self._writing = True
        try:
            with layer.events.blocker_all():
                if isinstance(layer, Points) and len(order) != len(old):
                    layer.selected_data = set()
                layer.data = np.concatenate([old, data])[order]
                for name, value in values.items():
                    setattr(layer, name, value)
                layer.features = features
            layer.refresh()
            if isinstance(layer, Points):
                layer.events.data(
                    value=layer.data, action=ActionType.CHANGED, data_indices=every, vertex_indices=((),)
                )
            else:
                layer.events.data(value=layer.data)
        finally:
            self._writing = False
