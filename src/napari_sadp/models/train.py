"""Training: simulated patterns drawn on the device, a time or sample budget, checkpoints that survive a kill.

`train` is a generator: it yields a `TrainProgress` now and then, so that a terminal or a widget can show it, and closing it
stops the run with its state saved. A run folder holds ``checkpoint.safetensors`` (network, average,
optimiser, counters and settings), ``best.safetensors`` (the average that was best on held-out structures so far), ``spots_*.npz``
of a stream, ``metrics.csv`` and ``validation.csv``, the same for TensorBoard in ``tensorboard``, and, at the end, the weights with
their card. A generator holds its folder (``run.lock``) until it ends or is closed.
"""

from __future__ import annotations

import errno
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from napari_sadp.errors import CheckpointError
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.ahead import Ahead
from napari_sadp.models.calibrate import expected_calibration_error, fit_temperature
from napari_sadp.models.outliers import fit_outlier_steps
from napari_sadp.models.run import TrainingRun
from napari_sadp.models.run_card import card_of_run
from napari_sadp.models.run_log import RunLog
from napari_sadp.models.sources import Source, open_source_steps, outlier_source
from napari_sadp.models.weights import save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.outliers import OutlierScore
    from napari_sadp.models.recipe import TrainConfig

#: Errors of file systems that have no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@dataclass(frozen=True)
class TrainProgress:
    """Where a run stands.

    Parameters
    ----------
    stage : str
        ``"crystals to train"``, ``"crystals to validate"``, ``"train"``, ``"validate"``, ``"outliers"`` or ``"done"``.
    fraction : float
        Of the stage, 0 to 1.
    samples : int
        Images seen.
    seconds : float
        Time of the steps so far, over all resumptions [s]: what `TrainConfig.minutes` counts.
    loss, accuracy : float
        Moving averages over the training images; nan before the first step.
    validation_accuracy, best_accuracy : float
        The last one, and the best one, on images of held-out structures; nan before the first time.
    validated_at : int
        Images seen at the last one; 0 before the first time.
    beside : float
        Time that went into all else since the call [s]: the spots of the crystals, validations, checkpoints, the outlier score.
    ahead : float
        About how long validations and the outlier score will still take [s], while it trains; nan before the first validation.
    metrics : dict or None
        Validation, at the end.
    weights : pathlib.Path or None
        The weight file, at the end.
    """

    stage: str
    fraction: float
    samples: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    accuracy: float = float("nan")
    validation_accuracy: float = float("nan")
    best_accuracy: float = float("nan")
    validated_at: int = 0
    beside: float = 0.0
    ahead: float = float("nan")
    metrics: dict[str, Any] | None = None
    weights: Path | None = None


#: Images of a validation on the way.
_QUICK_IMAGES = 1000


