"""Inference: training images to calibrated class probabilities, of arrays and of stacks larger than the memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry.conversions import convert_pattern
from napari_sadp.models.registry import find_weights
from napari_sadp.models.resnet import choose_device, run_with_features
from napari_sadp.models.weights import WeightsCard, load_weights_with_score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.outliers import OutlierScore

Views = Literal["one", "mirrors", "turns"]
Precision = Literal["single", "half"]
#: Which images of a pattern the probabilities are averaged over: itself; it and its mirror images; these, turned too.
VIEWS: tuple[str, ...] = ("one", "mirrors", "turns")
PRECISIONS: tuple[str, ...] = ("single", "half")
#: Images of aligned patterns are turned by so much for ``"turns"``, the error of a lattice fit [deg].
TURN_DEG = 1.2
#: Batches that are read while the network works.
_AHEAD = 2
#: Images that go through the network at once where a batch of one view is smaller: its other views go with it.
AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says about some images.

    Parameters
    ----------
    probabilities : (n, n_classes) ndarray of float64
        Rows sum to 1.
    outlier_log_odds : (n,) ndarray of float64 or None
        ln of P(image | of no class) over P(image | of a class); None where the weights have no such score.
    """

    probabilities: np.ndarray
    outlier_log_odds: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with what is needed to use it.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on the device.
    card : WeightsCard
        Input size, conversion, temperature.
    scheme : PatternScheme
        Classes of the outputs.
    device : torch.device
        Where it runs.
    outliers : OutlierScore, optional
        What tells images of no class.
    views : {"mirrors", "one", "turns"}
        What the probabilities are averaged over, see `image_views`.
    precision : {"single", "half"}
        ``"half"`` computes in float16 (bfloat16 on a CPU) where torch holds that for safe.
    run : callable
        Gives logits and features, as `napari_sadp.models.resnet.run_with_features`, or that compiled.
    """

    network: torch.nn.Module
    card: WeightsCard
    scheme: PatternScheme
    device: torch.device
    outliers: OutlierScore | None = None
    views: Views = "mirrors"
    precision: Precision = "single"
    run: Callable[..., tuple[torch.Tensor, torch.Tensor]] = run_with_features

    def probabilities(self, images: Any, *, batch_size: int = 64) -> np.ndarray:
        """Return the class probabilities of images; parameters and errors are those of `predict`.

        Returns
        -------
        (n, n_classes) ndarray of float64
            Temperature-scaled softmax; rows sum to 1.
        """
        return self.predict(images, batch_size=batch_size).probabilities

    def predict(self, images: Any, *, batch_size: int = 64) -> Predictions:
        """Classify images in the convention of the card.

        The probabilities are averaged over `views`; a lattice fit may give g1 or -g1, and the scheme counts mirror images as one
        class.

        Parameters
        ----------
        images : (n, size, size) array_like of float
            Training images; of a dask array one batch after the other is computed.
        batch_size : int
            Images at once.

        Returns
        -------
        Predictions
            In the order of the images.

        Raises
        ------
        ValueError
            If the images have another size.
        """
        check_range("batch_size", batch_size, 1, 1_000_000)
        if not hasattr(images, "shape"):
            images = np.asarray(images)
        size = self.card.size
        if len(images.shape) != 3 or tuple(images.shape[1:]) != (size, size):
            raise ValueError(f"images has shape {tuple(images.shape)}, expected (n, {size}, {size})")
        batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        found = list(self.predict_batches(batches, batch_size=batch_size))
        nothing = np.empty((0, len(self.scheme)))
        odds = [item.outlier_log_odds for item in found if item.outlier_log_odds is not None]
        return Predictions(
            np.concatenate([nothing, *(item.probabilities for item in found)]),
            None if self.outliers is None else np.concatenate([np.empty(0), *odds]),
        )

    def predict_batches(self, chunks: Iterable[Any], *, batch_size: int = 64) -> Iterator[Predictions]:
        """Classify a stream of images: a generator in, a generator out, and no more than a few batches in memory.

        The next batches are read in another thread while the network works.

        Parameters
        ----------
        chunks : iterable of (k, size, size) array_like of float
            Images in pieces of any length, numpy or dask.
        batch_size : int
            Images at once, whatever the length of the chunks.

        Yields
        ------
        Predictions
            Of `batch_size` images each, in their order; the last one of what is left.

        Raises
        ------
        ValueError
            If the images of a chunk have another size.
        """
        check_range("batch_size", batch_size, 1, 1_000_000)
        for batch in _ahead(_rebatched(chunks, self.card.size, int(batch_size))):
            yield self._classify(torch.from_numpy(batch)[:, None].to(self.device, non_blocking=True))

    def _classify(self, batch: torch.Tensor) -> Predictions:
        """Classify one batch (n, 1, size, size) on the device."""
        kind = torch.bfloat16 if self.device.type == "cpu" else torch.float16
        total = odds = None
        views = image_views(batch, self.views, self.card.conversion)
        with torch.inference_mode(), torch.autocast(self.device.type, kind, enabled=self.precision == "half"):
            step = _views_at_once(len(views), len(batch))
            for start in range(0, len(views), step):
                together = torch.cat(views[start : start + step])
                logits, features = self.run(
                    self.network, together.contiguous(memory_format=torch.channels_last)
                )
                # Apple's devices know no double precision
                share = (logits.float() / self.card.temperature).softmax(dim=1)
                share = share.unflatten(0, (step, len(batch))).sum(dim=0) / len(views)
                total = share if total is None else total + share
                if self.outliers is not None:
                    part = self.outliers.log_odds(features, logits)
                    part = part.unflatten(0, (step, len(batch))).sum(dim=0) / len(views)
                    odds = part if odds is None else odds + part
        found = total.cpu().double().numpy()
        return Predictions(
            found / found.sum(axis=1, keepdims=True), None if odds is None else odds.cpu().double().numpy()
        )

    def training_image(self, geometry: PatternGeometry) -> np.ndarray:
        """Return an analysed pattern as the network wants it, (size, size) float32."""
        return convert_pattern(geometry, self.card.conversion, size=self.card.size).data


def image_views(batch: torch.Tensor, views: Views, conversion: str) -> list[torch.Tensor]:
    """Return the images that stand for one pattern each.

    Parameters
    ----------
    batch : (n, 1, size, size) torch.Tensor
        Images.
    views : {"one", "mirrors", "turns"}
        The images alone; with their mirror images in either axis and both; or these and turned ones as well: by `TURN_DEG` either
        way where patterns are aligned, by a right angle where they are not.
    conversion : {"aligned", "article", "rendered"}
        How the images were made. Nodes that are drawn anew lie where they should: they are not turned.

    Returns
    -------
    list of (n, 1, size, size) torch.Tensor
        1, 4, and 12, 8, or 4.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    check_option("views", views, VIEWS)
    if views == "one":
        return [batch]
    turned = [batch]
    if views == "turns" and conversion != "rendered":
        turned += (
            [torch.rot90(batch, 1, (-2, -1))]
            if conversion == "article"
            else [_turned(batch, angle) for angle in (-TURN_DEG, TURN_DEG)]
        )
    return [view.flip(axes) if axes else view for view in turned for axes in ((), (-1,), (-2,), (-2, -1))]


