"""The settings file: where it is found, how it is checked, and how it is applied."""

from __future__ import annotations

import base64
import re
import subprocess

import pytest

from hyraxvm.formats import ovf
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
    """A guest early in its boot: neither the network nor the server runs."""
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


def test_fw_cfg_comes_before_the_file(vm: Guest) -> None:
    vm.write(
        "sys/firmware/qemu_fw_cfg/by_name/opt/org.opendap.hyrax/settings/raw",
        '[vm]\nhostname = "from-fw-cfg"\n',
    )
    vm.write("etc/hyrax/hyrax.toml", '[vm]\nhostname = "from-file"\n')
    assert "settings from fw_cfg applied" in boot(vm)[1]
    assert vm.read("etc/hostname") == "from-fw-cfg\n"


def attach(vm: Guest, kind: str, label: str, **files: str) -> None:
    """Attach a disk; `x__y` as a file's name stands for `x.y`, and `x_y` for `x-y`."""
    vm.write("disks/list", f"/dev/sda1 vfat HYRAX-ESP\n/dev/sr0 \n/dev/sdb {kind} {label}\n")
    for name, text in files.items():
        vm.write(f"disks/sdb/{name.replace('__', '.').replace('_', '-')}", text)
    vm.stand_in("mount", 'cp -r "$HYRAX_ROOT/disks/${5##*/}/." "$6"')
    vm.stand_in("umount", 'rm -rf "$1"/*')


@pytest.mark.parametrize(
    ("kind", "label", "name"),
    [
        ("iso9660", "HYRAX", "hyrax__toml"),
        ("iso9660", "hyrax", "HYRAX__TOML"),
        ("vfat", "", "hyrax__toml"),
        ("vfat", "NO\\x20NAME", "Hyrax__toml"),
    ],
)
def test_a_disk_with_any_label(vm: Guest, kind: str, label: str, name: str) -> None:
    attach(vm, kind, label, **{name: '[vm]\nhostname = "from-disk"\n'})
    assert "settings from the settings disk applied" in boot(vm)[1]
    assert vm.read("etc/hostname") == "from-disk\n"
    mounts = [call for call in vm.read("calls.log").splitlines() if call.startswith("mount ")]
    assert all(f"-t {kind} -o ro,nosuid,nodev,noexec /dev/sdb " in call for call in mounts)


@pytest.mark.parametrize(
    ("label", "name", "words"),
    [
        ("HYRAX", "readme", "the settings disk: it holds no file hyrax.toml"),
        (
            "x",
            "hyrax__toml__txt",
            "the settings disk: its file must be called hyrax.toml, not hyrax.toml.txt",
        ),
        (
            "x",
            "hyrax_2__toml",
            "the settings disk: its file must be called hyrax.toml, not hyrax-2",
        ),
        ("tools", "readme", ""),
    ],
)
def test_a_disk_whose_file_is_not_found_is_named(
    vm: Guest, label: str, name: str, words: str
) -> None:
    attach(vm, "vfat", label, **{name: "x"})
    assert boot(vm)[0] == 0
    assert vm.run("usr/lib/hyrax-vm/banner")[0] == 0
    banner = vm.read("run/hyrax/issue")
    assert (f"settings:  {words}" in banner) if words else "settings:" not in banner


def test_a_cidata_disk_is_applied_once(vm: Guest) -> None:
    user_data = "#cloud-config\npassword: s3cret\nshape: [\n"
    attach(vm, "iso9660", "CIDATA", meta_data="local-hostname: dap7\n", user_data=user_data)
    assert "settings from the cidata disk applied" in boot(vm)[1]
    assert vm.read("etc/hostname") == "dap7\n"
    assert "settings:  the cidata disk: user-data: line 3: " in vm.read("run/hyrax/issue")
    vm.write("disks/sdb/user-data", "#cloud-config\npassword: s3cret\n")
    assert boot(vm)[0] == 0
    assert vm.read("passwords").count("opendap:$6$") == 1
    vm.write("etc/hostname", "chosen-by-hand\n")
    assert boot(vm)[0] == 0
    assert vm.read("etc/hostname") == "chosen-by-hand\n"
    assert vm.read("passwords").count("opendap:$6$") == 1


UUIDS = "sys/class/dmi/id/product_uuid"


def pretend_vmware(vm: Guest, **values: str) -> None:
    """Put a vmtoolsd in place that answers as in a VMware machine."""
    vm.write("virt", "vmware\n")
    vm.write(UUIDS, "564d0000-0000-0000-0000-000000000001\n")
    for key, value in values.items():
        vm.write(f"info/guestinfo.{key.replace('_', '.')}", value)
    vm.stand_in(
        "vmtoolsd",
        """
set -- $2
case $1 in
info-get) cat "$HYRAX_ROOT/info/$2" 2>/dev/null && exit ;;
info-set) [ -e "$HYRAX_ROOT/setinfo-disabled" ] || { echo "$3" >"$HYRAX_ROOT/info/$2"; exit; } ;;
esac
echo "No value found"
exit 1""",
    )


