"""Whether a release may be made: the server, the version and its tag, the changelog, git."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hyraxvm import __version__
from hyraxvm.config import images
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_LOCK
from hyraxvm.core.process import output
from hyraxvm.core.workspace import Workspace
from hyraxvm.release import index, notes
from hyraxvm.stages.server import choice

HYRAX: Final = "hyrax"


def server(table: images.Config, named: str | None) -> str:
    """Return the server of a release.

    Raises `UserError`: images.toml has no Hyrax, and no other server is named.
    """
    if not named and HYRAX not in table.server:
        others = " or ".join(f"--server {name}" for name in sorted(table.server))
        raise UserError(
            f"images.toml has no server {HYRAX!r}, and no other is released unless it is named; "
            f"add {others}"
        )
    return images.choose("server", named or HYRAX, table.server)


def recipes(
    workspace: Workspace,
    table: images.Config,
    chosen: Sequence[str],
    named: str | None,
    say: Callable[[str], None],
) -> list[images.Recipe]:
    """Return the images of a release, by default all, with the pinned image of the server.

    Raises `UserError`: see `server`, or no image is pinned; `Failure`: the image cannot be
    pulled.
    """
    wanted = server(table, named)
    names = dict.fromkeys(chosen) or sorted(table.image)
    names = [images.choose("image", name, table.image) for name in names]
    # Releases are made from what is in git, so nothing is pinned on the way.
    lock = workspace.root / IMAGES_LOCK.name
    choice.check_pinned(table, wanted, lock)
    made_with = choice.choose(workspace.cache, table, wanted, None, say, lock)
    return [made_with.recipe(table, name) for name in names]


def tagged_revision(workspace: Workspace, version: str) -> str:
    """Return the revision that is to be released as `version`.

    Raises `UserError`: the version is not this checkout's, files differ from the commit, the tag is
    missing or at another commit, or the changelog has no section on it.
    """
    if index.kind(version) != "release":
        raise UserError(f"{version!r}: is a nightly's version; type: ./inv nightly")
    if version != __version__:
        raise UserError(
            f"version {version!r} is not the one in pyproject.toml, {__version__!r}; "
            f"write it there, commit, and type: git tag -s v{version}"
        )
    revision = clean_revision(workspace)
    tag = f"v{version}"
    tagged = output(
        ["git", "tag", "--list", tag, "--format", "%(*objectname)%(objectname)"],
        cwd=workspace.root,
    )
    if not tagged.strip():
        raise UserError(f"there is no tag {tag}; type: git tag -s {tag}")
    # An annotated tag names its commit first.
    if tagged.strip()[: len(revision)] != revision:
        raise UserError(f"tag {tag} is on another commit than the one that is checked out")
    changelog(workspace, version)  # also if another job writes the notes: hours later is too late
    return revision


def changelog(workspace: Workspace, version: str) -> str:
    """Return what CHANGELOG.md says of a version.

    Raises `UserError`: there is no section on it, or the section has no date.
    """
    return notes.section(workspace.root / "CHANGELOG.md", version)


def clean_revision(workspace: Workspace) -> str:
    """Return the commit that is checked out; raise `UserError` where files differ from it."""
    changed = output(["git", "status", "--porcelain"], cwd=workspace.root).splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"{changed[0][3:]}{more}: not as in git; commit first, or git stash")
    return output(["git", "rev-parse", "HEAD"], cwd=workspace.root).strip()
