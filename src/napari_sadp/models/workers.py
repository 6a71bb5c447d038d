"""Several processes that train one network, as ``torchrun`` starts them: on one machine or many."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How long a process waits for the others, the first of which works out the spots of the crystals meanwhile.
_PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Workers:
    """The processes of a run.

    Parameters
    ----------
    rank : int
        Number of this process, from 0.
    count : int
        How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over the processes."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def agree(self, value: int, device: torch.device) -> bool:
        """Tell whether a number is the same in all processes; the tensors that carry it are on a device."""
        both = torch.tensor([value, -value], dtype=torch.int64, device=device)
        if self.count > 1:
            dist.all_reduce(both, dist.ReduceOp.MAX)
        return int(both.sum()) == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the connection to the others."""
        if self.count > 1:
            dist.destroy_process_group()


def join_workers(device: torch.device) -> tuple[Workers, torch.device]:
    """Connect to the other processes, if ``torchrun`` started this one.

    Parameters
    ----------
    device : torch.device
        Where to train; of several GPUs of a machine each process takes its own.

    Returns
    -------
    workers : Workers
        One alone outside ``torchrun``.
    device : torch.device
        That of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers(), device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    return Workers(dist.get_rank(), dist.get_world_size()), device
