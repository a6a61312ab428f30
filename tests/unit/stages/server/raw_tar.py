"""Raw blocks of tar archives, as no well-behaved program writes them."""

from __future__ import annotations

import tarfile
from typing import Any

END = bytes(2 * tarfile.BLOCKSIZE)


def header(name: str = "a", size: int = 0, kind: bytes = tarfile.REGTYPE, **more: Any) -> bytes:
    """Return one raw header; `size` may be any number."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def blocks(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def pax(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("x", len(data), kind) + blocks(data)


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(text) + len(str(len(text)))
    length = len(text) + len(str(length))
    return str(length).encode() + text


def sparse(real: int, extended: bool) -> bytes:
    """Return a header of the old GNU type S that stands for `real` bytes."""
    raw = bytearray(header("big", 0, tarfile.GNUTYPE_SPARSE))
    raw[482] = extended
    raw[483:495] = b"\x80" + real.to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)
