"""Reading the tar of one layer: what would cost too much memory or time is refused first.

A layer of a few kilobytes can unpack to headers, entries or sizes without end.  `Budget` is what
all layers of an image may cost together.
"""

from __future__ import annotations

import re
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from hyraxvm.core.archives import check_read_to_end
from hyraxvm.core.errors import Failure

HEADER: Final = 2**20  # bytes of an extended header: Go's archive/tar takes no more either
DIGITS: Final = 1000  # in a row in one: tarfile's patterns take the square of their number as time
FIELDS: Final = 1000  # attributes of one entry, global ones included
PATH: Final = 4095  # bytes of a path and of a link's target, as in Linux
NAME: Final = 255  # bytes of a file's name, as in Linux
EXTENDED: Final = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
IDS: Final = range(2**32)
KINDS: Final = frozenset(
    (
        *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
        *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
    )
)


@dataclass
class Budget:
    """What the layers of an image may cost in all, and what those that were read have cost."""

    entries: int = 500_000  # Hyrax's image has some 40,000
    headers: int = 2**28  # bytes of names, attributes and extended headers
    content: int = 20 * 10**9  # bytes of all files
    seconds: float = 600.0  # to merge the layers
    _spent: list[int] = field(init=False, default_factory=lambda: [0, 0, 0])
    _end: float = field(init=False, default=0.0)

    def check_time(self, what: str) -> None:
        """Start the clock, or raise `Failure`, which names `what`, when the time is over."""
        self._end = self._end or time.monotonic() + self.seconds
        if time.monotonic() > self._end:
            raise Failure(f"{what}: is not read after {self.seconds:g} s; refused")

    def take(self, what: str, entries: int, headers: int, content: int) -> None:
        """Count what `what` costs; raise `Failure` if the image has more than its budget."""
        spent = self._spent
        spent[0] += entries
        spent[1] += headers
        spent[2] += content
        for cost, allowed, most in (
            (spent[0], self.entries, f"{self.entries} entries"),
            (spent[1], self.headers, f"{self.headers / 1e6:.0f} MB of names and attributes"),
            (spent[2], self.content, f"{self.content / 1e9:g} GB of files"),
        ):
            if cost > allowed:
                raise Failure(f"{what}: the image has more than {most}; refused")


def read_layer(layer: Path, budget: Budget) -> tuple[tarfile.TarFile, list[tarfile.TarInfo]]:
    """Return an open tar and its entries.

    Raises `Failure`: it is not a tar, has an entry that no file system could have, or costs more
    than the budget.
    """
    try:
        source = _Layer(layer, budget)  # it stays open: the files are read from it
        length = layer.stat().st_size
        entries = [_sound(info, layer.name, length, budget) for info in source]
        check_read_to_end(source)
        return source, entries
    except (
        *(tarfile.TarError, EOFError, OSError),
        *(ValueError, OverflowError, LookupError, RecursionError),
    ) as error:
        said = " ".join(str(error).split())[:200]
        raise Failure(f"{layer.name}: is not a readable tar ({said})") from error


class _Header(tarfile.TarInfo):
    """An entry's header; tarfile's own class reads any number of further headers of any size."""

    def _proc_member(self, tar: _Layer) -> tarfile.TarInfo:
        """Process the header by its type: this is tarfile's documented place for subclasses."""
        tar.budget.check_time(tar.title)
        if self.type in EXTENDED:
            if not 0 <= self.size <= HEADER:
                raise Failure(f"{tar.title}: has a header of {self.size} bytes; refused")
            tar.budget.take(tar.title, 0, self.size, 0)
            stream = tar.fileobj
            assert stream is not None
            begin = stream.tell()
            digits = re.findall(rb"\d+", stream.read(self.size))
            stream.seek(begin)
            if any(len(one) > DIGITS for one in digits):
                raise Failure(
                    f"{tar.title}: has a header with a number of over {DIGITS} digits; refused"
                )
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found

    def _proc_sparse(self, *more: object) -> NoReturn:
        """Refuse a sparse file, of which one block can stand for any number of bytes."""
        raise Failure(f"the entry {self.name[:200]!r} is a sparse file; refused")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_sparse


class _Layer(tarfile.TarFile):
    tarinfo = _Header

    def __init__(self, path: Path, budget: Budget) -> None:
        self.title, self.budget = path.name, budget  # first: tarfile reads the first entry at once
        super().__init__(path, errors="surrogateescape")


def _sound(info: tarfile.TarInfo, layer: str, length: int, budget: Budget) -> tarfile.TarInfo:
    """Return an entry of a layer of `length` bytes; raise `Failure` if it is not one of a file.

    With a negative size tarfile would seek back and loop for ever, so this is called while it
    iterates.
    """
    if fault := _fault(info, length):
        raise Failure(f"{layer}: the entry {info.name[:200]!r} {fault}; refused")
    if not info.isreg():
        info.size = 0
    headers = len(info.name) + len(info.linkname)
    if info.pax_headers:
        headers += sum(len(key) + len(value) for key, value in info.pax_headers.items())
    budget.take(layer, 1, headers, info.size)
    return info


def _fault(info: tarfile.TarInfo, length: int) -> str:
    """Return what is wrong with an entry, or "" if nothing is."""
    if info.size < 0:
        return "has a negative size"
    if len(info.pax_headers) > FIELDS:
        return f"has {len(info.pax_headers)} attributes"
    if any(key.startswith("GNU.sparse.") for key in info.pax_headers):
        return "is a sparse file"
    if info.type not in KINDS:
        return f"has the type {info.type!r}, which is not a file's"
    if info.isreg() and info.offset_data + info.size > length:
        return "is longer than the layer"
    if info.uid not in IDS or info.gid not in IDS:
        return f"has the owner {info.uid}:{info.gid}"
    name = info.name.encode("utf-8", "surrogateescape")
    target = info.linkname.encode("utf-8", "surrogateescape")
    if max(len(name), len(target)) > PATH:
        return f"has a path of more than {PATH} bytes"
    if b"\0" in name or b"\0" in target:
        return "has a path with a NUL"
    if len(name) > NAME and max(map(len, name.split(b"/"))) > NAME:
        return f"has a name of more than {NAME} bytes"
    return ""
