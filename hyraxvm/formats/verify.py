"""`./inv verify FILE...`: whether a file is whole, and what it is."""

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

    An artifact is held against its own descriptor and checksums, and against the manifest and
    `SHA256SUMS` where they lie beside it.

    Raises:
        UserError: The reason why the file is not what it should be, in one line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `./inv list` shows what is built")
    if path.name == SUMS:
        return _listed(path, sums(path))
    if path.name.endswith(MANIFEST):
        _check(path, _witnesses([path.with_name(SUMS)]))
        return _listed(path, entries(path))
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-verify-") as folder:
        # Digests first: they are quick, and what they refuse need not be unpacked.
        vouched = _check(path, _witnesses([manifest_path(path), path.with_name(SUMS)]))
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
        f"{size:g} GiB; boots as {machines}; {vouched}"
    )


def entries(manifest: Path) -> dict[str, str]:
    """File name -> SHA-256 of what a manifest lists."""
    try:
        return {
            str(entry["name"]): str(entry["sha256"])
            for entry in json.loads(_text(manifest))["files"]
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{manifest}: is no manifest, or a damaged one") from None


def sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 of a `SHA256SUMS`, as sha256sum(1) writes it."""
    found = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        match = _SUM.fullmatch(line)
        if not match or "/" in match[2]:
            raise UserError(f"{path}: line {number}: {line[:80]!r}: allowed is DIGEST  NAME")
        found[match[2]] = match[1]
    return found


def _witnesses(paths: Iterable[Path]) -> dict[Path, dict[str, str]]:
    """What the lists that are there say: list -> file name -> SHA-256."""
    return {
        path: sums(path) if path.name == SUMS else entries(path) for path in paths if path.is_file()
    }


def _check(path: Path, witnesses: dict[Path, dict[str, str]]) -> str:
    """Refuse a file that a list does not name with its digest; return who vouches for it."""
    if not witnesses:
        return f"no manifest and no {SUMS} beside it"
    found = cache.file_digest(path)
    for witness, said in witnesses.items():
        if path.name not in said:
            raise UserError(f"{path}: {witness.name} beside it does not name it")
        if said[path.name] != found:
            raise UserError(
                f"{path}: its SHA-256 is {found[:12]}..., {witness.name} says "
                f"{said[path.name][:12]}...; one of the two was altered or is incomplete"
            )
    return f"SHA-256 as in {' and '.join(witness.name for witness in witnesses)}"


def _listed(path: Path, said: dict[str, str]) -> str:
    if not said:
        raise UserError(f"{path}: names no files")
    for name in said:
        file = path.with_name(name)
        if "/" in name or not file.is_file():
            raise UserError(f"{path}: {name[:200]!r}: no such file beside it")
        if cache.file_digest(file) != said[name]:
            raise UserError(f"{path}: {name}: its SHA-256 is another one")
    return f"{path}: {len(said)} files, each with its SHA-256"


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: too long; allowed are {MAX_BYTES} bytes")
    return data.decode("utf-8", "replace")


def verify_all(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """What the good files are, and why the others are refused."""
    good, refused = [], []
    for path in paths:
        try:
            good.append(verify(path))
        except UserError as error:
            refused.append(str(error))
    return good, refused
