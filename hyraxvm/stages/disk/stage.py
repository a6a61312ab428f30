"""Stage `disk`: root file system + server -> `disk.qcow2`, partitioned but not yet provisioned.

An image with a workshop has that in it, too.

No mount, no loop device, no vfat in the host's kernel: mke2fs fills the root file system from a
directory, mkfs.fat makes the ESP, sfdisk partitions a plain file.

| partition | type | size |
|---|---|---|
| 1 | BIOS boot: GRUB's core image, where the architecture has a BIOS | 1 MiB |
| 2 | EFI system partition | 64 MiB |
| 3 | Linux root of the architecture, the last, so that it can grow | the rest |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hyraxvm.config.arch import Arch
from hyraxvm.config.images import Recipe
from hyraxvm.core import cache, code
from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import PROVISION, ROOT
from hyraxvm.core.process import as_root, output, run

DEADLINE = 600.0  # seconds
MIB = 1024 * 1024
ESP_START, ESP_SIZE = 2, 64  # MiB
ROOT_START = ESP_START + ESP_SIZE  # MiB
ROOT_SPARE = 320  # MiB for what provisioning writes, and logs until the guest grows its root

ROOT_LABEL = "hyrax-root"
ESP_LABEL = "HYRAX-ESP"
# Partition types, from GRUB's manual and the UEFI Specification.
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"

# errors=panic: the machine starts again and repairs the file system; with remount-ro, it would wait
# for a person to do that.
FSTAB = f"""\
LABEL={ROOT_LABEL} / ext4 errors=panic 0 1
LABEL={ESP_LABEL} /boot/efi vfat umask=0077,noauto,x-systemd.automount,x-systemd.idle-timeout=60 0 0
"""


class Disk(BaseModel):
    """The stage's output: the disk, and the kernel and initramfs in it for a direct boot."""

    model_config = ConfigDict(frozen=True)

    qcow2: Path
    kernel: Path
    initrd: Path


