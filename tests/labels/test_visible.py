from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.labels.lattice2d import gauss_reduce, gram, planar_basis
from napari_sadp.labels.scheme import build_scheme, disc_nodes
from napari_sadp.labels.spacegroups import behaviours, is_allowed
from napari_sadp.labels.visible import visible_pattern

EYE3 = np.eye(3, dtype=int)


def plane(zone):
    basis = gauss_reduce(planar_basis(zone), EYE3)
    nodes = disc_nodes(gram(basis, EYE3), 20)
    return basis, nodes[np.any(nodes != 0, axis=1)]


def test_a_pattern_with_every_allowed_spot_has_the_class_of_its_symmetry():
    scheme = build_scheme()
    for (name, zone), index in scheme.index_of.items():
        behaviour = next(b for b in behaviours(int(name[:3])) if b.name == name)
        basis, nodes = plane(zone)
        seen = visible_pattern(nodes, is_allowed(behaviour, nodes @ basis), basis @ basis.T, scheme)
        assert seen.class_index == index, (name, zone)


def test_an_invisible_superlattice_looks_like_the_subcell():
    scheme = build_scheme()
    basis, nodes = plane((0, 1, 3))
    subcell = (nodes @ basis).sum(axis=1) % 2 == 0  # CsCl with equal atoms
    seen = visible_pattern(nodes, subcell, basis @ basis.T, scheme)
    assert seen.class_index == scheme.index_of["229", (0, 1, 3)]


def test_a_forbidden_spot_that_lights_up_changes_the_class():
    scheme = build_scheme()
    basis, nodes = plane((0, 1, 1))
    diamond = is_allowed(behaviours(227)[0], nodes @ basis)
    lit = diamond | ((np.abs(nodes @ basis) == (2, 0, 0)).all(axis=1))
    assert (
        visible_pattern(nodes, diamond, basis @ basis.T, scheme).class_index
        == scheme.index_of["227a", (0, 1, 1)]
    )
    # 200 in [011] is forbidden for 227a, 227b and 227g, allowed for 225 alone
    assert (
        visible_pattern(nodes, lit, basis @ basis.T, scheme).class_index == scheme.index_of["225", (0, 1, 1)]
    )


@pytest.mark.parametrize("visible", [0, 1])
def test_fewer_than_two_directions_span_no_plane(visible):
    basis, nodes = plane((0, 0, 1))
    seen = np.zeros(len(nodes), dtype=bool)
    seen[:visible] = True
    assert visible_pattern(nodes, seen, basis @ basis.T, build_scheme()) is None
