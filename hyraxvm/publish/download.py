"""`./inv download`: a published file -> this disk, whole and signed, or not under its name at all.

What the store says is trusted only as far as the signature of `SHA256SUMS` goes: the index tells
where to look, the signed `release.json` what is there.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import requests
from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from hyraxvm.config import publish
from hyraxvm.core import archives, cache
from hyraxvm.core.cancel import call_in_background, in_background, sleep
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.progress import meter
from hyraxvm.formats import FORMATS
from hyraxvm.formats.verify import sums
from hyraxvm.release import index, provenance, signing
from hyraxvm.stages.package.stage import SUMS
from hyraxvm.store.parts import MIB
from hyraxvm.store.s3 import MAX_TEXT, client

TRIES: Final = 6  # without a byte gained
TIMEOUT: Final = (10.0, 60.0)  # seconds, to connect and between two bytes
WAIT: Final = 0.5  # seconds before the second try; doubled at each further one
LOCK: Final = ".download.lock"  # in artifacts/, shared by those who download into it
_NO_URL: Final = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
_LATER: Final = (429, 500, 502, 503, 504)

T = TypeVar("T")
Say = Callable[[str], None]


class _Interrupted(Exception):
    """The transfer stopped for a reason that may pass."""


class Site:
    """A folder of the web, or of a store without credentials."""

    def __init__(self, url: str, store: publish.Store) -> None:
        """`url` is `https://...` or `s3://BUCKET/PREFIX`; the latter uses `store`'s endpoint."""
        url = f"{url.rstrip('/')}/"
        self._base = _web(url, store) if url.startswith("s3:") else url
        self.url = provenance.clean_url(url)  # for messages: a password has no place in a log
        self._session = requests.Session()
        # A file is what was published, not an encoding of it.
        self._session.headers["Accept-Encoding"] = "identity"

    def text(self, name: str) -> bytes:
        """A small file; raises `UserError`: it is not there, or not small."""

        def read() -> bytes:
            with self._open(name, 0) as answer:
                data = b""
                for chunk in answer.iter_content(MIB):
                    data += chunk
                    if len(data) > MAX_TEXT:
                        raise UserError(f"{self.url}{name}: too long; allowed are {MAX_TEXT} bytes")
                return data

        return self._persist(name, lambda: call_in_background(read), lambda: 0)

    def fetch(self, name: str, part: Path, size: int, moved: Callable[[int], None]) -> str:
        """Continue `part` until it has `size` bytes, or all that the server has; never much more.

        Returns the SHA-256 of what is in it then, in hexadecimal.

        Raises:
            UserError: The file is not there.
            Failure: The transfer has stopped several times without a byte gained.
        """
        part.touch()
        with part.open("rb") as begun:
            total = hashlib.file_digest(begun, "sha256")

        def attempt() -> None:
            nonlocal total
            begin = part.stat().st_size
            if begin >= size:
                return
            with part.open("ab") as sink:
                for at, chunk in in_background(self._chunks(name, begin)):
                    if at < sink.tell():
                        # The server does not know ranges: from the beginning.
                        moved(-sink.tell())
                        sink.truncate(0)
                        total = hashlib.sha256()
                    # Hashed while the server sends the next one.
                    sink.write(chunk)
                    total.update(chunk)
                    moved(len(chunk))
                    if sink.tell() > size:
                        return

        self._persist(name, attempt, lambda: part.stat().st_size)
        return total.hexdigest()

    def _chunks(self, name: str, begin: int) -> Generator[tuple[int, bytes], None, None]:
        """Where in a file each piece of it belongs, and the piece, however small it is."""
        with self._open(name, begin) as answer:
            if answer.status_code == 416:
                return  # the server's file is shorter
            at = begin if answer.status_code == 206 else 0
            while chunk := answer.raw.read1(MIB):
                yield at, chunk
                at += len(chunk)

    @contextmanager
    def _open(self, name: str, begin: int) -> Iterator[requests.Response]:
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        try:
            with self._session.get(
                self._base + name, headers=headers, stream=True, timeout=TIMEOUT
            ) as answer:
                if answer.status_code in _LATER:
                    raise _Interrupted(f"the server answers {answer.status_code}")
                if answer.status_code not in (200, 206, 416):
                    raise UserError(
                        f"{self.url}{name}: the server answers {answer.status_code}; "
                        "see download.url in publish.toml, or name another with --url"
                    )
                yield answer
        except _NO_URL as error:
            raise UserError(
                f"{self.url}: is no URL that can be read; allowed are https://HOST/FOLDER and "
                "s3://BUCKET/PREFIX"
            ) from error
        except (requests.RequestException, HTTPError) as error:
            raise _Interrupted(_reason(error)) from error

    def _persist(self, name: str, attempt: Callable[[], T], there: Callable[[], int]) -> T:
        """Try again after what may pass; a try that has gained bytes does not count."""
        tries, most = 0, there()
        while True:
            try:
                return attempt()
            except _Interrupted as error:
                tries = 1 if there() > most else tries + 1
                most = max(most, there())
                if tries == TRIES:
                    raise Failure(
                        f"{self.url}{name}: {error}; type the same command again to go on"
                    ) from error
                sleep(WAIT * 2 ** (tries - 1))


