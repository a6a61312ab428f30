"""Publishing: a release's folder -> the store.  Objects first, the index last.

Whenever a publisher is interrupted, a reader of `index.json` finds either the old state or the new
one.  Publishing again finishes what was begun.  A version in the index is never overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hyraxvm.config.publish import Settings
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.parallel import run_parallel
from hyraxvm.core.progress import meter
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish import page
from hyraxvm.release import folder, index, signing
from hyraxvm.store.s3 import BRIEFLY, WORKERS, Conflict, Store
from hyraxvm.store.upload import upload

TRIES: Final = 5  # to change an index that others change at the same time
PAGE: Final = "index.html"
DATE: Final = "%Y-%m-%dT%H:%M:%SZ"
DAY: Final = 86400.0  # seconds by which two clocks may differ

Say = Callable[[str], None]


@dataclass(frozen=True)
class PublishPlan:
    """What is to be done: files to send, files that are in the store, nightlies to remove."""

    release: index.Release
    send: list[Path]
    there: list[Path]
    remove: list[str]

    @property
    def size(self) -> int:
        """The bytes to send."""
        return sum(path.stat().st_size for path in self.send)

    def lines(self, store: Store) -> list[str]:
        """Return the plan in words, a line for each step."""
        where = f"{store.name}{self.release.path}/"
        return [
            *(f"there    {where}{path.name}" for path in self.there),
            *(
                f"send     {where}{path.name}  {path.stat().st_size / 1e6:.1f} MB"
                for path in self.send
            ),
            f"write    {store.name}{index.key_path(self.release.key)}",
            f"write    {store.name}{PAGE}",
            f"write    {store.name}{index.INDEX}",
            *(f"remove   {store.name}{index.path(version)}/" for version in self.remove),
        ]


def published_index(store: Store) -> tuple[index.Index | None, str]:
    """Return the index, None before the first release, and its ETag."""
    found = store.read(index.INDEX)
    if found is None:
        return None, ""
    return index.read_index(found[0], f"{store.name}{index.INDEX}"), found[1]


def plan(store: Store, path: Path, new: index.Release, keep: int) -> PublishPlan | None:
    """Return what is to be done to publish a checked folder, or None: it is published already.

    Raises `UserError`: this version is published with other content.
    """
    published, _ = published_index(store)
    if _is_published(published, new):
        return None
    files = sorted(file for file in path.iterdir() if file.is_file())
    held = run_parallel(
        [partial(store.holds, file, f"{new.path}/{file.name}") for file in files], WORKERS
    )
    there = [file for file, has in zip(files, held, strict=True) if has]
    others = published.releases if published else []
    return PublishPlan(
        release=new,
        send=[file for file in files if file not in there],
        there=there,
        remove=_expired([*others, new], keep),
    )


def publish(store: Store, chosen: PublishPlan, fingerprint: str, keep: int, say: Say) -> None:
    """Carry out a plan: send the objects, write page and index, remove what has expired.

    Raises:
        UserError: The credentials, the bucket or the clock are wrong; or this version was published
            with other content meanwhile.
        Failure: The store has failed several times.
    """
    new = chosen.release
    if chosen.send:
        started = time.monotonic()
        with meter(f"publishing {new.version}", chosen.size) as moved:
            upload(store, [(path, f"{new.path}/{path.name}") for path in chosen.send], moved)
        took = time.monotonic() - started
        say(f"{len(chosen.send)} files, {chosen.size / 1e6:.1f} MB sent in {took:.1f} s")

    def add(published: index.Index | None) -> index.Index:
        others = published.releases if published else []
        if _is_published(published, new):
            return index.make_index(fingerprint, others)
        gone = _expired([*others, new], keep)
        return index.make_index(
            fingerprint, [one for one in [*others, new] if one.version not in gone]
        )

    written = update(store, add)
    say(f"{store.name}{index.INDEX}: {new.version} is published")
    for version in _leftovers(store, written):
        count = store.remove(f"{index.path(version)}/")
        say(f"{store.name}{index.path(version)}/: removed, {count} objects")


def publish_folder(
    workspace: Workspace,
    store: Store,
    path: Path,
    key: bytes,
    settings: Settings,
    say: Say,
    dry_run: bool = False,
) -> None:
    """Check a release's folder and publish it, or with `dry_run` say what would happen.

    `key` is the public key.  Raises as `folder.read`, `plan` and `publish` do.
    """
    fingerprint, keep = settings.key(), settings.nightly.keep
    # What was checked stays as it is until it is sent.
    with cache.lock(workspace.artifacts / folder.PUBLISHING, shared=True):
        say(f"checking {path}")
        chosen = plan(store, path, folder.read(path, key, fingerprint), keep)
        if chosen is None:
            say(f"{store.name}: {path.name} is published already")
            if not dry_run:
                renew(store, fingerprint)
                say(f"{store.name}{index.INDEX}: is signed again")
        elif dry_run:
            for line in chosen.lines(store):
                say(line)
        else:
            publish(store, chosen, fingerprint, keep, say)


def renew(store: Store, fingerprint: str) -> None:
    """Sign the index again with today's date: readers are warned of an old one."""
    update(store, lambda old: index.make_index(fingerprint, old.releases if old else []))


