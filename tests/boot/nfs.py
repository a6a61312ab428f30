"""A real NFSv4 server, nfs-ganesha, on a port of the loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from guest import Guest

from hyraxvm.command import dying_with_parent
from hyraxvm.machine import free_port
from hyraxvm.qemu import HOST

# Without Enable_*: ganesha asks a portmapper that is not there, and ends.
# Attr_Expiration_Time: for its 60 s of default it would not see what the tests change in an export
# beside it, and deny that a new file is there; the kernel's server has no such cache.
# RW and No_Root_Squash: if a guest cannot write, then it is the guest that is careful.
CONFIGURATION = """
NFS_CORE_PARAM {{
    NFS_Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1;
    Enable_RQUOTA = false; Enable_NLM = false; Enable_UDP = false;
}}
EXPORT_DEFAULTS {{ Attr_Expiration_Time = 1; }}
NFS_KRB5 {{ Active_krb5 = false; }}
NFSv4 {{
    Graceless = true; RecoveryRoot = "{work}/recovery"; Minor_Versions = {minor_versions};
}}
"""
EXPORT = """
EXPORT {{
    Export_Id = {number}; Path = "{path}"; Pseudo = "{name}";
    Access_Type = {access}; Squash = No_Root_Squash; SecType = sys;
    FSAL {{ Name = VFS; }}
    {client}
}}
"""
SOMEBODY_ELSE = "CLIENT { Clients = 192.0.2.1; Access_Type = RO; }"


class NfsServer:
    """Serves the directory `export` as `/data` on `port`; started by `start`, ended by `stop`.

    There are more exports: `/trouble/empty`; `/trouble/private`, which only root may list;
    `/trouble/hidden`, whose file only root may read; `/trouble/closed`, for another client.
    """

    healthy = ("mounted", "waiting")

    def __init__(self, export: Path, work: Path, minor_versions: str = "0, 1, 2") -> None:
        self.export = export
        self.port = free_port(0)
        self._log = work / "ganesha.log"
        self._pid = work / "ganesha.pid"
        self._configuration = work / "ganesha.conf"
        self._process: subprocess.Popen[bytes] | None = None
        (work / "recovery").mkdir(parents=True)
        exports = [("/data", export, "RW", "")]
        for name, mode in {
            "empty": 0o755,
            "private": 0o700,
            "hidden": 0o755,
            "closed": 0o755,
        }.items():
            (work / name).mkdir(mode)
            access = ("None", SOMEBODY_ELSE) if name == "closed" else ("RO", "")
            exports.append((f"/trouble/{name}", work / name, *access))
        (work / "hidden" / "secret.nc").touch(mode=0o600)
        text = CONFIGURATION.format(port=self.port, work=work, minor_versions=minor_versions)
        for number, (name, path, access_type, client) in enumerate(exports, 1):
            text += EXPORT.format(
                number=number, name=name, path=path, access=access_type, client=client
            )
        self._configuration.write_text(text)

    def source(self, name: str = "", folder: str = "") -> str:
        """Return the URL."""
        return f"nfs://{HOST}:{self.port}/data{folder and '/' + folder}"

    @property
    def writable(self) -> str:
        """Return `mount`'s arguments."""
        return f"-t nfs4 -o port={self.port} {HOST}:/data"

    def add(self, guest: Guest, name: str, folder: str = "") -> str:
        """Add the export, or a folder in it, as the data set `name`."""
        return guest.check(f"hyrax-data add {self.source(name, folder)} --as {name}", 120)

    def start(self) -> None:
        """Start, and wait until the port answers."""
        argv = ["ganesha.nfsd", "-F", "-f", str(self._configuration), "-L", str(self._log)]
        argv = dying_with_parent([*argv, "-p", str(self._pid)])
        if os.geteuid() != 0:
            # It opens files by their handles, which only root may.
            argv = ["sudo", "-n", *argv]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        self.stop()
        tail = self._log.read_text(errors="replace").splitlines()[-10:]
        raise RuntimeError("nfs-ganesha does not start:\n" + "\n".join(tail))

    def freeze(self) -> None:
        """Stop answering while connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on answering after `freeze`."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it as a power cut does; harmless when it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGKILL)
            self._process.wait(10)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        # Under sudo the server is another process; its pid file says which.
        pid = self._process.pid
        if os.geteuid() == 0:
            os.kill(pid, number)
        else:
            pid = int(self._pid.read_text())
            subprocess.run(["sudo", "-n", "kill", f"-{int(number)}", str(pid)], check=True)
