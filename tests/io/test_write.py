from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.errors import UnreadableFileError
from napari_sadp.io.rosetta import read_patterns, read_stacks
from napari_sadp.io.write import WRITE_EXTENSIONS, signal_dictionary, write_patterns
from napari_sadp.pattern import DiffractionPattern

#: relative precision of the pixel size: ImageJ's tags of a tif are a fraction of integers
PRECISION = {".hspy": 1e-12, ".emd": 1e-12, ".tif": 1e-6, ".tiff": 1e-6}


def pattern(scale=1.0, **changes):
    # neither square nor symmetric, so that a transposition shows
    data = np.arange(40 * 50, dtype=np.float32).reshape(40, 50) * scale
    about = {"pixel_size_inv_angstrom": 0.0123456789, "voltage_kv": 197.5, "camera_length_mm": 412.0}
    return DiffractionPattern(data, source="Si [0 -1 1]", **(about | changes))


@pytest.mark.parametrize("extension", PRECISION)
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_written_is_read(tmp_path, extension, count):
    patterns = [pattern(1 + k) for k in range(count)]
    path = write_patterns(tmp_path / f"a{extension}", patterns)
    found = read_patterns(path)
    assert len(found) == count
    for got, wanted in zip(found, patterns, strict=True):
        np.testing.assert_array_equal(got.data, wanted.data)
        assert got.kind == "diffraction"
        assert got.notes == ()
        assert got.pixel_size_inv_angstrom == pytest.approx(0.0123456789, rel=PRECISION[extension])
        has_room = extension in (".hspy", ".emd")
        assert got.voltage_kv == (197.5 if has_room else None)
        assert got.camera_length_mm == (412.0 if has_room else None)


@pytest.mark.parametrize("extension", PRECISION)
def test_uncalibrated_stays_uncalibrated(tmp_path, extension):
    bare = pattern(pixel_size_inv_angstrom=None, voltage_kv=None, camera_length_mm=None)
    [found] = read_patterns(write_patterns(tmp_path / f"a{extension}", [bare]))
    assert (found.pixel_size_inv_angstrom, found.voltage_kv, found.camera_length_mm) == (None, None, None)


def test_png_is_eight_bits_of_the_full_scale(tmp_path):
    import imageio.v3 as iio

    data = np.array([[0.0, 0.25], [0.5, 3.0]], dtype=np.float32).repeat(8, 0).repeat(8, 1)
    path = write_patterns(tmp_path / "a.png", [DiffractionPattern(data)], full_scale=1.0)
    assert iio.imread(path)[::8, ::8].tolist() == [[0, 64], [128, 255]]
    assert iio.imread(path).dtype == np.uint8
    write_patterns(path, [DiffractionPattern(data)])
    assert iio.imread(path)[::8, ::8].tolist() == [[0, 21], [42, 255]]
    write_patterns(path, [DiffractionPattern(0 * data)])
    assert iio.imread(path).max() == 0


@pytest.mark.parametrize("extension", WRITE_EXTENSIONS)
def test_other_programs_know_the_axes(tmp_path, extension):
    import hyperspy.api as hs

    path = write_patterns(tmp_path / f"a{extension}", [pattern()])
    signal = hs.load(path, signal_type="sadp")
    assert type(signal).__name__ == "SADPattern2D"
    if extension == ".png":
        return
    for axis in signal.axes_manager.signal_axes:
        assert axis.units.replace(" ", "") == "1/nm"
        assert axis.scale == pytest.approx(0.123456789, rel=1e-6)
        assert axis.offset == pytest.approx(-(axis.size - 1) / 2 * axis.scale, rel=1e-6)


def test_hspy_opens_as_our_signal_without_a_word(tmp_path):
    import hyperspy.api as hs

    about = {"Sadp": {"zone_axes": [[0, -1, 1]]}}
    signal = hs.load(write_patterns(tmp_path / "a.hspy", [pattern()], title="mine", metadata=about))
    assert type(signal).__name__ == "SADPattern2D"
    assert signal.metadata.General.title == "mine"
    assert signal.metadata.Acquisition_instrument.TEM.beam_energy == 197.5
    assert [list(zone) for zone in signal.metadata.Sadp.zone_axes] == [[0, -1, 1]]


def test_titles_that_are_paths_are_no_trouble(tmp_path):
    path = write_patterns(tmp_path / "a.emd", [pattern()], title="a/b [1/nm]")
    [stack] = read_stacks(path)
    assert stack.title == "a_b [1_nm]"


@pytest.mark.parametrize("extension", WRITE_EXTENSIONS)
def test_a_failure_leaves_the_old_file(tmp_path, extension, monkeypatch):
    path = write_patterns(tmp_path / f"a{extension}", [pattern()])
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_patterns(path, [pattern(2.0)])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"extension of path 'a.dm3' is '.dm3', expected one of '.png'"):
        write_patterns(tmp_path / "a.dm3", [pattern()])
    with pytest.raises(ValueError, match="expected one for a png"):
        write_patterns(tmp_path / "a.png", [pattern(), pattern()])
    with pytest.raises(ValueError, match="full_scale is -1"):
        write_patterns(tmp_path / "a.png", [pattern()], full_scale=-1.0)
    with pytest.raises(ValueError, match="patterns is empty"):
        signal_dictionary([])
    with pytest.raises(ValueError, match="several values of voltage_kv"):
        signal_dictionary([pattern(), replace(pattern(), voltage_kv=300.0)])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_patterns(tmp_path / "none" / "a.emd", [pattern()])
    assert os.listdir(tmp_path) == []
    with pytest.raises(UnreadableFileError):
        read_patterns(tmp_path / "a.emd")
