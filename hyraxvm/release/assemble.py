"""A release: built and tested images become one signed folder, `artifacts/releases/VERSION`.

Everything in the folder was tested; nothing in it changes after it is signed.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hyraxvm.config import images, publish
from hyraxvm.config.model import Artifact
from hyraxvm.config.names import MANIFEST, SUMS
from hyraxvm.core import cache, tool_versions
from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import IMAGES_LOCK, IMAGES_TOML, PACKER, PROVISION, TEMPLATES
from hyraxvm.core.process import output
from hyraxvm.core.workspace import Workspace
from hyraxvm.release import checks, collect, index, notes, provenance, sbom, signing
from hyraxvm.release import folder as release_folder
from hyraxvm.store.s3 import Store
from hyraxvm.vm import qemu

LOCK: Final = ".release.lock"  # in artifacts/, while a release is made
BUSY: Final = "another release is made in this checkout; wait for it, or end it"
# The files and folders of the checkout that decide what is built, beside the Debian packages.
INPUTS: Final = (
    *(IMAGES_TOML.name, IMAGES_LOCK.name, "pyproject.toml", "requirements.txt"),
    *("debian-packages.txt", PACKER.name, PROVISION.name, TEMPLATES.name),
)


Build = Callable[[Sequence[images.Recipe]], Sequence[Artifact] | None]


def make(
    workspace: Workspace,
    version: str,
    wanted: Sequence[images.Recipe],
    *,
    build: Build,
    settings: publish.Settings,
    store: Store | None,
    on_line: Callable[[str], None],
    sign: bool = True,
) -> Path:
    """Make the folder of a release from images that `build` builds and tests; return it.

    `build` returns what it has made, or None to take what is in `artifacts/`.  With a `store`, the
    notes list what has changed since the release that was published before.  `sign` is as for
    `assemble`.

    Raises:
        UserError: A check failed; all checks come before the build.
        Failure: A build or a test failed.
    """
    with cache.lock(workspace.artifacts / LOCK, BUSY):
        revision = checks.tagged_revision(workspace, version)
        key = settings.key()
        if sign:
            signing.public_key(key)
        text = checks.changelog(workspace, version)
        before, old = previous(store, "release", version) if store else ("", None)
        return assemble(
            workspace,
            version,
            collect.collect(workspace, wanted, build(wanted)),
            revision=revision,
            key=key,
            text=text,
            previous=before,
            old=old,
            on_line=on_line,
            sign=sign,
        )


def assemble(
    workspace: Workspace,
    version: str,
    built: Sequence[collect.Built],
    *,
    revision: str,
    key: str,
    text: str,
    previous: str,
    old: Mapping[str, Mapping[str, Any]] | None,
    on_line: Callable[[str], None],
    sign: bool = True,
) -> Path:
    """Make the folder of a release, sign it, and return it; leave a finished one unchanged.

    Without `sign`, a computer that has the key signs it later: `folder.sign`.
    `text`, `previous` and `old` are those of `notes.release_notes`.

    Raises:
        UserError: gpg cannot sign, or the folder has other content and is being published.
    """
    folder = workspace.releases / version
    work = workspace.releases / f".{version}.work"
    cache.remove_tree(work)
    work.mkdir(parents=True)
    try:
        entries = []
        for one in built:
            on_line(f"bill of materials of {one.name}")
            for name in (f"{one.name}{MANIFEST}", *(e["name"] for e in one.manifest["files"])):
                os.link(workspace.artifacts / name, work / name)
            (work / f"{one.name}{sbom.SUFFIX}").write_text(sbom.bill_of_materials(one.manifest))
            entries.append(_entry(workspace, one))
        manifests = [one.manifest for one in built]
        release = index.Release(
            version=version,
            kind=index.kind(version),
            path=index.path(version),
            date=max(manifest["release"]["BUILD_DATE"] for manifest in manifests),
            revision=revision,
            key=key,
            images=sorted(entries, key=lambda image: image.image),
        )
        (work / index.RELEASE).write_bytes(index.dump(release))
        (work / index.NOTES).write_text(
            notes.release_notes(version, text, manifests, previous, old)
        )
        digests = {path.name: cache.file_digest(path) for path in work.iterdir()}
        (work / index.PROVENANCE).write_text(
            provenance.statement(
                digests.items(),
                manifests,
                version=version,
                repository=_repository(workspace),
                revision=revision,
                root=workspace.root,
                inputs=_inputs(workspace),
                tools=_tools(),
            )
        )
        digests[index.PROVENANCE] = cache.file_digest(work / index.PROVENANCE)
        lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
        (work / SUMS).write_text("".join(lines))
        done = not sign or (folder / f"{SUMS}.asc").is_file()
        if done and _same(work / SUMS, folder / SUMS):
            on_line(f"{folder} is complete already")
            return folder
        if sign:
            on_line(f"signing with key {key}")
            signing.sign(work / SUMS, key)
        if folder.exists():
            busy = f"{folder}: is being published as it was; wait for it, or end it"
            with cache.lock(workspace.artifacts / release_folder.PUBLISHING, busy):
                cache.remove_tree(folder)
        work.rename(folder)
    finally:
        cache.remove_tree(work)
    return folder


def previous(store: Store, kind: str, version: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the newest release of a kind before `version`, and image -> its manifest.

    The version is empty if there is none.
    """
    data = store.read(index.INDEX)
    published = index.read_index(data[0], f"{store.name}{index.INDEX}") if data else None
    found = [
        one
        for one in (published.available(kind) if published else [])
        if index.order(one.version) < index.order(version)
    ]
    if not found:
        return "", {}
    manifests = {}
    for image in found[0].images:
        text = store.read(f"{found[0].path}/{image.manifest}")
        if text is None:
            raise Failure(f"{store.name}{found[0].path}/{image.manifest}: is missing")
        manifests[image.image] = json.loads(text[0])
    return found[0].version, manifests


def _entry(workspace: Workspace, built: collect.Built) -> index.PublishedImage:
    manifest, recipe = built.manifest, built.recipe
    return index.PublishedImage(
        image=recipe.name,
        title=recipe.image.title,
        access=recipe.image.access,
        name=built.name,
        base=recipe.base_name,
        arch=recipe.base.arch,
        server=index.PublishedServer(
            name=manifest["server"]["name"],
            version=manifest["server"]["version"],
            title=manifest["release"]["SERVER_TITLE"],
        ),
        inputs=collect.inputs(workspace, built),
        files=[
            index.File(
                name=entry["name"],
                format=entry["format"],
                size=entry["size"],
                sha256=entry["sha256"],
            )
            for entry in manifest["files"]
        ],
        manifest=f"{built.name}{MANIFEST}",
        sbom=f"{built.name}{sbom.SUFFIX}",
    )


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _inputs(workspace: Workspace) -> list[Path]:
    listed = output(["git", "ls-files", "-z", *INPUTS], cwd=workspace.root)
    return [workspace.root / name for name in listed.split("\0") if name]


def _repository(workspace: Workspace) -> str:
    try:
        url = output(["git", "remote", "get-url", "origin"], cwd=workspace.root)
        return publish.clean_url(url)
    except Failure:
        return ""


@functools.cache
def _tools() -> dict[str, str]:
    tools = (*tool_versions.TOOLS, qemu.PROGRAM)
    return {tool.argv[0]: tool_versions.version(tool) or "missing" for tool in tools}
