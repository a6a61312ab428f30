"""The documents: every link between them has a target."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hyraxvm.core.paths import ROOT


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # The workshop's pages are for the machine: its tests follow their links there.
    names = [name for name in listed.stdout.splitlines() if "provision/workshop/" not in name]
    return [path for name in names if (path := ROOT / name).is_file()]


def prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(
        r"^( *)```.*?^\1```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def anchors(path: Path) -> set[str]:
    """Return the names under which GitHub links to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == [], f"{path}: no such file or heading; correct these links"


def test_every_document_is_linked_from_another() -> None:
    links = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in documents()
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(path))
    }
    orphans = {path for path in documents() if path.is_relative_to(ROOT / "docs")} - links
    assert orphans == set()
