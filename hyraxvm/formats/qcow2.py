"""`.qcow2`: a compressed disk for KVM and Proxmox."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import archives
from hyraxvm.core.errors import UserError
from hyraxvm.formats import disk_images
from hyraxvm.formats.base import Contents, Format, Source
from hyraxvm.vm.qemu import Drive, MachineSpec

# Not zstd, although it saves 2 % and 15 s: builds of QEMU without it (UTM, Homebrew, Harvester,
# everything before 5.1) refuse such a disk.
OPTIONS = "compression_type=zlib,lazy_refcounts=off"
# The two kinds of disk that virt-manager and Proxmox choose for Linux.
CONTROLLERS = {"virtio_blk": "virtio-blk", "virtio_scsi": "virtio"}

# The fields that are checked, so that nothing in them makes QEMU open another file.
_QCOW2: Final = struct.Struct(">4sIQIIQI")  # magic .. crypt_method (QEMU's docs/interop/qcow2.txt)
_FEATURES: Final = 72  # offset of incompatible_features
_COMPRESSION: Final = 1 << 3  # the only incompatible feature that an image may use


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Return nothing: the file is the disk."""
    return {}


def write(source: Source, target: Path, work: Path, log: Path) -> list[Path]:
    """Make the disk; return nothing, because the file has no members."""
    disk_images.convert(source.master, target, "qcow2", OPTIONS, log, compress=True)
    pad(target)
    archives.sync(target)
    return []


def read(artifact: Path, into: Path) -> Contents:
    """Check the disk where it is; return the machines that its users' tools make."""
    inspect(artifact)
    specs = {
        name: MachineSpec(drives=(Drive(kind, artifact.resolve(), "qcow2"),), nics=("virtio",))
        for name, kind in CONTROLLERS.items()
    }
    return Contents(into, specs)


def pad(disk: Path) -> None:
    """Lengthen the file to a whole cluster, by which `inspect` sees a cut in the last one.

    qemu-img pads a compressed disk to a sector of 512 bytes (qcow2_co_pwritev_compressed_part in
    QEMU's block/qcow2.c); if it writes a table last, that is a whole cluster by chance.
    """
    _, _, _, _, bits, _, _ = _QCOW2.unpack_from(disk_images.head(disk, _FEATURES + 8))
    size = disk.stat().st_size
    os.truncate(disk, size + -size % (1 << bits))


def inspect(disk: Path) -> None:
    """Refuse a file that is not a whole qcow2 disk, complete by itself.

    Raises:
        UserError: The reason, in one line.
    """
    head = disk_images.head(disk, _FEATURES + 8)
    magic, version, backing, _, bits, _, encryption = _QCOW2.unpack_from(head)
    if magic != b"QFI\xfb" or version not in (2, 3):
        raise UserError(f"{disk.name}: not a qcow2 disk")
    (features,) = struct.unpack_from(">Q", head, _FEATURES) if version == 3 else (0,)
    if backing or encryption or features & ~_COMPRESSION:
        raise UserError(
            f"{disk.name}: expected: a qcow2 disk without backing file, data file or encryption"
        )
    # `write` pads the file; `qemu-img check` does not notice a cut in the last cluster.
    if disk.stat().st_size % (1 << min(bits, 21)):
        raise UserError(f"{disk.name}: damaged: its size is not a multiple of its cluster size")
    disk_images.inspect(disk, "qcow2")


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
    has_descriptor=False,
    families=("x86", "arm"),
)
