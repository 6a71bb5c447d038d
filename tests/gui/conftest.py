"""Fixtures of the tests with a viewer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.samples import simulated_sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sadp.pattern import DiffractionPattern


@pytest.fixture(scope="session", autouse=True)
def _strict_qt() -> Iterator[None]:
    """Let napari's viewer fixture fail on leaked widgets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "NAPARI_STRICT_QT", "1")
        yield


@pytest.fixture
def viewer(make_napari_viewer):
    """An empty viewer with a window."""
    return make_napari_viewer()


@pytest.fixture
def identify_widget(viewer, weights_file):
    """The *Identify* widget in that window; tests do not ask what its network says, only that it is asked."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-sadp", "Identify")
    widget.weights.value = weights_file
    widget.device.value = "cpu"
    return widget


@pytest.fixture(scope="session")
def patterns() -> list[DiffractionPattern]:
    """Two zone axes of aluminium, [001] and [011]."""
    return [simulated_sample("Al", 225, zone, seed=i) for i, zone in enumerate([(0, 0, 1), (0, 1, 1)])]


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """A frame without spots."""
    return np.random.default_rng(5).poisson(50, (96, 96)).astype(np.uint16)


@pytest.fixture
def stack_keywords() -> dict:
    """Placement of a stack of patterns as the reader gives it."""
    return {
        "scale": (1, 0.125, 0.125),
        "translate": (0, -127.5 * 0.125, -127.5 * 0.125),
        "units": ("pixel", "1/nm", "1/nm"),
        "axis_labels": ("frame", "row", "col"),
        "metadata": {METADATA_KEY: {"kind": "diffraction", "voltage_kv": 200.0}},
    }
