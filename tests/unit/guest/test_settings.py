"""The settings file: how it is checked, and how it is applied."""

from __future__ import annotations

import subprocess

import pytest

from tests.unit.guest.guest_copy import TREE, Guest

LIB = TREE / "usr/lib/hyrax-vm"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8o7bZ0yqJmtkN3yQbA0ZVbIuM3GZfdlRy7VXn0xG5d me@pc"
HASH = "$6$salt.salt$" + "A" * 86
GOOD = f"""\
[vm]
hostname = "dap1"
password_hash = "{HASH}"
ssh_keys = ["{KEY}"]

[network]
address = "192.0.2.10/24"
gateway = "192.0.2.1"
dns = ["192.0.2.2", "192.0.2.3"]

[[data]]
url = "nfs://127.0.0.20/export/sst"

[[data]]
url = "nfs://127.0.0.20/export/rain"
name = "rain-2020"
"""
NET = {
    "networkctl": "",
    "ping": "exit 1",
    "hostname": "",
    "chpasswd": 'cat >>"$HYRAX_ROOT/passwords"',
    "udevadm": "",
    "lsblk": 'cat "$HYRAX_ROOT/disks/list" 2>/dev/null',
    "modprobe": "exit 1",
    "systemd-detect-virt": 'cat "$HYRAX_ROOT/virt" 2>/dev/null || echo qemu',
}


@pytest.fixture
def vm(guest: Guest) -> Guest:
    return early_in_its_boot(guest)


def early_in_its_boot(guest: Guest) -> Guest:
    """Make neither the network nor the server of a guest run."""
    for name, body in NET.items():
        guest.stand_in(name, body)
    guest.answer_for("systemd-networkd", "inactive")
    guest.write("home/opendap/.keep", "")
    (guest.root / "sys/class/net/eth0/device").mkdir()
    return guest


def check(guest: Guest, text: str) -> tuple[int, list[str]]:
    guest.write("tmp/hyrax.toml", text)
    status, out, err = guest.run(
        "usr/lib/hyrax-vm/settings", "check", str(guest.root / "tmp/hyrax.toml")
    )
    assert err == ""
    return status, out.splitlines()


def test_a_good_file_is_good_and_checking_it_changes_nothing(vm: Guest) -> None:
    vm.write("tmp/hyrax.toml", GOOD)
    before = vm.state()
    assert check(vm, GOOD) == (0, [])
    assert vm.state() == before
    assert not (vm.root / "passwords").exists()


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ('"dap1"', '"dap_1"', 2, "hostname: 'dap_1' cannot be a host name"),
        ('"dap1"', '["dap1"]', 2, 'hostname: write it as "..."'),
        ('"dap1"', '"a\\nb"', 2, "hostname: it holds a control character"),
        ("hostname", "hostnam", 2, "hostnam is not a key of [vm]; expected one of: hostname, "),
        (HASH, "secret", 3, "password_hash: this is not a password hash"),
        (HASH, "$1$old$" + "A" * 22, 3, "password_hash: this is not a password hash"),
        ("ssh-ed25519", "ssh-nothing", 4, "ssh_keys: "),
        ("/24", "", 7, "address: '192.0.2.10' needs the length of its network's prefix"),
        ('192.0.2.1"', '192.0.9.1"', 7, "address: the gateway '192.0.9.1' is not in"),
        ('["192.0.2.2", "192.0.2.3"]', '"192.0.2.2"', 9, 'dns: write it as ["...", "..."]'),
        (
            "[network]",
            "[netwerk]",
            6,
            "[netwerk] is not a table of a settings file; expected one of: ",
        ),
        (
            '"nfs://127.0.0.20/export/sst"',
            '"http://x/"',
            12,
            "data: 'http://x/' is not an nfs:// or",
        ),
        ('export/sst"', 'export/sst"\ncolor = "red"', 13, "color is not a key of [[data]]"),
        (
            "[network]",
            '[https]\nself_signed = "maybe"\n\n[network]',
            7,
            "self_signed: expected true or false",
        ),
        ("[network]", '[https]\nacme = "dap"\n\n[network]', 6, "https: 'dap' is not a domain name"),
        ("rain-2020", "../etc", 15, "data: '../etc' cannot be a name"),
        ('url = "nfs://127.0.0.20/export/rain"\n', "", 14, "[[data]] needs a url"),
    ],
)
def test_each_fault_is_told_with_its_line(
    vm: Guest, old: str, new: str, line: int, told: str
) -> None:
    assert old in GOOD
    status, problems = check(vm, GOOD.replace(old, new, 1))
    assert status == 2
    assert problems[0].startswith(f"line {line}: {told}"), problems


def test_a_file_that_is_no_settings_file(vm: Guest) -> None:
    assert check(vm, "x" * 70000) == (
        2,
        ["line 1: the file has more than 64 KiB: this is not a settings file"],
    )
    assert check(vm, "\x7fELF\n")[1][0].startswith("line 1: this is neither")


