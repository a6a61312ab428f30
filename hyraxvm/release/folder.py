"""The folder of a finished release: signed, and checked before it is published.

The job that signs has few packages: this module imports nothing of the stages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hyraxvm.config.names import SUMS
from hyraxvm.core import cache
from hyraxvm.core.errors import UserError
from hyraxvm.formats.verify import sums
from hyraxvm.release import index, signing

PUBLISHING: Final = ".publish.lock"  # in artifacts/, shared by those who publish a release


def sign(folder: Path, key: str) -> None:
    """Sign a folder that was made without the key, once every file in it is as it is listed.

    Raises `UserError`: a file is missing or changed, or the release names another key.
    """
    check(folder)
    release = index.read_release((folder / index.RELEASE).read_bytes(), str(folder / index.RELEASE))
    if release.key != key:
        raise UserError(f"{folder / index.RELEASE}: names key {release.key}, publish.toml {key}")
    signing.sign(folder / SUMS, key)


def check(folder: Path) -> None:
    """Raise `UserError` unless a folder has exactly the files of its list, with their digests."""
    listed = folder / SUMS
    if not listed.is_file():
        raise UserError(f"{folder}: no finished release; type: ./inv release {folder.name}")
    said = sums(listed)
    there = {path.name for path in folder.iterdir()}
    if strangers := there - said.keys() - {SUMS, f"{SUMS}.asc"}:
        raise UserError(f"{folder / min(strangers)}: is not in {SUMS}; remove it")
    for name, digest in said.items():
        if name not in there or cache.file_digest(folder / name) != digest:
            raise UserError(f"{folder / name}: is missing, or not what {SUMS} says")


def read(folder: Path, key: bytes, fingerprint: str) -> index.Release:
    """Check a release's folder and every file in it; return the release.

    Raises:
        UserError: The folder is missing, not signed by the key, or a file is missing or changed.
    """
    listed = folder / SUMS
    if listed.is_file():  # else `check` says what to do
        signing.verify(listed, folder / f"{SUMS}.asc", key, fingerprint)
    check(folder)
    release = index.read_release((folder / index.RELEASE).read_bytes(), str(folder / index.RELEASE))
    if release.version != folder.name:
        raise UserError(
            f"{folder}: holds release {release.version}; expected: release {folder.name}"
        )
    return release
