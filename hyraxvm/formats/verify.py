"""`./inv verify FILE...`: check that a file is whole, and say what it is."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hyraxvm.config.names import MANIFEST, SUMS
from hyraxvm.core import cache
from hyraxvm.core.errors import UserError
from hyraxvm.formats import disk_images
from hyraxvm.formats.opening import manifest_path, open_artifact

MAX_BYTES: Final = 16 * 1024 * 1024  # of a manifest or a list of checksums
_SUM: Final = re.compile(r"([0-9a-f]{64}) [ *](.+)", re.ASCII)


def verify(path: Path) -> str:
    """Check an artifact, a manifest or a list of checksums; return what it is, in one line.

    An artifact is checked against its own descriptor and checksums, and against the manifest and
    `SHA256SUMS` if they are beside it.

    Raises:
        UserError: The reason why the file is not what it should be, in one line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `./inv list` shows what is built")
    if path.name == SUMS:
        return _check_listed(path, sums(path))
    if path.name.endswith(MANIFEST):
        _check(path, _read_lists([path.with_name(SUMS)]))
        return _check_listed(path, entries(path))
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-verify-") as folder:
        # Digests first: they are quick, and what they refuse need not be unpacked.
        checked = _check(path, _read_lists([manifest_path(path), path.with_name(SUMS)]))
        opened = open_artifact(path, Path(folder))
        spec = opened.spec
        drive = spec.drives[0]
        size = disk_images.size(drive.path, drive.format) / 2**30
    machines = " or ".join(
        f"{name} ({spec.firmware.upper()}, {spec.drives[0].controller}, {', '.join(spec.nics)})"
        for name, spec in opened.specs.items()
    )
    return (
        f"{path}: {opened.format.title}; {spec.cpus} CPUs, {spec.memory_mib} MiB, disk of "
        f"{size:g} GiB; boots as {machines}; {checked}"
    )


def entries(manifest: Path) -> dict[str, str]:
    """Return file name -> SHA-256 of the files that a manifest lists.

    Raises `UserError`: it is not a manifest.
    """
    try:
        return {
            str(entry["name"]): str(entry["sha256"])
            for entry in json.loads(_text(manifest))["files"]
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{manifest}: is not a manifest, or a damaged one") from None


def sums(path: Path) -> dict[str, str]:
    """Return file name -> SHA-256 of the files in a `SHA256SUMS`, as sha256sum(1) writes it.

    Raises `UserError`: a line has another form.
    """
    found = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        match = _SUM.fullmatch(line)
        if not match or "/" in match[2]:
            raise UserError(f"{path}: line {number}: {line[:80]!r}: expected: DIGEST  NAME")
        found[match[2]] = match[1]
    return found


def _read_lists(paths: Iterable[Path]) -> dict[Path, dict[str, str]]:
    """Return list -> file name -> SHA-256, for the lists that exist."""
    return {
        path: sums(path) if path.name == SUMS else entries(path) for path in paths if path.is_file()
    }


def _check(path: Path, lists: dict[Path, dict[str, str]]) -> str:
    """Refuse a file if a list lacks it or has another digest; return which lists were checked."""
    if not lists:
        return f"no manifest and no {SUMS} beside it"
    found = cache.file_digest(path)
    for source, listed in lists.items():
        if path.name not in listed:
            raise UserError(f"{path}: {source.name} beside it does not name it")
        if listed[path.name] != found:
            raise UserError(
                f"{path}: its SHA-256 is {found[:12]}..., {source.name} says "
                f"{listed[path.name][:12]}...; one of the two was altered or is incomplete"
            )
    return f"SHA-256 as in {' and '.join(source.name for source in lists)}"


def _check_listed(path: Path, listed: dict[str, str]) -> str:
    """Refuse a list if a file in it is missing or has another digest; return a summary."""
    if not listed:
        raise UserError(f"{path}: lists no files")
    for name, digest in listed.items():
        file = path.with_name(name)
        if "/" in name or not file.is_file():
            raise UserError(f"{path}: {name[:200]!r}: no such file beside it")
        if cache.file_digest(file) != digest:
            raise UserError(f"{path}: {name}: its SHA-256 is not the listed one")
    return f"{path}: {len(listed)} files, each with its SHA-256"


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: too long; expected: at most {MAX_BYTES} bytes")
    return data.decode("utf-8", "replace")


def verify_all(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Verify files; return what the good ones are, and why the others are refused."""
    good, refused = [], []
    for path in paths:
        try:
            good.append(verify(path))
        except UserError as error:
            refused.append(str(error))
    return good, refused
