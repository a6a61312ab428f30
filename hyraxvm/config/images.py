"""`images.toml`: the one place where every option of an image is declared.

The models below are the schema.  `load()` reads the file and turns every fault in it into one
`UserError` line that names the file, the key, the offending value and what is expected.
`formats.check` compares what the file says about formats with the formats that there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from hyraxvm.config import bases, toml
from hyraxvm.config.arch import ARCHES, Arch, ArchName
from hyraxvm.config.bases import Base, Processor
from hyraxvm.config.toml import Model
from hyraxvm.config.values import (
    AbsolutePath,
    DebianPackage,
    Identifier,
    Megabytes,
    Name,
    PythonVersion,
    Sha256,
    Title,
    TrimGlob,
    UrlPath,
)
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML

AUTO: Final = "auto"
SERVER: Final = "server"  # the key of a budget that is not the name of a format
SERVER_PORT: Final = 8081  # of the data server, on the loopback; the front door has 8080


class Server(Model):
    """A DAP server, as an OCI image: packed here (`embedded`) or pulled from a registry."""

    title: Title
    source: Annotated[str, StringConstraints(pattern=r"^(embedded|docker://[a-z0-9][!-~]*)$")]
    folder: Name | None = None
    packages: list[DebianPackage] = Field(default_factory=list)
    data_root: AbsolutePath
    # Where an image without a folder listens, in a network of its own; others: SERVER_PORT.
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    health_path: UrlPath
    memory_mib: Annotated[int, Field(ge=0, le=65536, multiple_of=4)] = 0
    writable: list[AbsolutePath] = Field(default_factory=list)
    trim: list[TrimGlob] = Field(default_factory=list)


class Access(Model):
    """A way to reach data, and the Debian packages that it needs."""

    title: Title
    packages: list[DebianPackage]


class SourcesForR(Model):
    """Sources of R packages: Debian source package -> SHA-256 of its tarball, which is CRAN's.

    They come from the archive of the base, which need not be the image's.
    """

    base: Name
    packages: dict[DebianPackage, Sha256]


class Clients(Model):
    """Packages for readers' own computers: wheels, and sources for R.

    The wheels are for this version of Python; `platforms` has pip's tags of each system.
    """

    python: PythonVersion
    platforms: dict[Name, Annotated[list[Identifier], Field(min_length=1)]]
    r: SourcesForR


class Addition(Model):
    """What an image has beside its server: a second squashfs, and files from `provision/NAME/`.

    `packages` are the Debian packages in that squashfs, and `trim` lists what is left out of it.
    `clients` are packages in it that readers install on their own computers.  `budget` is the most
    that the squashfs may have, and that each file of the image may have more.
    """

    title: Title
    packages: list[DebianPackage]
    trim: list[TrimGlob] = Field(default_factory=list)
    memory_mib: Annotated[int, Field(ge=0, le=65536, multiple_of=4)] = 0
    clients: Clients
    budget: Megabytes


class Devices(Model):
    """The devices that one format's descriptor declares."""

    disk_controller: Literal["pvscsi", "lsisas1068", "nvme"]
    nic: Literal["vmxnet3", "e1000", "e1000e"]
    firmware: Literal["bios", "efi"]


class Machine(Model):
    """The virtual hardware: sizes for all formats, devices for those with a descriptor.

    `on` has the devices on another architecture than the usual one.
    """

    cpus: Annotated[int, Field(ge=1, le=16)]
    memory_mib: Annotated[int, Field(ge=512, le=65536, multiple_of=4)]
    disk_gib: Annotated[int, Field(ge=4, le=2048)]
    devices: dict[Name, Devices]
    on: dict[ArchName, dict[Name, Devices]] = Field(default_factory=dict)


# Format, or "server" for the packed server -> the most that it may have, in MB (10^6 bytes).
Budget = dict[Name, Megabytes]


class Image(Model):
    """What a user downloads: a base, an access kind and a machine; the server joins at build.

    `tested` is whether `./inv test` builds and boots it when no image is named.
    """

    title: Title
    base: Name
    access: Name
    machine: Name
    addition: Name | None = None
    tested: bool = True


