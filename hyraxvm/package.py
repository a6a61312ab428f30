"""Stage `package`: master -> `<name>.zip` (VMX and VMDK) and `<name>.manifest.json`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from hyraxvm import cache, names
from hyraxvm.command import run
from hyraxvm.config import Recipe
from hyraxvm.paths import ARTIFACTS, TEMPLATES
from hyraxvm.render import render
from hyraxvm.server import ServerImage
from hyraxvm.vmx import Nic, VmxSpec, render_vmx

DEADLINE = 900.0  # seconds
README = TEMPLATES / "README.md.j2"
PAGE = TEMPLATES / "README.html.j2"
CHUNK = 4 * 1024 * 1024


def key(recipe: Recipe, master: str) -> str:
    """The digest of the stage's inputs; `master` is the key of the stage before."""
    sources = [README, PAGE, TEMPLATES / "image.vmx.j2", Path(__file__)]
    return cache.digest(master, recipe.image.model_dump(), recipe.machine.model_dump(), *sources)


def manifest_path(artifact: Path) -> Path:
    """The manifest that lies beside an artifact."""
    return artifact.with_suffix(".manifest.json")


def up_to_date(artifact: Path, stage_key: str) -> bool:
    """Whether the artifact is there, whole, and made from these very inputs."""
    try:
        manifest = json.loads(manifest_path(artifact).read_text())
        entry = manifest["files"][0]
        return bool(
            manifest["key"] == stage_key
            and artifact.stat().st_size == entry["size"]
            and cache.file_digest(artifact) == entry["sha256"]
        )
    except (OSError, ValueError, KeyError, IndexError):
        return False


def build(
    recipe: Recipe,
    stage_key: str,
    master: Path,
    image: ServerImage,
    packages: dict[str, str],
    timings: dict[str, float],
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Return the path of the zip; its manifest lies beside it.

    `packages` are the Debian packages of the image, `timings` the seconds of the stages so far.
    Raises `Failure` when qemu-img fails.
    """
    name = names.artifact_name(recipe, image.version)
    artifact = ARTIFACTS / f"{name}.zip"
    if up_to_date(artifact, stage_key):
        return artifact
    started = time.monotonic()
    work = ARTIFACTS / f".{name}.work"
    cache.remove_tree(work)
    work.mkdir(parents=True)
    try:
        vmdk = work / f"{name}.vmdk"
        options = "subformat=monolithicSparse,adapter_type=lsilogic"
        convert = ["qemu-img", "convert", "-O", "vmdk", "-o", options, str(master), str(vmdk)]
        run(convert, log=log, deadline=DEADLINE)
        for member, text in texts(recipe, name, image).items():
            (work / member).write_bytes(text.encode())
        on_line("compressing")
        release = read_release(master.parent / "release.env")
        members = [f"{name}.vmx", f"{name}.vmdk", "README.html", "README.txt"]
        packed = work / artifact.name
        pack_zip(packed, name, [work / member for member in members], release["BUILD_DATE"])
        manifest: dict[str, Any] = {
            "schema": 1,
            "name": name,
            "key": stage_key,
            "release": release,
            "server": image.model_dump(exclude={"files"}),
            "machine": recipe.machine.model_dump(),
            "packages": packages,
            "files": [_entry(packed)],
            "contents": [_entry(work / member) for member in members],
            "timings": {**timings, "package": round(time.monotonic() - started, 1)},
        }
        written = work / "manifest.json"
        written.write_text(json.dumps(manifest, indent=1) + "\n")
        # Old zip and new manifest never stand beside each other: `up_to_date` would say no.
        packed.replace(artifact)
        written.replace(manifest_path(artifact))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return artifact


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """File name -> content of what lies beside the disk in the zip."""
    spec = VmxSpec(
        display_name=name,
        disks=(f"{name}.vmdk",),
        nvram=f"{name}.nvram",
        memory_mb=recipe.machine.memory_mib,
        cpus=recipe.machine.cpus,
        firmware=recipe.machine.firmware,
        controller=recipe.machine.disk_controller,
        nics=(Nic(recipe.machine.nic),),
    )
    readme = render(README, name=name, recipe=recipe, server_version=image.version)
    # The text comes from our own template; markdown-it escapes what is not markup.
    body = Markup(MarkdownIt("commonmark").render(readme))  # noqa: S704
    return {
        f"{name}.vmx": render_vmx(spec),
        "README.html": render(PAGE, name=name, body=body),
        # Windows' Notepad is where it is read.
        "README.txt": readme.replace("\n", "\r\n"),
    }


def read_release(path: Path) -> dict[str, str]:
    """Read the `KEY=value` lines of the guest's version file."""
    pairs = (line.split("=", 1) for line in path.read_text().splitlines())
    return {key: "".join(shlex.split(value)) for key, value in pairs}


def pack_zip(target: Path, folder: str, members: list[Path], date: str) -> None:
    """Pack files under one top folder, with Deflate: Windows' Explorer opens nothing newer."""
    stamp = time.strptime(date, "%Y-%m-%dT%H:%M:%SZ")[:6]
    with zipfile.ZipFile(target, "w") as archive:
        for member in members:
            info = zipfile.ZipInfo(f"{folder}/{member.name}", stamp)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            info.file_size = member.stat().st_size  # decides whether ZIP64 is needed
            with member.open("rb") as source, archive.open(info, "w") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def _entry(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "size": path.stat().st_size,
        "sha256": cache.file_digest(path),
    }
