"""The download page: one HTML file, made from the index, that loads nothing else.

Everything is in the HTML; the script only hides what was not asked for.
"""

from __future__ import annotations

import functools
from typing import Annotated, Final

from pydantic import Field

from hyraxvm.config import toml
from hyraxvm.config.images import Name, Title
from hyraxvm.config.toml import Model
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.release import index

TEMPLATE: Final = TEMPLATES / "download.html.j2"
TEXTS: Final = TEMPLATES / "download.toml"


class Hypervisor(Model):
    """A program that runs virtual machines, the format of its file, and the three steps."""

    id: Name
    title: Title
    format: Name
    steps: Annotated[list[str], Field(min_length=3, max_length=3)]


class Texts(Model):
    """The whole file."""

    hypervisor: list[Hypervisor]


@functools.cache
def hypervisors() -> list[Hypervisor]:
    """Return what the page says of each hypervisor; raise `UserError` if the file is wrong."""
    return toml.load(TEXTS, Texts).hypervisor


def render_page(published: index.Index) -> str:
    """Return the page as HTML: the newest release, else nightly, and older ones below it."""
    newest = published.find(published.latest.release or published.latest.nightly)
    images = newest.images if newest else []
    others = [
        (title, [one for one in published.available(kind) if one != newest])
        for kind, title in (("release", "Other releases"), ("nightly", "Nightly builds"))
    ]
    return render(
        TEMPLATE,
        newest=newest,
        others=[(title, found) for title, found in others if found],
        formats={file.format for image in images for file in image.files},
        hypervisors=hypervisors(),
        key_path=index.key_path,
        notes=index.NOTES,
        provenance=index.PROVENANCE,
    )
