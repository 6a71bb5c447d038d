"""Weights on disk: ``NAME.safetensors`` with ``NAME.json`` beside it, the card that says what the numbers mean.

No pickle anywhere. The card is checked before the tensors are used: class scheme, image convention, architecture, and the
sha256 of the tensor file.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from napari_sadp._atomic import atomic_write
from napari_sadp._validate import check_integer, check_option, check_range
from napari_sadp.errors import CheckpointError
from napari_sadp.geometry.convention import IMAGE_CONVENTION
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS
from napari_sadp.labels.scheme import PatternScheme, build_scheme
from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.outliers import PREFIX, OutlierScore, outlier_score
from napari_sadp.models.recipe import STREAM
from napari_sadp.models.registry import bundled_path
from napari_sadp.models.resnet import build_resnet

if TYPE_CHECKING:
    import torch

    from napari_sadp.labels.scheme import Zone

#: Largest image size that a card may ask for, a memory guard.
_MOST_PIXELS = 4096


@dataclass(frozen=True)
class WeightsCard:
    """What a weight file was made for and from.

    Parameters
    ----------
    name : str
        Name of the network.
    architecture : str
        One of `napari_sadp.models.resnet.ARCHITECTURES`.
    size : int
        Input size [px].
    groups : tuple of int
        Space groups of the scheme.
    labels : tuple of str
        Class labels in the order of the outputs.
    scheme_version : str
        `PatternScheme.version`.
    image_convention : str
        `IMAGE_CONVENTION`.
    conversion : str
        Conversion of real patterns that it was trained for.
    zones : tuple of zone axes
        Zone axes of the scheme.
    temperature : float
        Divides the logits before the softmax; fitted on the validation patterns.
    recipe : dict
        Settings of the training run.
    metrics : dict
        What was measured, with the number of patterns.
    data : str
        What it was trained on, with the licences of the structures.
    limits : str
        What it must not be used for.
    sha256 : str
        Of the tensor file.
    """

    name: str
    architecture: str
    size: int
    groups: tuple[int, ...]
    labels: tuple[str, ...]
    scheme_version: str
    image_convention: str = IMAGE_CONVENTION
    conversion: str = "aligned"
    zones: tuple[Zone, ...] = CUBIC_ZONE_AXES
    temperature: float = 1.0
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    limits: str = ""
    sha256: str = ""

    @property
    def images_seen(self) -> int:
        """Training images, those of the weights that it started from included; 0 where the recipe does not say."""
        return sum(int(self.recipe.get(key, 0)) for key in ("images_before", "images_seen"))

    @property
    def truth(self) -> str:
        """What the network was trained to name: ``"visible"`` classes, or those by ``"symmetry"`` of a data set."""
        return "visible" if self.recipe.get("source", STREAM) == STREAM else "symmetry"

    @property
    def accuracy(self) -> float | None:
        """Share of the held-out patterns whose class of `truth` was found; None where the card does not say."""
        return self.metrics.get(f"accuracy_{self.truth}_class")


def save_weights(
    folder: Path, card: WeightsCard, network: torch.nn.Module, outliers: OutlierScore | None = None
) -> Path:
    """Write a network in half precision with its card.

    Parameters
    ----------
    folder : pathlib.Path
        Where to; made if missing.
    card : WeightsCard
        Card; its checksum is filled in.
    network : torch.nn.Module
        The network.
    outliers : OutlierScore, optional
        What tells images of no class, in the same file, single precision.

    Returns
    -------
    pathlib.Path
        The tensor file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in network.state_dict().items()
    }
    if outliers is not None:
        tensors |= {key: value.detach().cpu().contiguous() for key, value in outliers.tensors().items()}
    payload = save(tensors, metadata={"format": "pt"})
    content = asdict(card) | {"sha256": hashlib.sha256(payload).hexdigest()}
    path = folder / f"{card.name}.safetensors"
    with atomic_write(path, "wb") as stream:
        stream.write(payload)
    with atomic_write(path.with_suffix(".json"), "w") as stream:
        stream.write(json.dumps(content, indent=1) + "\n")
    return path


def read_card(path: Path) -> WeightsCard:
    """Read the card beside a weight file.

    Parameters
    ----------
    path : pathlib.Path
        The ``.safetensors`` file.

    Returns
    -------
    WeightsCard
        The card.

    Raises
    ------
    CheckpointError
        If the card is missing or no card, or a value of it is of the wrong kind or out of range; the message names it.
    """
    card_path = path.with_suffix(".json")
    try:
        content = json.loads(card_path.read_text(encoding="utf-8"))
        for key in ("groups", "labels"):
            content[key] = _as_list(key, content[key])
        if "zones" in content:  # cards of before are for the default axes
            content["zones"] = tuple(
                _as_list("zone of zones", zone) for zone in _as_list("zones", content["zones"])
            )
        card = WeightsCard(**content)
        _check_card(card)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name}: no card {card_path.name} beside it; keep the two files together"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{card_path.name}: not a card of napari-sadp weights ({error})") from error
    return card


