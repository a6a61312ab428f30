"""Makers of OCI images: layers of entries, packed with umoci."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TAG = "made"


@dataclass(frozen=True)
class Entry:
    """One entry of a layer's tar; a name that ends in a slash is a directory."""

    name: str
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def folder(name: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    return Entry(name, mode=mode, uid=uid, gid=gid, kind=tarfile.DIRTYPE)


def link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, target=target, mode=0o777)


def hard(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def program(name: str, content: bytes = b"#!/bin/sh\n", mode: int = 0o755) -> Entry:
    return Entry(name, content, mode)


def write_layer(path: Path, entries: Sequence[Entry]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode = entry.kind, entry.target, entry.mode
            info.uid, info.gid, info.size = entry.uid, entry.gid, len(entry.content)
            info.mtime = 1_000_000_000
            info.pax_headers = {
                f"SCHILY.xattr.{name}": value for name, value in entry.attributes.items()
            }
            tar.addfile(info, io.BytesIO(entry.content))
    return path


def make_image(
    layout: Path, layers: Sequence[Sequence[Entry]], *config: str, arch: str = "amd64"
) -> Path:
    """Make an OCI layout; `config` are umoci's options, such as `--config.user=x`."""
    image = f"{layout}:{TAG}"
    commands = [["umoci", "init", "--layout", str(layout)], ["umoci", "new", "--image", image]]
    for number, entries in enumerate(layers):
        tar = write_layer(layout.with_name(f"{layout.name}-{number}.tar"), entries)
        commands.append(["umoci", "raw", "add-layer", "--image", image, str(tar)])
    commands.append(["umoci", "config", "--image", image, f"--architecture={arch}", *config])
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return layout


def copy_image(layout: Path, target: str) -> str:
    """Copy a layout to another transport of skopeo; return the reference."""
    argv = ["skopeo", "copy", "-q", f"oci:{layout}:{TAG}", target]
    subprocess.run(argv, check=True, capture_output=True)
    return target


def push_index(layout: Path, reference: str, images: dict[str, Path]) -> str:
    """Push layouts as one image with an index, by architecture; return the index's digest."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    manifests = []
    for arch, image in images.items():
        shutil.copytree(image / "blobs/sha256", blobs, dirs_exist_ok=True)
        (found,) = json.loads((image / "index.json").read_text())["manifests"]
        found["platform"] = {"os": "linux", "architecture": arch}
        found.pop("annotations", None)
        manifests.append(found)
    kind = "application/vnd.oci.image.index.v1+json"
    content = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    entry = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content),
             "annotations": {"org.opencontainers.image.ref.name": TAG}}  # fmt: skip
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    argv = ["skopeo", "copy", "-q", "--all", f"oci:{layout}:{TAG}", reference]
    subprocess.run(argv, check=True, capture_output=True)
    return f"sha256:{digest}"
