"""Makers for the tests of releases: tiny images, signed folders, a bucket."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyraxvm import __version__
from hyraxvm.config import images, names, publish
from hyraxvm.config.arch import DEFAULT
from hyraxvm.config.model import FULL
from hyraxvm.config.names import SUMS
from hyraxvm.core import archives, cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import made_for
from hyraxvm.publish import publisher
from hyraxvm.release import assemble as release
from hyraxvm.release import collect, index, signing
from hyraxvm.stages.boot_test import verdict
from hyraxvm.stages.server import stage as server
from hyraxvm.store.s3 import Store
from tests.unit.store.loopback import Rclone

FORMATS = {kind.name: kind for kind in made_for(DEFAULT)}
NFS = images.recipe(images.load(), "nfs", "dapdir")
NAME = names.artifact_name(NFS, "1.0.0")  # of the image that `make_image` makes
PACKAGES = {"bash": "5.2", "libstdc++6": "12.2.0-14", "openssh-server": "1:9.2p1-2"}


@dataclass
class Shop:
    """A new bucket in the store, and helpers to publish into it and to check it."""

    server: Rclone
    bucket: str
    key: str
    prefix: str = "vm/"

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        """The bucket's folder on the disk."""
        return self.server.folder / self.bucket

    def settings(self, url: str = "", keep: int = 2) -> publish.Settings:
        return publish.Settings.model_validate(
            {
                "store": {
                    "bucket": self.bucket,
                    "prefix": self.prefix,
                    "endpoint": url or self.server.url,
                    "region": "",
                    "profile": "",
                    "cache": "",
                },
                "download": {"url": ""},
                "signing": {"key": self.key},
                "nightly": {"keep": keep},
            }
        )

    def store(self, url: str = "") -> Store:
        return Store(self.settings(url).store)

    def send(
        self, folder: Path, to: Store | None = None, *, keep: int = 2, dry_run: bool = False
    ) -> list[str]:
        """Publish a finished release; return the messages."""
        said: list[str] = []
        publisher.publish_folder(
            workspace(folder.parents[1]),
            to or self.store(),
            folder,
            signing.public_key(self.key),
            self.settings(keep=keep),
            said.append,
            dry_run=dry_run,
        )
        return said

    def objects(self) -> set[str]:
        """Return the names of the objects that readers see, without the prefix."""
        top = self.folder / self.prefix
        return {
            str(path.relative_to(top))
            for path in top.rglob("*")
            if path.is_file() and not path.name.startswith(".rclone")
        }

    def read(self, key: str) -> bytes:
        return (self.folder / self.prefix / key).read_bytes()

    def index(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read("index.json"))
        return found

    def check(self, page: bool = True) -> None:
        """Check that all that the index and the page name exists, with the signed digests."""
        for one in self.index()["releases"]:
            listed = self.read(f"{one['path']}/{SUMS}").decode().splitlines()
            for line in listed:
                digest, name = line.split("  ")
                path = self.folder / self.prefix / one["path"] / name
                assert cache.file_digest(path) == digest, path
            assert {file["name"] for image in one["images"] for file in image["files"]} <= {
                line.split("  ")[1] for line in listed
            }
        links = re.findall(r'href="([^"#]+)"', self.read("index.html").decode())
        for link in links if page else ():
            assert (self.folder / self.prefix / link).is_file(), link


