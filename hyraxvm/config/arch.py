"""The architectures of virtual machines: one row for each, with all that depends on it.

Adding one is a row here and, in `images.toml`, a table `[base.NAME.on.ARCH]`.
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

    # Debian's name (dpkg --print-architecture), also in images.toml and in files' names.
    name: ArchName
    # GOARCH, which the OCI Image Specification takes for `architecture`.
    oci: str
    # The kernel's name, as uname -m shows it.
    kernel: str
    # What templates ask where their text depends on the family of processors.
    family: Literal["x86", "arm"]
    # For people: "the machine is for ...".
    processors: str
    qemu: str
    qemu_package: str
    machine: str
    # UEFI for the machine: the code, and variables of which each machine has its own copy.
    firmware_code: Path
    firmware_variables: Path
    firmware_package: str
    # A display that shows a console with what the kernel has built in.
    display: str
    # The CPU under TCG, and the flags of /proc/cpuinfo of which one shows that the host's CPU can
    # run guests; none where the kernel shows no such flag.
    tcg_cpu: str
    kvm_flags: tuple[str, ...]
    console: str
    # The type of the root partition (UAPI group, Discoverable Partitions Specification).
    root_partition: str
    # Targets of grub-install; the first is empty where there is no BIOS.
    grub_bios: str
    grub_efi: str
    # Tags of the wheels that pip may take, the newest C library first (PEP 600, PEP 599).
    wheels: tuple[str, ...]

    @property
    def bios(self) -> bool:
        """Whether its machines can have a BIOS; all can have UEFI."""
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
    # QEMU's default is older. As one of AMD's: with Intel's the kernel keeps its page tables apart
    # (Meltdown), and each system call empties the emulator's TLB, which makes a boot half as long
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
    # The default, GICv2, is for 8 CPUs at most, and many hosts' KVM has GICv3 only.
    machine="virt,gic-version=max",
    firmware_code=Path("/usr/share/AAVMF/AAVMF_CODE.fd"),
    firmware_variables=Path("/usr/share/AAVMF/AAVMF_VARS.fd"),
    firmware_package="qemu-efi-aarch64",
    # The firmware draws on it without a driver, and so does the kernel (efifb): images have no
    # drivers of graphics cards. Of virtio-gpu the firmware makes no such frame buffer.
    display="ramfb",
    # Of ARMv8.0-A, which Debian and el9 promise to run on; `max` is many times slower.
    tcg_cpu="cortex-a72",
    kvm_flags=(),
    console="ttyAMA0",
    root_partition="B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
    grub_bios="",
    grub_efi="arm64-efi",
    wheels=("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
)

ARCHES: Final = MappingProxyType({arch.name: arch for arch in (AMD64, ARM64)})
# That of a file that does not say which it is for.
DEFAULT: Final = AMD64