class Defaults(Model):
    """Defaults for options that are not given on the command line."""

    image: Name
    server: Name
    # What "auto" means: the first of these servers that is available here.
    auto: Annotated[list[Name], Field(min_length=1)]


class Config(Model):
    """The content of `images.toml`."""

    defaults: Defaults
    image: dict[Name, Image]
    access: dict[Name, Access]
    addition: dict[Name, Addition] = Field(default_factory=dict)
    machine: dict[Name, Machine]
    server: dict[Name, Server]
    budget: dict[Name, Budget] = Field(default_factory=dict)
    base: dict[Name, Base]


class Recipe(Model):
    """One image with every reference resolved: the input of the stages."""

    name: Name
    image: Image
    base_name: Name
    base: Base
    arch_name: ArchName
    access: Access
    addition: Addition | None = None
    # The base from whose archive the addition's sources for R come.
    r_base: Base | None = None
    machine: Machine
    server_name: Name
    server: Server
    budget: Budget = Field(default_factory=dict)
    # Where the server's image comes from (`docker://...`, `oci-archive:...`), and its digest; both
    # are empty for a server that is packed here.
    server_image: str = ""
    server_digest: str = ""

    @property
    def arch(self) -> Arch:
        """The architecture of the image."""
        return ARCHES[self.arch_name]

    @property
    def processor(self) -> Processor:
        """What the base has on this architecture only."""
        return self.base.on[self.arch_name]

    @property
    def packages(self) -> list[str]:
        """The Debian packages of this image, sorted, each once."""
        return sorted({*self.base.packages, *self.processor.packages, *self.access.packages})

    @property
    def path_excludes(self) -> list[str]:
        """Paths that dpkg leaves out, or brings back with "!"; the last line that fits wins."""
        kernel = f"{self.base.modules}/*/kernel"
        modules = [
            f"!{kernel}/{glob[1:]}" if glob.startswith("!") else f"{kernel}/{glob}"
            for glob in self.base.module_excludes
        ]
        return [*self.base.path_excludes, *modules, *self.processor.path_excludes]


def load(path: Path = IMAGES_TOML) -> Config:
    """Read and check `images.toml`.

    Raises `UserError`: the file is missing, is not TOML, or breaks the schema.
    """
    table = toml.parse(path)
    incomplete: dict[str, str] = {}
    if isinstance(tables := table.get("base"), dict):
        table["base"], incomplete = bases.complete(tables, path)
    config = toml.check(path, table, Config)
    _check_references(config, path, incomplete)
    _check_names(config, path)
    for name, server in config.server.items():
        if server.source == "embedded" and not (server.folder and server.packages):
            raise UserError(
                f"{path}: server.{name}: source 'embedded' also needs folder and packages; add them"
            )
    return config


def recipe(
    config: Config,
    image: str | None = None,
    server: str | None = None,
    server_image: str = "",
    server_digest: str = "",
    base: str | None = None,
    arch: str | None = None,
) -> Recipe:
    """Resolve one image of the table.

    Without `image` or `server` the default of the file is used, without `base` that of the image,
    without `arch` that of the base.
    If the default server is `auto`, it is the last one that `auto` lists:
    `hyraxvm.stages.server.choice` finds out which one is available.  The machine has at least as
    much memory as the server or the addition needs.

    Raises `UserError`: there is no such image, server or base, its base is not for this
    architecture, or its machine has firmware that the architecture lacks.
    """
    image_name = choose("image", image or config.defaults.image, config.image)
    wanted = server or config.defaults.server
    server_name = config.defaults.auto[-1] if wanted == AUTO else wanted
    chosen = config.image[image_name]
    served = config.server[choose("server", server_name, config.server)]
    machine = config.machine[chosen.machine]
    addition = config.addition[chosen.addition] if chosen.addition else None
    needed = max(served.memory_mib, addition.memory_mib if addition else 0)
    budget = dict(config.budget.get(server_name, {}))
    if addition:
        budget = {key: mb + (key != SERVER) * addition.budget for key, mb in budget.items()}
    base_name = choose("base", base or chosen.base, config.base)
    system = config.base[base_name]
    wanted = arch or system.arch
    arch_name = next((name for name in system.on if name == wanted), None)
    if arch_name is None:
        others = [name for name, value in config.base.items() if wanted in value.on]
        raise UserError(
            f"base {base_name!r} is not for {wanted}: images.toml has no "
            f"[base.{base_name}.on.{wanted}]; it has: {', '.join(system.on)}; "
            + (f"type: --base {others[0]}" if others else "leave --arch out")
        )
    found = Recipe(
        name=image_name,
        image=chosen.model_copy(update={"base": base_name}),
        base_name=base_name,
        base=system,
        arch_name=arch_name,
        access=config.access[chosen.access],
        addition=addition,
        r_base=config.base[addition.clients.r.base] if addition else None,
        machine=machine.model_copy(
            update={
                "memory_mib": max(machine.memory_mib, needed),
                "devices": machine.on.get(arch_name, machine.devices),
                "on": {},
            }
        ),
        server_name=server_name,
        server=served,
        server_image=server_image,
        server_digest=server_digest,
        budget=budget,
    )
    for kind, devices in found.machine.devices.items():
        if devices.firmware == "bios" and not found.arch.bios:
            raise UserError(
                f"images.toml: machine.{chosen.machine}.devices.{kind}.firmware: 'bios': "
                f"{arch_name} has no BIOS; expected: [machine.{chosen.machine}.on.{arch_name}]"
            )
    return found


