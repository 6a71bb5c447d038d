"""The crystal potential in the zero-order Laue zone, and what its symmetry saves in a Bloch-wave calculation.

Beams are written as integer pairs (m, n) on a reduced basis of the lattice that the reflections of the zone span. Only
beams in that lattice can be excited (the span rule), so the others never enter the eigenvalue problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis, span
from napari_sadp.simulation.frames import zone_frame
from napari_sadp.simulation.scattering import structure_factors

if TYPE_CHECKING:
    from napari_sadp.simulation.crystal import Crystal

#: Largest difference of two potentials, over the strongest, that still counts as equal by symmetry.
_SAME = 1e-7
#: Tables are worked out to multiples of this [1/Å], so that nearby circles of beams share one.
_RADIUS_STEP = 0.25


@dataclass(frozen=True, eq=False)
class ZonePotential:
    """Fourier coefficients of the projected potential between the beams of a zone.

    Parameters
    ----------
    basis : (2, 3) ndarray of int
        Miller indices of the basis of the excitable beams.
    beams : (n, 2) ndarray of int
        Beams on that basis; the first is (0, 0), the direct beam.
    table : (2 i + 1, 2 j + 1) ndarray of complex128 or float64
        ``F_g / (pi Omega)`` [1/Å^2] at ``[m + i, n + j]``, 0 at the origin. Real where a shift of the origin makes it
        real, which it does whenever the projection has a twofold axis.
    mean : float
        ``F_0 / (pi Omega)`` [1/Å^2].
    rotations : (k, 2, 2) ndarray of int
        Point symmetry of the projection: beam ``mn`` goes to ``mn @ rotation``.
    shifts : (k, 2) ndarray of float64
        ``U(mn @ rotation) = U(mn) exp(2 pi i mn.shift)``, in the gauge of the original origin.
    gauge : (2,) ndarray of float64
        The table is that of the crystal times ``exp(pi i mn.gauge)``.
    """

    basis: np.ndarray
    beams: np.ndarray
    table: np.ndarray
    mean: float
    rotations: np.ndarray
    shifts: np.ndarray
    gauge: np.ndarray

    def couplings(self, rows: np.ndarray) -> np.ndarray:
        """Return ``U_{g-h} / gamma`` between some beams g and all beams h [1/Å^2].

        Parameters
        ----------
        rows : (r,) ndarray of int
            Indices of the beams g.

        Returns
        -------
        (r, n) ndarray of float64 or complex128
            Rows of a Hermitian matrix with zeros on the diagonal.
        """
        m, n = np.moveaxis(self.beams[rows][:, None] - self.beams[None], -1, 0)
        half = np.array(self.table.shape) // 2
        return self.table[m + half[0], n + half[1]]


@dataclass(frozen=True, eq=False)
class Reduction:
    """Beams gathered into the combinations that a symmetric incident wave can excite.

    Parameters
    ----------
    interaction : (m, m) ndarray of float64 or complex128
        Hermitian ``U_{g-h} / gamma`` between the combinations [1/Å^2].
    representatives : (m,) ndarray of int
        One beam of each combination; the first is the direct beam.
    combination : (n,) ndarray of int
        Combination of each beam, -1 where symmetry forbids the beam (as a glide line does on its axis).
    share : (n,) ndarray of float64
        Part of the intensity of its combination that a beam carries.
    """

    interaction: np.ndarray
    representatives: np.ndarray
    combination: np.ndarray
    share: np.ndarray


def zone_nodes(plane: np.ndarray, g_max: float) -> np.ndarray:
    """Return the nodes of a planar lattice within a circle.

    Parameters
    ----------
    plane : (2, 2) ndarray of float64
        Basis vectors as rows [1/Å].
    g_max : float
        Radius [1/Å].

    Returns
    -------
    (n, 2) ndarray of int
        Coordinates on the basis, the origin included.
    """
    reach = np.ceil(g_max * np.linalg.norm(np.linalg.inv(plane), axis=0)).astype(int)
    m, n = (axis.ravel() for axis in np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1])
    nodes = np.stack([m, n], axis=1)
    return nodes[((nodes @ plane) ** 2).sum(axis=1) <= (g_max * (1 + 1e-9)) ** 2]


@lru_cache(maxsize=1024)  # the same axis comes back with other thicknesses, tilts and voltages
def excitable_basis(crystal: Crystal, zone: tuple[int, int, int], g_max: float) -> np.ndarray | None:
    """Return a reduced basis of the beams that multiple scattering within a circle can excite.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis.
    g_max : float
        Radius [1/Å].

    Returns
    -------
    (2, 3) ndarray of int or None
        Miller indices that generate all integer sums of the reflections between two beams of the circle, so of those
        within twice the radius; None where they span no plane.
    """
    basis = planar_basis(zone)
    reciprocal = crystal.reciprocal_basis()
    nodes = zone_nodes(basis @ reciprocal @ zone_frame(crystal, zone)[:2].T, 2 * g_max)
    nodes = nodes[_upper_half(nodes)]
    # nearest first: a few reflections mostly generate everything, and only nodes outside their sums can add to it
    nodes = nodes[np.argsort(((nodes @ basis @ reciprocal) ** 2).sum(axis=1), kind="stable")]
    generators = nodes[:0]
    for block in np.array_split(nodes, [24, 200]):
        generated = span(generators)
        if generated is not None:
            coordinates = block @ np.linalg.inv(generated)
            outside = np.abs(coordinates - np.rint(coordinates)).max(axis=1, initial=0.0) > 1e-6
            generators, block = generated, block[outside]
        generators = np.concatenate([generators, block[structure_factors(crystal, block, basis) != 0]])
    generated = span(generators)
    if generated is None:
        return None
    reduced = gauss_reduce(generated @ basis, reciprocal @ reciprocal.T)
    reduced.flags.writeable = False
    return reduced


def zone_potential(
    crystal: Crystal, zone: tuple[int, int, int], frame: np.ndarray, basis: np.ndarray, beams: np.ndarray
) -> ZonePotential:
    """Return the potential between beams, real where the projection has a twofold axis.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis.
    frame : (3, 3) ndarray of float64
        `zone_frame` of the axis.
    basis : (2, 3) ndarray of int
        Miller indices that the beams are written on.
    beams : (n, 2) ndarray of int
        Beams, the first (0, 0).

    Returns
    -------
    ZonePotential
        Table over all differences of two beams, with the symmetry that it was found to have.
    """
    reach = 2 * np.linalg.norm(beams @ basis @ crystal.reciprocal_basis() @ frame[:2].T, axis=1).max(
        initial=0.0
    )
    radius = _RADIUS_STEP * np.ceil(reach / _RADIUS_STEP)
    table, mean, rotations, shifts, gauge = _table(
        crystal, zone, tuple(basis.ravel().tolist()), float(radius)
    )
    return ZonePotential(basis, beams, table, mean, rotations, shifts, gauge)


@lru_cache(maxsize=256)  # the same axis comes back with other tilts and voltages
def _table(
    crystal: Crystal, zone: tuple[int, int, int], basis: tuple[int, ...], radius: float
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the table of coefficients within a circle, their mean, and symmetry and gauge: see `ZonePotential`."""
    miller = np.array(basis).reshape(2, 3)
    nodes = zone_nodes(miller @ crystal.reciprocal_basis() @ zone_frame(crystal, zone)[:2].T, radius)
    half = np.abs(nodes).max(axis=0)
    volume = abs(np.linalg.det(crystal.direct_basis()))
    table = np.zeros(2 * half + 1, dtype=complex)
    upper = nodes[_upper_half(nodes)]
    # a wave exp(+2 pi i k.r) takes V_g = integral V exp(-2 pi i g.r), the conjugate of the crystallographer's F
    factors = structure_factors(crystal, upper, miller) / (np.pi * volume)
    table[tuple((half + upper).T)] = factors.conj()
    table[tuple((half - upper).T)] = factors
    rotations, shifts = _planar_symmetry(crystal, zone, miller, nodes, table)
    gauge = np.zeros(2)
    inversions = np.flatnonzero((rotations == -np.eye(2, dtype=int)).all(axis=(1, 2)))
    if len(inversions):
        # U(-g) = conj(U(g)) = U(g) exp(2 pi i g.shift), so that U(g) exp(pi i g.shift) is real
        gauge = shifts[inversions[0]]
        table[tuple((half + nodes).T)] *= np.exp(1j * np.pi * (nodes @ gauge))
        table = table.real
    mean = structure_factors(crystal, np.zeros((1, 3), dtype=int))[0].real / (np.pi * volume)
    for array in (table, rotations, shifts, gauge):
        array.flags.writeable = False  # they are remembered
    return table, float(mean), rotations, shifts, gauge


