"""What a crystal shows on a zone axis: the intensity of every node of the plane, kinematic and for thick specimens.

The statistics of the reasoning are learned from this, and its benchmark is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry.lattice import MIN_SPOTS, SYSTEMATIC_ERROR
from napari_sadp.geometry.nodes import (
    OUTLIER_SHARE,
    OUTLIER_WIDTH,
    NodeMap,
    presence_probability,
    strongest_at,
)
from napari_sadp.geometry.results import PROFILE_ERROR, SpotLattice, SpotList, intensity_error
from napari_sadp.labels.lattice2d import gauss_reduce, gram, planar_basis, span
from napari_sadp.labels.scheme import disc_nodes
from napari_sadp.simulation.bloch import simulate_bloch
from napari_sadp.simulation.scattering import structure_factors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.labels.scheme import Zone
    from napari_sadp.simulation.crystal import Crystal

#: Largest |g| of a node [1/Å]: what a camera usually shows.
G_VIEW = 1.6
#: Accelerating voltage of the dynamical intensities [kV]; another one acts much like another thickness.
VOLTAGE_KV = 200.0
#: Beams with |g| up to this take part [1/Å].
_G_BEAMS = 2.0
_N_BEAMS = 240
#: No node beyond this [1/Å]; scattering factors end here.
_G_LAST = 3.9


@dataclass(frozen=True, eq=False)
class ZoneIntensities:
    """Intensities of the nodes of one zone axis.

    Parameters
    ----------
    plane : (2, 3) ndarray of int
        Reduced basis (h, k, l) of the plane.
    nodes : (n, 2) ndarray of int
        Nodes in that basis, the origin left out.
    intensity : (1 + n_thicknesses, n) ndarray of float64
        Over the strongest of its row: kinematic, then dynamical for each thickness, NaN for beams left out of it.
    edge : float
        Edge of the cubic cell [Å].
    """

    plane: np.ndarray
    nodes: np.ndarray
    intensity: np.ndarray
    edge: float

    @property
    def metric(self) -> np.ndarray:
        """Gram matrix of the plane in units of 1/edge^2, (2, 2) int."""
        return self.plane @ self.plane.T

    @property
    def g(self) -> np.ndarray:
        """Lengths |g| [1/Å], (n,)."""
        return np.sqrt(np.einsum("ni,ij,nj->n", self.nodes, self.metric, self.nodes)) / self.edge


def zone_intensities(crystal: Crystal, zone: Zone, thickness_nm: Sequence[float] = ()) -> ZoneIntensities:
    """Compute what a cubic crystal shows on a zone axis.

    Parameters
    ----------
    crystal : Crystal
        Complete cubic cell.
    zone : tuple of 3 int
        Zone axis.
    thickness_nm : sequence of float
        Thicknesses of the dynamical rows [nm]; without any, the kinematic row alone.

    Returns
    -------
    ZoneIntensities
        Nodes with |g| up to `G_VIEW`, or to twice the longer basis vector where that is more.
    """
    plane = gauss_reduce(planar_basis(zone), np.eye(3, dtype=int))
    form = gram(plane, np.eye(3, dtype=int))
    edge = float(crystal.cell[0])
    # of a small cell, enough nodes to have a lattice at all; centring makes it twice as coarse
    reach = min(max(G_VIEW * edge, 4.05 * np.sqrt(form[2])), _G_LAST * edge)
    nodes = disc_nodes(form, reach / np.sqrt(form[0]))
    nodes = nodes[np.any(nodes != 0, axis=1)]
    rows = [np.abs(structure_factors(crystal, nodes @ plane)) ** 2]
    if len(thickness_nm):
        result = simulate_bloch(
            crystal,
            zone,
            voltage_kv=VOLTAGE_KV,
            thickness_nm=list(thickness_nm),
            g_max_inv_angstrom=max(_G_BEAMS, reach / edge),
            n_beams_max=_N_BEAMS,
            dtype="float32",
        )
        place = {tuple(hkl): i for i, hkl in enumerate((nodes @ plane).tolist())}
        column = np.array([place.get(tuple(hkl), -1) for hkl in result.hkl.tolist()])
        # nothing lights a node outside the span of the reflections; far ones took no part and are not known
        length = np.linalg.norm(nodes @ plane, axis=1)
        far = length > np.linalg.norm(result.hkl, axis=1).max() + 1e-9
        dynamical = np.where(far, np.nan, np.zeros((len(thickness_nm), 1)))
        dynamical[:, column[column >= 0]] = result.intensity[:, column >= 0]
        rows += list(dynamical)
    table = np.array(rows)
    return ZoneIntensities(plane, nodes, table / np.nanmax(table, axis=1, keepdims=True), edge)


@dataclass(frozen=True, eq=False)
class Measured:
    """A node map as a camera would give it.

    Parameters
    ----------
    lattice : SpotLattice
        Lattice of the visible spots, with the errors of a fit; lengths in 1/Å stand for pixels.
    nodes : NodeMap
        Its nodes in view.
    """

    lattice: SpotLattice
    nodes: NodeMap


def measure(
    observed: ZoneIntensities,
    row: int,
    rng: np.random.Generator,
    *,
    weakest: float = 3e-3,
    view: float = 1.2,
    stop: bool = False,
) -> Measured | None:
    """Simulate the measurement of a node map: noise, limits of the view, a beam stop, errors of the lattice.

    Parameters
    ----------
    observed : ZoneIntensities
        What is there.
    row : int
        Row of its intensities.
    rng : numpy.random.Generator
        Random numbers.
    weakest : float
        Intensity of a spot of six times the noise, over the strongest.
    view : float
        Largest |g| in view [1/Å].
    stop : bool
        Whether the shadow of a beam stop, a strip from the beam to the edge, hides its nodes.

    Returns
    -------
    Measured or None
        None where fewer than `MIN_SPOTS` spots stand out, or they lie on a line.
    """
    intensity = observed.intensity[row]
    sigma = weakest / 6.0
    known = np.isfinite(intensity) & (observed.g <= view)
    if not known.any() or np.nanmax(intensity[known]) <= 0:
        return None
    true = np.where(known, intensity, 0.0) / np.max(intensity[known])
    reading = true * (1 + PROFILE_ERROR * rng.standard_normal(len(true))) + sigma * rng.standard_normal(
        len(true)
    )
    clear = known & (reading > weakest) & (true > 0.5 * weakest)
    if np.count_nonzero(clear) < MIN_SPOTS:
        return None
    spanned = span(observed.nodes[clear])
    if spanned is None:
        return None
    basis = gauss_reduce(spanned, observed.metric)
    cartesian = observed.nodes @ np.linalg.cholesky(observed.metric) / observed.edge
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * [
        1,
        rng.choice([-1, 1]),
    ]
    vectors = basis @ np.linalg.cholesky(observed.metric) / observed.edge @ rotation
    # false detections, on nodes where nothing is
    index = np.rint(observed.nodes @ np.linalg.inv(basis)).astype(int)
    on = known & (index @ basis == observed.nodes).all(axis=1)
    if stop:
        along = cartesian @ rotation
        half = 0.35 * np.linalg.norm(vectors[0])
        on &= ~((along[:, 0] > 0) & (np.abs(along[:, 1]) < half))
    odd = rng.random(len(true)) < OUTLIER_SHARE
    reading = np.where(
        odd & (true < weakest), true + OUTLIER_WIDTH * sigma * rng.standard_normal(len(true)), reading
    )
    error = intensity_error(sigma, reading)[on]
    top = strongest_at(observed.g[on], reading[on], error, np.ones(on.sum(), dtype=bool))
    presence = presence_probability(reading[on], error, top)
    faint = (top < 3 * error) & (presence < 0.9)
    presence = np.where(faint, 0.5, presence)
    state = np.where(faint, -1, presence >= 0.5).astype(np.int8)
    spread = SYSTEMATIC_ERROR * np.linalg.norm(vectors, axis=1).repeat(2)
    vectors = vectors + (spread * rng.standard_normal(4)).reshape(2, 2)
    rc = index[on] @ vectors
    seen = presence > 0.5
    spots = SpotList(rc[seen], reading[on][seen], (reading[on] / error)[seen], 0.01)
    lattice = SpotLattice(
        np.zeros(2),
        *vectors,
        np.diag(spread**2),
        0.0,
        spots,
        index[on][seen],
        np.ones(seen.sum(), dtype=bool),
    )
    nodes = NodeMap(index[on], rc, reading[on], error, presence, state)
    return Measured(lattice, nodes)
