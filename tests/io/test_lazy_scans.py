"""Scans of thousands of frames are read in bounded memory, frame by frame and in order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from support.containers import write_blo, write_hspy, write_mib

from napari_sadp.io import _load, _slabs
from napari_sadp.io._slabs import slabs
from napari_sadp.io.rosetta import read_stacks

SIDE = 64


def write_scan(path, n_rows, n_cols):
    """Write a scan whose frame number n holds n in its first pixels."""
    data = np.full((n_rows, n_cols, SIDE, SIDE), 3, np.uint8)
    number = np.arange(n_rows * n_cols).reshape(n_rows, n_cols)
    data[..., 0, 0], data[..., 0, 1] = number % 256, number // 256
    if path.suffix == ".hspy":
        return write_hspy(path, data, [None] * 4, [1.0] * 4)
    return {".blo": write_blo, ".mib": write_mib}[path.suffix](path, data)


@pytest.mark.parametrize("name", ["p.blo", "p.mib", "p.hspy"])
def test_memory_does_not_grow_with_the_scan(tmp_path, monkeypatch, name):
    # 4096 frames, as of a 64 x 64 scan, but of a sixteenth of 256 x 256 pixels; what is loaded at once is smaller as much
    monkeypatch.setattr(_slabs, "SLAB_BYTES", _slabs.SLAB_BYTES // 16)
    monkeypatch.setattr(_slabs, "_WHOLE_BYTES", _slabs._WHOLE_BYTES // 16)
    monkeypatch.setattr(_load, "_CHUNK_BYTES", _load._CHUNK_BYTES // 16)
    path = write_scan(tmp_path / name, 128, 32)
    [stack] = read_stacks(path)
    next(iter(stack))  # libraries are loaded upon first use
    tracemalloc.start()
    try:
        seen = 0
        for n, pattern in enumerate(stack):
            assert pattern.frame == n
            assert pattern.data[0, 0] + 256 * pattern.data[0, 1] == n
            seen += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == len(stack) == 4096
    # the pixels of the scan are 16 MiB; what is loaded at once is 2 MiB, and some copies of it
    assert peak < 8 * 2**20


@pytest.mark.parametrize("name", ["p.blo", "p.mib", "p.hspy"])
def test_one_frame_of_a_scan(tmp_path, name):
    [stack] = read_stacks(write_scan(tmp_path / name, 5, 7))
    assert not isinstance(stack.data, np.ndarray)
    assert stack.navigation_shape == (5, 7)
    for n in (0, 13, -1):
        pattern = stack[n]
        assert pattern.frame == n % 35
        assert pattern.data[0, 0] == n % 35


def test_slabs_cover_all_frames_in_order():
    shape, chunks = (7, 5, 2**10, 2**10), ((3, 3, 1), (5,), (2**10,), (2**10,))
    frames = np.arange(35).reshape(7, 5)
    for itemsize in (1, 2, 8, 16):
        found = [frames[where] for where in slabs(shape, chunks, itemsize)]
        assert np.concatenate([part.ravel() for part in found]).tolist() == list(range(35))
        largest = max(part.size for part in found) * 2**20 * itemsize
        assert largest <= _slabs._WHOLE_BYTES


def test_slabs_follow_chunks():
    parts = list(slabs((100, 2**10, 2**10), ((30, 30, 30, 10), (2**10,), (2**10,)), 1))
    assert parts == [(slice(0, 30),), (slice(30, 60),), (slice(60, 90),), (slice(90, 100),)]
    assert list(slabs((2**10, 2**10), ((2**10,), (2**10,)), 8)) == [()]
