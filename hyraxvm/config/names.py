"""The names of what is built: the one module that spells them."""

from __future__ import annotations

from hyraxvm.config.images import Recipe

RELEASE_FILE = "/etc/hyrax-vm-release"
MANIFEST = ".manifest.json"  # the suffix; it is beside the files of an image
SUMS = "SHA256SUMS"


def artifact_name(recipe: Recipe, server_version: str) -> str:
    """Return `hyrax-vm-<image>-<server><version>-<base>-<arch>`, without a suffix."""
    return f"{_before_version(recipe)}{server_version}{_after_version(recipe)}"


def artifact_glob(recipe: Recipe, suffix: str) -> str:
    """Return a glob for an image's files with a suffix, whatever the server's version."""
    return f"{_before_version(recipe)}[0-9]*{_after_version(recipe)}{suffix}"


def system(recipe: Recipe) -> str:
    """Return `<image>-<base>-<arch>`."""
    return f"{recipe.name}{_after_version(recipe)}"


def _before_version(recipe: Recipe) -> str:
    return f"hyrax-vm-{recipe.name}-{recipe.server_name}"


def _after_version(recipe: Recipe) -> str:
    return f"-{recipe.base.short}-{recipe.arch.name}"
