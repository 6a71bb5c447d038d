"""What a training run measures on its way, in its folder: lines of CSV, and the same for TensorBoard."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from napari_sadp._atomic import atomic_write
from napari_sadp.models.event_file import EventFile

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sadp.models.run import TrainingRun

_TRAINING, _VALIDATION = "metrics.csv", "validation.csv"
_COLUMNS = ("samples", "seconds", "loss", "accuracy")


class RunLog:
    """Writes the curves of a run; what a killed run wrote after its checkpoint is measured again, and goes first.

    Parameters
    ----------
    run : TrainingRun
        The run, at the samples of its checkpoint.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run, self.events = run, None
        if not run.workers.is_first:
            return
        for name in (_TRAINING, _VALIDATION):
            _cut_back(run.folder / name, run.samples)
        folder = run.folder / "tensorboard"
        before = any(folder.glob("events.out.tfevents.*"))
        self.events = EventFile(folder)
        if before:
            self.events.purge(run.samples + 1)

    def training(self) -> None:
        """Write loss and accuracy of training."""
        run = self.run
        self._write(_TRAINING, "train", run.loss, run.accuracy)

    def validation(self, loss: float, accuracy: float) -> None:
        """Write loss and accuracy on held-out structures."""
        self._write(_VALIDATION, "validation", loss, accuracy)

    def _write(self, name: str, kind: str, loss: float, accuracy: float) -> None:
        run = self.run
        if self.events is None:
            return
        path = run.folder / name
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if fresh:
                writer.writerow(_COLUMNS)
            writer.writerow([run.samples, f"{run.seconds:.1f}", f"{loss:.4f}", f"{accuracy:.4f}"])
        values = {f"loss/{kind}": loss, f"accuracy/{kind}": accuracy}
        if kind == "train":
            values["learning rate"] = float(run.learning_rate)
        self.events.add(run.samples, values)


def _cut_back(path: Path, samples: int) -> None:
    """Drop the lines of a CSV that are beyond a number of images, and what a kill left of a line."""
    if not path.exists():
        return
    _, *lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True) or [""]
    kept = [line for line in lines if _samples_of(line) <= samples]
    if not kept:
        path.unlink()
    elif kept != lines:
        with atomic_write(path, newline="") as stream:
            csv.writer(stream).writerow(_COLUMNS)
            stream.writelines(kept)


def _samples_of(line: str) -> float:
    """Return the images that a line of a CSV was written after; infinite for half a line."""
    words = line.split(",")
    whole = line.endswith("\n") and len(words) == len(_COLUMNS) and words[0].isdigit()
    return int(words[0]) if whole else float("inf")