def choose(kind: str, name: str, table: Mapping[str, object]) -> str:
    """Return `name` if the table has it; raise a `UserError` that lists its names if not."""
    if name not in table:
        raise UserError(
            f"there is no {kind} {name!r}; images.toml has: {', '.join(sorted(table))} "
            "(`./inv list` shows all)"
        )
    return name


def other_bases(config: Config) -> list[str]:
    """Return the bases that no tested image is made of, without those that are untried."""
    used = {image.base for image in config.image.values() if image.tested}
    return [name for name, base in config.base.items() if name not in used and not base.untried]


def base_title(config: Config, name: str) -> str:
    """Return a base's title, or its name if the table does not have it any more."""
    return config.base[name].title if name in config.base else name


def _check_references(config: Config, path: Path, incomplete: Mapping[str, str]) -> None:
    # Key, its value, the kind of table that it refers to, and what there is of that kind.
    wanted: list[tuple[str, str, str, Mapping[Any, object]]] = [
        ("defaults.image", config.defaults.image, "image", config.image),
        ("defaults.server", config.defaults.server, "server", {**config.server, AUTO: None}),
    ]
    wanted += [("defaults.auto", name, "server", config.server) for name in config.defaults.auto]
    for name, image in config.image.items():
        wanted += [
            (f"image.{name}.base", image.base, "base", config.base),
            (f"image.{name}.access", image.access, "access", config.access),
            (f"image.{name}.machine", image.machine, "machine", config.machine),
        ]
        if image.addition:
            wanted.append((f"image.{name}.addition", image.addition, "addition", config.addition))
    for name, addition in config.addition.items():
        key = f"addition.{name}.clients.r.base"
        wanted.append((key, addition.clients.r.base, "base", config.base))
    wanted += [(f"budget.{name}", name, "server", config.server) for name in config.budget]
    for name, base in config.base.items():
        wanted.append((f"base.{name}.arch", base.arch, f"base.{name}.on", base.on))
    for key, value, kind, table in wanted:
        if value not in table:
            lack = incomplete.get(value) if kind == "base" else None
            why = f"{value!r} lacks {lack}, so it can only be extended" if lack else ""
            raise UserError(
                f"{path}: {key}: {why or f'there is no [{kind}.{value}]'}; "
                f"there are: {', '.join(sorted(table))}"
            )


def _check_names(config: Config, path: Path) -> None:
    """Refuse images if files of two of them could have the same name.

    The server's version, which follows image and server in a name, begins with a digit.
    """
    labels = [
        (f"{image}-{server}", image, server) for image in config.image for server in config.server
    ]
    for one, image, server in labels:
        for other, image2, server2 in labels:
            same = re.fullmatch(rf"{re.escape(one)}([0-9].*)?", other)
            if same and (image, server) != (image2, server2):
                raise UserError(
                    f"{path}: image.{image2} with server {server2} and image.{image} with "
                    f"server {server} could have files of the same names; rename one of them"
                )
