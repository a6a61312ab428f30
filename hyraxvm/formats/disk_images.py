"""Disk images of all kinds: made from the master, compared with it, checked without trust."""

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
    """Convert the master (qcow2) to `target`, an image of qemu's format `kind`.

    `options` are those of `qemu-img convert -o`.  Raises `Failure`: qemu-img failed.
    """
    argv = ["qemu-img", "convert", *(["-c"] if compress else []), "-f", "qcow2", "-O", kind]
    run([*argv, "-o", options, str(master), str(target)], log=log, deadline=DEADLINE)


def compare(master: Path, disk: Path, kind: str, log: Path) -> None:
    """Raise `Failure` unless the disk has the same size and bytes as the master (qcow2)."""
    # Without --strict a longer disk passes if the rest is zero.
    if size(master, "qcow2") != size(disk, kind):
        raise Failure(f"{disk.name}: has another size than the master; log: {log}")
    argv = ["qemu-img", "compare", "-f", "qcow2", "-F", kind, str(master), str(disk)]
    run(argv, log=log, deadline=DEADLINE)


def size(disk: Path, kind: str) -> int:
    """Return the size in bytes of the disk in an image of qemu's format `kind`."""
    return int(_info(disk, kind)["virtual-size"])


def inspect(disk: Path, kind: str) -> dict[str, Any]:
    """Refuse a file that is not a whole image of qemu's format `kind`.

    Return what `qemu-img info` reports.

    The caller must have checked the header: QEMU opens whatever files some headers name.  Content
    that was altered in place may pass: checksums are the task of the format around the image.

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
        raise UserError(
            f"{disk.name}: depends on another file; expected: a disk that is complete in one file"
        )
    return info


def _info(disk: Path, kind: str) -> dict[str, Any]:
    # An absolute path: in a relative one QEMU would take what is before a colon for a protocol.
    argv = ["qemu-img", "info", "--output=json", "-f", kind, str(disk.absolute())]
    found: dict[str, Any] = json.loads(output(argv))
    return found


def head(disk: Path, length: int) -> bytes:
    """Return the first `length` bytes of a file; zeros replace what a shorter file lacks."""
    with disk.open("rb") as stream:
        return stream.read(length).ljust(length, b"\0")
