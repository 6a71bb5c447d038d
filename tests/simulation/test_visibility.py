"""The signal to noise ratio of spots against what a camera makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.imperfections import (
    Imperfections,
    choose_imperfections,
    simulate_imperfect,
    spot_visibility,
)

#: The same in every frame but for the noise; the width of the inelastic light is drawn, so there is none.
STILL = Imperfections(
    spot_sigma=(0.1, 0.1),
    dose=(800.0, 800.0),
    readout=(2.0, 2.0),
    slope=(0.02, 0.02),
    thickness_nm=(10.0, 10.0),
)


def frame(seed, **changes):
    crystal = find_structure("Al", 225).crystal()
    return simulate_imperfect(
        crystal,
        (0, 0, 1),
        imperfections=choose_imperfections(STILL, **changes),
        seed=seed,
        pixel_size_inv_angstrom=0.03,
    )


def test_the_ratio_is_that_of_repeated_exposures():
    """The height of a spot by a matched filter scatters as the ratio says, over many frames of one pattern."""
    made = [frame(seed) for seed in range(40)]
    first = made[0]
    assert all(np.allclose(other.rc, first.rc) for other in made)
    ratio = spot_visibility(first)
    sigma = first.parameters["spot_sigma"] * np.hypot(*(first.rc - first.beam_rc).T).min()
    inside = np.flatnonzero((ratio > 8) & (ratio < 200))[:6]
    assert len(inside) >= 3
    row, col = np.mgrid[:256, :256]
    for k in inside:
        profile = np.exp(-((row - first.rc[k, 0]) ** 2 + (col - first.rc[k, 1]) ** 2) / (2 * sigma**2))
        near = profile > 1e-3
        design = np.column_stack([profile[near], np.ones(near.sum())])
        height = [np.linalg.lstsq(design, other.pattern.data[near], rcond=None)[0][0] for other in made]
        assert np.mean(height) / np.std(height) == pytest.approx(ratio[k], rel=0.5)


def test_hidden_spots_and_those_out_of_view_are_not_seen():
    lost, best = 0, 0.0
    for seed in range(6):
        made = frame(seed, beam_stop=1.0, stop_width=3.0, offset=(0.2, 0.4))
        ratio = spot_visibility(made)
        pixel = np.round(made.rc).astype(int)
        outside = ((pixel < 0) | (pixel > 255)).any(axis=1)
        row, col = np.clip(pixel, 0, 255).T
        gone = outside | made.hidden[row, col]
        assert not ratio[gone].any()
        lost, best = lost + np.count_nonzero(gone), max(best, ratio.max())
    assert lost > 10
    assert best > 20


def test_more_light_shows_more():
    few, many = (spot_visibility(frame(1, dose=dose)) for dose in (100.0, 10_000.0))
    seen = few > 0
    assert (many[seen] > 2 * few[seen]).all()
