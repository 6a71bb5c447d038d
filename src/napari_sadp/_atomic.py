"""Files that are either complete or not there. Imports nothing of the package but its argument checks.

A long run that is killed, a full disk or an exception half way must not leave half a file under the final name, nor
destroy the one that was there: everything goes to a temporary file in the same folder, which replaces the target at
the very end (`os.replace` is atomic within one file system).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from napari_sadp._validate import check_option

if TYPE_CHECKING:
    from collections.abc import Iterator

WriteMode = Literal["w", "wb"]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when the block ends without an exception.

    For libraries that insist on a file name; otherwise use `atomic_write`.

    Parameters
    ----------
    path : path-like
        The final file. A symbolic link stays a link, its target is replaced.

    Yields
    ------
    Path
        An empty file in the same folder, with the same extension.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If `path` is a folder.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{target.parent}: no such folder, so that {target.name} cannot be written there"
        )
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder, expected the name of a file")
    temporary = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(8)}.tmp{target.suffix}")
    # unlike tempfile, os.open leaves the permissions to the umask of the user
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)  # it is gone by now unless something went wrong


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str],
    mode: WriteMode = "w",
    *,
    encoding: str = "utf-8",
    newline: str | None = None,
) -> Iterator[IO[Any]]:
    """Open a file for writing that takes its place only when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        The final file; it keeps its old content until the end.
    mode : {"w", "wb"}
        Text or bytes.
    encoding : str
        Encoding of text.
    newline : str, optional
        As for `open`; ``""`` for the csv module.

    Yields
    ------
    file
        The open temporary file.

    Raises
    ------
    ValueError
        If the mode is another one.
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If `path` is a folder.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as file:
    ...     _ = file.write("complete")
    >>> [found.name for found in folder.iterdir()]
    ['a.txt']
    """
    check_option("mode", mode, ("w", "wb"))
    text = {} if mode == "wb" else {"encoding": encoding, "newline": newline}
    with atomic_path(path) as temporary, open(temporary, mode, **text) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Ask the system to bring a file or folder to the disk; not every system can open a folder."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    with contextlib.suppress(OSError):
        handle = os.open(path, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
