"""The real nginx with the guest's front door, on free ports, and a data server behind it."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.unit.guest.guest_copy import RELEASE, Guest, edit

SAMPLE = "/opendap/sample/sst.nc"
VALUES = f"{SAMPLE}.ascii?sst[0:1:0][18:1:18][36:1:36]"
ECHO = "/opendap/echo"  # the request comes back
MIB = 1 << 20
FOLDERS = (
    "run/hyrax/www",
    "run/hyrax/health",
    "run/hyrax-front-door",
    "var/cache/hyrax-front-door",
    "var/lib/hyrax",
    "var/log/hyrax-front-door",
    "etc/hyrax/nginx.d",
    "proc/net",
)


class DataServer:
    """A server that answers `workers` requests at a time, each until its last byte is out.

    `/SIZE.bin` is that many MiB; any other path that is not in `pages` gives the request as JSON.
    """

    def __init__(self, workers: int = 4, port: int = 0) -> None:
        self.pages = {VALUES: "sst.sst[sst.lat=0], 144\n", f"{SAMPLE}.dds": "Dataset {"}
        self.status = 200
        self.sent = 0
        self.open: set[socket.socket] = set()
        free = threading.Semaphore(workers)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version = "stand-in/1"

            def do_GET(self) -> None:
                with free:
                    self.answer()

            do_HEAD = do_POST = do_OPTIONS = do_GET

            def answer(self) -> None:
                name = self.path.rpartition("/")[2]
                if name.endswith(".bin"):
                    self.begin("application/octet-stream", int(name.removesuffix(".bin")) * MIB)
                    for _ in range(int(name.removesuffix(".bin")) * 16):
                        self.wfile.write(bytes(MIB // 16))
                        outer.sent += MIB // 16
                    return
                text = outer.pages.get(self.path) or json.dumps(
                    {"method": self.command, "path": self.path, "headers": dict(self.headers)}
                )
                self.begin("text/plain", len(text))
                if self.command != "HEAD":
                    self.wfile.write(text.encode())

            def begin(self, kind: str, length: int) -> None:
                self.send_response(outer.status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length))
                self.send_header("Access-Control-Allow-Origin", "https://one.example")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle(self) -> None:
                outer.open.add(self.connection)
                with suppress(OSError):
                    super().handle()
                outer.open.discard(self.connection)

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        self.http = Server(("127.0.0.1", port), Handler)
        self.port = int(self.http.server_port)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class FrontDoor:
    """A guest's front door; `guest` is the copy of the guest's files."""

    def __init__(self, guest: Guest, behind: int) -> None:
        self.guest = guest
        self.port = free_port()
        for name in FOLDERS:
            (guest.root / name).mkdir(parents=True, exist_ok=True)
        guest.write("etc/hyrax-vm-release", RELEASE.replace("/opendap/version", f"{SAMPLE}.dds"))
        guest.write("run/hyrax/www/index.html", "<h1>The landing page</h1>")
        guest.write("run/hyrax/health/reason", "the data server is starting\n")
        guest.write("usr/lib/hyrax/units", "hyrax-server.service\n")
        if Path("/proc/net/if_inet6").exists():
            guest.write("proc/net/if_inet6", "")
        library = guest.root / "usr/lib/hyrax-vm/lib.sh"
        edit(library, "\nPORT=8080 ", f"\nPORT={self.port} ")
        edit(library, "\nSERVER_PORT=8081 ", f"\nSERVER_PORT={behind} ")
        self.edit("nginx.conf", "127.0.0.1:8081", f"127.0.0.1:{behind}")
        self.process: subprocess.Popen[bytes] | None = None

    def edit(self, name: str, before: str, after: str) -> None:
        """Replace a text in a file of the front door."""
        edit(self.guest.root / "usr/lib/hyrax-vm/front-door.d" / name, before, after)

    def write(self) -> tuple[int, str, str]:
        """Run `front-door`, which writes and tests the configuration."""
        return self.guest.run("usr/lib/hyrax-vm/front-door")

    def start(self) -> None:
        assert self.write() == (0, "", "")
        self.run()

    def run(self) -> None:
        """Start nginx with the configuration that is there."""
        command = [
            "nginx",
            "-e",
            "stderr",
            "-c",
            str(self.guest.root / "run/hyrax/front-door/nginx.conf"),
        ]
        if os.geteuid() == 0:
            command += ["-g", "user root;"]  # the folders of tests are closed to others
        self.process = subprocess.Popen(command, env=self.guest.env, stderr=subprocess.DEVNULL)
        until(lambda: self.get("/health").status in (200, 503))

    def reload(self) -> None:
        """Do what `systemctl reload` does: write, and let nginx read."""
        assert self.process is not None
        old = self._accepting()
        assert self.write() == (0, "", "")
        self.process.send_signal(signal.SIGHUP)
        until(lambda: bool(self._accepting()) and not self._accepting() & old)

    def _accepting(self) -> set[str]:
        """Return the ids of the processes that accept connections."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = set()
        for child in children.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                title = Path(f"/proc/{child}/cmdline").read_text()
                if title.rstrip("\0 ") == "nginx: worker process":  # and not "... is shutting down"
                    found.add(child)
        return found

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def get(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        source: str = "127.0.0.1",
        timeout: float = 20,
    ) -> Answer:
        """Send one request from the address `source`; the path is sent as it is."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=timeout, source_address=(source, 0)
        )
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        except ConnectionError as error:
            if self.process is not None and self.process.poll() is None:
                return Answer(0, http.client.HTTPMessage(), repr(error).encode())
            raise
        finally:
            connection.close()

    def seen(self, path: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        """Return the headers that the data server has seen, in lower case."""
        found: dict[str, str] = json.loads(self.get(path, headers).body)["headers"]
        return {name.lower(): value for name, value in found.items()}

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Return a connection that reads slowly: the kernel takes little ahead."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        made.settimeout(20)
        made.bind((source, 0))
        made.connect(("127.0.0.1", self.port))
        return made


class Answer:
    """An HTTP answer; status 0: the connection was closed without one."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()


def free_port() -> int:
    """Return a port that no connection gets by itself before nginx has it: ip(7), 32768 upwards."""
    for port in random.sample(range(20000, 32768), 50):
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no free port")


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
