"""Release notes: what CHANGELOG.md says, and which packages have changed since the last release."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyraxvm.core.errors import UserError

Packages = Mapping[str, str]


def section(changelog: Path, version: str) -> str:
    """Return the text below the heading `## VERSION (date)`.

    Raises `UserError`: there is no such heading, or it has no date.
    """
    match = re.search(
        rf"^## {re.escape(version)}(?: +\(([^)\n]*)\))?[ ]*\n(.*?)(?=^## |\Z)",
        changelog.read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    if not match:
        raise UserError(f"{changelog}: has no section `## {version} (YYYY-MM-DD)`; write it")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", match[1] or ""):
        raise UserError(
            f"{changelog}: the section on {version} says {match[1]!r}; "
            f"write `## {version} (YYYY-MM-DD)`"
        )
    return match[2].strip()


def packages(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> version of all packages in an image, and of the server."""
    server = manifest["server"]
    return {
        **manifest["packages"],
        f"server {server['name']}": server["version"],
        **{f"{server['name']}: {name}": version for name, version in server["packages"].items()},
    }


def changes(old: Packages, new: Packages) -> list[str]:
    """Return a line for each package that is new, removed or of another version, sorted by name."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None:
            lines.append(f"{name} {after} (new)")
        elif after is None:
            lines.append(f"{name} {before} (removed)")
        elif before != after:
            lines.append(f"{name} {before} -> {after}")
    return lines


def release_notes(
    version: str,
    text: str,
    manifests: Sequence[Mapping[str, Any]],
    previous: str,
    old: Mapping[str, Mapping[str, Any]] | None,
) -> str:
    """Return the notes in Markdown.

    `text` is what people wrote.  `old` maps the name of an image to its manifest in the release
    `previous`.  If it is None, that release is not known, and the notes list no changes.
    """
    lines = [f"# Hyrax VM {version}", "", text, ""] if text else [f"# Hyrax VM {version}", ""]
    if old is None:
        return "\n".join(lines).rstrip() + "\n"
    lines += [f"## Packages changed since {previous}" if previous else "## Packages", ""]
    for manifest in sorted(manifests, key=lambda one: one["release"]["IMAGE"]):
        image = manifest["release"]["IMAGE"]
        server = f"{manifest['server']['name']} {manifest['server']['version']}"
        lines += [f"### Image {image}, server {server}", ""]
        if image in old:
            found = changes(packages(old[image]), packages(manifest))
            lines += [f"- {line}" for line in found] or ["None."]
        else:
            lines += [f"{len(manifest['packages'])} Debian packages; this image is new."]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
