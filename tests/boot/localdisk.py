"""Data on the guest's own disk, copied there with scp as the README says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hyraxvm.vm.qemu import SSH
from tests.boot.guest import Guest

DATA = "/srv/hyrax/data"


class LocalDisk:
    """Copies the directory `export`; there is nothing to start or stop."""

    healthy: tuple[str, ...] = ("local",)
    writable = ""

    def __init__(self, export: Path, work: Path) -> None:
        self.export = export
        self._key = work / "key"
        work.mkdir()
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)]
        subprocess.run(argv, check=True)

    def start(self) -> None:
        """Do nothing."""

    freeze = thaw = stop = start

    def source(self, name: str) -> str:
        """Return the folder of the data set in the guest."""
        return f"{DATA}/{name}"

    def add(self, guest: Guest, name: str, folder: str = "") -> str:
        """Copy the files with scp; the key for it is removed again."""
        public = self._key.with_suffix(".pub").read_text().strip()
        guest.check(f"install -m 700 -d ~/.ssh && echo '{public}' >~/.ssh/authorized_keys")
        argv = ["scp", "-q", "-r", "-P", str(guest.machine.ports[SSH]), "-i", str(self._key)]
        argv += ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
        argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        argv += [str(self.export / folder), f"opendap@127.0.0.1:{DATA}/{name}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        guest.check("rm ~/.ssh/authorized_keys")
        return guest.check(f"hyrax-data test {name}")
