"""Damaged files of every format end as a result or as one of our errors, in bounded time and memory.

The same as `benchmarks/fuzz.py`, which reads some thousands, with a few.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.fuzzing import MEMORY_TIMES_FILE, MODES, Watched
from support.mutations import FORMATS, draw, write_seeds

N_FILES = 8
SEED = 20

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="the memory of a process is read from Linux's /proc",
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Return a process, the intact files, and the memory that it takes to read and analyse one of these [KiB]."""
    seeds = write_seeds(tmp_path_factory.mktemp("intact"))
    intact = [paths[0] for paths in seeds.values()]
    with Watched(intact) as process:
        yield process, seeds, max(process.read(path).peak_kib for path in intact)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files(watched, tmp_path, kind):
    process, seeds, base = watched
    for n in range(N_FILES):
        index = n * len(FORMATS) + FORMATS.index(kind)
        _, source, damage, content = draw(index, SEED, seeds, {})
        path = tmp_path / f"{n}_{source.stem}.{kind}"
        path.write_bytes(content)
        outcome = process.read(path, MODES[n % len(MODES)])
        about = f"{source.name}, {damage} (draw {index}): {outcome}"
        assert not outcome.failed, about
        assert outcome.peak_kib <= base + 8192 + MEMORY_TIMES_FILE * len(content) / 1024, about


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("import time; time.sleep(60)", "hang"),
        ("import os; os.abort()", "crash"),
        ("raise KeyError('not ours')", "foreign"),
        ("return ['never a pattern']", "foreign"),
        ("return [] if b'x' * 2**26 else None", "refused"),
    ],
)
def test_the_watch_sees_what_breaks_the_rules(tmp_path, monkeypatch, body, kind):
    # a package whose reader misbehaves, which the process imports instead of the real one
    from support import fuzzing

    package = tmp_path / "napari_sadp"
    for name in ("__init__", "io/__init__", "geometry/__init__"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    (package / "errors.py").write_text(
        "class SadpError(Exception): pass\nclass PatternRefusedError(SadpError): pass\n"
    )
    (package / "geometry" / "analyse.py").write_text("def analyse_pattern(pattern): pattern.data\n")
    (package / "io" / "rosetta.py").write_text(
        f"def read_patterns(path): {body}\ndef read_stacks(path): pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(fuzzing, "TIME_LIMIT_S", 1.0)
    file = tmp_path / "p.dm3"
    file.write_bytes(b"x")
    with Watched() as process:
        for _ in range(2):  # the process is replaced when it is gone
            outcome = process.read(file, "all frames")
            assert (outcome.kind, outcome.failed) == (kind, kind != "refused")
            assert (outcome.peak_kib > 60000) == (kind == "refused")


def test_damage_is_the_same_each_time(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first, second = write_seeds(tmp_path / "a"), write_seeds(tmp_path / "b")
    kinds = set()
    for index in range(60):
        one, two = (draw(index, 3, seeds, {}) for seeds in (first, second))
        assert one[0] == two[0] == FORMATS[index % 7]
        assert one[2] == two[2]
        kinds.add(one[2])
        if one[0] not in ("emd", "hspy"):  # HDF5 files hold the time of their making
            assert one[3] == two[3]
        assert Path(one[1]).read_bytes() != one[3]
    assert len(kinds) >= 8
