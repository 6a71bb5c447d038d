"""Miller indices of measured lattices."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.ensemble.indexing import index_lattice
from napari_sadp.geometry.nodes import NodeMap
from napari_sadp.geometry.results import SpotLattice, SpotList
from napari_sadp.labels.scheme import build_scheme, present_basis
from napari_sadp.labels.spacegroups import behaviours, is_allowed


def behaviour(name):
    return next(b for b in behaviours(int(name[:3])) if b.name == name)


def measured(name, zone, *, turn=0.4, mirror=False):
    """The lattice that a camera shows, and the true Miller indices of its basis."""
    hkl = present_basis(behaviour(name), zone)
    x = hkl[0] / np.linalg.norm(hkl[0])
    y = np.cross(np.array(zone) / np.linalg.norm(zone), x)
    right_up = hkl @ np.stack([x, y], axis=1) * 12.0
    c, s = np.cos(turn), np.sin(turn)
    right_up = right_up @ np.array([[c, s], [-s, c]]) * ([-1, 1] if mirror else [1, 1])
    vectors = np.stack([-right_up[:, 1], right_up[:, 0]], axis=1)  # rows count downwards
    if vectors[0] @ vectors[1] < 0:
        vectors, hkl = vectors * [[1], [-1]], hkl * [[1], [-1]]
    nothing = SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), 1.0)
    covariance = np.diag((0.005 * np.linalg.norm(vectors, axis=1).repeat(2)) ** 2)
    lattice = SpotLattice(
        np.zeros(2), *vectors, covariance, 0.1, nothing, np.zeros((0, 2), int), np.zeros(0, bool)
    )
    index = np.array([(m, n) for m in range(-4, 5) for n in range(-4, 5) if (m, n) != (0, 0)])
    there = is_allowed(behaviour(name), index @ hkl)
    zeros = np.zeros(len(index))
    nodes = NodeMap(
        index, lattice.node_rc(index), zeros, zeros, np.where(there, 0.98, 0.03), there.astype(np.int8)
    )
    return lattice, nodes, hkl


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("name", ["213", "225", "227a", "229"])
def test_lengths_angles_zone_and_gaps_are_right_on_every_axis(name, mirror):
    for zone in build_scheme().zones:
        lattice, nodes, hkl = measured(name, zone, mirror=mirror)
        found = index_lattice(lattice, behaviour(name), zone, nodes)
        assert found.basis_hkl @ np.array(zone) == pytest.approx(0)
        assert found.basis_hkl @ found.basis_hkl.T == pytest.approx(hkl @ hkl.T)
        shown = nodes.presence > 0.5
        assert np.array_equal(is_allowed(behaviour(name), found.hkl(nodes.indices)), shown), zone


def test_the_hand_of_the_pattern_is_kept():
    """Seen with the axis at the viewer, g2 lies anticlockwise of g1 as its Miller indices say."""
    lattice, nodes, _ = measured("225", (0, 1, 3))
    found = index_lattice(lattice, behaviour("225"), (0, 1, 3), nodes)
    turn = lattice.g1_px[1] * -lattice.g2_px[0] + lattice.g1_px[0] * lattice.g2_px[1]
    assert np.sign(np.dot(np.cross(*found.basis_hkl), (0, 1, 3))) == np.sign(turn)


def test_a_hypothesis_of_another_shape_is_refused():
    lattice, nodes, _ = measured("225", (0, 1, 3))
    assert index_lattice(lattice, behaviour("225"), (1, 1, 1), nodes) is None
