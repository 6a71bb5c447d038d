"""HDF5 files that could hang or kill the process are found out in another process first.

libhdf5 turns in circles in some damaged files (a heap whose objects have no size is enough), and nothing can interrupt it:
it runs in C and holds the lock of the interpreter. Neither is there a checksum in the files of h5py, HyperSpy or Velox that
would tell. So a helper process walks through the structure of a file before this one opens it; it is ended when it
has spent its processor time, and the file is refused. The helper costs about 0.3 s when the first file is opened and 50 MB
while it lives; it serves the next files in some ms, and leaves after a minute without any. Where no helper can be
started (a frozen application, an embedded interpreter), files are read without this guard.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PROBE = Path(__file__).with_name("_hdf5_probe.py")
# The helper limits its own processor time (see there); the clock is for systems that cannot, and for dead drives.
_WALL_LIMIT_S = 60.0
_WALL_LIMIT_WITHOUT_CPU_S = 9.0
_PATIENCE_S = 2.0
_ATTEMPTS = 2
_LARGEST_STATUS = 255  # Windows gives the code of an exception where a process crashed


def is_hdf5(path: Path) -> bool:
    """Tell whether a file begins as HDF5 does, at once or behind a block of the user."""
    with path.open("rb") as file:
        size, place = os.fstat(file.fileno()).st_size, 0
        while place + len(_SIGNATURE) <= size:
            file.seek(place)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            place = max(512, 2 * place)
    return False


def check_hdf5(path: Path) -> None:
    """Raise `ValueError` where reading an HDF5 file would not end, or its data sets claim more than the file holds."""
    answer = _helper.ask(path)
    if answer:
        raise ValueError(answer)


class _Helper:
    """The process that probes files; started when it is needed first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._late = False
        self._lock = threading.Lock()

    def ask(self, path: Path) -> str:
        """Return what is wrong with a file, or nothing."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                if not self._start():
                    return ""
                answer = self._answer(path)
                if answer is not None:
                    return answer
                status = self.close()
                if (
                    self._late or status < 0 or status > _LARGEST_STATUS
                ):  # ended by the clock, the system, or a crash
                    return "its structure is damaged: the HDF5 library does not come to an end with it"
                # else it left of its own accord: for want of work, or because it cannot run here
        return ""

    def _start(self) -> bool:
        """Start the process unless it runs; return whether there is one."""
        if self._process is not None and self._owner != os.getpid():
            self._process = None  # that of a parent which forked is not ours
        if self._process is not None and self._process.poll() is not None:
            self.close()  # what ended it was not the file that is asked about
        if self._process is not None:
            return True
        if not _can_start():
            return False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROBE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError:
            return False
        self._owner = os.getpid()
        atexit.register(self.close)
        return True

    def _answer(self, path: Path) -> str | None:
        """Return the answer of the process, None when it dies over it."""
        limit = _WALL_LIMIT_S if sys.platform != "win32" else _WALL_LIMIT_WITHOUT_CPU_S
        self._late = False
        timer = threading.Timer(limit, self._end_late)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(json.dumps(str(path.absolute())) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            return None
        except BaseException:  # an interrupt: the answer to this file must not be taken for that to the next
            self._process.kill()
            self.close()
            raise
        finally:
            timer.cancel()
        return json.loads(line) if line.endswith("\n") else None

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def close(self) -> int:
        """End the process; return its exit status, 0 without one."""
        atexit.unregister(self.close)
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        for pipe in (process.stdin, process.stdout):
            # what was written to a dead process is lost, and may be
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
        try:
            process.wait(timeout=_PATIENCE_S)  # it leaves when its input ends
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return process.returncode


def _can_start() -> bool:
    """Tell whether the executable of this process is an interpreter and the probe a file."""
    if getattr(sys, "frozen", False) or not sys.executable or not _PROBE.is_file():
        return False
    return Path(sys.executable).name.lower().startswith(("python", "pypy"))


_helper = _Helper()