def download(
    artifacts: Path,
    site: Site,
    fingerprint: str,
    *,
    image: str,
    version: str,
    kind: str,
    folder: Path,
    unpack: bool,
    say: Say,
) -> Path:
    """Get one file; returns its path, or that of the folder that it was unpacked to.

    `artifacts` is the folder that `./inv clean` empties.

    `version` is a version, `release` or `nightly` for the newest one; `kind` is a format's name.

    Raises:
        UserError: There is no such file; or it was changed, cut off or not signed by the key with
            this fingerprint: then it is kept aside with the suffix `.refused`.
        Failure: The transfer stopped again and again.
    """
    if unpack and not FORMATS[kind].suffix.endswith(".zip"):
        raise UserError(f"format {kind!r} is not packed; leave --unpack out")
    published = index.read_index(site.text(index.INDEX), f"{site.url}{index.INDEX}")
    release = _signed(site, _chosen(site, published, version), fingerprint)
    entry = _entry(release, image, kind)
    folder = folder / release.version
    with _ours(artifacts, folder):
        _made(folder)
        target = folder / entry.name
        if target.exists():
            if not target.is_file() or cache.file_digest(target) != entry.sha256:
                raise UserError(f"{target}: is there with another content; move it away")
            say(f"{target} is there already")
        else:
            _fetch(site, release, entry, target)
            say(f"{target}: {entry.size / 1e6:.1f} MB, signed by {fingerprint}")
        return _unpacked(target) if unpack else target


@contextmanager
def _ours(artifacts: Path, folder: Path) -> Iterator[None]:
    """While it lasts, `./inv clean` does not empty a folder that is its own to empty."""
    if not folder.resolve().is_relative_to(artifacts.resolve()):
        yield
        return
    with cache.lock(artifacts / LOCK, shared=True):
        yield


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --to"
        ) from error


def _chosen(site: Site, published: index.Index, version: str) -> index.Release:
    named = {"release": published.latest.release, "nightly": published.latest.nightly}
    wanted = named.get(version, version)
    found = published.find(wanted)
    if found is None:
        there = ", ".join(one.version for one in published.releases[:10]) or "none"
        what = f"no {version}" if version in named else f"no version {version!r}"
        raise UserError(f"{site.url}: there is {what}; there are: {there}")
    if found.withdrawn:
        newest = published.latest.release or published.latest.nightly or "none"
        raise UserError(f"{wanted} was withdrawn: {found.withdrawn}; the newest is: {newest}")
    return found


