"""The helper process of `_hdf5_guard`: names of HDF5 files come in, what is wrong with each goes out, one a line.

Run by its path, so that it loads h5py and nothing of the package. It touches what a reader would touch: all groups, all
attributes, the index of all chunks and the values of small data sets. An exception there is no matter of the guard, the reader will
meet it and say so; what counts is that all comes to an end.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time

_IDLE_S = 60.0
_CPU_LIMIT_S = 1.0  # of one object, and a second more for each GiB of the file
_SMALL_BYTES = 2**20
_FREE_BYTES = 2**24  # a data set of this size may be made of nothing
_MAX_COMPRESSION = 1100  # of zlib, which is what these files use, with constant pixels
_FREE_CHUNKS = 4096
_TIMES_THERE = 4  # a series that was cut short may have been announced in full
_MEMORY_TIMES_FILE = 4


def main() -> None:
    """Serve until nothing is left to do."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # an interrupt of the terminal is meant for the other process
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    last = [time.monotonic()]
    threading.Thread(target=_leave_when_idle, args=(last,), daemon=True).start()
    with contextlib.suppress(ImportError):
        import h5py  # noqa: F401 - its own memory must not count
    for line in sys.stdin:
        last[0] = math.inf
        path = json.loads(line)
        # Linux forgets the peak until now; else only a higher one is seen
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        before = _peak_bytes()
        answer = probe(path)
        _limit_processor_time(0)
        grown = _peak_bytes() - before
        greedy = grown > _FREE_BYTES + _MEMORY_TIMES_FILE * os.path.getsize(path)
        if greedy:
            answer = (
                answer or f"its structure is damaged: {grown // 2**20} MiB of memory are needed to read it"
            )
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if greedy:
            return  # memory that was used once would hide what the next file needs
        last[0] = time.monotonic()


def probe(path: str) -> str:
    """Return what a file claims and cannot hold, or nothing."""
    size = os.path.getsize(path)
    patience = _CPU_LIMIT_S + size / 2**30
    _limit_processor_time(patience)
    try:
        import h5py

        file = h5py.File(path, "r")
    except (ImportError, OSError, ValueError, RuntimeError):
        return ""  # the reader will say it better
    seen, todo = set(), [file]
    with file:
        while todo:
            _limit_processor_time(patience)
            item = todo.pop()
            _quietly(lambda item=item: _read_attributes(item))
            if isinstance(item, h5py.Dataset):
                wrong = _quietly(lambda item=item: _claims(item, size)) or ""
                if wrong:
                    return wrong
                _quietly(lambda item=item: _read_small(item))
            elif isinstance(item, h5py.Group):
                for name in _quietly(lambda item=item: list(item)) or ():
                    child, mark = _quietly(lambda item=item, name=name: _child(item, name)) or (None, None)
                    if child is not None and mark not in seen:  # a damaged link may lead back
                        seen.add(mark)
                        todo.append(child)
    return ""


def _read_attributes(item) -> None:
    """Read the attributes whose values are kept elsewhere in the file: the others came with the list of them."""
    import h5py

    for name in item.attrs:
        kind = h5py.h5a.open(item.id, name.encode()).get_type()
        if kind.get_class() in (h5py.h5t.VLEN, h5py.h5t.ARRAY, h5py.h5t.COMPOUND) or (
            kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
        ):
            _quietly(lambda name=name: item.attrs[name])


def _child(group, name: str):
    """Return an object of a group and its address; links into other files are not followed."""
    import h5py

    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return None
    child = group[name]
    return child, h5py.h5o.get_info(child.id).addr


def _claims(data, size: int) -> str:
    """Return what is wrong with the size of a data set in a file of `size` bytes."""
    if data.shape is None or data.dtype.hasobject or data.external or data.is_virtual:
        return ""
    needed = math.prod(data.shape) * data.dtype.itemsize
    stored = data.id.get_storage_size()
    name = f"data set {data.name} of {' x '.join(map(str, data.shape))}"
    if data.chunks is None:
        offset = data.id.get_offset()
        if offset is not None and offset + needed > size:
            return f"{name} ends at byte {offset + needed}, the file has {size}"
        there = stored
    else:
        count = data.id.get_num_chunks()
        grid = math.prod(math.ceil(n / chunk) for n, chunk in zip(data.shape, data.chunks, strict=True))
        if grid > max(_FREE_CHUNKS, _TIMES_THERE * count):
            return f"{name} would be {grid} chunks, {count} are there"
        packed = data.id.get_create_plist().get_nfilters() > 0
        most = min(stored, size) * (_MAX_COMPRESSION if packed else 1)
        there = min(count * math.prod(data.chunks) * data.dtype.itemsize, most)
    return (
        f"{name} needs {needed} bytes, {there} are there"
        if needed > max(_TIMES_THERE * there, _FREE_BYTES)
        else ""
    )


def _read_small(data) -> None:
    if data.size is not None and data.size * data.dtype.itemsize <= _SMALL_BYTES:
        data[()]


def _quietly(call):
    """Return what a call returns, None where it raises anything."""
    try:
        return call()
    except Exception:  # noqa: BLE001 - h5py raises anything on damaged files, and the reader will as well
        return None


def _limit_processor_time(seconds: float) -> None:
    """Have the system end this process after so much processor time from now; 0 lifts the limit.

    Waiting for a drive does not count, and a file with much to read is no file that hangs: the time starts anew with
    each object.
    """
    if hasattr(signal, "setitimer"):  # else the other side looks at the clock
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _peak_bytes() -> int:
    """Return the most memory that this process had until now, 0 where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        # not that of getrusage, which on Linux counts the process that started this one
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


def _leave_when_idle(last: list[float]) -> None:
    while time.monotonic() - last[0] < _IDLE_S:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    main()
