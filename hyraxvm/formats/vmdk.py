"""VMDK disks: what qemu-img leaves undone, and a look into one that nobody vouches for."""

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
    """Set a VMDK's content id from `identity` (hexadecimal); qemu-img takes a random one."""
    with disk.open("r+b") as stream:
        *_, start, length = _VMDK.unpack(stream.read(_VMDK.size))
        stream.seek(start * SECTOR)
        # A C string: behind it qemu-img may leave the end of a longer one that was there before.
        text = stream.read(length * SECTOR).partition(b"\0")[0]
        # ffffffff means "no parent", fffffffe is what VMware gives to new disks.
        cid = int(identity[:8], 16) % 0xFFFFFFFE
        text, count = _VMDK_CID.subn(b"CID=%08x" % cid, text)
        if count != 1:
            raise Failure(f"{disk.name}: {count} content ids in its descriptor, not one")
        stream.seek(start * SECTOR)
        stream.write(text.ljust(length * SECTOR, b"\0"))


def end_stream(disk: Path) -> None:
    """Append the end-of-stream marker to a streamOptimized VMDK that has none.

    The marker is a sector of zeros; qemu-img sometimes leaves it out, and ESXi then refuses.
    """
    with disk.open("r+b") as stream:
        stream.seek(-SECTOR, 2)
        if any(stream.read(SECTOR)):
            stream.write(bytes(SECTOR))


def inspect(disk: Path, subformat: str) -> None:
    """Refuse what is not a whole VMDK of the create type `subformat`, all in this one file.

    Raises:
        UserError: The reason, in one line.
    """
    magic, _, _, capacity, *_ = _VMDK.unpack(disk_images.head(disk, _VMDK.size))
    # Without a capacity the descriptor rules, and QEMU opens whatever files it names.
    if magic != b"KDMV" or not capacity:
        raise UserError(f"{disk.name}: not a sparse VMDK")
    data = disk_images.inspect(disk, "vmdk")["format-specific"]["data"]
    extents = {extent["filename"] for extent in data["extents"]}
    if data["create-type"] != subformat or extents != {str(disk.absolute())}:
        raise UserError(
            f"{disk.name}: {data['create-type']}: allowed is {subformat}, all in one file"
        )
