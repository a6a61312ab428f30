"""Tasks for users of an image."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

from invoke import Context, task

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.tasks.common import (
    ARCH_HELP,
    BASE_HELP,
    choose_server,
    progress,
    read_table,
    reported,
)


@task(
    iterable=["image", "url", "key"],
    help={
        "image": "image to get; default: the one that images.toml names",
        "release": "version, or nightly for the newest one; default: the newest release",
        "format": "format to get (see ./inv list)",
        "arch": "architecture of the virtual machine; default: this computer's, if there is one",
        "base": "system in the virtual machine; default: the first that the release has",
        "to": "folder to put it into; default: artifacts/downloads",
        "unpack": "unpack the zip beside it",
        "url": "folder with index.json, https://... or s3://..., repeatable: tried in turn; "
        "default: as in publish.toml",
        "key": "fingerprint of a key that counts, repeatable, beside that in publish.toml",
    },
)
@reported
def download(
    c: Context,
    image: list[str],
    url: list[str],
    key: list[str],
    release: str = "release",
    format: str = "vmx",
    arch: str = "",
    base: str = "",
    to: str | None = None,
    unpack: bool = False,
) -> None:
    """Get published images; continue a transfer that stopped; refuse what is not as signed."""
    from hyraxvm import formats
    from hyraxvm.config import publish
    from hyraxvm.core import parallel
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.publish import download, signed_index
    from hyraxvm.publish.site import Site
    from hyraxvm.store.s3 import WORKERS

    settings = publish.load()
    urls = url or [
        publish.required(settings.download.url, "download.url"),
        *settings.download.mirrors,
    ]
    keys = [publish.fingerprint(one) for one in key]
    if settings.signing.key or not keys:
        keys.append(settings.key())
    workspace = Workspace.here()
    kind = formats.choose([format])[0].name
    jobs = [
        functools.partial(
            download.download,
            download.Reader(workspace.artifacts, keys, signed_index.memory()),
            [Site(one, settings.store) for one in urls],
            download.Wanted(name, release, kind, arch, base),
            Path(to) if to else workspace.downloads,
            unpack,
            print,
        )
        for name in dict.fromkeys(image or [read_table().defaults.image])
    ]
    for path in parallel.run_parallel(jobs, WORKERS):
        print(path)


@task(
    help={
        "file": "settings file, see docs/settings.md",
        "image": "image that the file is for; default: the one that images.toml names",
        "server": "data server in it; default: the preferred one",
        "to": "disk to write; default: FILE.iso beside the file",
    }
)
@reported
def settings(
    c: Context,
    file: str,
    image: str | None = None,
    server: str | None = None,
    to: str | None = None,
) -> None:
    """Check a settings file for the first boot, and write it to a disk for a machine."""
    from hyraxvm.config import images
    from hyraxvm.tools import settings_disk

    table = read_table()
    source = Path(file)
    recipe = images.recipe(table, image, server or table.defaults.auto[0])
    settings_disk.check(source, recipe)
    disk = Path(to) if to else source.with_suffix(".iso")
    settings_disk.write_disk(source, disk)
    print(f"{source}: right for image {recipe.name} with {recipe.server.title}")
    print(f"{disk}: attach it as a CD before the first start; it holds what {source} holds")


@task(
    help={
        "image": "image to start (see ./inv list)",
        "server": "data server in it",
        "format": "format to start; default: the first that is built",
    }
)
@reported
def run(c: Context, image: str, server: str | None = None, format: str | None = None) -> None:
    """Boot a built image for a person: console here, port 8080 forwarded, Ctrl-A X to leave."""
    from hyraxvm import formats
    from hyraxvm.config import images
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import listing
    from hyraxvm.tools.run import interactive_artifact

    table = read_table()
    servers = [images.choose("server", server, table.server)] if server else table.server
    image = images.choose("image", image, table.image)
    recipes = [each for name in servers for each in listing.systems(table, image, name)]
    wanted = formats.choose([format] if format else [])
    workspace = Workspace.here()
    found = [
        path for one in wanted for each in recipes if (path := listing.built(workspace, each, one))
    ]
    if not found:
        as_ = f" as {format}" if format else ""
        again = f" --format {format}" if format else ""
        raise UserError(f"image {image!r} is not built{as_}; type: ./inv build {image}{again}")
    status = interactive_artifact(max(found, key=lambda path: path.stat().st_mtime))
    if status:
        raise Failure(f"QEMU: exit status {status}")


@task(
    help={
        "folder": "new folder for the kit, such as one on a USB stick",
        "image": "image with the workshop",
    }
)
@reported
def kit(c: Context, folder: str, image: str = "workshop") -> None:
    """Fill a folder for a USB stick: the workshop's images, pages, slides, packages, start page."""
    from hyraxvm.config import images
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.stages.plan import Plan
    from hyraxvm.stages.workshop import stage
    from hyraxvm.tools import kit

    table = read_table()
    image = images.choose("image", image, table.image)
    if table.image[image].addition is None:
        raise UserError(f"image {image!r} has no workshop; type: ./inv kit {folder}")
    workspace = Workspace.here()
    found = kit.images(workspace, table, image)
    plan = Plan(next(iter(found.values())), root=workspace.root)
    shown = progress(workspace)
    log = workspace.logs / "kit.log"
    with shown.stage("workshop") as on_line:
        squashfs = stage.build(workspace.cache, plan.recipe, plan.workshop, log, on_line)
    print(kit.make(Path(folder), found, squashfs, shown.say))


@task(
    name="try",
    help={
        "image": "image to try (see ./inv list)",
        "server": "data server in it; default: the one that images.toml names",
        "base": BASE_HELP,
        "arch": ARCH_HELP,
        "fresh": "start again from a new master, also if the machine runs",
        "stop": "end the machine",
    },
)
@reported
def try_(
    c: Context,
    image: str,
    server: str | None = None,
    base: str | None = None,
    arch: str | None = None,
    fresh: bool = False,
    stop: bool = False,
) -> None:
    """Keep a machine running, and put this checkout's guest files into it within seconds."""
    from hyraxvm.config import images
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.stages.plan import Plan
    from hyraxvm.tools import trial
    from hyraxvm.vm import kept
    from hyraxvm.vm.qemu import HTTP

    table = read_table()
    recipe = images.recipe(table, image, base=base, arch=arch)
    workspace = Workspace.here()
    machine = trial.Trial.of(workspace, recipe)
    if stop:
        print(f"{image}: {'ended' if machine.stop() else 'no machine of this image ran'}")
        return
    recipe = choose_server(workspace, server).recipe(table, image, base, arch)
    trial.ready(workspace, Plan(recipe, root=workspace.root), progress(workspace), fresh)
    print(f"data:    http://127.0.0.1:{kept.ports(machine.folder)[HTTP]}/opendap/")
    print(f"shell:   {shlex.join(machine.ssh())}")
    print(f"console: {machine.folder / 'console.log'}")
    options = [("--server", server), ("--base", base), ("--arch", arch)]
    again = shlex.join(["try", image, *(word for one in options if one[1] for word in one if word)])
    print(f"again:   ./inv {again}, after an edit; ./inv {again} --stop ends it")