def key(recipe: Recipe, rootfs: str, server: str, workshop: str = "", root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs.

    `rootfs`, `server` and `workshop` are those stages' keys; an image without a workshop has none.
    """
    return cache.digest(
        rootfs,
        server,
        *filter(None, [workshop]),
        recipe.arch_name,
        recipe.machine.disk_gib,
        root / "provision" / "build",
        code.digest(root, __name__),
    )


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    rootfs: Path,
    squashfs: Sequence[Path],
    log: Path,
    on_line: Callable[[str], None],
) -> Disk:
    """Return the unprovisioned disk; raise `Failure` if a tool fails.

    `rootfs` is the root file system's tar; the files of `squashfs` go to `/usr/lib/hyrax`.
    """

    def make(work: Path) -> None:
        on_line("unpacking the root file system")
        tree = work / "tree"
        fill_tree(tree, rootfs, squashfs, work, log)
        on_line("making the file systems")
        raw = work / "disk.raw"
        assemble(tree, raw, recipe, work, log)
        cache.remove_tree(tree)
        command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw)]
        run([*command, str(work / "disk.qcow2")], log=log, deadline=DEADLINE)
        for rest in ("disk.raw", "root.img", "esp.img"):
            (work / rest).unlink()

    folder = results.produce("disk", stage_key, make)
    return Disk(
        qcow2=folder / "disk.qcow2", kernel=folder / "vmlinuz", initrd=folder / "initrd.img"
    )


def fill_tree(tree: Path, rootfs: Path, squashfs: Sequence[Path], work: Path, log: Path) -> None:
    """Unpack the root file system into `tree`; add `squashfs` and the provisioning boot's files.

    Also copies the kernel and the initramfs into `work`, as `vmlinuz` and `initrd.img`.
    """
    tree.mkdir()
    fstab, machine_id = work / "fstab", work / "machine-id"
    fstab.write_text(FSTAB)
    # Empty, not absent: systemd then makes an id at each boot until it can keep one, and does not
    # preset every unit as at a first boot (machine-id(5)).
    machine_id.write_text("")
    unpack = ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--xattrs"]
    # The kernel fills /dev itself, and a user namespace does not allow device nodes.
    unpack += ["--exclude=./dev/*"]
    install = ["install", "-o", "0", "-g", "0", "-D", "-m", "0644"]
    copy = ["cp", "-r", "--no-preserve=ownership"]
    for command in (
        [*unpack, "--xattrs-include=*", "--file", str(rootfs), "--directory", str(tree)],
        *([*install, str(path), str(tree / "usr/lib/hyrax" / path.name)] for path in squashfs),
        [*install, str(fstab), str(tree / "etc/fstab")],
        [*install, str(machine_id), str(tree / "etc/machine-id")],
        ["mkdir", "-p", str(tree / "boot/efi")],
        [*copy, f"{PROVISION / 'build'}/.", str(tree)],
        ["sh", "-c", 'cp "$1"/boot/vmlinuz-* "$2"', "sh", str(tree), str(work / "vmlinuz")],
        ["sh", "-c", 'cp "$1"/boot/initrd.img-* "$2"', "sh", str(tree), str(work / "initrd.img")],
        ["chmod", "0644", str(work / "vmlinuz"), str(work / "initrd.img")],
    ):
        run(as_root(command), log=log, deadline=DEADLINE)
    fstab.unlink()
    machine_id.unlink()


def assemble(tree: Path, raw: Path, recipe: Recipe, work: Path, log: Path) -> None:
    """Make the partitioned disk at `raw`, a sparse file, from `tree`; `work` is for the parts."""
    used = int(output(as_root(["du", "-s", "--block-size=1M", str(tree)])).split()[0])
    root_mib = -(-(used + ROOT_SPARE) * 110 // 100)  # ext4's own tables take a few percent
    root, esp = work / "root.img", work / "esp.img"
    mke2fs = [
        *("mke2fs", "-q", "-t", "ext4", "-L", ROOT_LABEL, "-m", "1"),
        # The guest's GRUB can read neither feature.
        *("-O", "^orphan_file,^metadata_csum_seed"),
        *("-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", str(tree)),
        *(str(root), f"{root_mib}M"),
    ]
    run(as_root(mke2fs), log=log, deadline=DEADLINE)
    with esp.open("wb") as stream:
        stream.truncate(ESP_SIZE * MIB)
    # Not mformat: GRUB would take its boot sector for a partition table.
    run(["mkfs.fat", "-F", "32", "-n", ESP_LABEL, str(esp)], log=log, deadline=DEADLINE)
    with raw.open("wb") as stream:
        stream.truncate(recipe.machine.disk_gib * 1024 * MIB)
    table = work / "table"
    table.write_text(partition_table(root_mib, recipe.arch))
    shell = ["sh", "-c", 'sfdisk --quiet "$1" <"$2"', "sh", str(raw), str(table)]
    run(shell, log=log, deadline=DEADLINE)
    table.unlink()
    for image, start in ((esp, ESP_START), (root, ROOT_START)):
        dd = ["dd", f"if={image}", f"of={raw}", "bs=1M", f"seek={start}", "conv=sparse,notrunc"]
        run([*dd, "status=none"], log=log, deadline=DEADLINE)


def partition_table(root_mib: int, arch: Arch) -> str:
    """Return the input of sfdisk(8); the root partition fits its file system and grows later."""
    bios = f"start=1MiB, size=1MiB, type={BIOS_BOOT}, name=bios-boot\n" if arch.bios else ""
    return (
        f"label: gpt\n{bios}"
        f"start={ESP_START}MiB, size={ESP_SIZE}MiB, type={ESP}, name=esp\n"
        f"start={ROOT_START}MiB, size={root_mib}MiB, type={arch.root_partition}, name=root\n"
    )
