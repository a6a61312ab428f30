"""The VMX file: golden text, round trips, and hostile input refused in one line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyraxvm.core.errors import UserError
from hyraxvm.formats.vmx import (
    MAX_BYTES,
    Nic,
    VmxDisk,
    VmxSpec,
    parse_vmx,
    read_vmx,
    render_vmx,
)

SPEC = VmxSpec(
    display_name="Hyrax VM (NFS)",
    disks=("hyrax-vm.vmdk",),
    nvram="hyrax-vm.nvram",
    guest_os="debian10-64",
)

GOLDEN = """\
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "13"
displayName = "Hyrax VM (NFS)"
guestOS = "debian10-64"
firmware = "bios"
nvram = "hyrax-vm.nvram"
memsize = "1024"
numvcpus = "2"
cpuid.coresPerSocket = "1"
pciBridge0.present = "TRUE"
pciBridge4.present = "TRUE"
pciBridge4.virtualDev = "pcieRootPort"
pciBridge4.functions = "8"
pciBridge5.present = "TRUE"
pciBridge5.virtualDev = "pcieRootPort"
pciBridge5.functions = "8"
pciBridge6.present = "TRUE"
pciBridge6.virtualDev = "pcieRootPort"
pciBridge6.functions = "8"
pciBridge7.present = "TRUE"
pciBridge7.virtualDev = "pcieRootPort"
pciBridge7.functions = "8"
vmci0.present = "TRUE"
hpet0.present = "TRUE"
svga.present = "TRUE"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "hyrax-vm.vmdk"
ethernet0.present = "TRUE"
ethernet0.startConnected = "TRUE"
ethernet0.connectionType = "nat"
ethernet0.virtualDev = "vmxnet3"
ethernet0.addressType = "generated"
ethernet0.wakeOnPcktRcv = "FALSE"
uuid.action = "create"
isolation.tools.setinfo.disable = "TRUE"
tools.syncTime = "FALSE"
tools.upgrade.policy = "manual"
powerType.powerOff = "soft"
powerType.powerOn = "soft"
powerType.suspend = "soft"
powerType.reset = "soft"
floppy0.present = "FALSE"
sound.present = "FALSE"
usb.present = "FALSE"
"""


def test_golden() -> None:
    assert render_vmx(SPEC) == GOLDEN


def test_parse_golden() -> None:
    vmx = parse_vmx(GOLDEN)
    assert (vmx.display_name, vmx.guest_os) == ("Hyrax VM (NFS)", "debian10-64")
    assert (vmx.firmware, vmx.memory_mib, vmx.cpus) == ("bios", 1024, 2)
    assert vmx.disks == (VmxDisk("pvscsi", "hyrax-vm.vmdk"),)
    assert vmx.nics == (Nic("vmxnet3", "nat"),)
    assert vmx.raw["pcibridge7.virtualdev"] == "pcieRootPort"


names = st.text(min_size=1, max_size=200).filter(str.strip)
files = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+~-]{0,60}[a-z]\.vmdk", fullmatch=True)


@given(
    name=names,
    disks=st.lists(files, min_size=1, max_size=15, unique_by=str.lower),
    nics=st.lists(
        st.builds(
            Nic,
            st.sampled_from(["vmxnet3", "e1000", "e1000e"]),
            st.sampled_from(["nat", "bridged", "hostonly"]),
        ),
        min_size=1,
        max_size=10,
    ),
    memory=st.integers(1, 4096),
    cpus=st.integers(1, 128),
    firmware=st.sampled_from(["bios", "efi"]),
    controller=st.sampled_from(["pvscsi", "lsisas1068"]),
    crlf=st.booleans(),
)
def test_round_trip(
    name: str,
    disks: list[str],
    nics: list[Nic],
    memory: int,
    cpus: int,
    firmware: str,
    controller: str,
    crlf: bool,
) -> None:
    spec = VmxSpec(
        display_name=name,
        disks=tuple(disks),
        nvram="x.nvram",
        guest_os="debian10-64",
        memory_mib=memory * 4,
        cpus=cpus,
        firmware=firmware,
        controller=controller,
        nics=tuple(nics),
    )
    text = render_vmx(spec)
    vmx = parse_vmx(text.replace("\n", "\r\n") if crlf else text)
    assert vmx.display_name == name
    assert vmx.disks == tuple(VmxDisk(controller, file) for file in disks)
    assert vmx.nics == tuple(nics)
    assert (vmx.memory_mib, vmx.cpus, vmx.firmware) == (memory * 4, cpus, firmware)
    # The rules of the format hold for any name: quoted, one line each, no key twice, no MAC.
    lines = text.removesuffix("\n").split("\n")
    assert all(re.fullmatch(r'[\w.:]+ = "[^"\x00-\x1f]*"', line) for line in lines)
    keys = [line.partition(" =")[0].lower() for line in lines]
    assert len(keys) == len(set(keys))
    assert not any(key.endswith("address") for key in keys)
    assert "scsi0:7.present" not in keys


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"pvscsi"', '"floptical"', "scsi0.virtualDev = 'floptical': expected: pvscsi"),
        ("hyrax-vm.vmdk", "../../etc/passwd", "fileName = '../../etc/passwd': expected: the pl"),
        ("hyrax-vm.vmdk", "C:|5Cwin.vmdk", r"fileName = 'C:\\win.vmdk': expected: the plain"),
        ("hyrax-vm.vmdk", "|2Fetc|2Fpasswd", "fileName = '/etc/passwd': expected"),
        ("hyrax-vm.vmdk", "..", "fileName = '..': expected"),
        ("hyrax-vm.vmdk", "-drive", "fileName = '-drive': expected"),
        ("hyrax-vm.vmdk", "a,file=b", "fileName = 'a,file=b': expected"),
        (
            "scsi-hardDisk",
            "cdrom-image",
            "scsi0:0.deviceType = 'cdrom-image': expected: scsi-harddisk",
        ),
        (
            'scsi0.present = "TRUE"\n',
            "",
            "scsi0:0 is present without its controller; add the line scsi0.present",
        ),
        ('scsi0:0.fileName = "hyrax-vm.vmdk"\n', "", "scsi0:0.fileName is missing"),
        ('memsize = "1024"\n', "", "memsize is missing"),
        ('"1024"', '"1023"', "memsize = '1023': expected: 4 to 1048576, a multiple of 4"),
        ('"1024"', '"10_24"', "memsize = '10_24': expected"),
        ('"1024"', '"-1024"', "memsize = '-1024': expected"),
        ('"1024"', '"' + "9" * 5000 + '"', "memsize = '999"),
        ('numvcpus = "2"', 'numvcpus = "0"', "numvcpus = '0': expected: 1 to 128"),
        ('"bios"', '"coreboot"', "firmware = 'coreboot': expected: bios, efi"),
        ('"vmxnet3"', '"ne2000"', "ethernet0.virtualDev = 'ne2000': expected: vmxnet3"),
        ('"nat"', '"custom"', "ethernet0.connectionType = 'custom': expected: nat"),
        ('ethernet0.present = "TRUE"', "", "0 network cards; expected: 1 to 10"),
        ('scsi0:0.present = "TRUE"', 'sata0:0.present = "TRUE"', "sata0:0.present = 'TRUE'"),
        ('numvcpus = "2"', 'MemSize = "8"', "MemSize = '8': the key occurs twice"),
        ('"nat"', "nat", "line 34: 'ethernet0.connectionType = nat': expected: key"),
        (".encoding", "\ufeff.encoding", "byte order mark"),
        (".encoding", "x" * MAX_BYTES, "too long; expected: at most 65536 bytes"),
    ],
)
def test_hostile_text_is_refused_in_one_line(old: str, new: str, said: str) -> None:
    assert old in GOLDEN
    with pytest.raises(UserError) as caught:
        parse_vmx(GOLDEN.replace(old, new), "x.vmx")
    message = str(caught.value)
    assert message.startswith("x.vmx: ")
    assert said in message
    assert len(message.splitlines()) == 1
    assert len(message) < 300


@given(st.text(max_size=400))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_vmx(text)


def test_files_are_read_with_a_limit_and_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "image.vmx"
    path.write_text(render_vmx(SPEC), encoding="utf-8")
    assert read_vmx(path).disks == (VmxDisk("pvscsi", "hyrax-vm.vmdk"),)
    path.write_bytes(b'displayName = "\xff"\n')
    with pytest.raises(UserError, match=r"image.vmx: byte 15: not UTF-8"):
        read_vmx(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="too long"):
        read_vmx(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"display_name": " "},
        {"display_name": "\ud800"},
        {"disks": ()},
        {"disks": ("a/b.vmdk",)},
        {"nvram": "/tmp/x"},
        {"memory_mib": 0},
        {"cpus": 1000},
        {"firmware": "uboot"},
        {"controller": "ide"},
        {"nics": (Nic(model="ne2k"),)},
        {"nics": (Nic(connection="tap"),)},
    ],
)
def test_a_wrong_spec_is_refused_before_anything_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^VMX: .*expected"):
        replace(VmxSpec("x", ("a.vmdk",), "a.nvram", "debian10-64"), **wrong)
