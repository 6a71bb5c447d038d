"""The part of the *Identify* widget where the user gives a mask and a beam, and takes a result in hand to change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import magicgui.widgets as mw
import numpy as np
from napari.layers import Image, Labels, Points

from napari_sadp.geometry.edit import Edits
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.widgets._edit import MAX_LIVE_MASKS
from napari_sadp.widgets._given import (
    GIVEN_BEAM,
    GIVEN_MASK,
    beam_of_frame,
    counting_layers,
    layer_for,
    mask_fits,
    mask_misfit,
    mask_of_frame,
    points_by_image,
)
from napari_sadp.widgets._layers import BEAM_COLOUR, RESULT_ROLES, derived_from, placement, role_of
from napari_sadp.widgets._shared import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import napari.viewer
    from napari.layers import Layer

    from napari_sadp.widgets._result_layers import ResultLayers
    from napari_sadp.widgets._sources import Source

#: A mask for each frame of a stack larger than this would fill the memory; one for all frames is made instead.
_MAX_MASK_BYTES = 2**28
_BRUSH = 0.06  # of the shorter side
_CROSS = 0.04  # of the shorter side
_TIPS = {
    "mask": "A Labels layer: what is painted with any label is ignored.\n"
    "As large as the image: one mask for each frame; rows and columns only: one for all.\n"
    "A mask that New made counts for its image alone; while one is chosen, those of the other images count too.\n"
    "A Labels layer of your own counts for every image of its size.\n"
    f"Painting after a run of up to {MAX_LIVE_MASKS} patterns analyses the frame again.",
    "new mask": "Make a mask for the image that is shown, and paint it",
    "beam": "A Points layer with the direct beam of each frame, where you know it.\n"
    "Frames without a point: the beam is found.\n"
    "Beams of a run, and those that New made, count for their image alone; while one of the latter is chosen,\n"
    "those of the other images count too. A point of a layer of your own counts for the image that it lies in;\n"
    "where it lies in several images of a run it does not count: nothing says of which it is the beam.",
    "new beam": "Make a layer for the image that is shown, and click its direct beam",
    "edit beam": "Take the direct beam in hand: drag it, and the pattern is analysed again with it.\n"
    "Delete it, and the beam is found again.",
    "edit spots": "Take the spots in hand: select and delete those that are not of this crystal,\n"
    "or add missing ones (mode 'add points'). The lattice is fitted again.\n"
    "Spots of such a frame stay as they are in the next run, whatever its minimum S/N.",
    "edit vectors": "Take the lattice vectors in hand: drag the tips g1 and g2 to two nodes of the lattice that you see.\n"
    "Delete a tip, and the lattice is found again.",
    "reset": "Drop your corrections of beam, spots and vectors in the patterns above, and analyse these again.\n"
    "Until then they are kept, also in a new run. Masks and beams that are chosen above stay.",
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
        Called when a mask was painted.
    on_choice : callable
        Called when another mask was chosen.
    on_new : callable
        Gets the image layers of a run when a layer is made for one of them: adding it takes their selection away.

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
        *,
        on_mask: Callable[[], None],
        on_choice: Callable[[], None],
        on_new: Callable[[list[Image]], None],
    ) -> None:
        self._viewer, self._images, self._results = viewer, images, results
        self._on_mask, self._on_choice, self._on_new = on_mask, on_choice, on_new
        self._listened: list[Labels] = []
        self.mask = mw.ComboBox(choices=self._masks, nullable=True, value=None, tooltip=_TIPS["mask"])
        self.new_mask = mw.PushButton(text="New", tooltip=_TIPS["new mask"])
        self.beam = mw.ComboBox(choices=self._beams, nullable=True, value=None, tooltip=_TIPS["beam"])
        self.new_beam = mw.PushButton(text="New", tooltip=_TIPS["new beam"])
        self.reset = mw.PushButton(text="Reset", enabled=False, tooltip=_TIPS["reset"])
        self.buttons = {
            role: mw.PushButton(text=role, enabled=False, tooltip=_TIPS[f"edit {role}"])
            for role in ("beam", "spots", "vectors")
        }
        self.widgets = [
            row_of("Mask", self.mask, self.new_mask),
            row_of("Direct beam", self.beam, self.new_beam),
            row_of("Change", *self.buttons.values(), self.reset),
        ]
        self.new_mask.clicked.connect(self.make_mask)
        self.new_beam.clicked.connect(self.make_beam)
        self.mask.changed.connect(self._follow)
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
            If the mask fits none of the images.
        """
        remark, useless = self.mask_remark(sources)
        if useless:
            raise ValueError(remark)
        beams = self.beams(sources)
        found: dict[tuple[str, int], Edits] = {}
        for source in sources:
            for frame in source.frames:
                key = source.layer_id, frame
                mask, beam = self.mask_of(source, frame), beams.get(key)
                if mask is not None or beam is not None:
                    found[key] = Edits(beam_rc=beam, mask=mask)
        return found

    def beams(self, sources: Sequence[Source]) -> dict[tuple[str, int], np.ndarray]:
        """Return the direct beams (row, col) [px] of frames for which one is given; see `beam_of_frame`."""
        images = self._images_of(sources)
        rows: list[list[int] | None] = [None] * len(sources)
        if self._is_shared(self.beam.value, sources):
            rows = list(points_by_image(self.beam.value, images, sources)[0])
        found = {}
        for source, image, own in zip(sources, images, rows, strict=True):
            layer = layer_for(self.beam.value, self._viewer.layers, source.layer_id)
            for frame in source.frames if layer is not None else ():
                beam = beam_of_frame(layer, image, source, frame, own)
                if beam is not None:
                    found[source.layer_id, frame] = beam
        return found

    def mask_of(self, source: Source, frame: int) -> np.ndarray | None:
        """Return the mask of a frame, None where nothing is painted or the mask is one of other images; see `mask_of_frame`."""
        layer = layer_for(self.mask.value, self._viewer.layers, source.layer_id)
        return mask_of_frame(layer, source, frame) if layer is not None and mask_fits(layer, source) else None

    def mask_remark(self, sources: Sequence[Source]) -> tuple[str, bool]:
        """Return one line on images that the mask does not fit, nothing where it fits all; and whether it fits none."""
        layers = [
            (layer_for(self.mask.value, self._viewer.layers, source.layer_id), source) for source in sources
        ]
        pairs = [pair for pair in layers if pair[0] is not None]
        unfit = [pair for pair in pairs if not mask_fits(*pair)]
        if not unfit:
            return "", False
        if len(unfit) == len(pairs):
            return mask_misfit(*unfit[0]), True
        others = _names(source.name for _, source in unfit)
        return (
            f"mask layer {unfit[0][0].name!r} is not used for {others}, whose frames have another shape",
            False,
        )

    def beam_remark(self, sources: Sequence[Source]) -> str:
        """Return one line on points that lie in several images, nothing where there are none."""
        images = self._images_of(sources)
        if not self._is_shared(self.beam.value, sources):
            return ""
        _, shared = points_by_image(self.beam.value, images, sources)
        if not shared:
            return ""
        return (
            f"points of layer {self.beam.value.name!r} lie in {_names(sources[k].name for k in shared)} alike and are not used: "
            "nothing says of which image they are the beam; New beside Direct beam makes a layer for one"
        )

    def _images_of(self, sources: Sequence[Source]) -> list[Image]:
        layers = {str(layer.unique_id): layer for layer in self._viewer.layers}
        return [layers[source.layer_id] for source in sources]

    @staticmethod
    def _is_shared(layer: Points | None, sources: Sequence[Source]) -> bool:
        """Tell whether a points layer of no image is to serve several."""
        return layer is not None and derived_from(layer) is None and len(sources) > 1

    # ---- layers --------------------------------------------------------------------------------------------------

    def make_mask(self, _: object = None) -> Labels | None:
        """Add an empty mask over the image of a run that is shown, choose it and let the user paint."""
        images = self._images()
        if not images:
            return None
        image = self._shown(images)
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
            metadata=_made_for(image, GIVEN_MASK),
            **where,
        )
        self._add(layer, self.mask, images)
        layer.brush_size = max(1, round(_BRUSH * min(shape[-2:])))
        layer.mode = "paint"
        return layer

    def make_beam(self, _: object = None) -> Points | None:
        """Add an empty points layer over the image of a run that is shown, choose it and let the user click the direct beam."""
        images = self._images()
        if not images:
            return None
        image = self._shown(images)
        shape = image.level_shapes[0] if image.multiscale else image.data.shape
        layer = Points(
            np.zeros((0, image.ndim)),
            name=f"{image.name} given beam",
            symbol="cross",
            face_color=BEAM_COLOUR,
            size=_CROSS * min(shape[image.ndim - 2 : image.ndim]),
            metadata=_made_for(image, GIVEN_BEAM),
            **placement(image),
        )
        self._add(layer, self.beam, images)
        layer.mode = "add"
        return layer

    def _shown(self, images: list[Image]) -> Image:
        """Return the image that the user looks at: the active one, or the visible one that is drawn last."""
        active = self._viewer.layers.selection.active
        if active in images:
            return active
        return ([image for image in images if image.visible] or images)[-1]

    def _add(self, layer: Layer, box: mw.ComboBox, images: list[Image]) -> None:
        self._on_new(images)
        self._viewer.add_layer(layer)
        box.reset_choices()
        box.value = layer

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

    def update(self, *, corrected: bool) -> None:
        """Enable the buttons of the layers that are there, and *Reset* where there are corrections."""
        self.reset.enabled = corrected
        for role, button in self.buttons.items():
            button.enabled = any(item.layer(role) is not None for item in self._results())

    def release(self) -> None:
        """Stop listening to masks."""
        self._listen([])

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _follow(self, layer: Labels | None) -> None:
        self._listen(counting_layers(layer, self._viewer.layers))
        self._on_choice()

    def _listen(self, layers: list[Labels]) -> None:
        """Follow strokes, fills, undo and new data of some layers."""
        for held, connect in ((self._listened, False), (layers, True)):
            for layer in held:
                # undo tells of itself by drawing the layer anew only
                for event in (layer.events.paint, layer.events.data, layer.events.set_data):
                    (event.connect if connect else event.disconnect)(self._on_paint)
        self._listened = layers

    def _on_paint(self, _: object = None) -> None:
        self._on_mask()

    def _masks(self, _: Any = None) -> list[tuple[str, Labels]]:
        return [
            (layer.name, layer)
            for layer in self._viewer.layers
            if isinstance(layer, Labels) and role_of(layer) not in RESULT_ROLES
        ]

    def _beams(self, _: Any = None) -> list[tuple[str, Points]]:
        return [
            (layer.name, layer)
            for layer in self._viewer.layers
            if isinstance(layer, Points) and _may_hold_beams(layer)
        ]


def _may_hold_beams(layer: Points) -> bool:
    """Tell whether a points layer is none of ours, or ours of beams."""
    role = role_of(layer)
    return (derived_from(layer) is None and role is None) or role in ("beam", GIVEN_BEAM)


def _made_for(image: Image, role: str) -> dict[str, Any]:
    return {METADATA_KEY: {"derived_from": str(image.unique_id), "role": role}}


def _names(names: Iterable[str]) -> str:
    """Return names as part of a sentence."""
    *first, last = (repr(name) for name in names)
    return f"{', '.join(first)} and {last}" if first else last
