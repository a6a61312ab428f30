"""A real SMB server, Samba's smbd, on a port of the loopback."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Literal

from hyraxvm.command import dying_with_parent
from hyraxvm.machine import free_port

NOBODY = 65534
# What a person and a parser may stumble over.
PASSWORD = "Grün, 'und' \"=\\ %s #1 "
# Every path that smbd would look for under /etc, /run or /var lies in {work}.
# `data` is writable: if a guest cannot write, then it is the guest that is careful.
CONFIGURATION = """
[global]
    smb ports = {port}
    interfaces = 127.0.0.1
    bind interfaces only = yes
    disable netbios = yes
    disable spoolss = yes
    load printers = no
    printcap name = /dev/null
    server max protocol = {newest}
    server signing = {signing}
    map to guest = Bad User
    guest account = {user}
    restrict anonymous = 0
    passdb backend = tdbsam:{work}/passdb.tdb
    smb passwd file = {work}/smbpasswd
    private dir = {work}
    lock directory = {work}
    state directory = {work}
    cache directory = {work}
    pid directory = {work}
    ncalrpc dir = {work}/ncalrpc
    log file = {work}/smbd.log
    max log size = 0
[data]
    path = {export}
    read only = no
    smb encrypt = required
    valid users = {user}
[open]
    path = {export}
    guest ok = yes
    guest only = yes
[closed]
    path = {work}/closed
    valid users = daemon
[hidden]
    path = {work}/hidden
"""


class SmbServer:
    """Serves the directory `export` on `port`; started by `start`, ended by `stop`.

    The share `data` is for the user `user` with PASSWORD, and is signed and encrypted; `open` is
    for guests; `closed` is for somebody else; in `hidden` nobody may read a file.
    """

    def __init__(
        self,
        export: Path,
        work: Path,
        *,
        newest: str = "SMB3_11",
        signing: Literal["auto", "mandatory"] = "auto",
    ) -> None:
        self.export = export
        self.port = free_port(0)
        # smbd takes on accounts of this machine: one without rights, or whoever runs the tests.
        self.user = pwd.getpwuid(os.geteuid() or NOBODY).pw_name
        os.chown(export, os.geteuid() or NOBODY, -1)
        self._work = work
        self._configuration = work / "smb.conf"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("ncalrpc", "closed", "hidden"):
            (work / name).mkdir(parents=True)
        (work / "hidden" / "secret.nc").touch(mode=0o000)
        self._configuration.write_text(
            CONFIGURATION.format(
                port=self.port,
                work=work,
                export=export,
                user=self.user,
                signing=signing,
                newest=newest,
            )
        )
        # The password goes in by the standard input, twice.
        subprocess.run(
            ["pdbedit", f"--configfile={self._configuration}", "-a", "-t", "-u", self.user],
            input=f"{PASSWORD}\n{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Start, and wait until the port answers."""
        argv = ["smbd", "--foreground", "--no-process-group", f"--configfile={self._configuration}"]
        self._process = subprocess.Popen(
            dying_with_parent(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        tail = (self._work / "smbd.log").read_text(errors="replace").splitlines()[-10:]
        raise RuntimeError("smbd does not start:\n" + "\n".join(tail))

    def freeze(self) -> None:
        """Stop answering while connections stay open."""
        self._signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it as a power cut does; harmless when it does not run."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(10)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        # One process for each connection, all of one session.
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass
