"""An S3-compatible store: reading, writing, listing and comparing; `upload.py` sends files.

It works with every store that speaks the S3 API, and relies on nothing that only AWS has: where a
store refuses a header, the request is sent again without it, and the store is remembered as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
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

from hyraxvm.config import publish
from hyraxvm.core import cache
from hyraxvm.core.cancel import call_in_background, in_background
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.parallel import run_parallel
from hyraxvm.store import parts
from hyraxvm.store.parts import MIB, InParts, Whole

WORKERS: Final = 4  # parts in flight; with the parts' size this limits the memory
MAX_TEXT: Final = 16 * MIB  # bytes of an object that is read into memory, at most
TRIES: Final = 3  # without a byte gained
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

# Error code of the store -> what is wrong, and what the user can do.
_HINTS: Final = {
    "AccessDenied": "the credentials do not allow it; see the policy in docs/maintainer-guide.md",
    "ExpiredToken": "the session has expired; get new credentials",
    "InvalidAccessKeyId": "the store does not know this access key; see AWS_ACCESS_KEY_ID",
    "NoSuchBucket": "there is no such bucket; see store.bucket in publish.toml",
    "PermanentRedirect": "the bucket is in another region; see store.region in publish.toml",
    "RequestTimeTooSkewed": "this computer's clock is wrong; set it (`timedatectl` shows it)",
    "SignatureDoesNotMatch": "the secret key is not the access key's; see AWS_SECRET_ACCESS_KEY",
    "403": "the credentials do not allow it; see the policy in docs/maintainer-guide.md",
}
_CONFLICTS: Final = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_DAMAGED: Final = (
    *("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"),
    "XAmzContentSHA256Mismatch",
)
# What stores answer to a header or an operation that they do not know; HEAD has no code.
_UNKNOWN: Final = (
    *("NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed"),
    *("BadRequest", "400", "405"),
)
_GONE: Final = ("404", "NoSuchKey", "NotFound", "NoSuchUpload")


class Conflict(Exception):
    """Somebody else has changed the object since it was read."""


class Gone(Failure):
    """The object, or the unfinished upload, does not exist any more."""


class Unsupported(Failure):
    """The store does not know a header or an operation."""


class Damaged(Failure):
    """What arrived has another digest than was sent with it."""


class Differs(Failure):
    """The object has another size."""


def content_type(name: str) -> str:
    """Return the media type for a file's suffix."""
    return _TYPES.get(Path(name).suffix, "application/octet-stream")