def train(
    config: TrainConfig,
    folder: Path | str,
    *,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    workers: int = 1,
) -> Iterator[TrainProgress]:
    """Train a network.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    folder : path-like
        Run folder; made if missing.
    resume : bool
        Go on from the checkpoint in the folder, or begin where there is none; without it a checkpoint there is an error.
    stop : callable, optional
        Asked after every step; when it returns True, training ends there, and the best weights are measured and written.
    workers : int
        Processes that work out the spots of the crystals, see `napari_sadp.dataset.library.build_library`.

    Yields
    ------
    TrainProgress
        About once a second, and once at the end with metrics and weights.

    Raises
    ------
    CheckpointError
        If the folder holds a checkpoint of another run, or one at all without `resume`, or is not the same for all processes, or if
        another training writes to it now.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scheme = build_scheme(config.groups, config.zones)
    run = TrainingRun(config, scheme, folder, resume=resume)
    with _held(folder) if run.workers.is_first else nullcontext(True) as held:
        # all processes end, not only the one that asks
        if not (run.workers.agree(int(held), run.device) and held):
            raise CheckpointError(
                f"{folder}: another training writes there now; wait for its end, or name another folder"
            )
        if run.checkpoint.exists() and not resume:
            raise CheckpointError(f"{folder}: holds a checkpoint already; resume it or name another folder")
        if resume:
            run.load()
        yield from _trained(run, scheme, stop, workers)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a run folder, and tell whether that was possible; the system lets it go when the process ends, in whatever way."""
    path = folder / "run.lock"
    # a generator may be closed by another thread than that which began it
    options: dict[str, Any] = {"timeout": 0, "thread_local": False}
    try:
        lock = FileLock(path, fallback_to_soft=False, **options)  # a file that says so would outlive a kill
    except TypeError:  # filelock 3 has no such fallback
        lock = FileLock(path, **options)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{folder}: the file system knows no locks; see that no other training writes there", stacklevel=3
        )
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def _trained(
    run: TrainingRun, scheme: PatternScheme, stop: Callable[[], bool] | None, workers: int
) -> Iterator[TrainProgress]:
    """Train the network of a run; see `train`."""
    config, folder = run.config, run.folder
    if not run.workers.agree(run.samples, run.device):
        raise CheckpointError(
            f"{folder}: not the same for all processes, expected one folder that all machines share"
        )
    sources = {}
    for part in ("train", "validate"):
        yield TrainProgress(f"crystals to {part}", 0.0, run.samples, run.seconds, beside=run.beside)
        if not run.workers.is_first:
            run.workers.wait()  # for what the first one keeps in the folder
        steps = open_source_steps(
            config, scheme, validation=part == "validate", device=run.device, folder=folder, workers=workers
        )
        sources[part] = yield from _shown(steps, f"crystals to {part}", run)
        if run.workers.is_first:
            run.workers.wait()
    _same_crystals(run, asdict(sources["train"].trained_on))
    yield from _loop(run, sources["train"], sources["validate"], stop)
    run.workers.leave()
    if not run.workers.is_first:
        return
    run.take_best()
    about = {
        "samples": run.samples,
        "seconds": run.seconds,
        "loss": run.loss,
        "accuracy": run.accuracy,
        "validation_accuracy": run.best,
        "best_accuracy": run.best,
    }
    yield TrainProgress("validate", 0.0, **about, beside=run.beside)
    metrics, temperature = validate(run.average, sources["validate"], config.validation_samples)
    outliers = None
    if _outlier_images(run, sources["train"]):
        foreign = outlier_source(sources["train"], config, scheme, run.device)
        steps = fit_outlier_steps(run.average, sources["train"], foreign, config.outlier_images)
        outliers = yield from _shown_shares(steps, about, run)
    card = card_of_run(run, scheme, sources["train"], metrics, temperature, scored=outliers is not None)
    path = save_weights(folder, card, run.average, outliers)
    yield TrainProgress("done", 1.0, **about, beside=run.beside, metrics=metrics, weights=path)


def _outlier_images(run: TrainingRun, source: Source) -> int:
    """Return how many images the outlier score of a run is fitted on, those of no class included."""
    in_pictures = source.library is not None and source.conversion != "rendered"
    return 2 * run.config.outlier_images * in_pictures


def _same_crystals(run: TrainingRun, now: dict[str, str]) -> None:
    """Note what crystals a run is of, and refuse to go on with others, such as those of another catalogue of the user."""
    if run.trained_on not in (None, now):
        raise CheckpointError(
            f"{run.folder}: trained on structures held out by {run.trained_on['split']}, own catalogue "
            f"{run.trained_on['own'][:12] or 'none'}; this run has {now['split']}, {now['own'][:12] or 'none'}; use the same, or "
            "another folder"
        )
    run.trained_on = now


def _shown_shares(
    steps: Generator[float, None, OutlierScore], about: dict[str, float], run: TrainingRun
) -> Generator[TrainProgress, None, OutlierScore]:
    """Show the shares of a fit that are done; returns its result."""
    while True:
        try:
            share = next(steps)
        except StopIteration as end:
            return end.value
        yield TrainProgress("outliers", share, **about, beside=run.beside)


def _shown(
    steps: Generator[tuple[int, int], None, Source], stage: str, run: TrainingRun
) -> Generator[TrainProgress, None, Source]:
    """Show the steps of a source, about one a second; returns the source."""
    shown = time.monotonic()
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        if time.monotonic() - shown > 1:
            shown = time.monotonic()
            yield TrainProgress(stage, done / total, run.samples, run.seconds, beside=run.beside)


