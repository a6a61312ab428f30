"""Which units start at boot, as systemctl(1) says: the links that it makes in `/etc/systemd`."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import output
from hyraxvm.stages.guest.ext4 import FileSystem
from hyraxvm.stages.provision.guest_tar import UNITS, GuestFile, link

# Folders with all that systemctl reads and writes; drop-ins of units are links into the last.
FOLDERS: Final = ("usr/lib/systemd", "etc/systemd", "usr/lib/hyrax-vm")
PRESET: Final = "usr/lib/systemd/system-preset/50-hyrax-vm.preset"
MASKED: Final = "usr/lib/hyrax-vm/masked-units"


def links(
    system: FileSystem,
    landing: Mapping[str, GuestFile],
    templates: Mapping[str, tuple[str, bool]],
    own: Sequence[str],
    work: Path,
) -> tuple[dict[str, GuestFile], set[str]]:
    """Return the links to make, and the paths of those to remove.

    `landing` are the files that will be put into `system`, which has all other units already.
    `templates` are those of `guest_files`: two of them list the units to enable, disable and mask.
    `own` are the server's units, which are enabled too.  The folder `work` must not exist yet.

    Raises `Failure`: systemctl failed, or a unit has a fault.
    """
    system.copy_out(FOLDERS, work)
    (work / "lib").symlink_to("usr/lib")
    before = _links(work)
    for name, file in landing.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(file.mode):
            path.unlink(missing_ok=True)
            path.symlink_to(file.content.decode())
        else:
            path.write_bytes(file.content)
    preset = re.findall(r"^(?:enable|disable) (\S+)", templates[PRESET][0], re.MULTILINE)
    for verb, units in (
        ("preset", preset),
        ("mask", templates[MASKED][0].split()),
        ("enable", own),
        ("set-default", ["multi-user.target"]),
    ):
        output(["systemctl", f"--root={work}", "--quiet", verb, *units])
    _verify(work, own)
    after = _links(work)
    made = {name: link(target) for name, target in after.items() if before.get(name) != target}
    return made, before.keys() - after.keys()


def _links(tree: Path) -> dict[str, str]:
    found = (path for path in (tree / "etc").rglob("*") if path.is_symlink())
    return {str(path.relative_to(tree)): str(path.readlink()) for path in found}


def _verify(tree: Path, own: Sequence[str]) -> None:
    """Raise `Failure` if systemd finds a fault in a unit of this project."""
    units = {*own, *(path.name for path in (tree / UNITS).glob("hyrax*.*") if path.is_file())}
    done = subprocess.run(
        ["systemd-analyze", f"--root={tree}", "verify", "--man=no", *sorted(units)],
        capture_output=True,
        text=True,
        check=False,
    )
    # The programs are not in the tree: they are in the disk, and the server's in its own image.
    # The distribution's units may be newer than this host's systemd, which does not know all keys.
    said = done.stderr.replace(str(tree), "")
    faults = [
        line
        for line in said.splitlines()
        if "hyrax" in line and not re.search(r": Command /.* is not executable: ", line)
    ]
    if faults:
        raise Failure("\n".join(["systemd-analyze verify:", *faults]))
