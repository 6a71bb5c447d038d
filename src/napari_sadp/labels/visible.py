"""The class of what is *seen*: spots above a threshold may span another lattice than symmetry would allow.

A superlattice too weak to see makes an ordered crystal look like its subcell; the network and the lattice fit can only
know the pattern that is visible, so training labels are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.labels.lattice2d import congruent_bases, gauss_reduce, gram, shape_key, span

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme


@dataclass(frozen=True, eq=False)
class VisiblePattern:
    """Lattice and class of the visible spots.

    Parameters
    ----------
    basis : (2, d) ndarray of int
        Reduced basis of the lattice that the visible spots span, in the coordinates of the nodes.
    class_index : int or None
        Class in the scheme, None where no class has this shape.
    """

    basis: np.ndarray
    class_index: int | None


def visible_pattern(
    nodes: np.ndarray, visible: np.ndarray, metric: np.ndarray, scheme: PatternScheme
) -> VisiblePattern | None:
    """Classify a pattern by its visible spots.

    Parameters
    ----------
    nodes : (n, 2) ndarray of int
        Nodes in some basis of the plane, the origin left out.
    visible : (n,) ndarray of bool
        Which are seen.
    metric : (2, 2) ndarray of int
        Gram matrix of that basis.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    VisiblePattern or None
        None where the visible spots span no plane. Of the classes with the shape of the visible lattice, the one that
        leaves no visible spot unexplained and explains the most absences.
    """
    lattice = span(nodes[visible])
    if lattice is None:
        return None
    basis = gauss_reduce(lattice, metric)
    form = gram(basis, metric)
    shape = shape_key((form[0], abs(form[1]), form[2]))
    in_basis = np.rint(nodes[visible] @ np.linalg.inv(basis)).astype(int)
    best: tuple[int, int] | None = None
    operations = [np.rint(np.linalg.inv(c)).astype(int) for c in congruent_bases(basis, metric)]
    for item in scheme.classes:
        if item.appearance.shape != shape:
            continue
        absent = set(item.appearance.absent)
        for operation in operations:
            if not absent or absent.isdisjoint(map(tuple, (in_basis @ operation).tolist())):
                if best is None or len(absent) > best[0]:
                    best = (len(absent), item.index)
                break
    return VisiblePattern(basis, None if best is None else best[1])


#: Sublattices of these indices are the ones that weak spots leave; of a prime, since every other lies in one of them.
_PRIMES = (2, 3, 5, 7)


def deciding_spots(
    nodes: np.ndarray, seen: VisiblePattern, metric: np.ndarray, scheme: PatternScheme
) -> list[np.ndarray]:
    """Return the sets of spots of which one each must be seen for a pattern to look like this one.

    A set of spots spans a lattice unless all of it lies on a row or on one of the maximal sublattices, whose indices are
    primes; and the pattern has the absences of its class unless more of its spots are missing than those.

    Parameters
    ----------
    nodes : (n, 2) ndarray of int
        The visible nodes, the origin left out.
    seen : VisiblePattern
        Their pattern.
    metric : (2, 2) ndarray of int
        Gram matrix of the basis of the nodes.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    list of (n,) ndarray of bool
        Not empty ones, each once.
    """
    within = np.rint(nodes @ np.linalg.inv(seen.basis)).astype(int)
    m, n = within.T
    found = []
    for prime in _PRIMES:
        # the sublattices of index p are the zeros of m + k n and of n, modulo p
        found += [(m + k * n) % prime != 0 for k in range(prime)] + [n % prime != 0]
    shortest = within[np.argmin(np.einsum("ni,ij,nj->n", nodes, metric, nodes))]
    found.append(m * shortest[1] != n * shortest[0])
    form = gram(seen.basis, metric)
    shape = shape_key((form[0], abs(form[1]), form[2]))
    operations = [np.rint(np.linalg.inv(c)).astype(int) for c in congruent_bases(seen.basis, metric)]
    for item in scheme.classes:
        if item.appearance.shape == shape and item.appearance.absent:
            absent = set(item.appearance.absent)
            found += [
                np.array([node in absent for node in map(tuple, (within @ operation).tolist())])
                for operation in operations
            ]
    different = {mask.tobytes(): mask for mask in found if mask.any()}
    return list(different.values())
