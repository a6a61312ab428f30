"""QEMU's command line, and the choice of the accelerator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyraxvm.config.arch import AMD64
from hyraxvm.core.errors import UserError
from hyraxvm.formats import vmx_zip
from hyraxvm.formats.vmx import VmxSpec, parse_vmx, render_vmx
from hyraxvm.vm.qemu import Drive, MachineSpec, choose_accelerator, qemu_argv


def pairs(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_argv_has_the_devices_that_the_vmx_declares() -> None:
    vmx = parse_vmx(render_vmx(VmxSpec("x", ("a.vmdk",), "n", "debian10-64")))
    spec = vmx_zip.machine(vmx, Path("/folder, odd"))
    mac = "00:0c:29:00:00:01"
    argv = qemu_argv(
        spec, "tcg", ports={8080: 18080, 22: 0}, serial=["-serial", "null"], macs=[mac]
    )
    assert pairs(argv, "-device") == [
        "VGA",
        "pvscsi,id=pvscsi",
        "scsi-hd,bus=pvscsi.0,drive=disk0_0,bootindex=1",
        f"vmxnet3,netdev=net0,romfile=,mac={mac}",
    ]
    assert pairs(argv, "-netdev") == [
        "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:18080-:8080"
    ]
    (block,) = map(json.loads, pairs(argv, "-blockdev"))
    assert block["driver"] == "vmdk"
    assert block["file"] == {"driver": "file", "filename": "/folder, odd/a.vmdk"}
    assert (pairs(argv, "-m"), pairs(argv, "-smp")) == (["1024M"], ["2"])
    assert pairs(argv, "-machine") == ["pc"]
    assert (pairs(argv, "-accel"), pairs(argv, "-cpu")) == (
        ["tcg,thread=multi"],
        ["Nehalem,vendor=AuthenticAMD"],
    )
    assert pairs(argv, "-smbios") == [
        "type=11,value=io.systemd.credential:sysctl.extra=kernel.randomize_va_space=0"
    ]


@pytest.mark.parametrize(
    ("controller", "nic", "devices"),
    [
        ("lsisas1068", "e1000", ["mptsas1068,id=lsisas1068", "e1000,netdev=net0,romfile="]),
        ("virtio", "virtio", ["virtio-scsi-pci,id=virtio", "virtio-net-pci,netdev=net0,romfile="]),
        ("pvscsi", "e1000e", ["pvscsi,id=pvscsi", "e1000e,netdev=net0,romfile="]),
    ],
)
def test_argv_of_the_other_devices(controller: str, nic: str, devices: list[str]) -> None:
    spec = MachineSpec(drives=(Drive(controller, Path("d"), "raw"),), nics=(nic,))
    argv = qemu_argv(spec, "kvm", ports={}, serial=[])
    assert [pairs(argv, "-device")[1], pairs(argv, "-device")[-1]] == devices
    assert (pairs(argv, "-accel"), pairs(argv, "-cpu")) == (["kvm"], ["host"])
    assert not pairs(argv, "-smbios")


@pytest.mark.parametrize(
    ("controller", "device"), [("ide", "ide-hd"), ("virtio-blk", "virtio-blk-pci")]
)
def test_argv_of_disks_without_a_controller_of_their_own(controller: str, device: str) -> None:
    spec = MachineSpec(drives=(Drive(controller, Path("d"), "raw"),), nics=())
    argv = qemu_argv(spec, "tcg", ports={}, serial=[])
    assert pairs(argv, "-device") == ["VGA", f"{device},drive=disk0_0,bootindex=1"]


def test_argv_gives_each_sas_disk_an_address() -> None:
    drives = tuple(Drive("lsisas1068", Path(name), "raw") for name in "ab")
    argv = qemu_argv(MachineSpec(drives=drives, nics=()), "tcg", ports={}, serial=[])
    assert pairs(argv, "-device")[2:] == [
        "scsi-hd,bus=lsisas1068.0,drive=disk0_0,bootindex=1,wwn=0x5000c50000000001",
        "scsi-hd,bus=lsisas1068.0,drive=disk0_1,wwn=0x5000c50000000002",
    ]


def test_argv_efi_has_the_code_read_only_and_private_variables() -> None:
    spec = MachineSpec(drives=(Drive("pvscsi", Path("d"), "raw"),), nics=(), firmware="efi")
    argv = qemu_argv(spec, "tcg", ports={}, serial=[], variables=Path("/scratch/vars"))
    code, variables, _ = map(json.loads, pairs(argv, "-blockdev"))
    assert pairs(argv, "-machine") == ["pc,pflash0=code,pflash1=vars"]
    assert code["filename"].endswith("OVMF_CODE_4M.fd")
    assert code["read-only"] is True
    assert variables["filename"] == "/scratch/vars"
    assert "read-only" not in variables


@pytest.mark.parametrize(
    ("controller", "nic", "said"),
    [
        ("lsilogic", "e1000", "disk controller 'lsilogic': QEMU emulates only pvscsi, lsisas1068"),
        ("pvscsi", "ne2k", "network card 'ne2k': QEMU emulates only vmxnet3, e1000"),
    ],
)
def test_argv_refuses_unknown_devices(controller: str, nic: str, said: str) -> None:
    spec = MachineSpec(drives=(Drive(controller, Path("d"), "raw"),), nics=(nic,))
    with pytest.raises(UserError, match=said):
        qemu_argv(spec, "tcg", ports={}, serial=[])


@pytest.mark.parametrize(
    ("flags", "device", "name", "reason"),
    [
        ("fpu vmx sse", "/dev/null", "kvm", "/dev/null can be used"),
        ("fpu svm sse", "/dev/null", "kvm", "can be used"),
        ("fpu sse", "/dev/null", "tcg", "neither vmx nor svm"),
        ("fpu vmxnet svm_lock", "/dev/null", "tcg", "neither vmx nor svm"),
        ("fpu vmx", "/dev/nowhere", "tcg", "/dev/nowhere: No such file"),
        ("fpu vmx", "/proc", "tcg", "/proc: Is a directory"),
    ],
)
def test_choose_accelerator(
    tmp_path: Path, flags: str, device: str, name: str, reason: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: vmx svm\nflags\t\t: {flags}\nbugs\t: svm\n")
    found = choose_accelerator(AMD64, cpuinfo, Path(device), AMD64.kernel)
    assert found.name == name
    assert reason in found.reason
