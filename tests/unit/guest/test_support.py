"""hyrax-setup support: what its file contains, and what it must not."""

from __future__ import annotations

import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest, edit

HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$W3kYQd5sVtq1GkbRzN6mJQv2x0uYH8uYw8b3n0B8cN4"
OTHER_HASH = "$6$abcdefgh$0123456789abcdefghijABCDEFGHIJ0123456789abcdefghijABCDEFGHIJ"
SECRETS = {
    "share": 'tr4wler "net" .*\\d',
    "toml": "d3ep-sea",
    "escaped": 'qu"ote\\d',
    "unknown": "k3lp-forest",
    "typed": "typ3d-in",
    "spaced": "sp4ced-out",
    "url": "url-s3cret",
    "unc": "unc-s3cret",
}
TOML = f"""\
[vm]
hostname = "buoy"
password_hash = '{OTHER_HASH}'
ssh_keys = [
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@pc",
]
[server]
email = "me@example.org"
[[data]]
url = "smb://me:{SECRETS["url"]}@pc/sst"
user = "me"
password = "{SECRETS["toml"]}"
[[data]]
password = "qu\\"ote\\\\d"
brandnew = "{SECRETS["unknown"]}"
"""
JOURNAL = f"""\
buoy sudo: COMMAND=/usr/bin/mount -o username=me,password={SECRETS["typed"]} //pc/sst /mnt
buoy sudo: COMMAND=/usr/bin/tool --password {SECRETS["spaced"]} --user me
buoy app: could not log in with {SECRETS["share"]} or {SECRETS["toml"]}
buoy sudo: COMMAND=/usr/bin/hyrax-data add //me:{SECRETS["unc"]}@pc/sst
buoy chpasswd: opendap:{HASH}
buoy kernel: all is well
"""


@pytest.fixture
def planted(guest: Guest) -> Guest:
    """A guest with secrets in every place where they may be."""
    guest.write("etc/shadow", f"root:*:1::::::\nopendap:{HASH}:1::::::\n")
    guest.write("etc/hyrax/hyrax.toml", TOML)
    guest.write("etc/hyrax/server.conf", "EMAIL=me@example.org\n")
    guest.write("etc/hyrax/data.d/sst.conf", "NAME=sst\nURL=smb://pc.invalid/sst\nLOGIN=me\n")
    guest.write("etc/hyrax/data.d/sst.credentials", f"username=me\npassword={SECRETS['share']}\n")
    guest.write("usr/lib/hyrax/units", "hyrax-server.service\n")
    guest.write("journal", JOURNAL)
    guest.stand_in("journalctl", 'cat "$HYRAX_ROOT/journal"')
    return guest


@pytest.fixture
def hanging(planted: Guest) -> Guest:
    """A guest in which two commands hang."""
    for name in ("df", "networkctl"):
        planted.stand_in(name, "sleep 60")
    for name, old, new in (
        ("setup-support.sh", "collect disk 10 ", "collect disk 1 "),
        ("support-facts", "timeout 10 ", "timeout 0.2 "),
    ):
        edit(planted.root / "usr/lib/hyrax-vm" / name, old, new)
    return planted


def support(guest: Guest, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [guest.root / "usr/bin/hyrax-setup", "support", *arguments],
        env=guest.env,
        cwd=guest.root / "mnt",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_one_file_with_all_that_helps_and_without_a_secret(hanging: Guest) -> None:
    planted = hanging
    status, out, err = support(planted)
    assert (status, err) == (0, "")
    path = Path(out.split(" (")[0])
    assert path.parent == planted.root / "mnt"
    assert path.name.startswith("hyrax-support-")
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"scp opendap@192.0.2.7:{path} ." in out
    with tarfile.open(path) as tar:
        files = {
            member.name.partition("/")[2]: content.read().decode()
            for member in tar.getmembers()
            if member.isfile() and (content := tar.extractfile(member))
        }
    for name, secret in {**SECRETS, "hash": HASH, "other": OTHER_HASH}.items():
        for file, text in files.items():
            assert secret not in text, (name, file)
    whole = "\n".join(files.values())
    for secret in ("AAAAC3NzaC1lZDI1NTE5AAAAI", 'qu\\"ote', HASH[-20:]):
        assert secret not in whole
    assert "VERSION=0.1.0" in files["release"]
    for shown in ("hostname = buoy", "email = me@example.org", "user = me", "URL=smb://pc.invalid"):
        assert shown in files["settings"]
    assert "password = (removed)" in files["settings"]
    assert "sst.credentials" in files["settings"]
    assert files["journal"].count("\n") == JOURNAL.count("\n")
    assert "kernel: all is well" in files["journal"]
    assert "username=me,password=(removed)" in files["journal"]
    assert files["disk"].startswith("(no answer within 1 s: df ")
    assert "==> networkctl status --no-pager --all\n(no answer within" in files["network"]
    assert "==> ss -t" in files["network"]
    assert "the host 'pc.invalid' is not found" in files["data-status"]
    assert "hyrax-server.service" in files["server-status"]
    assert "/dev/sda3 / ext4" in files["mounts"]
    # No temporary file remains.
    assert list((planted.root / "run").glob("tmp.*")) == []


def test_where_it_is_written_is_chosen(planted: Guest, tmp_path: Path) -> None:
    status, out, _ = support(planted, str(tmp_path / "here.tar.gz"))
    assert status == 0
    assert out.startswith(f"{tmp_path}/here.tar.gz (")
    status, out, err = support(planted, "/no/such/place.tar.gz")
    assert (status, out) == (2, "")
    assert err == "hyrax-setup: '/no/such' is not a directory; see: hyrax-setup --help\n"
    assert support(planted, "a", "b")[::2] == (
        2,
        "hyrax-setup: support takes the name of one file\n",
    )


def test_help(guest: Guest) -> None:
    status, out, _ = guest.run("usr/bin/hyrax-setup", "--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 79
    for command in ("support", "upgrades", "ssh-key list", "ssh-key add", "ssh-key remove"):
        assert f"  hyrax-setup {command}" in out


def test_a_command_that_does_not_exist(guest: Guest) -> None:
    status, _, err = guest.run("usr/bin/hyrax-setup", "fly")
    assert (status, err) == (2, "hyrax-setup: 'fly' is not a command; see: hyrax-setup --help\n")


def test_another_distribution_has_its_own_name_for_ssh(guest: Guest) -> None:
    base = "DISTRIBUTION='Ubuntu'\nSSH_UNIT='ssh.socket'\nUPGRADE_ORIGINS='origin=Ubuntu'\n"
    guest.write("usr/lib/hyrax-vm/base.sh", base)
    guest.stand_in("systemctl", "exit 1")  # every unit is off
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me"
    said = guest.run("usr/bin/hyrax-setup", "ssh-key", "add", key)
    assert "type: sudo systemctl enable --now ssh.socket" in said[1], said
