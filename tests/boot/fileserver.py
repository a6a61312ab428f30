"""Where data come from, one kind for each access kind of `images.toml`, and what all have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.boot.guest import Guest
from tests.boot.localdisk import LocalDisk
from tests.boot.nfs import NfsServer
from tests.boot.smb import SmbServer


class FileServer(Protocol):
    """Files of the host's directory `export`, as a data set in the guest.

    `freeze` leaves connections open and answers nothing until `thaw`; `stop` is a power cut.
    """

    export: Path
    # What `hyrax-data status` may say of a data set that is all right.
    healthy: tuple[str, ...]

    def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def stop(self) -> None: ...

    def add(self, guest: Guest, name: str, folder: str = "") -> str:
        """Make `folder` of the files the data set `name`; return what `hyrax-data` says."""

    def source(self, name: str) -> str:
        """Return where the data set `name` comes from, as `hyrax-data` shows it."""

    @property
    def writable(self) -> str:
        """`mount`'s arguments for the same files, to be written to."""


KINDS: dict[str, Callable[[Path, Path], FileServer]] = {
    "nfs": NfsServer,
    "smb": SmbServer,
    "local": LocalDisk,
}