def _loop(
    run: TrainingRun, source: Source, held_out: Source, stop: Callable[[], bool] | None
) -> Iterator[TrainProgress]:
    """Train until the budget is spent; save on the way, at the end, and when the caller closes the generator."""
    config = run.config
    saved = shown = time.monotonic()
    log = RunLog(run)
    # a run that goes on does not validate again what it has validated
    checks = int(run.fraction * config.validations)
    if run.fraction >= 1 and run.best != run.best:
        checks -= 1
    last, validated_at, per_image = run.best, 0, float("nan")
    n_quick, n_full = (
        min(n, held_out.n_images or n)
        for n in (min(_QUICK_IMAGES, config.validation_samples), config.validation_samples)
    )
    n_outliers = _outlier_images(run, source)
    batches = Ahead(source.stream)
    try:
        while run.fraction < 1 or checks < config.validations:
            ended = run.fraction >= 1 or (stop is not None and stop())
            if not ended:
                run.step(batches)
                ended = run.fraction >= 1
            now = time.monotonic()
            if ended or run.fraction * config.validations >= checks + 1:
                checks = config.validations if ended else int(run.fraction * config.validations)
                if run.workers.is_first:
                    began = time.monotonic()
                    loss, last = quick_validation(run.average, held_out, n_quick)
                    per_image = (time.monotonic() - began) / n_quick
                    run.keep_best(last)
                    validated_at = run.samples
                    log.validation(loss, last)
            if now - saved > 60 * config.checkpoint_minutes:
                run.save()
                saved = now
            if now - shown > 1 or ended:
                shown = now
                log.training()
                yield TrainProgress(
                    "train",
                    min(run.fraction, 1.0),
                    run.samples,
                    run.seconds,
                    run.loss,
                    run.accuracy,
                    last,
                    run.best,
                    validated_at,
                    run.beside,
                    per_image * ((config.validations - checks) * n_quick + n_full + n_outliers),
                )
            if ended:
                break
    finally:
        batches.close()
        run.save()


@torch.inference_mode()
def quick_validation(network: torch.nn.Module, source: Source, n_images: int) -> tuple[float, float]:
    """Measure a network on the way: the same images of held-out structures every time.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    source : Source
        Patterns of held-out structures.
    n_images : int
        How many; of a data set at most all that it has.

    Returns
    -------
    loss : float
        Mean cross entropy.
    accuracy : float
        For the class of the labels.
    """
    network.eval()
    source.stream.seek(0)
    n_images = min(n_images, source.n_images or n_images)
    loss = right = 0.0
    for start in range(0, n_images, 100):
        images, label, _ = source.stream.draw(min(100, n_images - start))
        logits = network(images).float()
        loss += float(torch.nn.functional.cross_entropy(logits, label, reduction="sum"))
        right += float((logits.argmax(dim=1) == label).sum())
    return loss / n_images, right / n_images


@torch.inference_mode()
def validate(network: torch.nn.Module, source: Source, n_images: int = 4000) -> tuple[dict[str, Any], float]:
    """Measure a network on patterns of formulas that it has not seen.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    source : Source
        Patterns of held-out structures.
    n_images : int
        How many; of a data set at most all that it has.

    Returns
    -------
    metrics : dict
        Accuracy for the class by symmetry; of a stream for the visible class too, that of its labels, with the share of patterns where
        both are the same, over patterns drawn with equal probability for every class. Calibration error before and after the
        temperature, which is fitted on one half and measured on the other.
    temperature : float
        Fitted temperature.
    """
    network.eval()
    source.stream.seek(1)  # other images than those that chose the best weights
    n_images = min(n_images, source.n_images or n_images)
    logits, labels, rows = [], [], []
    for start in range(0, n_images, 100):
        images, label, row = source.stream.draw(min(100, n_images - start))
        logits.append(network(images).cpu().double().numpy())  # Apple's devices know no double precision
        labels.append(label.cpu().numpy())
        rows.append(row.cpu().numpy())
    scores, truth = np.concatenate(logits), np.concatenate(labels)
    symmetry = source.symmetry[np.concatenate(rows)]
    # images of one structure follow each other in a data set
    order = np.random.default_rng(0).permutation(len(truth))
    one, other = order[: len(truth) // 2], order[len(truth) // 2 :]
    temperature = fit_temperature(scores[one], truth[one])
    found = scores.argmax(axis=1)
    hits = {"accuracy_symmetry_class": found == symmetry}
    if source.truth == "visible":
        hits = (
            {"accuracy_visible_class": found == truth} | hits | {"ceiling_symmetry_class": truth == symmetry}
        )
    metrics = {
        "validation_patterns": len(truth),
        "validation_crystals": len(np.unique(source.structure[np.concatenate(rows)])),
        **{name: round(float(np.mean(hit)), 4) for name, hit in hits.items()},
        "calibration_error_raw": round(expected_calibration_error(scores[other], truth[other], 1.0), 4),
        "calibration_error": round(expected_calibration_error(scores[other], truth[other], temperature), 4),
    }
    return metrics, temperature
