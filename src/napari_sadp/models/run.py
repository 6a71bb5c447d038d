"""The state of a training run: what a checkpoint holds, and what a step changes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from napari_sadp._atomic import atomic_write
from napari_sadp.errors import CheckpointError
from napari_sadp.models.recipe import IMAGENET, TrainConfig
from napari_sadp.models.registry import CHECKPOINT, find_weights
from napari_sadp.models.resnet import TORCHVISION_SUFFIXES, build_resnet, choose_device, load_imagenet
from napari_sadp.models.sources import trained_on
from napari_sadp.models.weights import load_weights, read_card
from napari_sadp.models.workers import join_workers

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.ahead import Ahead


def no_origin(initial: str = "") -> dict[str, Any]:
    """Return the same of a run that started from no network of this package."""
    return {"initial": initial, "images_before": 0, "trained_on": []}


def origin_of(file: Path) -> dict[str, Any]:
    """Return what the card of a run says about the weights that it started from, and not where they lay on this machine."""
    card = read_card(file)
    return {
        "initial": f"{file.name}, sha256 {card.sha256[:12]}",
        "images_before": card.images_seen,
        "trained_on": [asdict(run) for run in trained_on(card)],
    }


class TrainingRun:
    """State of a run: network, its moving average, optimiser and counters.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    scheme : PatternScheme
        Classes.
    folder : Path
        Run folder.
    resume : bool
        Whether `load` comes next.

    Raises
    ------
    ValueError
        If the device is not there, or the parts of a batch cannot be shared among the processes.
    CheckpointError
        If the initial weights do not fit.
    """

    def __init__(
        self, config: TrainConfig, scheme: PatternScheme, folder: Path, *, resume: bool = False
    ) -> None:
        self.config, self.folder = config, folder
        self.workers, self.device = join_workers(choose_device(config.device))
        if config.parts % self.workers.count:
            raise ValueError(
                f"parts is {config.parts}, expected a multiple of the {self.workers.count} processes, which share them"
            )
        torch.manual_seed(config.seed)
        self.network = build_resnet(config.architecture, len(scheme)).to(
            self.device, memory_format=torch.channels_last
        )
        self.average = build_resnet(config.architecture, len(scheme)).to(
            self.device, memory_format=torch.channels_last
        )
        #: What the run started from, for the card.
        self.origin: dict[str, Any] = no_origin()
        #: What crystals the training images are of, as a checkpoint has it; None before the first.
        self.trained_on: dict[str, str] | None = None
        # a run that goes on has all of it in its checkpoint: the weights it started from may be gone
        if config.initial and not (resume and self.checkpoint.exists()):
            self._start_from(config.initial, scheme)
        self.average.load_state_dict(self.network.state_dict())
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        free = [p for p in self.network.parameters() if p.ndim <= 1]
        kind: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        if config.optimiser == "sgd":
            kind["momentum"] = config.momentum
        optimiser = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[config.optimiser]
        self.optimiser = optimiser([{"params": decayed}, {"params": free, "weight_decay": 0.0}], **kind)
        self.half = config.precision == "half" or (config.precision == "auto" and self.device.type == "cuda")
        self.forward = torch.compile(self.network) if config.compiled else self.network
        self.samples, self.seconds = 0, 0.0
        self._begun, self._seconds_before = time.monotonic(), 0.0
        # loss and accuracy; on the device, since asking for them at every step would wait for it
        self._shown = torch.full((2,), float("nan"), device=self.device)
        self.best = float("nan")  # accuracy of what is in `best_path`

    def _start_from(self, path: str, scheme: PatternScheme) -> None:
        """Take the weights of a trained network of the same architecture and classes, or those of ImageNet."""
        if path == IMAGENET or Path(path).suffix in TORCHVISION_SUFFIXES:
            load_imagenet(self.network, self.config.architecture, None if path == IMAGENET else Path(path))
            self.origin = no_origin(Path(path).name)
            return
        file = find_weights(path)
        network, card, theirs = load_weights(file)
        if card.architecture != self.config.architecture or theirs.version != scheme.version:
            raise CheckpointError(
                f"{path}: {card.architecture} for {len(theirs)} classes of {len(theirs.groups)} groups on {len(theirs.zones)} axes, "
                f"expected {self.config.architecture} for the {len(scheme)} of this run, {len(scheme.groups)} groups on "
                f"{len(scheme.zones)} axes"
            )
        self.network.load_state_dict(network.state_dict())
        self.origin = origin_of(file)

    @property
    def loss(self) -> float:
        """Moving average over the training images; nan before the first step."""
        return float(self._shown[0])

    @property
    def accuracy(self) -> float:
        """Moving average over the training images; nan before the first step."""
        return float(self._shown[1])

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept."""
        return self.folder / CHECKPOINT

    @property
    def best_path(self) -> Path:
        """Where the best weights so far are kept."""
        return self.folder / "best.safetensors"

    @property
    def beside(self) -> float:
        """Time since this object was made that went into anything but steps [s]."""
        return max(time.monotonic() - self._begun - (self.seconds - self._seconds_before), 0.0)

    @property
    def fraction(self) -> float:
        """Share of the budget that is spent."""
        if self.config.samples is not None:
            return self.samples / self.config.samples
        return self.seconds / (60 * self.config.minutes)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        config = self.config
        if config.schedule == "step":
            return config.learning_rate * config.step_factor ** (self.samples // config.step_samples)
        fraction = min(self.fraction, 1.0)
        return config.learning_rate * min(1.0, fraction / 0.05 + 0.01) * 0.5 * (1 + np.cos(np.pi * fraction))

    def step(self, batches: Ahead) -> None:
        """Take a batch, and make one step of the optimiser and of the moving average.

        Every part of the batch has a batch normalisation of its own, and the gradients and running statistics are means over
        the parts: so it makes no difference how many processes share them.
        """
        config, workers = self.config, self.workers
        if config.samples is None:
            # what the first process does between the steps, such as to validate, does not count
            workers.wait()
        start = time.monotonic()
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        statistics = [b for b in self.network.buffers() if b.is_floating_point()]
        before = [item.clone() for item in statistics]
        total = [torch.zeros_like(item) for item in statistics]
        sums = torch.zeros(2, device=self.device)  # loss, right ones
        size = config.batch_size // config.parts
        mine = range(workers.rank, config.parts, workers.count)
        for part in mine:
            images, labels, _ = batches.draw(self.samples + part * size, size)
            torch._foreach_copy_(statistics, before)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                logits = self.forward(images.contiguous(memory_format=torch.channels_last))
                loss = torch.nn.functional.cross_entropy(
                    logits, labels, label_smoothing=config.label_smoothing
                )
            (loss / config.parts).backward()
            after = part + workers.count if part != mine[-1] else config.parts + workers.rank
            batches.begin(self.samples + after * size, size)
            torch._foreach_add_(total, statistics)
            sums += torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()])
        workers.add([p.grad for p in self.network.parameters() if p.grad is not None])
        workers.add([*total, sums])
        torch._foreach_copy_(statistics, torch._foreach_div(total, config.parts))
        self.optimiser.step()
        self.samples += config.batch_size
        self._average()
        now = sums / config.parts
        self._shown = torch.where(self._shown.isnan(), now, 0.98 * self._shown + 0.02 * now)
        several = workers.count > 1 and config.samples is None
        if (
            several and self.device.type == "cuda"
        ):  # it is about to be waited for, and that is time of the step
            torch.cuda.synchronize(self.device)
        spent = torch.tensor(time.monotonic() - start, dtype=torch.float64)
        if several:  # all must agree when the time is up
            spent = spent.to(self.device)
            workers.add([spent])
        self.seconds += float(spent) / workers.count

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average of the weights towards them."""
        steps = self.samples / self.config.batch_size
        # a young average forgets faster, so that the first weights do not linger
        decay = min(self.config.average, (1 + steps) / (10 + steps))
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True))
        means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_copy_([mean for mean, _ in counts], [value for _, value in counts])

    def keep_best(self, accuracy: float) -> None:
        """Keep the average of the weights if none was better; of equals the later one has seen more."""
        if accuracy < self.best:
            return
        self.best = accuracy
        state = {key: value.detach().cpu().contiguous() for key, value in self.average.state_dict().items()}
        with atomic_write(self.best_path, "wb") as stream:
            stream.write(save(state, metadata={"accuracy": f"{accuracy:.6f}", "samples": str(self.samples)}))

    def take_best(self) -> None:
        """Put the best weights into the average."""
        if not self.best_path.exists():
            return
        try:
            self.average.load_state_dict(load_file(self.best_path))
        except (OSError, SafetensorError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise CheckpointError(f"{self.best_path}: not the weights of this run ({first})") from error

    def save(self) -> None:
        """Write the state; a kill leaves the former or the new one, never half of it."""
        if not self.workers.is_first:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            known = {k: v for k, v in state.items() if v is not None}  # SGD without momentum keeps None
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in known.items()}
        counters = {
            "samples": self.samples,
            "seconds": self.seconds,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "best": self.best,
        }
        metadata = {
            "config": json.dumps(asdict(self.config)),
            "counters": json.dumps(counters),
            "origin": json.dumps(self.origin),
            "trained_on": json.dumps(self.trained_on),
        }
        payload = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata=metadata)
        with atomic_write(self.checkpoint, "wb") as stream:
            stream.write(payload)

    def _origin_of_before(self) -> dict[str, Any]:
        """Return what a run started from whose checkpoint, of an older version, does not say it."""
        initial = self.config.initial
        if not initial or initial == IMAGENET or Path(initial).suffix in TORCHVISION_SUFFIXES:
            return no_origin(Path(initial).name)
        try:
            return origin_of(find_weights(initial))
        except CheckpointError:  # gone since
            return no_origin(Path(initial).name) | {"trained_on": [{"split": "unknown", "own": "elsewhere"}]}

    def load(self) -> bool:
        """Take up a saved state; return whether there was one."""
        from safetensors import safe_open

        path = self.checkpoint
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="pt") as stream:
                metadata = stream.metadata()
            tensors = load_file(path)
            config, counters = json.loads(metadata["config"]), json.loads(metadata["counters"])
            self.origin = json.loads(metadata["origin"]) if "origin" in metadata else self._origin_of_before()
            self.trained_on = json.loads(metadata.get("trained_on", "null"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: not a checkpoint of a training run ({error})") from error
        free = (
            "minutes", "samples", "checkpoint_minutes", "device", "name", "validation_samples", "validations",
            "outlier_images", "compiled",
        )  # fmt: skip
        ours, defaults = (json.loads(json.dumps(asdict(item))) for item in (self.config, TrainConfig()))
        for key, value in ours.items():
            theirs = config.get(key, defaults[key])
            if key not in free and theirs != value:
                raise CheckpointError(
                    f"{path}: made with {key}={theirs!r}, this run has {value!r}; use another folder or the same settings"
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
        self._seconds_before = self.seconds
        self._shown = torch.tensor([float(counters["loss"]), float(counters["accuracy"])], device=self.device)
        # what an older version wrote has none; neither counts what was removed since
        self.best = float(counters.get("best", "nan")) if self.best_path.exists() else float("nan")
        return True
