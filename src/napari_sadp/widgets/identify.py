"""The *Identify* widget: from the selected image layers to pattern classes and space groups.

The widget collects parameters, runs `identify_sources` in another thread and shows what comes back. Only this thread
touches viewer, layers and widgets. What the user changes in the results afterwards is followed by `_edit`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import magicgui.widgets as mw
import numpy as np
from napari.layers import Image
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_warning

from napari_sadp.ensemble.combine import RULES
from napari_sadp.models.registry import BUNDLED, list_weights
from napari_sadp.report import headline, remarks
from napari_sadp.widgets._edit import Editor
from napari_sadp.widgets._edit_panel import EditPanel
from napari_sadp.widgets._layers import derived_from
from napari_sadp.widgets._result_layers import ResultLayers
from napari_sadp.widgets._shared import Closer, log_own_fault, one_line, shown_frame, wrap_text
from napari_sadp.widgets._sources import Source, source_from_layer
from napari_sadp.widgets._tables import GroupTable, PatternTable
from napari_sadp.widgets._work import (
    FrameResult,
    Outcome,
    RunOptions,
    combine_frames,
    identify_sources,
)

if TYPE_CHECKING:
    import napari.viewer
    from napari.qt.threading import GeneratorWorker

_LOGGER = logging.getLogger(__name__)

_ALL, _SHOWN = "all", "shown"
_DEVICES = ("auto", "cpu", "cuda", "mps")
_MIN_WIDTH = 400
_MAX_REFUSALS = 3
_TIPS = {
    "image": "Used when no image layer is selected in the layer list.\n"
    "Select one stack or several layers there: all are taken as patterns of one crystal.",
    "frames": "Of a stack: all frames, or the one that the viewer shows",
    "rule": "How patterns on different zone axes are combined:\n"
    "product: the patterns are independent evidence for one crystal\n"
    "mean: the average of the single answers, as in the article",
    "min_snr": "Smallest signal to noise ratio of a spot (height over the local noise, no unit).\n"
    "Lower finds weaker spots, and more that are none.",
    "faintest": "Spots below this share of the strongest diffracted beam do not count [%].\n"
    "0: all that stand out. Double diffraction, or traces of order, may light up what tables call absent.",
    "network": "The network that comes with the plugin, or one of your own:\n"
    "`napari-sadp weights --add` takes one in.",
    "weights": "Weight file (.safetensors, with its .json card beside it) of another network.\n"
    "Empty: the network above.",
    "device": "Where the network runs; auto takes a GPU if there is one",
    "nodes": "Add a layer with all nodes of the fitted lattice: present green, absent red, not to be known grey",
}


class IdentifyWidget(mw.Container):
    """Identify a crystal from zone-axis patterns in image layers.

    All selected image layers are taken: each frame of a stack and each single layer is one pattern of the same crystal.
    Without a selected image layer, those of the selected results are used, or the layer of the box. Direct beam, spots and lattice
    vectors are layers that the user may change; the frame is then analysed again, and everything after it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer; napari gives it.

    Attributes
    ----------
    outcome : Outcome or None
        Results of the last run, of a cancelled one as far as it came, with the user's changes.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._worker: GeneratorWorker | None = None
        self._done: list[FrameResult] = []
        self._total = 0
        self._several = False
        self._closed = False
        self.outcome: Outcome | None = None
        self._make_options()
        self._editor = Editor(
            mask_of=self.edit.mask_of,
            on_result=self._on_edited,
            on_outcome=self._on_edited_outcome,
            on_error=self._on_error,
            on_change=self._on_editor,
        )
        super().__init__(
            widgets=[
                self.image,
                self.what,
                self.frames,
                *self.edit.widgets,
                self.rule,
                self.min_snr,
                self.faintest,
                self.network,
                self.weights,
                self.device,
                self.nodes,
                mw.Container(
                    widgets=[self.run_button, self.cancel_button], layout="horizontal", labels=False
                ),
                self.summary,
            ]
        )
        for label in (self.what, self.summary):
            wrap_text(label)
        self.pattern_table, self.group_table = PatternTable(), GroupTable()
        layout = self.native.layout()
        layout.addWidget(self.pattern_table, 3)
        layout.addWidget(self.group_table, 2)
        self.native.setMinimumWidth(_MIN_WIDTH)
        self.native.destroyed.connect(Closer(self))
        self.image.label = self.image.label  # makes magicgui align all labels
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.pattern_table.chosen.connect(self._show_row)
        self.image.changed.connect(self._update_what)
        self.frames.changed.connect(self._update_what)
        # the viewer keeps weak references to bound methods only, so that it does not hold a closed widget
        viewer.layers.selection.events.changed.connect(self._update_what)
        viewer.layers.events.removed.connect(self._update_what)
        viewer.layers.events.removed.connect(self._on_removed)
        self._update_what()

    def _make_options(self) -> None:
        self.image = mw.create_widget(annotation=Image, label="Pattern", options={"tooltip": _TIPS["image"]})
        self.what = mw.Label(value="", label="Identifies")
        self.frames = mw.ComboBox(
            label="Frames", choices=[("all frames", _ALL), ("shown frame", _SHOWN)], tooltip=_TIPS["frames"]
        )
        self.edit = EditPanel(self._viewer, self.source_layers, lambda: self._editor.layers, self._on_mask)
        self.rule = mw.ComboBox(
            label="Combine by", choices=list(RULES), value="product", tooltip=_TIPS["rule"]
        )
        self.min_snr = mw.FloatSpinBox(
            label="Minimum S/N", value=6.0, min=1.0, max=1000.0, step=0.5, tooltip=_TIPS["min_snr"]
        )
        self.faintest = mw.FloatSpinBox(
            label="Faintest / %", value=0.0, min=0.0, max=50.0, step=0.1, tooltip=_TIPS["faintest"]
        )
        self.network = mw.ComboBox(
            label="Network", choices=lambda _: list(list_weights()), value=BUNDLED, tooltip=_TIPS["network"]
        )
        self.weights = mw.FileEdit(
            label="or its file",
            mode="r",
            filter="*.safetensors",
            nullable=True,
            value=None,
            tooltip=_TIPS["weights"],
        )
        self.device = mw.ComboBox(
            label="Device", choices=list(_DEVICES), value="auto", tooltip=_TIPS["device"]
        )
        self.nodes = mw.CheckBox(text="show lattice nodes", value=False, tooltip=_TIPS["nodes"])
        self.run_button = mw.PushButton(text="Identify", tooltip="Find beam, spots and lattice, and classify")
        self.cancel_button = mw.PushButton(
            text="Cancel", enabled=False, tooltip="Stop after the pattern at work"
        )
        self.summary = mw.Label(value="", label="Result")

    # ---- what to run on ------------------------------------------------------------------------------------------

    def source_layers(self) -> list[Image]:
        """Return the image layers that a run would use now.

        Returns
        -------
        list of napari.layers.Image
            The selected ones in the order of the layer list, otherwise those of the run whose results are selected, otherwise that of
            the box.
        """
        selection, layers = self._viewer.layers.selection, self._viewer.layers
        selected = [layer for layer in layers if isinstance(layer, Image) and layer in selection]
        if selected:
            return selected
        ours = {item.source.layer_id for item in self._done}
        if any(derived_from(layer) in ours or layer is self.edit.mask.value for layer in selection) and ours:
            return [layer for layer in layers if str(layer.unique_id) in ours]
        chosen = self.image.value
        return [chosen] if chosen is not None and chosen in self._viewer.layers else []

    def _sources(self) -> list[Source]:
        sources = [source_from_layer(layer) for layer in self.source_layers()]
        if self.frames.value == _ALL:
            return sources
        layers = {str(layer.unique_id): layer for layer in self._viewer.layers}
        return [
            replace(item, frames=(shown_frame(self._viewer, layers[item.layer_id], item),))
            for item in sources
        ]

    def _update_what(self, _: object = None) -> None:
        if self._closed:
            return
        layers = self.source_layers()
        names = ", ".join(layer.name for layer in layers)
        counts = [_n_frames(layer) for layer in layers]
        patterns = sum(counts) if self.frames.value == _ALL else len(counts)
        short = names if len(names) <= 48 else names[:47] + "…"
        self.what.value = (
            f"{short} ({patterns} pattern{'s' * (patterns != 1)})" if layers else "nothing: open a pattern"
        )
        self.what.tooltip = names

    # ---- the run -------------------------------------------------------------------------------------------------

    def run(self) -> GeneratorWorker | None:
        """Start identifying; results arrive later.

        Returns
        -------
        GeneratorWorker or None
            The worker, None when there is nothing to do or a run is going on.
        """
        if self._worker is not None:
            return None
        try:
            sources = self._sources()
            given = self.edit.given(sources)
        except ValueError as error:
            show_error(one_line(error))
            return None
        if not sources:
            show_error("There is no image layer: open a diffraction pattern first.")
            return None
        weights = self.weights.value
        options = RunOptions(
            rule=self.rule.value,
            min_snr=float(self.min_snr.value),
            faintest=float(self.faintest.value) / 100,
            weights=self.network.value if weights in (None, Path()) else Path(weights),
            device=self.device.value,
            nodes=bool(self.nodes.value),
        )
        self._editor.end()
        self._done, self._total, self.outcome = [], sum(len(source.frames) for source in sources), None
        self._several = len(sources) > 1
        self.pattern_table.empty()
        self.group_table.empty()
        self.summary.value = "loading the network …"
        worker = create_worker(
            identify_sources,
            sources,
            options,
            given=given,
            _progress={"total": self._total + 1, "desc": "Identifying"},
            _ignore_errors=True,  # they are shown by _on_error
        )
        worker.yielded.connect(self._on_frame)
        worker.returned.connect(lambda outcome: self._on_outcome(outcome, options))
        worker.aborted.connect(lambda: self._on_cancelled(options))
        worker.errored.connect(self._on_error)
        worker.finished.connect(self._on_finished)
        self._set_running(worker)
        worker.start()
        return worker

    def cancel(self) -> None:
        """Stop after the pattern at work; what was found until then is kept."""
        if self._worker is None:
            self._editor.cancel()
        else:
            self._worker.quit()
            self.cancel_button.enabled = False
            self.summary.value = "stopping …"

    def stop_work(self) -> None:
        """Stop the run for good, as when the window closes; nothing is shown any more."""
        self._closed = True
        self._editor.close()
        self.edit.release()
        if self._worker is not None:
            self._worker.quit()

    def _set_running(self, worker: GeneratorWorker | None) -> None:
        self._worker = worker
        self.run_button.enabled = worker is None
        self.cancel_button.enabled = worker is not None
        self.edit.update()

    def _on_frame(self, item: FrameResult | None) -> None:
        if self._closed:
            return
        if item is not None:
            self._done.append(item)
            self.pattern_table.add(item, name_layer=self._several)
        if self._worker is not None and not self._worker.abort_requested:
            self.summary.value = f"{len(self._done)} of {self._total} patterns done"

    def _on_outcome(self, outcome: Outcome, options: RunOptions) -> None:
        if self._closed:
            return
        self._show_outcome(outcome, options)
        self.summary.value = _summary(outcome)

    def _on_cancelled(self, options: RunOptions) -> None:
        if self._closed:
            return
        if not self._done:
            self.summary.value = "cancelled before the first pattern was done"
            return
        self._show_outcome(combine_frames(self._done, rule=options.rule), options)
        self.summary.value = (
            f"cancelled after {len(self._done)} of {self._total} patterns\n{_summary(self.outcome)}"
        )

    def _on_error(self, error: Exception) -> None:
        if self._closed:
            return
        self.summary.value = f"failed: {one_line(error)}"
        log_own_fault(_LOGGER, "identification", error)
        show_error(one_line(error))

    def _on_finished(self) -> None:
        if not self._closed:
            self._set_running(None)

    # ---- results -------------------------------------------------------------------------------------------------

    def _show_outcome(self, outcome: Outcome, options: RunOptions) -> None:
        self.outcome = outcome
        self.group_table.show_outcome(outcome)
        by_id = {str(layer.unique_id): layer for layer in self._viewer.layers}
        sources = {item.source.layer_id: item.source for item in outcome.frames}
        present = [by_id[key] for key in sources if key in by_id]
        missing = [source.name for key, source in sources.items() if key not in by_id]
        if missing:
            show_warning(f"{', '.join(missing)}: removed during the run, its results are in the table only.")
        beams_of = derived_from(self.edit.beam.value) if self.edit.beam.value is not None else None
        shown = []
        for layer in present:
            source = sources[str(layer.unique_id)]
            frames = [f for f in outcome.frames if f.source is source]
            shown.append(
                ResultLayers(
                    self._viewer,
                    layer,
                    source,
                    frames,
                    nodes=options.nodes,
                    on_edit=self._editor.schedule,
                )
            )
            if beams_of == source.layer_id and shown[-1].layer("beam") is not None:
                # the layer that gave the beams was replaced
                self.edit.beam.reset_choices()
                self.edit.beam.value = shown[-1].layer("beam")
        self._editor.begin(self._done, shown, options)
        # adding a layer selects it; the next run is to take the same images
        self._viewer.layers.selection = set(present)
        if len(present) == 1:
            self.image.value = present[0]
        elif len(present) > 1:
            self._show_row(0)

    # ---- changes by the user -------------------------------------------------------------------------------------

    def _on_mask(self) -> None:
        if not self._closed:
            self._editor.schedule()

    def _on_editor(self) -> None:
        """Say whether changes are being followed."""
        if self._closed or self._worker is not None:
            return
        self.cancel_button.enabled = self._editor.busy
        if self._editor.busy:
            self.summary.value = "analysing what you changed …"
        elif self.summary.value.startswith("analysing") and self.outcome is not None:
            self.summary.value = _summary(self.outcome)

    def _on_edited(self, number: int, item: FrameResult) -> None:
        self.pattern_table.show_result(number, item)

    def _on_edited_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.group_table.show_outcome(outcome)
        self.summary.value = _summary(outcome)

    def _on_removed(self, _: object = None) -> None:
        if not self._closed:
            self.edit.update()

    def _show_row(self, row: int) -> None:
        """Move the viewer to the frame of a row; of several image layers show the one."""
        if not 0 <= row < len(self._done):
            return
        item = self._done[row]
        layers = {str(layer.unique_id): layer for layer in self._viewer.layers}
        layer = layers.get(item.source.layer_id)
        if layer is None:
            return
        ours = {done.source.layer_id for done in self._done}
        if len(ours) > 1 and not self._viewer.canvas.grid.enabled:
            # they lie on top of each other
            for other in self._viewer.layers:
                owner = derived_from(other) or str(other.unique_id)
                if owner in ours:
                    other.visible = owner == item.source.layer_id
        index = item.source.navigation_index(item.frame)
        if index:
            world = layer.data_to_world((*index, 0, 0))
            for axis, position in enumerate(world[: len(index)]):
                self._viewer.dims.set_point(self._viewer.dims.ndim - layer.ndim + axis, position)


