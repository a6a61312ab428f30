"""Answers requests from the files below the root: this is what a reader process does."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol
from urllib.parse import quote

from . import SERVER, bodies, listing
from .bodies import Body
from .constraint import constrain
from .das import das
from .errors import RequestError, from_oserror, no_such
from .model import dds
from .reader import File, Identity, identity_of
from .settings import DEFAULTS, Settings
from .tree import Tree, shown, split

IDLE = 3.0  # seconds after which a file that nobody reads is closed
MAX_OPEN = 4  # files and directories that a process keeps
MAX_ANSWERS = 8  # of one file, which are kept

_PREFIXES = ("/opendap/hyrax", "/opendap")  # both reach the same files, as with Hyrax
_LISTINGS = ("", "contents.html", "catalog.html", "catalog.xml")
_VERSION = f"Core version: DAP/2.0\nServer version: {SERVER}\n"
# A file from the data root must not act as a page of this server.
_PLAIN_TEXT = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".htm")
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_TEXT, _HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"


@dataclass(frozen=True)
class Request:
    """A request: decoded path, raw query, scheme and host that the client sees, header Range."""

    path: str
    query: str = ""
    origin: str = ""
    range: str = ""

    @property
    def file(self) -> str:
        """The path without the suffix that names a response."""
        return self.path.rpartition(".")[0]


@dataclass
class Answer:
    """Status, headers and body of a response; `identity` is that of what it is read from."""

    content_type: str
    body: Body
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    identity: Identity | None = None


class Opened(Protocol):
    """A file or a directory that stays open between two requests."""

    def close(self) -> None:
        """Close it."""


@dataclass
class Held:
    """What is open, the answers that are made of it, and when it was last used."""

    opened: Opened
    answers: dict[Request, Answer] = field(default_factory=dict)
    used: float = 0


class Directory:
    """An open directory."""

    def __init__(self, descriptor: int, tree: Tree, settings: Settings) -> None:
        """Take over an open descriptor."""
        self._descriptor = descriptor
        self._settings = settings
        self.entries = tree.scan(descriptor)

    def entry(self, number: int) -> listing.Entry:
        """Describe an entry."""
        return listing.entry_of(self.entries[number], self._descriptor, self._settings)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class Raw:
    """A file that is sent as it is."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor."""
        self.descriptor = descriptor

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


