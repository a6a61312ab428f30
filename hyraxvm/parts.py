"""How a file is cut into parts, and the digests by which a store and this program agree on them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hyraxvm.command import go_on

MIB: Final = 1024 * 1024
PART: Final = 8 * MIB
MOST_PARTS: Final = 10_000  # Amazon S3 user guide, "multipart upload limits"


@dataclass(frozen=True)
class Digests:
    """The MD5 and the SHA-256 of the same bytes, and how the S3 API writes them."""

    md5: bytes
    sha256: bytes
    parts: int = 0  # 0: of the bytes themselves; else: of the digests of so many parts

    @property
    def etag(self) -> str:
        """The ETag that a store makes unless it encrypts with a key of its own."""
        return f"{self.md5.hex()}{self._suffix}"

    @property
    def checksum(self) -> str:
        """The `ChecksumSHA256`, which not every store makes."""
        return f"{base64.b64encode(self.sha256).decode()}{self._suffix}"

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments by which a service verifies what it receives."""
        # MD5 too: stores that are not AWS's verify it, and not always the other.
        return {"ContentMD5": base64.b64encode(self.md5).decode(), "ChecksumSHA256": self.checksum}

    @property
    def _suffix(self) -> str:
        return f"-{self.parts}" if self.parts else ""


@dataclass(frozen=True)
class Whole:
    """The same of a file as one piece, made when it is asked for: each reads all of it."""

    path: Path

    @property
    def etag(self) -> str:
        """The ETag that a store makes unless it encrypts with a key of its own."""
        return self._digest("md5").hex()

    @property
    def checksum(self) -> str:
        """The `ChecksumSHA256`, which not every store makes."""
        return base64.b64encode(self._digest("sha256")).decode()

    def _digest(self, name: str) -> bytes:
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, name).digest()


def part_size(size: int) -> int:
    """The bytes of each part but the last: always the same for a size, so that uploads resume."""
    needed = -(-size // MOST_PARTS)
    return max(PART, -(-needed // MIB) * MIB)


def count(size: int) -> int:
    """How many parts a file of `size` bytes has."""
    return max(1, -(-size // part_size(size)))


def part(path: Path, number: int, size: int) -> bytes:
    """Part `number`, counted from 1, of a file that is cut into parts of `size` bytes."""
    with path.open("rb") as stream:
        stream.seek((number - 1) * size)
        return stream.read(size)


def digests(data: bytes) -> Digests:
    """The digests of some bytes."""
    md5 = hashlib.md5(data, usedforsecurity=False)
    return Digests(md5.digest(), hashlib.sha256(data).digest())


def composite(found: Sequence[Digests]) -> Digests:
    """The digests of an object that was sent in these parts."""
    md5 = hashlib.md5(b"".join(one.md5 for one in found), usedforsecurity=False)
    sha256 = hashlib.sha256(b"".join(one.sha256 for one in found))
    return Digests(md5.digest(), sha256.digest(), len(found))


def of(path: Path) -> Digests:
    """The digests of a file that is sent in parts."""
    length = path.stat().st_size
    found = []
    for number in range(1, count(length) + 1):
        go_on()
        found.append(digests(part(path, number, part_size(length))))
    return composite(found)
