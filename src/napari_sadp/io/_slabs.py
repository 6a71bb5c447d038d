"""Parts of a lazy stack that are loaded at once: few enough for the memory, and such that no chunk is read twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a part, and of the largest row of chunks that is taken as a whole.
SLAB_BYTES = 32 * 2**20
_WHOLE_BYTES = 2 * SLAB_BYTES


def slabs(
    shape: tuple[int, ...], chunks: tuple[tuple[int, ...], ...], itemsize: int
) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices of parts that together are all frames, in C order.

    Parameters
    ----------
    shape : tuple of int
        (*navigation, rows, cols).
    chunks : tuple of tuple of int
        Sizes of the chunks along each axis, as dask gives them.
    itemsize : int
        Bytes of a pixel.

    Yields
    ------
    tuple of int and slice
        Index into the leading axes; whole numbers but for the last, which is a slice. Empty for a single frame.
    """
    if len(shape) == 2:
        yield ()
        return
    row = math.prod(shape[1:]) * itemsize
    if row > SLAB_BYTES and len(shape) > 3:
        for i in range(shape[0]):
            yield from ((i, *rest) for rest in slabs(shape[1:], chunks[1:], itemsize))
        return
    start = stop = 0
    most = max(1, SLAB_BYTES // row)
    for size in chunks[0]:
        if stop > start and stop - start + size > most:
            yield (slice(start, stop),)
            start = stop
        stop += size
        while (stop - start) * row > _WHOLE_BYTES and stop - start > most:
            yield (slice(start, start + most),)
            start += most
    if stop > start:
        yield (slice(start, stop),)
