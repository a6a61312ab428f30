"""Uploads in parts, several at a time; parts that an earlier try has sent stay."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hyraxvm.core.cancel import check_cancelled
from hyraxvm.core.parallel import run_parallel
from hyraxvm.store import parts
from hyraxvm.store.s3 import FOREVER, WORKERS, Store, content_type

Moved = Callable[[int], None]


@dataclass
class _Upload:
    """One file on its way: the parts that the store has, and those to be sent."""

    path: Path
    key: str
    size: int
    id: str = ""
    sent: dict[int, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        return parts.count(self.size)

    def part(self, number: int) -> bytes:
        return parts.part(self.path, number, parts.part_size(self.size))

    def length(self, number: int) -> int:
        size = parts.part_size(self.size)
        return min(size, self.size - (number - 1) * size)


def upload(store: Store, files: Sequence[tuple[Path, str]], moved: Moved) -> None:
    """Send files, without the parts that an earlier try has sent.

    `files` are pairs of path and key; `moved` takes the number of bytes that are in the store,
    those of an earlier try included.  At the end, each object in the store is compared with its
    file.

    Raises as the methods of `Store` do.
    """
    small = [pair for pair in files if pair[0].stat().st_size <= parts.PART]
    started = [start(store, *pair) for pair in files if pair not in small]
    jobs = [partial(_put, store, path, key, moved) for path, key in small]
    finished = [one for one in started if len(one.sent) == one.count]
    # Several files side by side: some stores take the parts of one file only in their order.
    for first in range(0, len(started), WORKERS):
        group = started[first : first + WORKERS]
        for number in range(1, max(one.count for one in group) + 1):
            for one in group:
                if number in one.sent:
                    moved(one.length(number))
                elif number <= one.count:
                    jobs.append(partial(send, store, one, number, moved))
    # The larger the parts, the fewer at a time: this bounds the memory.
    largest = max((parts.part_size(one.size) for one in started), default=parts.PART)
    run_parallel(jobs, max(1, WORKERS * parts.PART // largest))
    run_parallel([partial(_finish, store, one) for one in finished], WORKERS)


def _put(store: Store, path: Path, key: str, moved: Moved) -> None:
    check_cancelled()
    data = path.read_bytes()
    store.write(key, data, FOREVER)
    store.confirm(path, key)
    moved(len(data))


def start(store: Store, path: Path, key: str) -> _Upload:
    """Find the upload that an earlier try has begun, with its intact parts, or begin one."""
    one = _Upload(path, key, path.stat().st_size)
    for found in store.unfinished(key):
        if found["Key"] == store.prefix + key:
            one.id = found["UploadId"]
            one.sent = _sent(store, one)
    if not one.id:
        one.id = store.ask_checked(
            "create_multipart_upload",
            key,
            {"ChecksumAlgorithm": "SHA256"},
            {},
            ContentType=content_type(key),
            CacheControl=FOREVER,
        )["UploadId"]
    return one


def _sent(store: Store, one: _Upload) -> dict[int, dict[str, Any]]:
    """Return the parts in the store that equal the file's."""
    good = {}
    for found in store.sent_parts(one.key, one.id):
        number = found["PartNumber"]
        data = one.part(number)
        checksum = parts.checksum(data)
        # The ETag is not an MD5 if the store encrypts with its own key; some have no checksum.
        said = found.get("ChecksumSHA256")
        same = said == checksum if said else found["ETag"].strip('"') == parts.etag(data)
        if found["Size"] == len(data) and same:
            good[number] = _receipt(number, found["ETag"], checksum)
    return good


def send(store: Store, one: _Upload, number: int, moved: Moved) -> None:
    """Send one part; finish the file after its last part."""
    check_cancelled()
    data = one.part(number)
    checksum = parts.checksum(data)
    answer = store.ask_checked(
        "upload_part",
        one.key,
        {"ChecksumSHA256": checksum},
        {"ContentMD5": parts.md5(data)},
        UploadId=one.id,
        PartNumber=number,
        Body=data,
    )
    with one.lock:
        one.sent[number] = _receipt(number, answer["ETag"], checksum)
        moved(len(data))
        complete = len(one.sent) == one.count
    if complete:
        _finish(store, one)


def _finish(store: Store, one: _Upload) -> None:
    sent = [one.sent[number] for number in sorted(one.sent)]
    plain = [{name: each[name] for name in ("PartNumber", "ETag")} for each in sent]
    store.ask_checked(
        "complete_multipart_upload",
        one.key,
        {"MultipartUpload": {"Parts": sent}},
        {"MultipartUpload": {"Parts": plain}},
        UploadId=one.id,
    )
    store.confirm(one.path, one.key)


def _receipt(number: int, etag: str, checksum: str) -> dict[str, Any]:
    return {"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum}
