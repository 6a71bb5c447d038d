"""The shadow of a beam stop: found whole in dim light too, and not seen between spots."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry.background import prepare_image
from napari_sadp.pattern import DiffractionPattern

SIZE = 256
ROW, COL = np.indices((SIZE, SIZE)).astype(float)
BEAM = np.array([127.0, 130.0])
RADIUS = np.hypot(ROW - BEAM[0], COL - BEAM[1])


def frame(
    spots: list[tuple[float, float, float]], sigma: float, *, halo: float = 60.0, shadow=None
) -> np.ndarray:
    """Return counts of spots (row, col, height) on a halo about the direct beam, behind a shadow."""
    light = 4.0 + halo * np.exp(-RADIUS / 45) + 4000 * np.exp(-0.5 * (RADIUS / sigma) ** 2)
    for row, col, height in spots:
        light += height * np.exp(-0.5 * ((ROW - row) ** 2 + (COL - col) ** 2) / sigma**2)
    if shadow is not None:
        light = np.where(shadow, 0.01 * light + 0.5, light)
    return np.random.default_rng(4).poisson(light).astype(float)


def net(g1: tuple[float, float], g2: tuple[float, float], height: float) -> list[tuple[float, float, float]]:
    """Return the spots of a lattice around the direct beam, falling off with the distance from it."""
    spots = []
    for m in range(-4, 5):
        for n in range(-4, 5):
            row, col = BEAM + m * np.array(g1) + n * np.array(g2)
            if (m, n) != (0, 0) and -5 < row < SIZE + 5 and -5 < col < SIZE + 5:
                spots.append((row, col, height * np.exp(-np.hypot(row - BEAM[0], col - BEAM[1]) / 80)))
    return spots


def stop_of(data: np.ndarray) -> np.ndarray:
    """Return what is taken for the shadow of a beam stop."""
    return prepare_image(DiffractionPattern(data)).beam_stop


@pytest.mark.parametrize(
    ("g1", "g2", "sigma"),
    [
        ((3.0, 44.0), (-40.0, 5.0), 6.0),
        ((0.0, 60.0), (-52.0, 30.0), 9.0),
        ((10.0, 30.0), (-33.0, 9.0), 4.0),
        ((0.0, 23.0), (-70.0, 0.0), 5.0),  # a row of close spots beside dark places
    ],
)
def test_no_shadow_between_spots(g1, g2, sigma):
    assert not stop_of(frame(net(g1, g2, 3000.0), sigma)).any()


def test_no_shadow_between_a_spot_and_the_edge():
    spots = [(row, col, 2500.0) for row, col in ((14, 60), (240, 200), (120, 12), (130, 245))]
    assert not stop_of(frame(spots, 6.0)).any()


def pointer() -> np.ndarray:
    """Return an arm that comes in from the edge and ends at the direct beam, narrower there."""
    along, across = COL - BEAM[1] + 4, np.abs(ROW - BEAM[0] + 0.2 * (COL - BEAM[1]))
    return (along > 0) & (across < 6 + 0.05 * along)


@pytest.mark.parametrize("halo", [60.0, 300.0])
def test_an_arm_in_dim_light(halo):
    # the spots outshine the light that the arm takes by far
    shadow = pointer()
    found = stop_of(frame(net((3.0, 44.0), (-40.0, 5.0), 6000.0), 5.0, halo=halo, shadow=shadow))
    assert found[shadow & (RADIUS < 60)].mean() > 0.8
    assert (found & ~shadow).mean() < 0.02


@pytest.mark.parametrize("turn", range(4))
def test_shadow_turns_with_the_frame(turn):
    data = frame(net((3.0, 44.0), (-40.0, 5.0), 3000.0), 5.0, halo=200.0, shadow=pointer())
    here, there = stop_of(data), np.rot90(stop_of(np.rot90(data, turn)), -turn)
    assert here.any()
    assert (here ^ there).mean() < 0.1 * here.mean()


def test_a_head_with_a_thin_arm():
    head = (RADIUS < 11) | ((np.abs(COL - BEAM[1]) < 1.2) & (BEAM[0] < ROW))
    data = frame(net((3.0, 50.0), (-46.0, 5.0), 900.0), 5.0, halo=200.0)
    glow = 2500 * np.exp(-0.5 * (RADIUS / 14) ** 2)
    data = np.random.default_rng(5).poisson(np.where(head, 0.01 * (data + glow), data + glow)).astype(float)
    found = stop_of(data)
    assert found[RADIUS < 8].mean() > 0.9
    assert found[RADIUS > 25].mean() < 0.01
