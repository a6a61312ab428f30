"""Disk images of all kinds: made from the master, compared with it, inspected without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import output, run

DEADLINE: Final = 900.0  # seconds
MIB: Final = 1024 * 1024


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


def inspect(disk: Path, kind: str) -> dict[str, Any]:
    """Refuse what is not a whole image of qemu's format `kind`; return what `qemu-img info` says.

    The caller has looked at the header: QEMU opens whatever files some headers name.  A content
    that was altered in place may pass: checksums are the business of what carries the image.

    Raises:
        UserError: The reason, in one line.
    """
    try:
        info = _info(disk, kind)
        argv = ["qemu-img", "check", "-q", "-f", kind, str(disk.absolute())]
        output(argv, deadline=DEADLINE)
    except Failure as failure:
        said = str(failure).splitlines()[-1].rpartition(": ")[2]
        raise UserError(f"{disk.name}: damaged: {said or 'qemu-img check fails'}") from None
    if "backing-filename" in info:
        raise UserError(f"{disk.name}: is based on another file; allowed is a disk of its own")
    return info


def _info(disk: Path, kind: str) -> dict[str, Any]:
    # An absolute path: before a colon in a relative one QEMU would see a protocol.
    argv = ["qemu-img", "info", "--output=json", "-f", kind, str(disk.absolute())]
    found: dict[str, Any] = json.loads(output(argv))
    return found


def head(disk: Path, length: int) -> bytes:
    """Return the first `length` bytes, filled up with zeros."""
    with disk.open("rb") as stream:
        return stream.read(length).ljust(length, b"\0")
