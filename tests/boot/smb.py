"""A real SMB server, Samba's smbd, on a port of the loopback."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
from pathlib import Path
from typing import Any, Literal

from hyraxvm.core.process import dying_with_parent
from hyraxvm.vm.qemu import HOST
from tests.boot.guest import Guest
from tests.boot.process import ServerProcess

NOBODY = 65534
# It has characters that people mistype and that parsers misread.
PASSWORD = "Grün, 'und' \"=\\ %s #1 "
# Every path that smbd would look for under /etc, /run or /var is in {work}.
# `data` is writable: the server permits writing, so only the guest can prevent it.
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
    host msdfs = yes
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
    smb encrypt = {encrypt}
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
[empty]
    path = {work}/empty
    guest ok = yes
[dfs]
    path = {work}/dfs
    msdfs root = yes
    guest ok = yes
    guest only = yes
"""


class SmbServer(ServerProcess):
    """Serves the directory `export` as several shares.

    The share `data` is for the user `user` with PASSWORD, and is signed and encrypted.  `open` is
    for guests, `closed` for another user.  Nobody may read the file in `hidden`.  `empty` is empty.
    In `dfs`, the root of a distributed file system, `ocean` leads to `open`.
    """

    name = "smbd"

    def __init__(
        self,
        export: Path,
        work: Path,
        *,
        newest: str = "SMB3_11",
        signing: Literal["auto", "mandatory"] = "auto",
        encrypt: Literal["off", "required"] = "required",
    ) -> None:
        super().__init__(work / "smbd.log")
        self.export = export
        # smbd acts as an account of this machine: `nobody` for root, else the user who runs it.
        self.user = pwd.getpwuid(os.geteuid() or NOBODY).pw_name
        os.chown(export, os.geteuid() or NOBODY, -1)
        self._configuration = work / "smb.conf"
        for name in ("ncalrpc", "closed", "hidden", "empty", "dfs"):
            (work / name).mkdir(parents=True)
        (work / "dfs" / "ocean").symlink_to(f"msdfs:{HOST}\\open")
        (work / "hidden" / "secret.nc").touch(mode=0o000)
        self._configuration.write_text(
            CONFIGURATION.format(
                port=self.port,
                work=work,
                export=export,
                user=self.user,
                signing=signing,
                encrypt=encrypt,
                newest=newest,
            )
        )
        # pdbedit reads the password from standard input, twice.
        subprocess.run(
            ["pdbedit", f"--configfile={self._configuration}", "-a", "-t", "-u", self.user],
            input=f"{PASSWORD}\n{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )

    def source(self, name: str = "", folder: str = "", share: str = "data") -> str:
        """Return the URL of a share, or of a folder in it."""
        return f"smb://{HOST}:{self.port}/{share}{folder and '/' + folder}"

    @property
    def writable(self) -> str:
        """Arguments of `mount` for the same files, writable.

        The credentials are those of the data set `ocean`.
        """
        credentials = "/etc/hyrax/data.d/ocean.credentials"
        return f"-t cifs -o port={self.port},credentials={credentials} //{HOST}/data"

    def add(self, guest: Guest, name: str, folder: str = "") -> str:
        """Add the share, or a folder in it, as the data set `name`; type the password.

        The terminal echoes what is typed, as a user's terminal does.
        """
        guest.check("stty echo </dev/ttyS0")
        command = f"hyrax-data add {self.source(name, folder)} --user {self.user} --as {name}"
        guest.console.send(f"{command}; echo added''-$?")
        guest.console.expect(rf"Password of {self.user} on {HOST}: ", 60)
        guest.console.send(PASSWORD)
        said = guest.console.expect(r"added-\d+\r?\n", 120)
        guest.check("stty -echo </dev/ttyS0")
        assert said.rstrip().endswith("added-0"), said
        return said.rpartition("added-0")[0].replace("\r", "").strip()

    def sessions(self) -> list[dict[str, Any]]:
        """Return the connections that smbstatus lists: share, user, dialect, ciphers."""
        argv = ["smbstatus", f"--configfile={self._configuration}", "--json"]
        found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        sessions = found["sessions"]
        return [
            {
                "share": tree["service"],
                "user": sessions[tree["session_id"]]["username"],
                "dialect": sessions[tree["session_id"]]["session_dialect"],
                "encryption": tree["encryption"]["cipher"],
                "signing": tree["signing"]["cipher"],
            }
            for tree in found["tcons"].values()
            if tree["service"] != "IPC$"  # every client opens it
        ]

    def _spawn(self) -> subprocess.Popen[bytes]:
        argv = ["smbd", "--foreground", "--no-process-group", f"--configfile={self._configuration}"]
        return subprocess.Popen(
            dying_with_parent(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _signal(self, number: signal.Signals) -> None:
        # smbd has one process for each connection, all in one process group.
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
