"""Electron scattering factors of the neutral atoms, and of a unit cell of them.

International Tables for Crystallography C (2006), table 4.3.2.2: five Gaussians, valid for s up to 2 1/Å, that is g up
to 4 1/Å. The table ships with gemmi. X-ray factors would give wrong relative intensities for electrons.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from napari_sadp.errors import StructureError

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

#: |F|^2 below this fraction of the sum of |f|^2 of the atoms is rounding, not scattering: set to exactly zero.
_ROUNDING = 1e-18
#: Atoms times reflections handled at once (complex128, 16 bytes each): what the caches of a processor hold.
_CHUNK = 400_000
#: A matrix product over a whole box of indices is about this many times faster per node than a list of nodes.
_DENSE = 16


@lru_cache(maxsize=128)
def _gaussians(element: str) -> tuple[np.ndarray, np.ndarray]:
    """Return amplitudes [Å] and exponents [Å^2] of an element."""
    # the table holds neutral atoms only; deuterium scatters electrons as hydrogen does
    table = gemmi.Element("H" if element == "D" else element).c4322
    if table is None or not any(table.a):
        raise StructureError(
            f"no electron scattering factor for element {element!r} (table 4.3.2.2 has Z = 1 to 98)"
        )
    return np.array(table.a), np.array(table.b)


def electron_scattering_factor(element: str, g_inv_angstrom: np.ndarray) -> np.ndarray:
    """Return the electron scattering factor of an atom.

    Parameters
    ----------
    element : str
        Chemical symbol.
    g_inv_angstrom : (n,) ndarray of float
        ``g = 1/d`` [1/Å].

    Returns
    -------
    (n,) ndarray of float64
        ``f(s)`` [Å] at ``s = g/2``, first Born approximation, without the relativistic mass factor.

    Raises
    ------
    StructureError
        If the element is not in the table.

    References
    ----------
    International Tables for Crystallography C (2006), table 4.3.2.2. doi:10.1107/97809553602060000593

    Examples
    --------
    >>> round(float(electron_scattering_factor("Si", [0.0])[0]), 3)
    5.827
    """
    a, b = _gaussians(element)
    s_squared = (np.asarray(g_inv_angstrom, dtype=float) / 2) ** 2
    return np.exp(-s_squared[..., None] * b) @ a


def structure_factors(crystal: Crystal, hkl: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
    """Return the electron structure factors.

    ``F(hkl) = sum_j o_j f_j(g/2) exp(-B_j g^2 / 4) exp(2 pi i (h x_j + k y_j + l z_j))``

    Parameters
    ----------
    crystal : Crystal
        Complete cell.
    hkl : (n, 3) or (n, d) ndarray of int
        Miller indices, or coordinates on `basis`.
    basis : (d, 3) ndarray of int, optional
        Miller indices of d = 1 to 3 vectors on which `hkl` is written; the fewer indices fill their box the better, the
        faster (a plane of nodes on two vectors of it is one matrix product).

    Returns
    -------
    (n,) ndarray of complex128
        F [Å]; exactly zero where the sum cancels to rounding, as for every systematic absence.

    Raises
    ------
    StructureError
        If an element is not in the table of scattering factors.

    References
    ----------
    International Tables for Crystallography C (2006), section 4.3.1. doi:10.1107/97809553602060000593
    """
    basis = np.eye(3, dtype=np.int64) if basis is None else np.asarray(basis, dtype=np.int64).reshape(-1, 3)
    nodes = np.asarray(hkl, dtype=np.int64).reshape(-1, len(basis))
    g_squared = ((nodes @ (basis @ crystal.reciprocal_basis())) ** 2).sum(axis=1)
    total = np.zeros(len(nodes), dtype=complex)
    if len(nodes) == 0:
        return total
    scale = np.zeros(len(nodes))
    # exp(2 pi i h.x) is a product of one factor per index, and there are few indices: no exponential per node
    axes = [np.unique(column, return_inverse=True) for column in nodes.T]
    axes = [(np.zeros(1, dtype=np.int64), np.zeros(len(nodes), dtype=np.intp))] * (3 - len(axes)) + axes
    coordinates = np.zeros((crystal.n_atoms, 3))
    coordinates[:, 3 - len(basis) :] = crystal.positions @ basis.T
    places = tuple(place for _, place in axes)
    form: dict[str, np.ndarray] = {}
    for (element, b_iso), members in _kinds(crystal).items():
        if element not in form:
            form[element] = electron_scattering_factor(element, np.sqrt(g_squared))
        amplitude = form[element] * np.exp(-b_iso * g_squared / 4)
        tables = [
            np.exp(2j * np.pi * np.multiply.outer(values, coordinates[members, axis]))
            for axis, (values, _) in enumerate(axes)
        ]
        tables[0] *= crystal.occupancies[members]
        box = np.prod([len(table) for table in tables], dtype=float)
        add = _sum_of_box if box <= _DENSE * len(nodes) else _sum_of_list
        total += amplitude * add(tables, places)
        scale += (amplitude * crystal.occupancies[members].sum()) ** 2
    total[np.abs(total) ** 2 <= _ROUNDING * scale] = 0.0
    return total


def _kinds(crystal: Crystal) -> dict[tuple[str, float], list[int]]:
    """Return the atoms of each element and displacement parameter: those that share an amplitude."""
    kinds: dict[tuple[str, float], list[int]] = {}
    for index, key in enumerate(zip(crystal.elements, crystal.b_iso.tolist(), strict=True)):
        kinds.setdefault(key, []).append(index)
    return kinds


def _sum_of_list(tables: list[np.ndarray], places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the sums over atoms of the products of three tables (m_i, atoms) at places (n,)."""
    total = np.empty(len(places[0]), dtype=complex)
    step = max(1, _CHUNK // tables[0].shape[1])
    for start in range(0, len(total), step):
        part = [place[start : start + step] for place in places]
        product = tables[0][part[0]]
        product *= tables[1][part[1]]
        total[start : start + step] = np.einsum("ij,ij->i", product, tables[2][part[2]])
    return total


def _sum_of_box(tables: list[np.ndarray], places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the same by matrix products over all nodes of the box."""
    if len(tables[0]) * tables[1].size <= _CHUNK:
        return ((tables[0][:, None] * tables[1]) @ tables[2].T)[places]
    total = np.empty(len(places[0]), dtype=complex)
    order = np.argsort(places[0], kind="stable")
    ends = np.cumsum(np.bincount(places[0], minlength=len(tables[0])))
    columns = np.ascontiguousarray(tables[2].T)
    for row, members in zip(tables[0], np.split(order, ends[:-1]), strict=True):
        total[members] = ((tables[1] * row) @ columns)[places[1][members], places[2][members]]
    return total
