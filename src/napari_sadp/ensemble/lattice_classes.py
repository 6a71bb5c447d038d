"""Class probabilities from the fitted lattice alone: its shape, and which of its nodes show a spot. No network.

A first, simple engine: shapes are compared with their covariance, against a uniform alternative *none of these*; nodes
count as independent, with fixed chances of a spot on an allowed and on a forbidden node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.combine import PRIOR_NONE
from napari_sadp.labels.lattice2d import shape_operations
from napari_sadp.labels.scheme import disc_nodes

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.labels.scheme import Appearance, PatternScheme

#: Density of the shapes that are none: uniform over ln(ratio) up to ln 5 and angles from 60 to 90 deg.
_NONE_DENSITY = 1.0 / (np.log(5.0) * np.radians(30.0))
#: Chance of a detected spot on a node that symmetry allows, and on one that it forbids (multiple scattering, noise).
P_SPOT_ALLOWED = 0.85
P_SPOT_FORBIDDEN = 0.10
#: Nodes are counted out to the radius that holds this share of the indexed spots.
_NODE_QUANTILE = 0.9
#: Weight of the evidence of a node: Friedel and symmetry mates show or hide together, so that nodes are not independent.
_NODE_WEIGHT = 0.25


@dataclass(frozen=True, eq=False)
class LatticeClasses:
    """What the lattice says.

    Parameters
    ----------
    shape_likelihood : (n_classes,) ndarray of float64
        Density of the measured shape under the shape of each class.
    probabilities : (n_classes,) ndarray of float64
        P(class | lattice and nodes, one of the classes); sum to 1.
    none_of_these : float
        P(no class of the scheme has this shape).
    """

    shape_likelihood: np.ndarray
    probabilities: np.ndarray
    none_of_these: float


def classify_lattice(lattice: SpotLattice, scheme: PatternScheme) -> LatticeClasses:
    """Classify a pattern by its lattice.

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice with covariance and indexed spots.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    LatticeClasses
        Probabilities.
    """
    covariance = lattice.shape_covariance()
    density = np.empty(len(scheme))
    bases = _equivalent_bases(lattice)
    cache: dict[tuple[int, int, int], tuple[float, np.ndarray]] = {}
    node_log = np.zeros(len(scheme))
    for item in scheme.classes:
        shape = item.appearance.shape
        if shape not in cache:
            target = np.array([np.log(item.ratio), np.radians(item.angle_deg)])
            cache[shape] = _best_match(bases, target, covariance)
        density[item.index], transform = cache[shape]
        node_log[item.index] = _node_log_likelihood(lattice, transform, item.appearance)
    prior = scheme.class_given_group.mean(axis=0)
    weight = prior * density * np.exp(node_log)
    total_shape = float(prior @ density)
    none = PRIOR_NONE * _NONE_DENSITY / (PRIOR_NONE * _NONE_DENSITY + (1 - PRIOR_NONE) * total_shape)
    if weight.sum() <= 0:  # every shape is so far off that its density underflows
        return LatticeClasses(density, prior / prior.sum(), 1.0)
    return LatticeClasses(density, weight / weight.sum(), float(none))


def _equivalent_bases(lattice: SpotLattice) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ((ln ratio, angle), transform) of the bases that measurement errors may take for the reduced one."""
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    small = [(1, 0), (0, 1), (1, 1), (1, -1), (-1, 0), (0, -1), (-1, 1), (-1, -1)]
    found = []
    for first in small[:4]:  # the sign of the pair does not matter
        for second in small:
            transform = np.array([first, second])
            if abs(first[0] * second[1] - first[1] * second[0]) != 1:
                continue
            a, b = transform @ basis
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            ratio = np.sqrt((b @ b) / (a @ a))
            if ratio > 0.93 and -0.06 < cosine < 0.58:
                found.append((np.array([np.log(ratio), np.arccos(cosine)]), transform))
    return found


def _best_match(
    bases: list[tuple[np.ndarray, np.ndarray]], target: np.ndarray, covariance: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the normal density of the nearest basis, and its transform."""
    inverse = np.linalg.inv(covariance)
    distance = [float((value - target) @ inverse @ (value - target)) for value, _ in bases]
    best = int(np.argmin(distance))
    norm = 2 * np.pi * np.sqrt(np.linalg.det(covariance))
    return float(np.exp(-0.5 * distance[best]) / norm), bases[best][1]


def _node_log_likelihood(lattice: SpotLattice, transform: np.ndarray, appearance: Appearance) -> float:
    """Return ln P(spots | class) - ln P(spots | every node allowed) for the best orientation of the class."""
    absent = set(appearance.absent)
    if not absent:
        return 0.0
    inverse = np.rint(np.linalg.inv(transform)).astype(int)
    seen = lattice.indices[lattice.indexed] @ inverse
    seen = seen[np.any(seen != 0, axis=1)]
    if len(seen) == 0:
        return 0.0
    g11, g12, g22 = appearance.shape
    length = np.sqrt(g11 * seen[:, 0] ** 2 + 2 * g12 * seen[:, 0] * seen[:, 1] + g22 * seen[:, 1] ** 2)
    reach = float(np.quantile(length, _NODE_QUANTILE) / np.sqrt(g11))
    nodes = disc_nodes(appearance.shape, reach)
    spots = set(map(tuple, seen.tolist()))
    filled = np.log(P_SPOT_FORBIDDEN / P_SPOT_ALLOWED)
    hidden = np.log((1 - P_SPOT_FORBIDDEN) / (1 - P_SPOT_ALLOWED))
    best = -np.inf
    for operation in shape_operations(appearance.shape):
        total = 0.0
        for node, moved in zip(
            map(tuple, nodes.tolist()), map(tuple, (nodes @ operation).tolist()), strict=True
        ):
            if moved in absent:
                total += filled if node in spots else hidden
        best = max(best, total)
    return float(_NODE_WEIGHT * best)
