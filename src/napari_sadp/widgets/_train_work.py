"""What the *Train* widget does off the GUI thread. No Qt, no viewer and no layers in here."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_sadp.errors import SadpError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_sadp.models.recipe import TrainConfig
    from napari_sadp.models.train import TrainProgress


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run has come to.

    Parameters
    ----------
    name : str
        The network in the registry.
    last : TrainProgress
        With metrics and weight file.
    device : str
        Where it was trained, in words.
    """

    name: str
    last: TrainProgress
    device: str


@dataclass(frozen=True, eq=False)
class Halt:
    """How another thread ends a run.

    Parameters
    ----------
    stop : threading.Event
        End the training; what was best until then is measured and kept.
    leave : threading.Event
        End everything; only the checkpoint is written.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)

    def asked(self) -> bool:
        """Tell whether the training is to end."""
        return self.stop.is_set() or self.leave.is_set()


def train_network(
    config: TrainConfig, folder: Path, *, resume: bool, halt: Halt
) -> Generator[TrainProgress | str, None, Trained | None]:
    """Train a network, and take it into the user's own.

    Parameters
    ----------
    config : TrainConfig
        Settings; its name is that of the network.
    folder : pathlib.Path
        Run folder.
    resume : bool
        Go on with the run in the folder; its network takes the place of one of that name.
    halt : Halt
        Ends the run.

    Yields
    ------
    str or TrainProgress
        The device in words, then where the run stands, about once a second.

    Returns
    -------
    Trained or None
        None where it was stopped before the training began, or left.

    Raises
    ------
    SadpError
        If the folder, the initial weights or the device cannot be used.
    ValueError
        If an option is wrong.
    """
    from napari_sadp.models.registry import add_weights
    from napari_sadp.models.resnet import choose_device, describe_device
    from napari_sadp.models.train import train

    try:
        device = describe_device(choose_device(config.device))
        yield device
        # in this process alone: others would run the script of a user that opened this viewer once more
        steps = train(config, folder, resume=resume, stop=halt.asked)
        with closing(steps):
            for step in steps:
                if halt.leave.is_set() or (halt.stop.is_set() and step.stage.startswith("crystals")):
                    return None
                yield step
        add_weights(step.weights, config.name, replace=resume)
        return Trained(config.name, step, device)
    except RuntimeError as error:
        # torch reports a full or failing device so; the worker would take it for its own end and fall silent
        cause = (str(error).strip() or "no message").splitlines()[0]
        raise SadpError(f"the network cannot be trained on device {config.device!r}: {cause}") from error
