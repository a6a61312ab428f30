"""Zip and tar archives: written the same for the same input, unpacked without trust."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from calendar import timegm
from pathlib import Path
from typing import IO, Final

from hyraxvm.core.cancel import check_cancelled
from hyraxvm.core.errors import UserError

CHUNK: Final = 4 * 1024 * 1024
MAX_MEMBERS: Final = 32
_NAME: Final = r"[A-Za-z0-9][\w.+~-]{0,199}"
# One plain name: no "..", no drive, no backslash, nothing absolute or hidden.
_FLAT: Final = re.compile(_NAME, re.ASCII)
# A file in a top folder, or at most two folders deeper.
_MEMBER: Final = re.compile(rf"({_NAME}/){{1,3}}{_NAME}", re.ASCII)


def seconds(date: str) -> int:
    """Return the seconds from 1970 to a date such as 2026-01-02T03:04:06Z."""
    return timegm(time.strptime(date, "%Y-%m-%dT%H:%M:%SZ"))


def pack_zip(
    target: Path, folder: str, members: list[Path], date: str, below: Path | None = None
) -> None:
    """Pack files under one top folder, compressed with Deflate, and dated `date`.

    With `below` their paths in the zip are those below this folder, without it their plain names.
    The Explorer of Windows opens no newer compression.  Holes in the files are stored as zeros, so
    that unpacked files are dense: Hyper-V needs a dense VHDX.
    """
    stamp = time.gmtime(seconds(date))[:6]
    with zipfile.ZipFile(target, "w") as archive:
        for member in members:
            name = member.relative_to(below) if below else member.name
            info = zipfile.ZipInfo(f"{folder}/{name}", stamp)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            info.file_size = member.stat().st_size  # decides whether ZIP64 is needed
            with member.open("rb") as source, archive.open(info, "w") as sink:
                # No other loop in Python takes as long: some 15 s.
                while chunk := source.read(CHUNK):
                    check_cancelled()
                    sink.write(chunk)
    sync(target)


def pack_tar(target: Path, members: list[Path], date: str) -> None:
    """Pack files under their flat names, dated `date`, as USTAR: OVA readers know nothing newer."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size, info.mode, info.mtime = member.stat().st_size, 0o644, seconds(date)
            with member.open("rb") as source:
                archive.addfile(info, source)
    sync(target)


def sync(path: Path) -> None:
    """Write a file's content to the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def unpack_zip(artifact: Path, into: Path) -> Path:
    """Unpack a zip with one top folder into the existing directory `into`; return the folder.

    Raises:
        UserError: It is not a zip, is damaged, has members outside one top folder, has a name
            twice, or needs more space than there is.
    """
    try:
        with zipfile.ZipFile(artifact) as archive:
            members = archive.infolist()
            folder = into / _only_folder(artifact, members)
            _check_room(artifact, sum(member.file_size for member in members), into)
            archive.extractall(into)  # noqa: S202 - a zip, and its names are checked
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise UserError(f"{artifact}: not a zip, or a damaged one: {error}") from None
    return folder


def unpack_tar(artifact: Path, into: Path) -> list[Path]:
    """Unpack a USTAR archive of plain files into the directory `into`; return them in order.

    Raises:
        UserError: It is not a tar, is damaged, is not plain USTAR, has members other than files
            with flat names, has a name twice, or needs more space than there is.
    """
    try:
        with artifact.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            members = archive.getmembers()
            _check_names(artifact, [member.name for member in members], _FLAT, "flat names")
            for member in members:
                stream.seek(member.offset)
                _check_header(artifact, member, stream.read(tarfile.BLOCKSIZE))
            _check_room(artifact, sum(member.size for member in members), into)
            _check_end(artifact, members[-1], stream)
            paths = []
            for member in members:
                paths.append(into / member.name)
                source = archive.extractfile(member)
                assert source is not None
                with source, paths[-1].open("xb") as sink:
                    shutil.copyfileobj(source, sink, CHUNK)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{artifact}: not a tar, or a damaged one: {error}") from None
    return paths


def check_read_to_end(archive: tarfile.TarFile) -> None:
    """Raise `tarfile.ReadError` if members follow those that were read.

    A header that cannot be read is the end for `TarFile.next`, unless it is the first.
    """
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"the header at byte {archive.offset} is damaged")


def _check_header(artifact: Path, member: tarfile.TarInfo, block: bytes) -> None:
    # The type of a file is "0" or NUL; that of PAX and GNU extensions is "x", "g", "L" or "S".
    if block[257:265] != b"ustar\x0000" or block[156:157] not in (b"0", b"\0"):
        raise UserError(f"{artifact}: {member.name}: expected: plain files, as USTAR stores them")


def _check_end(artifact: Path, last: tarfile.TarInfo, stream: IO[bytes]) -> None:
    # Python's reader does not check the two blocks of zeros that end an archive.
    stream.seek(last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    end = stream.read(2 * tarfile.BLOCKSIZE)
    if end != bytes(2 * tarfile.BLOCKSIZE):
        raise UserError(f"{artifact}: damaged: the tar's end is missing; it was cut off")


def _only_folder(artifact: Path, members: list[zipfile.ZipInfo]) -> str:
    _check_names(artifact, [member.filename for member in members], _MEMBER, "FOLDER/FILE")
    for member in members:
        # The upper half of the attributes is the Unix mode; a symbolic link is not a file.
        if (member.external_attr >> 16) & 0o170000 not in (0, 0o100000):
            raise UserError(f"{artifact}: {member.filename!r}: expected: plain files")
    folders = {member.filename.partition("/")[0] for member in members}
    if len(folders) != 1:
        raise UserError(f"{artifact}: {len(folders)} top folders; expected: one")
    return folders.pop()


def _check_names(artifact: Path, names: list[str], form: re.Pattern[str], words: str) -> None:
    """Refuse too many or equal names, and names of another form; `words` describe the form."""
    if not 1 <= len(names) <= MAX_MEMBERS:
        raise UserError(f"{artifact}: {len(names)} members; expected: 1 to {MAX_MEMBERS}")
    for name in names:
        if not form.fullmatch(name):
            raise UserError(f"{artifact}: {name[:80]!r}: expected: {words}")
    # Windows and macOS ignore case.
    if len({name.lower() for name in names}) != len(names):
        raise UserError(f"{artifact}: a name occurs twice")


def _check_room(artifact: Path, needed: int, into: Path) -> None:
    free = shutil.disk_usage(into).free
    if needed > free:
        raise UserError(
            f"{artifact}: needs {needed} bytes, {into} has {free}; set TMPDIR to a larger folder"
        )
