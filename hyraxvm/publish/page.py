"""The download page: one HTML file, made from the index, that loads nothing else.

Everything is in the HTML; the script only hides what the reader did not choose.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from hyraxvm.config import toml
from hyraxvm.config.arch import ARCHES
from hyraxvm.config.images import Name, Title, base_title, load
from hyraxvm.config.toml import Model
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.formats import FORMATS
from hyraxvm.release import index

TEMPLATE: Final = TEMPLATES / "download.html.j2"
TEXTS: Final = TEMPLATES / "download.toml"
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


def _opening(images: Sequence[index.PublishedImage]) -> list[Hypervisor]:
    """Return the hypervisors that open images of these architectures; all if there is no image."""
    published = {one.arch for one in images}
    families = {arch.family for arch in ARCHES.values() if arch.name in published}
    return [
        one for one in hypervisors() if not families or families & {*FORMATS[one.format].families}
    ]


def render_page(published: index.Index) -> str:
    """Return the page as HTML: the newest release, else nightly, and older ones below it."""
    newest = published.find(published.latest.release or published.latest.nightly)
    images = newest.images if newest else []
    others = [
        (title, [one for one in published.available(kind) if one != newest])
        for kind, title in (("release", "Other releases"), ("nightly", "Nightly builds"))
    ]
    table = load()
    systems = dict.fromkeys(base_title(table, image.base) for image in images)
    return render(
        TEMPLATE,
        newest=newest,
        system=" or ".join(systems),
        others=[(title, found) for title, found in others if found],
        formats={file.format for image in images for file in image.files},
        hypervisors=_opening(images),
        key_path=index.key_path,
        notes=index.NOTES,
        provenance=index.PROVENANCE,
    )
