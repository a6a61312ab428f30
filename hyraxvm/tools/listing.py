"""`./inv list`: images x servers x formats, what is built, and the systems that there are."""

from __future__ import annotations

from pathlib import Path

from hyraxvm.config import names
from hyraxvm.config.images import Config, Recipe, recipe
from hyraxvm.config.model import FULL, SMOKE
from hyraxvm.core.columns import align
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import Format, made_for
from hyraxvm.stages.boot_test import verdict

SHOWN = {SMOKE: "smoke boot only", FULL: "passed"}
COLUMNS = ("image", "server", "base", "arch", "access", "format", "artifact", "size", "boot test")


def built(workspace: Workspace, chosen: Recipe, wanted: Format) -> Path | None:
    """Return the newest artifact of an image with a server in a format, if there is one."""
    pattern = names.artifact_glob(chosen, wanted.suffix)
    found = sorted(workspace.artifacts.glob(pattern), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def rows(workspace: Workspace, config: Config) -> list[dict[str, str]]:
    """Return a row for each image, server and format, and for what is built on another base."""
    return [
        _row(workspace, chosen, wanted)
        for image in sorted(config.image)
        for server in sorted(config.server)
        for chosen in systems(config, image, server)
        for wanted in made_for(chosen.arch)
        if chosen == recipe(config, image, server) or built(workspace, chosen, wanted)
    ]


def systems(config: Config, image: str, server: str) -> list[Recipe]:
    """Return an image with a server on each base and architecture, the image's own ones first."""
    usual = recipe(config, image, server)
    others = [
        recipe(config, image, server, base=base, arch=arch)
        for base in config.base
        for arch in config.base[base].on
    ]
    return [usual, *(other for other in others if other != usual)]


def bases(config: Config) -> str:
    """Return a table of the systems that images can be made of."""
    used = {image.base for image in config.image.values()}
    lines = [["base", "system", "architectures", ""]]
    for name, base in config.base.items():
        state = "the usual one" if name in used else f"--base {name}"
        state += ", untried: nobody has built it yet" if base.untried else ""
        lines.append([name, base.title, ", ".join(base.on), state])
    return align(lines)


def _row(workspace: Workspace, chosen: Recipe, wanted: Format) -> dict[str, str]:
    artifact = built(workspace, chosen, wanted)
    found = verdict.read(workspace, artifact, SMOKE) if artifact else None
    values = (
        chosen.name,
        chosen.server_name,
        chosen.base_name,
        chosen.arch_name,
        chosen.access.title,
        wanted.name,
        artifact.name if artifact else "not built",
        f"{artifact.stat().st_size / 1e6:.1f} MB" if artifact else "-",
        SHOWN[found["level"]] if found else "-",
    )
    return dict(zip(COLUMNS, values, strict=True))


def table(found: list[dict[str, str]]) -> str:
    """Return the rows in aligned columns."""
    lines = [list(COLUMNS), *(list(row.values()) for row in found)]
    return align(lines)
