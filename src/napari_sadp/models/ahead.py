"""The next batch is made while the network works on this one: training input does not wait."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from napari_sadp.dataset.disk_stream import DiskStream

if TYPE_CHECKING:
    from napari_sadp.dataset.stream import PatternStream

    Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Ahead:
    """Draws batches of a stream, each one while the one before it is at work.

    A stream on a GPU is drawn on a CUDA stream of its own, beside that of the network; images are read from the disk by a thread.
    Drawing on the CPU would only take time from the network there: it is done when the batch is wanted.

    Parameters
    ----------
    source : PatternStream or DiskStream
        Where batches are drawn from; by nobody else meanwhile.
    """

    def __init__(self, source: PatternStream | DiskStream) -> None:
        self.source = source
        self._key: tuple[int, int] | None = None
        self._batch: Future[Batch] | Batch | None = None
        self._reader = ThreadPoolExecutor(1) if isinstance(source, DiskStream) else None
        on_gpu = self._reader is None and source.device.type == "cuda"
        self._beside = torch.cuda.Stream(source.device) if on_gpu else None
        if self._beside is not None:  # what the stream draws from was brought there just now
            self._beside.wait_stream(torch.cuda.current_stream(source.device))

    def draw(self, number: int, n: int) -> Batch:
        """Return the batch of n images that begins with the image of a number."""
        if self._key != (number, n):
            self.begin(number, n)
        self._key, batch = None, self._batch
        if isinstance(batch, Future):
            return batch.result()
        if batch is None:
            return self._draw(number, n)
        here = torch.cuda.current_stream(self.source.device)
        here.wait_stream(self._beside)
        for item in batch:
            # so that its memory is not used again before the network is done with it
            item.record_stream(here)
        return batch

    def begin(self, number: int, n: int) -> None:
        """Begin to make the batch that `draw` will be asked for next."""
        if self._key is not None and isinstance(self._batch, Future):
            self._batch.cancel()  # one thread: what has begun ends before the next one begins
        self._key = number, n
        if self._reader is not None:
            self._batch = self._reader.submit(self._draw, number, n)
        elif self._beside is not None:
            with torch.cuda.stream(self._beside):
                self._batch = self._draw(number, n)

    def _draw(self, number: int, n: int) -> Batch:
        # an image depends on the seed and its number alone, whoever draws it
        self.source.seek(number)
        return self.source.draw(n)

    def close(self) -> None:
        """Let go of the thread."""
        if self._reader is not None:
            self._reader.shutdown(wait=True, cancel_futures=True)
