"""What a store is able to do: found out with one small object, for `./inv publish --check`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final

from hyraxvm.core.columns import align
from hyraxvm.core.errors import UserError
from hyraxvm.store import parts
from hyraxvm.store.s3 import Conflict, Damaged, Gone, Store, Unsupported

KEY: Final = "nightlies/probe"  # where the publisher may delete
BODY: Final = b"probe of ./inv publish --check\n"
YES: Final = "yes"
NO: Final = "no"
REFUSED: Final = "refused"  # with an error
IGNORED: Final = "ignored"  # as if it were not there
FORBIDDEN: Final = "not allowed"
SKEW: Final = 60.0  # seconds by which two clocks may differ


@dataclass(frozen=True)
class Ability:
    """One thing that a store is able to do, its answer, and what is lost without it."""

    name: str
    answer: str
    lost: str


def probe(store: Store) -> list[Ability]:
    """Try each ability with the object `KEY`, and remove it.

    Raises as the methods of `Store` do if the store takes no object at all.
    """
    store.write(KEY, BODY, "no-store")
    put = partial(store.ask, "put_object", KEY, Body=BODY)
    head = store.ask("head_object", KEY)
    found = [
        Ability(
            "checks a SHA-256 that is sent",
            _refusal(put, ChecksumSHA256=parts.checksum(b"else")) if store.checksums else REFUSED,
            "nothing: the MD5 is sent, and the digest compared afterwards",
        ),
        Ability(
            "writes only if the object is new (If-None-Match)",
            _refusal(put, IfNoneMatch="*"),
            "of two first releases at once, the index may lose one; publish one at a time",
        ),
        Ability(
            "writes only over a known object (If-Match)",
            _refusal(put, IfMatch=f'"{"0" * 32}"'),
            "of two releases at once, the index may lose one; publish one at a time",
        ),
        Ability(
            "ETag is the MD5",
            _said(head.get("ETag", "").strip('"') == parts.etag(BODY)),
            "each file is read again after it was sent; interrupted uploads begin again",
        ),
        Ability(
            "says how long an object is",
            _said(head.get("ContentLength") == len(BODY)),
            "each file is read again after it was sent",
        ),
        Ability(
            "lists an object at once",
            _tried(lambda: KEY in store.keys(KEY)),
            "files of expired nightlies may stay until the next night",
        ),
        Ability(
            "lists unfinished uploads",
            _tried(lambda: _lists_uploads(store)),
            "interrupted uploads begin again; a lifecycle rule must end the old ones",
        ),
        Ability(
            "removes an object",
            _tried(lambda: _removes(store)),
            "expired nightlies stay, and so does this probe's object",
        ),
        Ability(
            "has the same clock as this computer",
            _said(_skew(head) <= SKEW),
            "set this computer's clock: stores refuse requests that are 15 minutes off",
        ),
    ]
    return found


def table(store: Store, found: list[Ability]) -> str:
    """Return the abilities in columns; what is lost is shown where something is."""
    rows = [["ability", "answer", "what is lost"]]
    rows += [[one.name, one.answer, "" if one.answer == YES else one.lost] for one in found]
    return f"{store.name}\n{align(rows)}"


def _refusal(put: Callable[..., Any], **arguments: str) -> str:
    """Return whether a store refuses what it must refuse: a wrong digest, or a false condition."""
    try:
        put(**arguments)
    except Unsupported:
        return REFUSED
    except (Conflict, Damaged):
        return YES
    return IGNORED


def _tried(attempt: Callable[[], bool]) -> str:
    try:
        return _said(attempt())
    except Unsupported:
        return REFUSED
    except UserError:
        return FORBIDDEN


def _said(answer: bool) -> str:
    return YES if answer else NO


def _lists_uploads(store: Store) -> bool:
    begun = store.ask("create_multipart_upload", KEY)["UploadId"]
    try:
        return any(one["UploadId"] == begun for one in store.unfinished(KEY))
    finally:
        store.ask("abort_multipart_upload", KEY, UploadId=begun)


def _removes(store: Store) -> bool:
    store.ask("delete_object", KEY)
    try:
        store.ask("head_object", KEY)
    except Gone:
        return True
    return False


def _skew(answer: dict[str, Any]) -> float:
    """Return the seconds between this computer's clock and the store's `Date`."""
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    if "date" not in headers:
        return 0.0
    there = parsedate_to_datetime(headers["date"]).timestamp()
    return abs(time.time() - there)
