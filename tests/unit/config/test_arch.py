"""The table of architectures, what is made from it, and that no other code names one."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from hyraxvm import formats
from hyraxvm.config import images
from hyraxvm.config.arch import AMD64, ARCHES, ARM64, Arch, ArchName
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.formats import opening, readme, vmx
from hyraxvm.stages.disk import stage as disk
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.provision import guest_tar, packer
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import embedded
from hyraxvm.stages.server import stage as server
from hyraxvm.vm.qemu import Drive, MachineSpec, choose_accelerator, efi_variables, qemu_argv

# Only images.toml and config/arch.py name these: architectures and what follows from them, the
# distribution and its Python.
NAMES = re.compile(
    r"amd64|arm64|x86_64|aarch64|ttyS0|ttyAMA0|\bi386-pc|\b3\.1[0-9]\b"
    r"|debian-?1[0-9]|Debian 1[0-9]|bookworm|trixie",
    re.IGNORECASE,
)
TABLES = {ROOT / "hyraxvm/config/arch.py"}


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> images.Recipe:
    """An image for ARM."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = formats.check(images.load())
    return images.recipe(table, "nfs", "dapdir", base="debian-13", arch="arm64")


@pytest.mark.parametrize("folder", ["hyraxvm", "packer", "provision", "templates"])
def test_only_the_tables_name_an_architecture_or_a_distribution(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file()
        and "__pycache__" not in path.parts
        and path not in TABLES
        # Versions of wheels are not names.
        and path.stem not in ("requirements", "clients")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if NAMES.search(line)
    ]
    assert found == []


def test_every_name_has_a_row_with_values_of_its_own() -> None:
    assert tuple(ARCHES) == get_args(ArchName)
    assert all(arch.name == name for name, arch in ARCHES.items())
    shared = {
        field.name
        for field in fields(Arch)
        if getattr(AMD64, field.name) == getattr(ARM64, field.name)
    }
    assert shared == set()


def test_the_packages_of_the_usual_architecture_are_installed() -> None:
    listed = (ROOT / "debian-packages.txt").read_text().splitlines()
    arch = images.recipe(images.load()).arch
    assert {arch.qemu_package, arch.firmware_package} <= set(listed)


def test_a_base_without_the_architecture_and_a_bios_where_there_is_none() -> None:
    table = images.load()
    with pytest.raises(
        UserError, match=r"'debian-12' is not for arm64: .*: amd64; type: --base deb"
    ):
        images.recipe(table, "nfs", base="debian-12", arch="arm64")
    base = table.base["debian-12"]
    both = base.model_copy(update={"on": {**base.on, "arm64": base.on["amd64"]}})
    table = table.model_copy(update={"base": {"debian-12": both}})
    small = table.machine["small"].model_copy(update={"on": {}})
    table = table.model_copy(update={"machine": {"small": small}})
    with pytest.raises(UserError, match=r"firmware: 'bios': arm64 has .* \[machine.small.on.arm64"):
        images.recipe(table, "nfs", base="debian-12", arch="arm64")


def test_packages_and_wheels_are_those_of_the_architecture(arm: images.Recipe) -> None:
    argv = rootfs.command(arm, Path("/config"), Path("/out.tar"), Path("/debs"))
    assert "--architectures=arm64" in argv
    assert "linux-image-arm64" in arm.packages
    assert not [word for word in argv if "amd64" in word]
    pip = embedded.pip_command(arm, Path("/r"), Path("/t"))
    assert "--platform=manylinux_2_28_aarch64" in pip
    assert not [word for word in pip if "x86" in word]
    layer = embedded.layer_command(arm, Path("/s"), Path("/p"), Path("/debs"), Path("/l"))
    assert "--architectures=arm64" in layer


def test_the_guest_boots_from_its_own_loaders_to_its_own_console(arm: images.Recipe) -> None:
    script = provision.render_scripts(arm, server.preview(arm))["30-bootloader.sh"]
    assert re.findall(r"grub-install --target=(\S+)", script) == ["arm64-efi"]
    assert "BIOS" not in script
    assert "touch /etc/grub.d/enable_cloud" in script
    text, _ = guest_tar.guest_files(arm)["etc/default/grub.d/50-hyrax.cfg"]
    assert "console=ttyAMA0,115200" in text
    done = subprocess.run(["shellcheck", "-"], input=script, text=True, capture_output=True)
    assert done.stdout == ""


def test_packer_gets_the_machine(arm: images.Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "version", lambda: (1, 7, 0))
    names = ("disk", "kernel", "initrd", "output", "console", "private_key", "public_key")
    text = provision.render_template(
        arm, **{name: f"/{name}" for name in names}, guest_tar="/tar", scripts=[]
    )
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert {
        'qemu_binary = "qemu-system-aarch64"',
        'machine_type = "virt,gic-version=max"',
        'accelerator = "tcg"',
        '["-cpu", "cortex-a72"],',
    } <= lines
    assert "console=ttyAMA0,115200" in text


def test_a_disk_without_a_bios_has_no_partition_for_it(tmp_path: Path) -> None:
    raw = tmp_path / "disk"
    with raw.open("wb") as stream:
        stream.truncate(4 * 1024**3)
    table = disk.partition_table(1000, ARM64)
    subprocess.run(["/usr/sbin/sfdisk", "-q", raw], input=table, text=True, check=True)
    rows = re.findall(r"type=([0-9A-F-]+)", table)
    assert rows == [disk.ESP, ARM64.root_partition]


