"""A second copy of the same file: another machine, with UEFI and a larger disk."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pexpect
import pytest
from clients import netcdf4
from conftest import EXTRA
from data import Case, assert_same, local
from guest import PASSWORD, USER, Artifact, Guest

from hyraxvm.qemu import SSH

NEW_PASSWORD = "Correct-Horse-7-Staple"


@pytest.fixture(autouse=True, scope="module")
def ready(copy: Guest) -> None:
    copy.wait_ready()


def test_it_boots_with_uefi_and_serves_right_values(
    copy: Guest, samples: Path, record_property
) -> None:
    copy.check("test -d /sys/firmware/efi")
    case = Case("sst.nc", "sst")
    assert_same(netcdf4(copy.url("sample/sst.nc"), "sst", None), local(samples, case))
    assert copy.check("systemctl --failed --no-legend --plain") == ""


def test_it_has_grown_to_the_larger_disk(copy: Guest, artifact: Artifact) -> None:
    size = int(copy.check("df --output=size -B1 / | tail -n 1"))
    disk = artifact.disk_bytes + EXTRA
    assert 0.9 * disk < size < disk
    assert size > artifact.disk_bytes


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/machine-id",
        "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub",
        "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ecdsa_key.pub",
        "sudo -n grep -h ^CLIENTID= /run/systemd/netif/leases/*",
    ],
    ids=["machine-id", "ed25519 host key", "ecdsa host key", "DHCP identity"],
)
def test_it_has_an_identity_of_its_own(guest: Guest, copy: Guest, command: str) -> None:
    one, two = guest.check(command), copy.check(command)
    assert len(one) >= 16
    assert one != two


def test_it_has_host_keys_of_no_other_kind(copy: Guest) -> None:
    assert copy.check("ls /etc/ssh/ssh_host_*_key").split() == [
        "/etc/ssh/ssh_host_ecdsa_key",
        "/etc/ssh/ssh_host_ed25519_key",
    ]


def ssh(copy: Guest, *options: str) -> list[str]:
    return [
        *("ssh", "-p", str(copy.machine.ports[SSH]), "-F", "/dev/null", "-o", "LogLevel=ERROR"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        *("-o", "ConnectTimeout=20", *options),
    ]


def offered(copy: Guest, user: str) -> set[str]:
    """The ways to prove who one is that the guest's SSH server offers to `user`."""
    argv = ssh(copy, "-o", "PreferredAuthentications=none", f"{user}@127.0.0.1", "true")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    methods = re.search(r"Permission denied \(([^)]*)\)", done.stderr)
    assert methods, done.stderr
    return set(methods[1].split(","))


@pytest.mark.parametrize("user", [USER, "root"])
def test_ssh_takes_only_keys_while_the_password_is_the_documented_one(
    copy: Guest, user: str
) -> None:
    assert offered(copy, user) == {"publickey"}


def test_ssh_takes_a_key_that_its_owner_has_put_there(copy: Guest, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    copy.check(f"install -m 700 -d ~/.ssh && echo '{public}' >~/.ssh/authorized_keys")
    argv = ssh(copy, "-i", str(key), "-o", "BatchMode=yes", "opendap@127.0.0.1", "id -un")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "opendap\n"), done.stderr
    copy.check("rm ~/.ssh/authorized_keys")


def test_ssh_takes_the_password_once_it_was_changed(copy: Guest) -> None:
    copy.login()
    console = copy.console
    console.send("passwd")
    for prompt, answer in (
        (r"[Cc]urrent password: ", PASSWORD),
        (r"[Nn]ew password: ", NEW_PASSWORD),
        (r"[Rr]etype new password: ", NEW_PASSWORD),
    ):
        console.expect(prompt, 30)
        console.send(answer)
    console.expect("updated successfully", 30)
    copy.password = NEW_PASSWORD
    deadline = time.monotonic() + 30
    while "password" not in offered(copy, USER) and time.monotonic() < deadline:
        time.sleep(1)
    assert login_by_password(copy, NEW_PASSWORD) == "opendap"
    assert login_by_password(copy, PASSWORD) is None


def login_by_password(copy: Guest, password: str) -> str | None:
    """What `id -un` says over SSH, or None if the password was refused."""
    argv = ssh(
        copy,
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


def test_the_banner_no_longer_shows_the_old_password(copy: Guest) -> None:
    deadline = time.monotonic() + 30
    while "opendap / opendap" in copy.check("cat /run/hyrax/issue"):
        assert time.monotonic() < deadline
        time.sleep(1)


def test_the_power_button_switches_it_off_cleanly(copy: Guest, record_property) -> None:
    copy.login()
    copy.keep_journal()
    record_property("seconds to power off", round(copy.machine.powerdown(60), 1))
    assert not copy.machine.running
    assert "Power down" in copy.console.tail()
