"""The stage cache that machines share: a folder of a bucket.

Anyone who can put a stage there can put anything into an image.  So each entry is authenticated
with a key that only the machines that build have.  Neither the bucket nor others who may write to
it are trusted, and nothing of an entry is unpacked before its code and its digest are checked.  A
fault of the cache costs time, and never fails a build.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hyraxvm.config import publish
from hyraxvm.core import archives, cache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import output
from hyraxvm.core.progress import meter
from hyraxvm.store.s3 import Differs, Gone, Store
from hyraxvm.store.upload import upload

KEY_FILE: Final = "HYRAX_VM_CACHE_KEY_FILE"
SHORTEST: Final = 32  # bytes of the key
ATTEMPTS: Final = 3  # for each request; making a stage takes minutes, waiting must take less
DEADLINE: Final = 900.0  # seconds to pack or unpack one stage
DATE: Final = "1980-01-01T00:00:00Z"  # of the files in an archive
LARGEST: Final = 2**36  # bytes of a stage

Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CacheEntry(BaseModel):
    """A stage in the bucket: its archive's digest, its size packed and unpacked, and the HMAC."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: Hex
    size: Annotated[int, Field(gt=0, le=LARGEST)]
    unpacked: Annotated[int, Field(gt=0, le=LARGEST)]
    code: Hex


class BadEntry(Failure):
    """An entry is not what a machine with the key has put there."""


class SharedCache:
    """Stages of other machines; `StageCache` asks for them, and hands over what it has made."""

    def __init__(self, store: Store, key: bytes, say: Callable[[str], None]) -> None:
        """Use a bucket with the key of the machines that build; `say` takes notices."""
        self.store = store
        self._key = key
        self._say = say
        self._reads = self._writes = True

    def fetch(self, stage: str, key: str, work: Path, spare: Path) -> bool:
        """Fill `work` with a stage's output if the bucket has it; `spare` is for the archive."""
        if not self._reads:
            return False
        try:
            return self._fetch(stage, key, work, spare)
        except BadEntry as error:
            self._say(f"stage cache: {error}; made again")
        except (Failure, OSError) as error:
            self._reads = self._writes = False
            self._say(f"stage cache: {error}; this run goes on without it")
        return False

    def keep(self, stage: str, key: str, made: Path, spare: Path) -> None:
        """Put a stage's output into the bucket, if the credentials allow it."""
        if not self._writes:
            return
        try:
            self._keep(stage, key, made, spare)
        except (Failure, OSError) as error:
            self._writes = False
            self._say(f"stage cache: {error}; this run keeps nothing there")

    def _fetch(self, stage: str, key: str, work: Path, spare: Path) -> bool:
        name = f"{stage}/{key}.json"
        found = self.store.read(name)
        if found is None:
            return False
        try:
            entry = CacheEntry.model_validate_json(found[0])
        except ValidationError:
            raise BadEntry(f"{self.store.name}{name}: is not an entry") from None
        if not hmac.compare_digest(entry.code, self._code(stage, key, entry)):
            raise BadEntry(f"{self.store.name}{name}: was not put there with the key of {KEY_FILE}")
        started = time.monotonic()
        archive = spare / "stage.tar.zst"
        try:
            with meter(f"{stage} from the stage cache", entry.size) as moved:
                self.store.fetch(
                    self._archive(stage, key, entry.sha256), archive, entry.size, moved
                )
        except Gone:
            return False  # expired
        except Differs as error:
            raise BadEntry(str(error)) from None
        if cache.file_digest(archive) != entry.sha256:
            raise BadEntry(f"{self.store.name}{name}: its archive was changed")
        tar = spare / "stage.tar"
        try:
            output(
                [
                    *("prlimit", f"--fsize={entry.unpacked}", "--"),
                    *("zstd", "--quiet", "--decompress", "-o", str(tar), str(archive)),
                ],
                deadline=DEADLINE,
            )
            archive.unlink()
            archives.unpack_tar(tar, work)
        except Failure as error:
            raise BadEntry(f"{self.store.name}{name}: {error}") from None
        took = time.monotonic() - started
        self._say(f"stage cache: {stage}: {entry.size / 1e6:.1f} MB fetched in {took:.1f} s")
        return True

    def _keep(self, stage: str, key: str, made: Path, spare: Path) -> None:
        started = time.monotonic()
        tar, archive = spare / "stage.tar", spare / "stage.tar.zst"
        archives.pack_tar(tar, sorted(made.iterdir()), DATE)
        unpacked = tar.stat().st_size
        output(["zstd", "--quiet", "-T0", "--rm", "-o", str(archive), str(tar)], deadline=DEADLINE)
        size, sha256 = archive.stat().st_size, cache.file_digest(archive)
        entry = CacheEntry(sha256=sha256, size=size, unpacked=unpacked, code="0" * 64)
        entry = entry.model_copy(update={"code": self._code(stage, key, entry)})
        with meter(f"{stage} to the stage cache", size) as moved:
            # Its name has its digest: two machines that make the same stage do not mix parts.
            upload(self.store, [(archive, self._archive(stage, key, sha256))], moved)
        self.store.write(f"{stage}/{key}.json", entry.model_dump_json().encode(), "no-store")
        took = time.monotonic() - started
        self._say(f"stage cache: {stage}: {size / 1e6:.1f} MB kept in {took:.1f} s")

    def _code(self, stage: str, key: str, entry: CacheEntry) -> str:
        """Return the HMAC over the fields of an entry and the stage that it is for."""
        text = json.dumps([stage, key, entry.sha256, entry.size, entry.unpacked])
        return hmac.digest(self._key, text.encode(), "sha256").hex()

    @staticmethod
    def _archive(stage: str, key: str, sha256: str) -> str:
        return f"{stage}/{key}.{sha256}.tar.zst"


def connect(say: Callable[[str], None]) -> SharedCache | None:
    """Return the cache of `publish.toml`, or None: this machine has no key for it.

    Raises `UserError`: the key is too short or cannot be read, or the settings are wrong.
    """
    name = os.environ.get(KEY_FILE)
    if not name:
        return None
    try:
        key = Path(name).read_bytes().strip()
    except OSError as error:
        raise UserError(f"{KEY_FILE}: {name}: cannot be read ({error.strerror})") from error
    if len(key) < SHORTEST:
        raise UserError(
            f"{KEY_FILE}: {name}: is too short; expected: at least {SHORTEST} characters; "
            f"type: openssl rand -hex 32 >{name}"
        )
    settings = publish.load().store
    url = publish.required(settings.cache, "store.cache")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    place = settings.model_copy(update={"bucket": bucket, "prefix": prefix and f"{prefix}/"})
    return SharedCache(Store(place, ATTEMPTS), key, say)
