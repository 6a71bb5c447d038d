"""The reflections of a crystal: reciprocal-lattice nodes with their |F|^2, worked out once and kept.

Whatever the orientation, tilt, voltage or thickness, a kinematic pattern is a choice among them with a weight. Two sets
are kept: all nodes within a sphere, for any orientation, and the Laue zones of one zone axis, which for large cells are a
small part of the sphere. Systematic absences are in neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_range, check_zone_axis
from napari_sadp.labels.lattice2d import bezout, planar_basis
from napari_sadp.simulation.scattering import structure_factors

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

#: Most nodes that a set may hold, some 100 MB.
MAX_NODES = 2_000_000
#: Spheres are worked out to multiples of this [1/Å], so that nearby radii share one.
_RADIUS_STEP = 0.25
#: Nodes looked at together.
_BOX = 300_000
#: A sphere of fewer nodes than this serves all zone axes of its crystal.
_SMALL_SPHERE = 20_000


@dataclass(frozen=True, eq=False)
class Reflections:
    """Nodes that scatter, the origin left out.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    hkl : (n, 3) ndarray of int
        Miller indices in the conventional cell.
    g : (n, 3) ndarray of float64
        Reciprocal-lattice vectors in the Cartesian frame of `Crystal.reciprocal_basis` [1/Å].
    strength : (n,) ndarray of float64
        |F|^2 [Å^2], above zero.
    """

    crystal: Crystal
    hkl: np.ndarray
    g: np.ndarray
    strength: np.ndarray

    def __post_init__(self) -> None:
        for name in ("hkl", "g", "strength"):
            getattr(self, name).flags.writeable = False  # the sets are shared

    def __len__(self) -> int:
        return len(self.hkl)


def reflections(crystal: Crystal, g_max_inv_angstrom: float) -> Reflections:
    """Return all reflections of a crystal within a sphere; the last few sets are remembered.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    g_max_inv_angstrom : float
        Radius, 0 to 4 [1/Å].

    Returns
    -------
    Reflections
        From small to large |g|.

    Raises
    ------
    ValueError
        If the radius is out of range, or more than `MAX_NODES` nodes lie within it.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> found = reflections(find_structure("Al", 225).crystal(), 0.5)
    >>> len(found), sorted(set(map(tuple, abs(found.hkl).tolist())))
    (14, [(0, 0, 2), (0, 2, 0), (1, 1, 1), (2, 0, 0)])
    """
    check_range("g_max_inv_angstrom", g_max_inv_angstrom, 0, 4, "1/Å", low_inclusive=False)
    whole = _sphere(crystal, _radius(g_max_inv_angstrom))
    length = np.linalg.norm(whole.g, axis=1)
    n = int(np.searchsorted(length, g_max_inv_angstrom * (1 + 1e-9), side="right"))
    return Reflections(crystal, whole.hkl[:n], whole.g[:n], whole.strength[:n])


def _radius(g_max: float) -> float:
    """Return the radius of the sphere that serves one of `g_max`."""
    return float(_RADIUS_STEP * np.ceil(g_max / _RADIUS_STEP))


def _nodes_in(crystal: Crystal, radius: float) -> float:
    """Return about how many nodes lie within a sphere."""
    return 4 / 3 * np.pi * radius**3 * abs(np.linalg.det(crystal.direct_basis()))


@lru_cache(maxsize=4)
def _sphere(crystal: Crystal, radius: float) -> Reflections:
    """Return the reflections within a sphere in the order of their lengths."""
    direct, reciprocal = crystal.direct_basis(), crystal.reciprocal_basis()
    _check_size(crystal, radius, _nodes_in(crystal, radius))
    reach = np.floor(radius * np.linalg.norm(direct, axis=1) * (1 + 1e-9)).astype(int)
    # one of each Friedel pair: h > 0, or h = 0 and k > 0, or h = k = 0 and l > 0
    h, k, l = (np.arange(0 if axis == 0 else -n, n + 1) for axis, n in enumerate(reach))  # noqa: E741
    metric = reciprocal @ reciprocal.T
    plane = metric[1, 1] * k[:, None] ** 2 + metric[2, 2] * l**2 + 2 * metric[1, 2] * k[:, None] * l
    slope = 2 * (metric[0, 1] * k[:, None] + metric[0, 2] * l)
    found = []
    step = max(1, _BOX // plane.size)
    for start in range(0, len(h), step):  # for oblique cells the box holds many times the nodes of the sphere
        some = h[start : start + step, None, None]
        inside = np.nonzero(metric[0, 0] * some**2 + slope * some + plane <= (radius * (1 + 1e-9)) ** 2)
        found.append(np.stack([h[start + inside[0]], k[inside[1]], l[inside[2]]], axis=1))
    hkl = np.concatenate(found)
    hkl = hkl[(hkl[:, 0] > 0) | (hkl[:, 1] > 0) | ((hkl[:, 1] == 0) & (hkl[:, 2] > 0))]
    half = _scattering(crystal, hkl, np.eye(3, dtype=int))
    return _with_friedel_mates(half)


@lru_cache(maxsize=256)  # the same axis comes back with other thicknesses, tilts and voltages
def zone_reflections(
    crystal: Crystal, zone: tuple[int, int, int], g_max_inv_angstrom: float, laue_zones: int
) -> Reflections:
    """Return the reflections of some Laue zones of a zone axis; the last sets are remembered.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    g_max_inv_angstrom : float
        Largest distance from the axis [1/Å].
    laue_zones : int
        Zones ``h u + k v + l w = -laue_zones ... laue_zones``.

    Returns
    -------
    Reflections
        From small to large |g|.

    Raises
    ------
    ValueError
        If the axis is none, or there are more than `MAX_NODES` nodes.
    """
    zone = check_zone_axis(zone)
    axis = np.asarray(zone, dtype=float) @ crystal.direct_basis()
    height = laue_zones / np.linalg.norm(axis)
    radius = _radius(np.hypot(g_max_inv_angstrom, height))
    axis /= np.linalg.norm(axis)
    limit = (g_max_inv_angstrom * (1 + 1e-9)) ** 2
    if _nodes_in(crystal, radius) < _SMALL_SPHERE:
        whole = _sphere(crystal, radius)
        inside = np.abs(whole.hkl @ zone) <= laue_zones
        inside[inside] = ((whole.g[inside] - np.outer(whole.g[inside] @ axis, axis)) ** 2).sum(
            axis=1
        ) <= limit
        return Reflections(crystal, whole.hkl[inside], whole.g[inside], whole.strength[inside])
    # two vectors of the zone, and one that reaches the next Laue zone
    basis = np.array([*planar_basis(zone), _next_zone(zone)])
    vectors = basis @ crystal.reciprocal_basis()
    vectors = vectors - np.outer(vectors @ axis, axis)
    metric = np.linalg.inv(vectors[:2] @ vectors[:2].T)
    _check_size(
        crystal,
        g_max_inv_angstrom,
        (2 * laue_zones + 1) * np.pi * g_max_inv_angstrom**2 * np.sqrt(np.linalg.det(metric)),
    )
    reach = np.ceil(g_max_inv_angstrom * np.sqrt(np.diag(metric))).astype(int) + 1
    found = []
    for order in range(laue_zones + 1):
        centre = -np.rint(order * vectors[2] @ vectors[:2].T @ metric).astype(int)
        m, n = (np.arange(c - r, c + r + 1) for c, r in zip(centre, reach, strict=True))
        nodes = np.stack(np.meshgrid(m, n, [order], indexing="ij"), axis=-1).reshape(-1, 3)
        if order == 0:
            nodes = nodes[(nodes[:, 0] > 0) | ((nodes[:, 0] == 0) & (nodes[:, 1] > 0))]
        found.append(nodes[((nodes @ vectors) ** 2).sum(axis=1) <= limit])
    # the order of the Laue zone first, which takes few values: see `structure_factors`
    half = _scattering(crystal, np.concatenate(found)[:, [2, 0, 1]], basis[[2, 0, 1]])
    return _with_friedel_mates(half)


def _next_zone(zone: tuple[int, int, int]) -> np.ndarray:
    """Return Miller indices with h u + k v + l w = 1."""
    u, v, w = zone
    x, y = bezout(u, v)
    p, q = bezout(u * x + v * y, w)
    return np.array([p * x, p * y, q])


def _check_size(crystal: Crystal, g_max: float, n_nodes: float) -> None:
    if n_nodes > MAX_NODES:
        raise ValueError(
            f"g_max_inv_angstrom is {g_max:g}: {n_nodes:.3g} reciprocal-lattice nodes of {crystal.name} lie within it, "
            f"expected at most {MAX_NODES}"
        )


def _scattering(crystal: Crystal, nodes: np.ndarray, basis: np.ndarray) -> Reflections:
    """Return the nodes that scatter."""
    strength = np.abs(structure_factors(crystal, nodes, basis)) ** 2
    hkl = nodes[strength > 0] @ basis
    return Reflections(crystal, hkl, hkl @ crystal.reciprocal_basis(), strength[strength > 0])


def _with_friedel_mates(half: Reflections) -> Reflections:
    """Return the nodes and their opposites, of the same |F|^2, in the order of their lengths."""
    order = np.argsort(np.repeat((half.g**2).sum(axis=1).round(12), 2), kind="stable")
    hkl, g = (np.stack([item, -item], axis=1).reshape(-1, 3)[order] for item in (half.hkl, half.g))
    return Reflections(half.crystal, hkl, g, np.repeat(half.strength, 2)[order])
