"""The exact engine on node maps made by hand: spots, gaps, unknown nodes, filled gaps."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.ensemble.exact import class_log_likelihood, visible_reach
from napari_sadp.geometry.nodes import NodeMap
from napari_sadp.labels.lattice2d import gram, shape_key
from napari_sadp.labels.scheme import build_scheme, disc_nodes, present_basis
from napari_sadp.labels.spacegroups import behaviours, is_allowed

EYE = np.eye(2, dtype=int)


@pytest.fixture(scope="module")
def scheme():
    return build_scheme()


def ideal(name, zone, *, reach=5.0, shown=0.98, dark=0.03):
    """The node map of a crystal that shows every allowed spot, with its metric and shape."""
    behaviour = next(b for b in behaviours(int(name[:3])) if b.name == name)
    hkl = present_basis(behaviour, zone)
    form = gram(hkl, np.eye(3, dtype=int))
    hkl = hkl if form[1] >= 0 else hkl * np.array([[1], [-1]])
    form = (form[0], abs(form[1]), form[2])
    nodes = disc_nodes(form, reach)
    nodes = nodes[nodes.any(axis=1)]
    allowed = is_allowed(behaviour, nodes @ hkl)
    metric = np.array([[form[0], form[1]], [form[1], form[2]]], dtype=float)
    return node_map(nodes, np.where(allowed, shown, dark)), metric, shape_key(form), allowed


def node_map(nodes, presence):
    nothing = np.zeros(len(nodes))
    state = np.where(presence == 0.5, -1, presence > 0.5).astype(np.int8)
    return NodeMap(nodes, nodes * 1.0, nothing, nothing, np.asarray(presence, dtype=float), state)


def with_presence(nodes, presence):
    return node_map(nodes.indices, presence)


def posterior(scheme, nodes, metric, shape):
    log = class_log_likelihood(nodes, metric, {shape: EYE}, scheme)
    weight = np.exp(log - log.max())
    return weight / weight.sum()


@pytest.mark.parametrize(
    ("name", "zone"),
    [("225", (0, 1, 1)), ("227a", (0, 1, 1)), ("227g", (1, 1, 2)), ("229", (0, 1, 3)), ("213", (0, 0, 1))],
)
def test_the_class_of_a_perfect_map(scheme, name, zone):
    nodes, metric, shape, _ = ideal(name, zone)
    assert int(np.argmax(posterior(scheme, nodes, metric, shape))) == scheme.index_of[name, zone]


def test_a_map_of_unknown_nodes_says_nothing(scheme):
    nodes, metric, shape, _ = ideal("227a", (0, 1, 1))
    blank = with_presence(nodes, np.full(len(nodes), 0.5))
    log = class_log_likelihood(blank, metric, {shape: EYE}, scheme)
    finite = log[np.isfinite(log)]
    assert len(finite) > 1
    assert finite == pytest.approx(0.0, abs=1e-12)


def test_hidden_nodes_neither_help_nor_harm(scheme):
    """A shadow over half of the pattern: Friedel mates on the other side say the same."""
    nodes, metric, shape, _ = ideal("227a", (0, 1, 1))
    half = np.where(nodes.indices[:, 0] > 0, 0.5, nodes.presence)
    whole, covered = (posterior(scheme, n, metric, shape) for n in (nodes, with_presence(nodes, half)))
    best = scheme.index_of["227a", (0, 1, 1)]
    assert covered.argmax() == whole.argmax() == best
    # where the gaps themselves are hidden, nothing contradicts the class without gaps
    gaps = with_presence(nodes, np.where(nodes.presence < 0.5, 0.5, nodes.presence))
    open_question = posterior(scheme, gaps, metric, shape)
    assert open_question.max() < 0.7
    assert open_question[best] > 0.1


def test_rotated_and_mirrored_bases_give_the_same(scheme):
    nodes, metric, shape, _ = ideal("227g", (1, 1, 2))
    first = class_log_likelihood(nodes, metric, {shape: EYE}, scheme)
    for turn in ([[-1, 0], [0, -1]], [[1, 0], [0, -1]]):
        matrix = np.array(turn)
        moved = node_map(nodes.indices @ matrix, nodes.presence)
        own = matrix.T @ metric @ matrix
        again = class_log_likelihood(moved, own, {shape: matrix}, scheme)
        assert again == pytest.approx(first)


def test_a_forbidden_spot_lowers_the_certainty_and_does_not_flip_the_answer(scheme):
    nodes, metric, shape, allowed = ideal("227a", (0, 1, 1))
    best = scheme.index_of["227a", (0, 1, 1)]
    dark = np.flatnonzero(~allowed)
    near = dark[np.argsort(np.einsum("ni,ij,nj->n", nodes.indices[dark], metric, nodes.indices[dark]))]
    clean = class_log_likelihood(nodes, metric, {shape: EYE}, scheme)
    presence = nodes.presence.copy()
    presence[near[:2]] = 0.98  # 200 and its Friedel mate
    lit = class_log_likelihood(with_presence(nodes, presence), metric, {shape: EYE}, scheme)
    assert lit.argmax() == best
    others = np.isfinite(clean) & (np.arange(len(clean)) != best)
    assert lit[best] - lit[others].max() < clean[best] - clean[others].max()
    # all of them lit: the class without gaps is likelier, but the evidence against this one is bounded
    presence[dark] = 0.98
    filled = class_log_likelihood(with_presence(nodes, presence), metric, {shape: EYE}, scheme)
    assert 0 < filled.max() - filled[best] < np.log(100)


def test_weak_allowed_spots_are_forgiven(scheme):
    """Every third orbit of an allowed class too weak to see, at random: no class with regular gaps is mistaken for it."""
    nodes, metric, shape, _ = ideal("225", (0, 1, 1))
    rng = np.random.default_rng(2)
    key = [tuple(sorted([tuple(n), tuple(-n)])) for n in nodes.indices]
    weak = {k: rng.random() < 0.3 for k in sorted(set(key))}
    presence = np.array([0.05 if weak[k] else 0.98 for k in key])
    found = posterior(scheme, with_presence(nodes, presence), metric, shape)
    assert int(found.argmax()) == scheme.index_of["225", (0, 1, 1)]


def test_reach_follows_the_spots():
    nodes, metric, _, _ = ideal("225", (0, 0, 1), reach=6.0)
    all_of_it = visible_reach(nodes, metric)
    length = np.sqrt(np.einsum("ni,ij,nj->n", nodes.indices, metric, nodes.indices))
    inner = with_presence(nodes, np.where(length < 0.5 * length.max(), 0.98, 0.02))
    assert visible_reach(inner, metric) < 0.6 * all_of_it
    assert visible_reach(with_presence(nodes, np.full(len(nodes), 0.1)), metric) == 0.0
