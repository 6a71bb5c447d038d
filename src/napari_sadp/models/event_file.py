"""Scalars in the files that TensorBoard reads, written without TensorBoard or TensorFlow.

The format: records of length, checksum, content and checksum, whose content is an ``Event`` message of protocol buffers.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Reversed polynomial of the checksum CRC-32C (Castagnoli).
_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the checksum CRC-32C of some bytes.

    Examples
    --------
    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    """Return the checksum as a record holds it, turned and shifted."""
    value = crc32c(data)
    value = ((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF
    return struct.pack("<I", value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _bytes_field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


class EventFile:
    """A file of scalars of one run; every instance makes a new one, and TensorBoard joins those of a folder.

    Parameters
    ----------
    folder : pathlib.Path
        Where to; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self._append(struct.pack("<Bd", 0x09, time.time()) + _bytes_field(3, b"brain.Event:2"))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars by name, at a step; what is no number is left out.

        Parameters
        ----------
        step : int
            Images seen.
        scalars : mapping of str to float
            Values.
        """
        values = b"".join(
            _bytes_field(1, _bytes_field(1, name.encode()) + struct.pack("<Bf", 0x15, value))
            for name, value in scalars.items()
            if value == value
        )
        if values:
            self._append(self._head(step) + _bytes_field(5, values))

    def purge(self, step: int) -> None:
        """Have TensorBoard forget what earlier files of the folder hold from a step on, as when a run goes on from a checkpoint.

        Parameters
        ----------
        step : int
            First one that does not count any more.
        """
        # a SessionLog whose status is START, field 7 of an event
        self._append(self._head(step) + _bytes_field(7, b"\x08\x01"))

    @staticmethod
    def _head(step: int) -> bytes:
        """Return time and step of an event."""
        return struct.pack("<Bd", 0x09, time.time()) + b"\x10" + _varint(step)

    def _append(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        # opened for each record, a few a minute: nothing stays open when a run is left half way
        with self.path.open("ab") as file:
            file.write(length + _masked(length) + event + _masked(event))
