"""Sources of R packages, as a repository from which R's `install.packages` installs.

The layout is that of "Setting up a package repository" in *R Installation and Administration*.  The
fields of PACKAGES are those of `tools::write_PACKAGES`, with the MD5 that CRAN adds.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hyraxvm.core.archives import check_read_to_end
from hyraxvm.core.errors import Failure

CONTRIB: Final = "src/contrib"
MD5: Final = "MD5sum"
# In the order of CRAN's PACKAGES.
FIELDS: Final = (
    *("Package", "Version", "Depends", "Imports", "LinkingTo", "License", MD5, "NeedsCompilation"),
)
REQUIRED: Final = ("Package", "Version", "License")
# These name packages without which one cannot be installed.
DEPENDENCIES: Final = ("Depends", "Imports", "LinkingTo")
# R itself, and the packages that every R has.
BASE: Final = frozenset(
    (
        *("R", "base", "compiler", "datasets", "graphics", "grDevices", "grid", "methods"),
        *("parallel", "splines", "stats", "stats4", "tcltk", "tools", "utils"),
    )
)
# "The DESCRIPTION file" in *Writing R Extensions*.
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]")
VERSION: Final = re.compile(r"[0-9]+([.-][0-9]+)+")
_FIELD: Final = re.compile(r"([A-Za-z][\w/@.-]*):[ \t]*(.*)", re.ASCII)
# Limits, because the files come from elsewhere.
MAX_BYTES: Final = 16 * 1024**2  # of a tarball, unpacked
MAX_MEMBERS: Final = 1000
MAX_DESCRIPTION: Final = 64 * 1024  # bytes


def make(tarballs: Iterable[Path], target: Path) -> dict[str, str]:
    """Write the repository into the folder `target`; return package -> version.

    The same tarballs give the same bytes.

    Raises `Failure`: a tarball is damaged or is not the source of an R package, or a package needs
    one that is not here.
    """
    folder = target / CONTRIB
    folder.mkdir(parents=True)
    found: dict[str, dict[str, str]] = {}
    for tarball in tarballs:
        fields = describe(tarball)
        name = fields["Package"]
        if name in found:
            raise Failure(f"{tarball.name}: R package {name} is in two tarballs")
        found[name] = fields
        (folder / f"{name}_{fields['Version']}.tar.gz").write_bytes(tarball.read_bytes())
    for fields in found.values():
        _check_needs(fields, found.keys() | BASE)
    rows = [found[name] for name in sorted(found)]
    text = "\n".join(
        "".join(f"{key}: {row[key]}\n" for key in FIELDS if key in row) for row in rows
    )
    (folder / "PACKAGES").write_bytes(text.encode())
    with (
        (folder / "PACKAGES.gz").open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
    ):
        packed.write(text.encode())
    return {row["Package"]: row["Version"] for row in rows}


def describe(tarball: Path) -> dict[str, str]:
    """Return the fields of a package in PACKAGES, from the DESCRIPTION in its tarball.

    Raises `Failure`: the tarball is damaged or is not the source of an R package.
    """
    packed = tarball.read_bytes()
    top, text = _description(tarball, packed)
    fields = _parse(tarball, text)
    for key in REQUIRED:
        if not fields.get(key):
            raise Failure(f"{tarball.name}: DESCRIPTION has no field {key}")
    if not NAME.fullmatch(fields["Package"]) or fields["Package"] != top:
        raise Failure(
            f"{tarball.name}: DESCRIPTION: Package: {fields['Package'][:80]!r}: expected: the name "
            f"of the top folder, {top[:80]!r}"
        )
    if not VERSION.fullmatch(fields["Version"]):
        raise Failure(
            f"{tarball.name}: DESCRIPTION: Version: {fields['Version'][:80]!r}: expected: numbers "
            "with dots or hyphens between them"
        )
    # R's own sums of packages are MD5, too: it finds damage, and does not keep anybody out.
    fields[MD5] = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    return {key: fields[key] for key in FIELDS if key in fields}


def _description(tarball: Path, packed: bytes) -> tuple[str, bytes]:
    """Return the name of the one top folder, and the DESCRIPTION in it."""
    try:
        # Unpacked as a whole, and no further than the limit: tar's headers can ask for memory, too.
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Failure(f"{tarball.name}: unpacked it has more than {MAX_BYTES} bytes")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = []
            for member in archive:
                _check_member(tarball, member)
                members.append(member)
                if len(members) > MAX_MEMBERS:
                    raise Failure(f"{tarball.name}: more than {MAX_MEMBERS} members")
            check_read_to_end(archive)
            tops = {member.name.partition("/")[0] for member in members}
            if len(tops) != 1:
                raise Failure(f"{tarball.name}: {len(tops)} top folders; expected: one")
            (top,) = tops
            named = [member for member in members if member.name == f"{top}/DESCRIPTION"]
            if len(named) != 1 or not named[0].isreg() or named[0].size > MAX_DESCRIPTION:
                raise Failure(
                    f"{tarball.name}: expected: one file {top[:80]}/DESCRIPTION of at most "
                    f"{MAX_DESCRIPTION} bytes"
                )
            source = archive.extractfile(named[0])
            assert source is not None
            return top, source.read()
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
        raise Failure(f"{tarball.name}: not a tar.gz, or a damaged one: {error}") from None


def _check_member(tarball: Path, member: tarfile.TarInfo) -> None:
    if not (member.isreg() or member.isdir()):
        raise Failure(f"{tarball.name}: {member.name[:80]!r}: expected: files and folders")
    if {"", ".", ".."} & set(member.name.split("/")):
        raise Failure(f"{tarball.name}: {member.name[:80]!r}: expected: a path below one folder")


def _parse(tarball: Path, text: bytes) -> dict[str, str]:
    """Return the fields of a DESCRIPTION, each on one line; see `read.dcf` in R's manual.

    A field goes on in lines that begin with a space or a tab.
    """
    fields: dict[str, str] = {}
    last = ""
    for line in text.decode("utf-8", "replace").splitlines():
        found = _FIELD.fullmatch(line)
        if found:
            last = found[1]
            if last in fields:
                raise Failure(f"{tarball.name}: DESCRIPTION has the field {last[:80]} twice")
            fields[last] = found[2].strip()
        elif last and line[:1] in (" ", "\t"):
            fields[last] = f"{fields[last]} {line.strip()}".strip()
        elif line.strip():
            raise Failure(f"{tarball.name}: DESCRIPTION: {line[:80]!r}: expected: FIELD: VALUE")
    return fields


def _check_needs(fields: dict[str, str], there: set[str]) -> None:
    for key in DEPENDENCIES:
        for each in filter(None, re.split(r"[,\s]*,\s*", fields.get(key, ""))):
            name = each.partition("(")[0].strip()
            if name not in there:
                raise Failure(
                    f"R package {fields['Package']} needs {name[:80]!r}, which is not here; add "
                    "its source package to addition.*.clients.r.packages in images.toml"
                )
