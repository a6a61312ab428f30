"""The shelf: files as they are shipped, made from a tiny master; and a helper for refusals."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.formats import FORMATS, Format, Source
from hyraxvm.formats.opening import open_artifact
from hyraxvm.stages.package import stage as package

DATE = "2026-01-02T03:04:06Z"
PACKAGES = {"bash": "5.2"}


@dataclass
class Shelf:
    """A folder of shipped files, such as `artifacts/`, and what they were made from."""

    folder: Path
    source: Source

    def build(self, *names: str, source: Source | None = None) -> list[Path]:
        source = source or self.source
        return package.build(
            self.folder,
            source,
            [FORMATS[name] for name in names or FORMATS],
            keys={
                name: package.key(source.recipe, source.master_key, chosen)
                for name, chosen in FORMATS.items()
            },
            packages=PACKAGES,
            timings={"rootfs": 1.5},
            largest=lambda: "largest packages",
            log=self.folder / "logs" / "package.log",
            on_line=lambda line: None,
        )

    def path(self, chosen: str | Format) -> Path:
        suffix = FORMATS[chosen].suffix if isinstance(chosen, str) else chosen.suffix
        return self.folder / f"{self.source.name}{suffix}"

    @property
    def manifest(self) -> dict[str, Any]:
        text = (self.folder / f"{self.source.name}.manifest.json").read_text()
        content: dict[str, Any] = json.loads(text)
        return content


def make_master(path: Path, seed: bytes = b"1") -> Path:
    """Make a disk of 4 GiB that begins with a file system of 24 MiB: some text, some noise."""
    tree = path.parent / "tree"
    (tree / "d").mkdir(parents=True, exist_ok=True)
    (tree / "text").write_bytes(seed + b"The same line again and again.\n" * 50_000)
    (tree / "d" / "noise").write_bytes(os.urandom(3_000_000))
    raw = path.with_suffix(".raw")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(raw), "24M"], check=True)
    with raw.open("r+b") as stream:
        stream.truncate(4 * 2**30)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)], check=True)
    raw.unlink()
    return path


def refused(path: Path, into: Path) -> str:
    """Return the one line with which opening an artifact is refused."""
    into.mkdir(exist_ok=True)
    with pytest.raises(UserError) as caught:
        open_artifact(path, into)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message
