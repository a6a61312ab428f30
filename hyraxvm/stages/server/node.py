"""A file, directory or link of a container image, and how it is written into a tar."""

from __future__ import annotations

import copy
import io
import math
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

NEWEST: Final = 2**32 - 1  # seconds since 1970; squashfs stores no later time
ATTRIBUTE: Final = "SCHILY.xattr."
# By squashfs.
KEPT: Final = tuple(f"{ATTRIBUTE}{space}." for space in ("user", "trusted", "security"))
Span = tuple[int, int]  # offset and length in a file, in bytes


@dataclass(eq=False)
class Node:
    """A file, directory or link; hard links to one file are one node under several paths."""

    info: tarfile.TarInfo
    source: tarfile.TarFile | None = None
    content: bytes | None = None
    blank: tuple[Span, ...] = ()  # these read as zeros

    def open(self) -> IO[bytes]:
        """Open a regular file for reading."""
        stream: IO[bytes] | None = None
        if self.content is not None:
            stream = io.BytesIO(self.content)
        elif self.source:
            stream = self.source.extractfile(self.info)
        assert stream is not None
        return io.BufferedReader(_Blanked(stream, self.blank)) if self.blank else stream


class _Blanked(io.RawIOBase):
    """A stream in which some spans read as zeros."""

    def __init__(self, stream: IO[bytes], spans: tuple[Span, ...]) -> None:
        super().__init__()
        self._stream, self._spans = stream, spans

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        at = self._stream.tell()
        piece = bytearray(self._stream.read(len(buffer)))
        for start, length in self._spans:
            begin, end = max(start - at, 0), min(start + length - at, len(piece))
            if begin < end:
                piece[begin:end] = bytes(end - begin)
        buffer[: len(piece)] = piece
        return len(piece)


def write_tar(nodes: Mapping[str, Node], sink: IO[bytes]) -> None:
    """Write a tree, path -> node, as a POSIX.1-2001 tar; the same tree gives the same bytes."""
    first: dict[int, str] = {}  # id of a node -> the path under which it was written
    # Sorted by parts, not by characters: a directory comes before its content.
    with tarfile.open(
        fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as tar:
        for path, node in sorted(nodes.items(), key=lambda item: item[0].split("/")):
            info = _entry(path, node.info)
            if node.info.isdir():
                tar.addfile(info)
            elif id(node) in first:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first[id(node)], 0
                info.pax_headers = {}
                tar.addfile(info)
            elif node.info.isreg():
                first[id(node)] = path
                info.type = tarfile.REGTYPE
                with node.open() as stream:
                    tar.addfile(info, stream)
            else:
                first[id(node)] = path
                tar.addfile(info)


def _entry(path: str, info: tarfile.TarInfo) -> tarfile.TarInfo:
    entry = copy.copy(info)
    entry.name = path
    entry.uname = entry.gname = ""
    entry.mode = stat.S_IMODE(info.mode)
    # A PAX header may hold `inf` or `nan`.
    entry.mtime = 0 if math.isnan(info.mtime) else int(min(max(info.mtime, 0), NEWEST))
    entry.pax_headers = {
        name: value for name, value in info.pax_headers.items() if name.startswith(KEPT)
    }
    return entry
