"""The programs that the pipeline runs: the versions that it needs and those that are here."""

from __future__ import annotations

import re
import shutil
from typing import NamedTuple

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import output


class Tool(NamedTuple):
    """A command that prints a program's version, and the oldest version that is known to work."""

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
    Tool(("ncdump", "--version"), "4.8"),
    Tool(("getdap", "-V"), "3.20"),
    Tool(("ganesha.nfsd", "-v"), "4.0"),
    Tool(("smbd", "--version"), "4.17"),
    Tool(("gpg", "--version"), "2.2"),
    Tool(("shellcheck", "--version"), "0.9"),
    Tool(("ssh", "-V"), "8.4"),
)


def version(tool: Tool) -> str | None:
    """Return the first version number that the command prints; None if there is none."""
    if shutil.which(tool.argv[0]) is None:
        return None
    try:
        # Some print it on standard error, some exit with a status other than 0.
        said = output(["sh", "-c", '"$@" 2>&1 || :', "sh", *tool.argv])
    except Failure:
        return None
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group(0) if found else None
