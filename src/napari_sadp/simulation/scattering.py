"""Electron scattering factors of the neutral atoms.

International Tables for Crystallography C (2006), table 4.3.2.2: five Gaussians, valid for s up to 2 1/Å, that is g up
to 4 1/Å. The table ships with gemmi. X-ray factors would give wrong relative intensities for electrons.
"""

from __future__ import annotations

from functools import lru_cache

import gemmi
import numpy as np

from napari_sadp.errors import StructureError


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
