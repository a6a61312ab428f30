"""The WSGI application: maps URLs to files, files to responses, failures to DAP or HTML errors."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import SERVER, listing, responses
from .constraint import constrain
from .errors import RequestError, no_such
from .model import build
from .names import dap_string
from .settings import DEFAULTS, Settings
from .source import Source
from .tree import Tree, shown, split

_PREFIXES = ("/opendap/hyrax", "/opendap")  # both reach the same files, as with Hyrax
_LISTINGS = ("", "contents.html", "catalog.html", "catalog.xml")
_VERSION = f"Core version: DAP/2.0\nServer version: {SERVER}\n"
# A file from the data root must not act as a page of this server.
_PLAIN_TEXT = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".htm")
# The home page belongs to the administrator, and may contain a style and a script.
_HOME_POLICY = "default-src 'self' data: 'unsafe-inline'; frame-ancestors 'none'"
_log = logging.getLogger("gunicorn.error")


@dataclass
class Response:
    """Status, headers, and a body; the code that sends the body must close it."""

    content_type: str
    body: Iterable[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, body: bytes, content_type: str, status: int = 200, **headers: str) -> Response:
        """Return a response whose whole body is known; keywords are headers (`_` for `-`)."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(content_type, [body], status, {"Content-Length": str(len(body)), **names})


