"""Headers that claim what their file cannot hold are found out before a reader believes them."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from support.containers import write_blo, write_container, write_hspy, write_tif

from napari_sadp.errors import UnreadableFileError
from napari_sadp.io import _hdf5_guard
from napari_sadp.io.rosetta import read_patterns, read_stacks

DATA = np.random.default_rng(5).integers(0, 200, (3, 40, 40)).astype(np.uint16)


def refused(path):
    """Return the message of the refusal, which comes quickly and names the file."""
    start = time.monotonic()
    with pytest.raises(UnreadableFileError) as caught:
        read_patterns(path)
    assert time.monotonic() - start < 10
    assert str(path) in str(caught.value)
    return str(caught.value)


def replaced(path, old, new, which=0):
    """Write the file again with one place changed."""
    raw = path.read_bytes()
    place = -1
    for _ in range(which + 1):
        place = raw.index(old, place + 1)
    path.write_bytes(raw[:place] + new + raw[place + len(old) :])
    return path


class TestBlo:
    def test_too_many_frames(self, tmp_path):
        path = write_blo(tmp_path / "p.blo", DATA.astype(np.uint8))
        path.write_bytes(path.read_bytes()[:24] + b"\xff\xff" + path.read_bytes()[26:])
        assert "announces" in refused(path)

    @pytest.mark.parametrize("place", [20, 24, 26])
    def test_nothing(self, tmp_path, place):
        path = write_blo(tmp_path / "p.blo", DATA.astype(np.uint8))
        path.write_bytes(path.read_bytes()[:place] + b"\0\0" + path.read_bytes()[place + 2 :])
        assert "announces" in refused(path)


class TestTif:
    @staticmethod
    def with_tag(path, code, value):
        """Change the value of a tag of the first page."""
        import tifffile

        with tifffile.TiffFile(path, mode="r+") as tif:
            tif.pages[0].tags[code].overwrite(value)
        return path

    @pytest.mark.parametrize(
        "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 8}]
    )
    def test_more_rows_than_stored(self, tmp_path, options):
        path = self.with_tag(
            write_tif(tmp_path / "p.tif", DATA[0], metadata=None, **options), "ImageLength", 2**24
        )
        message = refused(path)
        assert "strips" in message or "are there" in message

    def test_constant_pixels_pack_well_and_are_read(self, tmp_path):
        data = np.zeros((1024, 1024), np.uint16)
        data[5, 6] = 7
        path = write_tif(tmp_path / "p.tif", data, compression="zlib", rowsperstrip=1024)
        assert path.stat().st_size < data.nbytes / 500
        np.testing.assert_array_equal(read_patterns(path)[0].data, data)

    def test_single_bits_are_read(self, tmp_path):
        import imageio.v3 as iio

        data = np.zeros((40, 48), bool)
        data[3:9, 5:20] = True
        iio.imwrite(tmp_path / "p.tif", data, plugin="pillow")
        np.testing.assert_array_equal(read_patterns(tmp_path / "p.tif")[0].data > 0, data)


class TestColoursInPlanes:
    def test_a_picture_is_grey(self, tmp_path):
        planes = np.stack([DATA[0], DATA[0] // 2, DATA[0] // 3]).astype(np.uint8)
        path = write_tif(tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate")
        [pattern] = read_patterns(path)
        np.testing.assert_allclose(
            pattern.data, np.moveaxis(planes, 0, -1) @ [0.299, 0.587, 0.114], atol=1e-3
        )
        assert any("grey" in note for note in pattern.notes)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_unlike_planes_are_frames(self, tmp_path, dtype):
        data = DATA.astype(dtype)
        path = write_tif(tmp_path / "p.tif", data, photometric="rgb", planarconfig="separate")
        [stack] = read_stacks(path)
        np.testing.assert_array_equal(stack.data, data)
        assert any("taken as frames" in note for note in stack[0].notes)

    def test_one_colour_only_is_a_picture(self, tmp_path):
        data = np.zeros_like(DATA)
        data[1] = DATA[0]
        path = write_tif(tmp_path / "p.tif", data, photometric="rgb", planarconfig="separate")
        [pattern] = read_patterns(path)
        np.testing.assert_allclose(pattern.data, 0.587 * data[1], atol=1e-3)


@pytest.mark.parametrize("version", [3, 4])
class TestDigitalMicrograph:
    """Each of these made RosettaSciIO turn in circles or fill the memory."""

    @staticmethod
    def words(version, *values):
        return b"".join(struct.pack(">i" if version == 3 else ">q", value) for value in values)

    def test_pixels_under_another_name(self, tmp_path, version):
        data = np.zeros((1200, 1200), np.uint16)
        path = write_container(tmp_path / f"p.dm{version}", data)
        replaced(path, b"\x15\0\x04Data", b"\x15\0\x04Dada", which=1)
        assert "outside of the pixels" in refused(path)

    def test_values_without_bytes(self, tmp_path, version):
        path = write_container(tmp_path / f"p.dm{version}", DATA)
        words = self.words(version, 3, 20, 4, DATA.size)
        # an array of strings of no characters, ten million of them
        assert len(words) == len(self.words(version, 3, 20, 18, 0))
        replaced(path, words, self.words(version, 4, 20, 18, 0))
        raw = path.read_bytes()
        place = raw.index(self.words(version, 4, 20, 18, 0)) + len(words)
        path.write_bytes(raw[:place] + self.words(version, 10**7) + raw[place:])
        assert "without any bytes" in refused(path)

    @pytest.mark.parametrize("count", [-1, -(2**20), 2**31 - 1])
    def test_wrong_count(self, tmp_path, version, count):
        path = write_container(tmp_path / f"p.dm{version}", DATA)
        replaced(path, self.words(version, 3, 20, 4, DATA.size), self.words(version, 3, 20, 4, count))
        refused(path)

    def test_groups_in_groups(self, tmp_path, version):
        body = b""
        for _ in range(2000):
            size = b"" if version == 3 else bytes(8)
            body += b"\x14\0\0" + size + b"\x01\0" + self.words(version, 1)
        # the size of a group stands before the count, in dm4 only
        if version == 4:
            body = b"".join([b"\x14\0\0" + bytes(8) + b"\x01\0" + self.words(4, 1)] * 2000)
        head = struct.pack(">i", version) + self.words(version, len(body)) + struct.pack(">i", 1)
        path = tmp_path / f"p.dm{version}"
        path.write_bytes(head + b"\x01\0" + self.words(version, 1) + body)
        assert "nest" in refused(path)


class TestHdf5:
    def write(self, path):
        return write_hspy(
            path, DATA, [None] * 3, [1.0] * 3, original_metadata={"list": ["a", "b"], "deep": {"x": 1.0}}
        )

    def test_helper_serves_many_files(self, tmp_path):
        read_stacks(self.write(tmp_path / "p.hspy"))
        first = _hdf5_guard._helper._process.pid
        read_stacks(self.write(tmp_path / "q.hspy"))
        assert _hdf5_guard._helper._process.pid == first

    def test_helper_that_left_is_replaced(self, tmp_path):
        path = self.write(tmp_path / "p.hspy")
        read_stacks(path)
        process = _hdf5_guard._helper._process
        process.stdin.close()  # at which it leaves of its own accord
        process.wait()
        assert len(read_patterns(path)) == 3
        assert _hdf5_guard._helper._process.pid != process.pid

    @pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
    @pytest.mark.parametrize("name", ["SIGINT", "SIGKILL", "SIGSEGV"])
    def test_helper_that_was_ended_is_no_fault_of_the_file(self, tmp_path, name):
        path = self.write(tmp_path / "p.hspy")
        read_stacks(path)
        process = _hdf5_guard._helper._process
        process.send_signal(getattr(signal, name))
        if name == "SIGINT":  # which the terminal sends to both
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        else:
            process.wait()
        assert len(read_patterns(path)) == 3

    def test_helper_that_cannot_run(self, tmp_path, monkeypatch):
        _hdf5_guard._helper.close()
        for number, body in enumerate(["import absent", "raise SystemExit(0)"]):
            script = tmp_path / "probe.py"
            script.write_text(body)
            monkeypatch.setattr(_hdf5_guard, "_PROBE", script)
            assert len(read_patterns(self.write(tmp_path / f"{number}.hspy"))) == 3

    def test_helper_that_crashes_or_is_late(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_hdf5_guard, "_WALL_LIMIT_S", 1.0)
        for body in ("import os, sys; sys.stdin.readline(); os.abort()", "import time; time.sleep(60)"):
            _hdf5_guard._helper.close()
            script = tmp_path / "probe.py"
            script.write_text(body)
            monkeypatch.setattr(_hdf5_guard, "_PROBE", script)
            assert "does not come to an end" in refused(self.write(tmp_path / "p.hspy"))

    def test_files_are_read_where_no_helper_can_be(self, tmp_path, monkeypatch):
        _hdf5_guard._helper.close()
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        assert len(read_patterns(self.write(tmp_path / "p.hspy"))) == 3
        assert _hdf5_guard._helper._process is None

    def test_structure_that_never_ends(self, tmp_path):
        path = self.write(tmp_path / "p.hspy")
        raw = bytearray(path.read_bytes())
        place = raw.index(b"GCOL")
        # the heap of strings: objects without a size follow one another for ever
        raw[place + 16 : place + 4096] = bytes(4080)
        path.unlink()  # an open HDF5 file is known to the library by its inode
        path.write_bytes(raw)
        touch = "import h5py, sys; print(dict(h5py.File(sys.argv[1]).attrs))"
        try:
            subprocess.run([sys.executable, "-c", touch, path], timeout=6, capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            assert "does not come to an end" in refused(path)
        else:
            pytest.skip("this version of libhdf5 comes to an end with the file")
        # and the next file is read
        assert len(read_patterns(self.write(tmp_path / "q.hspy"))) == 3

    @pytest.mark.parametrize(("chunks", "words"), [((1, 40, 40), "chunks"), ((2**13, 40, 40), "needs")])
    def test_more_frames_than_stored(self, tmp_path, chunks, words):
        path = self.write(tmp_path / "p.hspy")
        with h5py.File(path, "a") as file:
            group = file["Experiments/made by a test"]
            del group["data"]
            group.create_dataset("data", shape=(2**22, 40, 40), chunks=chunks, dtype=np.uint8)[0] = DATA[0]
        assert words in refused(path)

    def test_sparse_data_are_read(self, tmp_path):
        data = np.zeros((40, 256, 256), np.uint16)
        data[:, 5, 6] = 7
        path = write_hspy(tmp_path / "p.hspy", data, [None] * 3, [1.0] * 3)
        assert path.stat().st_size < data.nbytes / 50
        np.testing.assert_array_equal(read_stacks(path)[0].data, data)

    def test_links_elsewhere_do_no_harm(self, tmp_path):
        path = self.write(tmp_path / "p.hspy")
        with h5py.File(path, "a") as file:
            file["nowhere"] = h5py.ExternalLink("absent.h5", "/data")
            file["dangling"] = h5py.SoftLink("/absent")
            file["round"] = file["Experiments"]
            file["Experiments/round"] = file["/"]
        assert len(read_patterns(path)) == 3
