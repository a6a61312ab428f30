"""The choice of a server and its image: by command line, by `images.lock`, or what is available.

For each server with a `docker://` source, `images.lock` has the digest that builds use.
`./inv pin` writes it, and so does the first build of a server that is not in it yet.  A release or
a nightly takes only servers that are pinned already (`check_pinned`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from hyraxvm.config import images
from hyraxvm.config.arch import ARCHES
from hyraxvm.config.images import AUTO, Config, Recipe
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.paths import IMAGES_LOCK
from hyraxvm.stages.server import oci, stage

PIN_DEADLINE = 60.0  # seconds


@dataclass(frozen=True)
class Choice:
    """A server, and the reference and digest of its image, both empty for an embedded server.

    `notice` has lines that the user must not overlook.
    """

    server: str
    image: str = ""
    digest: str = ""
    notice: tuple[str, ...] = ()

    def recipe(
        self, table: Config, image: str, base: str | None = None, arch: str | None = None
    ) -> Recipe:
        """Return the recipe of an image of the table with this server.

        `base` and `arch` take the place of those in the table.
        """
        return images.recipe(table, image, self.server, self.image, self.digest, base, arch)


def choose(
    results: StageCache,
    table: Config,
    server: str | None,
    server_image: str | None,
    say: Callable[[str], None],
    lock: Path = IMAGES_LOCK,
    arches: Collection[str] = (),
) -> Choice:
    """Decide which server is built, and from which image.

    `server` and `server_image` are those of the command line.  A named server is never replaced by
    another; with `auto`, the first one that is available is chosen.  An image in the cache
    `results` needs no registry.  `arches` are OCI's names of the architectures that are built.

    Raises `UserError`: there is no such server, or no such image, or none for an architecture;
    `Failure`: the registry does not answer.
    """
    wanted = server or table.defaults.server
    if wanted != AUTO:
        images.choose("server", wanted, table.server)
    if server_image:
        chosen = _named_image(table, wanted, server_image)
        _check_arches(results, table, chosen, arches)
        return chosen
    if wanted != AUTO:
        try:
            chosen = _locked(results, table, wanted, lock, say)
            _check_arches(results, table, chosen, arches)
            return chosen
        except UserError:
            raise
        except Failure as failure:
            raise Failure(f"{failure}\n{_otherwise(wanted)}") from failure
    reasons = []
    for name in table.defaults.auto:
        try:
            chosen = _locked(results, table, name, lock, say)
            lack = _lack(results, chosen, arches)
        except UserError:
            raise
        except Failure as failure:
            reasons.append(f"{table.server[name].title} is not available: {_last(failure)}")
            continue
        if lack:
            reasons.append(f"{table.server[name].title} is not available: {lack}")
            continue
        return chosen if not reasons else Choice(name, notice=_notice(table, name, reasons))
    raise Failure("; ".join(reasons))


@dataclass(frozen=True)
class Pinned:
    """What `pin` has pinned: reference, digest, and what the image says of itself, by name."""

    reference: str
    digest: str
    stated: dict[str, str]


def pin(table: Config, name: str, lock: Path = IMAGES_LOCK, tag: str = "") -> Pinned:
    """Pin a server to the digest that its tag has in the registry now.

    `tag` replaces the one in images.toml.  The digest may be that of an index with images for
    several architectures; it must have one for each base's.

    Raises `UserError`: there is no such server or tag, or the server is embedded; `Failure`: the
    registry does not answer, or has no image for an architecture.
    """
    images.choose("server", name, table.server)
    source = table.server[name].source
    if source == "embedded":
        pullable = [key for key, value in table.server.items() if value.source != "embedded"]
        raise UserError(
            f"server {name!r} is packed here, not pulled: it has no image to pin; "
            f"expected: {', '.join(pullable)}"
        )
    reference = oci.with_tag(source, tag) if tag else source
    digest = oci.remote_digest(reference, PIN_DEADLINE)
    stated: dict[str, str] = {}
    hook = stage.hook(table.server[name].folder)
    for arch in sorted({ARCHES[base.arch].oci for base in table.base.values()}):
        found = oci.remote_config(oci.with_digest(reference, digest), arch, PIN_DEADLINE)
        if hook and hasattr(hook, "stated"):
            stated |= hook.stated(*found)
    _write(lock, name, source, digest, tag)
    return Pinned(reference, digest, stated)


def _named_image(table: Config, wanted: str, reference: str) -> Choice:
    pulled = [name for name, value in table.server.items() if value.source != "embedded"]
    name = next((n for n in table.defaults.auto if n in pulled), "") if wanted == AUTO else wanted
    if name not in pulled:
        raise UserError(
            f"server {name or wanted!r} is packed here and takes no --server-image; "
            f"--server must be: {', '.join(pulled)}"
        )
    image = oci.check_reference(reference)
    if not image.startswith("docker:"):
        return Choice(name, image, oci.local_digest(image))
    digest = image.partition("@")[2] or oci.remote_digest(image)
    return Choice(name, image, digest)


def _locked(
    results: StageCache, table: Config, name: str, lock: Path, say: Callable[[str], None]
) -> Choice:
    """Return the image that a server is pinned to, after checking that it is available.

    A server that is not pinned yet is pinned now.

    Raises `UserError`: images.lock and images.toml name different sources; `Failure`: the image is
    neither in the cache nor in a registry that answers.
    """
    source = table.server[name].source
    if source == "embedded":
        return Choice(name)
    entry = _read(lock).get(name)
    if entry is None:
        digest = oci.remote_digest(source)
        _write(lock, name, source, digest)
        say(f"{source} was not pinned yet: images.lock now says {digest}; commit it")
        return Choice(name, source, digest)
    if entry["source"] != source:
        raise UserError(
            f"{lock}: pins {entry['source']} for server {name!r}, images.toml names {source}; "
            f"type: ./inv pin {name}"
        )
    digest, source = entry["digest"], _tagged(entry)
    arches = {ARCHES[base.arch].oci for base in table.base.values()}
    if not all(results.contains("oci", oci.pull_key(source, digest, arch)) for arch in arches):
        oci.remote_digest(oci.with_digest(source, digest))
    return Choice(name, source, digest)


def _lack(results: StageCache, chosen: Choice, arches: Collection[str]) -> str:
    """Return what a server's image lacks, or nothing; raise `Failure` as `oci.architectures`."""
    keys = [oci.pull_key(chosen.image, chosen.digest, arch) for arch in arches]
    if not chosen.image or all(results.contains("oci", key) for key in keys):
        return ""
    reference = chosen.image
    if reference.startswith("docker:"):
        reference = oci.with_digest(reference, chosen.digest)
    there = oci.architectures(reference)
    missing = sorted(set(arches) - set(there))
    has = ", ".join(there) or "no architecture"
    return f"{chosen.image} is for {has}, not {', '.join(missing)}" if missing else ""