@pytest.mark.parametrize("encoding", ["", "base64"])
def test_vmwares_guestinfo_is_taken_once_and_blanked(vm: Guest, encoding: str) -> None:
    text = '[vm]\nhostname = "from-guestinfo"\n'
    if encoding:
        text = base64.encodebytes(text.encode()).decode()
    pretend_vmware(
        vm, hyrax_settings=text, **({"hyrax_settings_encoding": encoding} if encoding else {})
    )
    status, said = boot(vm)
    assert (status, vm.read("etc/hostname")) == (0, "from-guestinfo\n"), said
    assert vm.read("info/guestinfo.hyrax.settings") == "---\n"
    # A program of the machine has written it.
    vm.write("info/guestinfo.hyrax.settings", text.replace("from", "evil"))
    vm.write("etc/hostname", "mine\n")
    assert boot(vm)[0] == 0
    assert vm.read("etc/hostname") == "mine\n"
    assert vm.read("info/guestinfo.hyrax.settings") == "---\n"
    # A copy is another machine.
    vm.write(UUIDS, "564d0000-0000-0000-0000-000000000002\n")
    vm.write("info/guestinfo.hyrax.settings", text + ("" if encoding else "# copy\n"))
    vm.write("var/lib/hyrax/settings.applied", "")
    assert boot(vm)[0] == 0
    assert vm.read("etc/hostname") == "from-guestinfo\n"


def test_guestinfo_that_comes_after_the_first_boot_is_not_taken(vm: Guest) -> None:
    pretend_vmware(vm)
    assert boot(vm) == (0, "")
    vm.write("info/guestinfo.hyrax.settings", '[vm]\nhostname = "evil"\n')
    assert boot(vm)[0] == 0
    assert "evil" not in vm.read("etc/hostname")


def test_guestinfo_that_cannot_be_blanked_is_on_the_banner(vm: Guest) -> None:
    pretend_vmware(vm, hyrax_settings='[vm]\nhostname = "one"\n')
    vm.write("setinfo-disabled", "")
    assert boot(vm)[0] == 0
    hint = "guestinfo: every program of this VM can read guestinfo.hyrax.settings; remove it"
    assert f"settings:  {hint}" in vm.read("run/hyrax/issue")


def test_the_properties_of_an_ovf_deployment(vm: Guest) -> None:
    pretend_vmware(
        vm,
        ovfEnv="""<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"
    xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="">
  <PlatformSection><Kind>VMware ESXi</Kind></PlatformSection>
  <PropertySection>
    <Property oe:key="hostname" oe:value="dap&#x2d;9"/>
    <Property oe:key="address" oe:value="192.0.2.9/24"/>
    <Property oe:key="gateway" oe:value=""/>
    <Property oe:key="dns" oe:value="192.0.2.2, 192.0.2.3"/>
    <Property oe:key="data_url" oe:value='nfs://127.0.0.20/a&amp;b'/>
    <Property oe:key="data_name" oe:value="ab"/>
    <Property oe:key="ssh_key" oe:value="not a key"/>
  </PropertySection>
</Environment>
""",
    )
    status, said = boot(vm)
    assert status == 0
    assert vm.read("etc/hostname") == "dap-9\n", said
    network = vm.read("etc/systemd/network/40-hyrax-eth0.network")
    assert "Address=192.0.2.9/24" in network
    assert re.findall(r"^DNS=(.*)$", network, re.MULTILINE) == ["192.0.2.2", "192.0.2.3"]
    assert "URL=nfs://127.0.0.20/a&b" in vm.read("etc/hyrax/data.d/ab.conf")
    assert "the OVF properties: line" in vm.read("run/hyrax/issue")
    assert "ssh_keys: " in vm.read("run/hyrax/issue")


def test_every_property_of_the_descriptor_is_read_and_no_other() -> None:
    declared = [each.key for each in ovf.PROPERTIES + ovf.DATA_PROPERTIES]
    given = "".join(f'<Property oe:key="{key}" oe:value="v-{key}"/>' for key in declared)
    done = subprocess.run(
        ["perl", str(LIB / "ovf-settings")],
        input=f"<Environment>{given}</Environment>",
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(re.findall(r'"v-(\w+)"', done.stdout)) == sorted(declared)
    source = (LIB / "ovf-settings").read_text()
    assert sorted(re.findall(r"\[(\w+) => ", source)) == sorted(declared)


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
