"""Class probabilities from the measured lattice: its shape, and which of its nodes show a spot. No network.

Shapes are compared with their covariance, against a uniform alternative *none of these*; what the nodes say is worked out by
`napari_sadp.ensemble.exact`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.constants import PRIOR_NONE
from napari_sadp.ensemble.exact import class_log_likelihood
from napari_sadp.geometry.nodes import NodeMap
from napari_sadp.labels.lattice2d import gauss_reduce, gram, sublattices

if TYPE_CHECKING:
    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.labels.scheme import PatternScheme

#: Density of the shapes that are none: uniform over ln(ratio) up to ln 5 and angles from 60 to 90 deg.
_NONE_DENSITY = 1.0 / (np.log(5.0) * np.radians(30.0))
#: Elliptical distortions beside the errors of the fit, root mean squares of long over short axis minus 1, and how often each.
#: Most microscopes are far better than the worst that are still in use.
ELLIPTICITIES: tuple[tuple[float, float], ...] = ((0.0, 0.985), (0.02, 0.01), (0.04, 0.005))
#: Shapes farther from the measured one than this, in squared standard deviations at each of these, are out of the question: their nodes
#: are not looked at.
_MAX_DISTANCES = (40.0, 16.0, 9.0)
#: Indices of the sublattices that a fit finds where it misses the weak spots of the others, and how often each, of these.
_MISSED_INDICES = {2: 0.8, 3: 0.2}
#: Exponent of what the nodes say. The engine bounds what one node may say and leaves open how many of the allowed orbits show, so that it
#: states less than it knows: by the log loss of the space group, over training formulas each left out in turn
#: (the second table of benchmarks/reasoning.py), not over held-out ones.
SHARPNESS = 1.5
#: Probability of a spot where none was found, for a lattice whose nodes were not measured one by one.
_NOT_FOUND = 0.1


@dataclass(frozen=True, eq=False)
class LatticeClasses:
    """What the lattice says.

    Parameters
    ----------
    shape_likelihood : (n_classes,) ndarray of float64
        Density of the measured shape under the shape of each class.
    node_likelihood : (n_classes,) ndarray of float64
        Likelihood of the spots and gaps under each class, sharpened (`SHARPNESS`), the largest of the shapes in question 1; 0 for
        other shapes.
    probabilities : (n_classes,) ndarray of float64
        P(class | lattice and nodes, one of the classes); sum to 1.
    none_of_these : float
        P(no class of the scheme has this shape).
    none_likelihood : float
        What stands against `shape_likelihood` times `node_likelihood` where the crystal has no class of the scheme.
    missed_likelihood : (n_classes,) ndarray of float64
        Density of the measured shape under the coarser lattices that are left of each class where weak spots are missed.
    """

    shape_likelihood: np.ndarray
    node_likelihood: np.ndarray
    probabilities: np.ndarray
    none_of_these: float
    none_likelihood: float
    missed_likelihood: np.ndarray

    @property
    def likelihood(self) -> np.ndarray:
        """Likelihood of everything measured under each class, (n_classes,)."""
        return self.shape_likelihood * self.node_likelihood


def classify_lattice(
    lattice: SpotLattice, scheme: PatternScheme, nodes: NodeMap | None = None
) -> LatticeClasses:
    """Classify a pattern by its lattice.

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice with covariance and indexed spots.
    scheme : PatternScheme
        The classes.
    nodes : NodeMap, optional
        The measured nodes of the lattice; without it, a node counts as dark where no spot was found.

    Returns
    -------
    LatticeClasses
        Probabilities.
    """
    bases = equivalent_bases(lattice)
    shapes, number, target = scheme.shapes
    measured = np.array([value for value, _ in bases])
    spreads = shape_spreads(lattice)
    density, nearest, in_question = shape_densities(measured, target, spreads)
    density = density[number]
    missed = np.zeros(len(shapes))
    for index, often in _MISSED_INDICES.items():
        for shape, coarser in enumerate(_sublattices(scheme, index)):
            missed[shape] += often * float(np.mean(shape_densities(measured, coarser, spreads)[0]))
    missed = missed[number]
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    near = {shapes[i]: bases[nearest[i]][1] for i in np.flatnonzero(in_question)}
    node_map = nodes_of_spots(lattice) if nodes is None else nodes
    log = class_log_likelihood(node_map, basis @ basis.T, near, scheme)
    node = np.exp(SHARPNESS * (log - log.max())) if near else np.ones(len(scheme))
    prior = scheme.class_given_group.mean(axis=0)
    weight = prior * density * node
    none = PRIOR_NONE * _NONE_DENSITY
    none /= none + (1 - PRIOR_NONE) * float(prior @ density)
    if weight.sum() <= 0:  # every shape is so far off that its density underflows
        weight = prior
    return LatticeClasses(density, node, weight / weight.sum(), float(none), _NONE_DENSITY, missed)


def shape_spreads(lattice: SpotLattice) -> list[np.ndarray]:
    """Return how well the shape of a lattice is known at each of the `ELLIPTICITIES`.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice.

    Returns
    -------
    list of (2, 2) ndarray of float64
        Covariances of (ln ratio, angle in rad); what an ellipse adds is that of `napari_sadp.geometry.results.lattice_type_probabilities`.
    """
    sine = np.sin(np.radians(lattice.angle_deg))
    return [lattice.shape_covariance() + np.eye(2) * 0.5 * (e * sine) ** 2 for e, _ in ELLIPTICITIES]


def shape_densities(
    measured: np.ndarray, target: np.ndarray, spreads: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare the shape of a lattice with others.

    Parameters
    ----------
    measured : (m, 2) ndarray of float64
        ln ratio and angle [rad] of each basis that may be the reduced one, see `equivalent_bases`.
    target : (n, 2) ndarray of float64
        The same of the shapes.
    spreads : list of (2, 2) ndarray of float64
        From `shape_spreads`.

    Returns
    -------
    density : (n,) ndarray of float64
        Of what was measured, in the basis that is nearest.
    nearest : (n,) ndarray of int64
        Which basis that is.
    in_question : (n,) ndarray of bool
        Whether the lattice may have the shape at all.
    """
    offset = measured - target[:, None]
    density, in_question = np.zeros(len(target)), np.zeros(len(target), dtype=bool)
    nearest = np.zeros(len(target), dtype=np.int64)
    for (_, often), spread, farthest in zip(ELLIPTICITIES, spreads, _MAX_DISTANCES, strict=True):
        distance = np.einsum("sbi,ij,sbj->sb", offset, np.linalg.inv(spread), offset)
        least = distance.min(axis=1)
        density += often * np.exp(-0.5 * least) / (2 * np.pi * np.sqrt(np.linalg.det(spread)))
        # the fit alone says best which basis it is, as far as it allows any
        nearest = np.where(in_question, nearest, distance.argmin(axis=1))
        in_question |= least < farthest
    return density, nearest, in_question


