"""Files for TensorBoard: read back by a reader of their own, and by TensorBoard where it is installed."""

from __future__ import annotations

import struct

import pytest

from napari_sadp.models.event_file import EventFile, crc32c


def records(data: bytes):
    """Yield the contents of the records, their checksums checked."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        for content, stored in (
            (data[:8], data[8:12]),
            (data[12 : 12 + length], data[12 + length : 16 + length]),
        ):
            masked = struct.unpack("<I", stored)[0]
            turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
            assert (turned >> 17 | turned << 15) & 0xFFFFFFFF == crc32c(content)
        yield data[12 : 12 + length]
        data = data[16 + length :]


def fields(message: bytes):
    """Yield number and content of the fields of a message of protocol buffers."""

    def varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    at = 0
    while at < len(message):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        elif key & 7 == 1:
            value, at = struct.unpack_from("<d", message, at)[0], at + 8
        elif key & 7 == 5:
            value, at = struct.unpack_from("<f", message, at)[0], at + 4
        else:
            length, at = varint(at)
            value, at = message[at : at + length], at + length
        yield key >> 3, value


def test_checksum_of_the_standard():
    """Of RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_scalars_are_read_back(tmp_path):
    events = EventFile(tmp_path / "run")
    events.add(64, {"loss/train": 2.5, "accuracy/train": 0.25})
    events.add(300_000, {"loss/train": 1.5, "accuracy/validation": float("nan")})
    events.add(300_001, {"accuracy/validation": float("nan")})  # nothing to write
    first, *others = (dict(fields(r)) for r in records(events.path.read_bytes()))
    assert first[3] == b"brain.Event:2"
    read = []
    for event in others:
        for _, value in fields(event[5]):
            item = dict(fields(value))
            read.append((event[2], item[1].decode(), item[2]))
    assert read == [
        (64, "loss/train", 2.5),
        (64, "accuracy/train", 0.25),
        (300_000, "loss/train", 1.5),
    ]
    assert all(event[1] > 1.6e9 for event in others)  # seconds since 1970


def test_a_purge_is_the_start_of_a_session(tmp_path):
    """``Event.session_log`` is field 7, ``SessionLog.status`` field 1, and ``START`` 1."""
    events = EventFile(tmp_path)
    events.purge(300_001)
    *_, last = (dict(fields(r)) for r in records(events.path.read_bytes()))
    assert (last[2], last[7]) == (300_001, b"\x08\x01")


def test_tensorboard_reads_it(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    EventFile(tmp_path).add(7, {"loss/train": 2.5})
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    [scalar] = found.Scalars("loss/train")
    assert (scalar.step, scalar.value) == (7, 2.5)


def test_tensorboard_forgets_what_is_purged(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    first = EventFile(tmp_path)
    for step in (7, 14, 21):
        first.add(step, {"loss/train": float(step)})
    second = EventFile(tmp_path)
    second.purge(15)
    second.add(28, {"loss/train": 28.0})
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [item.step for item in found.Scalars("loss/train")] == [7, 14, 28]