def _signed(site: Site, release: index.Release, fingerprint: str) -> index.Release:
    """What the key's owner has signed under this version."""
    where = f"{site.url}{release.path}"
    if release.key != fingerprint:
        raise UserError(
            f"{release.version}: is signed by key {release.key}, not by {fingerprint}; add --key "
            f"{release.key} if the maintainers, not only this site, call it theirs"
        )
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-download-") as work:
        listed, signature = Path(work, SUMS), Path(work, f"{SUMS}.asc")
        listed.write_bytes(site.text(f"{release.path}/{SUMS}"))
        signature.write_bytes(site.text(f"{release.path}/{SUMS}.asc"))
        signing.verify(listed, signature, site.text(index.key_path(fingerprint)), fingerprint)
        said = sums(listed)
    data = site.text(f"{release.path}/{index.RELEASE}")
    if hashlib.sha256(data).hexdigest() != said.get(index.RELEASE):
        raise UserError(f"{where}/{index.RELEASE}: is not the signed one; do not use these files")
    signed = index.read_release(data, f"{where}/{index.RELEASE}")
    # Whoever controls the site could show an old release, signed as it is, under a newer name.
    if (signed.version, signed.path) != (release.version, release.path):
        raise UserError(f"{where}: holds release {signed.version}; do not use these files")
    for entry in (file for image in signed.images for file in image.files):
        if said.get(entry.name) != entry.sha256:
            raise UserError(f"{where}: {entry.name} is not in the signed list; do not use it")
    return signed


def _entry(release: index.Release, image: str, kind: str) -> index.File:
    for found in release.images:
        for entry in found.files:
            if (found.image, entry.format) == (image, kind):
                return entry
    there = ", ".join(
        f"{found.image} as {entry.format}" for found in release.images for entry in found.files
    )
    raise UserError(f"{release.version} has no image {image!r} as {kind}; it has: {there}")


def _fetch(site: Site, release: index.Release, entry: index.File, target: Path) -> None:
    # The digest in the name: what is left of another content is not continued.
    part = target.with_name(f".{entry.name}.{entry.sha256[:12]}.part")
    with cache.lock(part, f"{target}: is being downloaded by another program"):
        there = part.stat().st_size
        free = shutil.disk_usage(target.parent).free
        if free < entry.size - there:
            raise UserError(
                f"{target.parent}: {free / 1e6:.0f} MB free, {(entry.size - there) / 1e6:.0f} MB "
                "are needed; free some space, or name another folder with --to"
            )
        with meter(entry.name, entry.size, there) as moved:
            try:
                digest = site.fetch(f"{release.path}/{entry.name}", part, entry.size, moved)
            except OSError as error:
                raise UserError(
                    f"{part}: {error.strerror or error}; free some space, and type the same "
                    "command again to go on"
                ) from error
        got = part.stat().st_size
        if digest != entry.sha256:
            refused = target.with_name(f"{entry.name}.refused")
            part.replace(refused)
            why = (
                f"was cut off, {got} bytes of {entry.size}"
                if got < entry.size
                else f"is not what was signed (SHA-256 {digest[:12]}..., not {entry.sha256[:12]})"
            )
            raise UserError(f"{site.url}{release.path}/{entry.name}: {why}; kept as {refused}")
        archives.sync(part)
        part.replace(target)


def _unpacked(artifact: Path) -> Path:
    """Unpack a zip beside itself; what is there already stays as it is."""
    work = artifact.with_name(f".{artifact.name}.work")
    cache.remove_tree(work)
    work.mkdir()
    try:
        made = archives.unpack_zip(artifact, work)
        final = artifact.with_name(made.name)
        if final.exists():
            raise UserError(f"{final}: is there already; move it away to unpack anew")
        made.rename(final)
    finally:
        cache.remove_tree(work)
    return final


def _reason(error: BaseException) -> str:
    found = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[-1] if found else type(error).__name__


def _web(url: str, store: publish.Store) -> str:
    """The web address of `s3://BUCKET/PREFIX/`, as boto3 makes it."""
    match = re.fullmatch(r"s3://([^/]+)/(.*)", url)
    if not match:
        raise UserError(f"{url}: is no URL; allowed are https://HOST/FOLDER and s3://BUCKET/PREFIX")
    name = "x"
    try:
        made: str = client(store, anonymous=True).generate_presigned_url(
            "get_object", Params={"Bucket": match[1], "Key": f"{match[2]}{name}"}
        )
    except (BotoCoreError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{url}: {said}; see the URL, [store] in publish.toml and the variables AWS_..."
        ) from error
    return made.removesuffix(name)
