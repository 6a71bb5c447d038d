"""Dynamical diffraction: Bloch waves on a zone axis, all thicknesses from one eigenvalue problem.

In the zero-order Laue zone, with high-energy electrons in forward scattering and the surface normal to the beam, the
amplitudes of the beams at depth t are ``psi(t) = exp(2 pi i M t) psi(0)`` with the Hermitian matrix

``M_gg = s_g``,  ``M_gh = U_{g-h} / (2 K)``,  ``U_g = gamma F_g / (pi Omega)``

(K = 1/wavelength, Omega the volume of the cell, gamma the relativistic mass over the rest mass, F_g the electron
structure factor in Å). The eigenvectors of M are the Bloch waves. Reflections of higher Laue zones and the change of K
by the mean potential (some 10 V in 200 kV) are left out. U_g takes the coefficients of a wave exp(+2 pi i k.r), so that polar
crystals point the right way.

References
----------
Humphreys, Rep. Prog. Phys. 42 (1979) 1825. doi:10.1088/0034-4885/42/11/002
De Graef, Introduction to Conventional Transmission Electron Microscopy (2003), chapter 5. doi:10.1017/CBO9780511615092
Metherell, Diffraction of electrons by perfect crystals, in Electron Microscopy in Materials Science II (1975), 397-552.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sadp._units import ELECTRON_MASS, ELEMENTARY_CHARGE, LIGHT_SPEED, electron_wavelength
from napari_sadp._validate import check_option, check_range, check_zone_axis
from napari_sadp.simulation.bloch_solvers import Problem, solve_numpy, solve_torch
from napari_sadp.simulation.frames import zone_frame
from napari_sadp.simulation.kinematic import MAX_TILT_MRAD, SpotPattern, excitation_error, incident_waves
from napari_sadp.simulation.zone_potential import (
    excitable_basis,
    reduce_by_symmetry,
    zone_nodes,
    zone_potential,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.simulation.crystal import Crystal

Precision = Literal["float64", "float32"]
PRECISIONS: tuple[str, ...] = ("float64", "float32")

#: Excitation errors [1/Å] closer than this are one shell: the cap on the number of beams never cuts through it.
_SHELL = 1e-8


@dataclass(frozen=True, eq=False)
class BlochResult:
    """Intensities of the beams of a zone axis at several thicknesses.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    voltage_kv : float
        Accelerating voltage [kV].
    thickness_nm : (t,) ndarray of float64
        Thicknesses [nm].
    tilt_mrad : tuple of 2 float
        Tilt of the incident beam, of the axis of the cone under precession [mrad].
    precession_mrad : float or None
        Half angle of the precession cone [mrad].
    absorption : float
        Imaginary part of the potential over its real part.
    hkl : (n, 3) ndarray of int
        Miller indices of the diffracted beams; the direct beam is not among them.
    g_xy : (n, 2) ndarray of float64
        Their positions in the plane normal to the axis [1/Å].
    excitation_error : (n,) ndarray of float64
        s_g [1/Å] at `tilt_mrad`.
    intensity : (t, n) ndarray of float64
        Part of the incident intensity in each diffracted beam.
    direct_beam : (t,) ndarray of float64
        Part of the incident intensity in the direct beam.
    """

    crystal: Crystal
    zone: tuple[int, int, int]
    voltage_kv: float
    thickness_nm: np.ndarray
    tilt_mrad: tuple[float, float]
    precession_mrad: float | None
    absorption: float
    hkl: np.ndarray
    g_xy: np.ndarray
    excitation_error: np.ndarray
    intensity: np.ndarray
    direct_beam: np.ndarray

    def __len__(self) -> int:
        return len(self.thickness_nm)

    @property
    def n_beams(self) -> int:
        """Number of beams of the calculation, the direct beam included."""
        return len(self.hkl) + 1

    def direct_ratio(self, index: int) -> float:
        """Return the direct beam over the strongest diffracted beam at a thickness, as `render_pattern` takes it."""
        return float(self.direct_beam[index] / self._strongest(index))

    def _strongest(self, index: int) -> float:
        strongest = self.intensity[index].max()
        if strongest <= 0:
            raise ValueError(
                f"no beam of {self.crystal.name} is excited by the {self.n_beams} beams; take more"
            )
        return float(strongest)

    def pattern(self, index: int = 0, *, min_intensity: float = 1e-8) -> SpotPattern:
        """Return the spots at one thickness, in the form of the kinematic engine.

        Parameters
        ----------
        index : int
            Index into `thickness_nm`.
        min_intensity : float
            Beams weaker than this fraction of the strongest are left out.

        Returns
        -------
        SpotPattern
            Diffracted beams, strongest = 1.

        Raises
        ------
        ValueError
            If the beams of the calculation couple to nothing, as two beams with a forbidden reflection do.
        """
        relative = self.intensity[index] / self._strongest(index)
        keep = relative > min_intensity
        return SpotPattern(
            self.crystal,
            self.zone,
            self.voltage_kv,
            self.hkl[keep],
            self.g_xy[keep],
            relative[keep],
            self.excitation_error[keep],
        )


def simulate_bloch(
    crystal: Crystal,
    zone: tuple[int, int, int],
    *,
    voltage_kv: float = 200.0,
    thickness_nm: float | Sequence[float] | np.ndarray = 20.0,
    g_max_inv_angstrom: float = 2.0,
    n_beams_max: int = 400,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
    precession_mrad: float | None = None,
    n_azimuths: int = 36,
    absorption: float = 0.0,
    device: str = "cpu",
    dtype: Precision = "float64",
) -> BlochResult:
    """Simulate the dynamical pattern of a crystal on a zone axis, at any number of thicknesses at once.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    voltage_kv : float
        Accelerating voltage, 10 to 3000 [kV].
    thickness_nm : float or sequence of float
        Thicknesses [nm]; each further one costs a matrix product.
    g_max_inv_angstrom : float
        Largest |g| of a beam [1/Å]. Beams enter if they are sums of reflections that couple beams of this circle (span
        rule). For silicon, spinel and beta-Mn on [001] and [011] at 200 kV, no beam up to 40 nm differs from a circle of
        3.2 1/Å by more than 0.03 of the strongest with 2 1/Å, and 0.01 with 2.5 1/Å, if `n_beams_max` lets them all in.
    n_beams_max : int
        Largest number of beams, the direct beam included. Of more, those with the smallest mean |s_g| stay; a shell of
        equal |s_g| is never cut, so that the symmetry of the pattern survives.
    tilt_mrad : tuple of 2 float
        Tilt of the incident beam towards x and y of `zone_frame` [mrad].
    precession_mrad : float, optional
        Half angle of a precession cone about `tilt_mrad` [mrad]: the mean intensity over its azimuths.
    n_azimuths : int
        Azimuths of the cone, equally spaced.
    absorption : float
        Imaginary part of the potential over its real part, 0 to 0.5; 0.1 is a usual rough value. First order, by the
        Bloch waves of the crystal without absorption. 0 keeps all electrons in the beams.
    device : str
        ``"cpu"`` for numpy, any other name for the torch device of that name, such as ``"cuda"``.
    dtype : {"float64", "float32"}
        Precision of the eigenvalue problem; float32 costs about six digits.

    Returns
    -------
    BlochResult
        Intensities (t, n) as parts of the incident beam.

    Raises
    ------
    ValueError
        If a parameter is out of range, or fewer than two independent reflections lie within the circle.

    References
    ----------
    Humphreys, Rep. Prog. Phys. 42 (1979) 1825. doi:10.1088/0034-4885/42/11/002

    Examples
    --------
    The forbidden 200 of silicon appears on [011] in a thick crystal, and never on [001]:

    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> silicon = find_structure("Si", 227).crystal()
    >>> spots = simulate_bloch(silicon, (0, 1, 1), thickness_nm=[5, 20]).pattern(1)
    >>> round(float(spots.intensity[spots.hkl.tolist().index([2, 0, 0])]), 1)
    0.2
    """
    return simulate_bloch_batch(
        [crystal],
        [zone],
        voltage_kv=voltage_kv,
        thickness_nm=thickness_nm,
        g_max_inv_angstrom=g_max_inv_angstrom,
        n_beams_max=n_beams_max,
        tilt_mrad=[tilt_mrad],
        precession_mrad=precession_mrad,
        n_azimuths=n_azimuths,
        absorption=absorption,
        device=device,
        dtype=dtype,
    )[0]


def simulate_bloch_batch(
    crystals: Sequence[Crystal],
    zones: Sequence[tuple[int, int, int]],
    *,
    voltage_kv: float = 200.0,
    thickness_nm: float | Sequence[float] | np.ndarray = 20.0,
    g_max_inv_angstrom: float = 2.0,
    n_beams_max: int = 400,
    tilt_mrad: Sequence[tuple[float, float]] | None = None,
    precession_mrad: float | None = None,
    n_azimuths: int = 36,
    absorption: float = 0.0,
    device: str = "cpu",
    dtype: Precision = "float64",
) -> list[BlochResult]:
    """Simulate several crystals, zone axes or tilts; on an accelerator their eigenvalue problems are one batch.

    Parameters
    ----------
    crystals : sequence of Crystal
        What diffracts, one per pattern.
    zones : sequence of tuple of 3 int
        Zone axis of each.
    tilt_mrad : sequence of tuple of 2 float, optional
        Tilt of each [mrad]; the exact axes by default.
    voltage_kv, thickness_nm, g_max_inv_angstrom, n_beams_max, precession_mrad, n_azimuths, absorption, device, dtype
        As `simulate_bloch`, the same for all.

    Returns
    -------
    list of BlochResult
        One per crystal, equal to that of `simulate_bloch`.

    Raises
    ------
    ValueError
        As `simulate_bloch`, or if the sequences differ in length.
    """
    tilts = [(0.0, 0.0)] * len(crystals) if tilt_mrad is None else tilt_mrad
    if not len(crystals) == len(zones) == len(tilts):
        raise ValueError(
            f"crystals, zones, tilt_mrad have lengths {len(crystals)}, {len(zones)}, {len(tilts)}, expected equal ones"
        )
    check_range("voltage_kv", voltage_kv, 10, 3000, "kV")
    check_range("g_max_inv_angstrom", g_max_inv_angstrom, 0, 4, "1/Å", low_inclusive=False)
    check_range("n_beams_max", n_beams_max, 2, 4000)
    check_range("absorption", absorption, 0, 0.5)
    check_range("n_azimuths", n_azimuths, 1, 3600)
    check_option("dtype", dtype, PRECISIONS)
    if precession_mrad is not None:
        check_range("precession_mrad", precession_mrad, 0, 100, "mrad")
    thickness = np.atleast_1d(np.asarray(thickness_nm, dtype=float))
    if thickness.ndim != 1 or len(thickness) == 0:
        raise ValueError(f"thickness_nm is {thickness_nm!r}, expected a number of nm or a sequence of them")
    for value in thickness.tolist():
        check_range("thickness_nm", value, 0, 1e4, "nm", low_inclusive=False)
    problems = [
        _prepare(
            c, z, tilt, voltage_kv, g_max_inv_angstrom, int(n_beams_max), precession_mrad, int(n_azimuths)
        )
        for c, z, tilt in zip(crystals, zones, tilts, strict=True)
    ]
    solve = solve_numpy if device == "cpu" else solve_torch
    solved = solve(problems, _matrix_scale(voltage_kv), 10.0 * thickness, absorption, dtype, device)
    return [
        _result(problem, intensity, voltage_kv, thickness, precession_mrad, absorption)
        for problem, intensity in zip(problems, solved, strict=True)
    ]


def relativistic_mass_factor(voltage_kv: float) -> float:
    """Return the relativistic mass of the beam electrons over their rest mass, ``1 + e V / m c^2``."""
    return 1.0 + ELEMENTARY_CHARGE * voltage_kv * 1e3 / (ELECTRON_MASS * LIGHT_SPEED**2)


def _matrix_scale(voltage_kv: float) -> float:
    """Return gamma / 2K [Å], which makes an element of M of ``F_g / (pi Omega)``."""
    return 0.5 * relativistic_mass_factor(voltage_kv) * electron_wavelength(voltage_kv)


def _prepare(
    crystal: Crystal,
    zone: tuple[int, int, int],
    tilt_mrad: tuple[float, float],
    voltage_kv: float,
    g_max: float,
    n_beams_max: int,
    precession_mrad: float | None,
    n_azimuths: int,
) -> Problem:
    """Select the beams of a zone axis and build their potential."""
    zone = check_zone_axis(zone)
    tilt = np.asarray(tilt_mrad, dtype=float)
    if tilt.shape != (2,) or not np.isfinite(tilt).all() or np.abs(tilt).max() > MAX_TILT_MRAD:
        raise ValueError(
            f"tilt_mrad is {tilt_mrad!r}, expected two numbers in [-{MAX_TILT_MRAD:g}, {MAX_TILT_MRAD:g}] mrad"
        )
    frame = zone_frame(crystal, zone)
    basis = excitable_basis(crystal, zone, g_max)
    if basis is None:
        raise ValueError(
            f"g_max_inv_angstrom is {g_max}: no two independent reflections of {crystal.name} lie within it"
        )
    to_frame = basis @ crystal.reciprocal_basis() @ frame.T
    beams = zone_nodes(to_frame[:, :2], g_max)
    directions = tilt[None]
    if precession_mrad:
        azimuth = 2 * np.pi * np.arange(n_azimuths) / n_azimuths
        directions = tilt + precession_mrad * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    excitation = _excitation_errors(beams @ to_frame, directions, voltage_kv)
    kept = _strongest_beams(beams, np.abs(excitation).mean(axis=0), n_beams_max)
    beams, excitation = beams[kept], excitation[:, kept]
    potential = zone_potential(crystal, zone, frame, basis, beams)
    reduction = reduce_by_symmetry(potential, symmetric=not directions.any())
    return Problem(
        crystal, zone, (float(tilt[0]), float(tilt[1])), potential, reduction, beams @ to_frame, excitation
    )


def _excitation_errors(g: np.ndarray, directions_mrad: np.ndarray, voltage_kv: float) -> np.ndarray:
    """Return s_g (k, n) [1/Å] for incident beams tilted by directions (k, 2)."""
    return excitation_error(g, incident_waves(voltage_kv, directions_mrad))


def _strongest_beams(beams: np.ndarray, mean_error: np.ndarray, n_beams_max: int) -> np.ndarray:
    """Return the indices of the beams that stay, the direct beam first."""
    direct = np.flatnonzero(~beams.any(axis=1))
    others = np.flatnonzero(beams.any(axis=1))
    others = others[np.argsort(mean_error[others], kind="stable")]
    error = mean_error[others]
    n = min(len(others), n_beams_max - 1)
    while 0 < n < len(others) and error[n] - error[n - 1] < _SHELL:
        n -= 1
    if n == 0:
        raise ValueError(
            f"n_beams_max is {n_beams_max}, expected room for the direct beam and the first shell of reflections"
        )
    return np.concatenate([direct, others[:n]])


def _result(
    problem: Problem,
    intensity: np.ndarray,
    voltage_kv: float,
    thickness: np.ndarray,
    precession_mrad: float | None,
    absorption: float,
) -> BlochResult:
    """Take the direct beam out of the list of beams."""
    return BlochResult(
        crystal=problem.crystal,
        zone=problem.zone,
        voltage_kv=float(voltage_kv),
        thickness_nm=thickness,
        tilt_mrad=problem.tilt_mrad,
        precession_mrad=precession_mrad,
        absorption=float(absorption),
        hkl=problem.potential.beams[1:] @ problem.potential.basis,
        g_xy=problem.g[1:, :2],
        excitation_error=_excitation_errors(problem.g[1:], np.array([problem.tilt_mrad]), voltage_kv)[0],
        intensity=intensity[:, 1:],
        direct_beam=intensity[:, 0],
    )
