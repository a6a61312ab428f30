"""A second copy of the same file: another machine with a larger disk."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pexpect
import pytest

from hyraxvm.vm.console import LOGIN_PROMPT
from hyraxvm.vm.qemu import SSH
from tests.boot.clients import netcdf4
from tests.boot.data import CASES, assert_same, local
from tests.boot.fileserver import FileServer
from tests.boot.guest import BOOT, PASSWORD, USER, Artifact, Guest
from tests.boot.machines import EXTRA, RecordProperty

pytestmark = pytest.mark.machines("second")
NEW_PASSWORD = "Correct-Horse-7-Staple"


@pytest.mark.access("nfs")
def test_a_person_who_follows_the_banner_serves_data(
    guest: Guest, files: FileServer, record_property: RecordProperty
) -> None:
    # The banner is all that this test uses: the user and password, the command, the URL.
    shown = guest.console.expect(rf"server: [^\r\n]*, ready\r?\n[\s\S]*?(?={LOGIN_PROMPT})", BOOT)
    user, guest.password = re.findall(r"log in as: (\S+) / (\S+)", shown)[-1]
    assert user == USER
    command = re.findall(r"add one with: ([^\r\n]*)", shown)[-1]
    assert command == "hyrax-data add nfs://HOST/EXPORT"
    url = guest.check(command.replace("nfs://HOST/EXPORT", files.source("ocean")), 120)
    path = url.strip().removeprefix("http://10.0.2.15:8080")
    case = CASES[0]
    assert_same(
        netcdf4(f"{guest.machine.url}{path}{case.file}", case.variable, None),
        local(files.export, case),
    )
    seconds = time.monotonic() - guest.machine.started
    record_property("seconds from power-on to data served, by the banner alone", round(seconds))
    guest.check("hyrax-data remove data")


def test_it_has_grown_to_the_larger_disk(guest: Guest, artifact: Artifact) -> None:
    size = int(guest.check("df --output=size -B1 / | tail -n 1"))
    disk = artifact.disk_bytes + EXTRA
    assert 0.9 * disk < size < disk
    assert size > artifact.disk_bytes


def test_it_has_host_keys_of_no_other_kind(guest: Guest) -> None:
    assert guest.check("ls /etc/ssh/ssh_host_*_key").split() == [
        "/etc/ssh/ssh_host_ecdsa_key",
        "/etc/ssh/ssh_host_ed25519_key",
    ]


def ssh(guest: Guest, *options: str) -> list[str]:
    return [
        *("ssh", "-p", str(guest.machine.ports[SSH]), "-F", "/dev/null", "-o", "LogLevel=ERROR"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        *("-o", "ConnectTimeout=20", *options),
    ]


def offered(guest: Guest, user: str) -> set[str]:
    """Return the authentication methods that the guest's SSH server offers to `user`."""
    argv = ssh(guest, "-o", "PreferredAuthentications=none", f"{user}@127.0.0.1", "true")
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        if methods := re.search(r"Permission denied \(([^)]*)\)", done.stderr):
            return set(methods[1].split(","))
        # The SSH server restarts when the password has been changed.
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)


@pytest.mark.parametrize("user", [USER, "root"])
def test_ssh_takes_only_keys_while_the_password_is_unchanged(guest: Guest, user: str) -> None:
    assert offered(guest, user) == {"publickey"}


def test_ssh_takes_a_key_that_its_owner_has_put_there(guest: Guest, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    guest.check(f"install -m 700 -d ~/.ssh && echo '{public}' >~/.ssh/authorized_keys")
    argv = ssh(guest, "-i", str(key), "-o", "BatchMode=yes", "opendap@127.0.0.1", "id -un")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "opendap\n"), done.stderr
    guest.check("rm ~/.ssh/authorized_keys")


def test_ssh_takes_the_password_once_it_was_changed(guest: Guest) -> None:
    guest.login()
    console = guest.console
    console.send("passwd")
    for prompt, answer in (
        (r"[Cc]urrent password: ", PASSWORD),
        (r"[Nn]ew password: ", NEW_PASSWORD),
        (r"[Rr]etype new password: ", NEW_PASSWORD),
    ):
        console.expect(prompt, 30)
        console.send(answer)
    console.expect("updated successfully", 30)
    guest.password = NEW_PASSWORD
    deadline = time.monotonic() + 30
    while "password" not in offered(guest, USER) and time.monotonic() < deadline:
        time.sleep(1)
    assert login_by_password(guest, NEW_PASSWORD) == "opendap"
    assert login_by_password(guest, PASSWORD) is None


def login_by_password(guest: Guest, password: str) -> str | None:
    """Return what `id -un` says over SSH, or None if the password was refused."""
    argv = ssh(
        guest,
        *("-o", "PreferredAuthentications=password", "-o", "PubkeyAuthentication=no"),
        *("-o", "NumberOfPasswordPrompts=1", "opendap@127.0.0.1", "id -un"),
    )
    child = pexpect.spawn(argv[0], argv[1:], encoding="utf-8", timeout=60)
    try:
        child.expect("password: ")
        child.sendline(password)
        child.expect(pexpect.EOF)
        said = child.before.strip()
    finally:
        child.close(force=True)
    return None if "Permission denied" in said else said


def test_the_banner_no_longer_shows_the_old_password(guest: Guest) -> None:
    deadline = time.monotonic() + 30
    while "opendap / opendap" in guest.check("cat /run/hyrax/issue"):
        assert time.monotonic() < deadline
        time.sleep(1)
