"""The rest of the tree: shell, units, presets, SSH's password rule, host keys."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import TREE, Guest, rendered

LIB = TREE / "usr/lib/hyrax-vm"
SYSTEM = TREE / "usr/lib/systemd/system"


def test_perl_compiles_and_programs_are_executable() -> None:
    for path in TREE.rglob("*"):
        if not path.is_file():
            continue
        first = path.read_text().split("\n")[0]
        assert bool(path.stat().st_mode & stat.S_IXUSR) == first.startswith("#!"), path
        if first == "#!/usr/bin/perl":
            done = subprocess.run(["perl", "-c", path], capture_output=True, text=True, timeout=10)
            assert done.stderr == f"{path} syntax OK\n"


def texts_of_units() -> dict[str, str]:
    """Return name -> text of the guest's units."""
    texts = {path.name: path.read_text() for path in SYSTEM.iterdir() if path.is_file()}
    templates = [name for name in texts if name.endswith(".j2")]
    for name in templates:
        del texts[name]
        name = name.removesuffix(".j2")
        texts[name] = rendered()[f"usr/lib/systemd/system/{name}"]
    return texts


def test_units_verify(tmp_path: Path) -> None:
    units = []
    for name, text in texts_of_units().items():
        (tmp_path / name).write_text(text)
        units.append(tmp_path / name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        timeout=30,
    )
    # The programs are in the tree and in the image's packages, not on this machine.
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "hyrax" in line
        and not re.search(r"Command /usr/(lib/hyrax-vm/\S+|bin/loadkeys) is not executable", line)
    ]
    assert complaints == []
    for unit in units:
        for program in re.findall(r"^Exec\w+=-?(/usr/lib/hyrax-vm/\S+)", unit.read_text(), re.M):
            assert (TREE / program[1:]).is_file(), program


def test_preset_enables_every_unit_that_can_be() -> None:
    preset = rendered()["usr/lib/systemd/system-preset/50-hyrax-vm.preset"]
    lines = [line.split() for line in preset.splitlines() if line and line[0] != "#"]
    assert all(len(line) == 2 and line[0] in ("enable", "disable") for line in lines)
    ours = {name for name, text in texts_of_units().items() if "[Install]" in text}
    enabled = {name for verb, name in lines if verb == "enable"}
    assert {name for name in enabled if name.startswith("hyrax")} == ours
    masked = rendered()["usr/lib/hyrax-vm/masked-units"].split()
    assert not enabled & set(masked)
    assert "rpcbind.socket" in masked and "rpc-statd.service" in masked


def test_repart_grows_the_root_partition(tmp_path: Path) -> None:
    """The real systemd-repart on a disk image that was enlarged."""
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    table = "label: gpt\nsize=1M,type=21686148-6449-6E6F-744E-656564454649\nsize=4M,type=uefi\n"
    root = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

    def run(*command: str | Path, stdin: str | None = None) -> str:
        return subprocess.run(
            command, input=stdin, check=True, capture_output=True, text=True, timeout=30
        ).stdout

    run("/sbin/sfdisk", disk, stdin=f"{table}type={root}\n")
    with disk.open("r+b") as grown:
        grown.truncate(256 << 20)
    run("systemd-repart", "--dry-run=no", "--definitions", TREE / "usr/lib/repart.d", disk)
    listed = run("/sbin/sfdisk", "--list", "-o", "start,sectors,type-uuid", disk)
    rows = [line.split() for line in listed.splitlines() if re.match(r" *\d+ ", line)]
    assert len(rows) == 3
    start, sectors, kind = rows[-1]
    assert kind == root
    assert 0 <= (256 << 11) - int(start) - int(sectors) < 2048 + 34


