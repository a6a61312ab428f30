"""The architectures of virtual machines: one row for each, with all that depends on it.

To add one, add a row here and a table `[base.NAME.on.ARCH]` in `images.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

ArchName = Literal["amd64", "arm64"]


@dataclass(frozen=True)
class Arch:
    """One architecture: its names, the machine that QEMU emulates for it, and its boot loaders."""

    # Debian's name (dpkg --print-architecture), which images.toml and files' names use too.
    name: ArchName
    # The OCI Image Specification's name (`architecture`), which is GOARCH.
    oci: str
    # The kernel's name, as uname -m shows it.
    kernel: str
    # The family of processors, for templates whose text depends on it.
    family: Literal["x86", "arm"]
    # For people: "the machine is for ...".
    processors: str
    qemu: str
    qemu_package: str
    machine: str
    # UEFI for the machine: its code, and its variables, of which each machine gets its own copy.
    firmware_code: Path
    firmware_variables: Path
    firmware_package: str
    # A display that the drivers built into the kernel can show a console on.
    display: str
    # The CPU under TCG.
    tcg_cpu: str
    # The flags of /proc/cpuinfo: one of them shows that the host's CPU can run guests.  Empty where
    # the kernel shows no such flag.
    kvm_flags: tuple[str, ...]
    # The serial console.
    console: str
    # The type of the root partition (UAPI group, Discoverable Partitions Specification).
    root_partition: str
    # Targets of grub-install; `grub_bios` is empty where there is no BIOS.
    grub_bios: str
    grub_efi: str
    # Tags of the wheels that pip may install, the newest C library first (PEP 600, PEP 599).
    wheels: tuple[str, ...]

    @property
    def bios(self) -> bool:
        """Whether machines of this architecture can have a BIOS; all can have UEFI."""
        return bool(self.grub_bios)

    def cpu(self, accelerator: str) -> str:
        """Return the model of the processor for QEMU's accelerator "kvm" or "tcg"."""
        return "host" if accelerator == "kvm" else self.tcg_cpu


AMD64: Final = Arch(
    name="amd64",
    oci="amd64",
    kernel="x86_64",
    family="x86",
    processors="Intel and AMD processors",
    qemu="qemu-system-x86_64",
    qemu_package="qemu-system-x86",
    machine="pc",
    firmware_code=Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    firmware_variables=Path("/usr/share/OVMF/OVMF_VARS_4M.fd"),
    firmware_package="ovmf",
    display="VGA",
    # The oldest CPU (x86-64-v2) that the bases and Hyrax's own image (el9) promise to run on:
    # QEMU's default is older.  The vendor is AMD: on Intel's the kernel isolates its page tables
    # (Meltdown), and each system call empties the emulator's TLB, so that a boot takes half as long
    # again.
    tcg_cpu="Nehalem,vendor=AuthenticAMD",
    kvm_flags=("vmx", "svm"),
    console="ttyS0",
    root_partition="4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    grub_bios="i386-pc",
    grub_efi="x86_64-efi",
    wheels=("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"),
)

ARM64: Final = Arch(
    name="arm64",
    oci="arm64",
    kernel="aarch64",
    family="arm",
    processors="64-bit ARM processors",
    qemu="qemu-system-aarch64",
    qemu_package="qemu-system-arm",
    # The default, GICv2, allows 8 CPUs at most, and KVM on many hosts has GICv3 only.
    machine="virt,gic-version=max",
    firmware_code=Path("/usr/share/AAVMF/AAVMF_CODE.fd"),
    firmware_variables=Path("/usr/share/AAVMF/AAVMF_VARS.fd"),
    firmware_package="qemu-efi-aarch64",
    # The firmware and the kernel (efifb) draw on it without a driver: images have no drivers of
    # graphics cards.  With virtio-gpu the firmware provides no such frame buffer.
    display="ramfb",
    # A CPU of ARMv8.0-A, which Debian and el9 promise to run on; `max` is many times slower.
    tcg_cpu="cortex-a72",
    kvm_flags=(),
    console="ttyAMA0",
    root_partition="B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
    grub_bios="",
    grub_efi="arm64-efi",
    wheels=("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
)

ARCHES: Final = MappingProxyType({arch.name: arch for arch in (AMD64, ARM64)})
# The architecture of a file that does not say which one it is for.
DEFAULT: Final = AMD64
