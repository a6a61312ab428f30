"""The download page: one HTML file, made from the index, that loads nothing else.

Everything is in the HTML; the script only hides what the reader did not choose.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from hyraxvm.config import toml
from hyraxvm.config.arch import ARCHES, DEFAULT, Arch
from hyraxvm.config.images import base_title, load
from hyraxvm.config.toml import Model
from hyraxvm.config.values import Name, Title
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.formats import FORMATS
from hyraxvm.release import index

TEMPLATE: Final = TEMPLATES / "download.html.j2"
TEXTS: Final = TEMPLATES / "download.toml"
# An index may name an architecture that is not in it.
_ARCHES: Final[dict[str, Arch]] = {arch.name: arch for arch in ARCHES.values()}
# The steps for a format that is not in `TEXTS`.
GENERAL: Final = [
    "Unpack the file, if your hypervisor does not take it as it is.",
    "Make a machine with this disk.",
    "Start it. After a minute its console shows the address to open.",
]


class Hypervisor(Model):
    """A program that runs virtual machines, the format of its file, and the three steps.

    The page replaces `{system}` in a step by the name of the system in the images.
    """

    id: Name
    title: Title
    format: Name
    steps: Annotated[list[str], Field(min_length=3, max_length=3)]


class Texts(Model):
    """The content of templates/download.toml."""

    hypervisor: list[Hypervisor]


@functools.cache
def hypervisors() -> list[Hypervisor]:
    """Return what the page says of each hypervisor; raise `UserError` if `TEXTS` is wrong.

    Formats that `TEXTS` does not have come last, with general steps.
    """
    found = toml.load(TEXTS, Texts).hypervisor
    known = {one.format for one in found}
    others = [
        Hypervisor(id=kind.name, title=kind.title, format=kind.name, steps=GENERAL)
        for kind in FORMATS.values()
        if kind.name not in known
    ]
    return [*found, *others]


@dataclass(frozen=True)
class Offer:
    """A hypervisor, and the architectures of the published images that it opens."""

    hypervisor: Hypervisor
    arches: tuple[str, ...]


def _offers(arches: Iterable[str]) -> list[Offer]:
    """Return the hypervisors that open images of at least one of these architectures.

    All open an architecture that this program does not know.
    """
    found = []
    for one in hypervisors():
        families = FORMATS[one.format].families
        opened = tuple(
            name for name in arches if name not in _ARCHES or _ARCHES[name].family in families
        )
        if opened:
            found.append(Offer(one, opened))
    return found


def render_page(published: index.Index) -> str:
    """Return the page as HTML: the newest release, else nightly, and older ones below it."""
    newest = published.find(published.latest.release or published.latest.nightly)
    images = newest.images if newest else []
    others = [
        (title, [one for one in published.available(kind) if one != newest])
        for kind, title in (("release", "Other releases"), ("nightly", "Nightly builds"))
    ]
    table = load()
    bases = {image.base: base_title(table, image.base) for image in images}
    # The usual architecture first.
    arches = {
        name: _ARCHES[name].processors if name in _ARCHES else name
        for name in sorted({image.arch for image in images}, key=lambda n: (n != DEFAULT.name, n))
    }
    return render(
        TEMPLATE,
        newest=newest,
        system=" or ".join(dict.fromkeys(bases.values())),
        bases=bases,
        arches=arches,
        families={name: _ARCHES[name].family if name in _ARCHES else "" for name in arches},
        titles={image.image: image.title for image in images},
        others=[(title, found) for title, found in others if found],
        formats={file.format for image in images for file in image.files},
        offers=_offers(arches),
        key_path=index.key_path,
        notes=index.NOTES,
        provenance=index.PROVENANCE,
    )
