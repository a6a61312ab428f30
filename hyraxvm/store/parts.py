"""How a file is cut into parts, and the digests that a store reports of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hyraxvm.core.cancel import check_cancelled

MIB: Final = 1024 * 1024
PART: Final = 8 * MIB
MOST_PARTS: Final = 10_000  # Amazon S3 user guide, "multipart upload limits"


def part_size(size: int) -> int:
    """Return the bytes of each part but the last: the same for the same size, so uploads resume."""
    needed = -(-size // MOST_PARTS)
    return max(PART, -(-needed // MIB) * MIB)


def count(size: int) -> int:
    """Return how many parts a file of `size` bytes has."""
    return max(1, -(-size // part_size(size)))


def part(path: Path, number: int, size: int) -> bytes:
    """Return part `number`, counted from 1, of a file that is cut into parts of `size` bytes."""
    with path.open("rb") as stream:
        stream.seek((number - 1) * size)
        return stream.read(size)


def etag(data: bytes) -> str:
    """Return the ETag of a part, or of an object that was sent as a whole."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def checksum(data: bytes) -> str:
    """Return the `ChecksumSHA256` of a part, or of an object that was sent as a whole."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def md5(data: bytes) -> str:
    """Return the `ContentMD5` of a body."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@dataclass(frozen=True)
class Whole:
    """The digests that a store reports of a file sent as a whole; each reads all of the file."""

    path: Path

    @property
    def etag(self) -> str:
        """The ETag, unless the store encrypts with its own key."""
        return self._digest("md5").hex()

    @property
    def checksum(self) -> str:
        """The `ChecksumSHA256`, which not every store has."""
        return base64.b64encode(self._digest("sha256")).decode()

    def _digest(self, name: str) -> bytes:
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, name).digest()


@dataclass(frozen=True)
class InParts:
    """The digests that a store reports of a file sent in parts: those of the parts' digests."""

    path: Path

    @property
    def etag(self) -> str:
        """As for `Whole`."""
        return self._digest("md5").hex() + self._suffix

    @property
    def checksum(self) -> str:
        """As for `Whole`."""
        return base64.b64encode(self._digest("sha256")).decode() + self._suffix

    @property
    def _suffix(self) -> str:
        return f"-{count(self.path.stat().st_size)}"

    def _digest(self, name: str) -> bytes:
        total = hashlib.new(name, usedforsecurity=False)
        for data in self._parts():
            total.update(hashlib.new(name, data, usedforsecurity=False).digest())
        return total.digest()

    def _parts(self) -> Iterator[bytes]:
        length = self.path.stat().st_size
        for number in range(1, count(length) + 1):
            check_cancelled()
            yield part(self.path, number, part_size(length))
