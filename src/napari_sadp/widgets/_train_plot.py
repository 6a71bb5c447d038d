"""Loss and accuracy of a training run as they come, drawn by matplotlib in the colours of the viewer."""

from __future__ import annotations

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure

_LOSS, _ACCURACY = "#e08a3c", "#4da3e0"
_MIN_HEIGHT = 220  # px


class TrainPlot(FigureCanvasQTAgg):
    """Curves over the images seen: loss on the left axis, accuracy on the right one.

    Parameters
    ----------
    text, background : str
        Colours of the viewer.
    """

    def __init__(self, text: str = "#d0d0d0", background: str = "#262930") -> None:
        super().__init__(Figure(figsize=(4.0, 2.4), layout="constrained", facecolor=background))
        self.setMinimumHeight(_MIN_HEIGHT)
        self.losses = self.figure.add_subplot(facecolor=background)
        self.accuracies = self.losses.twinx()
        for axes, name, colour in ((self.losses, "loss", _LOSS), (self.accuracies, "accuracy", _ACCURACY)):
            axes.set_ylabel(name, color=colour)
            axes.tick_params(colors=text, labelsize=8)
            for spine in axes.spines.values():
                spine.set_color(text)
        self.losses.set_xlabel("images seen", color=text)
        self.accuracies.set_ylim(0, 1.02)
        (self._loss,) = self.losses.plot([], [], color=_LOSS, lw=1.2)
        (self._accuracy,) = self.accuracies.plot([], [], color=_ACCURACY, lw=1.2, label="training")
        (self._held_out,) = self.accuracies.plot(
            [], [], color=_ACCURACY, ls="none", marker="o", ms=5, label="held-out structures"
        )
        legend = self.accuracies.legend(loc="center right", fontsize=7, frameon=False)
        for entry in legend.get_texts():
            entry.set_color(text)
        self.empty()

    def empty(self) -> None:
        """Forget all points."""
        self._points: list[tuple[float, float, float]] = []
        self._validations: list[tuple[float, float]] = []
        self._redraw()

    def add(self, samples: int, loss: float, accuracy: float) -> None:
        """Add a point of the training.

        Parameters
        ----------
        samples : int
            Images seen.
        loss, accuracy : float
            Nothing is added where they are nan.
        """
        if loss == loss:
            self._points.append((samples, loss, accuracy))
            self._redraw()

    def add_validation(self, samples: int, accuracy: float) -> None:
        """Add the accuracy on held-out structures, once for every number of images seen."""
        if samples and (not self._validations or self._validations[-1][0] != samples):
            self._validations.append((samples, accuracy))
            self._redraw()

    def _redraw(self) -> None:
        samples, losses, accuracies = zip(*self._points, strict=True) if self._points else ((), (), ())
        self._loss.set_data(samples, losses)
        self._accuracy.set_data(samples, accuracies)
        self._held_out.set_data(*(zip(*self._validations, strict=True) if self._validations else ((), ())))
        if losses:
            self.losses.set_ylim(0, 1.05 * max(losses))
            self.losses.set_xlim(0, 1.02 * max(*samples, 1))
        self.draw_idle()
