"""Files that microscopes wrote: shape, kind, calibration, energy, camera length, and the pixels where they are known."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest
from support.shared import REAL, needs_real

from napari_sadp.errors import UnreadableFileError
from napari_sadp.io.rosetta import read_patterns, read_stacks

pytestmark = needs_real

# file: navigation shape, frame shape, kind, pixel size [1/A], energy [kV], camera length [mm]
EXPECTED = {
    "ag_sped_two_grains.hspy": ((2,), (112, 112), "diffraction", 0.02672830, None, None),
    "al_near111.bmp": ((), (576, 720), "unknown", None, None, None),
    "nanobeam_dd020.dm3": ((), (256, 256), "unknown", None, 300.0, 37.0),
    "sped_test1.blo": ((3, 2), (144, 144), "diffraction", 0.032022, 200.0, 200.0),
    "hbn_0001.png": ((), (256, 256), "unknown", None, None, None),
    "gaas_low_dose.png": ((), (144, 144), "unknown", None, None, None),
    "glycine_offzone.tiff": ((), (516, 516), "unknown", None, None, None),
    "au_rings.tif": ((), (256, 256), "unknown", None, None, None),
    "au_rings_beamstop.png": ((), (386, 434), "unknown", None, None, None),
    "bismuth.dm3": ((), (256, 256), "diffraction", None, 90.0, 1000.0),
    "bismuth.dm4": ((), (256, 256), "diffraction", None, 90.0, 1000.0),
    "amorphous.hspy": ((), (512, 512), "diffraction", None, 200.0, 510.0),
    "fe_bcc_kikuchi.tif": ((), (445, 668), "unknown", None, None, None),
    "ewald_walkoff.tif": ((), (512, 512), "unknown", None, None, None),
    "hotspots.tif": ((), (256, 256), "unknown", None, None, None),
    "test.mib": ((), (256, 256), "diffraction", None, None, None),
    "metadata/128x128x5-diffraction_preview.emi": ((5,), (128, 128), "diffraction", None, 200.0, 1100.0),
    "metadata/128x128x5-diffraction_preview_1.ser": ((5,), (128, 128), "unknown", None, None, None),
    "metadata/64x64_diffraction_acquire.emi": ((), (64, 64), "diffraction", 0.0101572, 200.0, 490.0),
    "metadata/64x64_diffraction_acquire_1.ser": ((), (64, 64), "unknown", None, None, None),
    "metadata/ceta_no_beam.emd": ((), (512, 512), "diffraction", 0.01144297, 300.0, 378.0),
    "metadata/fei_example_tem_stack.emd": ((2,), (3, 3), "image", None, 300.0, 478.0),
    "metadata/stem_haadf_image.emd": ((), (128, 128), "image", None, 300.0, 301.0),
    "metadata/test_diffraction_pattern.dm3": ((), (87, 87), "diffraction", 0.01744329, 200.0, 320.0),
    "metadata/test_diffraction_pattern_tags_removed.dm3": (
        (),
        (87, 87),
        "diffraction",
        0.01744330,
        200.0,
        None,
    ),
}


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_file_says(name, lazy, recwarn, capfd):
    navigation, frame, kind, size, voltage, length = EXPECTED[name]
    [stack] = read_stacks(REAL / name, lazy=lazy)
    assert stack.navigation_shape == navigation
    assert stack.frame_shape == frame
    assert stack.kind == kind
    assert stack.pixel_size_inv_angstrom == (size if size is None else pytest.approx(size, rel=1e-5))
    assert stack.voltage_kv == (voltage if voltage is None else pytest.approx(voltage))
    assert stack.camera_length_mm == (length if length is None else pytest.approx(length))
    patterns = list(stack)
    assert len(patterns) == len(stack)
    assert [p.frame for p in patterns] == list(range(len(stack)))
    assert all(p.shape == frame and p.data.dtype == np.float32 and p.data.dtype.isnative for p in patterns)
    assert all(p.mask is None and p.data.std() > 0 for p in patterns)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_all_files_are_in_the_table():
    found = {str(p.relative_to(REAL)) for p in REAL.rglob("*") if p.suffix not in (".md", ".csv", ".gz", "")}
    assert found == set(EXPECTED)


def test_bismuth_bytes_are_unsigned_and_equal():
    [dm3], [dm4] = read_patterns(REAL / "bismuth.dm3"), read_patterns(REAL / "bismuth.dm4")
    np.testing.assert_array_equal(dm3.data, dm4.data)
    assert (dm3.data.min(), dm3.data.max()) == (156, 251)


def test_colour_bitmap_is_grey():
    [pattern] = read_patterns(REAL / "al_near111.bmp")
    raw = np.frombuffer((REAL / "al_near111.bmp").read_bytes()[-576 * 720 * 3 :], np.uint8)
    blue, green, red = np.moveaxis(raw.reshape(576, 720, 3)[::-1].astype(float), -1, 0)
    np.testing.assert_allclose(pattern.data, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-3)
    assert any("grey" in note for note in pattern.notes)


def test_mib_is_native():
    [pattern] = read_patterns(REAL / "test.mib")
    raw = np.frombuffer((REAL / "test.mib").read_bytes()[-256 * 256 * 2 :], ">u2").reshape(256, 256)
    # Merlin stores rows from the bottom
    np.testing.assert_array_equal(pattern.data, raw[::-1])


def test_blo_frames():
    path = REAL / "sped_test1.blo"
    [stack] = read_stacks(path)
    assert not isinstance(stack.data, np.ndarray)
    frames = np.frombuffer(path.read_bytes()[-6 * (144 * 144 + 6) :], np.uint8).reshape(6, -1)
    for i, pattern in enumerate(stack):
        np.testing.assert_array_equal(pattern.data, frames[i, 6:].reshape(144, 144))
    # 0.16 mm on the screen, 200 kV, 200 mm
    assert stack.pixel_size_inv_angstrom == pytest.approx(0.16061677 / (0.0250793 * 200), rel=1e-5)
    assert stack.axis_units == "1/angstrom"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("amorphous.hspy", "implausible"),
        ("metadata/64x64_diffraction_acquire.emi", "offset"),
        ("metadata/64x64_diffraction_acquire_1.ser", "makes no sense"),
        ("metadata/128x128x5-diffraction_preview.emi", "implausible"),
        ("sped_test1.blo", "metres"),
    ],
)
def test_notes(name, words):
    assert any(words in note for note in read_patterns(REAL / name)[0].notes)


def test_images_come_back_as_images():
    [pattern] = read_patterns(REAL / "metadata/stem_haadf_image.emd")
    assert pattern.kind == "image"
    [stack] = read_stacks(REAL / "metadata/stem_haadf_image.emd")
    assert stack.axis_units == "um"
    assert stack.axis_scale == pytest.approx((0.0873708, 0.0873708), rel=1e-5)


def test_jeol_tif(tmp_path):
    source = REAL / "metadata/JEOL-SightX-SAED-dummy.tif.gz"
    with pytest.raises(UnreadableFileError, match=r"\.gz"):
        read_stacks(source)
    path = tmp_path / "jeol.tif"
    path.write_bytes(gzip.decompress(source.read_bytes()))
    [pattern] = read_patterns(path)
    assert pattern.shape == (556, 556)
    assert pattern.kind == "diffraction"
    assert np.ptp(pattern.data) == 0
    assert (pattern.voltage_kv, pattern.camera_length_mm) == (200.0, 400.0)
    assert pattern.pixel_size_inv_angstrom is None  # the file says 0.27 1/nm, a Nyquist frequency of 7.6 1/A


def test_reading_changes_nothing():
    path = REAL / "bismuth.dm3"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    read_patterns(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
