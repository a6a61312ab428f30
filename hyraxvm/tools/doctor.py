"""`./inv doctor`: tools that are here and needed, and the accelerator that QEMU gets."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hyraxvm.core.columns import align
from hyraxvm.core.errors import Failure
from hyraxvm.core.process import as_root, output
from hyraxvm.core.tool_versions import TOOLS, version
from hyraxvm.core.workspace import Workspace
from hyraxvm.vm import qemu


def report(workspace: Workspace) -> tuple[list[str], bool]:
    """Return the lines of the report, and whether everything that is needed is here."""
    lines = [["tool", "found", "needed", ""]]
    healthy = True
    for tool in (*TOOLS, qemu.PROGRAM):
        found = version(tool)
        good = found is not None and _numbers(found) >= _numbers(tool.needed)
        healthy = healthy and good
        lines.append([tool.argv[0], found or "missing", tool.needed, "ok" if good else "NOT OK"])
    accelerator = qemu.choose_accelerator()
    way = "root" if os.geteuid() == 0 else "a user namespace"
    if os.geteuid() != 0 and not namespaces():
        healthy = False
        way = "NOT POSSIBLE: neither root nor user namespaces (/etc/subuid, newuidmap)"
        if _forbidden():
            way += "; type: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    free = shutil.disk_usage(_existing(workspace.cache.folder)).free / 1e9
    return [
        align(lines),
        "",
        f"accelerator  {accelerator.name}: {accelerator.reason}",
        f"root in images  {way}",
        f"cache  {workspace.cache.folder}, {free:.1f} GB free",
    ], healthy


def programs() -> list[str]:
    """Return the names of the programs that are needed and not here."""
    wanted = (tool.argv[0] for tool in (*TOOLS, qemu.PROGRAM))
    return [name for name in wanted if shutil.which(name) is None]


def namespaces() -> bool:
    """Return whether this user can be root in a user namespace with a range of ids."""
    try:
        output(as_root(["true"]))
    except Failure:
        return False
    return True


def _forbidden() -> bool:
    """Return whether AppArmor keeps users from namespaces, as on Ubuntu since 24.04."""
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    return switch.exists() and switch.read_text().strip() == "1"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


if __name__ == "__main__":  # by ./inv, where packages have other names than Debian's
    if lacking := programs():
        print(
            f"./inv: {sys.argv[1]} is neither Debian nor Ubuntu; builds and tests here also need: "
            f"{' '.join(lacking)}",
            file=sys.stderr,
        )
