"""Servers on loopback: rclone, a real store that can be killed, and a plain web server."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hyraxvm.core.process import dying_with_parent

RCLONE = str(Path(sys.executable).with_name("rclone"))
ACCESS, SECRET = "TESTACCESSKEY", "test-secret-key"
AUTH = f"{ACCESS},{SECRET}"


class Rclone:
    """`rclone serve` over a folder on loopback; it can be killed and started again."""

    def __init__(self, folder: Path, *options: str, kind: str = "s3", fsize: int = 0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self._argv = [RCLONE, "serve", kind, "--addr", f"127.0.0.1:{self.port}", *options]
        # Tests change files in the folder directly, so rclone must read it again soon.  With 0 it
        # loops for ever.
        self._argv += ["--config", "", "--vfs-cache-mode", "off", "--dir-cache-time", "10ms", "--"]
        self._argv.append(str(folder))
        self._limit: list[str] = []
        self.limit(fsize)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def limit(self, fsize: int) -> None:
        """Limit the size of its files, in bytes, from its next start on; 0: no limit."""
        self._limit = ["prlimit", f"--fsize={fsize}", "--"] if fsize else []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            dying_with_parent([*self._limit, *self._argv]),
            env={**os.environ, "GOGC": "400"},  # a third less CPU time, and more memory
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._process.poll() is None, "rclone has ended"
            time.sleep(0.02)
        raise AssertionError("rclone does not listen")

    def kill(self) -> None:
        # Several uploads may kill the store at the same time: the first one ends it.
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()


def s3(folder: Path, fsize: int = 0) -> Rclone:
    return Rclone(folder, "--auth-key", AUTH, fsize=fsize)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A handler for the files of a folder; it does not support ranges and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # browsers ask every site for it
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@contextlib.contextmanager
def serving(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """Serve a folder inside this block; yield its URL."""
    with running(functools.partial(handler, directory=str(folder))) as url:
        yield url


@contextlib.contextmanager
def running(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Let `handler` answer on a free port inside this block; yield its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
