from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp._units import electron_wavelength, pixel_size_of_camera
from napari_sadp.simulation.bloch import simulate_bloch
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.kinematic import simulate_kinematic
from napari_sadp.simulation.zone_pattern import PatternSettings, simulate_pattern


@pytest.fixture(scope="module")
def silicon():
    return find_structure("Si", 227).crystal()


@pytest.mark.parametrize("voltage_kv", [80.0, 200.0, 300.0])
def test_camera_length_and_bragg(voltage_kv):
    # a spot at R = L tan(2 theta) with 2 d sin(theta) = lambda; small angles, so that 2 theta = lambda / d
    length_mm, d = 600.0, 3.0
    theta = np.arcsin(electron_wavelength(voltage_kv) / (2 * d))
    radius_mm = length_mm * np.tan(2 * theta)
    pixels = radius_mm * 1e3 / 55.0
    assert pixels * pixel_size_of_camera(length_mm, 55.0, voltage_kv) == pytest.approx(1 / d, rel=3e-4)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_camera_pixels_must_be_positive(value):
    with pytest.raises(ValueError, match="camera_pixel_um"):
        pixel_size_of_camera(500.0, value, 200.0)
    with pytest.raises(ValueError, match="camera_length_mm"):
        pixel_size_of_camera(value, 10.0, 200.0)


def test_spots_are_those_of_the_engines_in_the_frame(silicon):
    made = simulate_pattern(silicon, (0, 1, 1), pixel_size_inv_angstrom=0.005, rotation_deg=33)
    everything = simulate_kinematic(silicon, (0, 1, 1), g_max_inv_angstrom=np.sqrt(2) * 128 * 0.005)
    known = dict(zip(map(tuple, everything.hkl.tolist()), everything.intensity, strict=True))
    assert 0 < len(made.spots) < len(everything)
    assert ((made.rc > -0.5) & (made.rc < 255.5)).all()
    for hkl, intensity in zip(map(tuple, made.spots.hkl.tolist()), made.spots.intensity, strict=True):
        assert intensity == known[hkl]
    dynamical = simulate_pattern(silicon, (0, 1, 1), engine="dynamical", thickness_nm=15.0)
    result = simulate_bloch(silicon, (0, 1, 1), thickness_nm=15.0)
    assert dynamical.spots.intensity.max() == result.pattern(0).intensity.max() == 1
    centre = dynamical.pattern.data[127:129, 127:129].max()
    assert centre == pytest.approx(result.direct_ratio(0), rel=0.1)


def test_the_frame_fits_g_max(silicon):
    made = simulate_pattern(silicon, (0, 0, 1), g_max_inv_angstrom=1.2)
    assert made.pattern.pixel_size_inv_angstrom == pytest.approx(1.2 / 123.5)
    assert made.spots.g.max() <= 1.2


def test_beams_are_sorted_by_length_and_then_by_indices(silicon):
    spots = simulate_pattern(silicon, (1, 1, 1)).spots
    keys = [(round(g, 9), *hkl) for g, hkl in zip(spots.g, spots.hkl.tolist(), strict=True)]
    assert keys == sorted(keys)


def test_tilt_breaks_friedel_symmetry(silicon):
    spots = simulate_pattern(silicon, (0, 1, 1), tilt_mrad=(8.0, 0.0), thickness_nm=30.0).spots
    known = dict(zip(map(tuple, spots.hkl.tolist()), spots.intensity, strict=True))
    assert max(abs(known.get((-h, -k, -l), 0) - i) for (h, k, l), i in known.items()) > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voltage_kv": -5.0}, "voltage_kv is -5"),
        ({"size": 5}, "size is 5"),
        ({"thickness_nm": 0.0}, "thickness_nm is 0"),
        ({"tilt_mrad": (0.0, 900.0)}, "tilt_mrad is 900"),
        ({"spot_sigma_px": 400.0}, "spot_sigma_px is 400"),
        ({"pixel_size_inv_angstrom": 0.01, "camera_length_mm": 5.0}, "expected one of them"),
        ({"camera_pixel_um": 5.0}, "with camera_length_mm only"),
        ({"engine": "multislice"}, "engine is 'multislice'"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PatternSettings(), **changes)


def test_a_frame_without_a_spot_is_an_error(silicon):
    for g_max in (None, 1.0):
        with pytest.raises(ValueError, match=r"pixel size is 0\.0001 .* of Si on \[001\] falls into 256 px"):
            simulate_pattern(silicon, (0, 0, 1), pixel_size_inv_angstrom=1e-4, g_max_inv_angstrom=g_max)
    with pytest.raises(ValueError, match=r"g_max_inv_angstrom is 0\.01"):
        simulate_pattern(silicon, (0, 0, 1), g_max_inv_angstrom=0.01)
