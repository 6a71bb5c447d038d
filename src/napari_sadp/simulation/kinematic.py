"""Kinematic diffraction: excitation errors, relrods, and the spots of a zone-axis pattern.

`diffracted_beams` is the whole engine: a dot product, a weight and a mask, for many orientations at once. `simulate_kinematic`
gives it one zone axis, `napari_sadp.simulation.orientations` any orientations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from napari_sadp._units import electron_wavelength
from napari_sadp._validate import check_option, check_range, check_zone_axis
from napari_sadp.simulation.frames import zone_frame
from napari_sadp.simulation.reflections import zone_reflections

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

Relrod = Literal["gaussian", "sinc", "none"]
RELRODS: tuple[str, ...] = ("gaussian", "sinc", "none")

#: Largest tilt of the incident beam [mrad].
MAX_TILT_MRAD = 200.0
#: Factor of the intensity by the excitation error below which a beam does not exist.
NO_BEAM = 1e-12


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


def excitation_error(g_vectors: Any, wave_vectors: Any) -> Any:
    """Return the distance of reciprocal-lattice nodes from the Ewald sphere along the beam.

    ``s_g = (K^2 - |k + g|^2) / (2 K) = -(2 k.g + g^2) / (2 K)``

    Parameters
    ----------
    g_vectors : (n, 3) ndarray or torch.Tensor
        Reciprocal-lattice vectors [1/Å].
    wave_vectors : (3,) or (b, 3) ndarray or torch.Tensor
        Incident wave vectors k, of length K = 1/wavelength [1/Å].

    Returns
    -------
    (n,) or (b, n) ndarray or torch.Tensor
        s_g [1/Å], negative outside the sphere.

    References
    ----------
    Williams & Carter, Transmission Electron Microscopy (2009), chapter 12. doi:10.1007/978-0-387-76501-3
    """
    length = (wave_vectors**2).sum(-1)[..., None] ** 0.5
    return -(wave_vectors @ g_vectors.T + 0.5 * (g_vectors**2).sum(-1)) / length


def incident_waves(voltage_kv: float | np.ndarray, tilt_mrad: np.ndarray) -> np.ndarray:
    """Return incident wave vectors of length K = 1/wavelength [1/Å] in the frames of their patterns.

    Parameters
    ----------
    voltage_kv : float or (b,) ndarray
        Accelerating voltage [kV].
    tilt_mrad : (b, 2) ndarray of float
        Tilts towards x and y [mrad].

    Returns
    -------
    (b, 3) ndarray of float64
        Without a tilt along -z: the beam travels from the viewer's side into the page.
    """
    wavelengths = {kv: electron_wavelength(kv) for kv in set(np.ravel(voltage_kv).tolist())}
    wave_number = np.array([1 / wavelengths[kv] for kv in np.ravel(voltage_kv).tolist()])[:, None]
    in_plane = 1e-3 * wave_number * tilt_mrad
    along = -np.sqrt(wave_number**2 - (in_plane**2).sum(axis=1, keepdims=True))
    return np.concatenate([in_plane, np.broadcast_to(along, (len(in_plane), 1))], axis=1)


def relrod_weight(s: Any, thickness_nm: Any, relrod: Relrod) -> Any:
    """Return the factor of the intensity at an excitation error.

    Parameters
    ----------
    s : (n,) ndarray or torch.Tensor
        Excitation error [1/Å].
    thickness_nm : float or (n,) array
        Thickness of the crystal t [nm].
    relrod : {"gaussian", "sinc", "none"}
        ``sinc``: ``sinc^2(t s)`` of a parallel-sided crystal; ``gaussian``: the Gaussian with the same curvature at
        s = 0, without the zeros, as for a bent or wedged crystal; ``none``: 1.

    Returns
    -------
    (n,) ndarray or torch.Tensor
        0 to 1.
    """
    check_option("relrod", relrod, RELRODS)
    if relrod == "none":
        return 0.0 * s + 1.0
    phase = 10.0 * thickness_nm * s
    if relrod == "gaussian":
        power = -((np.pi * phase) ** 2) / 3
        return np.exp(power) if isinstance(power, np.ndarray) else power.exp()
    return (np.sinc(phase) if isinstance(phase, np.ndarray) else phase.sinc()) ** 2


def largest_excitation_error(thickness_nm: Any, relrod: Relrod) -> Any:
    """Return where a relrod ends [1/Å]: no weight of `NO_BEAM` beyond it; infinity where it has no end."""
    if relrod == "gaussian":
        return np.sqrt(-3 * np.log(NO_BEAM)) / (10 * np.pi * np.asarray(thickness_nm, dtype=float))
    return np.full(np.shape(thickness_nm), np.inf)


class Beams(NamedTuple):
    """Diffracted beams of many patterns in one list, pattern by pattern.

    Parameters
    ----------
    pattern : (m,) array of int
        Pattern of each beam, ascending.
    node : (m,) array of int
        Its reflection.
    g_xy : (m, 2) array
        Its place in the pattern [1/Å].
    excitation_error : (m,) array
        s_g [1/Å].
    intensity : (m,) array
        |F|^2 times the weight of the relrod [Å^2].
    """

    pattern: Any
    node: Any
    g_xy: Any
    excitation_error: Any
    intensity: Any


def diffracted_beams(
    g: Any,
    strength: Any,
    frames: Any,
    wave_vectors: Any,
    thickness_nm: Any,
    *,
    relrod: Relrod,
    s_max: Any,
    g_max: float,
) -> Beams:
    """Return the beams of reflections in some orientations: the kinematic engine, for numpy and torch arrays.

    Parameters
    ----------
    g : (n, 3) array
        Reciprocal-lattice vectors in the frame of the crystal [1/Å].
    strength : (n,) array
        |F|^2 [Å^2].
    frames : (b, 3, 3) array
        Axes x (right), y (up), z (at the viewer) of each pattern as rows, in the frame of the crystal.
    wave_vectors : (b, 3) array
        Incident wave vectors on those axes [1/Å].
    thickness_nm : (b,) array
        Thicknesses [nm].
    relrod : {"gaussian", "sinc", "none"}
        See `relrod_weight`.
    s_max : (b,) array
        Largest |s_g| [1/Å].
    g_max : float
        Largest distance from the direct beam [1/Å].

    Returns
    -------
    Beams
        In the order of `g` within a pattern.
    """
    waves = (wave_vectors[:, None] @ frames)[:, 0]
    s = excitation_error(g, waves)
    near = abs(s) <= s_max[:, None]
    pattern, node = near.nonzero() if isinstance(near, np.ndarray) else near.nonzero(as_tuple=True)
    g_xy = (frames[pattern, :2] * g[node][:, None]).sum(-1)
    inside = (g_xy**2).sum(-1) <= (g_max * (1 + 1e-6)) ** 2
    pattern, node, g_xy = pattern[inside], node[inside], g_xy[inside]
    s = s[pattern, node]
    weight = relrod_weight(s, thickness_nm[pattern], relrod)
    return Beams(pattern, node, g_xy, s, strength[node] * weight)


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
    check_range("min_intensity", min_intensity, 0, 1)
    tilt = np.asarray(tilt_mrad, dtype=float)
    if tilt.shape != (2,) or not np.isfinite(tilt).all() or np.abs(tilt).max() > MAX_TILT_MRAD:
        raise ValueError(
            f"tilt_mrad is {tilt_mrad!r}, expected two numbers in [-{MAX_TILT_MRAD:g}, {MAX_TILT_MRAD:g}] mrad"
        )
    nodes = zone_reflections(crystal, zone, float(g_max_inv_angstrom), int(laue_zones))
    thickness = np.array([float(thickness_nm)])
    beams = diffracted_beams(
        nodes.g,
        nodes.strength,
        zone_frame(crystal, zone)[None],
        incident_waves(voltage_kv, tilt[None]),
        thickness,
        relrod=relrod,
        s_max=largest_excitation_error(thickness, relrod),
        g_max=g_max_inv_angstrom,
    )
    strongest = beams.intensity.max(initial=0.0)
    if strongest <= 0:
        raise ValueError(
            f"g_max_inv_angstrom is {g_max_inv_angstrom}: nothing of {crystal.name} diffracts within it"
        )
    keep = beams.intensity > min_intensity * strongest
    return SpotPattern(
        crystal,
        zone,
        float(voltage_kv),
        nodes.hkl[beams.node[keep]],
        beams.g_xy[keep],
        beams.intensity[keep] / strongest,
        beams.excitation_error[keep],
    )
