"""Names of what is built: the one place that spells them."""

from __future__ import annotations

from hyraxvm.config.images import Recipe

RELEASE_FILE = "/etc/hyrax-vm-release"
MANIFEST = ".manifest.json"  # the suffix of what lies beside an image's files
SUMS = "SHA256SUMS"


def artifact_name(recipe: Recipe, server_version: str) -> str:
    """Return `hyrax-vm-<image>-<server><version>-<base>-<arch>`, without a suffix."""
    return f"{_head(recipe)}{server_version}{_tail(recipe)}"


def artifact_glob(recipe: Recipe, suffix: str) -> str:
    """Return the pattern of an image's files with a suffix, whatever the server's version."""
    return f"{_head(recipe)}[0-9]*{_tail(recipe)}{suffix}"


def _head(recipe: Recipe) -> str:
    return f"hyrax-vm-{recipe.name}-{recipe.server_name}"


def _tail(recipe: Recipe) -> str:
    return f"-{recipe.base.short}-{recipe.arch.name}"
