"""A machine that keeps running when the command that started it ends: for trying things by hand.

All of it is in one folder: the disk, the sockets of its console and its monitor, and the number of
its process.  Removing the folder after `stop` removes the machine.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import output
from hyraxvm.vm.console import Console
from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import MachineSpec, choose_accelerator, efi_variables, qemu_argv

PATIENCE: Final = 10.0  # seconds for QEMU to end
_END_OF_INPUT: Final = "\x04"  # Ctrl-D


def start(spec: MachineSpec, folder: Path, ports: Mapping[int, int]) -> None:
    """Start a machine in `folder` that outlives this process; `ports` is guest -> host.

    Raises `Failure`: QEMU cannot start; the message has its reason.
    """
    argv = qemu_argv(
        spec,
        choose_accelerator(spec.arch).name,
        ports=ports,
        serial=[
            # The console goes to a file whether or not somebody is connected to the socket.
            *("-chardev", "socket,id=tty,path=tty,server=on,wait=off,logfile=console.log"),
            *("-serial", "chardev:tty", "-qmp", "unix:qmp,server=on,wait=off"),
            *("-daemonize", "-pidfile", str(folder.resolve() / "pid")),
        ],
        variables=efi_variables(spec, folder),
    )
    (folder / "qemu.txt").write_text(shlex.join(argv) + "\n")
    (folder / "ports.json").write_text(json.dumps(dict(ports)))
    # Relative names, because the name of a socket may have 107 bytes at most (unix(7)).
    output(argv, cwd=folder)


def ports(folder: Path) -> dict[int, int]:
    """Return guest -> host of the machine's ports."""
    found = json.loads((folder / "ports.json").read_text())
    return {int(guest): int(host) for guest, host in found.items()}


def running(folder: Path) -> int | None:
    """Return the number of the machine's process, or None if it does not run."""
    try:
        pid = int((folder / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # The number may belong to another process by now.
    return pid if os.fsencode(folder.resolve() / "pid") in words else None


def stop(folder: Path) -> bool:
    """End the machine at once; return whether it ran.  Raises `Failure`: it does not end."""
    pid = running(folder)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while running(folder) is not None:
        if time.monotonic() > end:
            raise Failure(f"QEMU, process {pid}, does not end")
        time.sleep(0.05)
    return True


class KeptMachine(VirtualMachine):
    """A kept machine that this process uses; at the end of the block it goes on running."""

    def __init__(self, spec: MachineSpec, folder: Path, logs: Path) -> None:
        """Name the machine in `folder`; what its console shows from now on goes to `logs`."""
        super().__init__(spec, folder, logs)
        self._folder = folder

    def stop(self) -> None:
        """Leave the machine; it goes on."""
        self._cleanup.close()

    def _start(self) -> None:
        pid = running(self._folder)
        if pid is None:
            raise Failure(f"{self._folder}: no machine runs there")
        self.logs.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self._process = _Other(pid)  # type: ignore[assignment]  # has what VirtualMachine uses
        self.ports = ports(self._folder)
        control = self._connect("qmp")
        control.settimeout(30)
        self._control = self._cleanup.enter_context(control.makefile("rw", encoding="utf-8"))
        self._answer("QMP")
        self.qmp("qmp_capabilities")
        terminal = self._connect("tty")
        log = self.logs / "console.log"
        log.touch()
        threading.Thread(target=_copy, args=(terminal, log), daemon=True).start()
        keyboard = self._cleanup.enter_context(terminal.makefile("wb"))
        self.console = Console(log, keyboard, lambda: self.running)
        self._cleanup.callback(self.console.close)
        # Ends the shell that an earlier run has left; at the prompt of login it shows that again.
        self.console.press(_END_OF_INPUT)

    def _connect(self, name: str) -> socket.socket:
        """Connect to a socket in the folder, by a short name, which /proc has for it."""
        handle = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"/proc/self/fd/{handle}/{name}")
        finally:
            os.close(handle)
        self._cleanup.callback(connection.close)
        return connection


class _Other:
    """A process that this one has not started, as far as `VirtualMachine` asks for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if not Path(f"/proc/{self.pid}").exists():
            self.returncode = 0
        return self.returncode

    def wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.05)


def _copy(terminal: socket.socket, log: Path) -> None:
    """Write what the terminal shows to `log`, so that the guest never waits for a reader."""
    with log.open("ab", buffering=0) as sink:
        try:
            while data := terminal.recv(65536):
                sink.write(data)
        except OSError:
            return