def _n_frames(layer: Image) -> int:
    shape = layer.level_shapes[0] if layer.multiscale else layer.data.shape
    return int(np.prod(shape[: layer.ndim - 2], dtype=int))


def _summary(outcome: Outcome) -> str:
    """Return the answer in one or two lines."""
    found = outcome.found
    text = headline(found)
    if not found.n_used:
        return "\n".join([text, *_refusals(outcome)])
    text += f"\n{found.n_used} of {len(found.patterns)} patterns used, {found.space_groups.rule} rule"
    text = "\n".join([text, *remarks(found)])
    if any(result.used and result.g1_inv_angstrom is None for result in found.patterns):
        text += "\nNot calibrated: lengths are in px; classes and space groups do not need it."
    return "\n".join([text, *_refusals(outcome)])


def _refusals(outcome: Outcome) -> list[str]:
    """Return why patterns were refused, of the first few: the table may be too narrow for a sentence."""
    refused = [item for item in outcome.frames if not item.result.used]
    lines = [
        f"{item.source.label(item.frame)} refused: {item.result.reason}: {item.result.detail}"
        for item in refused[:_MAX_REFUSALS]
    ]
    more = len(refused) - len(lines)
    return [*lines, f"and {more} more refused"] if more else lines


__all__ = ["IdentifyWidget"]
