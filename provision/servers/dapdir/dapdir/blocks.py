"""Cuts a selection into pieces, so that memory stays bounded and no chunk is read twice."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

MiB = 1024 * 1024
BLOCK = 1 * MiB


class Budget:
    """The bytes of memory that the large reads of one process share.

    A read gets what it wants or what is left, and at least BLOCK: it may become slower, but it is
    never blocked.
    """

    def __init__(self, total: int) -> None:
        """Share `total` bytes."""
        self._left = total
        self._lock = threading.Lock()

    def take(self, wanted: int) -> int:
        """Return the number of bytes granted; pass it to `give` later."""
        with self._lock:
            granted = max(BLOCK, min(wanted, self._left))
            self._left -= granted
            return granted

    def give(self, granted: int) -> None:
        """Give back what `take` granted."""
        with self._lock:
            self._left += granted


TOTAL = 48 * MiB  # of all workers; reading takes about three times this
BUDGET = Budget(TOTAL)


def lengths_of(slices: tuple[slice, ...]) -> tuple[int, ...]:
    """Return how many elements each slice selects."""
    return tuple(len(range(s.start, s.stop, s.step)) for s in slices)


def wanted_bytes(slices: tuple[slice, ...], chunks: tuple[int, ...] | None, itemsize: int) -> int:
    """Return the smallest size of row-major blocks with which no chunk is read twice."""
    lengths = lengths_of(slices)
    total = math.prod(lengths) * itemsize
    if chunks is None:
        return min(BLOCK, total)
    for depth, (length, s, chunk) in enumerate(zip(lengths, slices, chunks, strict=True)):
        rows: int = min(length, max(1, chunk // s.step))
        if rows > 1:
            row = math.prod(lengths[depth + 1 :]) * itemsize
            return max(rows * row, min(BLOCK, total))
    return min(BLOCK, total)


def split(
    slices: tuple[slice, ...], chunks: tuple[int, ...] | None, itemsize: int, limit: int
) -> Iterator[tuple[slice, ...]]:
    """Cut a selection into selections of at most `limit` bytes, in row-major order.

    The leading dimensions are walked one index at a time, the next one is cut into ranges (at
    boundaries of chunks if possible), and the dimensions after it are taken whole.
    """
    lengths = lengths_of(slices)
    if 0 in lengths:
        return
    row = itemsize
    for depth in range(len(slices) - 1, -1, -1):
        if row * lengths[depth] > limit:
            break
        row *= lengths[depth]
    else:
        yield slices
        return
    cut = slices[depth]
    span = max(1, limit // row) * cut.step
    chunk = chunks[depth] if chunks else 1
    if span > chunk:
        span -= span % chunk
    for leading in _indices(slices[:depth]):
        for start, stop in _ranges(cut, span):
            yield (*leading, slice(start, stop, cut.step), *slices[depth + 1 :])


def _ranges(cut: slice, span: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the parts of a slice, cut at multiples of `span`."""
    start = cut.start
    while start < cut.stop:
        stop = min(cut.stop, start - start % span + span)
        yield start, stop
        start += math.ceil((stop - start) / cut.step) * cut.step


def _indices(slices: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
    if not slices:
        yield ()
        return
    for rest in _indices(slices[:-1]):
        for index in range(slices[-1].start, slices[-1].stop, slices[-1].step):
            yield (*rest, slice(index, index + 1, 1))
