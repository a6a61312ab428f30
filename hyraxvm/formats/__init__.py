"""The formats in which an image is shipped: the one list that declares them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import UserError
from hyraxvm.formats import hyperv, ova, qcow2, vmx_zip
from hyraxvm.formats.base import Contents, Format, Source

__all__ = [
    "FORMATS",
    "Contents",
    "Format",
    "Source",
    "choose",
    "for_images",
    "format_of",
    "image_name",
]

FORMATS: Final = {f.name: f for f in (vmx_zip.FORMAT, ova.FORMAT, qcow2.FORMAT, hyperv.FORMAT)}


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
