"""The node map: for every lattice node in view, whether a spot is there and how strong it is.

A node is measured at the place that the lattice predicts, whether or not the spot search saw something there. The profile
of the pattern's own strong spots is fitted, together with a sloping local background, by least squares: the optimal
estimate for weak spots (Naylor 1998, doi:10.1046/j.1365-8711.1998.01314.x). Positions between the nodes, measured in the
same way, and negative results, say how far the texture of the background scatters such a fit.

The probability of presence compares two statements about the measured intensity: *absent*, zero plus noise with a few
outliers; *present*, any intensity from `WEAKEST` of the strongest that spots at this distance from the beam reach, up to
that, all magnitudes alike. Where even the strongest would be lost in the noise, both say the same and nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from napari_sadp.geometry._meter import MIN_LIVE, SpotMeter, meter_of, nodes_in_view, room_of_spots
from napari_sadp.geometry.results import intensity_error

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import SpotLattice

#: Weakest spot that counts as present, relative to the strongest that the pattern shows at the same distance.
WEAKEST = 2e-3
#: Share and width of outliers among absent nodes, in units of the uncertainty: texture, streaks, tails of neighbours.
OUTLIER_SHARE, OUTLIER_WIDTH = 0.03, 5.0

#: Radius of what is fitted at least, over the size of a spot.
_ROOM = 2.0
_MIN_REACH_SNR = 3.0  # where the strongest spots would not reach it, a node is unknown
_PRESENT, _ABSENT, _UNKNOWN = 1, 0, -1
#: What the states of nodes are called.
STATE_NAMES: dict[int, str] = {_PRESENT: "present", _ABSENT: "absent", _UNKNOWN: "unknown"}


@dataclass(frozen=True, eq=False)
class NodeMap:
    """What every lattice node in view shows; the direct beam (0, 0) is left out.

    Parameters
    ----------
    indices : (n, 2) ndarray of int
        Node (m, n) of each row, in the basis of the lattice.
    rc : (n, 2) ndarray of float64
        Where it was measured (row, col) [px].
    intensity : (n,) ndarray of float64
        Integrated intensity above the local background [counts]; NaN where unknown.
    sigma : (n,) ndarray of float64
        Its standard uncertainty [counts]; NaN where unknown.
    presence : (n,) ndarray of float64
        Probability that a spot is there; 0.5 where unknown.
    state : (n,) ndarray of int8
        1 present, 0 absent, -1 unknown: masked, at the edge, or where the pattern is too faint to show any spot.
    """

    indices: np.ndarray
    rc: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    presence: np.ndarray
    state: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def present(self) -> np.ndarray:
        """Rows of the nodes that show a spot (n,) bool."""
        return self.state == _PRESENT

    @property
    def absent(self) -> np.ndarray:
        """Rows of the nodes that show none (n,) bool."""
        return self.state == _ABSENT


def measure_nodes(geometry: PatternGeometry) -> NodeMap:
    """Measure every lattice node in view.

    Parameters
    ----------
    geometry : PatternGeometry
        Pattern, lattice, mask and background, from `analyse_pattern`.

    Returns
    -------
    NodeMap
        Nodes by increasing distance from the direct beam.
    """
    lattice, prepared = geometry.lattice, geometry.prepared
    spots = lattice.spots
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    indices = nodes_in_view(lattice.beam_rc, basis, prepared.mask.shape)
    rc = lattice.node_rc(indices)
    # a spot that was found tells the place of its node better than the lattice does
    number = {tuple(node): row for row, node in enumerate(indices.tolist())}
    seen = np.array([number.get(tuple(node), -1) for node in lattice.indices.tolist()], dtype=int)
    seen = np.where(lattice.indexed, seen, -1)
    rc[seen[seen >= 0]] = spots.rc[seen >= 0]
    # neighbours may be nearer: their light is taken off
    meter = meter_of(prepared, lattice, room_of_spots(lattice, _ROOM))
    intensity, sigma, live = meter.measure(rc)
    known = live >= MIN_LIVE
    sigma *= _texture(meter, (intensity / sigma)[known], geometry)
    sigma = intensity_error(sigma, intensity)
    found = np.zeros(len(rc), bool)
    found[seen[seen >= 0]] = True
    limit = strongest_at(np.linalg.norm(rc - lattice.beam_rc, axis=1), intensity, sigma, known)
    presence = np.where(known, presence_probability(intensity, sigma, limit), 0.5)
    # a saturated spot has no intensity, but is there
    presence[found] = np.maximum(presence[found], 0.95)
    faint = (limit < _MIN_REACH_SNR * sigma) & (presence < 0.9)
    state = np.where(presence >= 0.5, _PRESENT, _ABSENT).astype(np.int8)
    state[(~known | faint) & ~found] = _UNKNOWN
    presence[state == _UNKNOWN] = 0.5
    intensity[~known], sigma[~known] = np.nan, np.nan
    return NodeMap(indices, rc, intensity, sigma, presence, state)


def friedel_agreement(nodes: NodeMap, lattice: SpotLattice) -> tuple[float, int]:
    """Return how well the intensities of opposite nodes agree, -1 to 1, and the number of pairs that say so.

    It is the intraclass correlation of ln I over the pairs of which one at least is clear. A tilt off the zone axis
    multiplies the ratio of a pair by about ``exp(t.g)``; that trend is fitted and taken away.

    Parameters
    ----------
    nodes : NodeMap
        Intensities.
    lattice : SpotLattice
        Their lattice.

    Returns
    -------
    float, int
        NaN and the number where there are fewer than six pairs.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    return _agreement(nodes.indices, nodes.intensity, nodes.sigma, basis, (0, 0))


