"""`.zip`: a VMX and a VMDK for VMware Workstation and Fusion."""

from __future__ import annotations

from pathlib import Path

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import archives
from hyraxvm.core.errors import UserError
from hyraxvm.formats import disk_images, readme, vmdk, vmx
from hyraxvm.formats.base import Contents, Format, Source
from hyraxvm.vm.qemu import Drive, MachineSpec

# VMware's desktop products run it.  Attached to a machine of ESXi it fails: the OVA is for ESXi.
SUBFORMAT = "monolithicSparse"
NAME = "vmx"


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Return the descriptor and the READMEs."""
    devices = recipe.machine.devices[NAME]
    spec = vmx.VmxSpec(
        display_name=name,
        disks=(f"{name}.vmdk",),
        nvram=f"{name}.nvram",
        memory_mib=recipe.machine.memory_mib,
        cpus=recipe.machine.cpus,
        firmware=devices.firmware,
        controller=devices.disk_controller,
        nics=(vmx.Nic(devices.nic),),
        guest_os=recipe.processor.guest_os.vmx,
    )
    return {f"{name}.vmx": vmx.render_vmx(spec), **readme.texts(NAME, recipe, name, image)}


def write(source: Source, target: Path, work: Path, log: Path) -> list[Path]:
    """Make the zip; return its members."""
    disk = work / f"{source.name}.vmdk"
    # Without adapter_type qemu-img writes IDE.
    options = f"subformat={SUBFORMAT},adapter_type=lsilogic"
    disk_images.convert(source.master, disk, "vmdk", options, log)
    vmdk.identify(disk, source.master_key)
    members = [disk]
    for file, text in texts(source.recipe, source.name, source.image).items():
        members.append(work / file)
        members[-1].write_bytes(text.encode())
    members.sort(key=lambda path: (path.suffix != ".vmx", path != disk, path.name))
    archives.pack_zip(target, source.name, members, source.release["BUILD_DATE"])
    return members


def read(artifact: Path, into: Path) -> Contents:
    """Unpack, and return the machine that the VMX declares; raises `UserError` if it is refused."""
    folder = archives.unpack_zip(artifact, into)
    descriptors = list(folder.glob("*.vmx"))
    if len(descriptors) != 1:
        raise UserError(f"{artifact}: {len(descriptors)} VMX files; expected: one")
    declared = vmx.read_vmx(descriptors[0])
    for disk in declared.disks:
        if not (folder / disk.file).is_file():
            raise UserError(f"{artifact}: {disk.file}: the VMX names it, but it is not in the zip")
        vmdk.inspect(folder / disk.file, SUBFORMAT)
    return Contents(folder, {"vmx": machine(declared, folder)})


def machine(declared: vmx.Vmx, folder: Path) -> MachineSpec:
    """Return the machine that a VMX declares; its VMDK files are in `folder`."""
    return MachineSpec(
        drives=tuple(Drive(disk.controller, folder / disk.file, "vmdk") for disk in declared.disks),
        nics=tuple(nic.model for nic in declared.nics),
        memory_mib=declared.memory_mib,
        cpus=declared.cpus,
        firmware=declared.firmware,
    )


FORMAT = Format(
    name=NAME,
    suffix=".zip",
    title="VMware Workstation, Fusion",
    texts=texts,
    write=write,
    read=read,
    module=__name__,
    templates=(vmx.TEMPLATE, *readme.SOURCES),
    machines=("vmx",),
    has_descriptor=True,
    families=("x86", "arm"),
    whole_contract=True,
)