def make_image(
    folder: Path,
    image: str = "nfs",
    *,
    packages: dict[str, str] | None = None,
    seed: bytes = b"",
    refresh: str = "",
) -> collect.Built:
    """Put files and a manifest of an image into `folder`, as the packaging stage does."""
    recipe = images.recipe(images.load(), image, "dapdir")
    described = server.preview(recipe).model_dump()
    described |= {"image_digest": f"sha256:{'ab' * 32}", "packages": {"pypi/numpy": "2.3.5"}}
    name = names.artifact_name(recipe, "1.0.0")
    files = []
    for chosen in FORMATS.values():
        path = folder / f"{name}{chosen.suffix}"
        text = folder / "disk"
        text.write_bytes((chosen.name.encode() + seed) * 5000)
        if path.suffix == ".zip":
            archives.pack_zip(path, name, [text], "2026-01-02T03:04:06Z")
        else:
            path.write_bytes(text.read_bytes())
        text.unlink()
        entry = {"name": path.name, "size": path.stat().st_size, "format": chosen.name}
        files.append({**entry, "sha256": cache.file_digest(path), "contents": []})
    manifest = {
        "schema": 1,
        "name": name,
        "release": {
            "VERSION": __version__,
            "IMAGE": image,
            "SERVER": "dapdir",
            "SERVER_TITLE": recipe.server.title,
            "BASE": recipe.base_name,
            "ARCH": recipe.arch_name,
            "GIT_REVISION": "0123456789ab",
            "BUILD_DATE": "2026-01-02T03:04:06Z",
        },
        "system": recipe.base.model_dump(include={"distribution", "version"}),
        "server": described,
        "made_from": {"refresh": refresh, "server_files": cache.digest({})},
        "packages": packages or PACKAGES,
        "files": files,
    }
    keys = collect.keys(workspace(folder), recipe, manifest)
    for entry, chosen in zip(files, FORMATS.values(), strict=True):
        entry["key"] = keys[chosen.name]
    (folder / f"{name}.manifest.json").write_text(json.dumps(manifest))
    return collect.Built(recipe, manifest)


def passed(path: Path, reports: Path, level: str = FULL) -> None:
    """Write the verdict that a passed boot test leaves."""
    folder = reports / path.name
    folder.mkdir(parents=True, exist_ok=True)
    found = {"key": verdict.key(path), "level": level, "seconds": 1.0}
    (folder / "verdict.json").write_text(json.dumps(found))


def workspace(artifacts: Path) -> Workspace:
    """Return this checkout with another `artifacts/`, and a cache beside it."""
    return Workspace(ROOT, artifacts, StageCache(artifacts.with_name(f"{artifacts.name}-cache")))


@contextlib.contextmanager
def workshop(folder: Path) -> Iterator[Workspace]:
    """Make every task use another `artifacts/` inside this block."""
    with pytest.MonkeyPatch.context() as patch:
        made = workspace(folder)
        patch.setattr(Workspace, "here", lambda: made)
        yield made


def assemble(
    folder: Path, version: str, built: Sequence[collect.Built], key: str, **more: Any
) -> Path:
    return release.assemble(
        workspace(folder),
        version,
        built,
        **{
            "revision": "0123456789ab" + "0" * 28,
            "key": key,
            "text": "- Something new.",
            "previous": "",
            "old": {},
            "on_line": lambda line: None,
            **more,
        },
    )


def bare(folder: Path, key: str, name: str, data: bytes) -> Path:
    """A signed release of one file and nothing else; its version is the folder's name."""
    folder.mkdir()
    (folder / name).write_bytes(data)
    kind = next(one.name for one in FORMATS.values() if name.endswith(one.suffix))
    digest = cache.file_digest(folder / name)
    image = index.PublishedImage(
        image="nfs",
        title="An image",
        access="nfs",
        name="image",
        base=NFS.base_name,
        arch=NFS.arch_name,
        server=index.PublishedServer(name="dapdir", version="1", title="dapdir"),
        inputs="0" * 64,
        files=[index.File(name=name, format=kind, size=len(data), sha256=digest)],
        manifest="image.manifest.json",
        sbom="image.cdx.json",
    )
    entry = index.Release(
        version=folder.name,
        kind="release",
        path=index.path(folder.name),
        date="2026-01-02T03:04:06Z",
        revision="0",
        key=key,
        images=[image],
    )
    (folder / index.RELEASE).write_bytes(index.dump(entry))
    sign(folder, key)
    return folder


def sign(folder: Path, key: str) -> None:
    """Sign a folder with its present content."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(SUMS)]
    lines = [f"{cache.file_digest(path)}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines))
    signing.sign(folder / SUMS, key)
