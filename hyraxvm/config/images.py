"""`images.toml`: the one place where every option of an image is declared.

The models below are the schema; `load()` reads the file and turns every fault in it into one
`UserError` line that names the file, the key, the offending value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hyraxvm.config import toml
from hyraxvm.config.toml import Model
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]*$", max_length=40)]
DebianPackage = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]+$")]
KernelModule = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
DpkgGlob = Annotated[str, StringConstraints(pattern=r"^!?/[^\s]+$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._+-]+)+$")]
TrimGlob = Annotated[str, StringConstraints(pattern=r"^(/[^/\s]+)+$")]
UrlPath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)+/?$")]
Megabytes = Annotated[int, Field(ge=1, le=100_000)]
Title = Annotated[str, StringConstraints(pattern=r"^[ -~]+$", max_length=80)]


AUTO = "auto"


class Base(Model):
    """A guest operating system; sizes and speeds of the image are decided here."""

    short: Name
    suite: Name
    arch: Literal["amd64"]
    packages: list[DebianPackage]
    initramfs_modules: list[KernelModule]
    path_excludes: list[DpkgGlob]


class Server(Model):
    """A DAP server, as an OCI image: packed here (`embedded`) or pulled from a registry."""

    title: Title
    source: Annotated[str, StringConstraints(pattern=r"^(embedded|docker://[a-z0-9][!-~]*)$")]
    folder: Name | None = None
    packages: list[DebianPackage] = Field(default_factory=list)
    data_root: AbsolutePath
    # The directory that the server shows at /, inside its own root; without one / is its own.
    home: AbsolutePath | None = None
    port: Annotated[int, Field(ge=1, le=65535)]
    health_path: UrlPath
    memory_mib: Annotated[int, Field(ge=0, le=65536, multiple_of=4)] = 0
    writable: list[AbsolutePath] = Field(default_factory=list)
    trim: list[TrimGlob] = Field(default_factory=list)


class Access(Model):
    """A way to reach data, and the Debian packages that it needs."""

    title: Title
    packages: list[DebianPackage]


class Machine(Model):
    """The virtual hardware that the shipped descriptor declares."""

    cpus: Annotated[int, Field(ge=1, le=16)]
    memory_mib: Annotated[int, Field(ge=512, le=65536, multiple_of=4)]
    disk_gib: Annotated[int, Field(ge=4, le=2048)]
    disk_controller: Literal["pvscsi", "lsisas1068"]
    nic: Literal["vmxnet3", "e1000", "e1000e"]
    firmware: Literal["bios", "efi"]


class Budget(Model):
    """The most that the packed server and each format's file may have, in MB (10^6 bytes)."""

    server: Megabytes
    vmx: Megabytes
    ova: Megabytes
    qcow2: Megabytes
    hyperv: Megabytes


class Image(Model):
    """What a user downloads: a base, an access kind and a machine; the server joins at build."""

    title: Title
    base: Name
    access: Name
    machine: Name


class Defaults(Model):
    """What is meant when nothing is said."""

    image: Name
    server: Name
    # What "auto" stands for: the first of these that can be had here.
    auto: Annotated[list[Name], Field(min_length=1)]


class Config(Model):
    """The whole file."""

    defaults: Defaults
    image: dict[Name, Image]
    access: dict[Name, Access]
    machine: dict[Name, Machine]
    server: dict[Name, Server]
    budget: dict[Name, Budget]
    base: dict[Name, Base]


class Recipe(Model):
    """One image with every reference resolved: what the stages work from."""

    name: Name
    image: Image
    base_name: Name
    base: Base
    access: Access
    machine: Machine
    server_name: Name
    server: Server
    budget: Budget
    # Where the server's image comes from (`docker://...`, `oci-archive:...`), and its digest;
    # empty for a server that is packed here.
    server_image: str = ""
    server_digest: str = ""

    @property
    def packages(self) -> list[str]:
        """The Debian packages of this image, sorted, each once."""
        return sorted({*self.base.packages, *self.access.packages})


def load(path: Path = IMAGES_TOML) -> Config:
    """Read and check `images.toml`.

    Raises `UserError`: the file is missing, is not TOML, or breaks the schema.
    """
    config = toml.load(path, Config)
    _check_references(config, path)
    for name, server in config.server.items():
        if server.source == "embedded" and not (server.folder and server.packages):
            raise UserError(f"{path}: server.{name}: an embedded server needs folder and packages")
    return config


def recipe(
    config: Config,
    image: str | None = None,
    server: str | None = None,
    server_image: str = "",
    server_digest: str = "",
) -> Recipe:
    """Resolve one image of the table; `None` means the file's default.

    Where the default server is `auto`, `None` means its last resort: `source.choose` finds out
    what can be had.  Raises `UserError`: there is no such image or server.
    """
    image_name = choose("image", image or config.defaults.image, config.image)
    wanted = server or config.defaults.server
    server_name = config.defaults.auto[-1] if wanted == AUTO else wanted
    chosen = config.image[image_name]
    served = config.server[choose("server", server_name, config.server)]
    machine = config.machine[chosen.machine]
    memory = max(machine.memory_mib, served.memory_mib)
    return Recipe(
        name=image_name,
        image=chosen,
        base_name=chosen.base,
        base=config.base[chosen.base],
        access=config.access[chosen.access],
        machine=machine.model_copy(update={"memory_mib": memory}),
        server_name=server_name,
        server=served,
        server_image=server_image,
        server_digest=server_digest,
        budget=config.budget[server_name],
    )


def choose(kind: str, name: str, table: Mapping[str, object]) -> str:
    """Return `name` if the table has it, else raise a `UserError` that lists what it has."""
    if name not in table:
        raise UserError(
            f"there is no {kind} {name!r}; images.toml has: {', '.join(sorted(table))} "
            "(`./inv list` shows all)"
        )
    return name


def _check_references(config: Config, path: Path) -> None:
    wanted: list[tuple[str, str, Mapping[str, object]]] = [
        ("defaults.image", config.defaults.image, config.image),
        ("defaults.server", config.defaults.server, {**config.server, AUTO: None}),
    ]
    wanted += [("defaults.auto.server", name, config.server) for name in config.defaults.auto]
    for name, image in config.image.items():
        wanted += [
            (f"image.{name}.base", image.base, config.base),
            (f"image.{name}.access", image.access, config.access),
            (f"image.{name}.machine", image.machine, config.machine),
        ]
    wanted += [(f"server.{name}.budget", name, config.budget) for name in config.server]
    for key, value, table in wanted:
        if value not in table:
            kind = key.rsplit(".", 1)[1]
            raise UserError(
                f"{path}: {key}: {value!r} names no [{kind}.*] table; "
                f"there are: {', '.join(sorted(table))}"
            )
