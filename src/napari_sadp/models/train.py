"""Training: simulated patterns drawn on the device, a time or sample budget, checkpoints that survive a kill.

`train` is a generator: it yields a `TrainProgress` now and then, so that a terminal or a widget can show it, and closing it
stops the run with its state saved. A run folder holds ``checkpoint.safetensors`` (network, average, optimiser),
``checkpoint.json`` (counters and settings), ``metrics.csv`` and, at the end, the weights with their card.
"""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from napari_sadp._atomic import atomic_write
from napari_sadp._validate import check_option, check_range
from napari_sadp.dataset.library import build_library, choose_crystals
from napari_sadp.dataset.stream import PatternStream
from napari_sadp.errors import CheckpointError
from napari_sadp.labels.scheme import PatternScheme, build_scheme
from napari_sadp.labels.spacegroups import ARTICLE_GROUPS
from napari_sadp.models.calibrate import expected_calibration_error, fit_temperature
from napari_sadp.models.resnet import ARCHITECTURES, build_resnet, choose_device
from napari_sadp.models.weights import WeightsCard, save_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sadp.dataset.library import SpotLibrary


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    name : str
        Name of the weights.
    architecture : str
        One of the five ResNets.
    groups : tuple of int
        Space groups of the scheme.
    size : int
        Image size [px].
    crystals_per_behaviour : int
        Training crystals of each extinction behaviour.
    batch_size : int
        Images per step.
    minutes : float
        Time budget of the whole run, over all resumptions [min].
    samples : int, optional
        Budget in images instead of minutes; then the run depends on the seed alone.
    learning_rate : float
        Peak of the schedule (linear warm-up over 5 % of the budget, cosine to zero).
    weight_decay : float
        Of AdamW.
    average : float
        Decay of the moving average of the weights.
    checkpoint_minutes : float
        Time between checkpoints [min].
    validation_samples : int
        Patterns of held-out formulas.
    seed : int
        Seed of everything.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    """

    name: str = "sadp_resnet18"
    architecture: str = "resnet18"
    groups: tuple[int, ...] = ARTICLE_GROUPS
    size: int = 96
    crystals_per_behaviour: int = 120
    batch_size: int = 64
    minutes: float = 40.0
    samples: int | None = None
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    average: float = 0.998
    checkpoint_minutes: float = 2.0
    validation_samples: int = 4000
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_option("architecture", self.architecture, ARCHITECTURES)
        check_range("size", self.size, 32, 1024, "px")
        check_range("batch_size", self.batch_size, 2, 100_000)
        check_range("minutes", self.minutes, 0, 1e6, "min", low_inclusive=False)
        check_range("learning_rate", self.learning_rate, 0, 10, low_inclusive=False)
        check_range("average", self.average, 0, 1)
        check_range("crystals_per_behaviour", self.crystals_per_behaviour, 1, 1_000_000)


@dataclass(frozen=True)
class TrainProgress:
    """Where a run stands.

    Parameters
    ----------
    stage : str
        ``"crystals to train"``, ``"crystals to validate"``, ``"train"``, ``"validate"`` or ``"done"``.
    fraction : float
        Of the stage, 0 to 1.
    samples : int
        Images seen.
    seconds : float
        Training time so far, over all resumptions [s].
    loss, accuracy : float
        Moving averages over the training images; nan before the first step.
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
    metrics: dict[str, Any] | None = None
    weights: Path | None = None


