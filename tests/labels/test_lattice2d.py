from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.labels.lattice2d import (
    congruent_bases,
    gauss_reduce,
    gram,
    lattice_type,
    planar_basis,
    shape_angles,
    shape_key,
    shape_operations,
    span,
    sublattices,
)
from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES

EYE3 = np.eye(3, dtype=int)


@pytest.mark.parametrize("zone", [*CUBIC_ZONE_AXES, (2, -1, 5), (-3, 4, 0), (0, -1, 0)])
def test_planar_basis_generates_exactly_the_zero_order_zone(zone):
    basis = planar_basis(zone)
    assert not (basis @ zone).any()
    # the cross product of a basis is the axis itself; of a sublattice it would be a multiple
    assert np.cross(*basis).tolist() == list(zone)


@pytest.mark.parametrize("index", range(1, 9))
def test_each_sublattice_of_an_index_once(index):
    found = sublattices(index)
    # as many as the divisors of the index add up to (Hermite)
    assert len(found) == sum(d for d in range(1, index + 1) if index % d == 0)
    assert all(round(abs(np.linalg.det(basis))) == index for basis in found)
    # the vectors that they hold, of a block that has all of them
    grid = np.mgrid[:index, :index].reshape(2, -1).T
    sets = [
        frozenset(
            tuple(v)
            for v, part in zip(grid.tolist(), grid @ np.linalg.inv(basis), strict=True)
            if np.allclose(part, np.round(part))
        )
        for basis in found
    ]
    assert len(set(sets)) == len(sets)


def test_span_against_brute_force():
    rng = np.random.default_rng(3)
    for _ in range(50):
        vectors = rng.integers(-6, 7, size=(4, 2))
        lattice = span(vectors)
        minors = [int(a[0] * b[1] - a[1] * b[0]) for a in vectors for b in vectors]
        if not any(minors):
            assert lattice is None
            continue
        # the index of a lattice is the greatest common divisor of all 2 x 2 minors of its generators
        assert abs(round(np.linalg.det(lattice))) == np.gcd.reduce(minors)
        coordinates = vectors @ np.linalg.inv(lattice)
        assert np.allclose(coordinates, np.rint(coordinates))


def test_gauss_reduction_undoes_a_shear():
    start = np.array([[1, 0], [0, 3]])
    sheared = np.array([[1, 0], [7, 1]]) @ start
    reduced = gauss_reduce(sheared, np.eye(2, dtype=int))
    assert gram(reduced, np.eye(2, dtype=int)) == (1, 0, 9)


@pytest.mark.parametrize(
    ("form", "kind", "angles"),
    [
        ((1, 0, 1), "A", ()),
        ((3, 0, 8), "B", (31.482,)),
        ((2, 1, 2), "C", ()),
        ((3, 1, 3), "D", (70.529, 54.736)),
    ],
)
def test_type_and_angles_of_known_shapes(form, kind, angles):
    assert lattice_type(form) == kind
    assert shape_angles(form) == pytest.approx(angles, abs=1e-3)


def test_shape_key_drops_the_scale_only():
    assert shape_key((6, 2, 6)) == shape_key((3, 1, 3)) != shape_key((3, 1, 4))


@pytest.mark.parametrize(
    ("form", "order"), [((1, 0, 1), 8), ((1, 0, 2), 4), ((2, 1, 2), 12), ((3, 1, 3), 4), ((3, 1, 5), 2)]
)
def test_number_of_operations_is_that_of_the_lattice_point_group(form, order):
    # point groups 4mm, 2mm, 6mm, 2mm (rhombic), 2
    assert len(shape_operations(form)) == order


def test_congruent_bases_keep_the_gram_matrix():
    basis = np.array([[1, -1, 1], [1, 1, -1]])
    for change in congruent_bases(basis, EYE3):
        form = gram(change @ basis, EYE3)
        assert (form[0], form[1], form[2]) == (3, 1, 3)
