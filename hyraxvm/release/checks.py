"""Whether a release may be made: the server, the version and its tag, the changelog, git."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hyraxvm import __version__
from hyraxvm.config import images, publish
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_LOCK
from hyraxvm.core.process import output
from hyraxvm.core.workspace import Workspace
from hyraxvm.release import index, notes, signing
from hyraxvm.stages.server import choice

HYRAX: Final = "hyrax"
MAINTAINERS: Final = "maintainers.asc"  # public keys of those who may sign tags


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


def ready(
    workspace: Workspace,
    table: images.Config,
    named: str | None,
    settings: publish.Settings,
    version: str | None,
) -> str:
    """Return the server of a release or, without a `version`, of a nightly.

    Raises `UserError` for all that a later job would refuse: see `server`; no image is pinned; the
    tag is not right; `publish.toml` has no key or no bucket.
    """
    wanted = server(table, named)
    choice.check_pinned(table, wanted, workspace.root / IMAGES_LOCK.name)
    settings.key()
    publish.required(settings.store.bucket, "store.bucket")
    if version:
        tagged_revision(workspace, version)
    else:
        clean_revision(workspace)
    return wanted


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
    missing, at another commit or not signed by a key of `MAINTAINERS`, or the changelog has no
    section on it.
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
    _verify(workspace, tag)
    changelog(workspace, version)  # also if another job writes the notes: hours later is too late
    return revision


def _verify(workspace: Workspace, tag: str) -> None:
    """Raise `UserError` unless one of the maintainers has signed a tag."""
    path = workspace.root / MAINTAINERS
    if not path.is_file():
        raise UserError(
            f"{MAINTAINERS}: is missing; it has the public keys of those who may sign tags: "
            f"gpg --armor --export FINGERPRINT... >{MAINTAINERS}"
        )
    where = ["git", "for-each-ref", "--format", "%(objecttype)", f"refs/tags/{tag}"]
    annotated = output(where, cwd=workspace.root).strip() == "tag"
    raw = output(["git", "cat-file", "tag", tag], cwd=workspace.root) if annotated else ""
    text, begin, rest = raw.partition("-----BEGIN PGP SIGNATURE-----")
    if not begin:
        raise UserError(f"tag {tag} is not signed with OpenPGP; type: git tag --force -s {tag}")
    keys = path.read_bytes()
    faults = []
    for fingerprint in signing.fingerprints(keys):
        try:
            signing.verify_text(text.encode(), f"{begin}{rest}", keys, fingerprint, tag)
        except UserError as error:
            faults.append(str(error))
        else:
            return
    why = faults[0] if len(faults) == 1 else "by none of the keys there"
    raise UserError(f"tag {tag}: is not signed as {MAINTAINERS} wants it: {why}")


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