def _upper_half(nodes: np.ndarray) -> np.ndarray:
    """Tell which nodes come first of their Friedel pair; the origin does not."""
    return (nodes[:, 0] > 0) | ((nodes[:, 0] == 0) & (nodes[:, 1] > 0))


def _planar_symmetry(
    crystal: Crystal, zone: tuple[int, int, int], basis: np.ndarray, nodes: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations that the table obeys, as rotations (k, 2, 2) and shifts (k, 2).

    The space group of the crystal proposes, the numbers decide: a crystal in another setting or origin than that of
    the reference loses the saving, never the correctness.
    """
    identity = np.eye(2, dtype=int)
    half = np.array(table.shape) // 2
    value = table[tuple((half + nodes).T)]
    tolerance = _SAME * np.abs(value).max(initial=0.0)
    for rotations, shifts in (
        _group_operations(crystal.space_group, zone, basis),
        (np.stack([identity, -identity]), np.zeros((2, 2))),
    ):
        image = nodes @ rotations + half
        if (image >= 0).all() and (image < table.shape).all():
            moved = value * np.exp(2j * np.pi * (shifts @ nodes.T))
            if np.abs(table[image[..., 0], image[..., 1]] - moved).max(initial=0.0) <= tolerance:
                return rotations, shifts
    return identity[None], np.zeros((1, 2))


@lru_cache(maxsize=1024)
def _zone_operations(space_group: int, zone: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (k, 3, 3) and translations (k, 3) of a group that map a zone on itself, read-only."""
    rotations, translations = [np.eye(3, dtype=int)], [np.zeros(3)]
    if 1 <= space_group <= 230:
        operations = list(gemmi.get_spacegroup_reference_setting(space_group).operations().sym_ops)
        rotations = [np.array(op.rot) // op.DEN for op in operations]
        translations = [np.array(op.tran) / op.DEN for op in operations]
    basis = planar_basis(zone)
    kept = [i for i, rotation in enumerate(rotations) if not (basis @ rotation @ zone).any()]
    return np.array([rotations[i] for i in kept]), np.array([translations[i] for i in kept])


def _group_operations(
    space_group: int, zone: tuple[int, int, int], basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations of a group as they act on (m, n); none where they leave the lattice of the beams."""
    rotations, translations = _zone_operations(space_group, zone)
    moved = basis @ rotations
    planar = np.rint(moved @ np.linalg.pinv(basis)).astype(int)
    if not np.array_equal(planar @ basis, moved):
        return np.eye(2, dtype=int)[None], np.zeros((1, 2))
    return planar, translations @ basis.T


def reduce_by_symmetry(potential: ZonePotential, *, symmetric: bool) -> Reduction:
    """Gather the beams into the combinations that the direct beam can excite.

    On the exact axis the incident wave has the whole symmetry of the projection, and so has the wave in the crystal:
    an eigenvalue problem of the size of the number of orbits, one eighth of the beams on a fourfold axis with mirrors.

    Parameters
    ----------
    potential : ZonePotential
        Potential with its symmetry.
    symmetric : bool
        Whether the incident beam lies on the axis; otherwise no combination is formed.

    Returns
    -------
    Reduction
        The smaller problem and the way back.
    """
    beams, n = potential.beams, len(potential.beams)
    everything = np.arange(n)
    images = _beam_images(potential) if symmetric else None
    if images is None:
        return Reduction(potential.couplings(everything), everything, everything, np.ones(n))
    moved = beams[images] - beams  # (k, n, 2)
    phase = np.exp(
        1j * np.pi * (2 * np.einsum("ni,ki->kn", beams, potential.shifts) + moved @ potential.gauge)
    )
    if np.isrealobj(potential.table):
        phase = np.rint(phase.real)  # plus or minus one between real coefficients
    representatives, combination = np.unique(images.min(axis=0), return_inverse=True)
    waves = np.zeros((n, len(representatives)), dtype=phase.dtype)
    columns = np.broadcast_to(np.arange(len(representatives)), (len(images), len(representatives)))
    np.add.at(waves, (images[:, representatives], columns), phase[:, representatives])
    norm = np.linalg.norm(waves, axis=0)
    kept = norm > 1e-6 * len(images)  # operations that contradict each other leave nothing of a beam
    representatives, waves = representatives[kept], waves[:, kept] / norm[kept]
    combination = np.where(kept, np.cumsum(kept) - 1, -1)[combination]
    members = np.bincount(combination[combination >= 0], minlength=len(representatives))
    # the product is symmetric itself, so one row of each orbit holds all of it
    interaction = np.sqrt(members)[:, None] * (potential.couplings(representatives) @ waves)
    share = np.where(combination >= 0, 1.0 / members[combination], 0.0)
    return Reduction(interaction, representatives, combination, share)


def _beam_images(potential: ZonePotential) -> np.ndarray | None:
    """Return the beam that each operation makes of each beam, (k, n), or None if one is not in the list."""
    beams = potential.beams
    half = np.abs(beams).max(axis=0, initial=0)
    index = np.full(2 * half + 1, -1)
    index[tuple((half + beams).T)] = np.arange(len(beams))
    moved = beams @ potential.rotations + half
    if (moved < 0).any() or (moved >= index.shape).any():
        return None
    images = index[moved[..., 0], moved[..., 1]]
    return None if (images < 0).any() else images
