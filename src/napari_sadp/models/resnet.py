"""The five ResNets of the article, from torchvision, with a one-channel stem.

References
----------
He et al., Deep Residual Learning for Image Recognition (2016). doi:10.1109/CVPR.2016.90
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from napari_sadp._validate import check_option, check_range
from napari_sadp.errors import CheckpointError
from napari_sadp.models._triton import keep_triton_out
from napari_sadp.models.architectures import ARCHITECTURES, Architecture

keep_triton_out()

import torchvision.models as tvm  # noqa: E402  after the guard

#: What files of torchvision's weights are called.
TORCHVISION_SUFFIXES = (".pth", ".pt")
_BUILDERS = {
    "resnet18": tvm.resnet18,
    "resnet34": tvm.resnet34,
    "resnet50": tvm.resnet50,
    "resnet101": tvm.resnet101,
    "resnet152": tvm.resnet152,
}


def build_resnet(architecture: Architecture, n_classes: int) -> torch.nn.Module:
    """Return a freshly initialised network.

    Parameters
    ----------
    architecture : str
        One of `ARCHITECTURES`.
    n_classes : int
        Number of outputs.

    Returns
    -------
    torch.nn.Module
        Takes (n, 1, size, size) float32 images in the image convention, gives (n, n_classes) logits.

    Raises
    ------
    ValueError
        If the architecture is unknown or the number of classes below 2.
    """
    check_option("architecture", architecture, ARCHITECTURES)
    check_range("n_classes", n_classes, 2, 1_000_000)
    network = _BUILDERS[architecture](weights=None, num_classes=n_classes)
    network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    torch.nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


def run_with_features(network: torch.nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a network and keep what its last layer sees.

    Parameters
    ----------
    network : torch.nn.Module
        Made by `build_resnet`.
    images : (n, 1, size, size) torch.Tensor
        Images on the device of the network.

    Returns
    -------
    logits : (n, n_classes) torch.Tensor
        What the network gives.
    features : (n, d) torch.Tensor
        Input of its last layer.
    """
    # no hook: several threads may share a network
    values = images
    for name, layer in network.named_children():
        if name == "fc":
            break
        values = layer(values)
    features = values.flatten(1)
    return network.fc(features), features


def load_imagenet(network: torch.nn.Module, architecture: Architecture, path: Path | None = None) -> None:
    """Give a network the weights that torchvision has for ImageNet, from a file or downloaded upon the first use.

    The weights of the three colours of the first layer are added, so that grey images give what they gave; the last layer
    stays as it is.

    Parameters
    ----------
    network : torch.nn.Module
        Made by `build_resnet`.
    architecture : str
        Its architecture.
    path : pathlib.Path, optional
        A file as torchvision's download gives it, in place of the download.

    Raises
    ------
    CheckpointError
        If the weights cannot be downloaded, or the file holds none of this architecture.
    """
    weights = tvm.get_model_weights(architecture).DEFAULT
    # tensors alone: a file may come from anywhere, and whole pickles run what is in them
    try:
        if path is None:
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        where = f"{torch.hub.get_dir()}/checkpoints/{Path(weights.url).name}" if path is None else path
        raise CheckpointError(
            f"initial: {where} holds no weights of torchvision, but something else; remove it or name another"
        ) from error
    except (OSError, RuntimeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = (
            f"initial is 'imagenet': torchvision cannot download {weights.url} ({cause}); start from scratch, or from a copy of that "
            "file, by its path"
            if path is None
            else f"initial is {str(path)!r}, expected a readable file of torchvision's weights ({cause})"
        )
        raise CheckpointError(what) from error
    try:
        state["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        ours = network.state_dict()
        # files of before count no batches
        wanted = {
            name for name in ours if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
        }
        if not wanted <= set(kept) <= set(ours):
            raise KeyError(", ".join(sorted(wanted ^ set(kept))))
        network.load_state_dict(ours | kept)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"initial: the weights of {path or weights.url} are not those of {architecture} for ImageNet"
        ) from error


def choose_device(device: str = "auto") -> torch.device:
    """Return a device that exists.

    Parameters
    ----------
    device : str
        ``"auto"`` (CUDA, else Apple's MPS, else CPU), or a name that torch knows.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If the device is not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    kind, colon, number = str(device).partition(":")
    numbered = number.isdecimal() and int(number) < counts.get(kind, 0)
    if not counts.get(kind) or (colon and not numbered):
        usable = [name for name, count in counts.items() if count]
        usable += [f"cuda:{index}" for index in range(counts["cuda"])]
        raise ValueError(f"device is {device!r}, available here: {', '.join(['auto', *usable])}")
    return torch.device(device)


def describe_device(device: torch.device) -> str:
    """Return a device in words, and why it is no faster one.

    Parameters
    ----------
    device : torch.device
        What `choose_device` gave.

    Returns
    -------
    str
        One line.
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "mps (Apple GPU)"
    gpu = (
        "there is a GPU, choose auto to use it"
        if choose_device("auto").type != "cpu"
        else "torch finds no GPU"
    )
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' * (threads > 1)} ({gpu})"
