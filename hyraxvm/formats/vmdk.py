"""VMDK disks: what qemu-img leaves undone, and a check of one that nobody vouches for."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.formats import disk_images

SECTOR: Final = 512

_VMDK: Final = struct.Struct("<4sIIQQQQ")  # magic .. descriptor size (VMware Virtual Disks 5.0)
_VMDK_CID: Final = re.compile(rb"^CID=[0-9a-f]{1,8}$", re.MULTILINE)


def identify(disk: Path, identity: str) -> None:
    """Set a VMDK's content id from `identity` (hexadecimal), because qemu-img's id is random.

    Raises `Failure`: the descriptor in the VMDK does not have exactly one content id.
    """
    with disk.open("r+b") as stream:
        *_, start, length = _VMDK.unpack(stream.read(_VMDK.size))
        stream.seek(start * SECTOR)
        # A C string: after it qemu-img may leave the end of a longer one.
        text = stream.read(length * SECTOR).partition(b"\0")[0]
        # ffffffff means "no parent"; VMware gives fffffffe to new disks.
        cid = int(identity[:8], 16) % 0xFFFFFFFE
        text, count = _VMDK_CID.subn(b"CID=%08x" % cid, text)
        if count != 1:
            raise Failure(f"{disk.name}: {count} content ids in its descriptor, not one")
        stream.seek(start * SECTOR)
        stream.write(text.ljust(length * SECTOR, b"\0"))


def end_stream(disk: Path) -> None:
    """Append the end-of-stream marker to a streamOptimized VMDK that has none.

    The marker is a sector of zeros.  qemu-img sometimes leaves it out; ESXi then refuses the disk.
    """
    with disk.open("r+b") as stream:
        stream.seek(-SECTOR, 2)
        if any(stream.read(SECTOR)):
            stream.write(bytes(SECTOR))


def inspect(disk: Path, subformat: str) -> None:
    """Refuse a file that is not a whole VMDK of the create type `subformat`, all in this file.

    Raises:
        UserError: The reason, in one line.
    """
    magic, _, _, capacity, *_ = _VMDK.unpack(disk_images.head(disk, _VMDK.size))
    # Without a capacity in the header QEMU opens whatever files the descriptor names.
    if magic != b"KDMV" or not capacity:
        raise UserError(f"{disk.name}: not a sparse VMDK")
    data = disk_images.inspect(disk, "vmdk")["format-specific"]["data"]
    extents = {extent["filename"] for extent in data["extents"]}
    if data["create-type"] != subformat or extents != {str(disk.absolute())}:
        raise UserError(
            f"{disk.name}: {data['create-type']}: expected: {subformat}, all in one file"
        )