def _check_arches(
    results: StageCache, table: Config, chosen: Choice, arches: Collection[str]
) -> None:
    """Raise `UserError` if a server's image is not for all of these architectures."""
    if lack := _lack(results, chosen, arches):
        packed = [name for name, value in table.server.items() if value.source == "embedded"]
        raise UserError(
            f"server {chosen.server!r}: {lack}; "
            f"type: ./inv build --server {packed[0]}, or leave --arch out"
        )


def check_pinned(table: Config, name: str, lock: Path = IMAGES_LOCK) -> None:
    """Raise `UserError` if the server's image would have to be pinned first."""
    if table.server[name].source != "embedded" and name not in _read(lock):
        raise UserError(
            f"{lock}: has no digest for server {name!r}; type: ./inv pin {name}, and commit "
            "images.lock"
        )


def cached(table: Config, name: str, lock: Path = IMAGES_LOCK) -> Choice:
    """Return what a server is pinned to, without asking a registry; no image if not pinned."""
    source = table.server[name].source
    entry = _read(lock).get(name, {})
    fits = entry.get("source") == source
    return Choice(name, _tagged(entry), entry["digest"]) if fits else Choice(name)


def banner(notice: tuple[str, ...]) -> str:
    """Return the notice in a frame."""
    width = max(map(len, notice))
    edge = "*" * (width + 6)
    return "\n".join([edge, *(f"** {line.ljust(width)} **" for line in notice), edge])


def _notice(table: Config, name: str, reasons: list[str]) -> tuple[str, ...]:
    wanted = table.defaults.auto[0]
    words = " ".join(reasons)
    lines = [words[at : at + 76] for at in range(0, len(words), 76)][:4]
    return (
        f"NOT {table.server[wanted].title}: this build gets {table.server[name].title}.",
        "",
        *lines,
        "",
        *_otherwise(wanted).split("; "),
    )


def _otherwise(server: str) -> str:
    return (
        "if no registry can be reached, bring the image as a file; "
        f"type: ./inv build --server {server} --server-image oci-archive:FILE"
    )


def _tagged(entry: dict[str, str]) -> str:
    """Return the reference that an entry of images.lock pins: its own tag counts, if it has one."""
    return oci.with_tag(entry["source"], entry["tag"]) if entry["tag"] else entry["source"]


def _read(lock: Path) -> dict[str, dict[str, str]]:
    """Return server -> source (as in images.toml), tag (if it is another one, else ""), digest."""
    try:
        found = json.loads(lock.read_text("utf-8"))
        return {
            name: {"source": e["source"], "tag": e.get("tag", ""), "digest": e["digest"]}
            for name, e in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{lock}: cannot be read ({type(error).__name__}); remove it and type: ./inv pin SERVER"
        ) from error


def _write(lock: Path, name: str, source: str, digest: str, tag: str = "") -> None:
    entries = {**_read(lock), name: {"source": source, "tag": tag, "digest": digest}}
    written = {
        key: {field: value for field, value in entry.items() if value}
        for key, entry in entries.items()
    }
    new = lock.with_name(f".{lock.name}.{os.getpid()}")
    new.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    new.replace(lock)


def _last(failure: Failure) -> str:
    """Return the end of a tool's message, at most 220 characters: skopeo puts the cause last."""
    text = str(failure).splitlines()[-1].strip()
    return text if len(text) <= 220 else "..." + text[-217:]
