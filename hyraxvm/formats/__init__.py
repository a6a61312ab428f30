"""The formats in which an image is shipped: the one list that declares them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hyraxvm.config import images
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML
from hyraxvm.formats import hyperv, ova, qcow2, vmx_zip
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
]

FORMATS: Final = {f.name: f for f in (vmx_zip.FORMAT, ova.FORMAT, qcow2.FORMAT, hyperv.FORMAT)}


def check(table: images.Config, path: Path = IMAGES_TOML) -> images.Config:
    """Return the table, if it says of formats what they take.

    Raises `UserError`: a budget or a machine names another format, or a machine lacks the devices
    of one that declares them.
    """
    for name, budget in table.budget.items():
        for key in budget:
            if key not in (images.SERVER, *FORMATS):
                raise UserError(
                    f"{path}: budget.{name}.{key}: there is no format {key!r}; "
                    f"expected: {', '.join((images.SERVER, *FORMATS))}"
                )
    declaring = [f.name for f in FORMATS.values() if f.declares]
    for name, machine in table.machine.items():
        for key in machine.devices.keys() ^ declaring:
            why = "is missing" if key in declaring else f"there is no descriptor in format {key!r}"
            raise UserError(
                f"{path}: machine.{name}.devices.{key}: {why}; expected: {', '.join(declaring)}"
            )
    return table


def choose(names: Iterable[str]) -> list[Format]:
    """The formats of these names, each once, in the list's order; all if none is named.

    Raises `UserError`: there is no such format.
    """
    wanted = set(names)
    for name in sorted(wanted):
        if name not in FORMATS:
            raise UserError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    return [f for f in FORMATS.values() if not wanted or f.name in wanted]


def for_images(count: int) -> list[list[Format]]:
    """Return the formats that each of `count` images is tested in.

    Each image gets the first format.  Of the others, each goes to one image, in turn.
    """
    first, *others = FORMATS.values()
    return [[first, *others[at::count]] for at in range(count)]


def format_of(artifact: Path) -> Format:
    """The format that a file's name tells; raises `UserError` for other names."""
    fitting = [f for f in FORMATS.values() if artifact.name.endswith(f.suffix)]
    if not fitting:
        suffixes = ", ".join(f.suffix for f in FORMATS.values())
        raise UserError(f"{artifact}: is no artifact; their names end with {suffixes}")
    return max(fitting, key=lambda f: len(f.suffix))


def image_name(artifact: Path) -> str:
    """The name that all formats of an image share."""
    return artifact.name.removesuffix(format_of(artifact).suffix)
