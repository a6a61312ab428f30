"""Unpack a shipped zip, trusting nothing in it."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

from hyraxvm.command import output
from hyraxvm.errors import Failure, UserError
from hyraxvm.vmx import Vmx, read_vmx

# One folder, one plain name in it: no "..", no drive, no backslash, nothing absolute or hidden.
_MEMBER = re.compile(r"([A-Za-z0-9][\w.+~-]*)/([A-Za-z0-9][\w.+~-]*)", re.ASCII)


def unpack(artifact: Path, into: Path) -> tuple[Vmx, Path]:
    """Unpack the zip into the existing directory `into`; return its VMX and its folder.

    Raises:
        UserError: It is no zip, is damaged, has members outside one top folder, not one VMX, a
            disk that reads other files, or more than the file system can hold.
    """
    try:
        with zipfile.ZipFile(artifact) as archive:
            folder = into / _only_folder(artifact, archive)
            needed, free = (
                sum(m.file_size for m in archive.infolist()),
                shutil.disk_usage(into).free,
            )
            if needed > free:
                raise UserError(f"{artifact}: needs {needed} bytes, {into} has {free}; set TMPDIR")
            archive.extractall(into)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise UserError(f"{artifact}: no zip, or a damaged one: {error}") from None
    descriptors = list(folder.glob("*.vmx"))
    if len(descriptors) != 1:
        raise UserError(f"{artifact}: {len(descriptors)} VMX files; allowed is one")
    vmx = read_vmx(descriptors[0])
    for disk in vmx.disks:
        _check_disk(folder / disk.file)
    return vmx, folder


def virtual_size(disk: Path, kind: str) -> int:
    """The size in bytes of the disk inside an image of qemu's format `kind`."""
    info = json.loads(output(["qemu-img", "info", "--output=json", "-f", kind, str(disk)]))
    return int(info["virtual-size"])


def _only_folder(artifact: Path, archive: zipfile.ZipFile) -> str:
    folders = set()
    for member in archive.infolist():
        match = _MEMBER.fullmatch(member.filename)
        # The upper half of the attributes is the Unix mode; a symbolic link is no file.
        if not match or (member.external_attr >> 16) & 0o170000 not in (0, 0o100000):
            raise UserError(f"{artifact}: {member.filename[:80]!r}: allowed are FOLDER/FILE only")
        folders.add(match[1])
    if len(folders) != 1:
        raise UserError(f"{artifact}: {len(folders)} top folders; allowed is one")
    return folders.pop()


def _check_disk(disk: Path) -> None:
    """Refuse a VMDK that names other files: QEMU would open them, wherever they lie."""
    if not disk.is_file():
        raise UserError(f"{disk.name}: the VMX names it, but the zip does not hold it")
    with disk.open("rb") as stream:
        if stream.read(4) != b"KDMV":
            raise UserError(f"{disk.name}: not a sparse VMDK")
    try:
        text = output(["qemu-img", "info", "--output=json", "-f", "vmdk", str(disk)])
    except Failure as failure:
        raise UserError(f"{disk.name}: damaged: {str(failure).rpartition(': ')[2]}") from None
    info = json.loads(text)
    data = info["format-specific"]["data"]
    extents = {extent["filename"] for extent in data["extents"]}
    kind = data["create-type"]
    if kind != "monolithicSparse" or extents != {str(disk)} or "backing-filename" in info:
        raise UserError(f"{disk.name}: {kind}: allowed is monolithicSparse, all in one file")