def test_no_secret_is_told(vm: Guest) -> None:
    text = GOOD.replace(HASH, "hunter2") + '[[data]]\nurl = "smb://h/s"\npassword = "hunter2"\n'
    assert "hunter2" not in "\n".join(check(vm, text)[1])


def boot(guest: Guest, *arguments: str) -> tuple[int, str]:
    status, out, err = guest.run("usr/lib/hyrax-vm/settings-boot", *arguments)
    return status, out + err


def test_everything_right_is_applied_and_what_is_wrong_is_on_the_banner(vm: Guest) -> None:
    vm.write("etc/hyrax/hyrax.toml", GOOD.replace("rain-2020", "no/name"))
    status, said = boot(vm)
    assert status == 0, said
    assert vm.read("etc/hostname") == "dap1\n"
    assert "127.0.1.1\tdap1\n" in vm.read("etc/hosts")
    assert vm.read("passwords") == f"opendap:{HASH}\n"
    assert vm.read("home/opendap/.ssh/authorized_keys") == KEY + "\n"
    network = vm.read("etc/systemd/network/40-hyrax-eth0.network").splitlines()
    assert {"Address=192.0.2.10/24", "Gateway=192.0.2.1", "DNS=192.0.2.2", "DNS=192.0.2.3"} <= set(
        network
    )
    assert vm.read("etc/hyrax/data.d/sst.conf").startswith("NAME=sst\nURL=nfs://127.0.0.20/")
    assert not list((vm.root / "etc/hyrax/data.d").glob("no*"))
    banner = vm.read("run/hyrax/issue")
    assert "settings:  /etc/hyrax/hyrax.toml: line 15: data: 'no/name' cannot be a name" in banner
    # The file's secrets are nowhere else.
    for path in (vm.root / "run").rglob("*"):
        assert not path.is_file() or HASH not in path.read_text()
    assert HASH not in vm.read("calls.log")
    # networkd starts later; a call to it now would block.
    assert "networkctl" not in vm.read("calls.log")


def test_it_is_applied_once_and_again_when_it_has_changed(vm: Guest) -> None:
    vm.write("etc/hyrax/hyrax.toml", '[vm]\nhostname = "one"\n')
    assert boot(vm)[0] == 0
    vm.write("etc/hostname", "chosen-by-hand\n")
    assert boot(vm) == (0, "")
    assert vm.read("etc/hostname") == "chosen-by-hand\n"
    vm.write("etc/hyrax/hyrax.toml", '[vm]\nhostname = "two"\n')
    assert boot(vm)[0] == 0
    assert vm.read("etc/hostname") == "two\n"


def test_a_file_that_was_mended_takes_its_problems_off_the_banner(vm: Guest) -> None:
    vm.write("etc/hyrax/hyrax.toml", '[vm]\nhostname = "_"\n')
    boot(vm)
    assert "settings:" in vm.read("run/hyrax/issue")
    vm.write("etc/hyrax/hyrax.toml", '[vm]\nhostname = "good"\n')
    boot(vm)
    assert "settings:" not in vm.read("run/hyrax/issue")


def test_a_data_set_of_the_same_name_is_replaced(vm: Guest) -> None:
    for host in ("127.0.0.20", "127.0.0.21"):
        vm.write("etc/hyrax/hyrax.toml", f'[[data]]\nurl = "nfs://{host}/export/sst"\n')
        assert boot(vm)[0] == 0
        assert f"URL=nfs://{host}/export/sst" in vm.read("etc/hyrax/data.d/sst.conf")


def test_what_is_wrong_replaces_nothing(vm: Guest) -> None:
    good = '[[data]]\nurl = "nfs://127.0.0.20/export/my%2Ddata"\n'
    vm.write("etc/hyrax/hyrax.toml", good)
    assert boot(vm)[0] == 0
    vm.write("etc/hyrax/hyrax.toml", good + 'options = "suid"\n')
    assert boot(vm)[0] == 0
    assert "'suid' cannot be used" in vm.read("var/lib/hyrax/settings.problems")
    assert "URL=nfs://127.0.0.20/export/my-data" in vm.read("etc/hyrax/data.d/my-data.conf")


def test_nothing_given_is_nothing_done(vm: Guest) -> None:
    assert boot(vm) == (0, "")
    assert not (vm.root / "var/lib/hyrax/settings.problems").exists()


def test_every_key_is_documented() -> None:
    done = subprocess.run(
        ["perl", str(LIB / "settings"), "schema"],
        env={"HYRAX_ROOT": str(TREE)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = done.stdout.splitlines()
    assert len(rows) > 10
    page = (TREE.parents[1] / "docs/settings.md").read_text()
    assert [row for row in rows if row not in page] == []
