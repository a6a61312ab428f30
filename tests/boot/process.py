"""What the file servers share: a process on a port of the loopback, which can be frozen."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from hyraxvm.vm.machine import free_port


class ServerProcess(ABC):
    """A server process that listens on `port`."""

    name: str
    address = "127.0.0.1"
    healthy: tuple[str, ...] = ("mounted", "waiting")  # see `fileserver.FileServer`

    def __init__(self, log: Path) -> None:
        self.port = free_port(0)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the process."""

    @abstractmethod
    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the server; do nothing if it has ended."""

    def start(self) -> None:
        """Start the server, and wait until the port answers."""
        self._process = self._spawn()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        tail = self._log.read_text(errors="replace").splitlines()[-10:]
        raise RuntimeError(f"{self.name} does not start:\n" + "\n".join(tail))

    def freeze(self) -> None:
        """Stop answering; connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again after `freeze`."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill the server, as a power cut does; do nothing if it does not run."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(10)
        self._process = None
