"""Kinematic diffraction: structure factors, excitation errors, and the spots of a zone-axis pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sadp._units import electron_wavelength
from napari_sadp._validate import check_option, check_range, check_zone_axis
from napari_sadp.labels.lattice2d import planar_basis
from napari_sadp.simulation.scattering import electron_scattering_factor

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

Relrod = Literal["gaussian", "sinc", "none"]
RELRODS: tuple[str, ...] = ("gaussian", "sinc", "none")

#: |F|^2 below this fraction of the sum of |f|^2 of the atoms is rounding, not scattering: set to exactly zero.
_ROUNDING = 1e-18
#: Atoms times reflections handled at once, to bound the memory (complex128, 16 bytes each).
_CHUNK = 4_000_000


@dataclass(frozen=True, eq=False)
class SpotPattern:
    """The diffracted beams of a crystal on a zone axis; the direct beam is not among them.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w], pointing at the viewer, against the beam.
    voltage_kv : float
        Accelerating voltage [kV].
    hkl : (n, 3) ndarray of int
        Miller indices in the conventional cell.
    g_xy : (n, 2) ndarray of float64
        Projection of g on the plane normal to the axis [1/Å], x to the right, y up.
    intensity : (n,) ndarray of float64
        Relative to the strongest, 0 to 1.
    excitation_error : (n,) ndarray of float64
        s_g [1/Å], negative when the node is outside the Ewald sphere.
    """

    crystal: Crystal
    zone: tuple[int, int, int]
    voltage_kv: float
    hkl: np.ndarray
    g_xy: np.ndarray
    intensity: np.ndarray
    excitation_error: np.ndarray

    def __len__(self) -> int:
        return len(self.hkl)

    @property
    def g(self) -> np.ndarray:
        """Lengths |g| in the plane [1/Å], shape (n,)."""
        return np.hypot(*self.g_xy.T)


def structure_factors(crystal: Crystal, hkl: np.ndarray) -> np.ndarray:
    """Return the electron structure factors.

    ``F(hkl) = sum_j o_j f_j(g/2) exp(-B_j g^2 / 4) exp(2 pi i (h x_j + k y_j + l z_j))``

    Parameters
    ----------
    crystal : Crystal
        Complete cell.
    hkl : (n, 3) ndarray of int
        Miller indices.

    Returns
    -------
    (n,) ndarray of complex128
        F [Å]; exactly zero where the sum cancels to rounding, as for every systematic absence.

    References
    ----------
    International Tables for Crystallography C (2006), section 4.3.1. doi:10.1107/97809553602060000593
    """
    hkl = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)
    g_squared = ((hkl @ crystal.reciprocal_basis()) ** 2).sum(axis=1)
    total = np.zeros(len(hkl), dtype=complex)
    scale = np.zeros(len(hkl))
    kinds: dict[tuple[str, float], list[int]] = {}
    for index, key in enumerate(zip(crystal.elements, crystal.b_iso.tolist(), strict=True)):
        kinds.setdefault(key, []).append(index)
    for (element, b_iso), members in kinds.items():
        form = electron_scattering_factor(element, np.sqrt(g_squared)) * np.exp(-b_iso * g_squared / 4)
        occupancy, position = crystal.occupancies[members], crystal.positions[members]
        step = max(1, _CHUNK // len(members))
        for start in range(0, len(hkl), step):
            part = slice(start, start + step)
            phase = np.exp(2j * np.pi * (hkl[part] @ position.T))
            total[part] += form[part] * (phase @ occupancy)
        scale += (form * occupancy.sum()) ** 2
    total[np.abs(total) ** 2 <= _ROUNDING * scale] = 0.0
    return total


def excitation_error(g_vectors: np.ndarray, wave_vector: np.ndarray) -> np.ndarray:
    """Return the distance of reciprocal-lattice nodes from the Ewald sphere along the beam.

    ``s_g = (K^2 - |k + g|^2) / (2 K) = -(2 k.g + g^2) / (2 K)``

    Parameters
    ----------
    g_vectors : (n, 3) ndarray of float
        Reciprocal-lattice vectors [1/Å].
    wave_vector : (3,) ndarray of float
        Incident wave vector k, of length K = 1/wavelength [1/Å].

    Returns
    -------
    (n,) ndarray of float64
        s_g [1/Å], negative outside the sphere.

    References
    ----------
    Williams & Carter, Transmission Electron Microscopy (2009), chapter 12. doi:10.1007/978-0-387-76501-3
    """
    length = np.linalg.norm(wave_vector)
    return -(2 * g_vectors @ wave_vector + (g_vectors**2).sum(axis=1)) / (2 * length)


def relrod_weight(s: np.ndarray, thickness_nm: float, relrod: Relrod) -> np.ndarray:
    """Return the factor of the intensity at an excitation error.

    Parameters
    ----------
    s : (n,) ndarray of float
        Excitation error [1/Å].
    thickness_nm : float
        Thickness of the crystal t [nm].
    relrod : {"gaussian", "sinc", "none"}
        ``sinc``: ``sinc^2(t s)`` of a parallel-sided crystal; ``gaussian``: the Gaussian with the same curvature at
        s = 0, without the zeros, as for a bent or wedged crystal; ``none``: 1.

    Returns
    -------
    (n,) ndarray of float64
        0 to 1.
    """
    check_option("relrod", relrod, RELRODS)
    if relrod == "none":
        return np.ones_like(s)
    phase = 10.0 * thickness_nm * s
    return np.sinc(phase) ** 2 if relrod == "sinc" else np.exp(-((np.pi * phase) ** 2) / 3)


def zone_frame(crystal: Crystal, zone: tuple[int, int, int]) -> np.ndarray:
    """Return the right-handed frame of a zone axis: rows x (right), y (up), z (the axis, at the viewer).

    x lies along the shortest reciprocal-lattice vector of the zero-order zone, so that the frame does not depend on the
    setting of the cell in space.
    """
    axis = np.asarray(zone, dtype=float) @ crystal.direct_basis()
    z = axis / np.linalg.norm(axis)
    plane = planar_basis(zone) @ crystal.reciprocal_basis()
    a, b = plane
    while True:  # Gauss reduction in floating point
        if b @ b < a @ a:
            a, b = b, a
        shift = np.rint(a @ b / (a @ a))
        if shift == 0:
            break
        b = b - shift * a
    x = a / np.linalg.norm(a)
    return np.stack([x, np.cross(z, x), z])


def _reflections(crystal: Crystal, zone: tuple[int, int, int], g_max: float, laue_zones: int) -> np.ndarray:
    """Return all (h, k, l) but the origin of Laue zones -laue_zones..laue_zones within a cylinder of radius g_max."""
    basis = planar_basis(zone)
    # one vector that reaches the first Laue zone: h.uvw = 1
    step = next(
        np.array([h, k, w])
        for size in range(1, 64)
        for h in range(-size, size + 1)
        for k in range(-size, size + 1)
        for w in range(-size, size + 1)
        if np.dot((h, k, w), zone) == 1
    )
    reciprocal = crystal.reciprocal_basis()
    frame = zone_frame(crystal, zone)
    plane = (basis @ reciprocal) @ frame[:2].T
    inverse = np.linalg.inv(plane)
    found = []
    for order in range(-laue_zones, laue_zones + 1):
        offset = (order * step @ reciprocal) @ frame[:2].T
        shift = -np.rint(offset @ inverse).astype(int)
        reach = np.ceil(g_max * np.linalg.norm(inverse, axis=0) + 1).astype(int)
        m, n = (axis.ravel() for axis in np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1])
        hkl = np.stack([m + shift[0], n + shift[1]], axis=1) @ basis + order * step
        inside = np.hypot(*((hkl @ reciprocal) @ frame[:2].T).T) <= g_max
        found.append(hkl[inside])
    hkl = np.concatenate(found)
    return hkl[np.any(hkl != 0, axis=1)]


def simulate_kinematic(
    crystal: Crystal,
    zone: tuple[int, int, int],
    *,
    voltage_kv: float = 200.0,
    thickness_nm: float = 10.0,
    g_max_inv_angstrom: float = 1.5,
    relrod: Relrod = "gaussian",
    laue_zones: int = 1,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
    min_intensity: float = 1e-8,
) -> SpotPattern:
    """Simulate the kinematic zone-axis pattern of a crystal.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    voltage_kv : float
        Accelerating voltage, 10 to 3000 [kV].
    thickness_nm : float
        Thickness [nm]; the longer the relrods, the thinner.
    g_max_inv_angstrom : float
        Largest |g| in the pattern [1/Å].
    relrod : {"gaussian", "sinc", "none"}
        See `relrod_weight`.
    laue_zones : int
        Highest order of the Laue zones, 0 for the zero-order zone alone.
    tilt_mrad : tuple of 2 float
        Tilt of the incident beam towards x and y of the frame [mrad].
    min_intensity : float
        Beams weaker than this fraction of the strongest are left out.

    Returns
    -------
    SpotPattern
        Diffracted beams, strongest = 1.

    Raises
    ------
    ValueError
        If a parameter is out of range, or nothing diffracts within `g_max_inv_angstrom`.
    """
    zone = check_zone_axis(zone)
    check_range("voltage_kv", voltage_kv, 10, 3000, "kV")
    check_range("thickness_nm", thickness_nm, 0, 1e4, "nm", low_inclusive=False)
    check_range("g_max_inv_angstrom", g_max_inv_angstrom, 0, 4, "1/Å", low_inclusive=False)
    check_range("laue_zones", laue_zones, 0, 5)
    hkl = _reflections(crystal, zone, g_max_inv_angstrom, int(laue_zones))
    frame = zone_frame(crystal, zone)
    g = (hkl @ crystal.reciprocal_basis()) @ frame.T
    wave_number = 1 / electron_wavelength(voltage_kv)
    in_plane = wave_number * 1e-3 * np.asarray(tilt_mrad, dtype=float)
    # the beam travels from the viewer's side into the page: along -z
    wave = np.array([*in_plane, -np.sqrt(wave_number**2 - in_plane @ in_plane)])
    s = excitation_error(g, wave)
    weight = relrod_weight(s, thickness_nm, relrod)
    if relrod != "none":
        hkl, g, s, weight = (item[weight > 1e-12] for item in (hkl, g, s, weight))
    intensity = np.abs(structure_factors(crystal, hkl)) ** 2 * weight
    strongest = intensity.max(initial=0.0)
    if strongest <= 0:
        raise ValueError(
            f"g_max_inv_angstrom is {g_max_inv_angstrom}: nothing of {crystal.name} diffracts within it"
        )
    keep = intensity > min_intensity * strongest
    return SpotPattern(
        crystal, zone, float(voltage_kv), hkl[keep], g[keep, :2], intensity[keep] / strongest, s[keep]
    )
