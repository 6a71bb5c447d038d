"""Reading and analysis of damaged files in a process of its own, which is watched: time, memory, exceptions, crashes.

`Watched` starts the process, hands it one file after the other and replaces it when it hangs or dies. Run as a program,
this module is that process.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TIME_LIMIT_S = 10.0
MEMORY_TIMES_FILE = 4
_MAX_FRAMES = 2  # of each signal
_MAX_SIGNALS = 3
MODES = ("lazy", "eager", "all frames")
_POLL_S = 0.05
_START_LIMIT_S = 300.0  # to load libraries on a busy machine
_RUNAWAY_KIB = 2**20  # beyond its allowance by a GiB, a process is ended at once
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Parameters
    ----------
    kind : {"result", "refused", "unreadable", "foreign", "crash", "hang"}
        A lattice was found, the pattern was refused, the file was refused; an exception that is none of ours; the
        process died; it took longer than `TIME_LIMIT_S`.
    text : str
        The message.
    seconds : float
        Time by the clock.
    peak_kib : int
        Most resident memory above that before the file [KiB].
    """

    kind: str
    text: str
    seconds: float
    peak_kib: int

    @property
    def failed(self) -> bool:
        """Whether it is neither a result nor one of the errors of the package."""
        return self.kind in ("foreign", "crash", "hang")


class Watched:
    """A process that reads files, replaced when it hangs or dies.

    Parameters
    ----------
    intact : sequence of Path
        Files that each process reads before all others, so that its libraries are loaded and do not count.
    """

    def __init__(self, intact: Sequence[Path] = ()) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._intact = list(intact)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                pipe.close()
            self._process = None

    def read(self, path: Path, mode: str = "lazy", limit_s: float | None = None) -> Outcome:
        """Read and analyse one file; `mode` is one of `MODES`, the limit of time is `TIME_LIMIT_S` when None."""
        limit_s = TIME_LIMIT_S if limit_s is None else limit_s
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            if self._answer(_START_LIMIT_S) != {}:  # what it says when its libraries are loaded
                self.close()
                raise RuntimeError("the process does not start, or cannot import what it is to watch")
            for known in self._intact:
                found = self.read(known, limit_s=_START_LIMIT_S)
                if found.failed:
                    raise RuntimeError(f"{known} is intact and ends as {found.kind}: {found.text}")
        start, base = time.monotonic(), _resident_kib(self._process.pid)
        self._process.stdin.write(json.dumps([str(path), mode]) + "\n")
        size_kib = path.stat().st_size // 1024
        answer = self._answer(limit_s, base + MEMORY_TIMES_FILE * size_kib + _RUNAWAY_KIB)
        seconds = time.monotonic() - start
        if isinstance(answer, dict):
            return Outcome(answer["kind"], answer["text"], seconds, answer["peak_kib"])
        peak = _resident_kib(self._process.pid) - base
        status = self._process.poll()
        self.close()
        if answer == "dead":
            return Outcome("crash", f"the process ended with status {status}", seconds, 0)
        return Outcome("hang", f"no answer after {seconds:.1f} s", seconds, max(0, peak))

    def _answer(self, seconds: float, most_kib: int = 2**40) -> dict | str:
        """Return the next answer; "dead" or "late" without one."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ready, _, _ = select.select([self._process.stdout], [], [], _POLL_S)
            if ready:
                line = self._process.stdout.readline()
                return json.loads(line) if line else "dead"
            if _resident_kib(self._process.pid) > most_kib:
                break
        return "late"


def _resident_kib(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_KIB
    except (OSError, IndexError):
        return 0


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}")


def read_and_analyse(path: str, mode: str) -> tuple[str, str]:
    """Return what became of a file: the kind of `Outcome` and its text."""
    from napari_sadp.errors import PatternRefusedError, SadpError
    from napari_sadp.geometry.analyse import analyse_pattern
    from napari_sadp.io.rosetta import read_patterns, read_stacks

    kind, text = "refused", ""
    try:
        if mode == "all frames":
            patterns = read_patterns(path)[:_MAX_FRAMES]
        else:
            stacks = read_stacks(path, lazy=mode == "lazy")[:_MAX_SIGNALS]
            patterns = [stack[i] for stack in stacks for i in range(min(_MAX_FRAMES, len(stack)))]
        for pattern in patterns:
            try:
                analyse_pattern(pattern)
            except PatternRefusedError as error:
                text = str(error)
            else:
                kind = "result"
    except SadpError as error:
        text = str(error)
        if "allocate" in text or "MemoryError" in text:
            return "foreign", text  # the file asked for more than there is, and nobody checked it
        return "unreadable", text
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        import traceback

        return "foreign", "".join(traceback.format_exception(error))[-3000:]
    return kind, text


def _serve() -> None:
    """Read files whose names come in, one a line, and say what became of them."""
    import ctypes
    import faulthandler
    import gc
    import resource
    import warnings

    import napari_sadp.geometry.analyse
    import napari_sadp.io.rosetta  # noqa: F401

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not pass for an answer
    faulthandler.enable()
    warnings.simplefilter("error")
    limit = 12 * 2**30  # a net for the machine; what is measured is resident memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    trim = getattr(
        ctypes.CDLL(None), "malloc_trim", lambda _: None
    )  # what was freed before must not hide what is taken now
    out.write("{}\n")
    mapped = 0
    for line in sys.stdin:
        path, mode = json.loads(line)
        gc.collect()
        trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        base = _status_kib("RssAnon") + _status_kib("RssShmem")
        mapped = max(mapped, _status_kib("RssFile"))
        kind, text = read_and_analyse(path, mode)
        # where others need memory, pages of libraries are dropped and come back: that is nothing a file takes
        mapped = max(mapped, _status_kib("RssFile"))
        peak = max(0, _status_kib("VmHWM") - base - mapped)
        out.write(json.dumps({"kind": kind, "text": text, "peak_kib": peak}) + "\n")


if __name__ == "__main__":
    _serve()
