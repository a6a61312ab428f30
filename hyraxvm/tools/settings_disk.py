"""A settings file for the guest's first boot: checked by the guest's own programs, put on a disk.

Only `provision/guest/usr/lib/hyrax-vm/settings` knows the keys; the guest runs it too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from hyraxvm.config.images import Recipe
from hyraxvm.config.names import RELEASE_FILE
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import PROVISION
from hyraxvm.core.process import output
from hyraxvm.stages.provision import guest_tar, version_file

LABEL: Final = "HYRAX"  # of the disk that the guest looks for
NAME: Final = "hyrax.toml"  # of the file on it
PROGRAM: Final = "usr/lib/hyrax-vm/settings"
SERVER_SETTINGS: Final = "usr/lib/hyrax/settings"  # the keys of `hyrax-server set`
DEADLINE: Final = 60.0  # seconds


def check(file: Path, recipe: Recipe) -> None:
    """Check `file` as the guest of `recipe` will.

    Raises `UserError` with a line for each problem: the file cannot be read, or has a wrong key or
    value.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; docs/settings.md shows one")
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-settings-") as folder:
        root = guest_tree(recipe, Path(folder) / "root")
        done = subprocess.run(
            ["perl", str(root / PROGRAM), "check", str(file)],
            env={**os.environ, "HYRAX_ROOT": str(root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    if done.returncode != 0:
        problems = (done.stdout or done.stderr).splitlines()
        raise UserError("\n./inv: ".join(f"{file}: {problem}" for problem in problems))


def write_disk(file: Path, target: Path) -> None:
    """Write `file` to `target`, an ISO 9660 disk that only its owner can read: it has secrets.

    Raises `UserError`: `target` is a folder, or the folder that it is in does not exist.
    """
    if target.is_dir() or not target.parent.is_dir():
        raise UserError(f"{target}: cannot be written; name a file in an existing folder")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        made = Path(folder) / "disk.iso"
        made.touch(0o600)
        command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", LABEL, "-J", "-r", "-o", str(made)]
        output([*command, "-graft-points", f"{NAME}={file.resolve()}"])
        made.replace(target)


def guest_tree(recipe: Recipe, root: Path) -> Path:
    """Copy the files by which the guest of `recipe` checks settings into the new folder `root`.

    The server's image is not needed.
    """
    shutil.copytree(PROVISION / "guest", root)
    listed = guest_tar.server_part(recipe, "guest") / SERVER_SETTINGS
    if listed.is_file():
        (root / SERVER_SETTINGS).parent.mkdir(exist_ok=True)
        shutil.copyfile(listed, root / SERVER_SETTINGS)
    facts = {
        "IMAGE": recipe.name,
        "ACCESS": recipe.image.access,
        "SERVER": recipe.server_name,
        "SERVER_TITLE": recipe.server.title,
    }
    (root / RELEASE_FILE.lstrip("/")).write_text(version_file.release_file(facts))
    return root
