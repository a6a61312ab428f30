"""An S3-compatible store: uploads that resume and are confirmed, and what else a release needs.

Made for every store that speaks the S3 API: nothing relies on what only AWS has.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointResolutionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from hyraxvm import publishing
from hyraxvm.command import go_on
from hyraxvm.errors import Failure, UserError
from hyraxvm.parallel import together

MIB: Final = 1024 * 1024
PART: Final = 8 * MIB
MOST_PARTS: Final = 10_000  # Amazon S3 user guide, "multipart upload limits"
WORKERS: Final = 4  # parts in flight; with PART it bounds the memory
MAX_TEXT: Final = 16 * MIB  # of what is read into memory
PAGE: Final = 1000  # keys in one request to delete
FOREVER: Final = "public, max-age=31536000, immutable"
BRIEFLY: Final = "public, max-age=60, must-revalidate"

_TYPES: Final = {
    ".zip": "application/zip",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".asc": "text/plain; charset=us-ascii",
    "": "text/plain; charset=us-ascii",
}

# What a service says -> what the user can do.
_HINTS: Final = {
    "AccessDenied": "the credentials do not allow it; see the policy in docs/maintainers.md",
    "ExpiredToken": "the session has expired; get new credentials",
    "InvalidAccessKeyId": "the store does not know this access key; see AWS_ACCESS_KEY_ID",
    "NoSuchBucket": "there is no such bucket; see store.bucket in publish.toml",
    "PermanentRedirect": "the bucket is in another region; see store.region in publish.toml",
    "RequestTimeTooSkewed": "this computer's clock is wrong; set it (`timedatectl` shows it)",
    "SignatureDoesNotMatch": "the secret key is not the access key's; see AWS_SECRET_ACCESS_KEY",
    "403": "the credentials do not allow it; see the policy in docs/maintainers.md",
}
_GONE: Final = ("404", "NoSuchKey", "NotFound", "NoSuchUpload")


class Conflict(Exception):
    """Someone else has changed the object since it was read."""


class Gone(Failure):
    """There is no such object, or no such upload any more."""


@dataclass
class _Upload:
    """One file on its way: what is there already, and what is still to be sent."""

    path: Path
    key: str
    size: int
    part: int
    id: str
    sent: dict[int, dict[str, str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        return parts(self.size)


def part_size(size: int) -> int:
    """The bytes of each part but the last: always the same for a size, so that uploads resume."""
    needed = -(-size // MOST_PARTS)
    return max(PART, -(-needed // MIB) * MIB)


def parts(size: int) -> int:
    """How many parts a file of `size` bytes has."""
    return max(1, -(-size // part_size(size)))


def content_type(name: str) -> str:
    """The media type by a file's suffix."""
    return _TYPES.get(Path(name).suffix, "application/octet-stream")