class Body:
    """The pieces of a data response; closing it closes the file, however the response ends."""

    def __init__(self, pieces: Iterator[bytes], source: Source, prepare: bool) -> None:
        """Take over `source`; with `prepare`, read the first piece now."""
        self._pieces = pieces
        self._source = source
        # A failure at the first block can still be answered with a proper error.
        self._first = next(pieces) if prepare else b""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces; raise BrokenPipeError to cut the response short."""
        yield self._first
        try:
            yield from self._pieces
        except RequestError as error:
            raise _cut(error.message) from None

    def close(self) -> None:
        """Close the file."""
        if isinstance(self._pieces, Generator):
            self._pieces.close()
        self._source.close()


class Download:
    """The body of a response that sends a file as it is."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Take over an open descriptor; send `size` octets of its file."""
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._left = size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the octets; raise BrokenPipeError to cut the response short."""
        while self._left > 0:
            try:
                piece = self._file.read(min(self._left, 256 * 1024))
            except OSError as error:
                raise _cut(f"download: {error.strerror}") from None
            if not piece:
                raise _cut("download: the file became shorter")
            self._left -= len(piece)
            yield piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut(message: str) -> BrokenPipeError:
    """Log `message`, and return the error that ends a response after its headers.

    On this error Gunicorn closes the connection without ending the body, by which the client
    notices the failure, and without a traceback.
    """
    _log.error("response cut short: %s", message)
    return BrokenPipeError(errno.EPIPE, "response cut short")


class Application:
    """The application that serves the tree below `root`, and the administrator's page at /."""

    def __init__(self, root: str, home: str = "", settings: Settings = DEFAULTS) -> None:
        """Serve the data below the path `root`, and `index.html` in the directory `home`."""
        self._settings = settings
        self._tree = Tree(root, settings.links)
        self._home = Path(home, "index.html") if home else None

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        # WSGI passes octets as Latin-1; file names must be decoded as the system decodes them.
        path = os.fsdecode(environ.get("PATH_INFO", "").encode("latin-1"))
        try:
            response = self._respond(path, environ)
        except RequestError as error:
            response = self._error(path, error)
        except Exception:
            _log.exception("cannot answer %r", path)
            response = self._error(
                path, RequestError(500, "the server failed; the details are in its log")
            )
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        headers = {
            "Content-Type": response.content_type,
            "XDODS-Server": f"{SERVER} (DAP/2.0)",
            "XDAP": "2.0",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            **response.headers,
        }
        start_response(status, list(headers.items()))
        if environ["REQUEST_METHOD"] == "HEAD":
            close = getattr(response.body, "close", None)
            if close:
                close()
            return []
        return response.body

    def _respond(self, path: str, environ: dict[str, Any]) -> Response:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._error(
                path, RequestError(405, "the method must be GET or HEAD"), Allow="GET, HEAD"
            )
        if path == "/" or (path == "/index.html" and self._home):
            return self._home_page() or _redirect("/opendap/")
        if path in _PREFIXES:
            return _redirect(f"{path}/")
        for prefix in _PREFIXES:
            if path.startswith(f"{prefix}/"):
                return self._below(path.removeprefix(f"{prefix}/"), prefix, environ)
        raise no_such(shown(path))

    def _home_page(self) -> Response | None:
        if not self._home:
            return None
        try:
            with self._home.open("rb") as file:
                body, modified = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return Response.of(
            body,
            "text/html; charset=utf-8",
            Cache_Control="no-cache",
            Content_Security_Policy=_HOME_POLICY,
            Last_Modified=formatdate(modified, usegmt=True),
        )

    def _below(self, path: str, prefix: str, environ: dict[str, Any]) -> Response:
        if path == "version":
            return Response.of(_VERSION.encode(), "text/plain")
        *above, last = path.split("/")
        if last in _LISTINGS:
            return self._listing(split("/".join(above)) if above else [], last, prefix)
        parts = split(path)
        stem, _, suffix = parts[-1].rpartition(".")
        if stem and (suffix in responses.ANSWERS or suffix in ("html", "ver")):
            try:
                descriptor = self._tree.file([*parts[:-1], stem])
            except (RequestError, IsADirectoryError) as error:
                if isinstance(error, RequestError) and error.status != 404:
                    raise
            else:
                return self._data(descriptor, [*parts[:-1], stem], suffix, prefix, environ)
        try:
            return self._raw(self._tree.file(parts), parts[-1])
        except IsADirectoryError:
            return _redirect(quote(os.fsencode(f"{prefix}/{path}/")))

    def _listing(self, parts: list[str], kind: str, prefix: str) -> Response:
        found = (listing.entry_of(entry, self._settings) for entry in self._tree.scan(parts))
        entries = (entry for entry in found if entry is not None)
        path = "/".join(["", *parts, ""])
        if kind == "catalog.xml":
            return Response.of(listing.catalog(f"{prefix}/", path, entries), "application/xml")
        page = listing.directory_page(path, entries, self._settings)
        return Response.of(page, "text/html; charset=utf-8")

    def _data(
        self, descriptor: int, parts: list[str], suffix: str, prefix: str, environ: dict[str, Any]
    ) -> Response:
        path = "/".join(["", *parts])
        source = Source(descriptor, shown(path))
        try:
            if suffix == "ver":
                source.close()
                return Response.of(_VERSION.encode(), "text/plain")
            dataset = build(source)
            if suffix == "html":
                url = f"{_origin(environ)}{prefix}{quote(os.fsencode(path))}"
                source.close()
                page = listing.file_page(path, url, dataset, self._settings)
                return Response.of(page, "text/html; charset=utf-8")
            query = environ.get("QUERY_STRING", "")
            answer = responses.ANSWERS[suffix](constrain(dataset, query))
            headers = {
                "Content-Description": answer.description,
                "Last-Modified": formatdate(source.modified, usegmt=True),
            }
            if answer.length is not None:
                headers["Content-Length"] = str(answer.length)
            body = Body(iter(answer.body), source, environ["REQUEST_METHOD"] != "HEAD")
            return Response(answer.content_type, body, headers=headers)
        except BaseException:
            source.close()
            raise

    def _raw(self, descriptor: int, name: str) -> Response:
        status = os.fstat(descriptor)
        kind = "text/plain; charset=utf-8"
        if not name.lower().endswith(_PLAIN_TEXT):
            kind = "application/octet-stream"
        headers = {
            "Content-Length": str(status.st_size),
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        }
        return Response(kind, Download(descriptor, status.st_size), headers=headers)

    def _error(self, path: str, error: RequestError, **headers: str) -> Response:
        if path.rpartition(".")[2] in responses.ANSWERS:
            message = dap_string(error.message)
            text = f"Error {{\n    code = {error.status};\n    message = {message};\n}};\n"
            return Response.of(
                text.encode(),
                "text/plain; charset=utf-8",
                error.status,
                Content_Description="dods_error",
                **headers,
            )
        title = f"{error.status} {HTTPStatus(error.status).phrase}"
        body = listing.page(title, f"<p>{escape(error.message)}</p>", self._settings)
        return Response.of(body, "text/html; charset=utf-8", error.status, **headers)


def _redirect(location: str) -> Response:
    return Response.of(b"", "text/plain", 302, Location=location)


def _origin(environ: dict[str, Any]) -> str:
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return f"{environ['wsgi.url_scheme']}://{host}"