def _as_list(name: str, value: object) -> tuple[Any, ...]:
    """Return what JSON has as a list as a tuple, or raise `ValueError`."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is {value!r}, expected a list")
    return tuple(value)


def _check_card(card: WeightsCard) -> None:
    """Raise `ValueError` for a field that no network can have; the message names it."""
    for name in ("name", "architecture", "scheme_version", "image_convention", "data", "limits"):
        if not isinstance(getattr(card, name), str):
            raise ValueError(f"{name} is {getattr(card, name)!r}, expected a text")
    for name, items, kind, words in (
        ("labels", card.labels, str, "texts"),
        ("groups", card.groups, int, "integers"),
        ("zones", [index for zone in card.zones for index in zone], int, "integers"),
    ):
        if not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
            raise ValueError(f"{name} is {getattr(card, name)!r}, expected {words}")
    for name in ("recipe", "metrics"):
        if not isinstance(getattr(card, name), dict):
            raise ValueError(f"{name} is {getattr(card, name)!r}, expected names with values")
    if not isinstance(card.sha256, str) or not re.fullmatch("[0-9a-f]{64}", card.sha256):
        raise ValueError(f"sha256 is {card.sha256!r}, expected 64 hexadecimal digits")
    check_integer("size", card.size, 1, _MOST_PIXELS)
    check_option("conversion", card.conversion, PATTERN_CONVERSIONS)
    # zero and below would leave no probabilities, or turn their order round
    check_range("temperature", card.temperature, 0, 1e6, low_inclusive=False)
    for name in ("images_before", "images_seen"):
        check_integer(f"{name} of recipe", card.recipe.get(name, 0), 0, 10**15)
    for name, value in card.metrics.items():
        if name.startswith("accuracy_"):
            check_range(f"{name} of metrics", value, 0, 1)


def card_scheme(card: WeightsCard, where: str) -> PatternScheme:
    """Return the class scheme of a card, checked against this version of the package.

    Raises
    ------
    CheckpointError
        If scheme, labels or image convention differ from what this version computes.
    """
    try:
        scheme = build_scheme(card.groups, card.zones)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: its card names no class scheme ({error})") from error
    if card.scheme_version != scheme.version or card.labels != scheme.labels:
        raise CheckpointError(
            f"{where}: made for class scheme {card.scheme_version!r}, this version has {scheme.version!r}; train it again"
        )
    if card.image_convention != IMAGE_CONVENTION:
        raise CheckpointError(
            f"{where}: made for image convention {card.image_convention!r}, this version has {IMAGE_CONVENTION!r}"
        )
    return scheme


def load_weights(path: Path | str | None = None) -> tuple[torch.nn.Module, WeightsCard, PatternScheme]:
    """Load a network with its card.

    Parameters
    ----------
    path : path-like, optional
        A ``.safetensors`` file with its card beside it; the bundled network by default.

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode, float32, on the CPU.
    card : WeightsCard
        Its card.
    scheme : PatternScheme
        The classes of its outputs.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged, truncated, or made for something else, or a weight is no finite number.
    """
    network, card, scheme, _ = load_weights_with_score(path)
    return network, card, scheme


def load_weights_with_score(
    path: Path | str | None = None,
) -> tuple[torch.nn.Module, WeightsCard, PatternScheme, OutlierScore | None]:
    """Load a network with its card, and what tells images of no class.

    Parameters and errors are those of `load_weights`.

    Returns
    -------
    network, card, scheme
        As `load_weights`.
    outliers : OutlierScore or None
        None of weights that were made without.
    """
    path = bundled_path() if path is None else Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    card = read_card(path)
    scheme = card_scheme(card, path.name)
    if card.architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{path.name}: architecture {card.architecture!r}, expected one of {', '.join(ARCHITECTURES)}"
        )
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != card.sha256:
            raise CheckpointError(
                f"{path.name}: sha256 {digest[:12]}… is not that of its card {card.sha256[:12]}…: damaged"
            )
        tensors = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.name}: cannot be read as safetensors ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path.name}: {name} holds nan or infinity, expected finite numbers; its training failed, train it again"
            )
    network = build_resnet(card.architecture, len(scheme))
    foreign = {key: tensors.pop(key) for key in list(tensors) if key.startswith(PREFIX)}
    outliers = outlier_score(foreign, len(scheme), path.name)
    if outliers is not None and outliers.whitening.shape[0] != network.fc.in_features:
        raise CheckpointError(
            f"{path.name}: outlier score for {outliers.whitening.shape[0]} features, {card.architecture} has "
            f"{network.fc.in_features}"
        )
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path.name}: tensors do not fit {card.architecture} ({first})") from error
    return network.eval(), card, scheme, outliers
