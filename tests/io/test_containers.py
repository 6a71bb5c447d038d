"""The files that the tests write are read back as they were meant, by RosettaSciIO itself and by our reader."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from support.containers import Acquisition, write_container

from napari_sadp.io.rosetta import read_patterns, read_stacks

FORMATS = [("p.dm3", "velox"), ("p.dm4", "velox"), ("p.emd", "velox"), ("p.emd", "ncem")]


def counts(shape, dtype):
    return np.random.default_rng(3).integers(0, 120, shape).astype(dtype)


@pytest.mark.parametrize(("name", "variant"), FORMATS)
@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(32, 32), (20, 48), (300, 257), (3, 24, 40)])
def test_round_trip(tmp_path, name, variant, dtype, shape):
    data = counts(shape, dtype)
    scale = 25.6 / shape[-1]
    about = Acquisition(scale=(scale, scale), centre=(11.0, 12.5), voltage_kv=300.0, camera_length_mm=380.0)
    path = write_container(tmp_path / name, data, about, variant=variant)
    for lazy in (True, False):
        [stack] = read_stacks(path, lazy=lazy)
        assert stack.data.dtype == dtype
        np.testing.assert_array_equal(np.asarray(stack.data), data)
        assert stack.navigation_shape == shape[:-2]
        assert stack.kind == "diffraction"
        assert stack.axis_units == "1/nm"
        assert stack.axis_scale == pytest.approx((scale, scale))
        assert stack.pixel_size_inv_angstrom == pytest.approx(scale / 10)
        assert [axis.offset for axis in stack.axes[-2:]] == pytest.approx([-11.0 * scale, -12.5 * scale])
        assert stack.voltage_kv == pytest.approx(300.0)
        assert stack.camera_length_mm == pytest.approx(380.0)
        assert stack.title == "made by a test"
        assert stack.source == str(path)
        assert stack.notes == ()


@pytest.mark.parametrize("name", ["p.dm3", "p.dm4"])
def test_rosettasciio_sees_units_energy_and_camera_length(tmp_path, name):
    path = write_container(tmp_path / name, counts((16, 24), "int16"), Acquisition(centre=(8, 12)))
    [signal] = importlib.import_module("rsciio.digitalmicrograph").file_reader(str(path))
    assert [axis["units"] for axis in signal["axes"]] == ["1/nm", "1/nm"]
    assert [axis["offset"] for axis in signal["axes"]] == pytest.approx([-0.8, -1.2])
    targets = {value[0] for value in signal["mapping"].values()}
    assert {"Acquisition_instrument.TEM.beam_energy", "Acquisition_instrument.TEM.camera_length"} <= targets


def test_rosettasciio_sees_velox(tmp_path):
    path = write_container(tmp_path / "p.emd", counts((64, 64), "int16"))
    [signal] = importlib.import_module("rsciio.emd").file_reader(str(path))
    assert [axis["units"] for axis in signal["axes"]] == ["1 / nm", "1 / nm"]
    assert signal["original_metadata"]["BinaryResult"]["PixelUnitX"] == "1/m"


@pytest.mark.parametrize(("name", "variant"), FORMATS)
def test_uncalibrated(tmp_path, name, variant):
    path = write_container(
        tmp_path / name, counts((32, 32), "uint16"), Acquisition(units=None), variant=variant
    )
    [pattern] = read_patterns(path)
    assert pattern.pixel_size_inv_angstrom is None
    assert pattern.voltage_kv == pytest.approx(200.0)
    assert pattern.notes == ()


@pytest.mark.parametrize("about", [Acquisition(scanning=True), Acquisition(tags_at_creation=True)])
def test_dm_tags_elsewhere(tmp_path, about):
    [stack] = read_stacks(write_container(tmp_path / "p.dm3", counts((64, 64), "int16"), about))
    assert (stack.voltage_kv, stack.camera_length_mm) == pytest.approx((200.0, 500.0))


def test_lazy_stays_on_disk(tmp_path):
    for name, variant in FORMATS:
        path = write_container(tmp_path / f"{variant}{name}", counts((3, 16, 16), "int16"), variant=variant)
        [stack] = read_stacks(path, lazy=True)
        assert not isinstance(stack.data, np.ndarray)
        [stack] = read_stacks(path, lazy=False)
        assert isinstance(stack.data, np.ndarray)
