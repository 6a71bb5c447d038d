"""Fixtures for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that was never trained, in the format of the bundled ones; the same numbers in every session."""
    import torch

    from napari_sadp.labels.scheme import build_scheme
    from napari_sadp.models.resnet import build_resnet
    from napari_sadp.models.weights import WeightsCard, save_weights

    scheme = build_scheme((213, 221, 225, 227, 229))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_resnet("resnet18", len(scheme))
    card = WeightsCard(
        name="test",
        architecture="resnet18",
        size=96,
        groups=scheme.groups,
        labels=scheme.labels,
        scheme_version=scheme.version,
    )
    return save_weights(tmp_path_factory.mktemp("weights"), card, network)
