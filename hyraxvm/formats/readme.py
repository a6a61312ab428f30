"""The READMEs beside a disk, as HTML and as plain text, and the page on hypervisors.

`python -m hyraxvm.formats.readme` writes docs/hypervisors.md.
"""

from __future__ import annotations

from typing import Final

from markdown_it import MarkdownIt
from markupsafe import Markup

from hyraxvm.config import images
from hyraxvm.config.arch import ARCHES
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core.paths import ROOT, TEMPLATES
from hyraxvm.core.templates import render

README: Final = TEMPLATES / "README.md.j2"
PAGE: Final = TEMPLATES / "README.html.j2"
HYPERVISORS: Final = TEMPLATES / "hypervisors.md.j2"
SOURCES: Final = (README, PAGE, HYPERVISORS)

DOCUMENT: Final = ROOT / "docs" / "hypervisors.md"


def texts(kind: str, recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Return file name -> text of the READMEs of the image `name` in the format `kind`."""
    text = render(
        README,
        format=kind,
        name=name,
        recipe=recipe,
        server_version=image.version,
        hypervisors=hypervisors(name, recipe).strip(),
    )
    # The text comes from our own templates; markdown-it escapes what is not markup.
    body = Markup(MarkdownIt("commonmark").render(text))  # noqa: S704
    return {
        "README.html": render(PAGE, name=name, body=body),
        # CRLF: users of Windows read it in Notepad.
        "README.txt": text.replace("\n", "\r\n"),
    }


def hypervisors(name: str, recipe: Recipe, *, as_page: bool = False) -> str:
    """Return how each hypervisor opens the image `name`, in Markdown.

    `as_page` adds the title, and the paragraph on a server that needs other hardware.
    """
    return render(
        HYPERVISORS,
        name=name,
        memory_mib=recipe.machine.memory_mib,
        cpus=recipe.machine.cpus,
        base=recipe.base,
        arch=recipe.arch,
        other_arch=next(arch.name for arch in ARCHES.values() if arch != recipe.arch),
        as_page=as_page,
    )


def document() -> str:
    """Return the text of docs/hypervisors.md: no image's name, and the usual hardware."""
    table = images.load()
    # A server that needs no more memory than its machine has, so that the usual figures show.
    lightest = min(table.server, key=lambda name: table.server[name].memory_mib)
    return hypervisors("NAME", images.recipe(table, server=lightest), as_page=True)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
