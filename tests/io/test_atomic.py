"""A file is complete or not there, and the old one survives every accident."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from napari_sadp._atomic import atomic_path, atomic_write

posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and SIGKILL are those of POSIX")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("mode", "content"), [("w", "räume\n"), ("wb", b"\x00\xff")])
def test_writes(tmp_path, mode, content):
    path = tmp_path / "a.txt"
    with atomic_write(path, mode) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == (content if mode == "wb" else content.encode())
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_exception_in_the_middle(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)

    def half():
        with atomic_write(path) as file:
            file.write("half of")
            raise error

    with pytest.raises(error):
        half()
    assert names(tmp_path) == (["a.txt"] if old else [])
    assert not old or path.read_text() == old


def test_replace_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def no_replace(*args):
        raise PermissionError("the file is open elsewhere")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(PermissionError), atomic_write(path) as file:
        file.write("new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@posix
def test_kill_in_the_middle(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    code = (
        "import os, signal, sys\nfrom napari_sadp._atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write('half of ' * 10000)\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    with atomic_write(path) as file:  # what the killed process left behind is in nobody's way
        file.write("new")
    assert path.read_text() == "new"


@posix
def test_permissions_and_links(tmp_path):
    target, link = tmp_path / "a.txt", tmp_path / "link.txt"
    old_mask = os.umask(0o027)
    try:
        with atomic_write(target) as file:
            file.write("1")
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    link.symlink_to(target)
    with atomic_write(link) as file:
        file.write("2")
    assert link.is_symlink()
    assert target.read_text() == "2"
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_path_for_libraries(tmp_path):
    path = tmp_path / "a.png"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == path.parent
        temporary.write_bytes(b"x")
    assert path.read_bytes() == b"x"


def test_long_name(tmp_path):
    with atomic_write(tmp_path / ("n" * 240 + ".txt")) as file:
        file.write("x")
    assert len(names(tmp_path)) == 1


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "a", "a"):
        pass
    with pytest.raises(FileNotFoundError, match="no such folder"), atomic_write(tmp_path / "no" / "a.txt"):
        pass
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        pass
    assert names(tmp_path) == []
