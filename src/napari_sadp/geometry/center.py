"""The direct beam: inversion centre of the pattern, node of the lattice, and only then the brightest spot.

Title bars and scale bars are masked before (`background`), a diffracted beam may outshine the direct one, and a beam
stop may cover it: the automatic method weighs what each kind of evidence says about each candidate position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree
from skimage.transform import downscale_local_mean

from napari_sadp._validate import check_option
from napari_sadp.geometry._local import block_quantile, radial_quantile
from napari_sadp.geometry._search import index_spots
from napari_sadp.geometry.background import PreparedImage, prepare_image
from napari_sadp.geometry.nodes import inversion_agreement
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.geometry.rings import radial_features
from napari_sadp.geometry.spots import find_spots

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sadp.pattern import DiffractionPattern

BeamMethod = Literal["auto", "brightest", "friedel", "lattice", "inversion"]
"""How the direct beam is found; see `find_direct_beam`."""

_FRIEDEL_SPOTS = 60
# what each kind of evidence may add for a candidate; all are between 0 and 1 before
_WEIGHT = {
    "friedel": 1.3,
    "brightness": 0.5,
    "halo": 0.6,
    "centre": 0.8,
    "stop": 0.4,
    "tip": 0.6,
    "pairs": 1.2,
    "diffuse": 2.0,
}
#: Nodes whose pairs and diffuse light are compared, how far behind the best they may be, and how many pairs make full evidence.
_MAX_LIKELY, _NEAR_BEST, _ENOUGH_PAIRS = 10, 1.8, 12
#: Evidence by which a place that is no node must be ahead of the best node.
_FAR_AHEAD = 0.6
#: A node nearer to the border of the frame than this, over the shortest vector, is taken for the direct beam only if no node outside,
#: out to so many of the longer vectors, explains this much more of the diffuse light.
_NEAR_BORDER, _FAR_OUTSIDE, _MORE_DIFFUSE = 1.5, 2.5, 0.05
#: A spot near the border that is so much brighter than any other is the direct beam; of those near a beam outside none is.
_FAR_BRIGHTER = 4.0
#: Tiles along the shorter side of the frame in which diffuse light is measured.
_TILES = 64


def find_direct_beam(
    pattern: DiffractionPattern,
    spots: SpotList | None = None,
    *,
    method: BeamMethod = "auto",
    lattice: SpotLattice | None = None,
    prepared: PreparedImage | None = None,
) -> DirectBeam:
    """Find the direct beam.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    spots : SpotList, optional
        Its spots; found with default parameters when None.
    method : {"auto", "brightest", "friedel", "lattice", "inversion"}
        ``"brightest"``: the spot with the largest integrated intensity. ``"friedel"``: the point through which
        inversion maps spots onto spots of like intensity. ``"lattice"``: the lattice node with the best
        evidence (inversion, brightness, diffuse halo, beam stop); needs `lattice`. ``"inversion"``: the inversion
        centre of the whole image, for rings and halos. ``"auto"``: the best of them with what is at hand.
    lattice : SpotLattice, optional
        Lattice of the spots, with any node as origin.
    prepared : PreparedImage, optional
        The result of `prepare_image`, if it is at hand.

    Returns
    -------
    DirectBeam
        Position [px] with a score; it may lie outside the frame.

    Raises
    ------
    ValueError
        If the method is unknown, or is "lattice" without a lattice.
    """
    check_option("method", method, get_args(BeamMethod))
    if method == "lattice" and lattice is None:
        raise ValueError("lattice is None, expected a SpotLattice for method 'lattice'")
    prepared = prepare_image(pattern) if prepared is None else prepared
    spots = find_spots(pattern, prepared=prepared) if spots is None else spots
    if method == "auto":
        method = "lattice" if lattice is not None else "friedel"
        if len(spots) < 3:
            method = "inversion" if not len(spots) else "brightest"
        elif lattice is None:
            points = _loose_candidates(prepared, spots)
            return _most_evident(spots, points, _evidence(prepared, spots, points), "auto")
    return _METHODS[method](prepared, spots, lattice)


def _brightest(prepared: PreparedImage, spots: SpotList, lattice: SpotLattice | None) -> DirectBeam:
    """Return the spot with the largest integrated intensity."""
    if not len(spots):
        return _inversion(prepared, spots, lattice)
    order = np.argsort(-spots.intensity, kind="stable")
    second = spots.intensity[order[1]] if len(spots) > 1 else 0.0
    return DirectBeam(
        spots.rc[order[0]].copy(), float(1 - 0.5 * second / spots.intensity[order[0]]), "brightest"
    )


def _friedel(prepared: PreparedImage, spots: SpotList, lattice: SpotLattice | None) -> DirectBeam:
    """Return the inversion centre of the spots."""
    if len(spots) < 3:
        return _brightest(prepared, spots, lattice)
    candidates = _midpoints(spots)
    score = _friedel_score(prepared, spots, candidates)
    best = int(np.argmax(score))
    return DirectBeam(_snap(spots, candidates[best]), float(np.clip(score[best], 0, 1)), "friedel")


def _lattice_node(prepared: PreparedImage, spots: SpotList, lattice: SpotLattice | None) -> DirectBeam:
    """Return the lattice node with the best evidence."""
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    shape = np.array(prepared.mask.shape)
    corners = np.array([[0, 0], [0, shape[1] - 1], [shape[0] - 1, 0], shape - 1], float)
    reach = np.ceil(np.abs((corners - lattice.beam_rc) @ np.linalg.inv(basis)).max(axis=0)).astype(int) + 1
    m, n = np.meshgrid(np.arange(-reach[0], reach[0] + 1), np.arange(-reach[1], reach[1] + 1))
    indices = np.column_stack([m.ravel(), n.ravel()])
    nodes = lattice.node_rc(indices)
    # the beam may be a little outside of the frame, where its halo and the mates of spots cannot vote for it
    margin = 0.5 * np.linalg.norm(lattice.g1_px)
    inside = np.all((nodes > -margin) & (nodes < shape - 1 + margin), axis=1)
    nodes, indices = nodes[inside], indices[inside]
    reach = _reach(spots, lattice)
    evidence = _evidence(prepared, spots, nodes, reach)
    # the intensities of all nodes, seen as spots or not, tell between the likely ones
    likely = np.flatnonzero(evidence > evidence.max() - _NEAR_BEST)
    likely = likely[np.argsort(-evidence[likely], kind="stable")][:_MAX_LIKELY]
    if len(likely) > 1:
        agreement, n_pairs = inversion_agreement(prepared, lattice, indices[likely])
        known = np.isfinite(agreement)
        share = np.minimum(1.0, n_pairs / _ENOUGH_PAIRS)
        evidence[likely] += _WEIGHT["pairs"] * share * np.where(known, np.clip(agreement, -0.5, 1), 0.0)
        evidence[likely] += _WEIGHT["diffuse"] * diffuse_shares(prepared, nodes[likely])
    best = _most_evident(spots, nodes, evidence, "lattice", reach)
    outside = _outside(prepared, lattice, best)
    return best if outside is None else outside


def _outside(prepared: PreparedImage, lattice: SpotLattice, beam: DirectBeam) -> DirectBeam | None:
    """Return the node outside the frame that the diffuse light speaks for, None where it speaks for the one that was found.

    Neither brightness nor the mates of spots can speak for such a node, but they speak falsely for one near the border: few mates are
    in view there, and the spots nearest to the direct beam are bright.
    """
    last = np.array(prepared.mask.shape) - 1
    unit, longer = (float(np.linalg.norm(vector)) for vector in (lattice.g1_px, lattice.g2_px))
    if min(beam.rc.min(), (last - beam.rc).min()) > _NEAR_BORDER * unit:
        return None
    margin = _FAR_OUTSIDE * longer
    reach = int(np.ceil((np.hypot(*last) + margin) / unit)) + 1
    count = np.arange(-reach, reach + 1)
    nodes = lattice.node_rc(np.stack(np.meshgrid(count, count), axis=-1).reshape(-1, 2))
    near = np.all((nodes > -margin) & (nodes < last + margin), axis=1)
    nodes = nodes[near & ~np.all((nodes >= 0) & (nodes <= last), axis=1)]
    nodes = nodes[np.linalg.norm(nodes - beam.rc, axis=1) > 0.5 * unit]
    if not len(nodes) or _is_far_brightest(lattice.spots, beam, _reach(lattice.spots, lattice)):
        return None
    shares = diffuse_shares(prepared, np.concatenate([beam.rc[None], nodes]))
    # a background that rises to one side is round about places far outside; a halo is more than that
    if shares[1:].max() < max(shares[0], _slope_share(prepared)) + _MORE_DIFFUSE:
        return None
    return _most_evident(lattice.spots, nodes, shares[1:], "lattice", 0.0)


def _is_far_brightest(spots: SpotList, beam: DirectBeam, reach: float) -> bool:
    """Tell whether a direct beam is a spot that outshines all others by far."""
    here = np.linalg.norm(spots.rc - beam.rc, axis=1) < reach
    rest = spots.intensity[~here].max(initial=0.0)
    return bool(here.any() and spots.intensity[here].max() > _FAR_BRIGHTER * rest)


def beam_beside_lattice(prepared: PreparedImage, lattice: SpotLattice, beam: DirectBeam) -> DirectBeam | None:
    """Return a direct beam that all but the lattice speaks for, far more than for the node that was taken.

    The net of a higher-order Laue zone does not hold the direct beam, nor does one that joins spots of two nets.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    lattice : SpotLattice
        Its lattice.
    beam : DirectBeam
        The node that was taken for the direct beam.

    Returns
    -------
    DirectBeam or None
        A bright spot, the centre of the halo or a place under the beam stop, away from every node; None where there is none that
        shows so much.
    """
    spots, basis = lattice.spots, np.stack([lattice.g1_px, lattice.g2_px])
    points = _loose_candidates(prepared, spots)
    _, miss = index_spots(points, beam.rc, basis)
    reach = _reach(spots, lattice)
    points = points[miss > max(reach, 4.0)]
    if not len(points):
        return None
    points = np.concatenate([beam.rc[None], points])
    evidence = _evidence(prepared, spots, points, reach) + _WEIGHT["diffuse"] * diffuse_shares(
        prepared, points
    )
    best = int(np.argmax(evidence))
    if evidence[best] < evidence[0] + _FAR_AHEAD:
        return None
    return _most_evident(spots, points, evidence, "auto")


def diffuse_shares(prepared: PreparedImage, points: np.ndarray) -> np.ndarray:
    """Return how much of the diffuse light depends on nothing but the distance from a point, for each of them.

    Halo and rings are round about the direct beam, whatever covers it and whichever spot is the brightest.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    points : (n, 2) ndarray of float
        Places (row, col) [px].

    Returns
    -------
    (n,) ndarray of float64
        Share of the absolute deviation from the median that a radial profile takes away; at most 1.
    """
    row, col, light, block = _diffuse_light(prepared)
    if len(light) < _TILES:
        return np.zeros(len(points))
    deviation = max(float(np.abs(light - np.median(light)).sum()), 1e-30)
    shares = np.zeros(len(points))
    for k, (r, c) in enumerate((points + 0.5) / block - 0.5):
        radius = np.hypot(row - r, col - c)
        profile = radial_quantile(radius, light, 0.5)
        shares[k] = 1 - float(np.abs(light - np.interp(radius, *profile)).sum()) / deviation
    return shares


def _slope_share(prepared: PreparedImage) -> float:
    """Return how much of the diffuse light a plane takes away, as `diffuse_shares` does for a radial profile."""
    row, col, light, _ = _diffuse_light(prepared)
    if len(light) < _TILES:
        return 0.0
    plane = np.column_stack([np.ones(len(light)), row, col])
    rest = light - plane @ np.linalg.lstsq(plane, light, rcond=None)[0]
    return 1 - float(np.abs(rest).sum() / max(np.abs(light - np.median(light)).sum(), 1e-30))


def _diffuse_light(prepared: PreparedImage) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return rows, columns and light of tiles without spots (n,), and their side [px]."""
    block = max(2, min(prepared.mask.shape) // _TILES)
    # a spot fills a few tiles, and the median of a ring goes by the others
    tiles = block_quantile(prepared.signal + prepared.background, prepared.mask, block, 0.4)
    row, col = np.nonzero(np.isfinite(tiles))
    light = tiles[row, col]
    # the root, or the flank of the halo next to the beam counts alone
    return row, col, np.sqrt(light - light.min(initial=np.inf)), block


def _inversion(prepared: PreparedImage, spots: SpotList, lattice: SpotLattice | None) -> DirectBeam:
    """Return the point through which the image is most like its inverse: the peak of the normalised self-convolution."""
    good = (~prepared.mask).astype(float)
    factor = max(1, round(min(good.shape) / 200))
    good = downscale_local_mean(good, (factor, factor))
    found = []
    # rings are sharp and show without the background; a halo is a part of it
    for image in (prepared.signal, prepared.signal + prepared.background):
        small = downscale_local_mean(np.where(prepared.mask, 0.0, image), (factor, factor))
        peak, score = _self_convolution_peak(small, good > 0.5)
        found.append(DirectBeam((peak / 2 + 0.5) * factor - 0.5, score, "inversion"))
    return max(found, key=lambda beam: (_n_circles(prepared, beam), beam.score))


def _n_circles(prepared: PreparedImage, beam: DirectBeam) -> int:
    """Return how many rings and halos a centre explains."""
    features = radial_features(prepared, beam)
    return len(features.rings) + len(features.halos)


def _self_convolution_peak(image: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return twice the inversion centre of an image, and the correlation there."""
    if not inside.any():
        return np.array(image.shape, float) - 1, 0.0
    low, high = np.quantile(image[inside], [0.02, 0.99])
    image = np.clip(image, low, high)
    image = np.where(inside, image - image[inside].mean(), 0.0)
    product = fftconvolve(image, image)
    overlap = fftconvolve(inside.astype(float), inside.astype(float))
    power = fftconvolve(image**2, inside.astype(float))
    enough = overlap > 0.3 * inside.sum()
    score = np.where(enough, product / np.maximum(power, 1e-9 * max(power.max(), 1e-30)), -1.0)
    # flat overlaps correlate by chance: prefer centres that explain much of the contrast
    score *= np.sqrt(np.clip(power / max(power.max(), 1e-30), 0, 1))
    peak = np.array(np.unravel_index(np.argmax(score), score.shape), float)
    return peak, float(np.clip(score.max(), 0, 1))


_METHODS: dict[str, Callable[[PreparedImage, SpotList, SpotLattice | None], DirectBeam]] = {
    "brightest": _brightest,
    "friedel": _friedel,
    "lattice": _lattice_node,
    "inversion": _inversion,
}


def _midpoints(spots: SpotList) -> np.ndarray:
    """Return spots and midpoints between them, where an inversion centre can lie (n, 2) [px]."""
    rc = spots.rc[np.argsort(-spots.intensity, kind="stable")[:_FRIEDEL_SPOTS]]
    i, j = np.triu_indices(len(rc), 1)
    points = np.concatenate([rc, (rc[i] + rc[j]) / 2])
    _, first = np.unique(np.round(points / max(1.0, spots.sigma_px)), axis=0, return_index=True)
    return points[np.sort(first)]


def _loose_candidates(prepared: PreparedImage, spots: SpotList) -> np.ndarray:
    """Return candidates without a lattice: bright spots, and a centre hidden under the beam stop."""
    rc = spots.rc[np.argsort(-spots.intensity, kind="stable")[:12]]
    if prepared.halo_rc is not None:
        rc = np.concatenate([rc, prepared.halo_rc[None]])
    if not prepared.beam_stop.any():
        return rc
    # the diffuse scattering is brightest around the direct beam, also where it is hidden
    halo = np.where(prepared.beam_stop, prepared.background, -np.inf)
    peak = np.array(np.unravel_index(np.argmax(halo), halo.shape), float)
    points = np.concatenate([_midpoints(spots), peak[None]])
    hidden = _sample(prepared.beam_stop.astype(float), points) > 0.5
    points = points[hidden]
    if len(points):
        points = points[np.argsort(-_friedel_score(prepared, spots, points), kind="stable")[:5]]
    return np.concatenate([rc, points, peak[None]])


def _evidence(
    prepared: PreparedImage, spots: SpotList, points: np.ndarray, reach: float | None = None
) -> np.ndarray:
    """Return the sum of evidence for each candidate (n,)."""
    background = prepared.background
    low, high = np.percentile(background[~prepared.mask], [5, 100])
    halo = np.clip((_sample(background, points) - low) / max(high - low, 1e-30), 0, 1)
    stop = _sample(prepared.beam_stop.astype(float), points) > 0.5
    distance, index = cKDTree(spots.rc).query(points)
    reach = max(2.0, 1.2 * spots.sigma_px) if reach is None else reach
    near = distance < reach
    brightness = 1 + np.log10(spots.intensity / spots.intensity.max()) / 2
    centre = np.zeros(len(points))
    if prepared.halo_rc is not None and not _is_beside_stop(prepared):
        # the halo is wide: its centre is good to a few pixels, less where a stop covers it
        width = max(6.0, 0.05 * min(prepared.mask.shape))
        centre = np.exp(-0.5 * (np.linalg.norm(points - prepared.halo_rc, axis=1) / width) ** 2)
    return (
        _WEIGHT["friedel"] * _friedel_score(prepared, spots, points)
        + _WEIGHT["brightness"] * np.where(near, np.clip(brightness[index], 0, 1), 0)
        + _WEIGHT["halo"] * halo
        + _WEIGHT["centre"] * centre
        + _WEIGHT["stop"] * stop
        + _WEIGHT["tip"] * _at_tip(prepared.beam_stop, points)
    )


def _reach(spots: SpotList, lattice: SpotLattice) -> float:
    """Return how far from a node its spot may be [px]."""
    return max(2.0, 1.2 * spots.sigma_px, 0.12 * float(np.linalg.norm(lattice.g1_px)))


def _is_beside_stop(prepared: PreparedImage) -> bool:
    """Tell whether what seems to be the centre of the halo lies beside a beam stop: then it is that of a bright spot."""
    if not prepared.beam_stop.any():
        return False
    halo = np.clip(np.round(prepared.halo_rc), 0, np.array(prepared.mask.shape) - 1)
    distance = np.linalg.norm(np.argwhere(prepared.beam_stop) - halo, axis=1).min()
    return bool(distance > max(6.0, 0.03 * min(prepared.mask.shape)))


def _at_tip(stop: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return how near places are to where a beam stop ends in the frame, 0 to 1 (n,): there its head is put over the direct beam."""
    if not stop.any():
        return np.zeros(len(points))
    rows, cols = np.nonzero(stop)
    pixels = np.column_stack([rows, cols]).astype(float)
    inside = distance_transform_edt(np.pad(stop, 1))[1:-1, 1:-1]
    edge = (rows == 0) | (cols == 0) | (rows == stop.shape[0] - 1) | (cols == stop.shape[1] - 1)
    if edge.any():
        depth = cKDTree(pixels[edge]).query(pixels)[0]
        width = float(np.median(inside[rows, cols][depth > 0.7 * depth.max()])) * 2
        tip = pixels[depth > depth.max() - max(width, 3.0)].mean(axis=0)
    else:
        width, tip = float(inside.max()), pixels.mean(axis=0)
    return np.exp(-0.5 * (np.linalg.norm(points - tip, axis=1) / max(6.0, width)) ** 2)


def _most_evident(
    spots: SpotList, points: np.ndarray, evidence: np.ndarray, method: str, reach: float | None = None
) -> DirectBeam:
    """Return the candidate with the largest sum of evidence; the score is how far ahead of the next it is."""
    order = np.argsort(-evidence, kind="stable")
    lead = evidence[order[0]] - (evidence[order[1]] if len(order) > 1 else 0.0)
    score = 1 / (1 + np.exp(-12 * lead))
    best = points[order[0]]
    return DirectBeam(_snap(spots, best, reach), float(score), method)


def _snap(spots: SpotList, point: np.ndarray, reach: float | None = None) -> np.ndarray:
    """Return the position of the brightest spot near a point, or the point."""
    reach = max(2.0, 1.2 * spots.sigma_px) if reach is None else reach
    near = np.flatnonzero(np.linalg.norm(spots.rc - point, axis=1) < reach)
    return spots.rc[near[np.argmax(spots.intensity[near])]].copy() if len(near) else np.array(point, float)


def _sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return values of an image at positions, the edge value outside."""
    return map_coordinates(image.astype(float), points.T, order=1, mode="nearest")


def _friedel_score(prepared: PreparedImage, spots: SpotList, centres: np.ndarray) -> np.ndarray:
    """Return for each centre how well inversion maps the spots onto spots of like intensity, 0 to 1.

    Only spots whose mirror image falls on live pixels are asked; few of them make little evidence.
    """
    shape = np.array(prepared.mask.shape)
    amplitude = np.sqrt(spots.intensity)
    weight = np.minimum(amplitude, np.quantile(amplitude, 0.9))
    tree = cKDTree(spots.rc)
    mirror = 2 * centres[:, None, :] - spots.rc[None, :, :]
    distance, mate = tree.query(mirror)
    seen = np.all((mirror >= 2) & (mirror <= shape - 3), axis=-1)
    pixel = np.clip(np.round(mirror), 0, shape - 1).astype(int)
    seen &= ~prepared.mask[pixel[..., 0], pixel[..., 1]]
    own = np.linalg.norm(spots.rc[None] - centres[:, None, :], axis=-1) < max(2.0, 1.5 * spots.sigma_px)
    seen &= ~own  # the spot at the centre is its own mate and says nothing
    matched = seen & (distance < max(1.5, spots.sigma_px))
    likeness = 2 * amplitude * amplitude[mate] / (amplitude**2 + amplitude[mate] ** 2)
    asked = np.sum(weight * seen, axis=1)
    score = np.sum(weight * likeness**2 * matched, axis=1) / np.maximum(asked, 1e-30)
    return score * np.sqrt(asked / weight.sum())