def _views_at_once(n_views: int, batch_size: int) -> int:
    """Return how many views of a batch go through the network together: a divisor of their number, so that a compiled network sees one shape."""
    return max(
        step
        for step in range(1, n_views + 1)
        if n_views % step == 0 and (step == 1 or step * batch_size <= AT_ONCE)
    )


def _turned(batch: torch.Tensor, angle_deg: float) -> torch.Tensor:
    """Return images turned about the direct beam, the middle of the convention."""
    cosine, sine = float(np.cos(np.radians(angle_deg))), float(np.sin(np.radians(angle_deg)))
    matrix = batch.new_tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]]).expand(len(batch), 2, 3)
    grid = torch.nn.functional.affine_grid(matrix, list(batch.shape), align_corners=False)
    return torch.nn.functional.grid_sample(batch, grid, align_corners=False)


def _rebatched(chunks: Iterable[Any], size: int, batch_size: int) -> Iterator[np.ndarray]:
    """Cut and join chunks to batches of one length, float32 and in one piece."""
    kept: list[np.ndarray] = []
    for chunk in chunks:
        images = np.asarray(chunk, dtype=np.float32)  # computes what is lazy
        if images.ndim != 3 or images.shape[1:] != (size, size):
            raise ValueError(f"images has shape {images.shape}, expected (n, {size}, {size})")
        while len(images):
            free = batch_size - sum(map(len, kept))
            kept.append(images[:free])
            images = images[free:]
            if sum(map(len, kept)) == batch_size:
                yield _joined(kept)
                kept = []
    if kept:
        yield _joined(kept)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return the parts in one piece that torch may take: in order, and not read-only."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.require(whole, requirements=("C", "W"))


