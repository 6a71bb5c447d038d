"""Simulated samples: reproducible, calibrated, and such that the geometry finds what was put in."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.errors import StructureError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.samples import (
    SAMPLE_PIXEL_SIZE,
    SAMPLE_ZONES,
    SAMPLES,
    sample_dir,
    sample_stack,
    simulated_sample,
)
from napari_sadp.simulation.catalogue import find_structure

# shortest present g of the groups on [001], in units of 1/a: fcc and diamond 200 or 220, bcc 110, sc 100, P4132 110
SHORTEST_001 = {"si": np.sqrt(8), "al": 2.0, "fe": np.sqrt(2), "cscl": 1.0}


def test_sample_dir_is_a_folder():
    assert sample_dir().is_dir()
    assert sample_dir().name == "sample_data"


@pytest.mark.parametrize("key", SAMPLES)
def test_every_sample_is_in_the_catalogue(key):
    sample = SAMPLES[key]
    assert find_structure(sample.formula, sample.space_group).space_group == sample.space_group


def test_the_samples_cover_the_groups_of_the_article():
    from napari_sadp.labels.spacegroups import ARTICLE_GROUPS

    assert {sample.space_group for sample in SAMPLES.values()} == set(ARTICLE_GROUPS)


def test_a_stack_is_one_calibrated_series_of_counts():
    patterns = sample_stack(SAMPLES["al"])
    assert len(patterns) == len(SAMPLE_ZONES)
    assert [pattern.frame for pattern in patterns] == [0, 1, 2, 3]
    for pattern in patterns:
        assert pattern.shape == (256, 256)
        assert pattern.kind == "diffraction"
        assert pattern.voltage_kv == 200
        assert pattern.pixel_size_inv_angstrom == SAMPLE_PIXEL_SIZE
        assert np.array_equal(pattern.data, np.round(pattern.data))
        assert pattern.data.min() >= 0
        assert pattern.data.max() <= np.iinfo(np.uint16).max


def test_same_seed_same_counts():
    one, two = (simulated_sample("Al", 225, (0, 0, 1), seed=7) for _ in range(2))
    other = simulated_sample("Al", 225, (0, 0, 1), seed=8)
    assert np.array_equal(one.data, two.data)
    assert not np.array_equal(one.data, other.data)


@pytest.mark.parametrize("key", SHORTEST_001)
def test_the_lattice_is_that_of_the_crystal(key):
    sample = SAMPLES[key]
    pattern = simulated_sample(sample.formula, sample.space_group, (0, 0, 1), seed=sample.seed)
    lattice = analyse_pattern(pattern).lattice
    a = find_structure(sample.formula, sample.space_group).cell[0]
    g1 = np.linalg.norm(lattice.g1_px) * SAMPLE_PIXEL_SIZE
    assert g1 == pytest.approx(SHORTEST_001[key] / a, rel=0.005)
    assert lattice.angle_deg == pytest.approx(90, abs=0.5)


def test_the_beam_is_off_the_centre_and_found():
    pattern = simulated_sample("Fe", 229, (1, 1, 1), seed=3)
    beam = analyse_pattern(pattern).beam.rc
    assert 0.5 < np.abs(beam - 127.5).max() < 9
    row, col = np.round(beam).astype(int)
    assert pattern.data[row, col] > 0.5 * pattern.data.max()


def test_other_voltage_and_pixel_size():
    pattern = simulated_sample("Al", 225, (0, 0, 1), voltage_kv=300, pixel_size_inv_angstrom=0.02, seed=1)
    assert (pattern.voltage_kv, pattern.pixel_size_inv_angstrom) == (300, 0.02)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"formula": "Xx", "space_group": 225, "zone": (0, 0, 1)}, StructureError),
        ({"formula": "Al", "space_group": 225, "zone": (0, 0, 0)}, ValueError),
        (
            {"formula": "Al", "space_group": 225, "zone": (0, 0, 1), "pixel_size_inv_angstrom": 0.0},
            ValueError,
        ),
        ({"formula": "Al", "space_group": 225, "zone": (0, 0, 1), "voltage_kv": -1.0}, ValueError),
    ],
)
def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        simulated_sample(**arguments)