def hashed(password: str, setting: str) -> str:
    return subprocess.run(
        ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", password, setting],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


YESCRYPT = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$"


@pytest.mark.parametrize(
    ("stored", "changed"),
    [
        (hashed("opendap", YESCRYPT), False),
        (hashed("opendap", "$y$j9T$ZZZx5fExrKuPp53xLKQ..1$"), False),
        (hashed("opendap", "$6$abcdefgh$"), False),
        (hashed("opendap", "$5$abcdefgh$"), False),
        (hashed("opendap", "$2b$05$abcdefghijklmnopqrstuu"), False),
        (hashed("s3cret", YESCRYPT), True),
        (hashed("s3cret", "$6$abcdefgh$"), True),
        (hashed("s3cret", "$2b$05$abcdefghijklmnopqrstuu"), True),
        ("!" + hashed("s3cret", YESCRYPT), False),
        ("", False),
        ("!", False),
        ("*", False),
        ("*0", False),
        ("$y$j9T$", False),
        ("$unknown$x$y", False),
    ],
)
def test_ssh_password_rule(guest: Guest, stored: str, changed: bool) -> None:
    other = hashed("other", YESCRYPT)
    guest.write(
        "etc/shadow", f"root:!:1::::::\nopendapx:{other}:1::::::\nopendap:{stored}:1::::::\n"
    )
    allowed = guest.root / "run/hyrax/sshd/password.conf"
    for before in (False, True):
        if before:
            guest.write("run/hyrax/sshd/password.conf", "PasswordAuthentication yes\n")
        else:
            allowed.unlink(missing_ok=True)
        guest.write("calls.log", "")
        status, _, err = guest.run("usr/lib/hyrax-vm/ssh-password")
        assert (status, err) == (0, "")
        assert allowed.exists() == changed
        reload = "systemctl --no-block try-reload-or-restart ssh.service"
        assert (reload in guest.read("calls.log")) == (before != changed)
    if changed:
        assert allowed.read_text() == "PasswordAuthentication yes\n"


def test_no_such_user_means_keys_only(guest: Guest) -> None:
    guest.write("etc/shadow", f"opendapx:{hashed('other', YESCRYPT)}:1::::::\n")
    assert guest.run("usr/lib/hyrax-vm/ssh-password")[0] == 0
    assert not (guest.root / "run/hyrax/sshd/password.conf").exists()


def test_sshd_reads_the_yes_before_its_own_no() -> None:
    lines = (TREE / "etc/ssh/sshd_config.d/10-hyrax.conf").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert lines[0] == "Include /run/hyrax/sshd/*.conf"
    assert lines.index("PasswordAuthentication no") > 0


def test_host_keys_are_made_once_and_mended(guest: Guest) -> None:
    folder = guest.root / "etc/ssh"
    (folder / "ssh_host_ecdsa_key").write_bytes(b"")
    assert guest.run("usr/lib/hyrax-vm/host-keys")[::2] == (0, "")
    names = sorted(path.name for path in folder.glob("ssh_host*"))
    keys = ["ssh_host_ecdsa_key", "ssh_host_ed25519_key"]
    assert names == sorted(keys + [f"{key}.pub" for key in keys])
    before = {name: (folder / name).read_text() for name in names}
    for key in keys:
        assert stat.S_IMODE((folder / key).stat().st_mode) == 0o600
        public = subprocess.run(
            ["ssh-keygen", "-y", "-f", folder / key], check=True, capture_output=True, text=True
        ).stdout
        assert public.split()[:2] == before[f"{key}.pub"].split()[:2]
    assert guest.run("usr/lib/hyrax-vm/host-keys")[0] == 0
    assert {name: (folder / name).read_text() for name in names} == before


def test_the_probe_tells_an_open_from_a_closed_port(port: int, closed_port: int) -> None:
    def probe(host: str, number: int) -> tuple[str, int]:
        command: list[str | Path] = [LIB / "tcp-probe", host, str(number), "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return done.stdout.strip(), done.returncode

    assert probe("127.0.0.1", port) == ("open", 0)
    assert probe("localhost", port) == ("open", 0)
    assert probe("127.0.0.1", closed_port) == ("refused", 1)
    assert probe("[::1]", closed_port)[1] == 1
    assert probe("no-such-host.invalid", 1) == ("nohost", 1)


def test_no_file_is_long() -> None:
    for path in TREE.rglob("*"):
        assert not path.is_file() or len(path.read_text().splitlines()) < 250, path


# Service -> why it has neither the common sandbox nor one in its unit.
UNCONFINED = {
    "hyrax-first-settings.service": "sets accounts, network, data sets",
    "hyrax-grow.service": "enlarges the root file system",
    "hyrax-host-keys.service": "runs ssh-keygen, before the network",
    "hyrax-identity.service": "changes the machine's identity",
    "hyrax-ready.service": "runs as long as the machine starts",
    "hyrax-ssh-password.service": "reads the password, writes sshd's settings",
    "hyrax-upgrade.service": "installs packages",
}


def test_every_service_is_confined_or_it_is_known_why_not() -> None:
    unconfined = set()
    for name, text in texts_of_units().items():
        if not name.endswith(".service"):
            continue
        link = SYSTEM / f"{name}.d/sandbox.conf"
        common = link.is_symlink() and link.resolve() == LIB / "sandbox.conf"
        if not common and "CapabilityBoundingSet=" not in text:
            unconfined.add(name)
    assert unconfined == {*UNCONFINED}
