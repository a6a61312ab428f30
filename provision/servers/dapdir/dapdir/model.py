"""What is served of a file: an Array or a Grid for each variable, with the types of DAP2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import blocks
from .blocks import Slices

# DAP2 has neither signed bytes nor 64-bit integers.  Signed bytes become Int16, as with Hyrax;
# 64-bit integers become Float64 (see `values`).
_TYPES = {
    "i1": "Int16", "u1": "Byte", "i2": "Int16", "u2": "UInt16", "i4": "Int32", "u4": "UInt32",
    "f4": "Float32", "f8": "Float64", "i8": "Float64", "u8": "Float64", "O": "String",
    "S1": "String",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stored:
    """A variable in the file: `dtype` is "O" for strings, "S1" for characters.

    `width` is the length of the last dimension of characters, which is served as a string.
    """

    variable: Any
    path: str
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    width: int | None = None


@dataclass(frozen=True, eq=False)
class Array:
    """An array or a scalar, or the part of it that `slices` select; `name` is percent-encoded."""

    name: str
    dims: tuple[str, ...]
    slices: Slices
    stored: Stored
    attributes: dict[str, Any]
    id: str

    @property
    def type(self) -> str:
        """The name of its DAP2 type."""
        return _TYPES[self.stored.dtype.str.lstrip("<>|=")]

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of what is selected."""
        return blocks.lengths_of(self.slices)

    @property
    def size(self) -> int:
        """The number of elements that are selected."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Grid:
    """An array with the coordinates of its dimensions; `whole` if none of them is missing."""

    array: Array
    members: dict[str, Array]
    whole: bool = True

    @property
    def name(self) -> str:
        """The array's name."""
        return self.array.name

    @property
    def id(self) -> str:
        """The array's name."""
        return self.array.name

    @property
    def attributes(self) -> dict[str, Any]:
        """The array's attributes."""
        return self.array.attributes

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.array.shape


@dataclass(frozen=True, eq=False)
class Dataset:
    """The variables of a file, by name, and its global attributes."""

    name: str
    members: dict[str, Array | Grid]
    attributes: dict[str, Any] = field(default_factory=dict)

    def arrays(self) -> Iterator[Array]:
        """Yield all arrays, those of Grids too, in the order of the DDS."""
        for member in self.members.values():
            if isinstance(member, Grid):
                yield from member.members.values()
            else:
                yield member


def dds(dataset: Dataset) -> str:
    """Return types and shapes (DDS)."""
    lines = ["Dataset {\n"]
    for member in dataset.members.values():
        if isinstance(member, Array):
            lines.append(f"    {_declared(member)}")
            continue
        declared = [_declared(array) for array in member.members.values()]
        if member.whole:
            lines += ["    Grid {\n     Array:\n        ", declared[0], "     Maps:\n"]
            lines += [f"        {line}" for line in declared[1:]]
        else:
            # DAP 2.0, 4.1: a Grid of which only some members are requested becomes a Structure.
            lines += ["    Structure {\n", *(f"        {line}" for line in declared)]
        lines.append(f"    }} {member.name};\n")
    return "".join([*lines, f"}} {dataset.name};\n"])


def _declared(array: Array) -> str:
    lengths = zip(array.dims, array.shape, strict=True)
    return f"{array.type} {array.name}{''.join(f'[{d} = {n}]' for d, n in lengths)};\n"
