from __future__ import annotations

import numpy as np
import pytest

from napari_sadp import find_structure, identify_patterns, simulate_pattern, simulated_signal
from napari_sadp.signals.sad_pattern2d import SADPattern2D


@pytest.fixture(scope="module")
def silicon():
    return find_structure("Si", 227).crystal()


def test_frames_are_those_of_the_engine(silicon):
    zones = [(0, 1, 1), (0, 1, 3), (-1, 1, 0)]
    signal = simulated_signal(silicon, zones, voltage_kv=300.0, camera_length_mm=450.0, size=128)
    assert isinstance(signal, SADPattern2D)
    assert signal.data.shape == (3, 128, 128)
    assert signal.data.dtype == np.float32
    for frame, zone in zip(signal.data, zones, strict=True):
        made = simulate_pattern(silicon, zone, voltage_kv=300.0, camera_length_mm=450.0, size=128)
        np.testing.assert_array_equal(frame, made.pattern.data)


def test_axes_and_metadata(silicon):
    signal = simulated_signal(silicon, [(0, 2, 2), (0, 0, 1)], pixel_size_inv_angstrom=0.0125)
    assert signal.axes_manager.navigation_shape == (2,)
    for axis in signal.axes_manager.signal_axes:
        assert (axis.units, axis.size) == ("1/nm", 256)
        assert axis.scale == pytest.approx(0.125)
        assert axis.index2value(127) + axis.index2value(128) == pytest.approx(0)  # 0 at the direct beam
    about = signal.metadata
    assert about.Acquisition_instrument.TEM.beam_energy == 200
    assert not about.has_item("Acquisition_instrument.TEM.camera_length")
    assert [list(zone) for zone in about.Sadp.zone_axes] == [[0, 1, 1], [0, 0, 1]]
    assert about.Sadp.structure.space_group == 227
    assert about.Sadp.simulation.engine == "kinematic"
    assert about.General.title == "Si [011] [001]"


def test_one_axis_has_no_navigation(silicon):
    signal = simulated_signal(silicon, [(0, 1, 1)], size=64)
    assert signal.axes_manager.navigation_shape == ()
    assert signal.data.shape == (64, 64)


def test_the_signal_names_its_group(silicon):
    found = simulated_signal(silicon, [(0, 1, 1), (0, 1, 3)]).identify()
    assert found.space_groups.groups[0] == 227
    patterns = [simulate_pattern(silicon, zone).pattern for zone in [(0, 1, 1), (0, 1, 3)]]
    assert identify_patterns(patterns).space_groups.groups[0] == 227


def test_save_and_load(tmp_path, silicon):
    import hyperspy.api as hs

    signal = simulated_signal(silicon, [(0, 1, 1), (0, 0, 1)], camera_length_mm=400.0, size=64)
    signal.save(tmp_path / "a.hspy")
    again = hs.load(tmp_path / "a.hspy")
    assert isinstance(again, SADPattern2D)
    np.testing.assert_array_equal(again.data, signal.data)
    stack = again.to_stack()
    assert (stack.voltage_kv, stack.camera_length_mm) == (200, 400)
    assert stack.pixel_size_inv_angstrom == pytest.approx(signal.to_stack().pixel_size_inv_angstrom)


def test_wrong_arguments_are_named(silicon):
    with pytest.raises(ValueError, match="zones is empty"):
        simulated_signal(silicon, [])
    with pytest.raises(ValueError, match="zone is"):
        simulated_signal(silicon, [(0, 0, 0)])
    with pytest.raises(ValueError, match="engine is 'exact'"):
        simulated_signal(silicon, [(0, 0, 1)], engine="exact")


def test_imperfect_frames_differ_and_say_what_is_wrong(tmp_path):
    crystal = find_structure("Al", 225).crystal()
    options = {"size": 96, "pixel_size_inv_angstrom": 0.02, "imperfections": "medium"}
    signal = simulated_signal(crystal, [(0, 0, 1)] * 3, seed=4, **options)
    again = simulated_signal(crystal, [(0, 0, 1)] * 2, seed=5, **options)
    assert signal.data.shape == (3, 96, 96)
    assert not np.array_equal(signal.data[0], signal.data[1])
    assert np.array_equal(signal.data[1], again.data[0])
    about = signal.metadata.Sadp.as_dictionary()
    assert len(about["beam_rc"]) == 3
    assert about["beam_rc"][0] != about["beam_rc"][1]
    assert about["imperfections"]["frame 2"]["dose"] > 0
    signal.save(tmp_path / "a.hspy")
    import hyperspy.api as hs

    assert hs.load(tmp_path / "a.hspy").metadata.Sadp.as_dictionary()["beam_rc"] == about["beam_rc"]
