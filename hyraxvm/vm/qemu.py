"""QEMU's command line for the hardware that a descriptor declares; nothing here runs a machine."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from hyraxvm.config.arch import DEFAULT, Arch
from hyraxvm.core import process
from hyraxvm.core.errors import UserError
from hyraxvm.core.tool_versions import Tool

PROGRAM: Final = Tool((DEFAULT.qemu, "--version"), "7.0")
# Name in a descriptor -> device of QEMU.  QEMU does not emulate VMware's "lsilogic" (53C1030).
SCSI_CONTROLLERS: Final = {
    "pvscsi": "pvscsi",
    "lsisas1068": "mptsas1068",
    "virtio": "virtio-scsi-pci",
    # What Proxmox and libvirt give an imported disk.
    "lsi53c895a": "lsi53c895a",
}
# Disks that need no controller device: the "pc" machine has one for IDE (PIIX3).
# An NVMe disk needs a serial number.
PLAIN_DISKS: Final = {
    "ide": "ide-hd",
    "virtio-blk": "virtio-blk-pci",
    "nvme": "nvme,serial=hyrax",
}
NICS: Final = {
    "vmxnet3": "vmxnet3",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "virtio": "virtio-net-pci",
}
SAS_ADDRESS: Final = 0x5000C50000000001
HTTP: Final = 8080
SSH: Final = 22
# The address of the host's loopback for a guest on QEMU's user network.
HOST: Final = "10.0.2.2"
# A credential of systemd 252 and newer: programs in the guest get the same addresses each time.
# QEMU before 8.0 keeps its translation of x86 code by address: with random addresses it translates
# a program again at each start, and the guest's shell scripts take twice as long.
SAME_ADDRESSES: Final = (
    "type=11,value=io.systemd.credential:sysctl.extra=kernel.randomize_va_space=0"
)


class Accelerator(NamedTuple):
    """QEMU's accelerator, "kvm" or "tcg", and the reason for it in words."""

    name: str
    reason: str


@dataclass(frozen=True)
class Drive:
    """A disk image: `controller` is of `SCSI_CONTROLLERS` or `PLAIN_DISKS`, `format` is qemu's."""

    controller: str
    path: Path
    format: str


@dataclass(frozen=True)
class MachineSpec:
    """The hardware of a machine: disks, models of network cards (of `NICS`), memory in MiB.

    `firmware` is "bios" or "efi".  `extra` are more arguments of QEMU, for hardware that no
    descriptor declares.
    """

    drives: tuple[Drive, ...]
    nics: tuple[str, ...]
    memory_mib: int = 1024
    cpus: int = 2
    firmware: str = "bios"
    arch: Arch = DEFAULT
    extra: tuple[str, ...] = ()

    def with_overlays(self, folder: Path, size: int | None = None) -> MachineSpec:
        """Return the same machine, which writes into new qcow2 overlays in `folder`.

        The original disks do not change.  `size` (bytes) enlarges the first disk.
        """
        folder.mkdir(parents=True, exist_ok=True)
        drives = []
        for number, drive in enumerate(self.drives):
            path = folder / f"disk{number}.qcow2"
            argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", drive.format]
            argv += ["-b", str(drive.path.resolve()), str(path)]
            if size is not None and number == 0:
                argv.append(str(size))
            process.output(argv)
            drives.append(Drive(drive.controller, path, "qcow2"))
        return replace(self, drives=tuple(drives))


def choose_accelerator(
    arch: Arch = DEFAULT,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    device: Path = Path("/dev/kvm"),
    host: str = platform.machine(),
) -> Accelerator:
    """Choose KVM if guest and host have the same architecture, and CPU and device allow it.

    Where the CPU has flags for it, the device alone proves nothing: on some hosts it makes a VM in
    which no guest boots.
    """
    if host != arch.kernel:
        return Accelerator("tcg", f"this computer is {host}, the guest {arch.kernel}")
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    if arch.kvm_flags and not {*arch.kvm_flags} & {*(flags[1].split() if flags else ())}:
        return Accelerator("tcg", f"the CPU's flags show neither {' nor '.join(arch.kvm_flags)}")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Accelerator("tcg", f"{device}: {error.strerror}")
    shown = f" and the CPU's flags show {' or '.join(arch.kvm_flags)}" if arch.kvm_flags else ""
    return Accelerator("kvm", f"{device} can be used{shown}")


