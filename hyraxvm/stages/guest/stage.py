"""Stage `guest`: provisioned disk + the guest's files that only land -> `master.qcow2`.

No machine runs: the files, and the links that enable units, are written into the root file system.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hyraxvm import __version__
from hyraxvm.config import names
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import cache, code
from hyraxvm.core.archives import seconds
from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import ROOT
from hyraxvm.core.process import run
from hyraxvm.stages.disk.stage import MIB, ROOT_START
from hyraxvm.stages.guest import units
from hyraxvm.stages.guest.ext4 import FileSystem
from hyraxvm.stages.provision import version_file
from hyraxvm.stages.provision.guest_tar import (
    addition_folders,
    guest_files,
    landing_files,
    render_units,
    services,
    text_file,
)

DEADLINE: Final = 300.0  # seconds


def key(recipe: Recipe, provisioned: str, root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs; `provisioned` is the provisioned disk's key.

    The date and the git revision do not count, although the image records them: they change
    without changing what is built.
    """
    read: dict[str, Any] = {
        "name": True,
        "image": {"access", "addition"},
        "base_name": True,
        "base": {"distribution", "ssh", "masked_units", "upgrades"},
        "arch_name": True,
    }
    return cache.digest(
        provisioned,
        recipe.model_dump(include=read),
        __version__,
        root / "provision" / "guest",
        *addition_folders(recipe, root),
        code.digest(root, __name__),
    )


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    provisioned: Path,
    image: ServerImage,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Return the path of the master disk; beside it is `release.env`.

    Raises `Failure`: a tool failed, or the disk is full.
    """

    def make(work: Path) -> None:
        raw, master = work / "disk.raw", work / "master.qcow2"
        convert = ["qemu-img", "convert", "-O"]
        run([*convert, "raw", str(provisioned), str(raw)], log=log, deadline=DEADLINE)
        on_line("writing the guest's files")
        facts = version_file.release(recipe, image)
        text = version_file.release_file(facts)
        (work / "release.env").write_text(text)
        files = {**landing_files(recipe), names.RELEASE_FILE.lstrip("/"): text_file(text)}
        system = FileSystem(raw, ROOT_START * MIB)
        own = services(render_units(recipe, image))
        links, removed = units.links(system, files, guest_files(recipe), own, work / "units")
        system.write({**files, **links}, removed, seconds(facts["BUILD_DATE"]))
        system.check()
        on_line("compacting the master")
        run([*convert, "qcow2", "-f", "raw", str(raw), str(master)], log=log, deadline=DEADLINE)
        raw.unlink()
        cache.remove_tree(work / "units")

    return results.produce("guest", stage_key, make) / "master.qcow2"