def inversion_agreement(
    prepared: PreparedImage, lattice: SpotLattice, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how well the intensities on a lattice agree with their inverse at some of its nodes.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        A lattice with any node as origin.
    centres : (k, 2) ndarray of int
        Nodes to try.

    Returns
    -------
    agreement : (k,) ndarray of float
        As `friedel_agreement` gives it; NaN for fewer than six pairs.
    n_pairs : (k,) ndarray of int
        Pairs that say so.
    """
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    indices = np.concatenate([[[0, 0]], nodes_in_view(lattice.beam_rc, basis, prepared.mask.shape)])
    meter = SpotMeter(
        prepared,
        lattice.spots.sigma_px,
        0.5 * float(np.linalg.norm(lattice.g1_px)),
    )
    intensity, sigma, live = meter.measure(lattice.node_rc(indices))
    intensity[live < MIN_LIVE] = np.nan
    found = [_agreement(indices, intensity, sigma, basis, tuple(centre)) for centre in centres.tolist()]
    return np.array([value for value, _ in found]), np.array([count for _, count in found])


def _agreement(
    indices: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, basis: np.ndarray, centre: tuple[int, int]
) -> tuple[float, int]:
    """Return `friedel_agreement` for inversion through a node, the tilt about it taken away."""
    number = {tuple(node): row for row, node in enumerate(indices.tolist())}
    mate = [(2 * centre[0] - m, 2 * centre[1] - n) for m, n in number]
    pairs = np.array(
        [
            (row, number[other])
            for (node, row), other in zip(number.items(), mate, strict=True)
            if node > other and other in number
        ],
        dtype=int,
    ).reshape(-1, 2)
    known = np.isfinite(intensity)
    pairs = pairs[known[pairs].all(axis=1)]
    clear = (intensity > 8 * sigma)[pairs].any(axis=1) if len(pairs) else np.zeros(0, bool)
    pairs = pairs[clear]
    if len(pairs) < 6:
        return float("nan"), len(pairs)
    # what is not seen is weaker than twice its uncertainty
    log = np.log(np.maximum(intensity, 2 * sigma))
    first, second = log[pairs[:, 0]], log[pairs[:, 1]]
    g = (indices[pairs[:, 0]] - centre) @ basis
    ratio = first - second
    ratio = ratio - g @ np.linalg.lstsq(g, ratio, rcond=None)[0]
    between = 4 * np.var((first + second) / 2)
    within = float(np.mean(ratio**2)) * len(pairs) / max(1, len(pairs) - 2)
    return float((between - within) / max(between + within, 1e-30)), len(pairs)


def _texture(meter: SpotMeter, score: np.ndarray, geometry: PatternGeometry) -> float:
    """Return by how much fits where no spot is scatter more than the noise says, at least 1.

    Negative intensities are no spots, whatever the node; the centres of the cells are none where spots are far enough.
    """
    lattice, shape = geometry.lattice, geometry.mask.shape
    beam_rc, basis = lattice.beam_rc, np.stack([lattice.g1_px, lattice.g2_px])
    below = score[score < 0]
    centre = basis.sum(axis=0) / 2
    gap = min(np.linalg.norm(centre), np.linalg.norm(centre - basis[0]), np.linalg.norm(centre - basis[1]))
    if gap > meter.reach + 3 * lattice.spots.sigma_px:
        rc = beam_rc + centre + nodes_in_view(beam_rc, basis, shape)[:600] @ basis
        rc = rc[np.all((rc >= 0) & (rc <= np.array(shape) - 1), axis=1)]
        intensity, error, live = meter.measure(rc)
        between = (intensity / error)[live >= MIN_LIVE]
        below = np.concatenate([below, between - np.median(between)]) if len(between) else below
    if len(below) < 12:
        return 1.0
    return float(np.clip(1.4826 * np.median(np.abs(below)), 1.0, 20.0))


def strongest_at(
    distance: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Return the intensity that the strongest spots reach at each distance from the beam.

    The upper envelope of ln I against the square of the distance is a straight line for a Gaussian fall (Debye-Waller
    factor, form factors); it never rises outwards.

    Parameters
    ----------
    distance : (n,) ndarray of float
        Of nodes from the direct beam, in any unit.
    intensity, sigma : (n,) ndarray of float
        Intensities and their uncertainties [counts].
    known : (n,) ndarray of bool
        Which of these mean anything.

    Returns
    -------
    (n,) ndarray of float64
        Above 0 [counts].
    """
    clear = known & (intensity > 5 * sigma)
    if np.count_nonzero(clear) < 4:
        top = np.max(intensity[clear], initial=0.0) or float(
            np.max(np.where(known, intensity, 0.0), initial=0.0)
        )
        return np.full(len(distance), max(top, 1e-30))
    x, y = distance[clear] ** 2, np.log(intensity[clear])
    slope, level = 0.0, float(np.max(y))
    if len(x) >= 8 and np.ptp(x) > 0:
        slope = min(0.0, float(np.polyfit(x, y, 1)[0]))
        level = float(np.quantile(y - slope * x, 0.95))
    limit = level + slope * np.minimum(distance**2, x.max() * 1.5)
    return np.exp(limit)


def presence_probability(intensity: np.ndarray, sigma: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return the probability of a spot for equal prior odds; see the module.

    Parameters
    ----------
    intensity, sigma : (n,) ndarray of float
        Measured intensities and their uncertainties [counts].
    limit : (n,) ndarray of float
        What the strongest spots reach there, see `strongest_at` [counts].

    Returns
    -------
    (n,) ndarray of float64
        0 to 1.
    """
    score = intensity / sigma
    absent = (1 - OUTLIER_SHARE) * np.exp(-0.5 * score**2)
    absent += OUTLIER_SHARE / OUTLIER_WIDTH * np.exp(-0.5 * (score / OUTLIER_WIDTH) ** 2)
    absent /= np.sqrt(2 * np.pi)
    # integral over ln I of the normal density, by the midpoint rule
    grid = np.log(WEAKEST) * (np.arange(48) + 0.5) / 48
    strength = np.exp(grid) * (np.maximum(limit, intensity) / sigma)[:, None]
    width = -np.log(WEAKEST) / 48
    edge = np.exp([width / 2])
    # the density of the score averaged over one step of the magnitude, so that large scores meet the grid
    low, high = strength / edge, strength * edge
    density = (ndtr(high - score[:, None]) - ndtr(low - score[:, None])) / np.maximum(high - low, 1e-12)
    return np.mean(density, axis=1) / (np.mean(density, axis=1) + absent + 1e-300)
