"""A guest for each test, and servers that it may find on the network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.guest.front_door import DataServer, FrontDoor
from tests.unit.guest.guest_copy import Guest, Pattern, divert_curl


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pattern]:
    made = Pattern(tmp_path_factory.mktemp("pattern"))
    yield made
    assert made.digest() == made.made, "a test has written into the files of all guests"


@pytest.fixture
def guest(tmp_path: Path, pattern: Pattern) -> Guest:
    return Guest(tmp_path, pattern)


@pytest.fixture
def port() -> Iterator[int]:
    """A TCP port on 127.0.0.1 that accepts connections, like that of an NFS server."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def http(guest: Guest) -> Iterator[dict[str, str]]:
    """An HTTP server in place of the guest's own: path -> body. curl is real, but is told where
    127.0.0.1:8080 is."""
    pages = {"/opendap/version": "1.0.0\n"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write((body or "gone").encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    divert_curl(guest, server.server_port)
    yield pages
    server.shutdown()
    server.server_close()


@pytest.fixture
def server() -> Iterator[DataServer]:
    """A data server for the front door to stand before."""
    made = DataServer()
    yield made
    made.stop()


@pytest.fixture
def closed(guest: Guest, server: DataServer) -> Iterator[FrontDoor]:
    """A front door that has not been started yet."""
    made = FrontDoor(guest, server.port)
    yield made
    made.stop()


@pytest.fixture
def door(closed: FrontDoor) -> FrontDoor:
    closed.start()
    return closed
