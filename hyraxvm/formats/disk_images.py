"""Disk images: made from the master, compared with it, and inspected without trust."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any, Final

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import output, run

DEADLINE: Final = 900.0  # seconds
MIB: Final = 1024 * 1024
SECTOR: Final = 512

# What may follow the magic: nothing that makes QEMU open another file.
_QCOW2: Final = struct.Struct(">4sIQIIQI")  # magic .. crypt_method (QEMU's docs/interop/qcow2.txt)
_QCOW2_FEATURES: Final = 72  # offset of incompatible_features
_QCOW2_COMPRESSION: Final = 1 << 3  # the only incompatible feature that an image may use
_VMDK: Final = struct.Struct("<4sIIQQQQ")  # magic .. descriptor size (VMware Virtual Disks 5.0)
_VMDK_CID: Final = re.compile(rb"^CID=[0-9a-f]{1,8}$", re.MULTILINE)


def convert(
    master: Path, target: Path, kind: str, options: str, log: Path, compress: bool = False
) -> None:
    """Write the master (qcow2) to `target` in qemu's format `kind`; raises `Failure`."""
    argv = ["qemu-img", "convert", *(["-c"] if compress else []), "-f", "qcow2", "-O", kind]
    run([*argv, "-o", options, str(master), str(target)], log=log, deadline=DEADLINE)


def compare(master: Path, disk: Path, kind: str, log: Path) -> None:
    """Raise `Failure` unless both disks have the same size and the same bytes."""
    # Without --strict a longer disk passes if the rest is zero.
    if size(master, "qcow2") != size(disk, kind):
        raise Failure(f"{disk.name}: has another size than the master; log: {log}")
    argv = ["qemu-img", "compare", "-f", "qcow2", "-F", kind, str(master), str(disk)]
    run(argv, log=log, deadline=DEADLINE)


def size(disk: Path, kind: str) -> int:
    """The size in bytes of the disk inside an image of qemu's format `kind`."""
    return int(_info(disk, kind)["virtual-size"])


def identify_vmdk(disk: Path, identity: str) -> None:
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


def inspect(disk: Path, kind: str, subformat: str | None = None) -> None:
    """Refuse what is not a whole image of `kind` that is all in this one file.

    `subformat` is the VMDK's create type.  A content that was altered in place may pass: checksums
    are the business of what carries the image.

    Raises:
        UserError: The reason, in one line.
    """
    {"vmdk": _vmdk_header, "qcow2": _qcow2_header, "vhdx": _vhdx_header}[kind](disk)
    try:
        info = _info(disk, kind)
        argv = ["qemu-img", "check", "-q", "-f", kind, str(disk.absolute())]
        output(argv, deadline=DEADLINE)
    except Failure as failure:
        said = str(failure).splitlines()[-1].rpartition(": ")[2]
        raise UserError(f"{disk.name}: damaged: {said or 'qemu-img check fails'}") from None
    if "backing-filename" in info:
        raise UserError(f"{disk.name}: is based on another file; allowed is a disk of its own")
    if kind == "vmdk":
        data = info["format-specific"]["data"]
        extents = {extent["filename"] for extent in data["extents"]}
        if data["create-type"] != subformat or extents != {str(disk.absolute())}:
            raise UserError(
                f"{disk.name}: {data['create-type']}: allowed is {subformat}, all in one file"
            )


def _info(disk: Path, kind: str) -> dict[str, Any]:
    # An absolute path: before a colon in a relative one QEMU would see a protocol.
    argv = ["qemu-img", "info", "--output=json", "-f", kind, str(disk.absolute())]
    found: dict[str, Any] = json.loads(output(argv))
    return found


def _head(disk: Path, length: int) -> bytes:
    with disk.open("rb") as stream:
        return stream.read(length).ljust(length, b"\0")


def _vmdk_header(disk: Path) -> None:
    magic, _, _, capacity, *_ = _VMDK.unpack(_head(disk, _VMDK.size))
    # Without a capacity the descriptor rules, and QEMU opens whatever files it names.
    if magic != b"KDMV" or not capacity:
        raise UserError(f"{disk.name}: not a sparse VMDK")


def _qcow2_header(disk: Path) -> None:
    head = _head(disk, _QCOW2_FEATURES + 8)
    magic, version, backing, _, bits, _, encryption = _QCOW2.unpack_from(head)
    if magic != b"QFI\xfb" or version not in (2, 3):
        raise UserError(f"{disk.name}: not a qcow2 disk")
    (features,) = struct.unpack_from(">Q", head, _QCOW2_FEATURES) if version == 3 else (0,)
    if backing or encryption or features & ~_QCOW2_COMPRESSION:
        raise UserError(
            f"{disk.name}: allowed is a qcow2 disk without backing file, data file and encryption"
        )
    # qemu-img fills a compressed disk's last cluster up; `qemu-img check` does not miss its end.
    if disk.stat().st_size % (1 << min(bits, 21)):
        raise UserError(f"{disk.name}: damaged: its size is not a multiple of its cluster size")


def _vhdx_header(disk: Path) -> None:
    if _head(disk, 8) != b"vhdxfile":
        raise UserError(f"{disk.name}: not a VHDX disk")
    # MS-VHDX: every structure lies at, and the file ends at, a multiple of 1 MiB.
    if disk.stat().st_size % MIB:
        raise UserError(f"{disk.name}: damaged: its size is not a multiple of 1 MiB")