def _ahead(items: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Give the items of an iterator, the next few of which are made in another thread meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = deque(pool.submit(next, items, None) for _ in range(_AHEAD))
        while (item := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, items, None))
            yield item


def as_classifier(
    model: Path | str | Classifier | None = None,
    device: str = "auto",
    *,
    views: Views = "mirrors",
    precision: Precision = "single",
) -> Classifier:
    """Return a network that is loaded already, or load it.

    Parameters
    ----------
    model : str, path-like or Classifier, optional
        Name of a network, its file, or a loaded one, which has a device, views and a precision of its own; the bundled network by
        default.
    device, views, precision : str
        See `load_classifier`.

    Returns
    -------
    Classifier
        Ready to use.

    Raises
    ------
    CheckpointError
        If the weights cannot be used.
    ValueError
        If the device is not available, an option is unknown, or one is given that a loaded network has otherwise.
    """
    if not isinstance(model, Classifier):
        return load_classifier(model, device, views=views, precision=precision)
    given = {"device": (device, "auto"), "views": (views, "mirrors"), "precision": (precision, "single")}
    for name, (value, default) in given.items():
        own = str(getattr(model, name))
        if value not in (default, own):
            raise ValueError(f"{name} is {value!r}, expected {own!r}, which the loaded network has")
    return model


def load_classifier(
    weights: Path | str | None = None,
    device: str = "auto",
    *,
    views: Views = "mirrors",
    precision: Precision = "single",
    compiled: bool = False,
) -> Classifier:
    """Load a network, once per file, device and way to run it.

    Parameters
    ----------
    weights : str or path-like, optional
        Weight file, or a name that `napari_sadp.models.registry.list_weights` knows; the bundled network by default.
    device : str
        See `napari_sadp.models.resnet.choose_device`.
    views : {"mirrors", "one", "turns"}
        What the probabilities of an image are averaged over, see `image_views`.
    precision : {"single", "half"}
        Half precision is faster on GPUs, and on CPUs with instructions for it; others are many times slower with it.
    compiled : bool
        Have torch compile the network: pays for long stacks, and needs a C++ compiler (on CUDA Triton too).

    Returns
    -------
    Classifier
        Ready to use.

    Raises
    ------
    CheckpointError
        If the weights cannot be used.
    ValueError
        If the device is not available, or an option is unknown.
    """
    check_option("views", views, VIEWS)
    check_option("precision", precision, PRECISIONS)
    path = find_weights(weights)
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    return _load_classifier(path, choose_device(device), views, precision, bool(compiled), stamp)


@lru_cache(maxsize=4)
def _load_classifier(
    path: Path, device: torch.device, views: Views, precision: Precision, compiled: bool, stamp: int
) -> Classifier:
    network, card, scheme, outliers = load_weights_with_score(path)
    return Classifier(
        network.to(device, memory_format=torch.channels_last),
        card,
        scheme,
        device,
        None if outliers is None else outliers.to(device),
        views,
        precision,
        torch.compile(run_with_features, dynamic=False) if compiled else run_with_features,
    )
