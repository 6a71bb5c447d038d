"""One call at a time in another thread; of the calls that come meanwhile only the last is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.qt.threading import FunctionWorker


class LatestRunner:
    """Runs functions off the GUI thread, the latest call wins.

    Parameters
    ----------
    on_result, on_error : callable
        Get the result or the exception, in the GUI thread.
    on_change : callable
        Called without arguments when work begins or ends.
    """

    def __init__(
        self,
        on_result: Callable[[Any], None],
        on_error: Callable[[Exception], None],
        on_change: Callable[[], None],
    ) -> None:
        self._on_result, self._on_error, self._on_change = on_result, on_error, on_change
        self._worker: FunctionWorker | None = None
        self._next: tuple[Callable[..., Any], tuple[Any, ...], str] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a result is awaited."""
        return self._next is not None or (self._worker is not None and not self._worker.abort_requested)

    @property
    def stopping(self) -> bool:
        """Whether a cancelled call has not come to its end yet."""
        return self._worker is not None and self._worker.abort_requested

    @property
    def superseded(self) -> bool:
        """Whether a later call waits for the one at work."""
        return self._next is not None

    def submit(self, function: Callable[..., Any], *arguments: Any, progress: str = "") -> None:
        """Call a function now, or as soon as the call at work has ended; calls that wait are forgotten.

        Parameters
        ----------
        function : callable
            Touches neither viewer nor layers nor widgets.
        *arguments
            Its arguments.
        progress : str
            What the viewer's activity display says; nothing is shown there by default.
        """
        if self._closed:
            return
        self._next = (function, arguments, progress)
        if self._worker is None:
            self._start()
        else:
            self._on_change()

    def cancel(self) -> None:
        """Forget the call that waits and the result of the one at work, which cannot be interrupted."""
        self._next = None
        if self._worker is not None:
            self._worker.quit()
        if not self._closed:
            self._on_change()

    def close(self) -> None:
        """Cancel for good."""
        self._closed = True
        self.cancel()

    def _start(self) -> None:
        function, arguments, progress = self._next
        self._next = None
        worker = create_worker(
            function,
            *arguments,
            _progress={"desc": progress} if progress else None,
            _ignore_errors=True,  # they are shown by on_error
        )
        self._worker = worker
        worker.returned.connect(self._returned)
        worker.errored.connect(self._errored)
        worker.finished.connect(self._finished)
        worker.start()
        self._on_change()

    def _returned(self, result: Any) -> None:
        # a result that was on its way when the call was cancelled arrives all the same
        if not self._closed and not self._worker.abort_requested:
            self._on_result(result)

    def _errored(self, error: Exception) -> None:
        # the error of a call that is of no interest any more is of none either
        if not self._closed and self._next is None and not self._worker.abort_requested:
            self._on_error(error)

    def _finished(self) -> None:
        self._worker = None
        if self._closed:
            return
        if self._next is not None:
            self._start()
        else:
            self._on_change()
