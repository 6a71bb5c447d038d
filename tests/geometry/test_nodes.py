"""Node maps against patterns whose nodes are known, and the conversions that draw them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.convention import g1_length
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS, convert_pattern, render_nodes
from napari_sadp.geometry.draw import render_gaussians
from napari_sadp.geometry.nodes import friedel_agreement
from napari_sadp.geometry.results import undistorted
from napari_sadp.pattern import DiffractionPattern

BEAM, BASIS, SIGMA, SIZE = np.array([121.4, 133.7]), np.array([[17.0, 9.0], [-12.0, 20.0]]), 1.8, 256


def nodes_in(size):
    m, n = (a.ravel() for a in np.mgrid[-25:26, -25:26])
    nodes = np.column_stack([m, n])
    rc = BEAM + nodes @ BASIS
    keep = np.all((rc > -6) & (rc < size + 6), axis=1) & np.any(nodes != 0, axis=1)
    return nodes[keep], rc[keep]


def draw(seed=0, *, friedel=True, absent=0.35, background=12.0, scale=700.0):
    """Pattern, and {node: volume of its spot}; mates are equal unless `friedel` is False."""
    rng = np.random.default_rng(seed)
    nodes, rc = nodes_in(SIZE)
    key = [tuple(max((tuple(v), tuple(-v)))) if friedel else tuple(v) for v in nodes]
    table = {k: (rng.random(), rng.normal()) for k in dict.fromkeys(key)}
    height = np.array([0.0 if table[k][0] < absent else np.exp(table[k][1]) for k in key])
    height[np.abs(nodes).sum(axis=1) == 1] = 1.0  # the basis itself is seen
    height *= scale * np.exp(-0.5 * (np.linalg.norm(rc - BEAM, axis=1) / 80) ** 2)
    light = background + render_gaussians(
        np.vstack([rc, BEAM]), np.append(height, 5 * scale), SIGMA, (SIZE, SIZE)
    )
    truth = dict(zip(map(tuple, nodes.tolist()), height * 2 * np.pi * SIGMA**2, strict=True))
    return rng.poisson(light).astype(np.float32), truth


def true_volumes(geometry, truth):
    basis = np.stack([geometry.lattice.g1_px, geometry.lattice.g2_px])
    change = np.round(basis @ np.linalg.inv(BASIS)).astype(int)
    return np.array([truth[tuple(v)] for v in (geometry.nodes.indices @ change).tolist()])


@pytest.fixture(scope="module")
def measured():
    data, truth = draw()
    geometry = analyse_pattern(DiffractionPattern(data))
    return geometry, true_volumes(geometry, truth)


def test_every_node_in_view_is_listed_once_without_the_beam(measured):
    nodes = measured[0].nodes
    rc = measured[0].lattice.node_rc(nodes.indices)
    assert np.all((rc >= 0) & (rc <= SIZE - 1))
    assert len(np.unique(nodes.indices, axis=0)) == len(nodes)
    assert not np.any(np.all(nodes.indices == 0, axis=1))
    assert len(nodes) == pytest.approx(SIZE**2 / abs(np.linalg.det(BASIS)), rel=0.05)


def test_intensities_and_uncertainties(measured):
    geometry, volume = measured
    nodes = geometry.nodes
    known = np.isfinite(nodes.intensity)
    strong = known & (volume > 3000)
    # the sloping plane below takes a little of the tails
    assert np.median(nodes.intensity[strong] / volume[strong]) == pytest.approx(1, abs=0.06)
    pull = (nodes.intensity - volume)[known] / nodes.sigma[known]
    assert np.mean(np.abs(pull) < 3) > 0.97
    assert np.std(pull) > 0.3  # nor are the uncertainties mere caution


def test_presence_is_right_and_calibrated(measured):
    geometry, volume = measured
    nodes = geometry.nodes
    seen = volume > 12 * np.nan_to_num(nodes.sigma, nan=np.inf)
    assert nodes.present[seen & (nodes.state >= 0)].all()
    absent = (volume == 0) & (nodes.state >= 0)
    assert absent.sum() > 20
    assert np.mean(nodes.present[absent]) < 0.05
    assert nodes.presence[absent].mean() < 0.25
    assert set(np.unique(nodes.presence[nodes.state == -1])) <= {0.5}


def test_masked_nodes_are_unknown():
    data, _ = draw(1)
    mask = np.zeros(data.shape, bool)
    mask[:, 60:100] = True
    data[mask] = 0
    nodes = analyse_pattern(DiffractionPattern(data), mask=mask).nodes
    pixel = np.round(nodes.rc).astype(int)
    deep = (pixel[:, 1] > 62) & (pixel[:, 1] < 97)
    assert deep.sum() > 8
    assert np.all(nodes.state[deep] == -1)
    assert np.isnan(nodes.intensity[deep]).all()
    far = (pixel[:, 1] > 110) & (pixel[:, 1] < 240)
    assert np.mean(nodes.state[far] >= 0) > 0.9


def test_a_mask_must_fit():
    with pytest.raises(ValueError, match="mask has shape"):
        analyse_pattern(DiffractionPattern(draw()[0]), mask=np.zeros((3, 3), bool))


def test_saturated_spots_are_present():
    data, truth = draw(2)
    clipped = np.minimum(data, 250)
    geometry = analyse_pattern(DiffractionPattern(clipped))
    assert geometry.prepared.saturated
    volume = true_volumes(geometry, truth)
    bright = volume > 500 * 2 * np.pi * SIGMA**2
    assert bright.sum() >= 4
    assert geometry.nodes.present[bright].all()


def test_friedel_agreement_tells_mates_from_strangers(measured):
    agreement, pairs = friedel_agreement(measured[0].nodes, measured[0].lattice)
    assert pairs >= 14
    assert agreement > 0.8
    data, _ = draw(3, friedel=False)
    with pytest.raises(PatternRefusedError, match="opposite spots") as caught:
        analyse_pattern(DiffractionPattern(data))
    assert caught.value.reason == "off zone"
    np.testing.assert_allclose(caught.value.beam.rc, BEAM, atol=0.3)


@pytest.mark.parametrize("conversion", PATTERN_CONVERSIONS)
def test_conversions_and_their_maps(measured, conversion):
    image = convert_pattern(measured[0], conversion, size=128)
    assert image.conversion == conversion
    assert image.data.shape == (128, 128)
    assert image.data.max() == pytest.approx(1)
    points = np.random.default_rng(0).uniform(0, 127, (10, 2))
    np.testing.assert_allclose(image.from_pattern(image.to_pattern(points)), points, atol=1e-8)
    np.testing.assert_allclose(image.to_pattern([63.5, 63.5]), BEAM, atol=0.3)


def test_rendered_shows_the_present_nodes_and_nothing_else(measured):
    geometry, volume = measured
    image = convert_pattern(geometry, "rendered", size=256, gamma=1.0)
    place = image.from_pattern(geometry.lattice.node_rc(geometry.nodes.indices))
    inside = np.all((place > 4) & (place < 251), axis=1)
    pixel = np.round(place[inside]).astype(int)
    value = image.data[pixel[:, 0], pixel[:, 1]]
    present = geometry.nodes.present[inside]
    assert value[~present].max() < 1e-3
    assert np.corrcoef(value[present], volume[inside][present])[0, 1] > 0.99
    # g1 lies along the rows, at the length of the convention
    beam, g1 = image.from_pattern(geometry.lattice.node_rc([[0, 0], [1, 0]]))
    np.testing.assert_allclose(g1 - beam, [g1_length(256), 0], atol=1e-6)


@pytest.mark.parametrize("edge", [0.03, -0.03])
def test_the_map_of_rendered_holds_the_radial_distortion(measured, edge):
    """A pincushion, or a barrel, of 3 % at 120 px: a drawn node leads to its spot, and the spot to the node."""
    geometry, _ = measured
    nodes, lattice = geometry.nodes, replace(geometry.lattice, radial_px2=edge / 120**2)
    image = render_nodes(nodes, lattice, size=256, gamma=1.0)
    basis = np.stack([lattice.g1_px, lattice.g2_px])
    drawn = 127.5 + nodes.indices @ basis @ np.linalg.inv(image.matrix).T
    inside = nodes.present & np.all((drawn > 3) & (drawn < 252), axis=1)
    pixel = np.round(drawn[inside]).astype(int)
    assert image.data[pixel[:, 0], pixel[:, 1]].min() > 0
    spots = lattice.node_rc(nodes.indices)
    np.testing.assert_allclose(image.to_pattern(drawn), spots, atol=1e-9)
    np.testing.assert_allclose(image.from_pattern(spots), drawn, atol=1e-9)
    # that is not what a linear map gives
    linear = lattice.beam_rc + nodes.indices @ basis
    assert np.linalg.norm(image.to_pattern(drawn) - linear, axis=1).max() > 2


def test_beyond_the_edge_of_a_barrel_the_inverse_stays_finite():
    far = undistorted(np.array([[500.0, 0.0], [0.0, 0.0]]), -0.1 / 120**2)
    np.testing.assert_allclose(far, [[750.0, 0.0], [0.0, 0.0]], rtol=1e-3)


def test_rendered_does_not_change_when_the_camera_turns():
    data, _ = draw(4)
    first = convert_pattern(analyse_pattern(DiffractionPattern(data)), "rendered", size=96).data
    second = convert_pattern(
        analyse_pattern(DiffractionPattern(np.rot90(data).copy())), "rendered", size=96
    ).data
    middle = slice(16, 80)
    same = np.corrcoef(first[middle, middle].ravel(), second[middle, middle].ravel())[0, 1]
    # the shorter vector may point either way
    turned = np.corrcoef(first[middle, middle].ravel(), second[::-1, ::-1][middle, middle].ravel())[0, 1]
    assert max(same, turned) > 0.98
