"""The exact engine: from the node map of a measured lattice to the likelihood of every class. No network.

A class fixes the shape of the lattice and which of its nodes must be dark. Symmetry mates (Friedel pairs, mirror images)
show or hide together, so that the unit of evidence is the orbit of nodes, not the node:

- an orbit that the class allows shows with a chance v, unknown but the same for all orbits of the pattern at similar
  distance: what is too weak to see is so in the whole pattern. The prior of v is what known structures show;
- an orbit that the class forbids is dark, but for false detections, or else multiple scattering lights it with a chance f,
  unknown but the same for all. By the span rule it can light any of them: a class is described in the lattice that its
  allowed reflections generate.

Both chances are integrated out. Nodes that are hidden, out of view, or too faint to show anything carry no evidence, since
both answers are equally likely there. The orientation of the class on the lattice is averaged over.

References
----------
Gjonnes & Moodie, Acta Cryst. 19, 65 (1965), on which forbidden reflections stay dark. doi:10.1107/S0365110X65002773
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.contrast import reach_of
from napari_sadp.labels.lattice2d import shape_operations
from napari_sadp.labels.scheme import disc_nodes

if TYPE_CHECKING:
    from napari_sadp.geometry.nodes import NodeMap
    from napari_sadp.labels.scheme import PatternScheme

#: Chances that an allowed orbit shows, and the prior of each, near the beam and farther out. Set by hand: mostly nearly all show
#: near the beam, fewer farther out, with a tail for large cells. How often known structures look like another class because of
#: weak spots is not settled here but by `napari_sadp.ensemble.views`.
SHOWN = np.array([0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.98])
SHOWN_NEAR = np.array([0.01, 0.02, 0.03, 0.03, 0.04, 0.05, 0.10, 0.72])
SHOWN_FAR = np.array([0.02, 0.04, 0.05, 0.05, 0.08, 0.11, 0.20, 0.45])
#: Chances that multiple scattering lights a forbidden orbit, with equal weights, and the share of patterns that show any.
FILLED = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
P_FILLED = 0.08
#: Chance of a false detection on a dark orbit.
P_FALSE = 0.01
#: Bound of the probability of one node: no single measurement is beyond doubt.
_DOUBT = 0.01
#: Nodes within this part of the reach are near.
_NEAR = 0.65


@dataclass(frozen=True, eq=False)
class _ClassTable:
    """Orbits of one class: forbidden or not, distance, and which nodes belong to each, for each orientation."""

    index: int
    orientations: np.ndarray  # (o,) rows of `_ShapeTable.lookup`
    forbidden: np.ndarray  # (k,) bool
    radius: np.ndarray  # (k,) in shortest vectors
    member: np.ndarray  # (n, k) float, 1 where a node belongs to an orbit


@dataclass(frozen=True, eq=False)
class _ShapeTable:
    nodes: np.ndarray  # (n, 2)
    lookup: np.ndarray  # (operations, n, 2): where a node of the class lies in the measured lattice
    radius: np.ndarray  # (n,)
    classes: tuple[_ClassTable, ...]


_tables: dict[int, tuple[PatternScheme, dict[tuple[int, int, int], _ShapeTable]]] = {}


def _shape_tables(scheme: PatternScheme) -> dict[tuple[int, int, int], _ShapeTable]:
    """Return what does not depend on the pattern, by shape; worked out once for a scheme."""
    if id(scheme) not in _tables:
        while len(_tables) >= 8:
            del _tables[next(iter(_tables))]
        shapes = sorted({item.appearance.shape for item in scheme.classes})
        # the scheme is kept with its tables, so that no other object can take its id
        _tables[id(scheme)] = scheme, {shape: _shape_table(scheme, shape) for shape in shapes}
    return _tables[id(scheme)][1]


def _shape_table(scheme: PatternScheme, shape: tuple[int, int, int]) -> _ShapeTable:
    nodes = disc_nodes(shape, scheme.field_of_view)
    nodes = nodes[np.any(nodes != 0, axis=1)]
    operations = shape_operations(shape)
    number = {node: i for i, node in enumerate(map(tuple, nodes.tolist()))}
    moved = np.array([[number[tuple(node)] for node in (nodes @ op).tolist()] for op in operations])
    g11, g12, g22 = shape
    square = g11 * nodes[:, 0] ** 2 + 2 * g12 * nodes[:, 0] * nodes[:, 1] + g22 * nodes[:, 1] ** 2
    radius = np.sqrt(square / g11)
    classes = []
    for item in scheme.classes:
        if item.appearance.shape != shape:
            continue
        dark = np.zeros(len(nodes), dtype=bool)
        dark[[number[node] for node in item.appearance.absent if node in number]] = True
        turned = dark[moved]  # (operations, n)
        keeps = np.flatnonzero((turned == dark).all(axis=1))
        # one operation for each way to lay the class on the lattice
        _, orientations = np.unique(turned, axis=0, return_index=True)
        _, orbit = np.unique(moved[keeps].min(axis=0), return_inverse=True)
        member = np.zeros((len(nodes), orbit.max() + 1))
        member[np.arange(len(nodes)), orbit] = 1.0
        first = np.array([np.flatnonzero(column)[0] for column in member.T])
        classes.append(_ClassTable(item.index, orientations, dark[first], radius[first], member))
    return _ShapeTable(nodes, np.array([nodes @ op for op in operations]), radius, tuple(classes))


def visible_reach(nodes: NodeMap, metric: np.ndarray) -> float:
    """Return the distance that holds most of the spots of a node map; farther out hardly anything shows.

    Parameters
    ----------
    nodes : NodeMap
        Probability of a spot at each node.
    metric : (2, 2) ndarray of float
        Gram matrix of the lattice.

    Returns
    -------
    float
        In the units of the metric; 0 where nothing shows.
    """
    there = nodes.presence > 0.5
    if not there.any():
        return 0.0
    index = nodes.indices[there]
    return float(np.sqrt(reach_of(((index @ metric) * index).sum(axis=1))))


def class_log_likelihood(
    nodes: NodeMap,
    metric: np.ndarray,
    transforms: dict[tuple[int, int, int], np.ndarray],
    scheme: PatternScheme,
) -> np.ndarray:
    """Return the logarithm of the likelihood of every class given a node map.

    Parameters
    ----------
    nodes : NodeMap
        Indices and probability of a spot at each node.
    metric : (2, 2) ndarray of float
        Gram matrix of the basis of the indices, in any units.
    transforms : dict of shape to (2, 2) ndarray of int
        For each shape that the lattice may have, the basis of the class as integer rows in the basis of the indices.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    (n_classes,) ndarray of float64
        Over the likelihood of a map of which every node is unknown; minus infinity for shapes that are not asked for.
    """
    result = np.full(len(scheme), -np.inf)
    tables = _shape_tables(scheme)
    reach = visible_reach(nodes, metric) * (1 + 1e-9)
    index = nodes.indices
    inside = np.sqrt(((index @ metric) * index).sum(axis=1)) <= reach
    chance = np.clip(nodes.presence[inside], _DOUBT, 1 - _DOUBT)
    size = int(np.abs(index[inside]).max(initial=1))
    # ln P(data | spot) and ln P(data | none) over an unknown node, on a grid with a margin of zeros for what is out of view
    grid = np.zeros((2, 2 * size + 3, 2 * size + 3))
    row, col = (index[inside] + size + 1).T
    grid[0, row, col], grid[1, row, col] = np.log(2 * chance), np.log(2 * (1 - chance))
    for shape, transform in transforms.items():
        table = tables[shape]
        place = np.clip(table.lookup @ transform, -size - 1, size + 1) + size + 1
        there, dark = grid[:, place[..., 0], place[..., 1]]  # (operations, n) each
        # the shortest vector of the class on a lattice of this area
        area = np.sqrt(shape[0] * shape[2] - shape[1] ** 2)
        g1 = np.sqrt(np.sqrt(np.linalg.det(metric)) * shape[0] / area)
        for item in table.classes:
            result[item.index] = _class_log(item, there, dark, _NEAR * reach / g1)
    return result


def _class_log(item: _ClassTable, there: np.ndarray, dark: np.ndarray, near: float) -> float:
    """Return the logarithm of the mean over the orientations of the likelihood of a class."""
    shown = there[item.orientations] @ item.member  # (o, k)
    hidden = dark[item.orientations] @ item.member
    allowed = ~item.forbidden
    close = item.radius <= near
    total = np.zeros(len(item.orientations))
    for part, weight in ((allowed & close, SHOWN_NEAR), (allowed & ~close, SHOWN_FAR)):
        total += _marginal(shown[:, part], hidden[:, part], SHOWN, weight)
    if item.forbidden.any():
        a, b = shown[:, item.forbidden], hidden[:, item.forbidden]
        equal = np.full(len(FILLED), P_FILLED / len(FILLED))
        total += _marginal(a, b, np.array([P_FALSE, *FILLED]), np.array([1 - P_FILLED, *equal]))
    top = total.max()
    return float(top + np.log(np.exp(total - top).mean()))


def _marginal(shown: np.ndarray, hidden: np.ndarray, chance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Integrate a common chance out of the evidence (o, k) of orbits, return logarithms (o,)."""
    if shown.shape[1] == 0:
        return np.zeros(len(shown))
    # exponentials relative to the larger of the two, so that nothing underflows
    top = np.maximum(shown, hidden)
    mixed = chance * np.exp(shown - top)[..., None] + (1 - chance) * np.exp(hidden - top)[..., None]
    each = np.log(mixed).sum(axis=1)  # (o, chances)
    highest = each.max(axis=1)
    return np.log(np.exp(each - highest[:, None]) @ weight) + highest + top.sum(axis=1)
