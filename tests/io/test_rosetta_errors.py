"""Files that cannot be read give one line that names the file and the cause, whatever the reader trips over."""

from __future__ import annotations

import logging
import shutil
import sys
import threading

import h5py
import numpy as np
import pytest
from support.containers import write_container, write_hspy
from support.shared import REAL, needs_real

from napari_sadp.errors import UnreadableFileError
from napari_sadp.io import rosetta
from napari_sadp.io._load import quiet
from napari_sadp.io.rosetta import read_patterns, read_stacks

DATA = np.random.default_rng(5).integers(0, 200, (3, 40, 40)).astype(np.uint16)


def refused(path, capfd, *, lazy=True):
    """Return the message, having checked that it is one line with the name, and that nothing else was printed."""
    capfd.readouterr()
    with pytest.raises(UnreadableFileError) as caught:
        [frame for stack in read_stacks(path, lazy=lazy) for frame in stack]
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 800
    assert capfd.readouterr() == ("", "")
    return message


def write(path):
    """Write a good file of the format that the extension names."""
    suffix = path.suffix
    if suffix in (".dm3", ".dm4", ".emd"):
        write_container(path, DATA, variant="ncem" if path.stem == "ncem" else "velox")
    elif suffix == ".hspy":
        write_hspy(path, DATA, [None] * 3, [1.0] * 3)
    elif suffix == ".blo":
        from rsciio.blockfile import file_writer

        names = (("y", 1, "nm"), ("x", 3, "nm"), ("dy", 40, "cm"), ("dx", 40, "cm"))
        axes = [
            {"name": name, "size": size, "scale": 1.0, "offset": 0.0, "units": unit, "navigate": unit == "nm"}
            for name, size, unit in names
        ]
        data = DATA.astype(np.uint8)[None]
        signal = {
            "data": data,
            "axes": axes,
            "metadata": {},
            "original_metadata": {},
            "attributes": {"_lazy": False},
        }
        file_writer(str(path), signal, navigator=np.zeros((1, 3), np.uint8))
    else:
        from skimage.io import imsave

        imsave(path, DATA[0] if suffix != ".jpg" else DATA[0].astype(np.uint8), check_contrast=False)
    return path


FORMATS = ["p.dm3", "p.dm4", "p.emd", "ncem.emd", "p.hspy", "p.blo", "p.tif", "p.png", "p.jpg"]


def test_missing(tmp_path, capfd):
    assert "no such file" in refused(tmp_path / "absent.dm3", capfd)


def test_folder(tmp_path, capfd):
    folder = tmp_path / "p.dm3"
    folder.mkdir()
    assert "folder" in refused(folder, capfd)
    assert "folder" in refused(tmp_path, capfd)


@pytest.mark.parametrize("name", FORMATS)
def test_empty(tmp_path, name, capfd):
    (tmp_path / name).touch()
    assert "is empty" in refused(tmp_path / name, capfd)


@pytest.mark.parametrize("name", ["p.docx", "p", "p.dm3.gz"])
def test_unknown_extension(tmp_path, name, capfd):
    (tmp_path / name).write_bytes(b"anything")
    message = refused(tmp_path / name, capfd)
    assert "extension" in message
    assert "dm3, dm4, emd" in message


@pytest.mark.parametrize("name", [*FORMATS, "p.mib", "p.ser", "p.emi", "p.bmp", "p.npy", "p.mrc", "p.h5"])
def test_text_under_another_name(tmp_path, name, capfd):
    (tmp_path / name).write_text("This is a letter and no micrograph.\n" * 40)
    for lazy in (True, False):
        assert "looks like text" in refused(tmp_path / name, capfd, lazy=lazy)


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("name", FORMATS)
def test_truncated(tmp_path, name, fraction, capfd):
    path = write(tmp_path / name)
    assert len(read_patterns(path)) >= 1
    whole = path.read_bytes()
    path.unlink()  # an open HDF5 file is known to the library by its inode
    path.write_bytes(whole[: max(1, int(len(whole) * fraction))])
    for lazy in (True, False):
        refused(path, capfd, lazy=lazy)


@needs_real
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.97])
@pytest.mark.parametrize(
    "name",
    [
        "bismuth.dm3",
        "bismuth.dm4",
        "metadata/ceta_no_beam.emd",
        "sped_test1.blo",
        "test.mib",
        "al_near111.bmp",
        "ag_sped_two_grains.hspy",
        "fe_bcc_kikuchi.tif",
        "hotspots.tif",
        "hbn_0001.png",
    ],
)
def test_truncated_real_files(tmp_path, name, fraction, capfd):
    whole = (REAL / name).read_bytes()
    path = tmp_path / (REAL / name).name
    path.write_bytes(whole[: int(len(whole) * fraction)])
    for lazy in (True, False):
        refused(path, capfd, lazy=lazy)


@needs_real
def test_emi_without_its_ser(tmp_path, capfd):
    shutil.copy(REAL / "metadata/64x64_diffraction_acquire.emi", tmp_path)
    refused(tmp_path / "64x64_diffraction_acquire.emi", capfd)


@pytest.mark.parametrize("version", [3, 4])
def test_dm_whose_pixels_lie_beyond_the_end(tmp_path, version, capfd):
    # tags stand behind the pixels, so that cutting the file is noticed by the parser; a wrong size is not
    path = write_container(tmp_path / f"p.dm{version}", DATA)
    width = 4 if version == 3 else 8
    old, new = ((4).to_bytes(width, "big") + n.to_bytes(width, "big") for n in (DATA.size, DATA.size * 100))
    raw = path.read_bytes()
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))
    for lazy in (True, False):
        refused(path, capfd, lazy=lazy)


