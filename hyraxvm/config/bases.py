"""Bases in `images.toml`: the guest's system, and how one base extends another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hyraxvm.config import toml
from hyraxvm.config.arch import ArchName
from hyraxvm.config.toml import Model
from hyraxvm.config.values import (
    AbsolutePath,
    DebianPackage,
    Distribution,
    DpkgGlob,
    Identifier,
    KernelModule,
    Mirror,
    ModuleGlob,
    Name,
    Number,
    Origin,
    PythonVersion,
    Title,
    Unit,
)
from hyraxvm.core.errors import UserError


class Keyring(Model):
    """The file with the keys that sign a distribution, and the Debian package that has it."""

    file: AbsolutePath
    package: DebianPackage


class GuestOs(Model):
    """The names of a guest operating system in the descriptors of formats.

    `vmx` is `guestOS` in a VMX file.  `vmw` is `vmw:osType` in an OVF, `ovf` is its OSType of
    CIM_OperatingSystem (DSP0243).  `description` is for people.
    """

    vmx: Identifier
    vmw: Identifier
    ovf: Annotated[int, Field(ge=0, le=999)]
    description: Title


class Processor(Model):
    """What a base has on one architecture only: packages of the kernel and of boot loaders.

    `path_excludes` are paths that dpkg leaves out.  `guest_os` are the names in descriptors.
    """

    packages: list[DebianPackage]
    path_excludes: list[DpkgGlob] = Field(default_factory=list)
    guest_os: GuestOs


class Base(Model):
    """A guest operating system, which decides most of an image's size and speed."""

    distribution: Distribution
    version: Number
    short: Name
    suite: Name
    arch: ArchName
    keyring: Keyring | None = None
    mirror: Mirror | None = None
    components: list[Name] = Field(default_factory=list)
    python: PythonVersion
    packages: list[DebianPackage]
    initramfs_modules: list[KernelModule]
    path_excludes: list[DpkgGlob]
    # Where packages of kernels have their modules, and which are left out: below /*/kernel in it.
    modules: AbsolutePath
    module_excludes: list[ModuleGlob]
    # The unit that accepts SSH connections.
    ssh: Unit
    # Units that must never start.
    masked_units: list[Unit] = Field(default_factory=list)
    # Where upgrades may come from, as patterns of unattended-upgrades.
    upgrades: list[Origin]
    # The name of the newest such system that libosinfo knows on older hosts.
    osinfo: Identifier
    # Whether nobody has built an image on it yet.
    untried: bool = False
    on: dict[ArchName, Processor]

    @property
    def title(self) -> str:
        """The system's name for people, such as "Ubuntu 24.04"."""
        return f"{self.distribution} {self.version}"


class Lists(Model):
    """Items that a base adds to the lists of the base that it extends, or drops from them."""

    components: list[Name] = Field(default_factory=list)
    packages: list[DebianPackage] = Field(default_factory=list)
    initramfs_modules: list[KernelModule] = Field(default_factory=list)
    path_excludes: list[DpkgGlob] = Field(default_factory=list)
    module_excludes: list[ModuleGlob] = Field(default_factory=list)
    masked_units: list[Unit] = Field(default_factory=list)
    upgrades: list[Origin] = Field(default_factory=list)


class _BaseTable(toml.partial(Base)):  # type: ignore[misc]  # made from Base's own fields
    """A table `[base.NAME]` as it is written, without the keys of the base that it extends."""

    extends: Name | None = None
    add: Lists = Lists()
    drop: Lists = Lists()


def complete(tables: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Give each base the keys of the base that it extends.

    Return the tables of the complete bases, and for each other base the first key that it lacks;
    that base can only be extended.

    Raises `UserError`: a base has a fault, or is incomplete and no base extends it.
    """
    for name, table in tables.items():
        toml.check(path, table, _BaseTable, f"base.{name}")
    complete, incomplete = {}, {}
    extended = {table.get("extends") for table in tables.values()}
    for name in tables:
        base = _with_inherited(name, tables, path)
        missing = [
            key
            for key, field in Base.model_fields.items()
            if field.is_required() and key not in base
        ]
        if missing and name in extended:
            incomplete[name] = missing[0]
        else:
            toml.check(path, base, Base, f"base.{name}")
            complete[name] = base
    return complete, incomplete


def _with_inherited(
    name: str, tables: dict[str, Any], path: Path, extenders: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a base's keys, with those of the bases that it extends.

    A value of its own replaces the inherited value, a table replaces inherited keys one by one;
    `drop` and then `add` change inherited lists.  `extenders` are the bases, outermost first,
    through which this one is extended.
    """
    table = tables[name]
    parent, chain = table.get("extends"), (*extenders, name)
    place = f"{path}: base.{name}"
    if parent in chain:
        circle = " -> ".join([*chain[chain.index(parent) :], parent])
        raise UserError(f"{place}.extends: {parent!r} leads back to itself: {circle}")
    if parent is not None and parent not in tables:
        raise UserError(
            f"{place}.extends: there is no [base.{parent}]; "
            f"there are: {', '.join(sorted(tables.keys() - {name}))}"
        )
    found = _with_inherited(parent, tables, path, chain) if parent else {}
    own = {key: table[key] for key in table if key not in ("extends", "add", "drop")}
    found = _merge(found, own)
    for key, items in table.get("drop", {}).items():
        for item in items:
            if item not in found.get(key, []):
                raise UserError(f"{place}.drop.{key}: {item!r} is not in the list; remove it here")
        found[key] = [item for item in found.get(key, []) if item not in items]
    for key, items in table.get("add", {}).items():
        found[key] = [*found.get(key, []), *items]
    return found


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of both tables; values of `new` win, tables in both are merged likewise."""
    both = {
        key: _merge(old[key], new[key])
        for key in old.keys() & new.keys()
        if isinstance(old[key], dict) and isinstance(new[key], dict)
    }
    return {**old, **new, **both}
