"""The *Simulate* widget: the pattern of a structure on a zone axis, live, alone or over a measured one.

The widget collects parameters, runs the simulation in another thread, and shows what comes back; a simulation of a few
milliseconds is run here. Only this thread touches viewer, layers and widgets.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import magicgui.widgets as mw
from napari.utils.notifications import show_error
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_sadp.errors import SadpError
from napari_sadp.io.write import WRITE_EXTENSIONS, check_extension
from napari_sadp.widgets._latest import LatestRunner
from napari_sadp.widgets._shared import Closer, log_own_fault, one_line, row_of, wrap_text
from napari_sadp.widgets._simulate_layers import SimulatedLayers, image_placement
from napari_sadp.widgets._simulate_overlay import OverlayPanel
from napari_sadp.widgets._simulate_search import load
from napari_sadp.widgets._simulate_settings import SettingsPanel
from napari_sadp.widgets._simulate_structure import CifDrop, StructurePanel
from napari_sadp.widgets._simulate_work import AlignJob, Request, align, save, simulate, summary

if TYPE_CHECKING:
    import napari.viewer

    from napari_sadp.simulation.catalogue import CatalogueEntry
    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.widgets._simulate_work import Aligned, Answer

_LOGGER = logging.getLogger(__name__)

_MIN_WIDTH = 410
#: Changes that come within this time are one: for slow engines and labels [ms].
_PATIENCE_MS = {"kinematic": 0, "dynamical": 250}
_ZOOM_MS = 150
#: What took less time [s] and is no larger [px] is done at once: a thread would wait for the window to be drawn.
_QUICK_S, _QUICK_PX = 0.05, 512
#: A number that is only half typed may be wrong: notifications wait this long [ms].
_NOTIFY_MS = 900
_ERROR_STYLE = "color: #ff7b72"


class SimulateWidget(mw.Container):
    """Simulate the zone-axis pattern of a structure as layers, or lay it over a measured pattern.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer; napari gives it.

    Attributes
    ----------
    crystal : Crystal or None
        The structure that is loaded.
    answer : Answer or None
        What is shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._closed = False
        self.crystal: Crystal | None = None
        self.answer: Answer | None = None
        self.layers = SimulatedLayers(viewer)
        self.structure, self.settings = StructurePanel(), SettingsPanel()
        self.overlay = OverlayPanel(viewer, self._is_own)
        self._simulator = LatestRunner(self._on_answer, self._on_error, self._update_state)
        self._loader = LatestRunner(self._on_loaded, self._on_load_error, self._update_state)
        self._aligner = LatestRunner(self._on_aligned, self._on_error, self._update_state)
        self._saver = LatestRunner(self._on_saved, self._on_error, self._update_state)
        self.live = mw.CheckBox(text="live", value=True, tooltip="Every change updates the layers")
        self.run_button = mw.PushButton(text="Simulate", tooltip="Update the layers now")
        self.cancel_button = mw.PushButton(text="Cancel", enabled=False, tooltip="Forget the work going on")
        self.save_button = mw.PushButton(
            text="Save …", enabled=False, tooltip="Image (png, tif, hspy, emd) and CSV of the spots"
        )
        self.status = mw.Label(value="", label="Result")
        buttons = row_of("", self.live, self.run_button, self.cancel_button, self.save_button)
        super().__init__(
            widgets=[
                *self.structure.widgets,
                *self.settings.widgets,
                *self.overlay.widgets,
                buttons,
                self.status,
            ]
        )
        wrap_text(self.status)
        self.structure.finish()
        self.overlay.finish()
        self.native.layout().addStretch(1)
        self.native.setMinimumWidth(_MIN_WIDTH)
        self.native.destroyed.connect(Closer(self))
        self.structure.cif.label = self.structure.cif.label  # makes magicgui align all labels
        self._drop = CifDrop(self.structure, self.native)
        self._change_timer = self._timer(self._submit)
        self._zoom_timer = self._timer(self._relabel, _ZOOM_MS)
        self._notify_timer = self._timer(self._notify, _NOTIFY_MS)
        self._complaint = ""
        self._connect()

    def _timer(self, slot: Any, patience_ms: int = 0) -> QTimer:
        timer = QTimer(self.native)
        timer.setSingleShot(True)
        timer.setInterval(patience_ms)
        timer.timeout.connect(slot)
        return timer

    def _connect(self) -> None:
        self.structure.chosen.connect(self.load)
        for box in self.settings.inputs():
            box.changed.connect(self._on_change)
        for box in (*self.settings.zone, self.settings.voltage):
            box.changed.connect(self._forget_fit)
        for box in self.overlay.centre:
            box.changed.connect(self._on_centre)
        self.overlay.pixel.changed.connect(self._on_change)
        self.overlay.layer.changed.connect(self._on_overlay)
        self.overlay.align.changed.connect(self.align)
        self.settings.gamma.changed.connect(self._on_gamma)
        self.settings.labels.changed.connect(self._relabel)
        self.live.changed.connect(self._on_change)
        self.run_button.changed.connect(self.run)
        self.cancel_button.changed.connect(self.cancel)
        self.save_button.changed.connect(self._ask_and_save)
        # the viewer keeps weak references to bound methods only, so that it does not hold a closed widget
        self._viewer.scene.camera.events.zoom.connect(self._on_zoom)
        self._viewer.dims.events.current_step.connect(self._on_step)

    def _is_own(self, layer: Any) -> bool:
        return layer is self.layers.image

    # ---- structure -----------------------------------------------------------------------------------------------

    def load(self, structure: Path | CatalogueEntry) -> None:
        """Load a structure; it is shown and, when live, simulated once it is there.

        Parameters
        ----------
        structure : pathlib.Path or CatalogueEntry
            A CIF, or an entry of the catalogue.
        """
        self._loader.submit(load, structure)

    def _on_loaded(self, crystal: Crystal) -> None:
        self.crystal = crystal
        self.structure.show(crystal)
        self._forget_fit()
        self._on_change()
        if not self.live.value:
            self._say("")

    def _on_load_error(self, error: Exception) -> None:
        self._on_error(error)
        self._notify()

    # ---- simulation ----------------------------------------------------------------------------------------------

    def request(self) -> Request:
        """Return what the widget asks for now.

        Raises
        ------
        ValueError
            If there is no structure or a value is out of range.
        """
        if self.crystal is None:
            raise ValueError("There is no structure: choose a CIF or an entry of the catalogue first.")
        return Request(
            self.crystal,
            self.settings.zone_axis(),
            self.settings.settings(),
            self.settings.preset(),
            int(self.settings.seed.value),
            self.overlay.overlay(),
        )

    def run(self, _: object = None) -> None:
        """Simulate now, live or not; the layers follow."""
        self._change_timer.stop()
        if not self._submit():
            self._notify()

    def cancel(self, _: object = None) -> None:
        """Forget all work going on; what is shown stays."""
        self._change_timer.stop()
        for runner in self._runners():
            runner.cancel()
        if self.overlay.fit.value.endswith("…"):
            self.overlay.fit.value = ""
        self._say("cancelled")

    def stop_work(self) -> None:
        """Stop everything for good, as when the window closes; nothing is shown any more."""
        self._closed = True
        for runner in self._runners():
            runner.close()

    def _runners(self) -> tuple[LatestRunner, ...]:
        return self._simulator, self._loader, self._aligner, self._saver

    def _on_change(self, _: object = None) -> None:
        if self._closed or self.crystal is None or not self.live.value:
            return
        if self._is_quick():
            self._submit()
        else:
            self._change_timer.start(_PATIENCE_MS[self.settings.engine.value])

    def _is_quick(self) -> bool:
        """Tell whether the simulation is sure to take less time than the window needs to draw."""
        last = self.answer
        return (
            last is not None
            and last.request.crystal is self.crystal
            and last.seconds < _QUICK_S
            and (last.request.settings.engine, self.settings.engine.value) == ("kinematic", "kinematic")
            and self.settings.preset() is None
            and int(self.settings.size.value) <= max(_QUICK_PX, last.request.settings.size)
        )

    def _submit(self) -> bool:
        """Simulate, return whether the values are good."""
        try:
            request = self.request()
            answer = simulate(request) if self._is_quick() else None
        except (SadpError, ValueError) as error:
            self._on_error(error)
            return False
        if answer is not None:
            self._simulator.cancel()
            self._on_answer(answer)
            return True
        dynamical = request.settings.engine == "dynamical"
        self._simulator.submit(simulate, request, progress="Bloch waves" if dynamical else "")
        return True

    def _on_answer(self, answer: Answer) -> None:
        request = answer.request
        if self._simulator.superseded and request.settings.engine == "dynamical":
            return
        overlay = request.overlay
        target = self.overlay.target
        if overlay is not None and (target is None or target.source.layer_id != overlay.layer_id):
            return
        self.answer = answer
        if overlay is None:
            new = self.layers.show_image(answer, float(self.settings.gamma.value))
            if new:
                self.layers.image.events.gamma.connect(self._on_layer_gamma)
            self.layers.remove_beam()
            self.layers.show_spots(answer, image_placement(self.layers.image), self._label_count())
            if new and len(self._viewer.layers) <= 2:
                self._viewer.reset_view()
        elif self.layers.has(target.layer):
            where, beam = image_placement(target.layer), self.overlay.beam_in_layer()
            self.layers.show_spots(answer, where, self._label_count())
            if self.layers.show_beam(beam, where, 0.03 * min(overlay.shape)):
                self.layers.beam.events.data.connect(self._on_beam)
            self.layers.raise_above(target.layer)
        self._say(summary(answer))

    def _label_count(self) -> int:
        return int(self.settings.labels.value)

    # ---- overlay -------------------------------------------------------------------------------------------------

    def _on_overlay(self, layer: Any) -> None:
        if self._closed:
            return
        try:
            self.overlay.choose(self._frame_width)
        except (SadpError, ValueError) as error:
            self._on_error(error)
            self._notify()
            return
        if self.layers.has(self.layers.image):
            self.layers.image.visible = layer is None
        if layer is None:
            self.layers.remove_beam()
        elif self.overlay.target.basis_px is not None and self.crystal is not None:
            self.align()
        if self.crystal is not None and self.live.value:
            # not at once: the viewer may be in the middle of removing layers
            self._change_timer.start(_PATIENCE_MS[self.settings.engine.value])

    def _frame_width(self) -> float:
        """Return the width of the simulated frame [1/Å]."""
        settings = self.settings.settings()
        return settings.pixel_size() * settings.size

    def align(self, _: object = None) -> None:
        """Rotate and scale the simulation onto the lattice of the measured frame; the result arrives later."""
        target = self.overlay.target
        if target is None:
            return
        try:
            request = self.request()
        except (SadpError, ValueError) as error:
            self._on_error(error)
            self._notify()
            return
        self.overlay.fit.value = "aligning …" if target.basis_px is not None else "measuring the pattern …"
        job = AlignJob(request, target.source, target.basis_px, self.overlay.centre_given)
        self._aligner.submit(align, job)

    def _on_aligned(self, aligned: Aligned) -> None:
        overlay, target = aligned.job.request.overlay, self.overlay.target
        if target is None or (target.source.layer_id, target.frame) != (overlay.layer_id, overlay.frame):
            return
        self.overlay.show_alignment(aligned)
        with self.settings.rotation.changed.blocked():
            self.settings.rotation.value = aligned.alignment.rotation_deg
        self._submit()

    def _forget_fit(self, _: object = None) -> None:
        self.overlay.fit.value = ""

    def _on_centre(self, _: object = None) -> None:
        self.overlay.centre_given = True
        self._on_change()

    def _on_beam(self, _: object = None) -> None:
        """Follow the beam point that the user drags."""
        beam = self.layers.beam
        if self._closed or self.overlay.target is None or not self.layers.has(beam) or not len(beam.data):
            return
        if self.overlay.beam_dragged(beam.data[0, -2:]):
            self._on_change()

    def _on_step(self, _: object = None) -> None:
        target = self.overlay.target
        if not self._closed and target and self.layers.has(target.layer) and self.overlay.frame_changed():
            self._on_overlay(self.overlay.layer.value)

    # ---- display -------------------------------------------------------------------------------------------------

    def _on_gamma(self, gamma: float) -> None:
        if self.layers.has(self.layers.image):
            self.layers.image.gamma = float(gamma)

    def _on_layer_gamma(self, _: object = None) -> None:
        if not self._closed and self.layers.has(self.layers.image):
            with self.settings.gamma.changed.blocked():
                self.settings.gamma.value = float(self.layers.image.gamma)

    def _on_zoom(self, _: object = None) -> None:
        if not self._closed:
            self._zoom_timer.start()

    def _relabel(self, _: object = None) -> None:
        if self._closed or self.answer is None:
            return
        overlay = self.answer.request.overlay
        target = self.overlay.target
        layer = self.layers.image if overlay is None else target and target.layer
        if self.layers.has(layer):
            self.layers.relabel(image_placement(layer), self._label_count())

    # ---- saving --------------------------------------------------------------------------------------------------

    def _ask_and_save(self, _: object = None) -> None:
        patterns = " ".join(f"*{extension}" for extension in WRITE_EXTENSIONS)
        name, _filter = QFileDialog.getSaveFileName(
            self.native, "Save the simulated pattern", "simulated.hspy", f"Patterns ({patterns})"
        )
        if name:
            self.save(Path(name))

    def save(self, path: Path) -> None:
        """Write the image and, beside it, the CSV of its spots; in the background.

        Parameters
        ----------
        path : pathlib.Path
            Image file: png, tif, hspy or emd.
        """
        try:
            check_extension("path", path)
            request = replace(self.request(), overlay=None)
        except (SadpError, ValueError) as error:
            self._on_error(error)
            self._notify()
            return
        known = self.answer if self.answer is not None and self.answer.request == request else None
        self._saver.submit(save, request, known, Path(path), float(self.settings.gamma.value))

    def _on_saved(self, written: tuple[Path, Path]) -> None:
        image, table = written
        self._say(f"saved {image.name} and {table.name} in {image.parent}")

    # ---- state ---------------------------------------------------------------------------------------------------

    def _update_state(self) -> None:
        if self._closed:
            return
        self.cancel_button.enabled = any(runner.busy for runner in self._runners())
        self.save_button.enabled = self.crystal is not None and not self._saver.busy
        self.overlay.align.enabled = not self._aligner.busy
        if self._loader.busy:
            self._say("loading the structure …")
        elif self._saver.busy:
            self._say("saving …")
        elif self._simulator.busy and self.settings.engine.value == "dynamical":
            waits = self._simulator.superseded or self._simulator.stopping
            self._say("dynamical: computing …" + (" (the last one ends first)" if waits else ""))

    def _say(self, text: str) -> None:
        self._notify_timer.stop()
        self._complaint = ""
        self.status.native.setStyleSheet("")
        self.status.value = text

    def _on_error(self, error: Exception) -> None:
        if self._closed:
            return
        log_own_fault(_LOGGER, "simulation", error)
        message = one_line(error)
        self.status.native.setStyleSheet(_ERROR_STYLE)
        self.status.value = message
        if self.overlay.fit.value.endswith("…"):
            self.overlay.fit.value = ""
        self._complaint = message
        self._notify_timer.start()

    def _notify(self) -> None:
        """Show the error, if it is still one."""
        self._notify_timer.stop()
        if self._complaint and not self._closed:
            show_error(self._complaint)
            self._complaint = ""


__all__ = ["SimulateWidget"]
