"""The guest's version file, `/etc/hyrax-vm-release`; the manifest has the same content."""

from __future__ import annotations

import shlex
import time

from hyraxvm import __version__
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core.paths import ROOT
from hyraxvm.core.process import output


def declared(recipe: Recipe, image: ServerImage) -> dict[str, str]:
    """Return the part of the content that the declared inputs of a build decide."""
    return {
        "NAME": "Hyrax VM",
        "VERSION": __version__,
        "IMAGE": recipe.name,
        "ACCESS": recipe.image.access,
        "BASE": recipe.base_name,
        "ARCH": recipe.arch.name,
        "SERVER": image.name,
        "SERVER_VERSION": image.version,
        "SERVER_TITLE": recipe.server.title,
        "SERVER_USER": image.user,
        "HEALTH_PATH": recipe.server.health_path,
    }


def release(recipe: Recipe, image: ServerImage) -> dict[str, str]:
    """Return the content: what is declared, the commit, and the time."""
    return {
        **declared(recipe, image),
        "GIT_REVISION": git_revision(),
        "BUILD_DATE": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def release_file(facts: dict[str, str]) -> str:
    """Return `KEY=value` lines that a POSIX shell can source; quote only where needed."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in facts.items())


def git_revision() -> str:
    """Return the commit that is checked out, with `-dirty` if a file differs from it or is new.

    Without git, return `unknown`.
    """
    if not (ROOT / ".git").exists():
        return "unknown"
    revision = output(["git", "describe", "--always", "--abbrev=12"], cwd=ROOT).strip()
    # Not `--dirty`, which ignores new files: the stages take every file in their folders.
    changed = output(["git", "status", "--porcelain"], cwd=ROOT).strip()
    return f"{revision}-dirty" if changed else revision
