"""The signal to noise ratio of spots against what a camera makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.imperfections import (
    Imperfections,
    choose_imperfections,
    simulate_imperfect,
    spot_spacing,
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


def nodes(reach=4):
    m, n = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.stack([m.ravel(), n.ravel()], axis=1)[(m != 0).ravel() | (n != 0).ravel()].astype(float)


@pytest.mark.parametrize("unit", [20.0, 0.02])
def test_spots_of_a_lattice_are_as_far_apart_as_its_shortest_vector(unit):
    rc = unit * nodes() @ np.array([[1.0, 0.1], [0.0, 1.7]])
    assert spot_spacing(rc, np.full(len(rc), 3.0)) == pytest.approx(unit * np.hypot(1, 0.1))


def test_where_the_row_through_the_beam_is_extinct_other_rows_count():
    rc = nodes() * [9.0, 40.0]
    there = (rc[:, 1] != 0) | (np.abs(rc[:, 0]) == 36)
    assert spot_spacing(rc[there], np.ones(there.sum())) == pytest.approx(9.0)
    # a few that come close to others, as those of higher-order Laue zones, do not
    square = nodes(2) * 20.0
    close = np.concatenate([square, square[:5] + 2.0])
    assert spot_spacing(close, np.ones(len(close))) == pytest.approx(20.0, rel=0.1)
    assert spot_spacing(square[:1], np.ones(1)) == pytest.approx(np.hypot(40, 40))


def test_faint_spots_of_higher_order_laue_zones_do_not_count():
    strong = 20.0 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    angle = np.radians(np.arange(40))
    ring = 110.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    height = np.concatenate([np.ones(4), np.full(40, 5e-4)])
    assert spot_spacing(np.concatenate([strong, ring]), height) == pytest.approx(20.0)


def test_the_spacing_asks_for_spots_beside_the_beam():
    for offset, intensity in ((nodes(), np.zeros(80)), (np.zeros((1, 2)), np.ones(1))):
        with pytest.raises(ValueError, match="no spot with an intensity above 0 beside the direct beam"):
            spot_spacing(offset, intensity)
    with_beam = np.concatenate([[[0.0, 0.0]], 7.0 * nodes()])
    assert spot_spacing(with_beam, np.ones(81)[::-1]) == pytest.approx(7.0)


def test_padding_does_not_change_the_spacing():
    import torch

    from napari_sadp.simulation.imperfections._optics import shortest_spacing

    rc = torch.from_numpy(nodes() * [9.0, 40.0])
    there = (rc[:, 1] != 0).double()
    few = torch.where(torch.arange(80) < 1, 1.0, 0.0).double()
    both = shortest_spacing(torch.stack([rc, rc]), torch.stack([there, few]))
    padded = torch.cat([rc, torch.zeros(40, 2, dtype=rc.dtype)])[None]
    alone = shortest_spacing(padded, torch.cat([there, torch.zeros(40, dtype=there.dtype)])[None])
    assert both.tolist() == [alone.item(), pytest.approx(np.hypot(36, 160))]


def test_discs_of_a_pattern_with_an_extinct_row_lie_side_by_side():
    """Along [013] of P4_132 the row through the beam shows every fourth node only, the others all."""
    made = simulate_imperfect(
        find_structure("Mo3Al2C", 213).crystal(),
        (0, 1, 3),
        imperfections=choose_imperfections("none", disc=1.0, disc_radius=(0.4, 0.4), spot_sigma=(0.05, 0.05)),
        seed=1,
        pixel_size_inv_angstrom=0.012,
    )
    strong = np.argsort(-made.spots.intensity)[:20]
    apart = np.linalg.norm(made.rc[strong][:, None] - made.rc[strong], axis=2) + 1e9 * np.eye(20)
    radius = 0.4 * spot_spacing(made.rc - made.beam_rc, made.spots.intensity)
    assert 2 * radius < np.median(apart.min(axis=1))
    nearest = np.hypot(*(made.rc - made.beam_rc).T).min()
    assert radius < 0.3 * nearest
