"""Cuts a selection into pieces, so that memory stays bounded and few chunks are read twice."""

from __future__ import annotations

import math

MiB = 1024 * 1024
BLOCK = 4 * MiB

Slices = tuple[slice, ...]


def lengths_of(slices: Slices) -> tuple[int, ...]:
    """Return how many elements each slice selects."""
    return tuple(len(range(s.start, s.stop, s.step)) for s in slices)


def wanted_bytes(slices: Slices, chunks: tuple[int, ...] | None, itemsize: int) -> int:
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


def part_at(
    position: int, slices: Slices, chunks: tuple[int, ...] | None, itemsize: int, limit: int
) -> tuple[Slices, int]:
    """Return the part of a selection that begins at its element `position`, and its elements.

    The part is contiguous in row-major order and has at most `limit` bytes, or one element.  The
    leading dimensions are fixed, the next one is cut to a range (at a boundary of chunks if
    possible), and the dimensions after it are taken whole.
    """
    lengths = lengths_of(slices)
    index: list[int] = []
    for length in reversed(lengths):
        position, place = divmod(position, length)
        index.insert(0, place)
    row, depth = itemsize, len(slices) - 1
    while depth >= 0 and row * lengths[depth] <= limit:
        row *= lengths[depth]
        depth -= 1
    # A part that begins inside a row ends with this row.
    depth = max(depth, max((d for d, place in enumerate(index) if place), default=-1))
    if depth < 0:
        return slices, math.prod(lengths)
    inner = math.prod(lengths[depth + 1 :])
    cut = slices[depth]
    span = max(1, limit // (inner * itemsize)) * cut.step
    chunk = chunks[depth] if chunks else 1
    if span > chunk:
        span -= span % chunk
    start = cut.start + index[depth] * cut.step
    stop = min(cut.stop, start - start % span + span)
    firsts = (s.start + i * s.step for s, i in zip(slices[:depth], index[:depth], strict=True))
    leading = tuple(slice(first, first + 1, 1) for first in firsts)
    count = len(range(start, stop, cut.step)) * inner
    return (*leading, slice(start, stop, cut.step), *slices[depth + 1 :]), count
