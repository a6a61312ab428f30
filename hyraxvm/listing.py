"""`./inv list`: images x servers x bases, and what is built."""

from __future__ import annotations

from pathlib import Path

from hyraxvm import boottest
from hyraxvm.config import Config, Recipe, recipe
from hyraxvm.paths import ARTIFACTS

COLUMNS = ("image", "server", "base", "access", "artifact", "size", "boot test")


def built(chosen: Recipe) -> Path | None:
    """The newest artifact of an image with a server, if there is one."""
    pattern = (
        f"hyrax-vm-{chosen.image.access}-{chosen.server_name}[0-9]*"
        f"-{chosen.base.short}-{chosen.base.arch}.zip"
    )
    found = sorted(ARTIFACTS.glob(pattern), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def newest(config: Config, image: str, server: str | None) -> Path | None:
    """The newest artifact of an image, with a server or with any."""
    names = [server] if server else sorted(config.server)
    found = [built(recipe(config, image, name)) for name in names]
    return max(filter(None, found), key=lambda path: path.stat().st_mtime, default=None)


def rows(config: Config) -> list[dict[str, str]]:
    """One row for each image and server."""
    result = []
    for image in sorted(config.image):
        for server in sorted(config.server):
            chosen = recipe(config, image, server)
            artifact = built(chosen)
            tested = artifact is not None and boottest.verdict(artifact) is not None
            values = (
                image,
                server,
                chosen.base_name,
                chosen.access.title,
                artifact.name if artifact else "not built",
                f"{artifact.stat().st_size / 1e6:.1f} MB" if artifact else "-",
                "passed" if tested else "-",
            )
            result.append(dict(zip(COLUMNS, values, strict=True)))
    return result


def table(found: list[dict[str, str]]) -> str:
    """The rows in aligned columns."""
    lines = [list(COLUMNS), *(list(row.values()) for row in found)]
    return align(lines)


def align(lines: list[list[str]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
