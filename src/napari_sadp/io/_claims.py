"""What the header of a file claims, against the bytes that the file has; before a reader believes the header.

The readers of RosettaSciIO take sizes and counts as they stand: a damaged one makes them allocate gigabytes, parse pixels
as lists of Python numbers, or turn in circles. Each check here follows the structure of a file only as far as its claims
go, reads no pixels, and raises `EOFError` or `ValueError` in words for the user. HDF5 has a module of its own,
`_hdf5_guard`.
"""

from __future__ import annotations

import math
import mmap
import struct
from typing import TYPE_CHECKING

from ._hdf5_guard import check_hdf5, is_hdf5

if TYPE_CHECKING:
    from pathlib import Path

# bytes of one element of the simple types of DigitalMicrograph tags
_DM_WIDTHS = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}
_DM_STRUCT, _DM_STRING, _DM_ARRAY = 15, 18, 20
_DM_MAX_DEPTH = 64
# Values outside of the pixels become Python numbers, some 40 bytes each: so many at most, or this share of the file's bytes.
_DM_MAX_VALUES = 2**19
_DM_VALUES_SHARE = 1 / 9
# no lossless compression of TIFF makes less of constant pixels
_TIF_MAX_COMPRESSION = 2000


def check_claims(plugin: str, path: Path) -> None:
    """Raise where a header claims what its file cannot hold.

    Parameters
    ----------
    plugin : str
        Name of the RosettaSciIO plugin that is to read the file.
    path : Path
        The file; nothing is checked for folders and formats without a check.

    Raises
    ------
    EOFError
        If more is announced than the file has.
    ValueError
        If the structure contradicts itself.
    """
    if not path.is_file():
        return
    if is_hdf5(path):
        check_hdf5(path)
    elif plugin in _CHECKS:
        _CHECKS[plugin](path)


def _check_blo(path: Path) -> None:
    layout = struct.Struct("<6sHIIIHHHH")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(layout.size)
    if len(start) < layout.size:
        raise EOFError(f"the header needs {layout.size} bytes, the file has {size}")
    _, _, offset_1, offset_2, _, side, _, n_x, n_y = layout.unpack(start)
    if not (side and n_x and n_y):
        raise ValueError(f"the header announces {n_y} x {n_x} frames of {side} x {side} pixels")
    # a counter of six bytes stands before each frame
    needed = max(offset_1, offset_2 + n_x * n_y * (side**2 + 6))
    if needed > size:
        raise EOFError(f"the header announces {needed} bytes, the file has {size}")


def _check_tif(path: Path) -> None:
    from tifffile import TiffFile

    size = path.stat().st_size
    with TiffFile(path) as tif:
        for series in tif.series:
            if series.dataoffset is not None:
                stored = size - series.dataoffset
                most = stored
            else:
                stored, most = 0, 0
                for page in series.pages:
                    if page is None:  # of a plane that was not acquired
                        continue
                    n_segments = math.prod(page.chunked)
                    if len(page.dataoffsets) < n_segments:
                        raise EOFError(
                            f"a page has {len(page.dataoffsets)} of its {n_segments} strips or tiles"
                        )
                    bytes_here = sum(page.databytecounts)
                    stored += bytes_here
                    most += bytes_here * _tif_expansion(page)
            if series.nbytes > most:
                raise EOFError(
                    f"an image of {' x '.join(map(str, series.shape))} needs {series.nbytes} bytes, {stored} are there"
                )


def _tif_expansion(page: object) -> int:
    """Return how many times more bytes the pixels of a page may take than in the file."""
    if page.compression != 1:
        return _TIF_MAX_COMPRESSION
    return 1 if page.bitspersample in (8, 16, 32, 64) else 8  # single bits become bytes


