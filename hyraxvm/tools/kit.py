"""A folder for a USB stick: the workshop's images, pages, slides, notebooks and packages."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hyraxvm.config import names
from hyraxvm.config.images import Config, Recipe
from hyraxvm.core import cache
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import PROVISION, TEMPLATES
from hyraxvm.core.process import output
from hyraxvm.core.templates import render
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import made_for, readme
from hyraxvm.formats.opening import manifest_path
from hyraxvm.stages.workshop import exercises
from hyraxvm.tools import listing

START: Final = TEMPLATES / "kit.md.j2"
PAGES: Final = "srv/workshop/www"  # in the squashfs
FOLDER: Final = PROVISION / "workshop"
DEADLINE: Final = 600.0  # seconds


def images(workspace: Workspace, config: Config, image: str) -> dict[Path, Recipe]:
    """Return the built files of an image, each with what it is, for all architectures.

    Raises `UserError`: none is built.
    """
    found = {
        path: recipe
        for server in config.server
        for recipe in listing.systems(config, image, server)
        for wanted in made_for(recipe.arch)
        if (path := listing.built(workspace, recipe, wanted))
    }
    if not found:
        raise UserError(f"image {image!r} is not built; type: ./inv build {image}")
    return found


def make(
    target: Path, found: dict[Path, Recipe], squashfs: Path, say: Callable[[str], None]
) -> Path:
    """Fill the folder `target`, which must be empty or missing; return its start page.

    `squashfs` is the workshop's.

    Raises `UserError`: the folder has files; `Failure`: a tool failed; `OSError`: the disk is full.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists and is not empty; name a new folder: ./inv kit DIR")
    folder = target / "images"
    folder.mkdir(parents=True)
    sums = []
    for path in sorted(found):
        say(f"copying {path.name}")
        shutil.copyfile(path, folder / path.name)
        shutil.copyfile(manifest_path(path), folder / manifest_path(path).name)
        sums.append(f"{cache.file_digest(folder / path.name)}  {path.name}\n")
    (folder / names.SUMS).write_text("".join(sums))
    say("unpacking the pages")
    with tempfile.TemporaryDirectory(dir=target) as work:
        unpack = ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-force", "-dest", work]
        output([*unpack, str(squashfs), PAGES], deadline=DEADLINE)
        (Path(work) / PAGES).rename(target / "workshop")
    page = target / "index.html"
    exercises.write_page(FOLDER, page, "Workshop kit", [], body=_start(found), name="kit")
    return page


def _start(found: dict[Path, Recipe]) -> str:
    """Return the text of the start page, as HTML; it opens from the disk, and asks no server."""
    files = [
        {"name": path.name, "mb": round(path.stat().st_size / 1e6), "arch": recipe.arch}
        for path, recipe in sorted(found.items())
    ]
    each = {recipe.arch: recipe for recipe in found.values()}
    how = [
        # Below a heading of its own.
        (arch.processors, readme.hypervisors("NAME", recipe).strip().replace("\n## ", "\n### "))
        for arch, recipe in sorted(each.items(), key=lambda pair: pair[0].name)
    ]
    return exercises.to_html(render(START, files=files, hypervisors=how))