@lru_cache(maxsize=32)
def _sublattices(scheme: PatternScheme, index: int) -> tuple[np.ndarray, ...]:
    """Return ln ratio and angle [rad] of the sublattices of an index, (n, 2) for each shape of a scheme."""
    found = []
    for g11, g12, g22 in scheme.shapes[0]:
        metric = np.array([[g11, g12], [g12, g22]])
        of_shape = []
        for basis in sublattices(index):
            first, between, second = gram(gauss_reduce(basis, metric), metric)
            angle = np.arccos(abs(between) / np.sqrt(first * second))
            of_shape.append((0.5 * np.log(second / first), angle))
        found.append(np.array(of_shape))
    return tuple(found)


def nodes_of_spots(lattice: SpotLattice) -> NodeMap:
    """Return a node map of a lattice whose nodes were not measured: a spot where one was found, hardly one elsewhere.

    Parameters
    ----------
    lattice : SpotLattice
        Lattice with its spots.

    Returns
    -------
    NodeMap
        Nodes out to the farthest spot; uncertainties are not known and NaN.
    """
    index = lattice.indices[lattice.indexed]
    value = lattice.spots.intensity[lattice.indexed]
    use = np.any(index != 0, axis=1)
    index, value = index[use], value[use]
    size = int(np.abs(index).max(initial=1))
    m, n = (axis.ravel() for axis in np.mgrid[-size : size + 1, -size : size + 1])
    grid = np.stack([m, n], axis=1)
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    reach = np.linalg.norm(index @ basis, axis=1).max(initial=0.0)
    grid = grid[(np.linalg.norm(grid @ basis, axis=1) <= reach + 1e-9) & grid.any(axis=1)]
    found = {tuple(node): v for node, v in zip(index.tolist(), value.tolist(), strict=True)}
    intensity = np.array([found.get(tuple(node), 0.0) for node in grid.tolist()])
    there = np.array([tuple(node) in found for node in grid.tolist()], dtype=bool)
    presence = np.where(there, 1.0, _NOT_FOUND)
    return NodeMap(
        grid, lattice.node_rc(grid), intensity, np.full(len(grid), np.nan), presence, there.astype(np.int8)
    )


def equivalent_bases(lattice: SpotLattice) -> list[tuple[np.ndarray, np.ndarray]]:
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
