"""The interface of a format: how its file is named, written and read."""

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

    `image` is the server's image and `master` the disk (qcow2) that all formats hold.
    `master_key` is the key of the stage that made `master`.  `release` has the variables of the
    guest's version file.  `refresh` is the day on which packages were fetched again, or empty.
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
    """What an artifact holds: the folder that it was unpacked to, the machines that can boot it."""

    folder: Path
    specs: dict[str, MachineSpec]


@dataclass(frozen=True)
class Format:
    """One kind of file that users download.

    `texts(recipe, name, image)` returns file name -> text of the files beside the disk.
    `write(source, target, work, log)` makes the file `target`; `work` is an empty folder for its
    parts, `log` gets the output of programs.  It returns the files that `target` contains.
    `read(artifact, into)` unpacks a file that nobody vouches for into an existing folder.  It
    raises `UserError` with the reason if it refuses the file.
    `module` is the name of the module, `templates` are the files that it renders.
    `machines` are the names of the machines that `read` returns.
    `has_descriptor` is whether the file says which memory, CPUs and devices its machine has; the
    devices are those of `[machine.NAME.devices]` in images.toml.
    `families` are the families of processors whose hypervisors open it.
    `whole_contract` is whether boot tests check the whole contract of the guest in this format.
    The other formats hold the same disk and are tested briefly.
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
    has_descriptor: bool
    families: tuple[str, ...] = ("x86",)
    whole_contract: bool = False
