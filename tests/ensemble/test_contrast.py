"""How bright the cosets of a lattice are, and how weak a spot may be to be seen."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.ensemble.contrast import coset_contrast, measured_contrast, weakest_visible
from napari_sadp.geometry.nodes import NodeMap
from napari_sadp.geometry.results import PROFILE_ERROR

GRID = np.array([(m, n) for m in range(-4, 5) for n in range(-4, 5) if (m, n) != (0, 0)])
SQUARE = np.eye(2)


def superlattice(weak):
    """Nodes with an odd sum are `weak`, all fall off with distance."""
    fall = np.exp(-0.05 * (GRID**2).sum(axis=1))
    return fall * np.where(GRID.sum(axis=1) % 2, weak, 1.0)


def node_map(intensity, noise):
    sigma = np.hypot(noise, PROFILE_ERROR * intensity)
    there = (intensity > 3 * noise).astype(float)
    return NodeMap(GRID, GRID * 1.0, intensity, sigma, there, there.astype(np.int8))


def test_a_superlattice_is_as_dark_as_its_intensity():
    even, first, second, odd = coset_contrast(GRID, superlattice(0.1), SQUARE, 1e-4)
    assert first == second
    assert np.exp(first - odd) == pytest.approx(0.1, rel=0.2)
    assert abs(even - odd) < 0.3
    none = coset_contrast(GRID, superlattice(1.0), SQUARE, 1e-4)
    assert np.ptp(none) < 0.3


def test_neither_units_nor_the_choice_of_basis_count():
    value = superlattice(0.2)
    first = coset_contrast(GRID, value, SQUARE, 1e-4)
    assert coset_contrast(GRID, 700 * value, 0.01 * SQUARE, 700e-4) == pytest.approx(first)
    for matrix in ([[0, 1], [-1, 0]], [[1, 0], [0, -1]], [[-1, 0], [0, -1]]):
        assert coset_contrast(GRID @ np.array(matrix), value, SQUARE, 1e-4) == pytest.approx(first)


def test_what_is_too_weak_to_see_counts_as_that():
    """Below the floor, half of it: the noise of dark nodes, negative ones among them, does not matter."""
    rng = np.random.default_rng(0)
    dark = np.where(GRID.sum(axis=1) % 2, 2e-4 * rng.standard_normal(len(GRID)), superlattice(0.0))
    found = coset_contrast(GRID, dark, SQUARE, 2e-3)
    assert found == pytest.approx(coset_contrast(GRID, superlattice(0.0), SQUARE, 2e-3), abs=1e-6)
    assert coset_contrast(GRID, np.zeros(len(GRID)), SQUARE, 1e-3) is None


@pytest.mark.parametrize("weak", [0.3, 0.9])
def test_bright_spots_do_not_hide_what_could_be_seen(weak):
    """Three in four nodes are bright, and uncertain by their profile; the noise between them is what matters."""
    nodes = node_map(superlattice(weak), 1e-4)
    assert np.quantile(nodes.sigma, 0.25) > 3e-3
    assert weakest_visible(nodes) == pytest.approx(6e-4 / nodes.intensity.max(), rel=1e-3)


def test_nodes_that_are_not_known_say_nothing():
    value = superlattice(0.2)
    value[::7] = np.nan
    nodes = node_map(value, 1e-3)
    whole = node_map(superlattice(0.2), 1e-3)
    assert measured_contrast(nodes, SQUARE) == pytest.approx(measured_contrast(whole, SQUARE), abs=0.25)
    lost = node_map(np.full(len(GRID), np.nan), 1e-3)
    assert weakest_visible(lost) is None
    assert measured_contrast(lost, SQUARE) is None
