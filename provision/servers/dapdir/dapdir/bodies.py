"""Bodies of responses, made piece by piece.

A body keeps nothing between two pieces: a cursor says where the next one begins.  So any process
that has the file can make any piece, in any order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import blocks
from .errors import RequestError
from .model import Array, Dataset, dds
from .names import dap_number, dap_string, text_of
from .reader import File, default_fill

Cursor = tuple[int, int, int]
"""Segment, position in it, octets to leave out behind this position."""
START: Cursor = (0, 0, 0)

MAX_ELEMENTS = 2**31 - 1  # DAP2 sends an array's length as a signed 32-bit integer
EXACT = 2**53  # Float64 holds every integer up to here
ASCII_NUMBER = 26  # octets, of the longest number and its comma
LONG_STRING = 64 * 1024  # octets; longer rows of characters are sent without looking for their end

_XDR = {"Byte": "u1", "Int16": ">i4", "UInt16": ">u4", "Int32": ">i4", "UInt32": ">u4",
        "Float32": ">f4", "Float64": ">f8"}  # fmt: skip


class Converted(NamedTuple):
    """Numbers, and the type in which they are sent."""

    values: np.ndarray[Any, Any]
    kind: np.dtype[Any]

    @property
    def octets(self) -> int:
        """Their size when they are sent."""
        return self.values.size * self.kind.itemsize


Data = bytes | Converted
Step = tuple[list[Data], int]
"""What is sent, and how many elements of a segment it has."""


class Body(Protocol):
    """The octets of a response; `length` is None if it depends on the values."""

    @property
    def length(self) -> int | None:
        """The number of octets."""

    def piece(self, cursor: Cursor, limit: int) -> tuple[list[Data], Cursor | None]:
        """Return at most `limit` octets from `cursor` on, and where the next piece begins."""


class Segment(Protocol):
    """A part of a body that is made of `size` elements; `octets` is None if only values say it."""

    size: int

    @property
    def octets(self) -> int | None:
        """The number of octets."""

    def at(self, position: int, room: int) -> Step:
        """Return the elements from `position` on that take `room` octets, or one element."""


class Segments:
    """A body of several segments."""

    def __init__(self, segments: list[Segment]) -> None:
        """Join `segments`."""
        self._segments = segments
        sizes = [segment.octets for segment in segments]
        self.length = None if None in sizes else sum(size or 0 for size in sizes)

    def piece(self, cursor: Cursor, limit: int) -> tuple[list[Data], Cursor | None]:
        """Return at most `limit` octets from `cursor` on, and where the next piece begins."""
        number, position, skip = cursor
        found: list[Data] = []
        size = 0
        while number < len(self._segments):
            segment, room = self._segments[number], limit - size
            if size > limit // 2 and (segment.octets is None or segment.octets > room):
                break
            data, count = segment.at(position, room)
            taken = sum(map(_octets, data)) - skip
            if taken < 0:  # there was more room when the octets before were sent
                skip, position = -taken, position + count
                continue
            if skip or taken > room:
                # Only strings and text are ever larger than asked for: a part of them is sent.
                if found:
                    break
                octets = b"".join(part for part in data if isinstance(part, bytes))
                data = [octets[skip : skip + room]]
                if taken > room:
                    return data, (number, position, skip + room)
                skip = 0
            found += data
            size += taken
            position += count
            if position < segment.size:
                return found, (number, position, 0)
            number, position = number + 1, 0
        return found, (number, position, 0) if number < len(self._segments) else None


def _octets(part: Data) -> int:
    return len(part) if isinstance(part, bytes) else part.octets


def text(content: str | bytes) -> Segments:
    """Return a body that is known."""
    return Segments([Text(content.encode() if isinstance(content, str) else content)])


class Text:
    """Octets that are known."""

    def __init__(self, content: bytes) -> None:
        """Take the octets."""
        self._content = content
        self.size = max(1, len(content))
        self.octets = len(content)

    def at(self, position: int, room: int) -> Step:
        """Return the octets from `position` on."""
        return [self._content[position : position + room]], min(room, self.size - position)


class Download:
    """The octets of a file, as it is; `first` and `last` say which."""

    def __init__(self, descriptor: int, first: int, last: int) -> None:
        """Read from an open descriptor, which the caller closes."""
        self._descriptor = descriptor
        self._first, self._last = first, last
        self.length = last + 1 - first

    def piece(self, cursor: Cursor, limit: int) -> tuple[list[Data], Cursor | None]:
        """Return at most `limit` octets from `cursor` on, and where the next piece begins."""
        start = self._first + cursor[1]
        wanted = min(limit, blocks.BLOCK, self._last + 1 - start)
        data = os.pread(self._descriptor, wanted, start) if wanted else b""
        if len(data) < wanted:
            raise RequestError(503, "the file became shorter")
        after = cursor[1] + wanted
        return [data], (0, after, 0) if after < self.length else None


class Rows:
    """Text with a line for each of many things, such as the entries of a directory."""

    def __init__(self, count: int, line: Callable[[int], str]) -> None:
        """Take the number of lines, and a function that makes one."""
        self.size = max(1, count)
        self.octets = None
        self._count, self._line = count, line

    def at(self, position: int, room: int) -> Step:
        """Return lines from `position` on."""
        lines: list[bytes] = []
        size = 0
        for number in range(position, self._count):
            line = self._line(number).encode("utf-8", "replace")
            if lines and size + len(line) > min(room, blocks.BLOCK):
                break
            lines.append(line)
            size += len(line)
        return [b"".join(lines)], max(1, len(lines))


def dods(file: File, dataset: Dataset) -> Segments:
    """Return the values in XDR, after their DDS; raise RequestError for what DAP2 cannot send."""
    head = f"{dds(dataset)}Data:\n".encode()
    return Segments([Text(head), *(_xdr(file, array) for array in dataset.arrays())])


def ascii_values(file: File, dataset: Dataset) -> Segments:
    """Return the values as comma-separated text: one line for each row of the last dimension."""
    head = f"Dataset: {dataset.name}\n".encode()
    return Segments([Text(head), *(Ascii(file, array) for array in dataset.arrays())])


def _xdr(file: File, array: Array) -> Segment:
    if array.size > MAX_ELEMENTS:
        raise RequestError(
            400,
            f"{array.stored.path} has more than {MAX_ELEMENTS} elements, which DAP2 cannot send at "
            "once: request a part of it",
        )
    if array.type != "String":
        return Numbers(file, array)
    if (array.stored.width or 0) > LONG_STRING:
        return LongStrings(file, array)
    return Strings(file, array)


def _limited(array: Array, itemsize: int, room: int) -> int:
    """Return how many octets to read at once: whole chunks if there is room."""
    return min(room, blocks.wanted_bytes(array.slices, _chunks(array), itemsize))


def _chunks(array: Array) -> tuple[int, ...] | None:
    chunks = array.stored.chunks
    return chunks[: len(array.slices)] if chunks else None


def numbers(file: File, array: Array, position: int, itemsize: int, room: int) -> Any:
    """Return values of an array from `position` on, which take `room` octets, or one value."""
    limit = _limited(array, itemsize, room)
    part, _ = blocks.part_at(position, array.slices, _chunks(array), itemsize, limit)
    values = file.read(array.stored, part).astype(array.stored.dtype, copy=False).reshape(-1)
    return _exact(array, values) if array.stored.dtype.str[1:] in ("i8", "u8") else values


def words(file: File, array: Array, position: int, room: int) -> list[bytes]:
    """Return strings of an array from `position` on, which take about `room` octets, or one."""
    stored, width = array.stored, array.stored.width
    if stored.dtype == object:
        return [text_of(word).encode() for word in file.words(array, position, room)]
    itemsize = (width or 1) + 4
    part, count = blocks.part_at(
        position, array.slices, _chunks(array), itemsize, _limited(array, itemsize, room)
    )
    if width == 0:
        return [b""] * count  # there are no characters to read, but there are strings
    inner = () if width is None else (slice(0, width, 1),)
    values = np.ascontiguousarray(file.read(stored, (*part, *inner)))
    # Characters stay as they are: an attribute says how many octets they are.
    return [bytes(word) for word in values.reshape(-1).view(f"S{width or 1}")]


def _exact(array: Array, values: Any) -> Any:
    """Convert 64-bit integers to Float64; a value that it does not hold exactly is an error.

    Only what netCDF puts where nothing was written may be rounded, and is the nearest Float64.
    """
    if values.min(initial=0) < -EXACT or values.max(initial=0) > EXACT:
        magnitude = values.astype("u8")
        magnitude = np.where(values < 0, 0 - magnitude, magnitude)
        # Exact if at most 53 bits reach from the highest to the lowest bit that is set.
        lowest = np.maximum(magnitude & (0 - magnitude), 1)
        wrong = magnitude // lowest > EXACT
        if np.any(wrong & (values != default_fill(values.dtype))):
            raise RequestError(
                500,
                f"{array.stored.path} has a 64-bit integer that DAP2 cannot send: Float64, the "
                "type in which it is sent, does not hold it exactly",
            )
    return values.astype("f8")


class Numbers:
    """A numeric array in XDR: its length twice, then the values."""

    def __init__(self, file: File, array: Array) -> None:
        """Take any numeric array."""
        self._file, self._array = file, array
        self._kind = np.dtype(_XDR[array.type])
        # In XDR a single byte is an integer of four octets.
        if not array.shape and self._kind.itemsize == 1:
            self._kind = np.dtype(">i4")
        self.size = max(1, array.size)
        self.octets = (8 if array.shape else 0) + -(-array.size * self._kind.itemsize // 4) * 4

    def at(self, position: int, room: int) -> Step:
        """Return values from `position` on."""
        array, kind = self._array, self._kind
        head = np.array([array.size] * 2, ">i4").tobytes() if array.shape and not position else b""
        if not array.size:
            return [head], 1
        itemsize = max(kind.itemsize, array.stored.dtype.itemsize)
        values = numbers(self._file, array, position, itemsize, room - len(head) - 3)
        end = position + values.size == array.size
        padding = bytes(-array.size * kind.itemsize % 4) if end else b""
        return [head, Converted(values, kind), padding], values.size


def _word(word: bytes) -> bytes:
    return len(word).to_bytes(4, "big") + word + bytes(-len(word) % 4)


class Strings:
    """An array of strings in XDR: the number of them, then each one with its length."""

    def __init__(self, file: File, array: Array) -> None:
        """Take an array of strings."""
        self._file, self._array = file, array
        self.size = max(1, array.size)
        self.octets = None

    def at(self, position: int, room: int) -> Step:
        """Return strings from `position` on."""
        array = self._array
        head = array.size.to_bytes(4, "big") if array.shape and not position else b""
        if not array.size:
            return [head], 1
        found = words(self._file, array, position, room - len(head))
        return [head, b"".join(map(_word, found))], len(found)


class LongStrings:
    """Rows of characters that are too long to be read at once; zero octets at the end remain."""

    def __init__(self, file: File, array: Array) -> None:
        """Take an array of such rows; its elements are the characters."""
        self._file, self._array = file, array
        width = array.stored.width or 1
        self._width = width
        self.size = max(1, array.size * width)
        self.octets = (4 if array.shape else 0) + array.size * (4 + width + -width % 4)

    def at(self, position: int, room: int) -> Step:
        """Return characters of one row."""
        array, width = self._array, self._width
        head = array.size.to_bytes(4, "big") if array.shape and not position else b""
        if not array.size:
            return [head], 1
        row, start = divmod(position, width)
        if not start:
            head += width.to_bytes(4, "big")
        stop = min(width, start + min(room - len(head) - 3, blocks.BLOCK))
        part, _ = blocks.part_at(row, array.slices, None, 1, 1)
        values = self._file.read(array.stored, (*part, slice(start, stop, 1)))
        tail = bytes(-width % 4) if stop == width else b""
        return [head, values.tobytes(), tail], stop - start


class Ascii:
    """An array as text: a line for each row of the last dimension, after the row's indices."""

    def __init__(self, file: File, array: Array) -> None:
        """Take any array."""
        self._file, self._array = file, array
        self.size = max(1, array.size)
        self.octets = None

    def at(self, position: int, room: int) -> Step:
        """Return the text of values from `position` on."""
        array = self._array
        if not array.size:
            return [f"{array.id}\n".encode()], 1
        if array.type == "String":
            found = [dap_string(text_of(w)) for w in words(self._file, array, position, room // 4)]
        else:
            itemsize = array.stored.dtype.itemsize
            # Characters are made one by one, and cost time: few of them at once.
            limit = min(room, blocks.BLOCK) // ASCII_NUMBER * itemsize
            values = numbers(self._file, array, position, itemsize, limit)
            found = [dap_number(value) for value in values]
        return ["".join(self._lines(position, found)).encode()], len(found)

    def _lines(self, position: int, found: list[str]) -> Iterator[str]:
        shape, name = self._array.shape, self._array.id
        width = shape[-1] if shape else 1
        start = 0
        while start < len(found):
            row, column = divmod(position + start, width)
            taken = min(width - column, len(found) - start)
            if column == 0:
                indices = np.unravel_index(row, shape[:-1])
                yield name + "".join(f"[{index}]" for index in indices)
            yield "".join(f", {cell}" for cell in found[start : start + taken])
            if column + taken == width:
                yield "\n"
            start += taken


def store(data: list[Data], target: memoryview) -> int:
    """Copy a piece to where it is sent from; return its octets."""
    size = 0
    for part in data:
        if isinstance(part, bytes):
            target[size : size + len(part)] = part
            size += len(part)
            continue
        np.frombuffer(target, part.kind, part.values.size, size)[...] = part.values
        size += part.octets
    return size
