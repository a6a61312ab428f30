"""Tasks that show images, files and templates."""

from __future__ import annotations

import json

from invoke import Context, task

from hyraxvm.tasks.common import ARCH_HELP, BASE_HELP, files, read_table, refuse, reported


@task(name="list", help={"json_": "as JSON"})
@reported
def list_(c: Context, json_: bool = False) -> None:
    """List images, servers and formats, and what is built."""
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import listing

    table = read_table()
    rows = listing.rows(Workspace.here(), table)
    if json_:
        print(json.dumps(rows, indent=1))
    else:
        print(listing.table(rows), listing.bases(table), sep="\n\n")


@task(iterable=["file"], help={"file": "artifact, manifest or SHA256SUMS; repeatable"})
@reported
def verify(c: Context, file: list[str]) -> None:
    """Check that files are whole, and say what they are."""
    from hyraxvm.formats.verify import verify_all

    good, refused = verify_all(files(file, "verify"))
    for line in good:
        print(line)
    refuse(refused)


@task(
    help={
        "image": "image to render (see ./inv list)",
        "server": "data server in it",
        "base": BASE_HELP,
        "arch": ARCH_HELP,
    }
)
@reported
def render(
    c: Context,
    image: str,
    server: str | None = None,
    base: str | None = None,
    arch: str | None = None,
) -> None:
    """Write and show every rendered template and script, without building."""
    from hyraxvm.config import images
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.stages.server import choice
    from hyraxvm.tools import preview

    table = read_table()
    recipe = images.recipe(table, image, server, base=base, arch=arch)
    pinned = choice.cached(table, recipe.server_name)
    for path in preview.write(Workspace.here(), pinned.recipe(table, image, base, arch)):
        print(f"\n==== {path}\n{path.read_text()}", end="")
