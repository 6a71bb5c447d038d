"""What a pattern makes of the numbers that it is given."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.draw import render_gaussians
from napari_sadp.pattern import DiffractionPattern

SIZE = 128


@pytest.fixture(scope="module")
def counts():
    m, n = (a.ravel() for a in np.mgrid[-2:3, -2:3])
    rc = np.array([63.2, 64.7]) + np.column_stack([m, n]) @ np.array([[21.0, 4.0], [-5.0, 24.0]])
    height = 600 * np.exp(-(m**2 + n**2) / 3.0) + 60
    return np.random.default_rng(0).poisson(10 + render_gaussians(rc, height, 1.8, (SIZE, SIZE)))


@pytest.mark.parametrize(
    ("dtype", "offset"), [("uint32", 2**31), ("int64", 2**40), ("uint64", 2**40), ("float64", 2**40)]
)
def test_a_large_offset_costs_no_counts(counts, dtype, offset):
    shifted = counts.astype(dtype) + np.array(offset, dtype)
    shifted[5, 7] = 0  # a dead pixel is none of the offset
    plain = counts.copy()
    plain[5, 7] = 0
    pattern = DiffractionPattern(shifted)
    keep = np.ones(plain.shape, bool)
    keep[5, 7] = False
    np.testing.assert_array_equal(pattern.data[keep], (plain - plain[keep].min()).astype(np.float32)[keep])
    assert pattern.notes == (f"an offset of {offset + plain[keep].min()} counts was taken off",)
    found, expected = analyse_pattern(pattern), analyse_pattern(DiffractionPattern(plain))
    assert len(found.spots) == len(expected.spots)
    np.testing.assert_allclose(found.lattice.g1_px, expected.lattice.g1_px, atol=0.02)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64", "float64"])
def test_counts_without_a_large_offset_stay_as_they_are(counts, dtype):
    data = counts.astype(dtype)
    assert np.array_equal(DiffractionPattern(data).data, counts)
    assert DiffractionPattern(data).notes == ()
    if dtype != "uint16":  # bright spots alone are no offset
        bright = (data * 2**17).astype(dtype)
        assert np.array_equal(DiffractionPattern(bright).data, bright.astype(np.float32))


def test_damaged_values_are_masked_beside_an_offset(counts):
    data = counts.astype(np.float64) + 2**40
    data[:2] = np.nan
    data[2, 3] = 1e30
    pattern = DiffractionPattern(data)
    assert pattern.mask.sum() == 2 * SIZE + 1
    assert not pattern.data[pattern.mask].any()
    assert pattern.data.max() < 2000


def test_a_hot_pixel_or_a_direct_beam_does_not_hide_an_offset(counts):
    data = counts.astype(np.int64) + 2**26
    expected = DiffractionPattern(data).data.copy()
    for value, place in ((2**31 - 1, np.s_[5, 5]), (2**28, np.s_[30:33, 30:33])):
        changed = data.copy()
        changed[place] = value
        pattern = DiffractionPattern(changed)
        same = np.ones(data.shape, bool)
        same[place] = False
        assert np.ptp((pattern.data - expected)[same]) == 0
        assert len(pattern.notes) == 1


def test_pixels_at_the_limit_of_their_type_are_no_offset(counts):
    data = counts.astype(np.uint32)
    data[:, : 2 * SIZE // 3] = 2**32 - 1
    pattern = DiffractionPattern(data)
    np.testing.assert_array_equal(pattern.data[:, 2 * SIZE // 3 :], counts[:, 2 * SIZE // 3 :])
    assert pattern.notes == ()


def test_large_counts_without_an_offset_keep_their_dark_places(counts):
    data = np.random.default_rng(0).exponential(1e9, counts.shape)
    np.testing.assert_array_equal(DiffractionPattern(data).data, data.astype(np.float32))
