"""Inference: training images to calibrated class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sadp.geometry.convention import to_training_image
from napari_sadp.models.registry import find_weights
from napari_sadp.models.resnet import choose_device
from napari_sadp.models.weights import WeightsCard, load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.labels.scheme import PatternScheme


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with what is needed to use it.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    card : WeightsCard
        Input size, conversion, temperature.
    scheme : PatternScheme
        Classes of the outputs.
    device : torch.device
        Where it runs.
    """

    network: torch.nn.Module
    card: WeightsCard
    scheme: PatternScheme
    device: torch.device

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
        """Classify images in the convention of the card.

        The probabilities are averaged over the four images that a mirror in either axis gives: a lattice fit may
        give g1 or -g1, and the scheme counts mirror images as one class.

        Parameters
        ----------
        images : (n, size, size) ndarray of float32
            Training images.
        batch_size : int
            Images at once.

        Returns
        -------
        (n, n_classes) ndarray of float64
            Temperature-scaled softmax; rows sum to 1.

        Raises
        ------
        ValueError
            If the images have another size.
        """
        size = self.card.size
        images = np.asarray(images, dtype=np.float32)
        if images.ndim != 3 or images.shape[1:] != (size, size):
            raise ValueError(f"images has shape {images.shape}, expected (n, {size}, {size})")
        rows = []
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size, None].copy()).to(self.device)
            views = [batch, batch.flip(-1), batch.flip(-2), batch.flip(-1, -2)]
            logits = [self.network(view).double() / self.card.temperature for view in views]
            rows.append(torch.stack([item.softmax(dim=1) for item in logits]).mean(dim=0).cpu().numpy())
        return np.concatenate(rows) if rows else np.empty((0, len(self.scheme)))

    def training_image(self, image: np.ndarray, lattice: SpotLattice) -> np.ndarray:
        """Return a background-subtracted pattern as the network wants it, (size, size) float32."""
        return to_training_image(image, lattice, conversion=self.card.conversion, size=self.card.size).data


def load_classifier(weights: Path | str | None = None, device: str = "auto") -> Classifier:
    """Load a network, once per file and device.

    Parameters
    ----------
    weights : str or path-like, optional
        Weight file, or a name that `napari_sadp.models.registry.list_weights` knows; the bundled network by default.
    device : str
        See `napari_sadp.models.resnet.choose_device`.

    Returns
    -------
    Classifier
        Ready to use.

    Raises
    ------
    CheckpointError
        If the weights cannot be used.
    ValueError
        If the device is not available.
    """
    path = find_weights(weights)
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    return _load_classifier(path, choose_device(device), stamp)


@lru_cache(maxsize=4)
def _load_classifier(path: Path, device: torch.device, stamp: int) -> Classifier:
    network, card, scheme = load_weights(path)
    return Classifier(network.to(device), card, scheme, device)
