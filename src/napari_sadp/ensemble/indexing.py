"""Miller indices for the nodes of a measured lattice, under a hypothesis about group and zone axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.lattice_classes import equivalent_bases, shape_densities, shape_spreads
from napari_sadp.labels.lattice2d import congruent_bases
from napari_sadp.labels.scheme import present_basis
from napari_sadp.labels.spacegroups import is_allowed

if TYPE_CHECKING:
    from napari_sadp.geometry.nodes import NodeMap
    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.labels.scheme import Zone
    from napari_sadp.labels.spacegroups import Behaviour

_DOUBT = 0.01


@dataclass(frozen=True, eq=False)
class Indexing:
    """Miller indices of a measured lattice.

    Parameters
    ----------
    behaviour : Behaviour
        Space group of the hypothesis.
    zone : tuple of 3 int
        Its zone axis.
    basis_hkl : (2, 3) ndarray of int
        Miller indices of the basis vectors g1 and g2. One of several equivalent choices: those that the symmetry of
        the lattice and its gaps leave open.
    """

    behaviour: Behaviour
    zone: Zone
    basis_hkl: np.ndarray

    def hkl(self, indices: np.ndarray) -> np.ndarray:
        """Return the Miller indices (n, 3) of nodes (n, 2) of the lattice."""
        return np.asarray(indices, dtype=int) @ self.basis_hkl


def index_lattice(
    lattice: SpotLattice, behaviour: Behaviour, zone: Zone, nodes: NodeMap | None = None
) -> Indexing | None:
    """Give Miller indices to a lattice, by its shape and the gaps in it.

    Parameters
    ----------
    lattice : SpotLattice
        Fitted lattice.
    behaviour : Behaviour
        Space group of the hypothesis; cubic.
    zone : tuple of 3 int
        Zone axis of the hypothesis.
    nodes : NodeMap, optional
        Which nodes show a spot, to choose among the orientations that the shape allows.

    Returns
    -------
    Indexing or None
        None where the hypothesis shows a lattice of another shape.
    """
    metric = np.eye(3, dtype=int)
    present = present_basis(behaviour, zone)
    first, second = np.linalg.norm(present, axis=1)
    target = np.array([np.log(second / first), np.arccos(abs(present[0] @ present[1]) / (first * second))])
    bases = equivalent_bases(lattice)
    measured = np.array([value for value, _ in bases])
    _, nearest, in_question = shape_densities(measured, target[None], shape_spreads(lattice))
    if not in_question[0]:
        return None
    back = np.rint(np.linalg.inv(bases[nearest[0]][1])).astype(int)
    # seen with rows downwards: positive where g2 lies anticlockwise of g1
    hand = np.sign(lattice.g1_px[1] * -lattice.g2_px[0] + lattice.g1_px[0] * lattice.g2_px[1])
    choices = [back @ choice @ present for choice in congruent_bases(present, metric)]
    scores = [_gap_score(nodes, behaviour, choice) for choice in choices]
    keeps = [float(np.sign(np.dot(np.cross(*choice), zone))) == hand for choice in choices]
    # equal scores: the one that does not mirror the pattern, then the one that reads best
    order = sorted(
        range(len(choices)),
        key=lambda i: (
            -round(scores[i], 6),
            not keeps[i],
            (choices[i] < 0).sum(),
            (-choices[i]).ravel().tolist(),
        ),
    )
    return Indexing(behaviour, zone, choices[order[0]])


def _gap_score(nodes: NodeMap | None, behaviour: Behaviour, basis_hkl: np.ndarray) -> float:
    """Return the logarithm of how well spots and gaps fit the reflection conditions."""
    if nodes is None:
        return 0.0
    allowed = is_allowed(behaviour, nodes.indices @ basis_hkl)
    chance = np.clip(nodes.presence, _DOUBT, 1 - _DOUBT)
    return float(np.log(np.where(allowed, chance, 1 - chance)).sum())
