"""What outlives a power cut: how the commands write their files, and that they take turns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import TREE, Guest
from tests.unit.guest.test_settings import KEY, NET

SETTINGS = """\
[vm]
hostname = "dap2"
[server]
email = "b@example.org"
"""
# Each changes a file that is there, or makes one: (arguments, standard input, the files).
COMMANDS = {
    "set": (("hyrax-server", "set", "email", "a@example.org"), "", ["etc/hyrax/server.conf"]),
    "drain": (("hyrax-server", "drain"), "", ["var/lib/hyrax/drained"]),
    "static": (
        ("hyrax-network", "static", "192.0.2.10/24"),
        "",
        ["etc/systemd/network/40-hyrax-eth0.network"],
    ),
    "hostname": (
        ("hyrax-network", "hostname", "dap1.example.org"),
        "",
        ["etc/hosts", "etc/hostname"],
    ),
    "key": (("hyrax-setup", "ssh-key", "add", KEY), "", ["home/opendap/.ssh/authorized_keys"]),
    "restrict": (
        ("hyrax-data", "restrict", "here", "--user=me", "--hidden"),
        "longenough\n",
        ["etc/hyrax/restrict.d/here.hidden", "etc/hyrax/restrict.d/here.htpasswd"],
    ),
    "apply": (
        ("hyrax-setup", "apply", "FILE"),
        "",
        ["etc/hosts", "etc/hostname", "etc/hyrax/server.conf", "var/lib/hyrax/settings.problems"],
    ),
    "add": (
        ("hyrax-data", "add", "nfs://127.0.0.1:PORT/sst"),
        "",
        [
            "etc/systemd/system/srv-hyrax-data-sst.mount",
            "etc/systemd/system/srv-hyrax-data-sst.automount",
            "etc/hyrax/data.d/sst.conf",
        ],
    ),
}


@pytest.fixture
def vm(guest: Guest) -> Guest:
    """A guest whose calls of sync and mv are in calls.log."""
    for name, body in NET.items():
        guest.stand_in(name, body)
    for name in ("sync", "mv"):
        guest.stand_in(name, f'exec /usr/bin/{name} "$@"')
    guest.answer_for("systemd-networkd", "inactive")
    guest.stand_in("nginx", "")
    guest.write("home/opendap/.keep", "")
    guest.write("var/lib/hyrax/.keep", "")
    guest.write("srv/hyrax/data/here/a.nc", "x")
    guest.write("usr/lib/hyrax/settings", "EMAIL [a-z@.]+ hyrax-front-door.service the address\n")
    guest.write("usr/lib/hyrax/front-door", "data_under=data/\n")
    (guest.root / "sys/class/net/eth0/device").mkdir()
    return guest


@pytest.mark.parametrize("name", COMMANDS)
def test_every_file_is_written_so_that_it_outlives_a_power_cut(
    vm: Guest, port: int, name: str
) -> None:
    """The file reaches the disk before it gets its name, and its name before the command ends."""
    vm.write("tmp/hyrax.toml", SETTINGS)
    words, given, files = COMMANDS[name]
    command = [
        word.replace("FILE", str(vm.root / "tmp/hyrax.toml")).replace("PORT", str(port))
        for word in words
    ]
    vm.write("calls.log", "")
    status, _, err = vm.run(f"usr/bin/{command[0]}", *command[1:], stdin=given)
    assert status == 0, err
    calls = vm.read("calls.log").splitlines()
    for file in files:
        path = vm.root / file
        steps = [f"sync {path}.new", f"mv -f {path}.new {path}", f"sync {path.parent}"]
        found = [call for call in calls if call in steps]
        assert found[: found.index(steps[1]) + 2][-3:] == steps, (file, calls)
    assert not list(vm.root.glob("etc/**/*.new"))


def test_only_the_helper_gives_a_file_of_the_disk_its_name() -> None:
    """All other scripts that rename do it under /run, in a folder of their own, or say why."""
    allowed = {
        "state.sh",
        "host-keys",  # ssh-keygen writes two files, which are synced there
        "https.sh",  # a folder, synced there
        "server-https.sh",
        "hyrax-setup",  # a file for people
        # under /run
        "banner", "front-door", "health", "landing", "ssh-password", "usage",
        "data-restrict.sh", "setup-save.sh",  # in $work
    }  # fmt: skip
    found = {
        path.name
        for path in TREE.rglob("*")
        if path.is_file() and re.search(r"\bmv (-f )?\"", path.read_text())
    }
    assert found == allowed


@pytest.mark.parametrize("many", [12])
def test_settings_changed_at_once_are_all_kept(vm: Guest, many: int) -> None:
    kinds = "".join(f"KEY{i} [a-z]+ hyrax-front-door.service a setting\n" for i in range(many))
    vm.write("usr/lib/hyrax/settings", kinds)
    running = [vm.popen("usr/bin/hyrax-server", "set", f"key{i}", "abc") for i in range(many)]
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0] * many, said
    lines = vm.read("etc/hyrax/server.conf").splitlines()
    assert sorted(lines) == sorted(f"KEY{i}=abc" for i in range(many))


def test_keys_added_at_once_are_all_kept(vm: Guest, tmp_path: Path) -> None:
    keys = []
    for i in range(4):
        vm.run("usr/lib/hyrax-vm/host-keys", "new")
        key = vm.read("etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
        keys.append(f"{' '.join(key)} me@pc{i}")
    running = [vm.popen("usr/bin/hyrax-setup", "ssh-key", "add", key) for key in keys]
    for process in running:
        process.communicate(timeout=60)
    assert sorted(vm.read("home/opendap/.ssh/authorized_keys").splitlines()) == sorted(keys)


def test_https_is_as_before_when_the_power_was_cut_between_its_two_folders(vm: Guest) -> None:
    vm.write("etc/hyrax/https.old/settings", "METHOD=files\n")
    vm.write("etc/hyrax/https.new/settings", "METHOD=acme\n")
    assert vm.run("usr/lib/hyrax-vm/settings-boot")[0] == 0
    assert vm.read("etc/hyrax/https/settings") == "METHOD=files\n"
