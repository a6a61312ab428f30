"""A booted image as the tests see it: its console, its service, its journal."""

from __future__ import annotations

import contextlib
import http.client
import shlex
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hyraxvm.config.names import RELEASE_FILE
from hyraxvm.vm.console import LOGIN_PROMPT, ConsoleError, Result
from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import HOST, HTTP, MachineSpec

USER = PASSWORD = "opendap"
# A deadline, for a busy machine: without KVM a boot takes some 30 s on two idle cores.
BOOT = 300.0


@dataclass(frozen=True)
class Artifact:
    """A shipped file, unpacked, with what its descriptor, its manifest and its disk say."""

    path: Path
    specs: dict[str, MachineSpec]
    folder: Path
    manifest: dict[str, Any]
    disk_bytes: int
    reports: Path

    @property
    def spec(self) -> MachineSpec:
        """The first machine: that of the descriptor, where there is one."""
        return next(iter(self.specs.values()))


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Guest:
    """A machine, and whether a user is logged in on its console."""

    def __init__(self, machine: VirtualMachine) -> None:
        self.machine = machine
        self.console = machine.console
        self.password = PASSWORD
        self.first_answer: float | None = None
        self._logged_in = False

    def url(self, path: str) -> str:
        """Return the URL of `path` below the service's root."""
        return f"{self.machine.url}/opendap/{path}"

    def get(self, path: str, timeout: float = 60) -> Answer:
        """GET `path`; it is sent as it is, because no client library normalizes it."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.machine.ports[HTTP], timeout=timeout
        )
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def wait_ready(self, timeout: float = BOOT) -> float:
        """Poll the service until it answers; return the seconds from power-on to its answer."""
        deadline = time.monotonic() + timeout
        last: object = None
        while (
            time.monotonic() < deadline
            and self.machine.running
            and not self.machine.emulator_failed
        ):
            try:
                # Until the guest has a network, a connection gets no answer: do not wait long.
                last = self.get("/opendap/", timeout=3).status
                if last == 200:
                    break
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            time.sleep(0.25)
        else:
            waited = time.monotonic() - deadline + timeout
            raise ConsoleError(f"no service after {waited:.0f} s: {last}\n{self.console.tail()}")
        seconds = time.monotonic() - self.machine.started
        self.first_answer = self.first_answer or seconds
        return seconds

    def login(self) -> None:
        """Log in on the console, unless that has been done."""
        if not self._logged_in:
            self.console.login(USER, self.password, BOOT)
            self._logged_in = True
            # A kernel message in the middle of an answer would spoil it.
            self.console.check("sudo -n dmesg -n 1")

    def run(self, command: str, timeout: float = 60) -> Result:
        """Run a command on the console as the user."""
        self.login()
        return self.console.run(command, timeout)

    def check(self, command: str, timeout: float = 60) -> str:
        """Run a command that must succeed; return its output."""
        self.login()
        return self.console.check(command, timeout)

    def release(self) -> dict[str, str]:
        """Return the version file, of which each line has a key of its own."""
        lines = self.check(f"cat {RELEASE_FILE}").splitlines()
        pairs = dict(line.split("=", 1) for line in lines)
        assert len(pairs) == len(lines)
        return {key: "".join(shlex.split(value)) for key, value in pairs.items()}

    def wait_for(self, command: str, seconds: int) -> None:
        """Wait until a command succeeds."""
        loop = shlex.quote(f"until {command}; do sleep 1; done")
        self.check(f"timeout {seconds} sh -c {loop}", seconds + 30)

    def reboot(self) -> float:
        """Reboot as an administrator does; return the seconds until the service answers."""
        before = self.check("cat /proc/sys/kernel/random/boot_id")
        started = time.monotonic()
        self.console.send("sudo -n systemctl reboot")
        self._logged_in = False
        # A lookahead, so that the prompt stays for `login`, which waits for it too.
        self.console.expect(rf"(?={LOGIN_PROMPT})", BOOT)
        self.wait_ready()
        seconds = time.monotonic() - started
        assert self.check("cat /proc/sys/kernel/random/boot_id") != before
        return seconds

    def cut_power(self) -> None:
        """Cut the power, and switch it on again: what the guest has not written is lost."""
        self.machine.reset()
        self._logged_in = False
        # What the console has shown before is not an answer.
        with contextlib.suppress(ConsoleError):
            while True:
                self.console.expect(r"[\s\S]+", 1)

    def fetch(self, command: str, timeout: float = 60) -> bytes:
        """Return a command's output, sent over the network: long texts are slow on the console."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(timeout)
            target = f"/dev/tcp/{HOST}/{server.getsockname()[1]}"
            self.console.send(f"bash -c {shlex.quote(f'{command} >{target}')} &")
            connection, _ = server.accept()
            with connection:
                connection.settimeout(timeout)
                pieces = iter(lambda: connection.recv(65536), b"")
                return b"".join(pieces)

    def keep_journal(self) -> None:
        """Write the journal beside the console's log, if the guest can send it.

        If it cannot, write the reason instead.
        """
        target = self.machine.logs / "journal.txt"
        if not self._logged_in or not self.machine.running:
            return
        try:
            target.write_bytes(self.fetch("sudo -n journalctl --no-pager -o short-monotonic"))
        except (OSError, ConsoleError) as error:
            target.write_text(f"the journal could not be fetched: {error}\n")