class Site:
    """The tree below `root`, with the files that were read last."""

    def __init__(
        self,
        root: str,
        settings: Settings = DEFAULTS,
        entering: Callable[[Identity], None] = lambda _: None,
    ) -> None:
        """Serve the data below the path `root`.

        `entering` is called before a data file is read, which may never end; it may raise.
        """
        self._settings = settings
        self._tree = Tree(root, settings.links)
        self._entering = entering
        self._held: dict[tuple[str, str, Identity], Held] = {}

    def answer(self, request: Request, identity: Identity | None = None) -> Answer:
        """Answer a request; with `identity`, go on with a response that was begun.

        Raises RequestError.
        """
        if identity:
            for (kind, _, known), held in self._held.items():
                if known == identity and request in held.answers:
                    held.used = time.monotonic()
                    if kind == "data":
                        self._entering(identity)
                    return held.answers[request]
        answer = self._route(request)
        if identity and answer.identity != identity:
            raise RequestError(503, "it was changed while it was read: try again")
        return answer

    @property
    def open(self) -> int:
        """How many files and directories are open."""
        return len(self._held)

    def close(self, older: float = 0, most: int = MAX_OPEN) -> bool:
        """Close what was not used for `older` seconds, and what `most` leaves no room for.

        A file server that hangs delays this.  Return whether there was something.
        """
        limit = time.monotonic() - older
        oldest = sorted(self._held, key=lambda key: self._held[key].used)
        surplus = oldest[: max(0, len(oldest) - most)]
        idle = [key for key in oldest if key in surplus or self._held[key].used <= limit]
        for key in idle:
            self._held.pop(key).opened.close()
        return bool(idle)

    def _route(self, request: Request) -> Answer:
        path = re.sub("/{2,}", "/", request.path)
        if path == "/" or path in _PREFIXES:
            return _redirect("/opendap/" if path == "/" else f"{path}/")
        for prefix in _PREFIXES:
            if path.startswith(f"{prefix}/"):
                return self._below(path.removeprefix(f"{prefix}/"), prefix, request)
        raise no_such(shown(path))

    def _below(self, path: str, prefix: str, request: Request) -> Answer:
        if path == "version":
            return Answer(_TEXT, bodies.text(_VERSION))
        if path == "health":
            return self._health()
        *above, last = path.split("/")
        if last in _LISTINGS:
            return self._listing(split("/".join(above)) if above else [], last, prefix, request)
        parts = split(path)
        stem, _, suffix = parts[-1].rpartition(".")
        if stem and suffix in (*listing.DAP, "html", "ver"):
            try:
                descriptor = self._tree.file([*parts[:-1], stem])
            except (RequestError, IsADirectoryError) as error:
                if isinstance(error, RequestError) and error.status != 404:
                    raise
            else:
                file_path = "/".join(["", *parts[:-1], stem])
                return self._data(descriptor, file_path, suffix, prefix, request)
        try:
            return self._raw(self._tree.file(parts), "/".join(parts), request)
        except IsADirectoryError:
            return _redirect(quote(os.fsencode(f"{prefix}/{path}/")))

    def _hold(
        self,
        kind: str,
        path: str,
        descriptor: int,
        request: Request,
        make: Callable[[int], Opened],
        reply: Callable[[Opened, os.stat_result], Answer],
    ) -> Answer:
        """Answer from what is open already, or from `make(descriptor)`."""
        try:
            status = os.fstat(descriptor)
            identity = identity_of(status)
            held = self._held.get((kind, path, identity))
            if kind == "data":
                self._entering(identity)
            if held is None:
                self._close_changed(identity)
                taken, descriptor = descriptor, -1
                held = self._held[kind, path, identity] = Held(make(taken))
        except OSError as error:
            raise from_oserror(error, shown(path)) from None
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        held.used = time.monotonic()
        if request not in held.answers:
            if len(held.answers) >= MAX_ANSWERS:
                held.answers.clear()
            answer = reply(held.opened, status)
            answer.identity = identity
            held.answers[request] = answer
        return held.answers[request]

    def _close_changed(self, identity: Identity) -> None:
        # HDF5 shares what it knows of a file between all that opened it: of a file that was
        # overwritten in place, it would give the old content.
        changed = [k for k in self._held if k[2][:2] == identity[:2] and k[2] != identity]
        for key in changed:
            self._held.pop(key).opened.close()

    def _listing(self, parts: list[str], leaf: str, prefix: str, request: Request) -> Answer:
        path = "/".join(["", *parts, ""])

        def reply(opened: Opened, _status: os.stat_result) -> Answer:
            assert isinstance(opened, Directory)
            count, entry = len(opened.entries), opened.entry
            if leaf == "catalog.xml":
                return Answer("application/xml", listing.catalog(f"{prefix}/", path, count, entry))
            return Answer(_HTML, listing.directory_page(path, count, entry, self._settings))

        def make(descriptor: int) -> Opened:
            return Directory(descriptor, self._tree, self._settings)

        return self._hold("list", path, self._tree.directory(parts), request, make, reply)

    def _data(
        self, descriptor: int, path: str, suffix: str, prefix: str, request: Request
    ) -> Answer:
        if suffix == "ver":
            os.close(descriptor)
            return Answer(_TEXT, bodies.text(_VERSION))

        def reply(opened: Opened, status: os.stat_result) -> Answer:
            assert isinstance(opened, File)
            if suffix == "html":
                url = f"{request.origin}{prefix}{quote(os.fsencode(path))}"
                page = listing.file_page(path, url, opened.model, self._settings)
                return Answer(_HTML, bodies.text(page))
            part = constrain(opened.model, request.query)
            headers = {"Content-Description": f"dods_{_DESCRIPTIONS[suffix]}", **_modified(status)}
            if suffix == "dods":
                body: Body = bodies.dods(opened, part)
                return Answer("application/octet-stream", body, headers=headers)
            if suffix in ("dds", "das"):
                body = bodies.text(dds(part) if suffix == "dds" else das(part))
            else:
                body = bodies.ascii_values(opened, part)
            return Answer(_TEXT, body, headers=headers)

        return self._hold("data", path, descriptor, request, lambda d: File(d, shown(path)), reply)

    def _raw(self, descriptor: int, path: str, request: Request) -> Answer:
        def reply(opened: Opened, status: os.stat_result) -> Answer:
            assert isinstance(opened, Raw)
            kind = _TEXT if path.lower().endswith(_PLAIN_TEXT) else "application/octet-stream"
            headers = {"Accept-Ranges": "bytes", **_modified(status)}
            size = status.st_size
            wanted = _RANGE.fullmatch(request.range)
            if not wanted:
                return Answer(kind, bodies.Download(opened.descriptor, 0, size - 1), 200, headers)
            first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
            if first > last:
                raise RequestError(416, f"the file has {size} bytes")
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            return Answer(kind, bodies.Download(opened.descriptor, first, last), 206, headers)

        return self._hold("raw", path, descriptor, request, Raw, reply)

    def _health(self) -> Answer:
        """Read values of the first data file in the folder `sample`, if there is one."""
        try:
            directory = self._tree.directory(["sample"])
        except RequestError as error:
            if error.status != 404:
                raise
            return Answer(_TEXT, bodies.text("ok: there is no sample\n"))
        try:
            found = [n for n, k in self._tree.scan(directory) if k == "f"]
        finally:
            os.close(directory)
        name = next(filter(self._settings.is_data, found), None)
        if not name:
            return Answer(_TEXT, bodies.text("ok: there is no sample\n"))
        answer = self._below(f"sample/{name}.dods", "/opendap", Request("/opendap/health"))
        answer.body.piece(bodies.START, 64 * 1024)
        return Answer(_TEXT, bodies.text(f"ok: read {name}\n"), identity=answer.identity)


_DESCRIPTIONS = {"dds": "dds", "das": "das", "dods": "data", "ascii": "ascii", "asc": "ascii"}


def _modified(status: os.stat_result) -> dict[str, str]:
    try:
        return {"Last-Modified": formatdate(status.st_mtime, usegmt=True)}
    except (ValueError, OverflowError, OSError):
        return {}  # file servers show times of any year


def _redirect(location: str) -> Answer:
    return Answer("text/plain", bodies.text(b""), 302, {"Location": location})
