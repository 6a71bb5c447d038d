from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.pattern import DiffractionPattern

_SIZE, _MIDDLE = 700, 349.5


def _large_frame(seed):
    """Return a pattern of opposite spots alike, that weaken outwards, with a halo; a frame is cut from it."""
    rng = np.random.default_rng(seed)
    turn = np.radians(rng.uniform(0, 90))
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    basis = (
        30.0 * np.array([[1.0, 0.0], [1.2 * np.cos(np.radians(80)), 1.2 * np.sin(np.radians(80))]]) @ turned
    )
    row, col = np.indices((_SIZE, _SIZE))
    image = 10 + 200 * np.exp(-np.hypot(row - _MIDDLE, col - _MIDDLE) / 60)
    heights = {}
    for m in range(-12, 13):
        for n in range(-12, 13):
            g = np.array([m, n]) @ basis
            if np.abs(g).max() > _MIDDLE - 20:
                continue
            factor = heights[m, n] = heights.get((-m, -n), 10 ** rng.uniform(-0.6, 0.6))
            height = 30_000 if m == n == 0 else 3000 * factor * np.exp(-np.hypot(*g) / 70)
            r, c = np.floor(_MIDDLE + g).astype(int)
            part = np.s_[r - 10 : r + 11, c - 10 : c + 11]
            distance = np.hypot(row[part] - _MIDDLE - g[0], col[part] - _MIDDLE - g[1])
            image[part] += height * np.exp(-(distance**2) / 8)
    return rng.poisson(image).astype(np.float32)


def _cut(seed, outside):
    """Return a frame beside the direct beam, and where that is (row, col) [px]."""
    first = int(np.ceil(_MIDDLE + outside)), int(_MIDDLE) - 118
    frame = _large_frame(seed)[first[0] : first[0] + 256, first[1] : first[1] + 256]
    return DiffractionPattern(frame), _MIDDLE - np.array(first)


@pytest.mark.parametrize(("seed", "outside"), [(0, 5), (1, 14), (2, 60), (3, 40)])
def test_a_beam_outside_the_frame_is_found_by_its_halo(seed, outside):
    pattern, true = _cut(seed, outside)
    found = analyse_pattern(pattern)
    assert np.linalg.norm(found.beam.rc - true) < 1
    assert found.beam.score < 0.8
    assert any("outside the frame" in note for note in found.notes)


def test_a_beam_near_the_border_is_not_sent_outside():
    pattern, true = _cut(0, -5)
    found = analyse_pattern(pattern)
    assert np.linalg.norm(found.beam.rc - true) < 0.5
    assert found.beam.score > 0.9
    assert not any("outside the frame" in note for note in found.notes)


@pytest.mark.parametrize("bright", [1.0, 10.0])
@pytest.mark.parametrize("halo", [0.0, 20.0])
def test_a_background_that_rises_to_one_side_sends_no_beam_outside(bright, halo):
    rng = np.random.default_rng(0)
    row, col = np.indices((256, 256))
    beam = np.array([25.0, 120.0])
    basis = 30 * np.array([[np.cos(0.3), np.sin(0.3)], [-1.2 * np.sin(0.2), 1.2 * np.cos(0.2)]])
    image = 50 + 30 * row / 255 + halo * np.exp(-np.hypot(row - 25, col - 120) / 40)
    for m in range(-10, 11):
        for n in range(-10, 11):
            at = beam + np.array([m, n]) @ basis
            height = 600 * (bright if m == n == 0 else np.exp(-np.hypot(*(at - beam)) / 120))
            image += height * np.exp(-((row - at[0]) ** 2 + (col - at[1]) ** 2) / 6)
    found = analyse_pattern(DiffractionPattern(rng.poisson(image)))
    assert np.all(found.beam.rc >= 0)
    if bright > 1:
        assert np.linalg.norm(found.beam.rc - beam) < 1


def test_a_beam_outside_may_be_given():
    pattern, true = _cut(0, 90)
    found = analyse_pattern(pattern, beam_rc=true).lattice
    assert np.linalg.norm(found.beam_rc - true) < 0.5
    vectors = np.stack([found.g1_px, found.g2_px])
    away = vectors[np.argmax(np.abs(vectors[:, 0]))]
    away = away * -np.sign(away[0]) * np.ceil(120 / abs(away[0]))
    with pytest.raises(PatternRefusedError, match="three of the longer lattice vectors"):
        analyse_pattern(pattern, beam_rc=true + away)
