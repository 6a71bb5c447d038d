"""The part of the *Identify* widget where the user gives a mask and a beam, and takes a result in hand to change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import magicgui.widgets as mw
import numpy as np
from napari.layers import Image, Labels, Points

from napari_sadp.geometry.edit import Edits
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets._edit import MAX_LIVE_MASKS
from napari_sadp.widgets._given import beam_of_frame, mask_of_frame
from napari_sadp.widgets._layers import derived_from, placement
from napari_sadp.widgets._shared import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari.viewer
    from napari.layers import Layer

    from napari_sadp.widgets._result_layers import ResultLayers
    from napari_sadp.widgets._sources import Source

#: A mask for each frame of a stack larger than this would fill the memory; one for all frames is made instead.
_MAX_MASK_BYTES = 2**28
_BRUSH = 0.06  # of the shorter side
_TIPS = {
    "mask": "A Labels layer: what is painted with any label is ignored.\n"
    "As large as the image: one mask for each frame; rows and columns only: one for all.\n"
    f"Painting after a run of up to {MAX_LIVE_MASKS} patterns analyses the frame again.",
    "new": "Make a mask for the patterns above and paint it",
    "beam": "A Points layer with the direct beam of each frame, where you know it.\n"
    "Frames without a point: the beam is found.",
    "edit beam": "Take the direct beam in hand: drag it, and the pattern is analysed again with it.\n"
    "Delete it, and the beam is found again.",
    "edit spots": "Take the spots in hand: select and delete those that are not of this crystal,\n"
    "or add missing ones (mode 'add points'). The lattice is fitted again.",
    "edit vectors": "Take the lattice vectors in hand: drag the tips g1 and g2 to two nodes of the lattice that you see.\n"
    "Delete a tip, and the lattice is found again.",
}


class EditPanel:
    """Mask and beam of the user, and buttons that choose the layer to change.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    images : callable
        Returns the image layers that a run would use.
    results : callable
        Returns the result layers of the last run.
    on_mask : callable
        Called when the mask is another one, or was painted.

    Attributes
    ----------
    widgets : list of magicgui widgets
        Rows in their order.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        images: Callable[[], list[Image]],
        results: Callable[[], list[ResultLayers]],
        on_mask: Callable[[], None],
    ) -> None:
        self._viewer, self._images, self._results, self._on_mask = viewer, images, results, on_mask
        self._listened: Labels | None = None
        self.mask = mw.ComboBox(choices=self._masks, nullable=True, value=None, tooltip=_TIPS["mask"])
        self.new_mask = mw.PushButton(text="New", tooltip=_TIPS["new"])
        self.beam = mw.ComboBox(
            label="Direct beam", choices=self._beams, nullable=True, value=None, tooltip=_TIPS["beam"]
        )
        self.buttons = {
            role: mw.PushButton(text=role, enabled=False, tooltip=_TIPS[f"edit {role}"])
            for role in ("beam", "spots", "vectors")
        }
        self.widgets = [
            row_of("Mask", self.mask, self.new_mask),
            self.beam,
            row_of("Change", *self.buttons.values()),
        ]
        self.new_mask.clicked.connect(self.make_mask)
        self.mask.changed.connect(self._on_choice)
        for role, button in self.buttons.items():
            button.clicked.connect(lambda _=None, role=role: self.take(role))

    # ---- what is given -------------------------------------------------------------------------------------------

    def given(self, sources: Sequence[Source]) -> dict[tuple[str, int], Edits]:
        """Return beams and masks for a run.

        Parameters
        ----------
        sources : sequence of Source
            Layers and frames of the run.

        Returns
        -------
        dict of (layer id, frame) to Edits
            Frames for which something is given.

        Raises
        ------
        ValueError
            If the mask has another shape than the frames.
        """
        if self.mask.value is None and self.beam.value is None:
            return {}
        layers = {str(layer.unique_id): layer for layer in self._viewer.layers}
        found: dict[tuple[str, int], Edits] = {}
        for source in sources:
            for frame in source.frames:
                mask, beam = self.mask_of(source, frame), None
                if self.beam.value is not None:
                    beam = beam_of_frame(self.beam.value, layers[source.layer_id], source, frame)
                if mask is not None or beam is not None:
                    found[source.layer_id, frame] = Edits(beam_rc=beam, mask=mask)
        return found

    def mask_of(self, source: Source, frame: int) -> np.ndarray | None:
        """Return the mask of a frame, None where nothing is painted; see `mask_of_frame`."""
        layer = self.mask.value
        return None if layer is None else mask_of_frame(layer, source, frame)

    # ---- layers --------------------------------------------------------------------------------------------------

    def make_mask(self, _: object = None) -> Labels | None:
        """Add an empty mask over the first image of a run, choose it and let the user paint."""
        images = self._images()
        if not images:
            return None
        image = images[0]
        shape = image.level_shapes[0] if image.multiscale else image.data.shape
        shape = tuple(int(n) for n in shape[: image.ndim])
        where = placement(image)
        if np.prod(shape, dtype=float) > _MAX_MASK_BYTES:
            where = {name: where[name][-2:] for name in ("scale", "translate", "units", "axis_labels")}
            shape = shape[-2:]
        layer = Labels(
            np.zeros(shape, dtype=np.uint8),
            name=f"{image.name} mask",
            opacity=0.5,
            metadata={METADATA_KEY: {"role": "mask"}},
            **where,
        )
        self._viewer.add_layer(layer)
        self.mask.reset_choices()
        self.mask.value = layer
        layer.brush_size = max(1, round(_BRUSH * min(shape[-2:])))
        layer.mode = "paint"
        return layer

    def take(self, role: str) -> Layer | None:
        """Select a result layer, so that the mouse changes it: that of the image which is shown."""
        found = [item for item in self._results() if item.layer(role) is not None]
        shown = [item for item in found if item.image.visible] or found
        if not shown:
            return None
        layer = shown[0].layer(role)
        layer.visible = True
        self._viewer.layers.selection.active = layer
        layer.mode = "select"
        return layer

    def update(self) -> None:
        """Enable the buttons of the layers that are there."""
        for role, button in self.buttons.items():
            button.enabled = any(item.layer(role) is not None for item in self._results())

    def release(self) -> None:
        """Stop listening to the mask."""
        self._listen(None)

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _on_choice(self, layer: Labels | None) -> None:
        self._listen(layer)
        self._on_mask()

    def _listen(self, layer: Labels | None) -> None:
        """Follow strokes, fills, undo and new data of one layer."""
        if self._listened is layer:
            return
        for old, connect in ((self._listened, False), (layer, True)):
            if old is not None:
                # undo tells of itself by drawing the layer anew only
                for event in (old.events.paint, old.events.data, old.events.set_data):
                    (event.connect if connect else event.disconnect)(self._on_paint)
        self._listened = layer

    def _on_paint(self, _: object = None) -> None:
        self._on_mask()

    def _masks(self, _: Any = None) -> list[tuple[str, Labels]]:
        return [(layer.name, layer) for layer in self._viewer.layers if isinstance(layer, Labels)]

    def _beams(self, _: Any = None) -> list[tuple[str, Points]]:
        return [
            (layer.name, layer)
            for layer in self._viewer.layers
            if isinstance(layer, Points) and _may_hold_beams(layer)
        ]


def _may_hold_beams(layer: Points) -> bool:
    """Tell whether a points layer is none of ours, or ours of beams."""
    about = layer.metadata.get(METADATA_KEY)
    role = about.get("role") if isinstance(about, dict) else None
    return (derived_from(layer) is None and role is None) or role == "beam"