def qemu_argv(
    spec: MachineSpec,
    accelerator: str,
    *,
    ports: Mapping[int, int],
    serial: Sequence[str],
    macs: Sequence[str] = (),
    variables: Path | None = None,
) -> list[str]:
    """Return QEMU's command line for `spec`.

    Args:
        spec: The hardware.
        accelerator: "kvm" or "tcg".
        ports: Port in the guest -> port on the host's loopback; 0 lets QEMU choose a free one.
        serial: The options that say where the serial console (and the monitor) goes.
        macs: MAC addresses of the first network cards; QEMU's own are the same in all machines.
        variables: For firmware "efi", a private copy of the firmware's variables.

    Raises:
        UserError: `spec` names a device that QEMU does not emulate.
    """
    arch = spec.arch
    machine, firmware = arch.machine, []
    if spec.firmware == "efi":
        machine += ",pflash0=code,pflash1=vars"
        code = {"node-name": "code", "driver": "file", "filename": str(arch.firmware_code)}
        store = {"node-name": "vars", "driver": "file", "filename": str(variables)}
        firmware = ["-blockdev", json.dumps({**code, "read-only": True})]
        firmware += ["-blockdev", json.dumps(store)]
    argv = [arch.qemu, "-nodefaults", "-no-user-config", "-machine", machine, *firmware]
    if accelerator == "kvm":
        argv += ["-accel", "kvm"]
    else:
        argv += ["-accel", "tcg,thread=multi", "-smbios", SAME_ADDRESSES]
    argv += ["-cpu", arch.cpu(accelerator)]
    argv += ["-smp", str(spec.cpus), "-m", f"{spec.memory_mib}M"]
    # A screen that nobody sees, because tty1 must work too.
    argv += ["-device", arch.display, "-display", "none", *serial]
    for number, model in enumerate(dict.fromkeys(drive.controller for drive in spec.drives)):
        if model in PLAIN_DISKS:
            disk = PLAIN_DISKS[model]
        else:
            disk = f"scsi-hd,bus={model}.0"
            known = SCSI_CONTROLLERS | PLAIN_DISKS
            argv += ["-device", f"{_device(known, 'disk controller', model)},id={model}"]
        for target, drive in enumerate(d for d in spec.drives if d.controller == model):
            node = f"disk{number}_{target}"
            # JSON, not -drive: a comma in a path has no meaning here.
            block = {
                "node-name": node,
                "driver": drive.format,
                "file": {"driver": "file", "filename": str(drive.path)},
                "cache": {"no-flush": True},
            }
            argv += ["-blockdev", json.dumps(block)]
            options = ",bootindex=1" if (number, target) == (0, 0) else ""
            if model == "lsisas1068":
                # A SAS disk's address: Linux's mptsas does not see a disk without one.
                options += f",wwn={SAS_ADDRESS + target:#x}"
            argv += ["-device", f"{disk},drive={node}{options}"]
    for number, model in enumerate(spec.nics):
        net = f"user,id=net{number}"
        if number == 0:
            net += "".join(f",hostfwd=tcp:127.0.0.1:{ports[g]}-:{g}" for g in sorted(ports))
        # Without a boot ROM: no image boots from the network.
        nic = f"{_device(NICS, 'network card', model)},netdev=net{number},romfile="
        if number < len(macs):
            nic += f",mac={macs[number]}"
        argv += ["-netdev", net, "-device", nic]
    return [*argv, *spec.extra]


def efi_variables(spec: MachineSpec, folder: Path) -> Path | None:
    """Put a private copy of the firmware's variables into `folder`; return its path.

    Return None for a BIOS machine.  Raises `UserError`: the firmware is not installed.
    """
    if spec.firmware != "efi":
        return None
    source = spec.arch.firmware_variables
    if not source.exists():
        raise UserError(f"{source} is missing; type: apt-get install {spec.arch.firmware_package}")
    return Path(shutil.copyfile(source, folder / "efi-variables.fd"))


def _device(known: Mapping[str, str], what: str, model: str) -> str:
    if model not in known:
        raise UserError(f"{what} {model!r}: QEMU emulates only {', '.join(known)}")
    return known[model]
