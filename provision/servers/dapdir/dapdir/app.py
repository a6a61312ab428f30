"""The ASGI application: takes requests, and sends what the reader processes make."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import SERVER, listing
from .errors import RequestError
from .pool import Piece, Pool
from .settings import Settings
from .site import Request

# netCDF-C asks for all small variables of a file at once: 8,000 names of 20 characters are 176 kB.
MAX_URL = 512 * 1024  # octets
SLICE = 256 * 1024  # octets that are given to a socket at once
SLOW = 1.0  # seconds to take a piece, after which a client gets small ones
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_LOOPBACK = ("127.0.0.1", "::1")
_log = logging.getLogger("dapdir")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = {
    "Server": SERVER,
    "XDODS-Server": f"{SERVER} (DAP/2.0)",
    "XDAP": "2.0",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


class Protocol(HttpToolsProtocol):
    """HTTP with URLs of any length: httptools splits only those of less than 64 KiB."""

    def on_headers_complete(self) -> None:
        """Hide the query from httptools."""
        self.url, _, query = self.url.partition(b"?")
        super().on_headers_complete()
        self.scope["query_string"] = query  # the application is not called yet


class Application:
    """The application; `pool` reads the files."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        """Answer with what `pool` makes."""
        self._pool = pool
        self._settings = settings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await self._answer(scope, gone, send)
        finally:
            gone.cancel()

    async def _answer(self, scope: Message, gone: asyncio.Task[None], send: Send) -> None:
        raw: bytes = scope["raw_path"]
        path = os.fsdecode(unquote_to_bytes(raw))
        head = scope["method"] == "HEAD"
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise RequestError(405, "the method must be GET or HEAD")
            if len(raw) + len(scope["query_string"]) > MAX_URL:
                raise RequestError(414, f"the URL is longer than {MAX_URL} octets")
            request = _request(path, scope)
            made = self._pool.make(request, None, head, None, False)
            await asyncio.wait((made, gone), return_when=asyncio.FIRST_COMPLETED)
            if not made.done():
                self._pool.drop(made)
                return
            piece = made.result()
        except RequestError as error:
            await self._refuse(path, error, send)
            return
        reply = piece.reply
        headers = {"Content-Type": reply.content_type, **(reply.headers or {})}
        # The first piece may be all.
        length = reply.size if reply.size and not reply.state else reply.length
        if length is not None:
            headers["Content-Length"] = str(length)
        await _start(send, reply.status, headers)
        if not reply.state or head:
            await send({"type": "http.response.body", "body": piece.data})
            self._pool.sent(piece)
            return
        await self._stream(request, piece, gone, send)

    async def _stream(
        self, request: Request, piece: Piece, gone: asyncio.Task[None], send: Send
    ) -> None:
        small, after = False, None
        try:
            while True:
                state = piece.reply.state
                if state and not small:  # the next piece is made while this one is sent
                    after = self._pool.make(request, state, False, piece.slot, small)
                started = time.monotonic()
                try:
                    for start in range(0, piece.reply.size, SLICE):
                        # A copy: what the transport keeps must not keep all of the piece.
                        await _body(send, piece.data[start : start + SLICE])
                finally:
                    self._pool.sent(piece)
                if not state:
                    await send({"type": "http.response.body", "body": b""})
                    return
                if gone.done():
                    return
                small = time.monotonic() - started > SLOW
                made = after or self._pool.make(request, state, False, piece.slot, small)
                after = None
                piece = await made
        except RequestError as error:
            # The body is not ended, by which the client notices the failure.
            _log.error("response cut short: %s", error.message)
        finally:
            if after:
                self._pool.drop(after)

    async def _refuse(self, path: str, error: RequestError, send: Send) -> None:
        content_type, description, body = listing.error_page(path, error, self._settings)
        headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
        if description:
            headers["Content-Description"] = description
        if error.status == 405:
            headers["Allow"] = "GET, HEAD"
        await _start(send, error.status, headers)
        await send({"type": "http.response.body", "body": body})


def _request(path: str, scope: Message) -> Request:
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    host, scheme = headers.get(b"host", ""), scope["scheme"]
    if scope["client"] and scope["client"][0] in _LOOPBACK:  # a proxy of this machine
        host = headers.get(b"x-forwarded-host", host)
        if headers.get(b"x-forwarded-proto") in ("http", "https"):
            scheme = headers[b"x-forwarded-proto"]
    if not _HOST.fullmatch(host):
        host = f"{scope['server'][0]}:{scope['server'][1]}"
    query = scope["query_string"].decode("latin-1")
    # Only pages show the origin: responses with data are the same for every name of the server.
    origin = f"{scheme}://{host}" if path.endswith(".html") else ""
    return Request(path, query, origin, headers.get(b"range", ""))


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(n.encode(), v.encode("latin-1")) for n, v in (_HEADERS | headers).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _body(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
    await asyncio.sleep(0)  # others have their turn, and a connection that is lost is noticed


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
