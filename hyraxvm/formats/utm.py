"""`.utm.zip`: a bundle for UTM on a Mac.

A bundle is a folder that macOS shows as one file: `config.plist`, and the disk in `Data/`.  The
keys are those of configuration version 4, which UTM reads since 4.0; their names and values are
those of `Configuration/*.swift` in UTM's source, where every key without a default is written here.
"""

from __future__ import annotations

import plistlib
import uuid
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import archives
from hyraxvm.core.errors import UserError
from hyraxvm.formats import disk_images, qcow2, readme
from hyraxvm.formats.base import Contents, Format, Source
from hyraxvm.vm.qemu import Drive, MachineSpec

NAME: Final = "utm"
BUNDLE: Final = ".utm"
CONFIG: Final = "config.plist"
VERSION: Final = 4
MAX_BYTES: Final = 64 * 1024
# The same for the same image, as the rest of the file; UTM asks for a new one when it imports.
NAMESPACE: Final = uuid.UUID("5d0b1f26-8f0a-5d7b-9a35-3a1f5a0c7f10")


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return the content of `config.plist`: disk and network card are virtio, the firmware UEFI."""
    identifier = str(uuid.uuid5(NAMESPACE, name)).upper()
    return {
        "Backend": "QEMU",
        "ConfigurationVersion": VERSION,
        "Information": {"Name": name, "UUID": identifier, "IconCustom": False, "Icon": "debian"},
        "System": {
            "Architecture": recipe.arch.kernel,
            "Target": "virt" if recipe.arch.family == "arm" else "q35",
            "CPU": "default",
            "CPUFlagsAdd": [],
            "CPUFlagsRemove": [],
            "CPUCount": recipe.machine.cpus,
            "ForceMulticore": False,
            "MemorySize": recipe.machine.memory_mib,
            "JITCacheSize": 0,
        },
        "QEMU": {
            "DebugLog": False,
            "UEFIBoot": True,
            "RNGDevice": True,
            "BalloonDevice": False,
            "TPMDevice": False,
            "Hypervisor": True,
            "RTCLocalTime": False,
            "PS2Controller": False,
            "AdditionalArguments": [],
        },
        "Input": {"UsbBusSupport": "3.0", "UsbSharing": False, "MaximumUsbShare": 3},
        "Sharing": {
            "DirectoryShareMode": "None",
            "DirectoryShareReadOnly": True,
            "ClipboardSharing": False,
        },
        # Images have no drivers of graphics cards: the kernel draws where the firmware has drawn.
        "Display": [
            {
                "Hardware": "virtio-ramfb" if recipe.arch.family == "arm" else "VGA",
                "DynamicResolution": False,
                "NativeResolution": False,
                "UpscalingFilter": "Nearest",
                "DownscalingFilter": "Linear",
            }
        ],
        "Drive": [
            {
                "Identifier": identifier,
                "ImageName": f"{name}.qcow2",
                "ImageType": "Disk",
                "Interface": "VirtIO",
                "InterfaceVersion": 1,
                "ReadOnly": False,
            }
        ],
        # UTM refuses a card without an address.  Two machines on one network need different ones:
        # this one is of the image, the guide says where UTM makes a random one.
        "Network": [
            {
                "Mode": "Shared",
                "Hardware": "virtio-net-pci",
                "MacAddress": _address(identifier),
                "IsolateFromHost": False,
                "PortForward": [],
            }
        ],
        "Serial": [],
        "Sound": [],
    }


def texts(recipe: Recipe, name: str, image: ServerImage) -> dict[str, str]:
    """Return the bundle's description and the READMEs."""
    plist = plistlib.dumps(config(recipe, name), sort_keys=True).decode()
    return {f"{name}{BUNDLE}/{CONFIG}": plist, **readme.texts(NAME, recipe, name, image)}


def write(source: Source, target: Path, work: Path, log: Path) -> list[Path]:
    """Make the zip; return its members.  The disk is compressed by the zip, not twice."""
    disk = work / f"{source.name}{BUNDLE}" / "Data" / f"{source.name}.qcow2"
    disk.parent.mkdir(parents=True)
    disk_images.convert(source.master, disk, "qcow2", "lazy_refcounts=off", log)
    qcow2.pad(disk)
    members = [disk]
    for file, text in sorted(texts(source.recipe, source.name, source.image).items()):
        members.append(work / file)
        members[-1].write_bytes(text.encode())
    archives.pack_zip(target, source.name, members, source.release["BUILD_DATE"], work)
    return members


class _Part(BaseModel):
    """A part of a plist from elsewhere: what is not listed does not count."""

    model_config = ConfigDict(frozen=True, strict=True)


class _System(_Part):
    CPUCount: int = Field(ge=1, le=128)
    MemorySize: int = Field(ge=64, le=1024 * 1024)


class _Drive(_Part):
    ImageName: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+~-]{0,199}$")
    ImageType: str = Field(pattern=r"^Disk$")
    Interface: str = Field(pattern=r"^VirtIO$")


class _Network(_Part):
    Hardware: str = Field(pattern=r"^virtio-net-pci$")


class _Config(_Part):
    Backend: str = Field(pattern=r"^QEMU$")
    ConfigurationVersion: int = Field(ge=VERSION, le=VERSION)
    System: _System
    Drive: list[_Drive] = Field(min_length=1, max_length=1)
    Network: list[_Network] = Field(min_length=1, max_length=1)


def read(artifact: Path, into: Path) -> Contents:
    """Unpack, and return the machine that the bundle declares; raises `UserError` if refused."""
    folder = archives.unpack_zip(artifact, into)
    bundles = [path for path in folder.glob(f"*{BUNDLE}") if path.is_dir()]
    if len(bundles) != 1:
        raise UserError(f"{artifact}: {len(bundles)} UTM bundles; expected: one")
    declared = _read_config(artifact, bundles[0] / CONFIG)
    disk = bundles[0] / "Data" / declared.Drive[0].ImageName
    if not disk.is_file():
        raise UserError(f"{artifact}: {disk.name}: {CONFIG} names it, but it is not in the zip")
    qcow2.inspect(disk)
    spec = MachineSpec(
        drives=(Drive("virtio-blk", disk, "qcow2"),),
        nics=("virtio",),
        memory_mib=declared.System.MemorySize,
        cpus=declared.System.CPUCount,
        firmware="efi",
    )
    return Contents(folder, {NAME: spec})


def _read_config(artifact: Path, path: Path) -> _Config:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UserError(f"{artifact}: {CONFIG}: too long; expected: at most {MAX_BYTES} bytes")
        return _Config.model_validate(plistlib.loads(data, fmt=plistlib.FMT_XML))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        shown = repr(fault["input"])[:60]
        raise UserError(f"{artifact}: {CONFIG}: {key}: {shown}: {fault['msg'].lower()}") from None
    except OSError as error:
        raise UserError(f"{artifact}: {CONFIG}: cannot be read ({error.strerror})") from None
    except Exception as error:  # plistlib raises what expat, int() and base64 raise
        raise UserError(f"{artifact}: {CONFIG}: is not an XML property list: {error}") from None


def _address(identifier: str) -> str:
    """Return a MAC address that is local and of one card, made from an identifier."""
    octets = uuid.UUID(identifier).bytes[:5]
    return ":".join(["52", *(f"{octet:02X}" for octet in octets)])


FORMAT = Format(
    name=NAME,
    suffix=".utm.zip",
    title="UTM",
    texts=texts,
    write=write,
    read=read,
    module=__name__,
    templates=readme.SOURCES,
    machines=(NAME,),
    has_descriptor=False,
    families=("arm",),
)
