"""`-hyperv.zip`: a VHDX for Hyper-V, and a PowerShell script that makes a machine with it.

Hyper-V refuses a VHDX whose file is sparse, so it must be small when dense: dynamic, with blocks
of 1 MiB, which is also what Microsoft advises for Linux guests.
"""

from __future__ import annotations

from pathlib import Path

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import archives
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.formats import disk_images, readme
from hyraxvm.formats.base import Contents, Format, Source
from hyraxvm.vm.qemu import Drive, MachineSpec

SCRIPT = TEMPLATES / "create-vm.ps1.j2"
# With block_state_zero=on qemu-img can leave out blocks of zeros safely.
OPTIONS = "subformat=dynamic,block_size=1M,block_state_zero=on"


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Return the script and the READMEs."""
    script = render(SCRIPT, name=name, machine=recipe.machine)
    return {
        "create-vm.ps1": script.replace("\n", "\r\n"),
        **readme.texts("hyperv", recipe, name, image),
    }


def write(source: Source, target: Path, work: Path, log: Path) -> list[Path]:
    """Make the zip; return its members."""
    disk = work / f"{source.name}.vhdx"
    disk_images.convert(source.master, disk, "vhdx", OPTIONS, log)
    if disk_images.size(disk, "vhdx") % disk_images.MIB:
        raise Failure(f"{disk.name}: the disk's size is not a multiple of 1 MiB")
    members = [disk]
    for file, text in sorted(texts(source.recipe, source.name, source.image).items()):
        members.append(work / file)
        members[-1].write_bytes(text.encode())
    archives.pack_zip(target, source.name, members, source.release["BUILD_DATE"])
    return members


def read(artifact: Path, into: Path) -> Contents:
    """Unpack, and return the machines of QEMU that are nearest to Hyper-V's two generations.

    QEMU emulates neither VMBus nor its disks and network cards.  In their place the generation 2
    machine has UEFI and virtio; the generation 1 machine has a BIOS, an IDE disk and a virtio
    network card.
    """
    folder = archives.unpack_zip(artifact, into)
    found = list(folder.glob("*.vhdx"))
    if len(found) != 1:
        raise UserError(f"{artifact}: {len(found)} VHDX files; expected: one")
    inspect(found[0])

    def machine(controller: str, firmware: str) -> MachineSpec:
        drive = Drive(controller, found[0], "vhdx")
        return MachineSpec(drives=(drive,), nics=("virtio",), firmware=firmware)

    specs = {"generation2": machine("virtio", "efi"), "generation1": machine("ide", "bios")}
    return Contents(folder, specs)


def inspect(disk: Path) -> None:
    """Refuse a file that is not a whole VHDX disk.

    Raises:
        UserError: The reason, in one line.
    """
    if disk_images.head(disk, 8) != b"vhdxfile":
        raise UserError(f"{disk.name}: not a VHDX disk")
    # MS-VHDX: every structure begins, and the file ends, at a multiple of 1 MiB.
    if disk.stat().st_size % disk_images.MIB:
        raise UserError(f"{disk.name}: damaged: its size is not a multiple of 1 MiB")
    disk_images.inspect(disk, "vhdx")


FORMAT = Format(
    name="hyperv",
    suffix="-hyperv.zip",
    title="Hyper-V",
    texts=texts,
    write=write,
    read=read,
    module=__name__,
    templates=(SCRIPT, *readme.SOURCES),
    machines=("generation2", "generation1"),
    has_descriptor=False,
)
