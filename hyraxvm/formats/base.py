"""What a format of an artifact is: how its file is named, written and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hyraxvm.config import names
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.vm.qemu import MachineSpec


@dataclass(frozen=True)
class Source:
    """What every format of an image is made from.

    `master_key` is the key of the stage that made `master`, `release` the guest's version file,
    `refresh` the day for which packages were fetched anew, or empty.
    """

    recipe: Recipe
    image: ServerImage
    master: Path
    master_key: str
    release: dict[str, str]
    refresh: str = ""

    @property
    def name(self) -> str:
        """The artifact's name without a suffix."""
        return names.artifact_name(self.recipe, self.image.version)


class Contents(NamedTuple):
    """What an artifact holds: the directory it was unpacked to, and the machines to boot it as."""

    folder: Path
    specs: dict[str, MachineSpec]


@dataclass(frozen=True)
class Format:
    """One kind of file that users download.

    `texts` gives file name -> text of what lies beside the disk.  `write` makes the file (second
    argument) in an empty directory (third) with a log (fourth), and returns the files that it has
    put into it.  `read` unpacks a file that nobody vouches for into an existing directory; it
    raises `UserError` with the reason why not.  `module` is the name of its module,
    `templates` are the files that it renders.
    `machines` are the names of what `read` returns.
    `declares` is whether the file has a descriptor, which says how much memory and how many CPUs it
    wants, and which devices: those of `[machine.NAME.devices]` in images.toml.
    `whole_contract` is whether boot tests hold this format to the whole contract of the guest; the
    others hold the same disk, and are tested briefly.
    """

    name: str
    suffix: str
    title: str
    texts: Callable[[Recipe, str, ServerImage], dict[str, str]]
    write: Callable[[Source, Path, Path, Path], list[Path]]
    read: Callable[[Path, Path], Contents]
    module: str
    templates: tuple[Path, ...]
    machines: tuple[str, ...]
    declares: bool
    whole_contract: bool = False
