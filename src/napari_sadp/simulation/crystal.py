"""A crystal as the simulator needs it: the complete conventional cell, atom by atom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import gemmi
import numpy as np

from napari_sadp.errors import StructureError
from napari_sadp.labels.spacegroups import symbol

#: Isotropic displacement parameter [Å^2] where a structure gives none: a usual room-temperature value.
DEFAULT_B_ISO = 0.5


@dataclass(frozen=True, eq=False)
class Crystal:
    """All atoms of one conventional unit cell.

    Parameters
    ----------
    name : str
        Formula or name.
    cell : tuple of 6 float
        a, b, c [Å], alpha, beta, gamma [deg].
    elements : tuple of str
        Element symbol of each atom; a mixed site is several atoms at one position.
    positions : (n, 3) ndarray of float64
        Fractional coordinates.
    occupancies : (n,) ndarray of float64
        0 to 1.
    b_iso : (n,) ndarray of float64
        Debye-Waller parameters B [Å^2], ``exp(-B s^2)`` with ``s = g/2``.
    space_group : int
        Number, 1 to 230.
    source : str
        Where it comes from, for the report.

    Raises
    ------
    StructureError
        If the arrays disagree, an element is unknown, an occupancy is not in 0 to 1, or a B is negative.
    """

    name: str
    cell: tuple[float, float, float, float, float, float]
    elements: tuple[str, ...]
    positions: np.ndarray
    occupancies: np.ndarray
    b_iso: np.ndarray
    space_group: int
    source: str = ""

    def __post_init__(self) -> None:
        n = len(self.elements)
        for name, shape in (("positions", (n, 3)), ("occupancies", (n,)), ("b_iso", (n,))):
            value = np.array(getattr(self, name), dtype=np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise StructureError(f"{self.name}: {name} has shape {value.shape}, expected finite {shape}")
            value.flags.writeable = False  # what is worked out from a crystal is remembered with it
            object.__setattr__(self, name, value)
        if n == 0:
            raise StructureError(f"{self.name}: the cell holds no atom")
        for name, highest in (("occupancies", 1.0), ("b_iso", np.inf)):
            value = getattr(self, name)
            wrong = np.flatnonzero((value < 0) | (value > highest + 1e-3))
            if len(wrong):
                raise StructureError(
                    f"{self.name}: {name} of {self.elements[wrong[0]]} is {value[wrong[0]]:g}, expected 0 to {highest:g}"
                )
        for element in set(self.elements):
            if gemmi.Element(element).atomic_number == 0:
                raise StructureError(f"{self.name}: {element!r} is no chemical element")

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the cell, shared sites counted for each of their elements."""
        return len(self.elements)

    @property
    def space_group_symbol(self) -> str:
        """Short Hermann-Mauguin symbol."""
        return symbol(self.space_group)

    def reciprocal_basis(self) -> np.ndarray:
        """Return a*, b*, c* as rows [1/Å], without the factor 2 pi.

        Returns
        -------
        (3, 3) ndarray of float64
            Cartesian components, a along x, b in the xy plane.
        """
        return self._bases[1]

    def direct_basis(self) -> np.ndarray:
        """Return a, b, c as rows [Å], a along x, b in the xy plane."""
        return self._bases[0]

    @cached_property
    def _bases(self) -> tuple[np.ndarray, np.ndarray]:
        # exactly the orthogonalisation matrix of the Protein Data Bank, whose columns are a, b, c
        direct = np.array(gemmi.UnitCell(*self.cell).orth.mat.tolist()).T
        reciprocal = np.linalg.inv(direct).T
        for basis in (direct, reciprocal):
            basis.flags.writeable = False
        return direct, reciprocal


def expand_sites(space_group: gemmi.SpaceGroup, xyz: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """Return every symmetry equivalent of a position in the cell.

    Parameters
    ----------
    space_group : gemmi.SpaceGroup
        Group in the setting of the coordinates.
    xyz : (3,) array_like of float
        Fractional coordinates of the representative.
    tolerance : float
        Positions closer than this in every fractional coordinate are one.

    Returns
    -------
    (m, 3) ndarray of float64
        Coordinates in [0, 1), m the multiplicity of the site.
    """
    found: list[np.ndarray] = []
    for operation in space_group.operations():
        position = np.asarray(operation.apply_to_xyz(list(map(float, xyz)))) % 1.0
        delta = np.array(found).reshape(-1, 3) - position
        if not (np.abs(delta - np.rint(delta)) < tolerance).all(axis=1).any():
            found.append(position)
    return np.array(found) % 1.0
