"""The graph of the stages.  A stage's key is the digest of everything that it is made from.

```
rootfs ----+
server ----+-- disk -- provision -- guest (master) -- package (a file for each format) -- boot test
workshop --+   (only in an image that has this addition)
```

All code that builds, reuses or judges an output asks the plan for its key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core.paths import ROOT
from hyraxvm.formats import made_for
from hyraxvm.stages.disk import stage as disk
from hyraxvm.stages.guest import stage as guest
from hyraxvm.stages.package import stage as package
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.workshop import stage as workshop


@dataclass(frozen=True)
class Plan:
    """The stages of one image, made from the checkout at `root`.

    `refresh` is the day for which packages are fetched again, or empty.
    """

    recipe: Recipe
    refresh: str = ""
    root: Path = ROOT

    @cached_property
    def rootfs(self) -> str:
        """The key of the root file system."""
        return rootfs.key(self.recipe, self.refresh, self.root)

    @cached_property
    def server(self) -> str:
        """The key of the packed server."""
        return server.key(self.recipe, self.refresh, self.root)

    @cached_property
    def workshop(self) -> str:
        """The key of the packed workshop; empty for an image without it."""
        if self.recipe.addition is None:
            return ""
        return workshop.key(self.recipe, self.refresh, self.root)

    @cached_property
    def disk(self) -> str:
        """The key of the disk that is not provisioned yet."""
        return disk.key(self.recipe, self.rootfs, self.server, self.workshop, self.root)

    def provision(self, image: ServerImage, files: str = "") -> str:
        """Return the key of the provisioned disk; `image` is what the server's stage has read.

        `files` is the digest of `image.files`, for an `image` from a manifest, which lacks them.
        """
        return provision.key(self.recipe, self.disk, image, files, self.root)

    def guest(self, image: ServerImage, files: str = "") -> str:
        """Return the key of the master; the arguments are those of `provision`."""
        return guest.key(self.recipe, self.provision(image, files), self.root)

    def formats(self, image: ServerImage, files: str = "") -> dict[str, str]:
        """Return format -> the key of its file; the arguments are those of `provision`."""
        master = self.guest(image, files)
        return {
            chosen.name: package.key(self.recipe, master, chosen, self.root)
            for chosen in made_for(self.recipe.arch)
        }
