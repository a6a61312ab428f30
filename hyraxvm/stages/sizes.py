"""What makes an image large: its largest packages and directories."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hyraxvm.core.columns import align
from hyraxvm.core.process import dying_with_parent, output
from hyraxvm.stages.rootfs.stage import DPKG_STATUS

MOST = 10  # lines of each list
DEPTH = 3  # components of a directory's path


def largest(rootfs: Path, squashfs: Path) -> str:
    """Return a table of the ten largest packages and directories of an image, unpacked.

    `rootfs` is the tar of the root file system, `squashfs` the packed server.
    """
    status = output(["tar", "--extract", "--to-stdout", "--file", str(rootfs), DPKG_STATUS])
    with tarfile.open(rootfs) as tar:
        found = directories(tar)
    found["/usr/lib/hyrax"] += squashfs.stat().st_size
    return _table({"largest packages": packages(status), "largest directories": found})


def largest_of_server(squashfs: Path) -> str:
    """Return a table of the ten largest directories of a packed server, unpacked."""
    argv = dying_with_parent(["sqfs2tar", str(squashfs)])
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        return _table({"largest directories": directories(tar)})


def _table(found: Mapping[str, Counter[str]]) -> str:
    lines: list[list[str]] = []
    for title, sizes in found.items():
        lines.append([title, ""])
        lines += [[f"  {name}", f"{size / 1e6:7.1f} MB"] for name, size in sizes.most_common(MOST)]
    return align(lines)


def packages(status: str) -> Counter[str]:
    """Return name -> installed size in bytes, from dpkg's status file, which has KiB."""
    found: Counter[str] = Counter()
    for paragraph in status.split("\n\n"):
        name = re.search(r"^Package: (\S+)$", paragraph, re.MULTILINE)
        size = re.search(r"^Installed-Size: (\d+)$", paragraph, re.MULTILINE)
        if name and size:
            found[name[1]] = int(size[1]) * 1024
    return found


def directories(tar: tarfile.TarFile) -> Counter[str]:
    """Return directory, at most three levels deep -> bytes of the files in and below it."""
    found: Counter[str] = Counter()
    for member in tar:
        if member.isreg():
            parts = Path("/", member.name).parent.parts
            found[str(Path(*parts[: DEPTH + 1]))] += member.size
    return found
