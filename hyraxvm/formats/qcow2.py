"""`.qcow2`: a compressed disk for KVM and Proxmox."""

from __future__ import annotations

from pathlib import Path

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import archives
from hyraxvm.formats import disk_images
from hyraxvm.formats.base import Contents, Format, Source
from hyraxvm.vm.qemu import Drive, MachineSpec

# Not zstd, although it saves 2 % and 15 s: builds of QEMU without it (UTM, Homebrew, Harvester,
# everything before 5.1) refuse such a disk.
OPTIONS = "compression_type=zlib,lazy_refcounts=off"
# The two kinds of disk that virt-manager and Proxmox choose for Linux.
CONTROLLERS = {"virtio_blk": "virtio-blk", "virtio_scsi": "virtio"}


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Nothing: the file is the disk."""
    return {}


def write(source: Source, target: Path, work: Path, log: Path) -> list[Path]:
    """Make the disk; nothing is packed into it."""
    disk_images.convert(source.master, target, "qcow2", OPTIONS, log, compress=True)
    archives.sync(target)
    return []


def read(artifact: Path, into: Path) -> Contents:
    """Inspect the disk where it lies; its machines are those that its users' tools make."""
    disk_images.inspect(artifact, "qcow2")
    specs = {
        name: MachineSpec(drives=(Drive(kind, artifact.resolve(), "qcow2"),), nics=("virtio",))
        for name, kind in CONTROLLERS.items()
    }
    return Contents(into, specs)


FORMAT = Format(
    name="qcow2",
    suffix=".qcow2",
    title="KVM, virt-manager, Proxmox",
    texts=texts,
    write=write,
    read=read,
    module=__name__,
    templates=(),
    machines=(*CONTROLLERS,),
    declares=False,
)