class Store:
    """The bucket of `publish.toml`; keys are relative to its prefix.

    Every method raises `UserError` for what the user can mend (credentials, clock, bucket) and
    `Failure` for what the store could not do after several tries.
    """

    def __init__(self, settings: publishing.Store) -> None:
        """Find credentials as boto3 does; nothing is sent yet."""
        self.bucket = publishing.required(settings.bucket, "store.bucket")
        self.prefix = settings.prefix
        with self._told(""):
            try:
                self._client = client(settings)
            except ValueError as error:
                raise UserError(f"{self.name}: {error}; see [store] in publish.toml") from error

    @property
    def name(self) -> str:
        """What users read: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}"

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a small object's content and ETag, or None: there is no such object."""
        try:
            with self._told(key):
                found = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
                if found["ContentLength"] > MAX_TEXT:
                    raise UserError(f"{self.name}{key}: too long; allowed are {MAX_TEXT} bytes")
                return found["Body"].read(), found["ETag"]
        except Gone:
            return None

    def write(self, key: str, data: bytes, cache: str, etag: str | None = None) -> None:
        """Write a small object at once; with `etag`, only over what was read with it.

        An empty `etag` says that nothing was there.  Raises `Conflict` where the store can tell.
        """
        condition = {} if etag is None else {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        put = partial(
            self._client.put_object,
            Bucket=self.bucket,
            Key=self.prefix + key,
            Body=data,
            ContentType=content_type(key),
            CacheControl=cache,
            **_digests(data),
        )
        with self._told(key):
            try:
                put(**condition)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                    raise Conflict(key) from None
                if code != "NotImplemented":
                    raise
                put()

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys below `prefix`, page by page."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        with self._told(prefix):
            for page in pages:
                for entry in page.get("Contents", []):
                    yield entry["Key"].removeprefix(self.prefix)

    def remove(self, prefix: str) -> int:
        """Remove all that is below `prefix`, half-sent uploads too; returns how many objects."""
        with self._told(prefix):
            for upload in self._uploads(prefix):
                self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
            found = list(self.keys(prefix))
            for first in range(0, len(found), PAGE):
                batch = [{"Key": self.prefix + key} for key in found[first : first + PAGE]]
                done = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}
                )
                for error in done.get("Errors", []):
                    raise Failure(f"{self.name}: {error['Key']}: {error.get('Message', error)}")
        return len(found)

    def holds(self, path: Path, key: str) -> bool:
        """Whether the store has this very content, by a digest that the store itself has made.

        Where it has none, the object is read again and compared.
        """
        try:
            with self._told(key):
                head = self._client.head_object(
                    Bucket=self.bucket, Key=self.prefix + key, ChecksumMode="ENABLED"
                )
        except Gone:
            return False
        if head["ContentLength"] != path.stat().st_size:
            return False
        etag = head["ETag"].strip('"')
        # A store that encrypts with a key of its own gives an ETag that is no MD5.
        if not head.get("SSEKMSKeyId") and not head.get("SSECustomerAlgorithm"):
            plain, composite = _md5(path, whole="-" not in etag)
            if etag == (composite if "-" in etag else plain):
                return True
        return self._read_again(key) == _sha256(path)

    def upload(self, files: Sequence[tuple[Path, str]], moved: Callable[[int], None]) -> None:
        """Send files, several parts at a time; parts that an earlier try has sent are not resent.

        `files` are pairs of path and key; `moved` takes the bytes that are through, resumed ones
        included.  What the store has of a file is compared with it at the end.
        """
        small = [(path, key) for path, key in files if path.stat().st_size <= PART]
        started = [self._start(path, key) for path, key in files if (path, key) not in small]
        jobs = [partial(self._put, path, key, moved) for path, key in small]
        finished = [upload for upload in started if len(upload.sent) == upload.count]
        # Several files side by side: some stores take the parts of one only in their order.
        for first in range(0, len(started), WORKERS):
            group = started[first : first + WORKERS]
            for number in range(1, max(upload.count for upload in group) + 1):
                for upload in group:
                    if number in upload.sent:
                        moved(min(upload.part, upload.size - (number - 1) * upload.part))
                    elif number <= upload.count:
                        jobs.append(partial(self._send, upload, number, moved))
        together(jobs, WORKERS)
        together([partial(self._finish, upload) for upload in finished], WORKERS)

    def _put(self, path: Path, key: str, moved: Callable[[int], None]) -> None:
        go_on()
        data = path.read_bytes()
        self.write(key, data, FOREVER)
        self._confirm(path, key)
        moved(len(data))

    def _start(self, path: Path, key: str) -> _Upload:
        """Find the upload that an earlier try has begun, with the parts that are as they should."""
        size = path.stat().st_size
        upload = _Upload(path, key, size, part_size(size), "")
        with self._told(key):
            for found in self._uploads(key):
                if found["Key"] == self.prefix + key:
                    upload.id = found["UploadId"]
                    upload.sent = self._sent(upload)
            if not upload.id:
                upload.id = self._client.create_multipart_upload(
                    Bucket=self.bucket,
                    Key=self.prefix + key,
                    ContentType=content_type(key),
                    CacheControl=FOREVER,
                    ChecksumAlgorithm="SHA256",
                )["UploadId"]
        return upload

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        """The uploads that are neither complete nor given up."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        try:
            for page in pages:
                yield from page.get("Uploads", [])
        except ClientError as error:
            # What rclone answers for a bucket that never had one.
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise

    def _sent(self, upload: _Upload) -> dict[int, dict[str, str]]:
        """The parts that the store has, as far as they equal the file's."""
        good = {}
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self.bucket, Key=self.prefix + upload.key, UploadId=upload.id
        )
        for found in (entry for page in pages for entry in page.get("Parts", [])):
            number = found["PartNumber"]
            data = _part(upload, number)
            digests = _digests(data)
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
            same = found.get("ChecksumSHA256", digests["ChecksumSHA256"])
            if (
                found["Size"] == len(data)
                and found["ETag"].strip('"') == etag
                and same == digests["ChecksumSHA256"]
            ):
                good[number] = _receipt(number, found["ETag"], digests)
        return good

    def _send(self, upload: _Upload, number: int, moved: Callable[[int], None]) -> None:
        go_on()
        data = _part(upload, number)
        digests = _digests(data)
        with self._told(upload.key):
            sent = self._client.upload_part(
                Bucket=self.bucket,
                Key=self.prefix + upload.key,
                UploadId=upload.id,
                PartNumber=number,
                Body=data,
                **digests,
            )
        with upload.lock:
            upload.sent[number] = _receipt(number, sent["ETag"], digests)
            moved(len(data))
            complete = len(upload.sent) == upload.count
        if complete:
            self._finish(upload)

    def _finish(self, upload: _Upload) -> None:
        with self._told(upload.key):
            self._client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=self.prefix + upload.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": [upload.sent[number] for number in sorted(upload.sent)]},
            )
        self._confirm(upload.path, upload.key)

    def _confirm(self, path: Path, key: str) -> None:
        if not self.holds(path, key):
            raise Failure(f"{self.name}{key}: is not what was sent; publish again, it is replaced")

    def _read_again(self, key: str) -> str:
        total = hashlib.sha256()
        with self._told(key):
            body = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"]
            for chunk in body.iter_chunks(MIB):
                go_on()
                total.update(chunk)
        return total.hexdigest()

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Turn what botocore raises into one line."""
        where = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            message = error.response.get("Error", {}).get("Message", "")
            if code in _GONE:
                raise Gone(f"{where}: the store answers {code}; try again") from error
            if code in _HINTS:
                raise UserError(f"{where}: {code}: {_HINTS[code]}") from error
            raise Failure(f"{where}: the store answers {code}: {message}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UserError(
                f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "store.profile in publish.toml"
            ) from error
        except ProfileNotFound as error:
            raise UserError(f"{where}: {error}; see store.profile in publish.toml") from error
        except EndpointResolutionError as error:
            raise UserError(f"{where}: {error}; see [store] in publish.toml") from error
        except BotoCoreError as error:
            raise Failure(f"{where}: {' '.join(str(error).split())[:300]}") from error


def client(settings: publishing.Store, *, anonymous: bool = False) -> Any:
    """A boto3 client for S3; without credentials if `anonymous`."""
    session = boto3.session.Session(
        profile_name=(settings.profile or None) if not anonymous else None,
        region_name=settings.region or None,
    )
    options: dict[str, Any] = {"signature_version": UNSIGNED} if anonymous else {}
    own = settings.endpoint or session._session.get_config_variable("endpoint_url")
    return session.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        region_name=settings.region or session.region_name or "us-east-1",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 6},
            connect_timeout=10,
            read_timeout=120,
            max_pool_connections=WORKERS + 2,
            # Most stores have no host name for each bucket.
            s3={"addressing_style": "path" if own else "auto"},
            **options,
        ),
    )


def _part(upload: _Upload, number: int) -> bytes:
    with upload.path.open("rb") as stream:
        stream.seek((number - 1) * upload.part)
        return stream.read(upload.part)


def _digests(data: bytes) -> dict[str, str]:
    # MD5 too: stores that are not AWS's verify it, and not always the other.
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    return {
        "ContentMD5": base64.b64encode(md5).decode(),
        "ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode(),
    }


def _receipt(number: int, etag: str, digests: dict[str, str]) -> dict[str, Any]:
    return {"PartNumber": number, "ETag": etag, "ChecksumSHA256": digests["ChecksumSHA256"]}


def _md5(path: Path, *, whole: bool) -> tuple[str, str]:
    """The MD5 of a file, and the one of its parts' MD5s with their number, as an ETag has it."""
    total = hashlib.md5(usedforsecurity=False)
    of_parts = b""
    count = 0
    size = part_size(path.stat().st_size)
    with path.open("rb") as stream:
        while data := stream.read(size):
            go_on()
            if whole:
                total.update(data)
            else:
                of_parts += hashlib.md5(data, usedforsecurity=False).digest()
                count += 1
    composite = hashlib.md5(of_parts, usedforsecurity=False).hexdigest()
    return total.hexdigest(), f"{composite}-{count}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
