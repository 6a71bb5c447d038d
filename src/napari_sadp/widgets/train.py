"""The *Train* widget: a network of one's own, for other groups or another budget.

The widget collects settings, runs `train_network` in another thread and shows what comes back. Only this thread touches widgets.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import magicgui.widgets as mw
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from napari.utils.theme import get_theme

from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS
from napari_sadp.labels.spacegroups import ARTICLE_GROUPS
from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.recipe import IMAGENET, TrainConfig
from napari_sadp.models.registry import CHECKPOINT, check_new_name, list_weights, runs_folder
from napari_sadp.widgets._shared import (
    NETWORKS,
    Closer,
    follow_networks,
    log_own_fault,
    one_line,
    row_of,
    wrap_text,
)
from napari_sadp.widgets._train_plot import TrainPlot
from napari_sadp.widgets._train_work import Halt, Trained, train_network

if TYPE_CHECKING:
    import napari.viewer
    from napari.qt.threading import GeneratorWorker

    from napari_sadp.models.train import TrainProgress

_LOGGER = logging.getLogger(__name__)

_SCRATCH, _IMAGENET = "from scratch", "ImageNet, downloaded"
_DEVICES = ("auto", "cpu", "cuda", "mps")
_MIN_WIDTH = 420
_TIPS = {
    "groups": "Cubic space groups that the network is to tell apart, 195 to 230, such as 221, 225.\n"
    "The pattern classes follow from them.",
    "architecture": "More layers are better with more time: ResNet18 for minutes to hours on a CPU,\n"
    "ResNet50 and ResNet101 for a GPU",
    "size": "Images are squares of so many pixels; time grows with the square",
    "minutes": "Time budget of the training steps. The learning rate follows it: a longer run is another run.\n"
    "Spots of the crystals, validations and what is none of the classes take their time besides.",
    "conversion": "What the images look like: turned by the lattice (aligned), as acquired (article),\n"
    "or the measured spots drawn anew without background and noise (rendered)",
    "crystals": "Training crystals of each extinction behaviour. More take longer to work out at the start.",
    "initial": "Start from a network of the same architecture and groups, or from weights of ImageNet",
    "name": "Name of the network, for Identify",
    "folder": "Checkpoints and curves of the run. Empty: a folder of that name with the data of the application.",
    "resume": "Go on with the run in the folder; its settings must be these, but for the time budget.\n"
    "The network of that name, if there is one already, is replaced at the end.",
    "device": "Where to train; auto takes a GPU if there is one",
    "stop": "End now; the weights that were best on held-out structures are kept",
}
_STAGES = {
    "crystals to train": "working out the spots of the training crystals",
    "crystals to validate": "working out the spots of held-out crystals",
    "train": "training",
    "validate": "measuring the best weights on held-out structures",
    "outliers": "learning what is none of the classes",
    "done": "done",
}


class TrainWidget(mw.Container):
    """Train a network on simulated patterns.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer; napari gives it.

    Attributes
    ----------
    trained : Trained or None
        The network of the last run that came to one.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._worker: GeneratorWorker | None = None
        self._halt = Halt()
        self._closed = False
        self.trained: Trained | None = None
        self._make_options()
        super().__init__(
            widgets=[
                self.groups,
                self.architecture,
                row_of("Image size", self.size, "px, time", self.minutes, "min"),
                self.conversion,
                self.crystals,
                self.initial,
                self.name_box,
                self.folder,
                self.resume,
                self.device,
                mw.Container(widgets=[self.run_button, self.stop_button], layout="horizontal", labels=False),
                self.status,
            ]
        )
        wrap_text(self.status)
        theme = get_theme(viewer.theme)
        self.plot = TrainPlot(theme.text.as_hex(), theme.background.as_hex())
        self.native.layout().addWidget(self.plot, 1)
        self.groups.label = self.groups.label  # makes magicgui align all labels
        self.native.setMinimumWidth(_MIN_WIDTH)
        self.native.destroyed.connect(Closer(self))
        self.run_button.clicked.connect(self.run)
        self.stop_button.clicked.connect(self.stop)

    def _make_options(self) -> None:
        default = TrainConfig()
        self.groups = mw.LineEdit(
            label="Space groups", value=", ".join(map(str, ARTICLE_GROUPS)), tooltip=_TIPS["groups"]
        )
        self.architecture = mw.ComboBox(
            label="Architecture", choices=list(ARCHITECTURES), tooltip=_TIPS["architecture"]
        )
        # the bounds are those of the settings, whose message says what is right
        self.size = mw.SpinBox(value=default.size, min=1, max=9999, step=16, tooltip=_TIPS["size"])
        self.minutes = mw.FloatSpinBox(value=40.0, min=0.0, max=1e6, step=5.0, tooltip=_TIPS["minutes"])
        self.conversion = mw.ComboBox(
            label="Images", choices=list(PATTERN_CONVERSIONS), tooltip=_TIPS["conversion"]
        )
        self.crystals = mw.SpinBox(
            label="Crystals",
            value=default.crystals_per_behaviour,
            min=0,
            max=100_000,
            tooltip=_TIPS["crystals"],
        )
        self.initial = mw.ComboBox(
            label="Start", choices=lambda _: [_SCRATCH, *list_weights(), _IMAGENET], tooltip=_TIPS["initial"]
        )
        follow_networks(self.initial)
        self.name_box = mw.LineEdit(label="Name", value="mine", tooltip=_TIPS["name"])
        self.folder = mw.FileEdit(
            label="Run folder", mode="d", nullable=True, value=None, tooltip=_TIPS["folder"]
        )
        self.resume = mw.CheckBox(text="go on with the run in the folder", tooltip=_TIPS["resume"])
        self.device = mw.ComboBox(label="Device", choices=list(_DEVICES), tooltip=_TIPS["device"])
        self.run_button = mw.PushButton(text="Train")
        self.stop_button = mw.PushButton(text="Stop", enabled=False, tooltip=_TIPS["stop"])
        self.status = mw.Label(value="", label="State")

    # ---- the run -------------------------------------------------------------------------------------------------

    def settings(self) -> TrainConfig:
        """Return the settings of the boxes.

        Raises
        ------
        ValueError
            If one is out of range; the message names it.
        """
        words = self.groups.value.replace(",", " ").split()
        if not words or not all(word.isdigit() for word in words):
            raise ValueError(
                f"groups is {self.groups.value!r}, expected space-group numbers such as 221, 225"
            )
        groups = tuple(sorted({int(word) for word in words}))
        if not all(195 <= number <= 230 for number in groups):
            raise ValueError(f"groups is {self.groups.value!r}, expected cubic space groups, 195 to 230")
        name = self.name_box.value.strip()
        check_new_name(name, replace=bool(self.resume.value))
        start = self.initial.value
        return TrainConfig(
            name=name,
            groups=groups,
            architecture=self.architecture.value,
            conversion=self.conversion.value,
            size=int(self.size.value),
            minutes=float(self.minutes.value),
            crystals_per_behaviour=int(self.crystals.value),
            initial={_SCRATCH: "", _IMAGENET: IMAGENET}.get(start) or ("" if start == _SCRATCH else start),
            device=self.device.value,
        )

    def run(self) -> GeneratorWorker | None:
        """Start training; progress and result arrive later.

        Returns
        -------
        GeneratorWorker or None
            The worker, None when a setting is wrong or a run is going on.
        """
        if self._worker is not None:
            return None
        try:
            config = self.settings()
            folder = self._run_folder(config.name)
        except ValueError as error:
            self.status.value = one_line(error)
            show_error(one_line(error))
            return None
        self._halt = Halt()
        self.plot.empty()
        self.status.value = "loading PyTorch …"
        worker = create_worker(
            train_network,
            config,
            folder,
            resume=bool(self.resume.value),
            halt=self._halt,
            _ignore_errors=True,  # they are shown by _on_error
        )
        worker.yielded.connect(self._on_step)
        worker.returned.connect(self._on_result)
        worker.errored.connect(self._on_error)
        worker.finished.connect(self._on_finished)
        self._set_running(worker)
        worker.start()
        return worker

    def _run_folder(self, name: str) -> Path:
        """Return where the run of a network is; one to go on with must be there."""
        chosen = self.folder.value
        folder = runs_folder() / name if chosen in (None, Path()) else Path(chosen)
        if self.resume.value and not (folder / CHECKPOINT).exists():
            raise ValueError(f"Run folder is {folder}, expected one with a run to go on with ({CHECKPOINT})")
        return folder

    def stop(self) -> None:
        """End the training; the best weights so far are measured and kept."""
        if self._worker is not None:
            self._halt.stop.set()
            self.stop_button.enabled = False
            self.status.value = "stopping …"

    def stop_work(self) -> None:
        """End the run for good, as when the window closes; its checkpoint stays in the folder."""
        self._closed = True
        # the worker is not told to quit: that would leave the run without closing it
        self._halt.leave.set()

    def _set_running(self, worker: GeneratorWorker | None) -> None:
        self._worker = worker
        self.run_button.enabled = worker is None
        self.stop_button.enabled = worker is not None

    def _on_step(self, step: TrainProgress | str) -> None:
        if self._closed:
            return
        if isinstance(step, str):
            self.status.value = f"device: {step}"
            return
        if step.stage == "train":
            self.plot.add(step.samples, step.loss, step.accuracy)
            self.plot.add_validation(step.validated_at, step.validation_accuracy)
        stage = _STAGES.get(step.stage, step.stage)
        text = f"{stage}, {100 * step.fraction:.0f} %"
        if step.loss == step.loss:
            text += f"\n{step.samples} images, {step.seconds / 60:.1f} min, loss {step.loss:.2f}, accuracy {step.accuracy:.3f}"
        if step.best_accuracy == step.best_accuracy:
            text += f"\nheld-out structures: {step.validation_accuracy:.3f}, best {step.best_accuracy:.3f}"
        if step.ahead == step.ahead:
            text += f"\nbesides the training about {step.ahead / 60:.1f} min more, to measure it"
        self.status.value = text

    def _on_result(self, trained: Trained | None) -> None:
        if self._closed:
            return
        if trained is None:
            self.status.value = "stopped before the training began"
            return
        self.trained = trained
        NETWORKS.changed.emit()
        metrics = trained.last.metrics
        self.status.value = (
            f"{trained.name}: right for {100 * metrics['accuracy_visible_class']:.1f} % of {metrics['validation_patterns']} patterns of "
            f"held-out structures, calibration error {metrics['calibration_error']:.3f}.\nIdentify offers it by this name."
        )

    def _on_error(self, error: Exception) -> None:
        if self._closed:
            return
        self.status.value = f"failed: {one_line(error)}"
        log_own_fault(_LOGGER, "training", error)
        show_error(one_line(error))

    def _on_finished(self) -> None:
        if not self._closed:
            self._set_running(None)


__all__ = ["TrainWidget"]
