"""Where settings come from: files, disks, QEMU, VMware and the properties of an OVF deployment."""

from __future__ import annotations

import base64
import re
import subprocess

import pytest

from hyraxvm.formats import ovf
from tests.unit.guest.guest_copy import Guest
from tests.unit.guest.test_settings import LIB, boot, early_in_its_boot


@pytest.fixture
def vm(guest: Guest) -> Guest:
    return early_in_its_boot(guest)


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
