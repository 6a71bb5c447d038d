"""Weights on disk: ``NAME.safetensors`` with ``NAME.json`` beside it, the card that says what the numbers mean.

No pickle anywhere. The card is checked before the tensors are used: class scheme, image convention, architecture, and the
sha256 of the tensor file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from napari_sadp._atomic import atomic_write
from napari_sadp.errors import CheckpointError
from napari_sadp.geometry.convention import IMAGE_CONVENTION
from napari_sadp.labels.scheme import PatternScheme, build_scheme
from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.models.architectures import ARCHITECTURES
from napari_sadp.models.outliers import PREFIX, OutlierScore, outlier_score
from napari_sadp.models.registry import bundled_path
from napari_sadp.models.resnet import build_resnet

if TYPE_CHECKING:
    import torch

    from napari_sadp.labels.scheme import Zone


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
        If the card is missing or no card.
    """
    card_path = path.with_suffix(".json")
    try:
        content = json.loads(card_path.read_text(encoding="utf-8"))
        for key in ("groups", "labels"):
            content[key] = tuple(content[key])
        if "zones" in content:  # cards of before are for the default axes
            content["zones"] = tuple(map(tuple, content["zones"]))
        return WeightsCard(**content)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name}: no card {card_path.name} beside it; keep the two files together"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{card_path.name}: not a card of napari-sadp weights ({error})") from error


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
        If a file is missing, damaged, truncated, or made for something else.
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
