"""How long the five architectures take for an image, and how large they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from napari_sadp.models.resnet import build_resnet

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sadp.models.architectures import Architecture


def time_architecture(
    architecture: Architecture,
    size: int,
    n_classes: int,
    device: torch.device,
    *,
    batch_size: int | None = None,
    rounds: int = 3,
) -> dict[str, Any]:
    """Time the forward pass of an untrained network.

    Parameters
    ----------
    architecture : str
        One of the five.
    size : int
        Input size [px].
    n_classes : int
        Outputs.
    device : torch.device
        Where.
    batch_size : int, optional
        Images at once; 8 on a CPU and 256 elsewhere by default.
    rounds : int
        Repetitions, of which the fastest counts: other work on the machine only ever slows it down.

    Returns
    -------
    dict
        ``architecture``, ``size`` [px], ``parameters``, ``ms_per_image``.
    """
    count = batch_size or (8 if device.type == "cpu" else 256)
    network = build_resnet(architecture, n_classes).eval().to(device, memory_format=torch.channels_last)
    images = torch.rand(count, 1, size, size, device=device)
    with torch.inference_mode():
        seconds = least_seconds(lambda: network(images), device, rounds)
    return {
        "architecture": architecture,
        "size": size,
        "parameters": sum(item.numel() for item in network.parameters()),
        "ms_per_image": 1e3 * seconds / count,
    }


def least_seconds(call: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Return the least time of some calls after one that is not counted [s], each waited for on the device."""
    best = float("inf")
    for number in range(rounds + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        if number:
            best = min(best, time.perf_counter() - start)
    return best
