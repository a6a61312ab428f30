"""The formats that an image is shipped in: the one list that declares them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hyraxvm.config import images
from hyraxvm.config.arch import ARCHES, DEFAULT, Arch
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML
from hyraxvm.formats import hyperv, ova, qcow2, utm, vmx_zip
from hyraxvm.formats.base import Contents, Format, Source

__all__ = [
    "FORMATS",
    "Contents",
    "Format",
    "Source",
    "check",
    "choose",
    "for_images",
    "format_of",
    "image_name",
    "made_for",
]

FORMATS: Final = {
    f.name: f for f in (vmx_zip.FORMAT, ova.FORMAT, qcow2.FORMAT, hyperv.FORMAT, utm.FORMAT)
}


def check(table: images.Config, path: Path = IMAGES_TOML) -> images.Config:
    """Return `table`, unchanged, if its budgets and devices fit the formats that there are.

    `path` is the file that messages name.

    Raises `UserError`: a budget names an unknown format; a machine has devices for a format that
    has no descriptor, or lacks those of a format that has one.
    """
    for name, budget in table.budget.items():
        for key in budget:
            if key not in (images.SERVER, *FORMATS):
                raise UserError(
                    f"{path}: budget.{name}.{key}: there is no format {key!r}; "
                    f"expected: {', '.join((images.SERVER, *FORMATS))}"
                )
    for name, machine in table.machine.items():
        _check_devices(f"{path}: machine.{name}.devices", machine.devices, DEFAULT)
        for arch, devices in machine.on.items():
            _check_devices(f"{path}: machine.{name}.on.{arch}", devices, ARCHES[arch])
    return table


def _check_devices(place: str, devices: Iterable[str], arch: Arch) -> None:
    described = [f.name for f in made_for(arch) if f.has_descriptor]
    for key in sorted({*devices} ^ {*described}):
        why = "is missing" if key in described else f"format {key!r} has no descriptor"
        raise UserError(f"{place}.{key}: {why}; expected: {', '.join(described)}")


def made_for(arch: Arch) -> list[Format]:
    """Return the formats that images of an architecture are made in."""
    return [f for f in FORMATS.values() if arch.family in f.families]


def choose(names: Iterable[str], arch: Arch | None = None) -> list[Format]:
    """Return the formats with these names, each once, in the list's order; all if none is named.

    With `arch`, only those that are made for it.  Raises `UserError`: a name is not that of a
    format, or not of one for `arch`.
    """
    wanted, there = set(names), made_for(arch) if arch else [*FORMATS.values()]
    for name in sorted(wanted):
        if name not in FORMATS:
            raise UserError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
        if arch and FORMATS[name] not in there:
            raise UserError(
                f"format {name!r} is not made for {arch.name}; "
                f"expected: {', '.join(f.name for f in there)}"
            )
    return [f for f in there if not wanted or f.name in wanted]


def for_images(count: int) -> list[list[Format]]:
    """Return for each of `count` images the list of formats that it is tested in.

    Each image gets the first format.  The other formats are dealt out to the images in turn.
    """
    first, *others = made_for(DEFAULT)
    return [[first, *others[at::count]] for at in range(count)]


def format_of(artifact: Path) -> Format:
    """Return the format whose suffix a file's name has; raises `UserError` if none fits."""
    fitting = [f for f in FORMATS.values() if artifact.name.endswith(f.suffix)]
    if not fitting:
        suffixes = ", ".join(f.suffix for f in FORMATS.values())
        raise UserError(f"{artifact}: is not an artifact; expected: a name with {suffixes}")
    return max(fitting, key=lambda f: len(f.suffix))


def image_name(artifact: Path) -> str:
    """Return an artifact's name without its suffix, which all formats of an image share."""
    return artifact.name.removesuffix(format_of(artifact).suffix)
