"""A QEMU machine: started, controlled, and ended whatever happens.

The kernel ends QEMU when the *thread* that started it ends: start machines from the main thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import dying_with_parent, stop
from hyraxvm.vm.console import Console
from hyraxvm.vm.qemu import (
    HTTP,
    SSH,
    MachineSpec,
    choose_accelerator,
    efi_variables,
    qemu_argv,
)

_LOST_TIMER: Final = b"kthread timer wakeup didn't happen"
_STALE_CODE: Final = b"int3: 0000 [#1]"


class MachineError(Failure):
    """QEMU or its guest failed, or did not do something in time."""


class VirtualMachine:
    """A running machine; as a context manager it leaves no QEMU behind.

    In the folder `logs` it writes `qemu.txt` (QEMU's command line), `qemu.log` (QEMU's messages)
    and `console.log` (the whole serial console); in `scratch`, the firmware's variables.  After the
    start `ports` maps the guest's ports 8080 and 22 to free ports on 127.0.0.1, which QEMU chose.
    """

    def __init__(self, spec: MachineSpec, scratch: Path, logs: Path) -> None:
        """Prepare the machine without starting it."""
        self.spec = spec
        self.scratch = scratch
        self.logs = logs
        self.accelerator = choose_accelerator(spec.arch)
        self.ports: dict[int, int] = {}
        self.started = 0.0
        self._cpu_seconds = 0.0
        self.console: Console
        self._events: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Power the machine on; return as soon as QEMU runs, before the guest is up."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End QEMU whatever state it is in."""
        self.stop()

    @property
    def url(self) -> str:
        """The base URL of the guest's service, as seen from the host."""
        return f"http://127.0.0.1:{self.ports[HTTP]}"

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all of QEMU's threads (s); after its end, what was known before it."""
        if self._process is not None and self.running:
            # proc(5): fields 14 and 15; the name before them, in parentheses, may contain spaces.
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            self._cpu_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return self._cpu_seconds

    @property
    def emulator_failed(self) -> bool:
        """Whether the emulator has done what no CPU does; the guest is not to blame."""
        return emulator_failed(self.logs / "console.log")

    def powerdown(self, timeout: float) -> float:
        """Press the ACPI power button; return the seconds until QEMU ended by itself."""
        pressed = time.monotonic()
        _ = self.cpu_seconds
        self.qmp("system_powerdown")
        self.wait(timeout)
        return time.monotonic() - pressed

    def reset(self) -> None:
        """Press the reset button; return when QEMU has reset the machine."""
        self._events.clear()
        self.qmp("system_reset")
        while "RESET" not in self._events:
            self._answer("event")

    def wait(self, timeout: float) -> None:
        """Wait until QEMU ends; raises `MachineError` after `timeout` seconds."""
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"still running {timeout:g} s later\n{self.console.tail()}"
            ) from None

    def stop(self) -> None:
        """End QEMU at once and reap it; do nothing if it does not run."""
        if self._process is not None:
            stop(self._process)
        self._cleanup.close()

    def _start(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        control, qemu_control = socket.socketpair()
        self._cleanup.callback(control.close)
        log = self.logs / "console.log"
        with qemu_control, log.open("wb") as shown, (self.logs / "qemu.log").open("wb") as said:
            argv = qemu_argv(
                self.spec,
                self.accelerator.name,
                ports={HTTP: 0, SSH: 0},
                serial=[
                    *("-chardev", f"socket,id=qmp,fd={qemu_control.fileno()}"),
                    *("-mon", "chardev=qmp,mode=control"),
                    *("-chardev", "stdio,id=tty,signal=off", "-serial", "chardev:tty"),
                ],
                macs=[_mac() for _ in self.spec.nics],
                variables=efi_variables(self.spec, self.scratch),
            )
            (self.logs / "qemu.txt").write_text(shlex.join(argv) + "\n")
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                dying_with_parent(argv),
                stdin=subprocess.PIPE,
                stdout=shown,
                stderr=said,
                pass_fds=(qemu_control.fileno(),),
                # Ctrl-C must not reach QEMU: it ends after the journal has been fetched.
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._cleanup.callback(self._process.stdin.close)
        self.console = Console(log, self._process.stdin, lambda: self.running)
        self._cleanup.callback(self.console.close)
        control.settimeout(30)
        self._control = self._cleanup.enter_context(control.makefile("rw", encoding="utf-8"))
        self._answer("QMP")
        self.qmp("qmp_capabilities")
        self.find_ports()

    def find_ports(self) -> None:
        """Ask QEMU which ports it has chosen; call it again after adding a network."""
        table = str(self.qmp("human-monitor-command", **{"command-line": "info usernet"}))
        for host, guest in re.findall(r"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)", table):
            self.ports[int(guest)] = int(host)

    def qmp(self, command: str, **arguments: object) -> Any:
        """Run one QMP command; return its result.

        Raises `MachineError`: QEMU refuses the command, does not answer, or has ended.
        """
        try:
            self._control.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._control.flush()
        except OSError as error:
            raise MachineError(f"QEMU: {command}: {error}\n{self._qemu_log()}") from error
        return self._answer("return")

    def _answer(self, key: str) -> Any:
        """Return the value of `key` in the next message that has it; note events on the way."""
        try:
            while line := self._control.readline():
                message = json.loads(line)
                if "event" in message:
                    self._events.append(message["event"])
                if "error" in message:
                    raise MachineError(f"QEMU: {message['error'].get('desc')}")
                if key in message:
                    return message[key]
        except OSError as error:
            raise MachineError(f"QEMU does not answer: {error}") from error
        raise MachineError(f"QEMU has ended\n{self._qemu_log()}")

    def _qemu_log(self) -> str:
        return (self.logs / "qemu.log").read_text(errors="replace").strip()


def emulator_failed(console: Path) -> bool:
    """Return whether a guest's kernel has reported a fault of QEMU's TCG with several CPUs.

    In rare cases, mostly on a busy host, the timer of a CPU does not fire any more, and the guest
    hangs for ever.  The kernel says it after 21 s (`rcu_cpu_stall_timeout`), once more 21 s later;
    a host that stood still for a while makes it say it once.  Source of the words:
    print_other_cpu_stall and its neighbours in kernel/rcu/tree_stall.h.

    QEMU before 8.1 may also run code that the kernel has just patched as it was in between, with a
    breakpoint in it (Red Hat's bug 2216496).
    """
    text = console.read_bytes() if console.exists() else b""
    return text.count(_LOST_TIMER) > 1 or _STALE_CODE in text


def _mac() -> str:
    """Return an address as VMware makes one: its prefix for new machines, three random octets."""
    return ":".join(["00:0c:29", *(f"{octet:02x}" for octet in secrets.token_bytes(3))])


def interactive(spec: MachineSpec, port: int = HTTP, say: Callable[[str], None] = print) -> int:
    """Run `spec` for a person, with the serial console on this terminal; return QEMU's exit status.

    Ctrl-A X ends the machine.  The disks do not change: overlays take what the guest writes and
    are removed at the end.  `port` of the loopback leads to port 8080 of the guest; if `port` is
    taken, a free one does.
    """
    accelerator = choose_accelerator(spec.arch)
    ports = {HTTP: free_port(port), SSH: free_port(2222)}
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-") as scratch:
        argv = qemu_argv(
            spec.with_overlays(Path(scratch)),
            accelerator.name,
            ports=ports,
            serial=["-serial", "mon:stdio"],
            variables=efi_variables(spec, Path(scratch)),
        )
        say(f"Accelerator: {accelerator.name} ({accelerator.reason}).")
        say(f"Data: http://127.0.0.1:{ports[HTTP]}/opendap/   SSH: port {ports[SSH]} of 127.0.0.1")
        say("Changes are lost at the end.  Ctrl-A X ends the machine.")
        return subprocess.run(dying_with_parent(argv)).returncode


def free_port(wanted: int) -> int:
    """Return the TCP port `wanted` of the loopback if it is free, or else another."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as server:
            return int(server.getsockname()[1])
    raise UserError("no free TCP port on 127.0.0.1")
