"""Work shared by processes of one thread each, which leave Ctrl-C to their parent and end when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_among_processes(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, Any]]:
    """Call a function of a module once for every task, in other processes.

    Parameters
    ----------
    function : callable
        What to call.
    tasks : sequence of tuple
        Its arguments.
    workers : int
        Processes, at most.

    Yields
    ------
    number : int
        Of a task, in the order in which they end.
    result
        What the call returned.
    """
    if not tasks:
        return
    waiting = iter(enumerate(tasks))
    with _single_threaded():
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), mp_context=get_context("spawn"), initializer=_start_worker
        )
        try:
            # two tasks for each worker are enough to keep it busy, and few to wait for after Ctrl-C
            running = _submit(pool, function, islice(waiting, 2 * workers))
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    number, result = running.pop(future), future.result()
                    running |= _submit(pool, function, islice(waiting, 1))
                    yield number, result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[..., Any], tasks: Iterator[tuple[int, tuple[Any, ...]]]
) -> dict[Future[Any], int]:
    """Hand in tasks, which may start processes; with Ctrl-C blocked, as they inherit, so that it never meets them half up."""
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        return {pool.submit(function, *task): number for number, task in tasks}
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes that start here use one thread for linear algebra."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
