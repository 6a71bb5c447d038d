from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_sadp.dataset.conversion_stream import conversion_stream
from napari_sadp.dataset.library import build_library
from napari_sadp.dataset.node_stream import NodeErrors, NodeStream
from napari_sadp.dataset.stream import AlignedImperfections, PatternStream
from napari_sadp.geometry.convention import beam_position, g1_length
from napari_sadp.geometry.conversions import render_nodes
from napari_sadp.geometry.nodes import NodeMap
from napari_sadp.geometry.results import SpotLattice, SpotList
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.simulation.catalogue import find_structure

EXACT = NodeErrors(limit=(1e-6, 1e-6), spread=0.0, saturated=0.0, false=0.0)
PERFECT = AlignedImperfections(
    b_iso=(0.0, 0.0), excitation=(1e3, 1e3), tilt_mrad=0.0, compression=(1.0, 1.0), scatter=0.0, asymmetry=0.0,
    faintest=1e-9, scale=0.0, beam_stop=0.0, field=0.0,
)  # fmt: skip
SIZE = 96


@pytest.fixture(scope="module")
def library():
    crystals = [("225", find_structure("Al", 225).crystal()), ("221", find_structure("FeTi", 221).crystal())]
    return build_library(crystals, build_scheme())


def make(library, errors=EXACT, imperfections=PERFECT, seed=5):
    return NodeStream(library, size=SIZE, n_classes=60, seed=seed, errors=errors, imperfections=imperfections)


def square_rows(library):
    """Return rows of square patterns, whose nodes have whole coordinates."""
    shift = np.abs(library.position - np.rint(library.position)).max(axis=(1, 2))
    return torch.as_tensor(np.flatnonzero((shift < 1e-4) & ~library.coarse))


def measured_nodes(library, row):
    """Return what the geometry would measure of a square pattern without any error, in a frame of its own."""
    length, beam = 20.0, np.array([150.0, 131.0])
    there = library.intensity[row] > 0
    index = np.rint(library.position[row][there]).astype(int)
    rc = beam + length * index
    empty = SpotList(np.empty((0, 2)), np.empty(0), np.empty(0), 1.0)
    lattice = SpotLattice(
        beam,
        np.array([length, 0.0]),
        np.array([0.0, length]),
        np.eye(4),
        0.1,
        empty,
        index,
        np.ones(len(index), bool),
    )
    intensity = library.intensity[row][there].astype(float)
    ones = np.ones(len(index))
    nodes = NodeMap(index, rc, intensity, 0.01 * ones, ones, np.ones(len(index), np.int8))
    return nodes, lattice


def test_without_errors_it_is_what_the_conversion_draws(library):
    rows = square_rows(library)
    assert len(rows) > 3
    stream = make(library)
    stream.turns = torch.zeros_like(stream.turns)  # no choice among equal shortest vectors
    images = stream.render(rows)[:, 0].numpy()
    for image, row in zip(images, rows.tolist(), strict=True):
        expected = render_nodes(*measured_nodes(library, row), size=SIZE).data
        error = min(np.abs(image - other).max() for other in (expected, expected[:, ::-1]))
        assert error < 0.02  # the power of 0.35 magnifies rounding where nothing is


def test_spots_that_decide_are_always_seen(library):
    stream = make(library, NodeErrors(limit=(0.5, 0.95), spread=0.1, saturated=0.5, false=0.0))
    rows = torch.as_tensor(np.flatnonzero(~library.coarse)).repeat(5)
    scene = stream._scene(rows)
    _, height = stream._measured(scene.offset, scene.height, scene.level, scene.covered)
    height = height[:, : scene.height.shape[1]]
    assert bool((height[scene.height >= scene.level[:, None]] > 0).all())
    weak = (scene.height > 0) & (scene.height < 0.02 * scene.level[:, None])
    assert bool(weak.any())
    assert not bool((height[weak] > 0).any())


def test_covered_nodes_are_dark(library):
    stream = make(library, imperfections=replace(PERFECT, beam_stop=1.0))
    rows = square_rows(library).repeat(5)
    scene = stream._scene(rows)
    _, height = stream._measured(scene.offset, scene.height, scene.level, scene.covered)
    height = height[:, : scene.height.shape[1]]
    assert bool((scene.covered & (scene.height > 0)).any())
    assert not bool((height[scene.covered] > 0).any())


def test_errors_grow_towards_the_limit(library):
    errors = replace(EXACT, limit=(0.1, 0.1), spread=0.0)
    stream = make(library, errors)
    height = torch.tensor([[1.0, 0.1, 0.02, 0.0]]).repeat(4000, 1)
    level = torch.full((4000,), 0.1)
    _, found = stream._measured(
        torch.zeros(4000, 4, 2), height, level, torch.zeros(4000, 4, dtype=torch.bool)
    )
    # a fifth of the limit, 0.01, for all of them: a part in five hundred of the strongest
    assert found[:, 0].std().item() == pytest.approx(0.002, rel=0.1)
    assert found[:, 1].std().item() == pytest.approx(0.002, rel=0.1)
    assert not bool(found[:, 3].any())


def test_what_is_none_of_the_crystals_lies_on_nodes(library):
    rows = square_rows(library).repeat(20)
    n_spots = library.position.shape[1]
    stream = make(library, replace(EXACT, limit=(0.5, 0.5), false=0.5, false_height=(1.0, 2.0)))
    scene = stream._scene(rows)
    offset, height = stream._measured(scene.offset, scene.height, scene.level, scene.covered)
    extra, strength = offset[:, n_spots:] / g1_length(SIZE), height[:, n_spots:]
    assert torch.allclose(extra[strength > 0], extra[strength > 0].round(), atol=1e-3)
    number = (strength > 0).sum(dim=1)
    assert float((number > 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert set(number[number > 0].tolist()) == {1, 2, 3, 4}
    ratio = (strength / (0.5 * scene.level[:, None]))[strength > 0]
    assert float(ratio.min()) + 1e-4 >= 1.0
    assert float(ratio.max()) <= 2.0 + 1e-4
    # FeTi has nodes that only its weak spots would fill: some of what is added falls on no spot of the crystal
    there = torch.cdist(extra, scene.offset / g1_length(SIZE)).amin(dim=2) < 0.1
    assert bool((strength[~there] > 0).any())


def test_no_image_of_too_coarse_a_lattice(library):
    assert library.coarse.any()
    assert not library.coarse[NodeStream(library, size=16, n_classes=60).draw(3000)[2].numpy()].any()


def test_same_seed_same_images(library):
    first, second = (NodeStream(library, size=SIZE, n_classes=60, seed=3).draw(8)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, NodeStream(library, size=SIZE, n_classes=60, seed=4).draw(8)[0])


def test_each_conversion_has_its_stream(library):
    options = {"size": 32, "n_classes": 60, "seed": 2}
    assert isinstance(conversion_stream("rendered", library, **options), NodeStream)
    for name, turned in (("aligned", False), ("article", True)):
        stream = conversion_stream(name, library, **options)
        assert type(stream) is PatternStream
        assert torch.equal(stream.draw(4)[0], PatternStream(library, turned=turned, **options).draw(4)[0])
    with pytest.raises(ValueError, match="conversion is 'drawn'"):
        conversion_stream("drawn", library, **options)


def test_the_direct_beam_is_in_the_middle(library):
    stream = make(library)
    images = stream.render(square_rows(library))[:, 0]
    middle = int(beam_position(SIZE))
    assert not images[:, middle : middle + 2, middle : middle + 2].any()
    assert images.amax(dim=(1, 2)).tolist() == pytest.approx([1.0] * len(images), abs=1e-5)
