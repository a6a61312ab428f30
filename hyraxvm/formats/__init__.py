"""The formats that an image is shipped in: the one list that declares them."""

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
    described = [f.name for f in FORMATS.values() if f.has_descriptor]
    for name, machine in table.machine.items():
        for key in sorted(machine.devices.keys() ^ described):
            why = "is missing" if key in described else f"format {key!r} has no descriptor"
            raise UserError(
                f"{path}: machine.{name}.devices.{key}: {why}; expected: {', '.join(described)}"
            )
    return table


def choose(names: Iterable[str]) -> list[Format]:
    """Return the formats with these names, each once, in the list's order; all if none is named.

    Raises `UserError`: a name is not that of a format.
    """
    wanted = set(names)
    for name in sorted(wanted):
        if name not in FORMATS:
            raise UserError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    return [f for f in FORMATS.values() if not wanted or f.name in wanted]


def for_images(count: int) -> list[list[Format]]:
    """Return for each of `count` images the list of formats that it is tested in.

    Each image gets the first format.  The other formats are dealt out to the images in turn.
    """
    first, *others = FORMATS.values()
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
