"""The *Identify* widget: from the selected image layers to pattern classes and space groups.

The widget collects parameters, runs `identify_sources` in another thread and shows what comes back. Only this thread
touches viewer, layers and widgets. What the user changes in the results afterwards is followed by `_edit`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import magicgui.widgets as mw
import numpy as np
from napari.layers import Image
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_warning

from napari_sadp.widgets._corrections import Corrections, Start
from napari_sadp.widgets._edit import Editor
from napari_sadp.widgets._edit_panel import EditPanel
from napari_sadp.widgets._layers import derived_from, role_of
from napari_sadp.widgets._open import PatternDrop, choose_patterns, open_patterns
from napari_sadp.widgets._result_layers import ResultLayers
from napari_sadp.widgets._run_options import OptionsPanel
from napari_sadp.widgets._shared import Closer, log_own_fault, one_line, row_of, shown_frame, wrap_text
from napari_sadp.widgets._sources import Source, source_from_layer
from napari_sadp.widgets._status import summary
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
_MIN_WIDTH = 400
_TIPS = {
    "image": "Used when no image layer is selected in the layer list.\n"
    "Select one stack or several layers there: all are taken as patterns of one crystal.",
    "open": "Open files of any format that the package reads, with their calibration: also tif, png and h5,\n"
    "which napari opens as plain images. Or drop them onto this widget.",
    "frames": "Of a stack: all frames, or the one that the viewer shows",
}


@dataclass(frozen=True, eq=False)
class _Shown:
    """What there was before a run: results, whether they are of several layers, their images, and corrections by hand."""

    done: list[FrameResult]
    outcome: Outcome | None
    several: bool
    group: list[str]
    corrections: Corrections


class IdentifyWidget(mw.Container):
    """Identify a crystal from zone-axis patterns in image layers.

    All selected image layers are taken: each frame of a stack and each single layer is one pattern of the same crystal.
    Without a selected image layer, those of the selected results are used, or the layer of the box. Direct beam, spots and lattice
    vectors are layers that the user may change; the frame is then analysed again, and everything after it. A new run of the same frames
    starts from these corrections, until *Reset* drops them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer; napari gives it.

    Attributes
    ----------
    outcome : Outcome or None
        Results of the last run, of a cancelled one as far as it came, with the user's changes; one without any result leaves
        those of the run before.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._worker: GeneratorWorker | None = None
        self._done: list[FrameResult] = []
        self._total = 0
        self._several = False
        # the images that belong together while a layer of one of them is selected
        self._group: list[str] = []
        self._corrections, self._start, self._folder = Corrections(), Start({}), ""
        self._closed = False
        self.outcome: Outcome | None = None
        self._before: _Shown | None = None
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
                row_of("Pattern", self.image, self.open_button),
                self.what,
                self.frames,
                *self.edit.widgets,
                *self.run_options.widgets,
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
        self.frames.label = self.frames.label  # makes magicgui align all labels
        self._drop = PatternDrop(self._open, self.native)
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.open_button.clicked.connect(self.open_files)
        self.edit.reset.clicked.connect(self.reset_corrections)
        self.pattern_table.chosen.connect(self._show_row)
        self.image.changed.connect(self._update_what)
        self.frames.changed.connect(self._update_what)
        # the viewer keeps weak references to bound methods only, so that it does not hold a closed widget
        viewer.layers.selection.events.changed.connect(self._update_what)
        viewer.layers.events.removed.connect(self._update_what)
        self._update_what()

    def _make_options(self) -> None:
        self.image = mw.create_widget(annotation=Image, label="Pattern", options={"tooltip": _TIPS["image"]})
        self.open_button = mw.PushButton(text="Open …", tooltip=_TIPS["open"])
        self.what = mw.Label(value="", label="Identifies")
        self.frames = mw.ComboBox(
            label="Frames", choices=[("all frames", _ALL), ("shown frame", _SHOWN)], tooltip=_TIPS["frames"]
        )
        self.edit = EditPanel(
            self._viewer,
            self.source_layers,
            lambda: self._editor.layers,
            on_mask=self._on_mask,
            on_choice=self._on_mask_choice,
            on_new=self._on_new,
        )
        self.run_options = OptionsPanel()
        self.weights, self.device, self.nodes, self.left_out, self.covers, self.network, self.faintest = (
            getattr(self.run_options, name)
            for name in ("weights", "device", "nodes", "left_out", "covers", "network", "faintest")
        )
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
        ours = self._group
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
        self._update_buttons()

    def _update_buttons(self) -> None:
        """Enable what can be changed or dropped now."""
        named = {str(layer.unique_id) for layer in self.source_layers()}
        self.edit.update(corrected=self._worker is None and self._corrections.of_layers(named))

    def _on_new(self, images: list[Image]) -> None:
        """Keep together what was selected, before a layer made for one of them takes the selection."""
        self._group = [str(image.unique_id) for image in images]

    # ---- files ---------------------------------------------------------------------------------------------------

    def open_files(self, _: object = None) -> None:
        """Let the user choose files, and open them."""
        self._open(choose_patterns(self.native, self._folder))

    def _open(self, paths: list[Path]) -> None:
        if paths:
            self._folder = str(paths[0].parent)
            open_patterns(self._viewer, paths)

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
        options = self.run_options.read()
        self._corrections.read(self._editor.read())
        self._corrections.keep_only({str(layer.unique_id) for layer in self._viewer.layers})
        before = _Shown(self._done, self.outcome, self._several, self._group, self._corrections.copy())
        self._start = self._corrections.start(sources, given)
        self._done, self._total, self.outcome = [], sum(len(source.frames) for source in sources), None
        self._group = [source.layer_id for source in sources]
        self._several = len(sources) > 1
        self._warn(sources)
        self.pattern_table.empty()
        self.group_table.empty()
        self._say("loading the network …", self._start.text)
        worker = create_worker(
            identify_sources,
            sources,
            options,
            given=self._start.edits,
            _progress={"total": self._total + 1, "desc": "Identifying"},
            _ignore_errors=True,  # they are shown by _on_error
        )
        worker.yielded.connect(self._on_frame)
        worker.returned.connect(lambda outcome: self._on_outcome(outcome, options))
        worker.aborted.connect(lambda: self._on_cancelled(options))
        worker.errored.connect(self._on_run_error)
        worker.finished.connect(lambda: self._on_finished(options))
        self._before = before if before.outcome is not None else None
        self._editor.hold()
        self._set_running(worker)
        worker.start()
        return worker

    def _warn(self, sources: list[Source]) -> None:
        """Tell what of the things that were given does not count in this run."""
        for remark in (self.edit.mask_remark(sources)[0], self.edit.beam_remark(sources)):
            if remark:
                show_warning(remark)
        if self._start.changed:
            names = ", ".join(self._start.changed)
            show_warning(f"{names}: data or proportions of pixels changed, corrections by hand dropped.")

    def _say(self, *lines: str) -> None:
        self.summary.value = "\n".join(line for line in lines if line)

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
        self._update_buttons()

    def _on_frame(self, item: FrameResult | None) -> None:
        if self._closed:
            return
        if item is not None:
            self._done.append(item)
            self.pattern_table.add(item, name_layer=self._several)
        if self._worker is not None and not self._worker.abort_requested:
            self._say(f"{len(self._done)} of {self._total} patterns done", self._start.text)

    def _on_outcome(self, outcome: Outcome, options: RunOptions) -> None:
        if self._closed:
            return
        self._show_outcome(outcome, options)
        self.summary.value = summary(outcome, self._start.text)

    def _on_cancelled(self, options: RunOptions) -> None:
        if self._closed:
            return
        if not self._done:
            kept = "; the results of the run before are still there" if self._restore() else ""
            self.summary.value = f"cancelled before the first pattern was done{kept}"
            return
        self._show_outcome(combine_frames(self._done, rule=options.rule), options)
        self._say(
            f"cancelled after {len(self._done)} of {self._total} patterns",
            summary(self.outcome, self._start.text),
        )

    def _on_run_error(self, error: Exception) -> None:
        if not self._closed:
            self._restore()
            self._on_error(error)

    def _on_error(self, error: Exception) -> None:
        if self._closed:
            return
        self.summary.value = f"failed: {one_line(error)}"
        log_own_fault(_LOGGER, "identification", error)
        show_error(one_line(error))

    def _on_finished(self, options: RunOptions) -> None:
        if self._closed:
            return
        try:
            if self._editor.held:
                self._on_cancelled(options)  # in the last step, of which the worker says nothing
        finally:
            self._set_running(None)

    def _restore(self) -> bool:
        """Go on with the results of the run before, where this one has none to put in their place; return whether there are any."""
        before, self._before = self._before, None
        if before is not None:
            self._done, self.outcome, self._several = before.done, before.outcome, before.several
            self._group, self._corrections = before.group, before.corrections
            self.pattern_table.empty()
            for item in self._done:
                self.pattern_table.add(item, name_layer=self._several)
            self.group_table.show_outcome(self.outcome)
        self._editor.resume()
        return before is not None

    # ---- results -------------------------------------------------------------------------------------------------

    def _show_outcome(self, outcome: Outcome, options: RunOptions) -> None:
        # before other layers take the place of those that were changed during the run
        changes = self._editor.changes()
        self._corrections.read(changes)
        self.outcome, self._before = outcome, None
        self.group_table.show_outcome(outcome)
        by_id = {str(layer.unique_id): layer for layer in self._viewer.layers}
        sources = {item.source.layer_id: item.source for item in outcome.frames}
        present = [by_id[key] for key in sources if key in by_id]
        missing = [source.name for key, source in sources.items() if key not in by_id]
        if missing:
            show_warning(f"{', '.join(missing)}: removed during the run, its results are in the table only.")
        beams = self.edit.beam.value
        beams_of = derived_from(beams) if beams is not None and role_of(beams) == "beam" else None
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
                    left_out=options.left_out,
                    on_edit=self._editor.schedule,
                )
            )
            if beams_of == source.layer_id and shown[-1].layer("beam") is not None:
                # the layer that gave the beams was replaced
                self.edit.beam.reset_choices()
                self.edit.beam.value = shown[-1].layer("beam")
        self._editor.begin(self._done, shown, options, changes)
        # adding a layer selects it; the next run is to take the same images
        self._viewer.layers.selection = set(present)
        if len(present) == 1:
            self.image.value = present[0]
        elif len(present) > 1:
            self._show_row(0)

    # ---- changes by the user -------------------------------------------------------------------------------------

    def reset_corrections(self, _: object = None) -> None:
        """Drop the corrections of the patterns that a run would use now, and analyse these again."""
        if self._worker is not None:
            return
        try:
            sources = self._sources()
        except ValueError as error:
            show_error(one_line(error))
            return
        self._corrections.read(self._editor.read())
        beams = self._corrections.forget(sources, self.edit.beams(sources))
        if not beams:
            show_warning("The shown frame has no corrections: those that there are belong to other frames.")
            return
        self._editor.reset(beams)
        self._update_buttons()

    def _on_mask(self) -> None:
        if not self._closed:
            self._editor.schedule()

    def _on_mask_choice(self) -> None:
        """Tell of a mask of another shape at once, where there are results that it should change."""
        if self._closed:
            return
        remark, useless = self.edit.mask_remark(list(dict.fromkeys(item.source for item in self._done)))
        if remark:
            (show_error if useless else show_warning)(remark)
        self._editor.schedule()

    def _on_editor(self) -> None:
        """Say whether changes are being followed."""
        if self._closed or self._worker is not None:
            return
        self._corrections.read(self._editor.given())
        self._update_buttons()
        self.cancel_button.enabled = self._editor.busy
        if self._editor.busy:
            self.summary.value = "analysing what you changed …"
        elif self.summary.value.startswith("analysing") and self.outcome is not None:
            self.summary.value = summary(self.outcome)

    def _on_edited(self, number: int, item: FrameResult) -> None:
        self.pattern_table.show_result(number, item)

    def _on_edited_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.group_table.show_outcome(outcome)
        self.summary.value = summary(outcome)

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


__all__ = ["IdentifyWidget"]
