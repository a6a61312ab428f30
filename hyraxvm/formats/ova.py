"""`.ova`: a tar of descriptor, manifest and disk for ESXi, vSphere and VirtualBox (DSP0243)."""

from __future__ import annotations

import re
from pathlib import Path

from hyraxvm import __version__
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import archives, cache
from hyraxvm.core.errors import UserError
from hyraxvm.formats import disk_images, ovf, vmdk
from hyraxvm.formats.base import Contents, Format, Source
from hyraxvm.vm.qemu import Drive, MachineSpec

NAME = "ova"
SUBFORMAT = "streamOptimized"
MAX_MANIFEST = 64 * 1024  # bytes
_LINE = re.compile(r"SHA256\(([^()\s]{1,200})\)= ([0-9a-f]{64})", re.ASCII)


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Return the descriptor, as for a disk file of 0 bytes."""
    spec = _spec(recipe, name, image, __version__, 0)
    return {f"{name}.ovf": ovf.render_ovf(spec)}


def write(source: Source, target: Path, work: Path, log: Path) -> list[Path]:
    """Make the OVA; return its members, in their order."""
    disk = work / f"{source.name}-disk1.vmdk"
    options = f"subformat={SUBFORMAT},adapter_type=lsilogic"
    disk_images.convert(source.master, disk, "vmdk", options, log)
    vmdk.identify(disk, source.master_key)
    vmdk.end_stream(disk)
    spec = _spec(
        source.recipe, source.name, source.image, source.release["VERSION"], disk.stat().st_size
    )
    descriptor, manifest = work / f"{source.name}.ovf", work / f"{source.name}.mf"
    descriptor.write_bytes(ovf.render_ovf(spec).encode())
    lines = [f"SHA256({path.name})= {cache.file_digest(path)}\n" for path in (descriptor, disk)]
    manifest.write_bytes("".join(lines).encode())
    members = [descriptor, manifest, disk]
    archives.pack_tar(target, members, source.release["BUILD_DATE"])
    return members


def read(artifact: Path, into: Path) -> Contents:
    """Unpack, verify the manifest, and return the machine that the descriptor declares."""
    members = archives.unpack_tar(artifact, into)
    kinds = [path.suffix for path in members[:2]]
    if kinds != [".ovf", ".mf"]:
        raise UserError(f"{artifact}: begins with {', '.join(kinds)}; expected: .ovf, .mf")
    descriptor, manifest, *rest = members
    _check_digests(artifact, manifest, [descriptor, *rest])
    declared = ovf.read_ovf(descriptor)
    sizes = {path.name: path.stat().st_size for path in rest}
    if declared.files != sizes:
        raise UserError(
            f"{artifact}: {descriptor.name}: lists other files or sizes than the archive holds"
        )
    disk = into / declared.disk_file
    vmdk.inspect(disk, SUBFORMAT)
    if declared.capacity != disk_images.size(disk, "vmdk"):
        raise UserError(f"{artifact}: {disk.name}: its capacity is not the one in the descriptor")
    spec = MachineSpec(
        drives=(Drive(declared.controller, disk, "vmdk"),),
        nics=declared.nics,
        memory_mib=declared.memory_mib,
        cpus=declared.cpus,
        firmware=declared.firmware,
    )
    return Contents(into, {"ovf": spec})


def _spec(
    recipe: Recipe, name: str, image: ServerImage, version: str, disk_bytes: int
) -> ovf.OvfSpec:
    devices = recipe.machine.devices[NAME]
    return ovf.OvfSpec(
        name=name,
        title=recipe.image.title,
        version=version,
        server=f"{recipe.server.title} {image.version}",
        disk_file=f"{name}-disk1.vmdk",
        disk_bytes=disk_bytes,
        capacity=recipe.machine.disk_gib * 2**30,
        memory_mib=recipe.machine.memory_mib,
        cpus=recipe.machine.cpus,
        firmware=devices.firmware,
        controller=devices.disk_controller,
        nic=devices.nic,
        guest_os=recipe.processor.guest_os,
        properties=ovf.PROPERTIES
        if recipe.image.access == "local"
        else ovf.PROPERTIES + ovf.DATA_PROPERTIES,
    )


def _check_digests(artifact: Path, manifest: Path, files: list[Path]) -> None:
    """Refuse a manifest that does not name exactly these files with their digests."""
    if manifest.stat().st_size > MAX_MANIFEST:
        raise UserError(
            f"{artifact}: {manifest.name}: too long; expected: at most {MAX_MANIFEST} bytes"
        )
    listed: dict[str, str] = {}
    for number, line in enumerate(manifest.read_text("utf-8", "replace").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match or match[1] in listed:
            raise UserError(
                f"{artifact}: {manifest.name}: line {number}: {line[:80]!r}: expected: "
                "SHA256(NAME)= DIGEST, each name once"
            )
        listed[match[1]] = match[2]
    if listed.keys() != {path.name for path in files}:
        raise UserError(f"{artifact}: {manifest.name}: lists other files than the archive holds")
    for path in files:
        if listed[path.name] != cache.file_digest(path):
            raise UserError(
                f"{artifact}: {path.name}: its SHA-256 is not the one in {manifest.name}; "
                "download the file again"
            )


FORMAT = Format(
    name=NAME,
    suffix=".ova",
    title="ESXi, vSphere, VirtualBox",
    texts=texts,
    write=write,
    read=read,
    module=__name__,
    templates=(ovf.TEMPLATE,),
    machines=("ovf",),
    has_descriptor=True,
)
