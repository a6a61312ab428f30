"""Makes the DAP2 responses for one file.  pydap writes DDS and DODS; das.py writes the DAS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from pydap.lib import walk
from pydap.model import BaseType, DatasetType
from pydap.responses.dds import dds
from pydap.responses.dods import calculate_size, dods

from .das import das
from .names import dap_number, dap_string

JOINED = 64 * 1024


class Answer:
    """Body and headers of a response; `length` is None if it depends on the values."""

    def __init__(
        self, body: Iterable[bytes], length: int | None, description: str, content_type: str
    ) -> None:
        """Take a body that is read once; `description` is for the header Content-Description."""
        self.body = body
        self.length = length
        self.description = description
        self.content_type = content_type


def _text(text: str, description: str) -> Answer:
    body = text.encode()
    return Answer([body], len(body), description, "text/plain; charset=utf-8")


def dds_answer(dataset: DatasetType) -> Answer:
    """Return types and shapes (DDS)."""
    return _text("".join(dds(dataset)), "dods_dds")


def das_answer(dataset: DatasetType) -> Answer:
    """Return the attributes (DAS)."""
    return _text(das(dataset), "dods_das")


def dods_answer(dataset: DatasetType) -> Answer:
    """Return the values in XDR, after their DDS."""
    for variable in walk(dataset, BaseType):
        variable.data.check_size()
    head = "".join(dds(dataset)).encode() + b"Data:\n"
    body = _join(head, (piece for v in walk(dataset, BaseType) for piece in _values(v)))
    return Answer(body, calculate_size(dataset), "dods_data", "application/octet-stream")


def ascii_answer(dataset: DatasetType) -> Answer:
    """Return the values as comma-separated text: one line for each row of the last dimension."""
    head = f"Dataset: {dataset.name}\n".encode()
    body = _join(head, (line for v in walk(dataset, BaseType) for line in _rows(v)))
    return Answer(body, None, "dods_ascii", "text/plain; charset=utf-8")


ANSWERS: dict[str, Callable[[DatasetType], Answer]] = {
    "dds": dds_answer,
    "das": das_answer,
    "dods": dods_answer,
    "ascii": ascii_answer,
    "asc": ascii_answer,
}


def _values(variable: BaseType) -> Iterator[bytes]:
    if variable.shape or variable.dtype != np.dtype("u1"):
        yield from dods(variable)
        return
    # In XDR a single byte is an integer of four octets; pydap would put the padding after it.
    for block in variable.data:
        yield int(block[0]).to_bytes(4, "big")


def _join(head: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces (a string is three) to fewer and larger writes to the client."""
    waiting, size = [head], len(head)
    for piece in pieces:
        if len(piece) >= JOINED:
            yield b"".join(waiting)
            waiting, size = [], 0
            yield piece
            continue
        waiting.append(piece)
        size += len(piece)
        if size >= JOINED:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _rows(variable: BaseType) -> Iterator[bytes]:
    shape = variable.shape
    width = shape[-1] if shape else 1
    position = 0
    for block in variable.data:
        start = 0
        while start < block.size:
            column = position % width
            taken = min(width - column, block.size - start)
            if column == 0:
                yield f"{variable.id}{_label(position // width, shape[:-1])}".encode()
            for value in block[start : start + taken]:
                yield b", " + _cell(value)
            if column + taken == width:
                yield b"\n"
            start += taken
            position += taken
    if 0 in shape:
        yield f"{variable.id}\n".encode()


def _label(row: int, shape: tuple[int, ...]) -> str:
    indices = []
    for depth in range(len(shape)):
        below = math.prod(shape[depth + 1 :])
        indices.append(row // below % shape[depth])
    return "".join(f"[{index}]" for index in indices)


def _cell(value: Any) -> bytes:
    if isinstance(value, bytes):
        return dap_string(value.decode("utf-8", "replace")).encode()
    return dap_number(value).encode()