def test_argv_is_for_the_machine_of_the_architecture(tmp_path: Path) -> None:
    spec = MachineSpec(
        (Drive("virtio", Path("d"), "raw"),), ("virtio",), firmware="efi", arch=ARM64
    )
    argv = qemu_argv(spec, "tcg", ports={}, serial=[], variables=Path("/vars"))
    assert argv[0] == "qemu-system-aarch64"
    assert argv[argv.index("-machine") + 1] == "virt,gic-version=max,pflash0=code,pflash1=vars"
    assert argv[argv.index("-cpu") + 1] == "cortex-a72"
    assert argv[argv.index("-device") + 1] == "ramfb"
    code = json.loads(argv[argv.index("-blockdev") + 1])
    assert code["filename"] == str(ARM64.firmware_code)


def test_firmware_that_is_not_there_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    spec = MachineSpec((), (), firmware="efi", arch=ARM64)
    with pytest.raises(UserError, match="apt-get install qemu-efi-aarch64"):
        efi_variables(spec, tmp_path)


@pytest.mark.parametrize(
    ("arch", "host", "device", "name", "reason"),
    [
        (ARM64, "x86_64", "/dev/null", "tcg", "this computer is x86_64, the guest aarch64"),
        (AMD64, "aarch64", "/dev/null", "tcg", "this computer is aarch64, the guest x86_64"),
        # On ARM the CPU's flags do not show KVM: only the device does.
        (ARM64, "aarch64", "/dev/null", "kvm", "/dev/null can be used"),
        (ARM64, "aarch64", "/dev/nowhere", "tcg", "/dev/nowhere: No such file"),
    ],
)
def test_kvm_is_for_guests_of_the_hosts_architecture(
    tmp_path: Path, arch: Arch, host: str, device: str, name: str, reason: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    found = choose_accelerator(arch, cpuinfo, Path(device), host)
    assert found.name == name
    assert reason in found.reason


def test_a_file_is_opened_as_a_machine_of_its_architecture(tmp_path: Path) -> None:
    disk = tmp_path / "hyrax-vm-nfs-dapdir1-debian12-arm64.qcow2"
    raw = tmp_path / "raw"
    raw.write_bytes(os.urandom(2**20))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    spec = opening.open_artifact(disk, tmp_path).spec
    assert (spec.arch, spec.firmware) == (ARM64, "efi")
    plain = disk.rename(tmp_path / "disk.qcow2")
    spec = opening.open_artifact(plain, tmp_path).spec
    assert (spec.arch, spec.firmware) == (AMD64, "bios")


def test_the_page_on_hypervisors_names_the_processor_and_its_emulator(arm: images.Recipe) -> None:
    page = readme.hypervisors("nm", arm)
    assert "The machine is for 64-bit ARM processors (arm64), such as those of Macs" in page
    assert "`nm.utm.zip`" in page
    assert "ESXi" not in page and "Hyper-V" not in page
    assert "qemu-system-aarch64" in page
    assert "Intel" not in page.partition("## ")[0]


def test_images_for_arm_have_formats_and_devices_of_their_own(arm: images.Recipe) -> None:
    assert [each.name for each in formats.choose([], arm.arch)] == ["vmx", "qcow2", "utm"]
    assert [each.name for each in formats.choose([], AMD64)] == ["vmx", "ova", "qcow2", "hyperv"]
    with pytest.raises(UserError, match="'ova' is not made for arm64; expected: vmx, qcow2, utm"):
        formats.choose(["ova"], arm.arch)
    declared = vmx.parse_vmx(formats.FORMATS["vmx"].texts(arm, "nm", server.preview(arm))["nm.vmx"])
    assert declared.guest_os == "arm-debian12-64"
    assert declared.raw["virtualhw.version"] == "20"
    assert declared.raw["usb_xhci.present"] == "TRUE"
    assert (declared.firmware, declared.nics) == ("efi", (vmx.Nic("e1000e"),))
    assert declared.disks == (vmx.VmxDisk("nvme", "nm.vmdk"),)
    assert not [key for key in declared.raw if key.startswith("scsi")]
    assert {*Plan(arm).formats(server.preview(arm))} == {"vmx", "qcow2", "utm"}


def test_a_host_that_cannot_run_the_programs_is_told_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match=r"arm64 cannot be booted .* qemu-system-arm qemu"):
            rootfs.check_host(ARM64)
    for name, status in ((ARM64.qemu, 0), ("arch-test", 1)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    arch = replace(ARM64, firmware_variables=tmp_path)
    with pytest.raises(UserError, match=r"cannot run here.*qemu-user-static.*qemu-aarch64.conf"):
        rootfs.check_host(arch, "x86_64")
    rootfs.check_host(arch, "aarch64")
    assert rootfs.patience(arch, 60, "aarch64") == 60
    assert rootfs.patience(arch, 60, "x86_64") == 180
    (tmp_path / "arch-test").write_text("#!/bin/sh\n")
    rootfs.check_host(arch, "x86_64")


def test_an_nvme_disk_has_a_serial_number() -> None:
    spec = MachineSpec((Drive("nvme", Path("d"), "raw"),), ("e1000e",), firmware="efi", arch=ARM64)
    argv = qemu_argv(spec, "tcg", ports={}, serial=[], variables=Path("/vars"))
    (disk,) = (word for word in argv if word.startswith("nvme"))
    assert disk == "nvme,serial=hyrax,drive=disk0_0,bootindex=1"
