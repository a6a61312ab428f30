"""A real NFSv4 server, nfs-ganesha, on a port of the loopback."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Literal

from hyraxvm.core.process import dying_with_parent
from hyraxvm.vm.qemu import HOST
from tests.boot.guest import Guest
from tests.boot.process import ServerProcess

# Enable_*: by default ganesha calls a portmapper, finds none here, and ends.
# Attr_Expiration_Time: tests change files in an export directly.  With the default of 60 s ganesha
# would deny for so long that a new file is there.  The kernel's server has no such cache.
# RW and No_Root_Squash: the server permits writing, so only the guest can prevent it.
CONFIGURATION = """
NFS_CORE_PARAM {{
    NFS_Protocols = 4; NFS_Port = {port}; Bind_addr = {address};
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


class NfsServer(ServerProcess):
    """Serves the directory `export` as `/data`.

    It has more exports: `/trouble/empty`; `/trouble/private`, which only root may list;
    `/trouble/hidden`, whose file only root may read; `/trouble/closed`, for another client.
    """

    name = "nfs-ganesha"

    def __init__(
        self,
        export: Path,
        work: Path,
        minor_versions: str = "0, 1, 2",
        address: Literal["127.0.0.1", "::1"] = "127.0.0.1",
    ) -> None:
        super().__init__(work / "ganesha.log")
        self.export = export
        self.address = address
        self._pid = work / "ganesha.pid"
        self._configuration = work / "ganesha.conf"
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
        text = CONFIGURATION.format(
            port=self.port, work=work, minor_versions=minor_versions, address=address
        )
        for number, (name, path, access_type, client) in enumerate(exports, 1):
            text += EXPORT.format(
                number=number, name=name, path=path, access=access_type, client=client
            )
        self._configuration.write_text(text)

    def source(self, name: str = "", folder: str = "") -> str:
        """Return the URL of the export, or of a folder in it."""
        return f"nfs://{HOST}:{self.port}/data{folder and '/' + folder}"

    @property
    def writable(self) -> str:
        """Arguments of `mount` for the same files, writable."""
        return f"-t nfs4 -o port={self.port} {HOST}:/data"

    def add(self, guest: Guest, name: str, folder: str = "") -> str:
        """Add the export, or a folder in it, as the data set `name`."""
        return guest.check(f"hyrax-data add {self.source(name, folder)} --as {name}", 120)

    def _spawn(self) -> subprocess.Popen[bytes]:
        argv = ["ganesha.nfsd", "-F", "-f", str(self._configuration), "-L", str(self._log)]
        argv = dying_with_parent([*argv, "-p", str(self._pid)])
        if os.geteuid() != 0:
            # ganesha opens files by their handles, and only root may do that.
            argv = ["sudo", "-n", *argv]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            return
        # Under sudo the server is a child process; its id is in the pid file.
        pid = self._process.pid
        if os.geteuid() == 0:
            os.kill(pid, number)
        else:
            pid = int(self._pid.read_text())
            subprocess.run(["sudo", "-n", "kill", f"-{int(number)}", str(pid)], check=True)
