"""`./inv doctor`: what is here, what is needed, and which accelerator QEMU gets."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from hyraxvm.columns import align
from hyraxvm.command import as_root, output
from hyraxvm.errors import Failure
from hyraxvm.paths import cache_root
from hyraxvm.qemu import choose_accelerator


class Tool(NamedTuple):
    """A program, how it tells its version, and the oldest version that is known to work."""

    argv: tuple[str, ...]
    needed: str


TOOLS = (
    Tool(("git", "--version"), "2.30"),
    Tool(("mmdebstrap", "--version"), "1.3"),
    Tool(("skopeo", "--version"), "1.9"),
    Tool(("umoci", "--version"), "0.4"),
    Tool(("tar2sqfs", "--version"), "1.2"),
    Tool(("mke2fs", "-V"), "1.46"),
    Tool(("sfdisk", "--version"), "2.36"),
    Tool(("mkfs.fat", "--help"), "4.1"),
    Tool(("packer", "version"), "1.6"),
    Tool(("qemu-img", "--version"), "7.0"),
    Tool(("qemu-system-x86_64", "--version"), "7.0"),
    Tool(("ncdump", "--version"), "4.8"),
    Tool(("getdap", "-V"), "3.20"),
    Tool(("ganesha.nfsd", "-v"), "4.0"),
    Tool(("smbd", "--version"), "4.17"),
    Tool(("gpg", "--version"), "2.2"),
    Tool(("shellcheck", "--version"), "0.9"),
    Tool(("ssh", "-V"), "8.4"),
)


def report() -> tuple[list[str], bool]:
    """The lines of the report, and whether everything that is needed is here."""
    lines = [["tool", "found", "needed", ""]]
    healthy = True
    for tool in TOOLS:
        found = version(tool)
        good = found is not None and _numbers(found) >= _numbers(tool.needed)
        healthy = healthy and good
        lines.append([tool.argv[0], found or "missing", tool.needed, "ok" if good else "NOT OK"])
    accelerator = choose_accelerator()
    way = "root" if os.geteuid() == 0 else "a user namespace"
    if os.geteuid() != 0 and not namespaces():
        healthy = False
        way = "NOT POSSIBLE: neither root nor user namespaces (/etc/subuid, newuidmap)"
    free = shutil.disk_usage(_existing(cache_root())).free / 1e9
    return [
        align(lines),
        "",
        f"accelerator  {accelerator.name}: {accelerator.reason}",
        f"root in images  {way}",
        f"cache  {cache_root()}, {free:.1f} GB free",
    ], healthy


def version(tool: Tool) -> str | None:
    """The first number in what the tool says of its version, or None: it is not there."""
    if shutil.which(tool.argv[0]) is None:
        return None
    try:
        # Some tell their version on standard error, some with a status other than 0.
        said = output(["sh", "-c", '"$@" 2>&1 || :', "sh", *tool.argv])
    except Failure:
        return None
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group(0) if found else None


def namespaces() -> bool:
    """Whether this user can be root in a user namespace with a range of ids."""
    try:
        output(as_root(["true"]))
    except Failure:
        return False
    return True


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
