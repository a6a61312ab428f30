"""Where data come from: one class for each access kind of `images.toml`, and their interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.boot.guest import Guest
from tests.boot.localdisk import LocalDisk
from tests.boot.nfs import NfsServer
from tests.boot.smb import SmbServer


class FileServer(Protocol):
    """Serves files of the host's directory `export`, which become a data set in the guest.

    After `freeze`, connections stay open and nothing is answered until `thaw`.  `stop` acts like
    a power cut.
    """

    export: Path
    # The states that `hyrax-data status` may show for a data set without a problem.
    healthy: tuple[str, ...]

    def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def stop(self) -> None: ...

    def add(self, guest: Guest, name: str, folder: str = "") -> str:
        """Make `folder` of the files the data set `name`; return what `hyrax-data` says."""

    def source(self, name: str) -> str:
        """Return the source of the data set `name`, as `hyrax-data` shows it."""

    @property
    def writable(self) -> str:
        """Arguments of `mount` for the same files, writable."""


KINDS: dict[str, Callable[[Path, Path], FileServer]] = {
    "nfs": NfsServer,
    "smb": SmbServer,
    "local": LocalDisk,
}
