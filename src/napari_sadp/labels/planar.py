"""Classes of zone-axis patterns where symmetry does not fix the cell: any space group, any axis.

Outside of the cubic system ratio and angle of a spot lattice follow from the cell, which no symmetry knows. What is left of a
class is the type of the planar lattice that symmetry forces, its point symmetry, and the nodes that are absent. Two patterns
of one such class may have any shapes that the type allows.

References
----------
International Tables for Crystallography A (2016), tables 1.6.4 and 3.1.2 (planar Bravais lattices).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sadp._validate import check_zone_axis
from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis, span
from napari_sadp.labels.spacegroups import is_allowed, operations_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sadp.labels.scheme import Zone
    from napari_sadp.labels.spacegroups import Behaviour

PlanarType = Literal["oblique", "rectangular", "centred", "square", "hexagonal"]
PLANAR_TYPES: tuple[str, ...] = ("oblique", "rectangular", "centred", "square", "hexagonal")

#: Absences count for nodes with indices up to this in the conventional basis of the planar lattice.
REACH = 6
#: Absences are looked up this much farther out, so that another choice of basis finds them too.
_WIDE = 4


@dataclass(frozen=True)
class PlanarClass:
    """What symmetry alone says about a zone-axis pattern.

    Parameters
    ----------
    lattice : {"oblique", "rectangular", "centred", "square", "hexagonal"}
        Type of the lattice of the present spots that the symmetry of the pattern forces; an accident of the cell may make it
        more regular.
    symmetry : {"2", "2mm", "4", "4mm", "6", "6mm"}
        Point symmetry of the kinematic pattern (Friedel's law included).
    absent : tuple of (int, int)
        Absent nodes within the reach, in the conventional basis (for ``"centred"``, of the rectangle), the same for every
        equivalent choice of it.
    """

    lattice: PlanarType
    symmetry: str
    absent: tuple[tuple[int, int], ...]


def planar_class(behaviour: Behaviour, zone: Zone, *, reach: int = REACH) -> PlanarClass:
    """Return the class of a zone-axis pattern by symmetry alone, for a space group of any crystal system.

    Parameters
    ----------
    behaviour : Behaviour
        Space group (reference setting) and extinction behaviour.
    zone : tuple of 3 int
        Zone axis.
    reach : int
        Largest index of a node that counts.

    Returns
    -------
    PlanarClass
        Type, symmetry and absences.

    Raises
    ------
    ValueError
        If the axis is none.

    Examples
    --------
    Pnma (62) along [001]: the a glide halves h, and the screw axis along b leaves gaps on the row 0k:

    >>> from napari_sadp.labels.spacegroups import Behaviour
    >>> found = planar_class(Behaviour("62", 62), (0, 0, 1), reach=2)
    >>> found.lattice, found.symmetry, found.absent
    ('rectangular', '2mm', ((-1, 0), (1, 0)))
    """
    zone = check_zone_axis(zone)
    plane = planar_basis(zone)
    # the conditions of every space group repeat within 12 (screw axes 3, 4, 6 with centring) in each direction
    grid = np.array(list(product(range(-12, 13), repeat=2)))
    allowed = is_allowed(behaviour, grid @ plane)
    lattice = span(grid[allowed])
    if lattice is None:
        raise AssertionError(f"{behaviour.name} shows no planar lattice along {zone}")
    # a metric that the whole point group leaves alone, so that equivalent axes find the same short vectors
    metric = sum(op @ op.T for op in operations_of(behaviour.number))
    present = gauss_reduce(lattice @ plane, metric)
    operations = _plane_operations(behaviour.number, zone, present)
    kind, basis = _conventional(operations)
    inverse = np.linalg.inv(basis)
    wide = np.array(list(product(range(-_WIDE * reach, _WIDE * reach + 1), repeat=2)))
    primitive = wide @ basis / (2 if kind == "centred" else 1)
    whole = np.abs(primitive - np.rint(primitive)).max(axis=1) < 1e-9
    primitive = np.rint(primitive[whole]).astype(int)
    dark = wide[whole][~is_allowed(behaviour, primitive @ present)]
    looks = []
    for op in _normaliser(kind, basis, operations):
        turned = dark @ np.rint(basis @ op @ inverse).astype(int)
        looks.append(tuple(sorted(map(tuple, turned[_inside(kind, turned, reach)].tolist()))))
    absent = min(looks, key=lambda look: (len(look), look))
    order = len(operations)
    mirrors = any(round(np.linalg.det(op)) == -1 for op in operations)
    fold = order // 2 if mirrors else order
    return PlanarClass(kind, f"{fold}mm" if mirrors else str(fold), absent)


def _inside(kind: str, nodes: np.ndarray, reach: int) -> np.ndarray:
    """Return which nodes count, in a region that the symmetry of the lattice leaves alone."""
    if kind == "hexagonal":
        return nodes[:, 0] ** 2 + nodes[:, 0] * nodes[:, 1] + nodes[:, 1] ** 2 <= reach**2
    return np.abs(nodes).max(axis=1, initial=0) <= reach


def _plane_operations(number: int, zone: Zone, basis: np.ndarray) -> list[np.ndarray]:
    """Return how the point group, with inversion, acts on the plane: integer (2, 2) matrices of row vectors in `basis`."""
    found = {}
    pinv = np.linalg.pinv(basis.astype(float))
    for rotation in operations_of(number):
        axis = rotation @ np.array(zone)
        if (axis == zone).all() or (axis == -np.array(zone)).all():
            matrix = np.rint(basis @ rotation @ pinv).astype(int)
            for sign in (1, -1):
                found[tuple((sign * matrix).ravel().tolist())] = sign * matrix
    return list(found.values())


def _conventional(operations: list[np.ndarray]) -> tuple[PlanarType, np.ndarray]:
    """Return the type of the lattice and its conventional basis, rows in the primitive basis."""
    order = len(operations)
    mirrors = [op for op in operations if round(np.linalg.det(op)) == -1]
    if order == 2:
        return "oblique", np.eye(2, dtype=int)
    if order == 4 and mirrors:
        axes = [_fixed_row(mirror) for mirror in mirrors]
        basis = np.stack([axes[0], next(a for a in axes[1:] if abs(np.linalg.det([axes[0], a])) > 0.5)])
        index = round(abs(np.linalg.det(basis)))
        return ("rectangular" if index == 1 else "centred"), basis
    fold = order // 2 if mirrors else order
    turn = next(op for op in operations if _order(op) == fold and round(np.linalg.det(op)) == 1)
    # the shortest vectors of the invariant metric: any primitive vector and its image make the conventional basis
    metric = sum(op @ op.T for op in operations)
    small = np.array([v for v in product(range(-3, 4), repeat=2) if any(v)])
    first = small[np.argmin(np.einsum("ni,ij,nj->n", small, metric, small))]
    basis = np.stack([first, first @ turn])
    return ("square" if fold == 4 else "hexagonal"), basis


def _normaliser(kind: str, basis: np.ndarray, operations: list[np.ndarray]) -> list[np.ndarray]:
    """Return the operations, in the primitive basis, that lead to equivalent conventional bases."""
    swap = np.array([[0, 1], [1, 0]])
    flip = np.array([[1, 0], [0, -1]])
    inverse = np.linalg.inv(basis)
    if kind in ("rectangular", "centred"):
        # which side is longer is a matter of the cell
        more = [np.eye(2), inverse @ swap @ basis]
    elif kind in ("square", "hexagonal"):
        mirror = swap if kind == "hexagonal" else flip
        more = [np.eye(2), inverse @ mirror @ basis]
    else:
        # any basis of an oblique lattice is as good; absent rows lie along short vectors
        small = product(range(-2, 3), repeat=4)
        more = [m for m in (np.array(x).reshape(2, 2) for x in small) if abs(round(np.linalg.det(m))) == 1]
    return [m @ op for m in more for op in operations]


def _fixed_row(mirror: np.ndarray) -> np.ndarray:
    """Return the primitive integer vector v with ``v @ mirror == v``."""
    kernel = mirror.T - np.eye(2, dtype=int)
    row = kernel[np.argmax(np.abs(kernel).sum(axis=1))]
    vector = np.array([row[1], -row[0]])
    return vector // np.gcd.reduce(vector)


def _order(matrix: np.ndarray) -> int:
    power, n = matrix, 1
    while not (power == np.eye(2, dtype=int)).all():
        power, n = power @ matrix, n + 1
    return n


def planar_classes(
    behaviours: Iterable[Behaviour], zones: Iterable[Zone], *, reach: int = REACH
) -> dict[PlanarClass, tuple[tuple[Behaviour, Zone], ...]]:
    """Group space groups and zone axes, of any crystal systems, by what symmetry alone says about their patterns.

    Parameters
    ----------
    behaviours : iterable of Behaviour
        Space groups.
    zones : iterable of zone axes
        Zone axes.
    reach : int
        See `planar_class`.

    Returns
    -------
    dict of PlanarClass to tuple of (Behaviour, zone axis)
        By type, symmetry and number of absences.
    """
    zones = tuple(zones)
    members: dict[PlanarClass, list[tuple[Behaviour, Zone]]] = {}
    for behaviour in behaviours:
        for zone in zones:
            members.setdefault(planar_class(behaviour, zone, reach=reach), []).append((behaviour, zone))

    def rank(item: PlanarClass) -> tuple:
        return PLANAR_TYPES.index(item.lattice), item.symmetry, len(item.absent), item.absent

    return {item: tuple(members[item]) for item in sorted(members, key=rank)}
