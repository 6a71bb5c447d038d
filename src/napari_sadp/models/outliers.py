"""How far an image lies from what a network was trained on: the score that feeds *none of these*.

A logistic function of the penultimate features, of their Mahalanobis distance from the nearest class, with one covariance for
all classes, and of the energy, ``-ln sum exp(logit)``, gives the odds. It is fitted on images of the training structures, and on
images of no class that are drawn with the same imperfections. Of kinds that were left out of the fit it finds nearly as many; the
distance and the energy alone find fewer of every kind.

References
----------
Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks (2018).
doi:10.48550/arXiv.1807.03888

Liu et al., Energy-based Out-of-distribution Detection (2020). doi:10.48550/arXiv.2010.03759
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize

from napari_sadp.errors import CheckpointError
from napari_sadp.models.resnet import run_with_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_sadp.models.sources import Source

#: Start of the names of its tensors in a weight file.
PREFIX = "outliers."
#: Share of the mean variance that is added to the covariance: features that hardly vary must not decide alone.
SHRINKAGE = 0.05
#: Weight of the squares of the standardised weights in the fit.
RIDGE = 1e-2
_BATCH = 64
#: Number of the first image of the fit: beyond all that training draws, so that the fit does not hang on where the stream stands.
_FIRST_IMAGE = 10**15


@dataclass(frozen=True, eq=False)
class OutlierScore:
    """What is needed to tell how foreign an image is.

    Parameters
    ----------
    whitening : (d, d) torch.Tensor of float32
        Makes the covariance of the features the identity.
    centres : (n_classes, d) torch.Tensor of float32
        Means of the whitened features of the classes.
    weights : (3 + d,) torch.Tensor of float32
        Of the logistic function: constant, ln of the squared distance, energy, features.
    """

    whitening: torch.Tensor
    centres: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> OutlierScore:
        """Return the same on a device."""
        return OutlierScore(self.whitening.to(device), self.centres.to(device), self.weights.to(device))

    def measures(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return ln of the squared distance, the energy, and the features themselves.

        Parameters
        ----------
        features : (n, d) torch.Tensor
            Penultimate features.
        logits : (n, n_classes) torch.Tensor
            Outputs.

        Returns
        -------
        (n, 2 + d) torch.Tensor of float32
            The first two are larger for foreign images.
        """
        with _single_precision(features):
            features = features.float()
            white = features @ self.whitening
            squared = (
                (white**2).sum(dim=1, keepdim=True)
                + (self.centres**2).sum(dim=1)
                - 2 * white @ self.centres.mT
            ).amin(dim=1)
            energy = -torch.logsumexp(logits.float(), dim=1)
            return torch.cat([torch.stack([squared.clamp(min=1e-6).log(), energy], dim=1), features], dim=1)

    def log_odds(self, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return ln of P(image | of no class) over P(image | of a class), (n,)."""
        with _single_precision(features):
            return self.weights[0] + self.measures(features, logits) @ self.weights[1:]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what goes into a weight file, by name."""
        return {PREFIX + name: value for name, value in vars(self).items()}


def _single_precision(tensor: torch.Tensor) -> torch.autocast:
    """Leave autocast on the device of a tensor: sums over hundreds of features would lose most digits in half precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def outlier_score(tensors: Mapping[str, torch.Tensor], n_classes: int, where: str) -> OutlierScore | None:
    """Take the score from the tensors of a weight file.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        All that begin with `PREFIX`.
    n_classes : int
        Outputs of the network.
    where : str
        File, for messages.

    Returns
    -------
    OutlierScore or None
        None where there are no such tensors.

    Raises
    ------
    CheckpointError
        If some are missing, or they do not fit together.
    """
    if not tensors:
        return None
    try:
        found = {key.removeprefix(PREFIX): value.float() for key, value in tensors.items()}
        score = OutlierScore(**found)
    except TypeError:
        raise CheckpointError(
            f"{where}: outlier score has {', '.join(tensors)}, expected whitening, centres and weights"
        ) from None
    d = score.whitening.shape[-1] if score.whitening.ndim else 0
    shapes = tuple(tuple(item.shape) for item in (score.whitening, score.centres, score.weights))
    if shapes != ((d, d), (n_classes, d), (3 + d,)):
        raise CheckpointError(
            f"{where}: outlier score has shapes {shapes}, expected ((d, d), ({n_classes}, d), (3 + d,))"
        )
    return score


def fit_outlier_score(
    network: torch.nn.Module, inside: Source, outside: Source, n_images: int = 4000
) -> OutlierScore:
    """Fit the score on training images, and on images of no class.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    inside : Source
        Images of the classes.
    outside : Source
        Images of none.
    n_images : int
        Of each; a fifth of them, which the fit does not see, sets the scale of the odds.

    Returns
    -------
    OutlierScore
        On the CPU.
    """
    steps = fit_outlier_steps(network, inside, outside, n_images)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def fit_outlier_steps(
    network: torch.nn.Module, inside: Source, outside: Source, n_images: int = 4000
) -> Iterator[float]:
    """Do the work of `fit_outlier_score`; yields the share that is done, and returns the score."""
    network.eval()
    n_classes = network.fc.out_features
    parts = []
    for part, source in enumerate((inside, outside)):
        collected = []
        source.stream.seek(_FIRST_IMAGE)
        for start in range(0, n_images, _BATCH):
            with torch.inference_mode():
                images, labels, _ = source.stream.draw(min(_BATCH, n_images - start))
                logits, features = run_with_features(network, images)
            collected.append([item.cpu() for item in (features.float(), logits.float(), labels)])
            yield (part + start / n_images) / 2
        parts.append([torch.cat(column) for column in zip(*collected, strict=True)])
    (features, logits, labels), (other_features, other_logits, _) = parts
    cut = max(4 * n_images // 5, 1)
    whitening, centres = _gaussians(features[:cut], labels[:cut], n_classes)
    base = OutlierScore(whitening, centres, torch.zeros(3 + features.shape[1]))
    near = base.measures(features, logits).numpy()
    far = base.measures(other_features, other_logits).numpy()
    weights = fit_logistic(near[:cut], far[:cut], RIDGE)
    # what was fitted is surer of its own images than of others
    scale = fit_logistic(*(weights[0] + part[cut:] @ weights[1:, None] for part in (near, far)), 0.0)
    weights = scale[1] * weights
    weights[0] += scale[0]
    return OutlierScore(whitening, centres, torch.as_tensor(weights, dtype=torch.float32))


def _gaussians(
    features: torch.Tensor, labels: torch.Tensor, n_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the whitening of the shrunk covariance within the classes, and the whitened class means."""
    values, classes = features.double(), labels.long()
    counts = torch.bincount(classes, minlength=n_classes).clamp(min=1).double()
    means = torch.zeros(n_classes, values.shape[1], dtype=torch.double)
    means.index_add_(0, classes, values)
    means /= counts[:, None]
    # classes that no image was drawn of must not attract what looks like nothing
    means[torch.bincount(classes, minlength=n_classes) == 0] = values.mean(dim=0)
    within = values - means[classes]
    covariance = within.mT @ within / len(values)
    mean_variance = covariance.diagonal().mean().clamp(min=1e-12)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * mean_variance * torch.eye(len(covariance))
    variance, axes = torch.linalg.eigh(covariance)
    whitening = (axes / variance.clamp(min=1e-12).sqrt()) @ axes.mT
    return whitening.float(), (means @ whitening).float()


def fit_logistic(near: np.ndarray, far: np.ndarray, ridge: float) -> np.ndarray:
    """Fit a logistic function that tells two tables apart, both sides counting the same.

    Parameters
    ----------
    near, far : (n, k), (m, k) ndarray of float
        Rows of either side.
    ridge : float
        Weight of the squares of the weights of standardised columns.

    Returns
    -------
    (1 + k,) ndarray of float64
        Constant and weights; the function is positive for `far`.
    """
    table = np.concatenate([near, far]).astype(float)
    centre, spread = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-6)
    table = (table - centre) / spread
    sign = np.repeat([-1.0, 1.0], [len(near), len(far)])
    share = np.repeat([0.5 / max(len(near), 1), 0.5 / max(len(far), 1)], [len(near), len(far)])
    # sides that do not overlap would have no finite optimum
    penalty = np.array([0.0, *np.full(table.shape[1], max(ridge, 1e-4))])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (weights[0] + table @ weights[1:])
        slope = -sign * share / (1 + np.exp(np.clip(margin, -50, 50)))
        value = share @ np.logaddexp(0, -margin) + penalty @ weights**2
        return value, np.concatenate([[slope.sum()], slope @ table]) + 2 * penalty * weights

    found = minimize(loss, np.zeros(table.shape[1] + 1), jac=True, method="L-BFGS-B").x
    scaled = found[1:] / spread
    return np.concatenate([[found[0] - scaled @ centre], scaled])