def _check_dm(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        _DmWalk(view).walk()


class _DmWalk:
    """A walk along the tags of a dm3 or dm4 file that reads counts and sizes, and no values.

    Structure is big-endian; dm4 has counts of eight bytes and sizes of groups and tags besides.
    """

    def __init__(self, view: mmap.mmap) -> None:
        self.view, self.at, self.size = view, 0, len(view)
        self.values = 0
        self._count = struct.Struct(">i")

    def walk(self) -> None:
        """Raise unless the claims of all tags fit."""
        (version,) = self._count.unpack(self._take(4))
        if version not in (3, 4):
            raise ValueError(f"version {version} of DigitalMicrograph's format, expected 3 or 4")
        if version == 4:
            self._count = struct.Struct(">q")
        self.at += self._count.size + 4
        self.at += 2
        # name of the group, tags of it that are left
        groups = [["", self._number("tags")]]
        while groups:
            if groups[-1][1] == 0:
                groups.pop()
                continue
            groups[-1][1] -= 1
            kind, name = self._tag_head()
            if version == 4:
                self.at += 8
            if kind == 20:
                self.at += 2
                groups.append([name, self._number("tags")])
                if len(groups) > _DM_MAX_DEPTH:
                    raise ValueError(f"groups of tags nest more than {_DM_MAX_DEPTH} deep")
            elif kind == 21:
                self._value(pixels=groups[-1][0] == "ImageData" and name == "Data")
            else:
                raise ValueError(f"a tag of kind {kind} at byte {self.at}, expected 20 or 21")

    def _value(self, *, pixels: bool) -> None:
        """Step over the value of a tag."""
        if self._take(4) != b"%%%%":
            raise ValueError(f"no value at byte {self.at - 4}, where a tag begins one")
        n_words, encoding = self._number("words of a type"), self._number("type")
        if n_words == 1:
            self._skip(1, self._width(encoding), pixels)
        elif n_words == 2 and encoding == _DM_STRING:
            self._skip(self._number("characters"), 1, pixels)
        elif encoding == _DM_STRUCT and n_words > 3:
            self._skip(1, self._struct_width(), pixels)
        elif encoding == _DM_ARRAY and n_words >= 3:
            element = self._number("type")
            if element == _DM_STRUCT:
                width = self._struct_width()
            elif element == _DM_STRING:
                width = self._number("characters")
            elif element == _DM_ARRAY:
                inner = self._number("type")
                width = self._number("values") * self._width(inner)
            else:
                width = self._width(element)
            self._skip(self._number("values"), width, pixels)
        else:
            raise ValueError(
                f"a value of type {encoding} in {n_words} words at byte {self.at}, which does not exist"
            )

    def _skip(self, count: int, width: int, pixels: bool) -> None:
        if count and not width:
            raise ValueError(f"{count} values without any bytes at byte {self.at}")
        self._need(count * width)
        if not pixels:
            # how many numbers, at most: those in structures are counted as bytes
            self.values += count * width if width > 8 else count
            if self.values > max(_DM_MAX_VALUES, _DM_VALUES_SHARE * self.size):
                raise ValueError(f"{self.values} values outside of the pixels, too many to be meant")
        self.at += count * width

    def _struct_width(self) -> int:
        self._number("characters")  # of a name that is never there
        n_fields = self._number("fields")
        self._need(2 * n_fields * self._count.size)
        width = 0
        for _ in range(n_fields):
            self._number("characters")
            width += self._width(self._number("type"))
        return width

    def _tag_head(self) -> tuple[int, str]:
        kind, length = struct.unpack(">bh", self._take(3))
        if length < 0:
            raise ValueError(f"a tag with a name of {length} characters at byte {self.at}")
        return kind, self._take(length).decode("latin-1").replace(".", "")

    @staticmethod
    def _width(encoding: int) -> int:
        if encoding not in _DM_WIDTHS:
            raise ValueError(f"a value of type {encoding}, which does not exist")
        return _DM_WIDTHS[encoding]

    def _number(self, what: str) -> int:
        (number,) = self._count.unpack(self._take(self._count.size))
        if number < 0:
            raise ValueError(f"{number} {what} at byte {self.at}")
        return number

    def _take(self, n: int) -> bytes:
        self._need(n)
        self.at += n
        return self.view[self.at - n : self.at]

    def _need(self, n: int) -> None:
        if self.at + n > self.size:
            raise EOFError(f"the tags announce {self.at + n} bytes, the file has {self.size}")


_CHECKS = {"Blockfile": _check_blo, "TIFF": _check_tif, "DigitalMicrograph": _check_dm}
