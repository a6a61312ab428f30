"""What makes an image large: its largest packages and directories."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from pathlib import Path

from hyraxvm.columns import align
from hyraxvm.command import output
from hyraxvm.rootfs import DPKG_STATUS

MOST = 10
DEPTH = 3  # components of a directory's path


def largest(rootfs: Path, squashfs: Path) -> str:
    """Describe the ten largest packages and directories of an image, unpacked sizes.

    `rootfs` is the tar of the root file system, `squashfs` the packed server.
    """
    status = output(["tar", "--extract", "--to-stdout", "--file", str(rootfs), DPKG_STATUS])
    found = [("largest packages", packages(status)), ("largest directories", directories(rootfs))]
    found[1][1]["/usr/lib/hyrax"] += squashfs.stat().st_size
    lines: list[list[str]] = []
    for title, sizes in found:
        lines.append([title, ""])
        lines += [[f"  {name}", f"{size / 1e6:7.1f} MB"] for name, size in sizes.most_common(MOST)]
    return align(lines)


def packages(status: str) -> Counter[str]:
    """Name -> installed size in bytes, from dpkg's status file (in KiB there)."""
    found: Counter[str] = Counter()
    for paragraph in status.split("\n\n"):
        name = re.search(r"^Package: (\S+)$", paragraph, re.MULTILINE)
        size = re.search(r"^Installed-Size: (\d+)$", paragraph, re.MULTILINE)
        if name and size:
            found[name[1]] = int(size[1]) * 1024
    return found


def directories(rootfs: Path) -> Counter[str]:
    """Directory, three levels deep at most -> bytes of the files in and below it."""
    found: Counter[str] = Counter()
    with tarfile.open(rootfs) as tar:
        for member in tar:
            if member.isreg():
                parts = Path("/", member.name).parent.parts
                found[str(Path(*parts[: DEPTH + 1]))] += member.size
    return found
