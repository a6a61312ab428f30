"""A folder on the web: reads small files whole; continues the transfer of a large one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import requests
from botocore.exceptions import BotoCoreError
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url
from urllib3.exceptions import HTTPError

from hyraxvm.config import publish
from hyraxvm.core.cancel import call_in_background, in_background, sleep
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.store.parts import MIB
from hyraxvm.store.s3 import MAX_TEXT, client

TRIES: Final = 6  # without a byte gained
TIMEOUT: Final = (10.0, 60.0)  # seconds, to connect and between two bytes
WAIT: Final = 0.5  # seconds before the second try; doubled at each further one
_NO_URL: Final = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
_PAGE: Final = re.compile(rb"\s*<(!doctype html|html|head|script|meta)\b", re.IGNORECASE)
_LATER: Final = (429, 500, 502, 503, 504)

T = TypeVar("T")


class _Interrupted(Exception):
    """The transfer stopped for a reason that may pass."""


class _Session(requests.Session):
    """Uses the proxies and certificates of the environment, but no credentials of ~/.netrc."""

    def __init__(self, url: str) -> None:
        super().__init__()
        user, password = get_auth_from_url(url)
        # Without any, requests would look into ~/.netrc.
        self.auth = HTTPBasicAuth(user, password) if user or password else _same

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Send the credentials after a redirect to the same host only."""
        asked, redirected = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(asked, redirected):
            prepared_request.headers.pop("Authorization", None)


def _same(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Site:
    """A folder on the web, or a folder in a store that is read without credentials."""

    def __init__(self, url: str, store: publish.StoreSettings) -> None:
        """Use `https://...`, or `s3://BUCKET/PREFIX` at the endpoint of `store`."""
        url = f"{url.rstrip('/')}/"
        self._base = _web(url, store) if url.startswith("s3:") else url
        self.url = publish.clean_url(url)  # for messages: a password has no place in a log
        try:
            self._session = _Session(self._base)
        except ValueError as error:
            raise self._no_url() from error
        # A file is what was published, not an encoding of it.
        self._session.headers["Accept-Encoding"] = "identity"

    def text(self, name: str) -> bytes:
        """Return the content of a small file; raise `UserError` if it is missing, or not small."""

        def read() -> bytes:
            with self._open(name, 0) as answer:
                data = b""
                for chunk in answer.iter_content(MIB):
                    data += chunk
                    if len(data) > MAX_TEXT:
                        raise UserError(f"{self.url}{name}: is longer than {MAX_TEXT} bytes")
                if _PAGE.match(data):
                    raise self._is_page(name, answer)
                return data

        return self._persist(name, lambda: call_in_background(read), lambda: 0)

    def fetch(self, name: str, part: Path, size: int, moved: Callable[[int], None]) -> str:
        """Continue `part` until it has `size` bytes, or all that the server has; never much more.

        Return the SHA-256 of its content then, in hexadecimal.

        Raises:
            UserError: The server does not have the file.
            Failure: The transfer stopped several times without a byte gained.
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
                        # The server does not know ranges, and sends the file from the beginning.
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
        """Yield the pieces of a file as they arrive, each with its place in the file."""
        with self._open(name, begin) as answer:
            if answer.status_code == 416:
                return  # the server's file is shorter
            at = begin if answer.status_code == 206 else 0
            span = answer.headers.get("Content-Range", f"bytes {at}-")
            if answer.status_code == 206 and not span.startswith(f"bytes {begin}-"):
                raise _Interrupted("the server answers another part than was asked for")
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
                kind = answer.headers.get("Content-Type", "").lower()
                good = answer.status_code in (200, 206)
                if answer.status_code == 511 or (good and kind.startswith("text/html")):
                    raise self._is_page(name, answer)
                if answer.status_code in _LATER:
                    raise _Interrupted(f"the server answers {answer.status_code}")
                if answer.status_code not in (200, 206, 416):
                    raise UserError(
                        f"{self.url}{name}: the server answers {answer.status_code}; "
                        "see download.url in publish.toml, or name another with --url"
                    )
                yield answer
        except _NO_URL as error:
            raise self._no_url() from error
        except (requests.RequestException, HTTPError) as error:
            if found := re.search(r"certificate verify failed: ([^(]+)", str(error)):
                raise UserError(
                    f"{self.url}: its certificate is refused: {found[1].strip()}; a network's "
                    "login page or a proxy may be in between, or this computer's clock is wrong; "
                    "REQUESTS_CA_BUNDLE names the certificates that count"
                ) from error
            raise _Interrupted(_reason(error)) from error

    def _no_url(self) -> UserError:
        return UserError(
            f"{self.url}: cannot be read as a URL; expected: https://HOST/FOLDER or "
            "s3://BUCKET/PREFIX"
        )

    def _is_page(self, name: str, answer: requests.Response) -> UserError:
        host = urlsplit(answer.url).hostname
        return UserError(
            f"{self.url}{name}: a web page came instead of the file, from {host}; if this network "
            "wants a login, open any page in a browser first; else see the URL"
        )

    def _persist(self, name: str, attempt: Callable[[], T], gained: Callable[[], int]) -> T:
        """Try again after a fault that may pass; a try that has gained bytes does not count."""
        tries, most = 0, gained()
        while True:
            try:
                return attempt()
            except _Interrupted as error:
                tries = 1 if gained() > most else tries + 1
                most = max(most, gained())
                if tries == TRIES:
                    raise Failure(
                        f"{self.url}{name}: {error}; type the same command again to go on"
                    ) from error
                sleep(WAIT * 2 ** (tries - 1))


def _reason(error: BaseException) -> str:
    found = re.findall(
        r"\[Errno -?\d+\] ([^'\")]+)|(Tunnel connection failed: [^'\")]+)", str(error)
    )
    found = [first or second for first, second in found]
    return found[-1] if found else type(error).__name__


def _web(url: str, store: publish.StoreSettings) -> str:
    """Return the web address of `s3://BUCKET/PREFIX/`, as boto3 makes it."""
    match = re.fullmatch(r"s3://([^/]+)/(.*)", url)
    if not match:
        raise UserError(f"{url}: is not a URL; expected: https://HOST/FOLDER or s3://BUCKET/PREFIX")
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
