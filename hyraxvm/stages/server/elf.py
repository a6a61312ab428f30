"""Programs and libraries without the sections that only a debugger reads.

The sections are blanked, not cut out: no offset changes, so nothing can break, and squashfs stores
blocks of zeros as holes.  The format is elf(5), 64 bits, little-endian.
"""

from __future__ import annotations

import struct
from typing import IO

from hyraxvm.stages.server.image_tree import Tree
from hyraxvm.stages.server.node import Span

MAGIC = b"\x7fELF\x02\x01"
DEBUGGING = (b".debug_", b".zdebug_")
LOADED = 2  # SHF_ALLOC: a process has it in its memory
NOBITS = 8  # SHT_NOBITS: it has no bytes in the file
MOST_NAMES = 2**24  # bytes of the sections' names
SMALLEST = 4096  # bytes of a section; blanking a smaller one would save nothing


def blank_debugging(tree: Tree) -> tuple[int, int]:
    """Blank the debugging sections of all ELF files; return (files, bytes blanked)."""
    files = size = 0
    for node in tree.distinct():
        if not node.info.isreg() or node.info.size < SMALLEST:
            continue
        with node.open() as stream:
            spans = debugging(stream, node.info.size)
        if spans:
            node.blank = spans
            files += 1
            size += sum(length for _, length in spans)
    return files, size


def debugging(stream: IO[bytes], size: int) -> tuple[Span, ...]:
    """Return the (offset, length) of each debugging section; empty if this is not a valid ELF file.

    `size` is the size of the file in bytes.
    """
    head = stream.read(64)
    if len(head) < 64 or not head.startswith(MAGIC):
        return ()
    (table,) = struct.unpack_from("<Q", head, 40)
    width, count, names = struct.unpack_from("<HHH", head, 58)
    if width != 64 or names >= count or table + 64 * count > size:
        return ()
    stream.seek(table)
    # Each is (name, type, flags, address, offset, size).
    sections = [struct.unpack_from("<IIQQQQ", stream.read(64)) for _ in range(count)]
    start, length = sections[names][4:6]
    if start + length > size or length > MOST_NAMES:
        return ()
    stream.seek(start)
    text = stream.read(length)
    return tuple(
        (offset, length)
        for name, kind, flags, _, offset, length in sections
        if text[name : name + 8].startswith(DEBUGGING)
        and kind != NOBITS
        and not flags & LOADED
        and length >= SMALLEST
        and offset + length <= size
    )
