"""Each rule by which a file's claims are accepted, converted or dropped."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from support.containers import Acquisition, write_container, write_hspy

from napari_sadp._units import electron_wavelength, normalise_unit
from napari_sadp.io import _meta, _pixels
from napari_sadp.io._meta import StackAxis
from napari_sadp.io.rosetta import PatternStack, read_patterns, read_stacks

N = 64


def ramp(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def one(tmp_path, data, units, scales, **more):
    [stack] = read_stacks(write_hspy(tmp_path / "p.hspy", data, units, scales, **more))
    return stack


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        (u, 0.1)
        for u in ("1/nm", "1 / nm", "nm^-1", "nm-1", "nm$^{-1}$", "nm⁻¹", "(1/nm)", "n_m^-1", "1/nanometer")
    ]
    + [(u, 1.0) for u in ("$A^{-1}$", "A^-1", "1/Å", "1/\u212b", "Å^-1", "\\AA^{-1}", "1/angstrom", "1/A")]
    + [("1 / µm", 1e-4), ("1/pm", 100.0), ("1/m", 1e-10)],
)
def test_units_in_all_spellings(tmp_path, unit, factor):
    stack = one(tmp_path, ramp(N, N), [unit, unit], [0.03 / factor] * 2)
    assert stack.pixel_size_inv_angstrom == pytest.approx(0.03)
    assert stack.kind == "diffraction"
    assert stack.axis_units == normalise_unit(unit)
    assert stack.notes == ()


@pytest.mark.parametrize("unit", [None, "", "px", "pixels", "<undefined>", "[]"])
def test_no_unit(tmp_path, unit):
    stack = one(tmp_path, ramp(N, N), [unit, unit], [8.0, 8.0])
    assert (stack.pixel_size_inv_angstrom, stack.kind, stack.notes) == (None, "unknown", ())
    assert (stack.axis_units, stack.axis_scale) == ("pixel", (1.0, 1.0))


@pytest.mark.parametrize("unit", ["k_A^-1", "$q_{nm}^{-1}$", "1/V", "Grad C"])
def test_an_unknown_unit_is_reported_as_the_file_has_it(tmp_path, unit):
    stack = one(tmp_path, ramp(N, N), [unit, unit], [0.01, 0.01])
    assert stack.pixel_size_inv_angstrom is None
    assert f"pixel size of 0.01 {unit} " in stack.notes[0]


@pytest.mark.parametrize("unit", ["nm", "µm", "Å", "pm", "n_m"])
def test_real_space_is_an_image(tmp_path, unit):
    stack = one(tmp_path, ramp(N, N), [unit, unit], [0.5, 0.5])
    assert stack.kind == "image"
    assert stack.pixel_size_inv_angstrom is None
    assert stack.axis_scale == (0.5, 0.5)
    [pattern] = read_patterns(stack.source)
    assert pattern.kind == "image"


def test_image_with_camera_length_is_an_image(tmp_path):
    path = write_container(tmp_path / "p.emd", ramp(N, N), Acquisition(units="nm", camera_length_mm=300.0))
    [stack] = read_stacks(path)
    assert (stack.kind, stack.camera_length_mm) == ("image", 300.0)


def test_absurd_length_is_no_image(tmp_path):
    stack = one(tmp_path, ramp(N, N), ["nm", "nm"], [1e17, 1e17])
    assert (stack.kind, stack.pixel_size_inv_angstrom, stack.axis_units) == ("unknown", None, "pixel")
    assert "makes no sense" in stack.notes[0]


@pytest.mark.parametrize("scale", [7.8e-20, 1e-4, 2.0, 1e9])
def test_implausible_calibration_is_dropped(tmp_path, scale):
    stack = one(tmp_path, ramp(N, N), ["1/Å", "1/Å"], [scale, scale])
    assert stack.pixel_size_inv_angstrom is None
    assert (stack.kind, stack.axis_units, stack.axis_scale) == ("diffraction", "pixel", (1.0, 1.0))
    assert "implausible" in stack.notes[0]


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_scale_that_is_no_length(tmp_path, scale):
    stack = one(tmp_path, ramp(N, N), ["1/nm", "1/nm"], [scale, scale])
    assert stack.pixel_size_inv_angstrom is None
    assert (stack.axis_units, stack.axis_scale) == ("pixel", (1.0, 1.0))
    assert stack[0].shape == (N, N)


def test_axis_without_scale_is_uncalibrated():
    raw = [{"name": name, "size": N, "units": "1/nm"} for name in "yx"]
    (rows, cols), _ = _meta.read_axes(raw, (N, N))
    size, kind, rows, cols, notes = _meta.calibrate(rows, cols, {}, None, None)
    assert (size, kind, rows.scale, cols.units, len(notes)) == (None, "diffraction", 1.0, "pixel", 1)


def test_scan_axis_without_sense(tmp_path):
    stack = one(tmp_path, ramp(2, N, N), ["nm", "1/nm", "1/nm"], [float("nan"), 0.3, 0.3])
    assert stack.axes[0] == StackAxis("axis0", 2)


def test_negative_scale_is_a_direction(tmp_path):
    stack = one(tmp_path, ramp(N, N), ["1/nm", "1/nm"], [-0.3, 0.3])
    assert stack.pixel_size_inv_angstrom == pytest.approx(0.03)
    np.testing.assert_array_equal(stack[0].data, ramp(N, N))


def test_offsets(tmp_path):
    stack = one(tmp_path, ramp(N, N), ["1/nm"] * 2, [0.3, 0.3], offsets=[-3e9, 131.0])
    assert [axis.offset for axis in stack.axes] == [0.0, 131.0]
    assert len(stack.notes) == 1
    assert "offset" in stack.notes[0]


def test_mrad_needs_the_voltage(tmp_path):
    beam = {"Acquisition_instrument": {"TEM": {"beam_energy": 200.0}}}
    stack = one(tmp_path, ramp(N, N), ["mrad", "mrad"], [0.8, 0.8], metadata=beam)
    assert stack.pixel_size_inv_angstrom == pytest.approx(0.8e-3 / electron_wavelength(200))
    assert stack.axis_units == "1/angstrom"
    (tmp_path / "p.hspy").unlink()
    stack = one(tmp_path, ramp(N, N), ["mrad", "mrad"], [0.8, 0.8])
    assert (stack.pixel_size_inv_angstrom, stack.kind) == (None, "diffraction")
    assert "beam energy" in stack.notes[0]


@pytest.mark.parametrize(("length", "calibrated"), [(200.0, True), (0.2, True), (None, False)])
def test_cm_on_the_screen_needs_camera_length(tmp_path, length, calibrated):
    tem = {"beam_energy": 200.0} | ({"camera_length": length} if length else {})
    stack = one(
        tmp_path, ramp(144, 144), ["cm"] * 2, [0.016] * 2, metadata={"Acquisition_instrument": {"TEM": tem}}
    )
    assert stack.kind == "diffraction"
    if calibrated:
        assert stack.pixel_size_inv_angstrom == pytest.approx(0.16 / (200 * electron_wavelength(200)))
        assert stack.camera_length_mm == pytest.approx(200.0)
    else:
        assert stack.pixel_size_inv_angstrom is None
        assert "camera length" in stack.notes[0]


def test_one_axis_without_unit(tmp_path):
    stack = one(tmp_path, ramp(N, N), ["1/nm", None], [0.3, 1.0])
    assert stack.pixel_size_inv_angstrom is None
    assert stack[0].shape == (N, N)
    assert len(stack.notes) == 1


def test_mixed_reciprocal_units(tmp_path):
    stack = one(tmp_path, ramp(N, N), ["1/nm", "1/Å"], [0.3, 0.03])
    assert stack.pixel_size_inv_angstrom == pytest.approx(0.03)
    assert stack.axis_units == "1/angstrom"
    assert stack.axis_scale == pytest.approx((0.03, 0.03))


class TestOblongPixels:
    def test_lattice_becomes_square(self, tmp_path):
        # a spot every 8 px along rows and 16 px along columns, of pixels twice as high as wide: a square net
        rows, cols = np.mgrid[0:64, 0:128]
        data = (np.cos(2 * np.pi * rows / 8) + np.cos(2 * np.pi * cols / 16) + 2).astype(np.float32)
        stack = one(tmp_path, data, ["1/nm", "1/nm"], [0.4, 0.2])
        assert stack.frame_shape == (64, 128)
        assert stack.axis_scale == (0.4, 0.2)
        pattern = stack[0]
        assert pattern.shape == (128, 128)
        assert pattern.pixel_size_inv_angstrom == pytest.approx(0.02)
        assert "oblong" in pattern.notes[-1]
        power = np.abs(np.fft.rfft2(pattern.data - pattern.data.mean()))
        assert {tuple(k) for k in np.argwhere(power > 0.5 * power.max())} == {(0, 8), (8, 0), (120, 0)}

    def test_edge_and_step_are_exact(self):
        frame = np.repeat(np.arange(10.0)[:, None], 12, axis=1)
        out = _pixels.resample_square(frame, 1.0, 0.7)
        assert out.shape == (14, 12)
        centres = (np.arange(14) + 0.5) * 0.7 - 0.5
        np.testing.assert_allclose(out[:, 3], np.clip(centres, 0, 9), atol=1e-5)

    def test_holes_stay_holes(self):
        frame = np.ones((8, 8))
        frame[4, 4] = np.nan
        out = _pixels.resample_square(frame, 2.0, 1.0)
        assert np.isnan(out).any()
        assert np.all(out[np.isfinite(out)] == 1)

    def test_binning_without_calibration(self, tmp_path):
        stack = one(tmp_path, ramp(N, N), [None, None], [8.0, 4.0])
        assert stack.pixel_size_inv_angstrom is None
        assert stack[0].shape == (2 * N, N)

    def test_images_and_hardly_oblong_ones_stay(self, tmp_path):
        stack = one(tmp_path, ramp(N, N), ["1/nm", "1/nm"], [0.3, 0.30003])
        assert stack[0].shape == (N, N)
        (tmp_path / "p.hspy").unlink()
        stack = one(tmp_path, ramp(N, N), ["nm", "nm"], [0.3, 0.6])
        assert stack[0].shape == (N, N)

    def test_only_the_asked_frame_is_resampled(self, tmp_path):
        stack = one(tmp_path, ramp(3, 32, 32), [None, "1/nm", "1/nm"], [1.0, 0.6, 0.3])
        assert stack.data.shape == (3, 32, 32)
        assert stack[2].shape == (64, 32)


class TestPixelTypes:
    @pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", "<f8", "int8", "uint64", "float16", "bool"])
    def test_numbers(self, tmp_path, dtype):
        data = (ramp(16, 16) % 100).astype(dtype)
        np.save(tmp_path / "p.npy", data)
        for lazy in (True, False):
            [stack] = read_stacks(tmp_path / "p.npy", lazy=lazy)
            assert stack.data.dtype.isnative
            np.testing.assert_array_equal(stack[0].data, data.astype(np.float32))

    def test_complex_is_magnitude(self, tmp_path):
        np.save(tmp_path / "p.npy", 3 * ramp(16, 16) + 4j * ramp(16, 16))
        [pattern] = read_patterns(tmp_path / "p.npy")
        np.testing.assert_allclose(pattern.data, 5 * ramp(16, 16))
        assert "magnitude" in pattern.notes[0]

    def test_not_finite_is_masked(self, tmp_path):
        data = ramp(16, 16)
        data[3, 4] = np.inf
        np.save(tmp_path / "p.npy", data)
        [pattern] = read_patterns(tmp_path / "p.npy")
        assert np.argwhere(pattern.mask).tolist() == [[3, 4]]

    def test_dm_signed_byte_is_unsigned(self, tmp_path):
        data = np.arange(256, dtype=np.uint8).reshape(16, 16)
        for name in ("p.dm3", "p.dm4"):
            path = write_container(tmp_path / name, data.view(np.int8))
            for lazy in (True, False):
                [stack] = read_stacks(path, lazy=lazy)
                assert stack.data.dtype == np.uint8
                np.testing.assert_array_equal(stack[0].data, data)

    def test_dm_colour(self, tmp_path):
        colour = np.random.default_rng(1).integers(0, 256, (20, 30, 4)).astype(np.uint8)  # blue first
        path = write_container(tmp_path / "p.dm3", colour.view("<u4")[..., 0], Acquisition(dm_data_type=23))
        [pattern] = read_patterns(path)
        np.testing.assert_allclose(pattern.data, colour[..., 2::-1] @ [0.299, 0.587, 0.114], atol=1e-3)

    @pytest.mark.parametrize(
        ("suffix", "channels"),
        [(".tif", 3), (".tif", 4), (".png", 3), (".png", 4), (".bmp", 3), (".npy", 3), (".npy", 4)],
    )
    def test_colour(self, tmp_path, suffix, channels):
        colour = np.random.default_rng(1).integers(0, 256, (20, 30, channels)).astype(np.uint8)
        path = tmp_path / f"p{suffix}"
        if suffix == ".npy":
            np.save(path, colour)
        else:
            from skimage.io import imsave

            imsave(path, colour, check_contrast=False)
        [pattern] = read_patterns(path)
        np.testing.assert_allclose(pattern.data, colour[..., :3] @ [0.299, 0.587, 0.114], atol=1e-3)
        assert "grey" in pattern.notes[0]

    def test_grey_png_is_eager_when_lazy_is_asked(self, tmp_path):
        from skimage.io import imsave

        data = np.arange(30 * 20, dtype=np.uint16).reshape(30, 20)
        imsave(tmp_path / "p.png", data, check_contrast=False)
        [stack] = read_stacks(tmp_path / "p.png", lazy=True)
        np.testing.assert_array_equal(stack.data, data)


class TestAxes:
    def test_index_in_array_rules(self):
        raw = [
            {
                "name": "x",
                "size": 5,
                "index_in_array": 1,
                "units": "1/nm",
                "scale": 0.3,
                "offset": 0,
                "navigate": False,
            },
            {
                "name": "y",
                "size": 4,
                "index_in_array": 0,
                "units": "1/nm",
                "scale": 0.3,
                "offset": 0,
                "navigate": False,
            },
        ]
        axes, _ = _meta.read_axes(raw, (4, 5))
        assert [axis.name for axis in axes] == ["y", "x"]

    def test_index_that_contradicts_the_shape_does_not(self):
        raw = [{"name": "y", "size": 4, "index_in_array": 1}, {"name": "x", "size": 5, "index_in_array": 0}]
        axes, _ = _meta.read_axes(raw, (4, 5))
        assert [axis.name for axis in axes] == ["y", "x"]

    def test_nonsense_axes_are_replaced(self):
        axes, navigate = _meta.read_axes([{"size": 9}], (4, 5))
        assert [axis.size for axis in axes] == [4, 5]
        assert navigate == [None, None]

    def test_navigation_last(self, tmp_path):
        data = ramp(32, 40, 3)
        units, scales = ["1/nm", "1/nm", None], [0.5, 0.5, 1.0]
        stack = one(tmp_path, data, units, scales, navigate=[False, False, True])
        assert stack.navigation_shape == (3,)
        np.testing.assert_array_equal(stack[2].data, data[..., 2])

    def test_scan_as_the_fastest_axes(self, tmp_path):
        data = ramp(20, 24, 2, 3)
        units = ["1/nm", "1/nm", "nm", "nm"]
        stack = one(tmp_path, data, units, [0.5, 0.5, 1.0, 1.0], navigate=[True, True, False, False])
        assert stack.navigation_shape == (2, 3)
        assert stack.kind == "diffraction"
        np.testing.assert_array_equal(stack[5].data, data[:, :, 1, 2])

    def test_flat_index_and_iteration(self, tmp_path):
        data = ramp(2, 3, 16, 16)
        stack = one(tmp_path, data, [None] * 4, [1.0] * 4)
        assert (len(stack), stack.navigation_shape) == (6, (2, 3))
        for i, pattern in enumerate(stack):
            np.testing.assert_array_equal(pattern.data, data.reshape(6, 16, 16)[i])
            assert (pattern.frame, pattern.name) == (i, f"p.hspy[{i}]")
        assert stack[-1].frame == 5
        for bad in (6, -7):
            with pytest.raises(IndexError):
                stack[bad]

    def test_single_frame_has_no_navigation(self, tmp_path):
        stack = one(tmp_path, ramp(1, 1, 16, 16), [None] * 4, [1.0] * 4)
        assert (stack.navigation_shape, len(stack)) == ((), 1)


def test_foreign_signal_type_is_harmless(tmp_path, recwarn):
    signal = {"Signal": {"signal_type": "some_other_package"}}
    stack = one(tmp_path, ramp(N, N), ["1/nm"] * 2, [0.3] * 2, metadata=signal)
    assert stack.kind == "diffraction"
    assert not recwarn.list


def test_signal_type_tells_without_units(tmp_path):
    signal = {"Signal": {"signal_type": "electron_diffraction"}}
    assert one(tmp_path, ramp(N, N), [None] * 2, [1.0] * 2, metadata=signal).kind == "diffraction"


def test_several_signals_and_spectra(tmp_path):
    import h5py
    from rsciio.emd import file_reader

    path = write_container(tmp_path / "p.emd", ramp(2, 16, 16), Acquisition(title="first"), variant="ncem")
    with h5py.File(path, "a") as file:
        file.copy("signals/first", file["signals"], name="other")
        line = file.create_group("signals/spectrum")
        line.attrs["emd_group_type"] = 1
        line["data"] = np.arange(10.0)
        line["dim1"] = np.arange(2.0)
        line["dim1"].attrs["units"] = "[e_V]"
    assert len(file_reader(str(path))) == 3
    stacks = read_stacks(path)
    assert [stack.title for stack in stacks] == ["first", "other"]
    assert [stack.first_frame for stack in stacks] == [0, 2]
    assert all("spectra" in stack.notes[-1] for stack in stacks)
    assert [pattern.frame for pattern in read_patterns(path)] == [0, 1, 2, 3]


def test_patterns_win_over_images(monkeypatch):
    from napari_sadp.io import rosetta

    kinds = ("image", "diffraction", "unknown")
    stacks = [PatternStack(ramp(4, 4), kind=kind) for kind in kinds]
    monkeypatch.setattr(rosetta, "read_stacks", lambda path: stacks)
    assert [p.kind for p in read_patterns("x")] == ["diffraction", "unknown"]


@pytest.mark.parametrize(
    ("energy", "expected"),
    [(200.0, 200.0), (200000.0, 200.0), (0.0, None), (-1.0, None), ("n/a", None), (1e12, None)],
)
def test_beam_energy(energy, expected):
    signal = {"metadata": {"Acquisition_instrument": {"TEM": {"beam_energy": energy}}}}
    assert _meta.beam_energy_kv(signal)[0] == expected


@pytest.mark.parametrize(
    "original",
    [
        {
            "ImageList": {
                "TagGroup0": {"ImageTags": {"Microscope Info": {"Voltage": 3e5, "STEM Camera Length": 80.0}}}
            }
        },
        {
            "ImageList": {
                "TagGroup0": {
                    "ImageTags": {
                        "source": {
                            "Tags at creation": {
                                "Microscope Info": {"Voltage": 3e5, "STEM Camera Length": 80.0}
                            }
                        }
                    }
                }
            }
        },
        {"ObjectInfo": {"ExperimentalDescription": {"High tension_kV": 300.0, "Camera length_m": 0.08}}},
        {"Optics": {"AccelerationVoltage": "300000", "CameraLength": "0.08"}},
        {"blockfile_header": {"Beam_energy": np.uint32(300000), "Camera_length": np.uint32(800)}},
        {"microscope": {"voltage": 300.0, "camera_length": 80.0}},
    ],
)
def test_original_metadata(original):
    signal = {"metadata": {}, "original_metadata": original}
    assert _meta.beam_energy_kv(signal)[0] == pytest.approx(300.0)
    assert _meta.camera_length_mm(signal)[0] == pytest.approx(80.0)


class TestPatternStack:
    def test_defaults(self):
        stack = PatternStack(ramp(2, 4, 5))
        assert [axis.size for axis in stack.axes] == [2, 4, 5]
        assert (stack.axis_units, stack.axis_scale, len(stack)) == ("pixel", (1.0, 1.0), 2)

    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            PatternStack(ramp(4, 5)).kind = "image"

    def test_contradictions(self):
        with pytest.raises(ValueError, match="expected"):
            PatternStack(ramp(4))
        with pytest.raises(ValueError, match="expected"):
            PatternStack(ramp(4, 5), axes=(StackAxis("y", 5), StackAxis("x", 4)))


def test_import_is_light():
    code = (
        "import sys, napari_sadp.io.rosetta, napari_sadp.io.spots_csv\n"
        "heavy = {'rsciio', 'hyperspy', 'napari', 'torch', 'skimage', 'dask', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_needs_neither_hyperspy_nor_napari_nor_torch(tmp_path):
    path = write_container(tmp_path / "p.dm3", ramp(16, 16))
    code = (
        "import sys\nfrom napari_sadp.io.rosetta import read_patterns\nread_patterns(sys.argv[1])\n"
        "heavy = {'hyperspy', 'napari', 'torch'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
