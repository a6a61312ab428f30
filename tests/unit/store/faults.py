"""Faults for tests: a bad network, a service that refuses, a process that dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any


class Proxy:
    """A bad network before a server: a list of faults, one for each connection, then none.

    A fault is `("cut", n)`: the connection ends after n bytes from the client; `("drop", n)`: after
    n bytes from the server; `("flip", n)`: a bit of byte n from the client changes; or
    `("answer", bytes)`: the server answers these bytes and nothing else.
    """

    def __init__(self, port: int) -> None:
        self.faults: list[tuple[str, Any]] = []
        self.connections = 0
        self.struck: list[str] = []  # the faults that have happened
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = self.faults.pop(0) if self.faults else ("none", 0)
            threading.Thread(target=self._serve, args=(client, *fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: str, value: Any) -> None:
        if fault == "answer":
            with client, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(65536)
                self.struck.append(fault)  # first: a test may look at once when it has the answer
                client.sendall(value)
                # Read the rest of the request, or the client sees a reset instead of the answer.
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            return
        upstream = socket.create_connection(("127.0.0.1", self._target))
        limits = {"cut": (value, -1), "drop": (-1, value)}.get(fault, (-1, -1))
        flip = value if fault == "flip" else -1
        ways = [(client, upstream, limits[0], flip), (upstream, client, limits[1], -1)]
        threads = [
            threading.Thread(target=self._pump, args=(fault, *way), daemon=True) for way in ways
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _pump(
        self, fault: str, source: socket.socket, sink: socket.socket, limit: int, flip: int
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if limit >= 0:
                    data = data[: limit - passed]
                if passed <= flip < passed + len(data):
                    at = flip - passed
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                    self.struck.append(fault)
                passed += len(data)
                if passed == limit:
                    self.struck.append(fault)
                sink.sendall(data)
                if passed == limit:
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def answer(status: int, reason: str, code: str) -> bytes:
    """Return an HTTP response with an S3 error."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told so</Message></Error>"
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


def dies(client: Any, step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that SIGKILL ends just before it sends request number `step`.

    Return whether it was killed; False: there were fewer requests, and the work is done.
    """
    child = os.fork()
    if child == 0:
        requests = itertools.count(1)

        def count(**more: Any) -> None:
            if next(requests) >= step:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            client.meta.events.register("before-send.s3", count)
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0
