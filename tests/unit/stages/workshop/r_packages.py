"""Sources of small R packages, packed as CRAN packs them."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

DESCRIPTION = """\
Package: {name}
Version: {version}
Title: A Grid
Authors@R: person("A", "Person", role = c("aut", "cre"),
        email = "a@example.org")
Description: Has the size of a grid.
License: GPL (>= 3)
NeedsCompilation: no
Author: A Person [aut, cre]
Maintainer: A Person <a@example.org>
{more}"""


def files(name: str, value: int, more: str = "", version: str = "1.0-2") -> dict[str, bytes]:
    """Return the files of a package whose function `size` returns `value`."""
    return {
        f"{name}/DESCRIPTION": DESCRIPTION.format(name=name, version=version, more=more).encode(),
        f"{name}/NAMESPACE": b"export(size)\n",
        f"{name}/R/size.R": f"size <- function() {value}\n".encode(),
    }


def pack(path: Path, content: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    """Pack files, and members of other kinds, as a tar.gz."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
        for other in others:
            archive.addfile(other)
    path.write_bytes(gzip.compress(raw.getvalue(), 1, mtime=0))
    return path