class _Run:
    """State of a run: network, its moving average, optimiser and counters."""

    def __init__(self, config: TrainConfig, scheme: PatternScheme, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder = config, folder
        self.device = choose_device(config.device)
        self.network = build_resnet(config.architecture, len(scheme)).to(
            self.device, memory_format=torch.channels_last
        )
        self.average = build_resnet(config.architecture, len(scheme)).to(
            self.device, memory_format=torch.channels_last
        )
        self.average.load_state_dict(self.network.state_dict())
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        free = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed}, {"params": free, "weight_decay": 0.0}],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.samples, self.seconds = 0, 0.0
        self.loss = self.accuracy = float("nan")

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent."""
        if self.config.samples is not None:
            return self.samples / self.config.samples
        return self.seconds / (60 * self.config.minutes)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Make one step of the optimiser and of the moving average."""
        start = time.monotonic()
        fraction = min(self.fraction, 1.0)
        ramp = min(1.0, fraction / 0.05 + 0.01) * 0.5 * (1 + np.cos(np.pi * fraction))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * ramp
        self.network.train()
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.samples += len(labels)
        # a young average forgets faster, so that the first weights do not linger
        decay = min(self.config.average, (1 + self.samples / len(labels)) / (10 + self.samples / len(labels)))
        with torch.no_grad():
            for mean, value in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)
        accuracy = float((logits.argmax(1) == labels).float().mean())
        keep = 0.98 if self.loss == self.loss else 0.0
        self.loss = keep * (self.loss if keep else 0.0) + (1 - keep) * float(loss.detach())
        self.accuracy = keep * (self.accuracy if keep else 0.0) + (1 - keep) * accuracy
        self.seconds += time.monotonic() - start

    def save(self) -> None:
        """Write the state; a kill leaves the former or the new one, never half of it."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        counters = {
            "samples": self.samples,
            "seconds": self.seconds,
            "loss": self.loss,
            "accuracy": self.accuracy,
        }
        metadata = {"config": json.dumps(asdict(self.config)), "counters": json.dumps(counters)}
        payload = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata=metadata)
        with atomic_write(self.folder / "checkpoint.safetensors", "wb") as stream:
            stream.write(payload)

    def load(self) -> bool:
        """Take up a saved state; return whether there was one."""
        from safetensors import safe_open

        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as stream:
                metadata = stream.metadata()
            tensors = load_file(path)
            config, counters = json.loads(metadata["config"]), json.loads(metadata["counters"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not a checkpoint of a training run ({error})") from error
        free = ("minutes", "samples", "checkpoint_minutes", "device", "name", "validation_samples")
        ours = json.loads(json.dumps(asdict(self.config)))
        for key, value in ours.items():
            if key not in free and config.get(key) != value:
                raise CheckpointError(
                    f"{path}: made with {key}={config.get(key)!r}, this run has {value!r}; use another folder or the same settings"
                )
        for part, module in (("network.", self.network), ("average.", self.average)):
            module.load_state_dict(
                {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}
            )
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        full = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": state, "param_groups": full["param_groups"]})
        self.samples, self.seconds = int(counters["samples"]), float(counters["seconds"])
        self.loss, self.accuracy = float(counters["loss"]), float(counters["accuracy"])
        return True


def train(config: TrainConfig, folder: Path | str, *, resume: bool = False) -> Iterator[TrainProgress]:
    """Train a network.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    folder : path-like
        Run folder; made if missing.
    resume : bool
        Go on from the checkpoint in the folder; without it a checkpoint there is an error.

    Yields
    ------
    TrainProgress
        About once a second, and once at the end with metrics and weights.

    Raises
    ------
    CheckpointError
        If the folder holds a checkpoint of another run, or one at all without `resume`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scheme = build_scheme(config.groups)
    run = _Run(config, scheme, folder)
    if (folder / "checkpoint.safetensors").exists() and not resume:
        raise CheckpointError(f"{folder}: holds a checkpoint already; resume it or name another folder")
    if resume:
        run.load()
    libraries = {}
    for part in ("train", "validate"):
        yield TrainProgress(f"crystals to {part}", 0.0, run.samples, run.seconds)
        libraries[part] = draw_library(config, scheme, validation=part == "validate")
    stream = PatternStream(
        libraries["train"],
        size=config.size,
        n_classes=len(scheme),
        device=run.device,
        seed=config.seed + run.samples,
    )
    yield from _loop(run, stream)
    yield TrainProgress("validate", 0.0, run.samples, run.seconds, run.loss, run.accuracy)
    metrics, temperature = validate(run.average, libraries["validate"], scheme, config)
    recipe = asdict(config) | {"images_seen": run.samples, "seconds": round(run.seconds)}
    card = WeightsCard(
        name=config.name,
        architecture=config.architecture,
        size=config.size,
        groups=config.groups,
        labels=scheme.labels,
        scheme_version=scheme.version,
        temperature=temperature,
        recipe=recipe,
        metrics=metrics,
    )
    path = save_weights(folder, card, run.average)
    yield TrainProgress("done", 1.0, run.samples, run.seconds, run.loss, run.accuracy, metrics, path)


