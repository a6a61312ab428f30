"""A variable as a lazy array, which pydap's model and encoders use like a NumPy array.

DAP2 has no signed bytes, 64-bit integers or characters.  pydap sends signed bytes as Int16, as
Hyrax does.  Here 64-bit integers become Float64 (pydap would cut them to 32 bits); an integer that
Float64 cannot hold exactly is an error.  Character arrays become strings over their last dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import netCDF4
import numpy as np

from . import blocks
from .errors import RequestError
from .source import Source

MAX_ELEMENTS = 2**31 - 1  # DAP2 sends an array's length as a signed 32-bit integer
EXACT = 2**53  # Float64 holds every integer up to here
VLEN_STRING = 64  # bytes; a guess that limits the number of strings in a block

Block = np.ndarray[Any, Any]


class Word(bytes):
    """A string's octets.  NumPy's own type gives pydap a zero octet for an empty string."""

    tobytes = bytes.__bytes__


def _words(strings: Iterable[bytes]) -> Block:
    words = [Word(string) for string in strings]
    block = np.empty(len(words), dtype=object)
    block[:] = words
    return block


class LazyArray:
    """A variable, with the `shape` and `dtype` that are served.

    Iteration reads the file in flat blocks of at most 1 MiB.  Make it while holding `library()`.
    """

    def __init__(
        self, source: Source, variable: netCDF4.Variable[Any], name: str, unsigned: bool
    ) -> None:
        """Take the whole variable; `unsigned`: the file's signed integers are in fact unsigned."""
        self._source = source
        self._variable = variable
        self._name = name
        self._stored = np.dtype("O") if variable.dtype is str else np.dtype(variable.dtype)
        # netCDF-3 has no unsigned bytes: the attribute _Unsigned = "true" marks them.
        if unsigned and self._stored.kind == "i" and self._stored.itemsize in (1, 8):
            self._stored = np.dtype(f"u{self._stored.itemsize}")
        chunks = variable.chunking() if source.dataset.data_model.startswith("NETCDF4") else None
        self._chunks = tuple(chunks) if isinstance(chunks, list) else None
        full = tuple(slice(0, length, 1) for length in variable.shape)
        self.is_char = self._stored == np.dtype("S1")
        self._inner = full[-1:] if self.is_char else ()
        self._slices = full[: len(full) - len(self._inner)]
        self.shape = blocks.lengths_of(self._slices)
        self.dtype = self._served_dtype()

    def _served_dtype(self) -> np.dtype[Any]:
        if self._stored.kind in "OS":
            return np.dtype("S")
        if self._stored.kind in "iu" and self._stored.itemsize == 8:
            return np.dtype("f8")
        return self._stored.newbyteorder("=")

    def converted(self, attribute: Any) -> Any:
        """Return an attribute in the type of the served values, if the file's type differs."""
        value = np.asarray(attribute)
        if self.dtype.kind == "S" or value.dtype.kind not in "iuf":
            return attribute
        if self._stored.kind == "u" and value.dtype.kind == "i":
            value = value.astype(self._stored.str.replace("u", "i")).view(self._stored)
        return value if self._stored.itemsize < 8 else value.astype(self.dtype)

    def select(self, slices: tuple[slice, ...]) -> LazyArray:
        """Return the part of this (whole) array that `slices` select."""
        part = object.__new__(LazyArray)
        part.__dict__.update(self.__dict__)
        part._slices = slices
        part.shape = blocks.lengths_of(slices)
        return part

    def check_size(self) -> None:
        """Raise RequestError 400 if the array is too large for DAP2."""
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise RequestError(
                400,
                f"{self._name} has more than {MAX_ELEMENTS} elements, which DAP2 cannot send at "
                "once: request a part of it",
            )

    def __iter__(self) -> Iterator[Block]:
        """Yield the values; raise RequestError if the file or a value cannot be served."""
        slices = self._slices + self._inner
        itemsize = VLEN_STRING if self._stored.kind == "O" else self._stored.itemsize
        granted = blocks.BUDGET.take(blocks.wanted_bytes(slices, self._chunks, itemsize))
        try:
            if self.is_char and self._inner and not self._inner[0].stop:
                # There are no characters to read, but there are strings, all of them empty.
                yield _words([b""] * math.prod(self.shape))
                return
            for part in self._parts(slices, itemsize, granted):
                values = self._source.read(self._variable, part)
                yield from self._served(values, itemsize)
                del values
        finally:
            blocks.BUDGET.give(granted)

    def _parts(
        self, slices: tuple[slice, ...], itemsize: int, limit: int
    ) -> Iterator[tuple[slice, ...]]:
        if not self._inner:
            yield from blocks.split(slices, self._chunks, itemsize, limit)
            return
        # Strings are never cut: only the dimensions before the last are.
        chunks = self._chunks[:-1] if self._chunks else None
        length = self._inner[0].stop
        for part in blocks.split(slices[:-1], chunks, itemsize * length, limit):
            yield part + self._inner

    def _served(self, values: Block, itemsize: int) -> Iterator[Block]:
        if self._stored.kind == "O":
            yield _words(word.encode("utf-8", "surrogateescape") for word in values.flat)
            return
        if self.is_char:
            width = values.shape[-1] if self._inner else 1
            values = np.ascontiguousarray(values).reshape(-1).view(f"S{width}")
            yield _words(values.flat)
            return
        flat = values.astype(self._stored, copy=False).reshape(-1)
        step = max(1, blocks.BLOCK // max(itemsize, flat.itemsize))
        for start in range(0, flat.size, step):
            yield self._exact(flat[start : start + step])

    def _exact(self, block: Block) -> Block:
        if self.dtype != np.dtype("f8") or block.dtype.kind == "f":
            return block
        if block.min() < -EXACT or block.max() > EXACT:
            magnitude = block.astype("u8")
            magnitude = np.where(block < 0, 0 - magnitude, magnitude)
            # Exact if at most 53 bits reach from the highest to the lowest bit that is set.
            lowest = np.maximum(magnitude & (0 - magnitude), 1)
            if np.any(magnitude // lowest > EXACT):
                raise RequestError(
                    500,
                    f"{self._name} has a 64-bit integer that DAP2 cannot send: Float64, the type "
                    "in which it is sent, does not hold it exactly",
                )
        return block.astype("f8")

    def __getitem__(self, index: None) -> Block:
        """Return a scalar with two axes: pydap's encoder asks for `[np.newaxis]`."""
        (block,) = self
        return block.reshape(1, 1)