@pytest.mark.parametrize("side", [41, 4000])
@pytest.mark.parametrize("version", [3, 4])
def test_dm_whose_dimensions_do_not_fit(tmp_path, version, side, capfd):
    path = write_container(tmp_path / f"p.dm{version}", DATA)
    raw = path.read_bytes()
    place = raw.rindex(b"Dimensions")
    wrong = raw[place:].replace((40).to_bytes(4, "little"), side.to_bytes(4, "little"), 2)
    path.write_bytes(raw[:place] + wrong)
    for lazy in (True, False):
        refused(path, capfd, lazy=lazy)


@pytest.mark.parametrize("name", ["p.emd", "p.hspy", "p.h5", "p.hdf5"])
def test_hdf5_of_another_kind(tmp_path, name, capfd):
    with h5py.File(tmp_path / name, "w") as file:
        file["weights"] = np.zeros((4, 4))
    refused(tmp_path / name, capfd)


def test_content_of_another_format_is_named(tmp_path, capfd):
    path = write(tmp_path / "p.png").rename(tmp_path / "p.dm3")
    assert "PNG" in refused(path, capfd)
    path = write(tmp_path / "q.dm3").rename(tmp_path / "q.tif")
    assert "DigitalMicrograph 3" in refused(path, capfd)
    path = write(tmp_path / "p.hspy").rename(tmp_path / "p.emd")
    assert "HDF5" in refused(path, capfd)


def test_hspy_made_from_a_dm3_is_no_dm3(tmp_path):
    data_tag = {"offset": 10**9, "size": 10, "size_bytes": 10}
    tags = {"ImageList": {"TagGroup0": {"ImageData": {"Data": data_tag}}}, "blockfile_header": {"NX": 10**6}}
    path = write_hspy(tmp_path / "p.hspy", DATA, [None] * 3, [1.0] * 3, original_metadata=tags)
    assert len(read_patterns(path)) == 3


def test_dm4_called_dm3_is_read(tmp_path):
    path = write(tmp_path / "p.dm4").rename(tmp_path / "q.dm3")
    np.testing.assert_array_equal(read_patterns(path)[2].data, DATA[2])


def test_spectra_only(tmp_path, capfd):
    path = write_hspy(
        tmp_path / "p.hspy", np.arange(40.0).reshape(4, 10), ["", "eV"], [1.0, 1.0], navigate=[True, False]
    )
    assert "no two-dimensional data" in refused(path, capfd)
    np.save(tmp_path / "line.npy", np.arange(10.0))
    assert "no two-dimensional data" in refused(tmp_path / "line.npy", capfd)


@pytest.mark.parametrize("data", [np.zeros((0, 8, 8)), np.zeros((1, 9)), np.array([["a", "b"], ["c", "d"]])])
def test_nothing_to_see(tmp_path, data, capfd):
    np.save(tmp_path / "p.npy", data)
    refused(tmp_path / "p.npy", capfd)


def test_missing_package_says_so(tmp_path, monkeypatch, capfd):
    def reader(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'strange'")

    import rsciio.digitalmicrograph

    monkeypatch.setattr(rsciio.digitalmicrograph, "file_reader", reader)
    message = refused(write(tmp_path / "p.dm3"), capfd)
    assert "strange" in message
    assert "install" in message


def test_a_folder_whose_reader_is_not_installed(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "rsciio.zspy", None)  # as if it could not be imported
    (tmp_path / "p.zspy").mkdir()
    message = refused(tmp_path / "p.zspy", capfd)
    assert "needs zarr, which is not installed" in message
    assert 'pip install "rosettasciio[zspy]"' in message
    assert "cannot be opened" not in message
    assert "damaged" not in message


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), MemoryError(), ZeroDivisionError("a\nb" * 400)]
)
def test_whatever_the_reader_raises(tmp_path, monkeypatch, capfd, error):
    def reader(*args, **kwargs):
        logging.getLogger("rsciio.digitalmicrograph").error("noise")
        raise error

    import rsciio.digitalmicrograph

    monkeypatch.setattr(rsciio.digitalmicrograph, "file_reader", reader)
    refused(write(tmp_path / "p.dm3"), capfd)


def test_whatever_the_dictionaries_hold(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(rosetta, "load", lambda path, lazy: ("HSPY", [{"data": None}], ()))
    refused(tmp_path / "p.hspy", capfd)


def test_interrupts_are_not_swallowed(tmp_path, monkeypatch):
    def reader(*args, **kwargs):
        raise KeyboardInterrupt

    import rsciio.digitalmicrograph

    monkeypatch.setattr(rsciio.digitalmicrograph, "file_reader", reader)
    with pytest.raises(KeyboardInterrupt):
        read_stacks(write(tmp_path / "p.dm3"))


def test_file_that_goes_away_after_a_lazy_read(tmp_path, capfd):
    path = write(tmp_path / "p.dm3")
    [stack] = read_stacks(path)
    path.unlink()
    with pytest.raises(UnreadableFileError, match="frame 1") as caught:
        stack[1]
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_readers_become_notes(tmp_path, monkeypatch, recwarn):
    import warnings

    import rsciio.digitalmicrograph

    original = rsciio.digitalmicrograph.file_reader

    def reader(*args, **kwargs):
        warnings.warn("something\nodd", UserWarning, stacklevel=1)
        return original(*args, **kwargs)

    monkeypatch.setattr(rsciio.digitalmicrograph, "file_reader", reader)
    [stack] = read_stacks(write(tmp_path / "p.dm3"))
    assert stack.notes[-1] == "RosettaSciIO: something odd"
    assert not recwarn.list


def test_loggers_get_their_level_back_after_many_threads():
    logger = logging.getLogger("rsciio")
    before = logger.level

    def work():
        for _ in range(50):
            with quiet():
                assert logger.level > logging.CRITICAL

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logger.level == before
