"""The READMEs that lie beside a disk: one source, as HTML and as plain text."""

from __future__ import annotations

from typing import Final

from markdown_it import MarkdownIt
from markupsafe import Markup

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core.paths import ROOT, TEMPLATES
from hyraxvm.core.templates import render

README: Final = TEMPLATES / "README.md.j2"
PAGE: Final = TEMPLATES / "README.html.j2"
HYPERVISORS: Final = ROOT / "docs" / "hypervisors.md"
DIFFERS: Final = "Hyrax needs 2048 MB of memory where 1024 stand below"
SOURCES: Final = (README, PAGE, HYPERVISORS)


def texts(kind: str, recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """File name -> text for the format `kind`."""
    # Its title is not needed within another page.
    _, _, hypervisors = HYPERVISORS.read_text("utf-8").partition("\n")
    text = render(
        README,
        format=kind,
        name=name,
        recipe=recipe,
        server_version=image.version,
        hypervisors=_of(recipe, name, hypervisors).strip(),
    )
    # The text comes from our own templates; markdown-it escapes what is not markup.
    body = Markup(MarkdownIt("commonmark").render(text))  # noqa: S704
    return {
        "README.html": render(PAGE, name=name, body=body),
        # Windows' Notepad is where it is read.
        "README.txt": text.replace("\n", "\r\n"),
    }


def _of(recipe: Recipe, name: str, text: str) -> str:
    """The page on hypervisors with this image's name and hardware for the usual ones."""
    machine = recipe.machine
    # What this paragraph says of servers is filled in here.
    if f"\n{DIFFERS}" not in text:
        raise ValueError(f"{HYPERVISORS}: {DIFFERS!r} is not in it")
    text = "\n\n".join(part for part in text.split("\n\n") if not part.startswith(DIFFERS))
    for usual, own in (
        ("NAME", name),
        ("1024", str(machine.memory_mib)),
        ("2 CPUs", f"{machine.cpus} CPUs"),
        ("--vcpus 2", f"--vcpus {machine.cpus}"),
        ("--cores 2", f"--cores {machine.cpus}"),
        ("-smp 2", f"-smp {machine.cpus}"),
    ):
        if usual not in text:
            raise ValueError(f"{HYPERVISORS}: {usual!r} is not in it")
        text = text.replace(usual, own)
    return text
