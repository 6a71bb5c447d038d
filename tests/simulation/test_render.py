from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.render import render_gaussians, render_pattern, spot_positions


@pytest.fixture(scope="module")
def spots():
    return simulate_kinematic(find_structure("Al", 225).crystal(), (0, 1, 1), laue_zones=0)


def test_gaussians_against_the_formula():
    rc = np.array([[10.25, 7.5], [3.0, 12.0]])
    image = render_gaussians(rc, np.array([2.0, 0.5]), 1.7, (20, 24))
    row, col = np.mgrid[:20, :24]
    expected = sum(
        h * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * 1.7**2))
        for (r, c), h in zip(rc, (2.0, 0.5), strict=True)
    )
    assert np.allclose(image, expected)


def test_numpy_and_torch_draw_the_same():
    torch = pytest.importorskip("torch")
    rc = np.random.default_rng(0).uniform(0, 64, (2, 30, 2)).astype(np.float32)
    height = np.random.default_rng(1).random((2, 30)).astype(np.float32)
    sigma = np.array([1.0, 2.0], dtype=np.float32)[:, None, None]
    ours = render_gaussians(rc, height, sigma, (64, 64))
    theirs = render_gaussians(torch.tensor(rc), torch.tensor(height), torch.tensor(sigma), (64, 64))
    assert np.allclose(ours, theirs.numpy(), atol=1e-5)


def test_beam_is_at_the_centre_of_the_convention(spots):
    image = render_pattern(spots).data
    row, col = np.unravel_index(np.argmax(image), image.shape)
    # 127.5: the four central pixels share the maximum, and a half turn maps the zone-axis pattern on itself
    assert {row, col} <= {127, 128}
    assert np.allclose(image, image[::-1, ::-1], atol=1e-4)


def test_rotation_is_anticlockwise_on_the_screen(spots):
    straight = spot_positions(spots, pixel_size_inv_angstrom=0.01, beam_rc=(100, 100))
    turned = spot_positions(spots, pixel_size_inv_angstrom=0.01, beam_rc=(100, 100), rotation_deg=90)
    x, y = straight[:, 1] - 100, 100 - straight[:, 0]
    assert np.allclose(turned, np.stack([100 - x, 100 - y], axis=1))


def test_positions_are_calibrated(spots):
    rc = spot_positions(spots, pixel_size_inv_angstrom=0.02, beam_rc=(127.5, 127.5))
    assert np.hypot(*(rc - 127.5).T) * 0.02 == pytest.approx(spots.g)


def test_wrong_sizes_are_named(spots):
    with pytest.raises(ValueError, match="size"):
        render_pattern(spots, size=4)
    with pytest.raises(ValueError, match="spot_sigma_px"):
        render_pattern(spots, spot_sigma_px=0)
