from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.ensemble.indexing import index_lattice
from napari_sadp.ensemble.lattice_classes import classify_lattice
from napari_sadp.geometry.results import SpotLattice, SpotList
from napari_sadp.identify import pool_classes
from napari_sadp.labels.scheme import build_scheme, disc_nodes, present_basis
from napari_sadp.labels.spacegroups import behaviours, is_allowed


def ideal_lattice(name, zone, *, turn=0.3, mirror=False, strain=None, sigma=0.004, reach=6.5):
    """The lattice that a perfect fit of a perfect pattern would give, without its node indices being canonical."""
    behaviour = next(b for b in behaviours(int(name[:3])) if b.name == name)
    hkl = present_basis(behaviour, zone)
    lengths = np.linalg.norm(hkl, axis=1)
    cosine = hkl[0] @ hkl[1] / lengths.prod()
    g1 = np.array([20.0, 0.0])
    g2 = 20.0 * lengths[1] / lengths[0] * np.array([cosine, np.sqrt(1 - cosine**2)])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    basis = np.stack([g1, g2]) @ rotation.T
    if mirror:
        basis = basis * [1, -1]
    if strain is not None:
        basis = basis @ strain
    form = tuple(int(x) for x in (hkl[0] @ hkl[0], hkl[0] @ hkl[1], hkl[1] @ hkl[1]))
    nodes = disc_nodes(form, reach)
    nodes = nodes[is_allowed(behaviour, nodes @ hkl) | ~nodes.any(axis=1)]
    rc = nodes @ basis + 100
    spots = SpotList(rc, np.ones(len(rc)), np.full(len(rc), 50.0), 1.5)
    covariance = np.diag(np.repeat((sigma * np.linalg.norm(basis, axis=1)) ** 2, 2))
    return SpotLattice(np.full(2, 100.0), *basis, covariance, 0.1, spots, nodes, np.ones(len(rc), dtype=bool))


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


@pytest.mark.parametrize("mirror", [False, True])
def test_every_ideal_pattern_is_classified(scheme, mirror):
    wrong = []
    for (name, zone), index in scheme.index_of.items():
        found = classify_lattice(ideal_lattice(name, zone, mirror=mirror), scheme)
        assert found.probabilities.sum() == pytest.approx(1)
        if int(np.argmax(found.probabilities)) != index:
            wrong.append((name, zone))
        assert found.none_of_these < 0.05
    # one class differs from another only in absences beyond the reach of the spots, see the fields of view of the scheme
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(("ratio", "angle"), [(1.69, 88.9), (1.1, 84.0), (2.7, 90.0)])
def test_a_foreign_lattice_is_none_of_these(scheme, ratio, angle):
    g1 = np.array([30.0, 0.0])
    g2 = 30.0 * ratio * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    basis = np.stack([g1, g2])
    nodes = np.array([(m, n) for m in range(-2, 3) for n in range(-2, 3)])
    spots = SpotList(nodes @ basis, np.ones(25), np.full(25, 30.0), 2.0)
    covariance = np.diag(np.repeat((0.004 * np.linalg.norm(basis, axis=1)) ** 2, 2))
    lattice = SpotLattice(np.zeros(2), g1, g2, covariance, 0.1, spots, nodes, np.ones(25, dtype=bool))
    # the first is a net that was acquired, of a crystal that nobody knows
    assert classify_lattice(lattice, scheme).none_of_these > 0.6


@pytest.mark.parametrize(("name", "zone"), [("225", (0, 0, 1)), ("227a", (0, 1, 1)), ("225", (1, 1, 1))])
def test_a_lattice_that_lenses_stretch_keeps_its_class(scheme, name, zone):
    behaviour = next(b for b in behaviours(int(name[:3])) if b.name == name)
    none = []
    for azimuth in np.linspace(0.1, 3.0, 7):
        axis = np.array([np.cos(azimuth), np.sin(azimuth)])
        lattice = ideal_lattice(
            name, zone, strain=np.eye(2) + 0.03 * (np.outer(axis, axis) - 0.5 * np.eye(2)), sigma=0.005
        )
        found = classify_lattice(lattice, scheme)
        assert int(np.argmax(found.probabilities)) == scheme.index_of[name, zone]
        assert index_lattice(lattice, behaviour, zone) is not None
        none.append(found.none_of_these)
    assert np.median(none) < 0.5


def test_a_less_certain_lattice_leaves_more_classes(scheme):
    sharp = classify_lattice(ideal_lattice("225", (0, 1, 1), sigma=0.003), scheme)
    blunt = classify_lattice(ideal_lattice("225", (0, 1, 1), sigma=0.05), scheme)

    def entropy(p):
        return -np.sum(p[p > 0] * np.log(p[p > 0]))

    assert entropy(sharp.probabilities) < entropy(blunt.probabilities)


def test_a_small_strain_is_forgiven(scheme):
    strain = np.array([[1.004, 0.002], [0.002, 0.997]])
    found = classify_lattice(ideal_lattice("227a", (0, 1, 1), strain=strain), scheme)
    assert scheme.labels[int(np.argmax(found.probabilities))] == "D4-3"


def test_the_coarser_lattices_of_a_class(scheme):
    # on [011] a primitive lattice without its weak spots looks face-centred
    fine, coarse = scheme.index_of["221", (0, 1, 1)], scheme.index_of["225", (0, 1, 1)]
    found = classify_lattice(ideal_lattice("225", (0, 1, 1)), scheme)
    assert found.shape_likelihood[fine] < 1e-6 * found.shape_likelihood[coarse]
    assert found.missed_likelihood[fine] > 0.05 * found.shape_likelihood[coarse]
    # a hexagonal net has none that is square
    square = classify_lattice(ideal_lattice("225", (0, 0, 1)), scheme)
    hexagonal = scheme.index_of["225", (1, 1, 1)]
    assert square.missed_likelihood[hexagonal] < 1e-6 * square.shape_likelihood.max()


def test_a_sure_network_sees_the_spots_that_a_coarser_lattice_missed(scheme):
    fine, coarse = scheme.index_of["221", (0, 1, 1)], scheme.index_of["225", (0, 1, 1)]
    by_lattice = classify_lattice(ideal_lattice("225", (0, 1, 1)), scheme)

    def named(share):
        network = np.full(len(scheme), 1e-4)
        network[fine], network[coarse] = share, 1 - share
        return int(np.argmax(pool_classes(network, by_lattice)))

    assert named(0.5) == coarse
    assert named(0.9) == coarse  # the lattice is right more often than not
    assert named(0.999) == fine
