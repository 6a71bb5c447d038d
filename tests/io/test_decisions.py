"""What was decided upon reading stands in the notes of each pattern."""

from __future__ import annotations

import numpy as np
import pytest
from support.containers import Acquisition, write_blo, write_container, write_hspy

from napari_sadp._units import electron_wavelength
from napari_sadp.io.rosetta import read_patterns, read_stacks
from napari_sadp.pattern import DiffractionPattern

N = 64
RAMP = np.arange(N * N, dtype=np.float32).reshape(N, N)


def notes_of(path):
    return " | ".join(read_patterns(path)[0].notes)


def test_angle_turned_to_a_length(tmp_path):
    tem = {"Acquisition_instrument": {"TEM": {"beam_energy": 200.0}}}
    path = write_hspy(tmp_path / "p.hspy", RAMP, ["mrad"] * 2, [0.8, 0.8], metadata=tem)
    size = 0.8e-3 / electron_wavelength(200)
    assert notes_of(path) == f"pixel size of 0.8 mrad turned to {size:.4g} 1/Å by 200 kV"


def test_length_on_the_screen(tmp_path):
    path = write_blo(tmp_path / "p.blo", np.zeros((2, 144, 144), np.uint8))
    size = 0.16 / (500 * electron_wavelength(200))
    assert f"0.016 cm turned to {size:.4g} 1/Å by 200 kV and a camera length of 500 mm" in notes_of(path)


def test_what_needs_no_conversion_needs_no_note(tmp_path):
    path = write_hspy(tmp_path / "p.hspy", RAMP, ["1/nm", "1/Å"], [0.3, 0.03])
    assert notes_of(path) == ""


@pytest.mark.parametrize(("dtype", "told"), [(np.int8, True), (np.uint8, False)])
def test_bytes_without_sign(tmp_path, dtype, told):
    data = (RAMP % 256).astype(np.uint8).view(dtype)
    assert ("without sign" in notes_of(write_container(tmp_path / "p.dm3", data))) == told


def test_axes_of_a_scan_that_are_those_of_the_pattern(tmp_path):
    data = np.zeros((20, 24, 2, 3), np.float32)
    path = write_hspy(
        tmp_path / "p.hspy",
        data,
        ["1/nm", "1/nm", "nm", "nm"],
        [0.5, 0.5, 1, 1],
        navigate=[True, True, False, False],
    )
    assert "1/nm and 1/nm taken as those of the pattern" in notes_of(path)
    data = data.transpose(2, 3, 0, 1)
    path = write_hspy(tmp_path / "q.hspy", data, ["nm", "nm", "1/nm", "1/nm"], [1, 1, 0.5, 0.5])
    assert notes_of(path) == ""


def test_images_beside_patterns(tmp_path):
    import h5py

    path = write_container(tmp_path / "p.emd", RAMP, Acquisition(title="a", scale=(0.3, 0.3)), variant="ncem")
    image = write_container(tmp_path / "q.emd", RAMP, Acquisition(title="b", units="nm"), variant="ncem")
    with h5py.File(path, "a") as file, h5py.File(image) as other:
        other.copy("signals/b", file["signals"])
    assert [stack.kind for stack in read_stacks(path)] == ["diffraction", "image"]
    [pattern] = read_patterns(path)
    assert pattern.notes[-1] == "1 of 2 signals of the file are images in real space, left out"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint64])
def test_counts_of_damaged_files_are_masked(tmp_path, dtype):
    data = RAMP.astype(dtype)
    data[3, 4] = 1.5e19
    np.save(tmp_path / "p.npy", data)
    [pattern] = read_patterns(tmp_path / "p.npy")
    assert np.argwhere(pattern.mask).tolist() == [[3, 4]]
    assert pattern.data[3, 4] == 0
    assert DiffractionPattern(RAMP * 1e12).mask is None