def draw_library(config: TrainConfig, scheme: PatternScheme, *, validation: bool) -> SpotLibrary:
    """Draw the crystals of a run and work out their spots; the seed of the run fixes both."""
    rng = np.random.default_rng([config.seed, int(validation)])
    crystals = choose_crystals(
        scheme, validation=validation, per_behaviour=config.crystals_per_behaviour, rng=rng
    )
    return build_library(crystals, scheme)


def _loop(run: _Run, stream: PatternStream) -> Iterator[TrainProgress]:
    """Train until the budget is spent; save on the way, at the end, and when the caller closes the generator."""
    config = run.config
    saved = shown = time.monotonic()
    try:
        while run.fraction < 1:
            start = time.monotonic()
            images, labels, _ = stream.draw(config.batch_size)
            run.seconds += time.monotonic() - start
            run.step(images, labels)
            now = time.monotonic()
            if now - saved > 60 * config.checkpoint_minutes:
                run.save()
                saved = now
            if now - shown > 1 or run.fraction >= 1:
                shown = now
                _log(run)
                yield TrainProgress(
                    "train", min(run.fraction, 1.0), run.samples, run.seconds, run.loss, run.accuracy
                )
    finally:
        run.save()


def _log(run: _Run) -> None:
    """Append a line to the metrics, about once a second of training."""
    path = run.folder / "metrics.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if fresh:
            writer.writerow(["samples", "seconds", "loss", "accuracy"])
        writer.writerow([run.samples, f"{run.seconds:.1f}", f"{run.loss:.4f}", f"{run.accuracy:.4f}"])


@torch.inference_mode()
def validate(
    network: torch.nn.Module, library: SpotLibrary, scheme: PatternScheme, config: TrainConfig
) -> tuple[dict[str, Any], float]:
    """Measure a network on patterns of formulas that it has not seen.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    library : SpotLibrary
        Patterns of held-out structures.
    scheme : PatternScheme
        Classes.
    config : TrainConfig
        Number of patterns, size, seed.

    Returns
    -------
    metrics : dict
        Accuracy for the visible class and for the class by symmetry, over patterns drawn with equal probability for every
        class; calibration error before and after the temperature, which is fitted on one half and measured on the other.
    temperature : float
        Fitted temperature.
    """
    device = next(network.parameters()).device
    stream = PatternStream(
        library, size=config.size, n_classes=len(scheme), device=device, seed=config.seed + 10**9
    )
    network.eval()
    logits, labels, symmetry = [], [], []
    for start in range(0, config.validation_samples, 100):
        images, label, rows = stream.draw(min(100, config.validation_samples - start))
        logits.append(network(images).double().cpu().numpy())
        labels.append(label.cpu().numpy())
        symmetry.append(library.symmetry_label[rows.cpu().numpy()])
    scores, truth = np.concatenate(logits), np.concatenate(labels)
    half = len(truth) // 2
    temperature = fit_temperature(scores[:half], truth[:half])
    found = scores.argmax(axis=1)
    metrics = {
        "validation_patterns": len(truth),
        "validation_crystals": len(np.unique(library.crystal)),
        "accuracy_visible_class": round(float(np.mean(found == truth)), 4),
        "accuracy_symmetry_class": round(float(np.mean(found == np.concatenate(symmetry))), 4),
        "ceiling_symmetry_class": round(float(np.mean(truth == np.concatenate(symmetry))), 4),
        "calibration_error_raw": round(expected_calibration_error(scores[half:], truth[half:], 1.0), 4),
        "calibration_error": round(expected_calibration_error(scores[half:], truth[half:], temperature), 4),
    }
    return metrics, temperature