class Store:
    """The bucket of `publish.toml`; keys are relative to its prefix.

    Every method raises `UserError` for what the user can repair (credentials, clock, bucket) and
    `Failure` for what the store did not do in several tries.
    """

    def __init__(self, settings: publish.StoreSettings, attempts: int = 6) -> None:
        """Find credentials as boto3 does; nothing is sent yet."""
        self.bucket = publish.required(settings.bucket, "store.bucket")
        self.prefix = settings.prefix
        # What the store is able to do, until it refuses it.
        self.checksums = self.conditions = True
        with self._explained(""):
            try:
                self.client = client(settings, attempts=attempts)
            except ValueError as error:
                raise UserError(f"{self.name}: {error}; see [store] in publish.toml") from error

    @property
    def name(self) -> str:
        """What users read: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}"

    def ask(self, operation: str, key: str, **arguments: Any) -> Any:
        """Call an operation of the S3 API about one object."""
        with self._explained(key):
            call = getattr(self.client, operation)
            return call_in_background(
                partial(call, Bucket=self.bucket, Key=self.prefix + key, **arguments)
            )

    def ask_checked(
        self,
        operation: str,
        key: str,
        checked: dict[str, Any],
        plain: dict[str, Any],
        **arguments: Any,
    ) -> Any:
        """Call an operation with the arguments of SHA-256, or with `plain` if they are refused.

        Backblaze B2, for example, refuses every header `x-amz-checksum-...`.
        """
        if self.checksums:
            try:
                return self.ask(operation, key, **checked, **arguments)
            except Unsupported:
                answer = self.ask(operation, key, **plain, **arguments)
                self.checksums = False
                return answer
        return self.ask(operation, key, **plain, **arguments)

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a small object's content and ETag, or None: it does not exist."""

        def get() -> tuple[bytes, str]:
            found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            data = found["Body"].read(MAX_TEXT + 1)
            if len(data) > MAX_TEXT:
                raise UserError(f"{self.name}{key}: is longer than {MAX_TEXT} bytes")
            return data, found.get("ETag", "")

        try:
            with self._explained(key):
                return call_in_background(get)
        except Gone:
            return None

    def fetch(self, key: str, path: Path, size: int, moved: Callable[[int], None]) -> None:
        """Read an object of `size` bytes into a file; continue where a connection has broken.

        Raises `Gone`; `Differs`: the object has another size.
        """
        tries = 0
        with path.open("wb") as sink:
            while (begin := sink.tell()) < size:
                try:
                    for chunk in self._chunks(key, begin, size):
                        sink.write(chunk)
                        moved(len(chunk))
                except (Gone, Differs, UserError):
                    raise
                except Failure:
                    tries = 1 if sink.tell() > begin else tries + 1
                    if tries == TRIES:
                        raise

    def write(self, key: str, data: bytes, cache: str, etag: str | None = None) -> None:
        """Write a small object; with `etag`, only if the object still has this ETag.

        An empty `etag` means that the object must not exist.  Raises `Conflict` if the condition
        does not hold; not every store checks it.
        """
        condition = {} if etag is None else {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        put = partial(
            self.ask_checked,
            "put_object",
            key,
            {"ChecksumSHA256": parts.checksum(data)},
            {"ContentMD5": parts.md5(data)},
            Body=data,
            ContentType=content_type(key),
            CacheControl=cache,
        )
        if condition and self.conditions:
            try:
                put(**condition)
                return
            except Unsupported:
                put()
                self.conditions = False
        else:
            put()

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below `prefix`, read page by page."""
        for entry in self._listed("list_objects_v2", "Contents", Prefix=self.prefix + prefix):
            yield entry["Key"].removeprefix(self.prefix)

    def unfinished(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield the uploads below `prefix` that are neither complete nor given up."""
        try:
            yield from self._listed(
                "list_multipart_uploads", "Uploads", Prefix=self.prefix + prefix
            )
        except (Gone, Unsupported):
            return  # Gone: rclone's answer for a bucket that never had an unfinished upload

    def sent_parts(self, key: str, upload: str) -> Iterator[dict[str, Any]]:
        """Yield the parts that an unfinished upload has."""
        return self._listed("list_parts", "Parts", Key=self.prefix + key, UploadId=upload)

    def remove(self, prefix: str) -> int:
        """Remove all objects and unfinished uploads below `prefix`; return how many objects."""
        for upload in self.unfinished(prefix):
            key = upload["Key"].removeprefix(self.prefix)
            self.ask("abort_multipart_upload", key, UploadId=upload["UploadId"])
        found = list(self.keys(prefix))
        # One by one: DeleteObjects wants Content-MD5 of some stores, a checksum of others, and
        # Google's does not have it.
        run_parallel([partial(self.ask, "delete_object", key) for key in found], WORKERS)
        return len(found)

    def holds(self, path: Path, key: str) -> bool:
        """Return whether the store has this content, by a digest that the store itself has made.

        If it has none, read the object again and compare.
        """
        try:
            head = self.ask_checked("head_object", key, {"ChecksumMode": "ENABLED"}, {})
        except Gone:
            return False
        if head.get("ContentLength") not in (None, path.stat().st_size):
            return False
        # A store that encrypts with its own key has an ETag that is not an MD5, and makes the
        # checksum itself.  Else the ETag counts: some stores only repeat the checksum sent.
        secret = head.get("SSEKMSKeyId") or head.get("SSECustomerAlgorithm")
        said = head.get("ChecksumSHA256", "") if secret else head.get("ETag", "").strip('"')
        sent = InParts(path) if "-" in said else Whole(path)
        if said and said == (sent.checksum if secret else sent.etag):
            return True
        return self._read_again(key) == cache.file_digest(path)

    def confirm(self, path: Path, key: str) -> None:
        """Raise `Failure` unless the store has this very content."""
        if not self.holds(path, key):
            raise Failure(
                f"{self.name}{key}: differs from what was sent; to replace it, publish again"
            )

    def _read_again(self, key: str) -> str:
        total = hashlib.sha256()
        for chunk in self._chunks(key):
            total.update(chunk)
        return total.hexdigest()

    def _chunks(self, key: str, begin: int = 0, size: int | None = None) -> Iterator[bytes]:
        more = {"Range": f"bytes={begin}-"} if begin else {}

        def get() -> Generator[bytes, None, None]:
            found = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key, **more)
            length = found.get("ContentLength")
            if None not in (size, length) and begin + length != size:
                raise Differs(f"{self.name}{key}: has {begin + length} bytes instead of {size}")
            yield from found["Body"].iter_chunks(MIB)

        with self._explained(key):
            yield from in_background(get())

    def _listed(self, operation: str, what: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator(operation).paginate(Bucket=self.bucket, **arguments)
        with self._explained(arguments.get("Prefix", "").removeprefix(self.prefix)):
            for page in in_background(page for page in pages):
                yield from page.get(what, [])

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn the errors of botocore into errors of one line."""
        where = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            message = error.response.get("Error", {}).get("Message", "")
            if code in _GONE:
                raise Gone(f"{where}: the store answers {code}; try again") from error
            if code in _CONFLICTS:
                raise Conflict(key) from error
            if code in _DAMAGED:
                raise Damaged(f"{where}: the store answers {code}: {message}") from error
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in _UNKNOWN or status == 501:
                raise Unsupported(f"{where}: the store answers {code}: {message}") from error
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


def client(settings: publish.StoreSettings, *, anonymous: bool = False, attempts: int = 6) -> Any:
    """Return a boto3 client for S3; without credentials if `anonymous`."""
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
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=10,
            read_timeout=120,
            max_pool_connections=WORKERS + 2,
            # Files that matter carry digests anyway; other stores do not know those of boto3.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                # Most stores have no host name for each bucket.
                "addressing_style": settings.style or ("path" if own else "auto"),
                # Each body's digests are in headers that are signed.
                "payload_signing_enabled": False,
            },
            **options,
        ),
    )