def withdraw(store: Store, version: str, reason: str, fingerprint: str) -> None:
    """Mark a version as withdrawn: `latest` and the page leave it out, its files stay.

    The key with this fingerprint signs the index.

    Raises `UserError`: it is not published, or the reason is not one line of text.
    """
    if not reason.strip() or not reason.isprintable() or len(reason) > index.TEXT:
        raise UserError(
            f"{reason[:80]!r}: cannot be the reason; expected: one line of 1 to {index.TEXT} "
            "characters"
        )

    def mark(published: index.Index | None) -> index.Index:
        if published is None or published.find(version) is None:
            raise UserError(f"{store.name}: {version} is not published")
        return index.make_index(
            fingerprint,
            [
                one.model_copy(update={"withdrawn": reason}) if one.version == version else one
                for one in published.releases
            ],
        )

    update(store, mark)


def update(store: Store, change: Callable[[index.Index | None], index.Index]) -> index.Index:
    """Write the page, then the signed index; start again if somebody else has changed the index.

    The key that `change` names in the index signs it.  Raises `UserError`: gpg cannot sign with
    it, or a clock is wrong.
    """
    for _ in range(TRIES):
        published, etag = published_index(store)
        wanted = change(published)
        # Validate first: an index that this program cannot read, it could not repair either.
        index.read_index(index.dump(wanted), f"{store.name}{index.INDEX}")
        wanted = signed(wanted, published.date if published else "", store.name)
        # Written each time: the owner of the key may have changed when it expires.
        store.write(index.key_path(wanted.key), signing.public_key(wanted.key), BRIEFLY)
        store.write(PAGE, page.render_page(wanted).encode(), BRIEFLY)
        try:
            store.write(index.INDEX, index.dump(wanted), BRIEFLY, etag)
        except Conflict:
            continue
        return wanted
    raise Failure(f"{store.name}{index.INDEX}: others keep changing it; try again")


def signed(wanted: index.Index, before: str, where: str) -> index.Index:
    """Return an index with its date and its signature; `before` is the date of the one before.

    The date never goes back: readers take that for an older index.
    """
    now, tomorrow = (time.strftime(DATE, time.gmtime(time.time() + ahead)) for ahead in (0, DAY))
    if before > tomorrow:
        raise UserError(
            f"{where}{index.INDEX}: was signed on {before}, which is in the future; set this "
            f"computer's clock, which says {now}, or that of the computer that published last"
        )
    plain = wanted.model_copy(update={"date": max(now, before), "signature": ""})
    signature = signing.sign_text(index.dump(plain), wanted.key)
    return plain.model_copy(update={"signature": signature})


def _is_published(published: index.Index | None, new: index.Release) -> bool:
    """Return whether this release is published.

    Raises `UserError`: its version is published with other content.
    """
    found = published.find(new.version) if published else None
    if found is None:
        return False
    if found.model_copy(update={"withdrawn": ""}) != new:
        raise UserError(
            f"version {new.version} is published with other content, and is never "
            "overwritten; choose the next version"
        )
    return True


def _expired(releases: Sequence[index.Release], keep: int) -> list[str]:
    """Return the nightlies that are not among the newest `keep`; releases never expire."""
    versions = {one.version for one in releases if one.kind == "nightly"}
    kept = set(sorted(versions, key=index.order)[-keep:])
    # What `latest` names stays, even if newer nightlies were published and withdrawn.
    kept.add(index.make_index("0" * 40, list(releases)).latest.nightly)
    return sorted(versions - kept, key=index.order)


def _leftovers(store: Store, published: index.Index) -> list[str]:
    """Return the nightlies in the store that are older than all nightlies of the index.

    A newer one that is not in the index may be on its way.
    """
    listed = sorted(
        (one.version for one in published.releases if one.kind == "nightly"), key=index.order
    )
    if not listed:
        return []
    found = set()
    for key in store.keys("nightlies/"):
        version = key.split("/")[1]
        try:
            known = index.kind(version) == "nightly"
        except UserError:
            continue
        if known and version not in listed and index.order(version) < index.order(listed[0]):
            found.add(version)
    return sorted(found, key=index.order)
