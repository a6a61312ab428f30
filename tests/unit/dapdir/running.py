"""A real dapdir, started as the image does, on a free loopback port."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "provision" / "servers" / "dapdir"
DAPDIR = [sys.executable, "-m", "dapdir"]


def environment_of(root: Path, **settings: str) -> dict[str, str]:
    path = os.environ["PATH"]
    return {"PATH": path, "PYTHONPATH": str(PACKAGE), "DAPDIR_ROOT": str(root), **settings}


def refusal(root: Path, **settings: str) -> str:
    """Return the message of a dapdir that refuses to start."""
    done = subprocess.run(
        DAPDIR, env=environment_of(root, **settings), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    return done.stderr


class Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()


class Server:
    def __init__(self, root: Path, log: Path, workers: int = 2, **settings: str) -> None:
        self.root = Path(root)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/opendap"
        environment = environment_of(
            root,
            DAPDIR_BIND=f"127.0.0.1:{self.port}",
            DAPDIR_WORKERS=str(workers),
            **settings,
        )
        self.log = Path(log)
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(DAPDIR, env=environment, cwd="/", stderr=stderr)
        deadline = time.monotonic() + 30
        while True:
            try:
                if self.get("/version").status == 200:
                    break
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"dapdir did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(
        self,
        path: str,
        method: str = "GET",
        raw: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Request `path` without encoding it, below /opendap unless `raw`."""
        connection = self.connect()
        try:
            connection.request(method, path if raw else f"/opendap{path}", headers=headers or {})
            response = connection.getresponse()
            return Answer(response, response.read())
        finally:
            connection.close()

    def processes(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def processor_time(self) -> int:
        """Return the processor time of all processes, in clock ticks."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    def memory(self) -> int:
        """Return the memory (PSS) of all processes, in bytes."""
        total = 0
        for pid in self.processes():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:  # it has just ended
                continue
            for line in lines:
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
