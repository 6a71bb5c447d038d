from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from napari_sadp.dataset.build import build_dataset
from napari_sadp.dataset.config import load_config
from napari_sadp.dataset.disk_stream import DiskStream
from napari_sadp.dataset.library import build_library
from napari_sadp.dataset.read import open_dataset
from napari_sadp.dataset.stream import PatternStream
from napari_sadp.errors import UnreadableFileError
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.ahead import Ahead
from napari_sadp.simulation.catalogue import find_structure


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    config = load_config("quick")
    for _ in build_dataset(config, folder):
        pass
    return open_dataset(folder)


@pytest.fixture(scope="module")
def library():
    return build_library([("225", find_structure("Al", 225).crystal())], build_scheme())


def same(one, other):
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, other, strict=True))


def serial(stream, number, n):
    stream.seek(number)
    return stream.draw(n)


def test_batches_from_the_disk_are_those_drawn_one_after_the_other(dataset):
    ahead = Ahead(DiskStream(dataset, "train", size=64, seed=3))
    plain = DiskStream(dataset, "train", size=64, seed=3)
    ahead.begin(0, 8)
    for number in (0, 8, 16, 40, 8):  # what was begun is not always what is asked for
        assert same(ahead.draw(number, 8), serial(plain, number, 8))
        ahead.begin(number + 8, 8)
    ahead.close()


def test_the_next_batch_is_read_meanwhile(dataset):
    stream = DiskStream(dataset, "train", size=64)
    reached, draw = threading.Event(), stream.draw

    def watched(n):
        reached.set()
        return draw(n)

    stream.draw = watched
    ahead = Ahead(stream)
    ahead.begin(0, 4)
    assert reached.wait(20)  # nobody has asked for it yet
    ahead.close()


def test_a_file_that_cannot_be_read_is_told_when_its_batch_is_wanted(dataset, monkeypatch):
    stream = DiskStream(dataset, "train", size=64)

    def fail(n):
        raise UnreadableFileError("000001.png: cannot be read")

    monkeypatch.setattr(stream, "draw", fail)
    ahead = Ahead(stream)
    ahead.begin(0, 4)
    with pytest.raises(UnreadableFileError, match=r"000001\.png"):
        ahead.draw(0, 4)
    ahead.close()


def test_on_the_cpu_nothing_is_drawn_before_it_is_wanted(library):
    stream = PatternStream(library, size=32, n_classes=60, seed=2)
    ahead = Ahead(stream)
    before = stream.generator.get_state()
    ahead.begin(0, 4)
    assert torch.equal(stream.generator.get_state(), before)
    assert same(ahead.draw(0, 4), serial(PatternStream(library, size=32, n_classes=60, seed=2), 0, 4))
    ahead.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_drawn_one_after_the_other(library):
    def stream():
        return PatternStream(library, size=96, n_classes=60, seed=2, device="cuda")

    ahead, plain = Ahead(stream()), stream()
    busy = torch.rand(4096, 4096, device="cuda")
    ahead.begin(0, 64)
    for number in range(0, 64 * 12, 64):
        got = ahead.draw(number, 64)
        kept = [item.clone() for item in got]
        for _ in range(5):
            busy = (busy @ busy).clip(0, 1)
        ahead.begin(number + 64, 64)
        assert np.isfinite(float(busy[0, 0]))
        assert same(kept, serial(plain, number, 64))
        assert same(got, kept)  # its memory was not given to the next one
