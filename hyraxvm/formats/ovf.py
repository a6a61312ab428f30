"""The OVF descriptor of a virtual machine (DMTF DSP0243 1.x), written and read.

VMware's readers want more than the standard: the children of each `Item` are in alphabetical
order, sizes are in bytes, and `vmw:` elements that a reader may ignore are marked as such.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from hyraxvm.config.bases import GuestOs
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render
from hyraxvm.formats.vmx import MAX_CPUS, MAX_MEMORY_MIB

TEMPLATE: Final = TEMPLATES / "image.ovf.j2"
STREAM_OPTIMIZED: Final = (
    "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
)
# Resource types of CIM_ResourceAllocationSettingData.
CPU, MEMORY, SCSI, ETHERNET, DISK = "3", "4", "6", "10", "17"
# Name in an OVF, in lower case -> name in a VMX file.
CONTROLLERS: Final = {"lsilogicsas": "lsisas1068", "virtualscsi": "pvscsi"}
NIC_MODELS: Final = ("e1000", "e1000e", "vmxnet3")
# Name in a VMX file -> name in an OVF, as VMware writes it.
OVF_NAMES: Final = {
    "lsisas1068": "lsilogicsas",
    "pvscsi": "VirtualSCSI",
    "e1000": "E1000",
    "e1000e": "E1000e",
    "vmxnet3": "VmxNet3",
}
FIRMWARES: Final = ("bios", "efi")
MAX_BYTES: Final = 256 * 1024

_OVF: Final = "{http://schemas.dmtf.org/ovf/envelope/1}"
_RASD: Final = (
    "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
)
_VMW: Final = "{http://www.vmware.com/schema/ovf}"


@dataclass(frozen=True)
class Property:
    """A setting that a deployment dialog asks for and VMware hands to the guest (guestinfo)."""

    key: str
    label: str
    description: str
    password: bool = False


# What the guest reads at its first boot: provision/guest/usr/lib/hyrax-vm/ovf-settings.
PROPERTIES: Final = (
    Property("hostname", "Host name", "The name of the machine."),
    Property("address", "Fixed address", "As 192.168.1.20/24; empty: DHCP."),
    Property("gateway", "Gateway", "The router's address; only with a fixed address."),
    Property("dns", "Name servers", "Addresses, separated by commas."),
    Property("ssh_key", "SSH key", "A public key that may log in as opendap."),
    Property(
        "password_hash", "Password hash", "Of opendap, from: openssl passwd -6", password=True
    ),
    Property("email", "E-mail address", "The administrator's, shown to the readers of the data."),
)
DATA_PROPERTIES: Final = (
    Property("data_url", "Data", "Where they are: nfs://HOST/EXPORT or smb://HOST/SHARE."),
    Property("data_name", "Name of the data set", "Empty: the last part of the address."),
    Property("data_user", "User of the share", "Only for smb://; as DOMAIN\\USER or USER."),
    Property("data_password", "Password of that user", "Only for smb://.", password=True),
)


@dataclass(frozen=True)
class OvfSpec:
    """What a descriptor is rendered from: memory in MiB; file size and disk capacity in bytes.

    `controller` and `nic` are named as in a VMX file.
    """

    name: str
    title: str
    version: str
    server: str
    disk_file: str
    disk_bytes: int
    capacity: int
    memory_mib: int
    cpus: int
    firmware: str
    controller: str
    nic: str
    guest_os: GuestOs
    properties: tuple[Property, ...] = PROPERTIES + DATA_PROPERTIES

    @property
    def items(self) -> list[dict[str, object]]:
        """The virtual hardware, each item with local names of CIM_ResourceAllocationSettingData."""
        return [
            {
                "AllocationUnits": "hertz * 10^6",
                "Description": "Number of virtual CPUs",
                "ElementName": f"{self.cpus} virtual CPUs",
                "InstanceID": 1,
                "ResourceType": CPU,
                "VirtualQuantity": self.cpus,
            },
            {
                "AllocationUnits": "byte * 2^20",
                "Description": "Memory size",
                "ElementName": f"{self.memory_mib} MB of memory",
                "InstanceID": 2,
                "ResourceType": MEMORY,
                "VirtualQuantity": self.memory_mib,
            },
            {
                "Address": 0,
                "Description": "SCSI controller",
                "ElementName": "SCSI controller 0",
                "InstanceID": 3,
                "ResourceSubType": OVF_NAMES[self.controller],
                "ResourceType": SCSI,
            },
            {
                "AddressOnParent": 0,
                "ElementName": "Hard disk 1",
                "HostResource": "ovf:/disk/vmdisk1",
                "InstanceID": 4,
                "Parent": 3,
                "ResourceType": DISK,
            },
            {
                "AddressOnParent": 7,
                "AutomaticAllocation": "true",
                "Connection": "VM Network",
                "Description": f"{OVF_NAMES[self.nic]} network card",
                "ElementName": "Ethernet 1",
                "InstanceID": 5,
                "ResourceSubType": OVF_NAMES[self.nic],
                "ResourceType": ETHERNET,
            },
        ]


@dataclass(frozen=True)
class Ovf:
    """What a descriptor declares: memory in MiB, the disk's capacity in bytes.

    `files` maps each file that it refers to to its size in bytes.  `controller` and `nics` are
    named as in a VMX file.
    """

    name: str
    files: dict[str, int]
    disk_file: str
    capacity: int
    controller: str
    nics: tuple[str, ...]
    memory_mib: int
    cpus: int
    firmware: str


def render_ovf(spec: OvfSpec) -> str:
    """Return the text of the descriptor: UTF-8, LF."""
    return render(TEMPLATE, spec=spec, format=STREAM_OPTIMIZED)


def read_ovf(path: Path) -> Ovf:
    """Read the descriptor at `path`, trusting nothing in it.

    Raises:
        UserError: One line with the file, what is wrong and what is expected.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path.name}: too long; expected: at most {MAX_BYTES} bytes")
    try:
        # Only UTF-8, whatever encoding the document declares.
        # `_Builder` refuses a document type, and with it every entity.
        root = ET.fromstring(data.decode("utf-8"), ET.XMLParser(target=_Builder()))  # noqa: S314
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: byte {error.start}: not UTF-8") from None
    except (ET.ParseError, ValueError) as error:
        raise UserError(f"{path.name}: not well-formed XML: {error}") from None
    return _Reader(path.name, root).read()


class _Builder(ET.TreeBuilder):
    """Builds the tree of a document; refuses a document type, which can declare entities."""

    def doctype(self, name: str, public: str | None, system: str | None) -> NoReturn:
        raise ValueError("a document type is not allowed")


class _Reader:
    """The steps of `read_ovf`; `where` names the file in errors."""

    def __init__(self, where: str, root: ET.Element) -> None:
        self.where = where
        self.root = root

    def read(self) -> Ovf:
        if self.root.tag != f"{_OVF}Envelope":
            raise self.wrong("root element", self.root.tag, "Envelope of OVF 1.x")
        system = self.one(self.root, "VirtualSystem")
        hardware = self.one(system, "VirtualHardwareSection")
        items = hardware.findall(f"{_OVF}Item")
        ids = [self.text(item, "InstanceID") for item in items]
        if len(set(ids)) != len(ids):
            raise self.wrong("InstanceID", ", ".join(ids), "each once")
        disk_item = self.only(items, DISK)
        file, capacity = self.disk(self.text(disk_item, "HostResource"))
        parent = self.text(disk_item, "Parent")
        scsi = self.only(items, SCSI)
        if self.text(scsi, "InstanceID") != parent:
            raise self.wrong("Parent of the disk", parent, "the SCSI controller's InstanceID")
        memory = self.only(items, MEMORY)
        if self.text(memory, "AllocationUnits") != "byte * 2^20":
            units = self.text(memory, "AllocationUnits")
            raise self.wrong("AllocationUnits of the memory", units, "byte * 2^20")
        cards = [item for item in items if self.text(item, "ResourceType") == ETHERNET]
        return Ovf(
            name=system.get(f"{_OVF}id", ""),
            files={name: size for name, size in self.references().values()},
            disk_file=file,
            capacity=capacity,
            controller=CONTROLLERS[self.one_of(scsi, tuple(CONTROLLERS))],
            nics=tuple(self.one_of(card, NIC_MODELS) for card in cards),
            memory_mib=self.quantity(memory, MAX_MEMORY_MIB),
            cpus=self.quantity(self.only(items, CPU), MAX_CPUS),
            firmware=self.firmware(hardware),
        )

    def references(self) -> dict[str, tuple[str, int]]:
        """Return file id -> name and size in bytes."""
        found = {}
        for file in self.one(self.root, "References").findall(f"{_OVF}File"):
            name = file.get(f"{_OVF}href", "")
            if not re.fullmatch(r"[A-Za-z0-9][\w.+~-]{0,199}", name, re.ASCII):
                raise self.wrong("File href", name, "the plain name of a file in the package")
            size = self.number("File size", file.get(f"{_OVF}size", ""))
            found[file.get(f"{_OVF}id", "")] = (name, size)
        return found

    def disk(self, resource: str) -> tuple[str, int]:
        """Return the file and the capacity (bytes) of the disk that a `HostResource` names."""
        for disk in self.one(self.root, "DiskSection").findall(f"{_OVF}Disk"):
            if resource == f"ovf:/disk/{disk.get(f'{_OVF}diskId')}":
                kind = disk.get(f"{_OVF}format", "")
                if kind != STREAM_OPTIMIZED:
                    raise self.wrong("Disk format", kind, STREAM_OPTIMIZED)
                units = disk.get(f"{_OVF}capacityAllocationUnits", "byte")
                if units != "byte":
                    raise self.wrong("Disk capacityAllocationUnits", units, "byte")
                reference = disk.get(f"{_OVF}fileRef", "")
                if reference not in self.references():
                    raise self.wrong("Disk fileRef", reference, "the id of a File")
                capacity = self.number("Disk capacity", disk.get(f"{_OVF}capacity", ""))
                return self.references()[reference][0], capacity
        raise self.wrong("HostResource", resource, "ovf:/disk/ and the diskId of a Disk")

    def firmware(self, hardware: ET.Element) -> str:
        settings = {
            config.get(f"{_VMW}key"): config.get(f"{_VMW}value", "")
            for config in hardware.findall(f"{_VMW}Config")
        }
        found = settings.get("firmware", "bios")
        if found not in FIRMWARES:
            raise self.wrong("firmware", found, ", ".join(FIRMWARES))
        return found

    def one(self, parent: ET.Element, name: str) -> ET.Element:
        found = parent.findall(f"{_OVF}{name}")
        if len(found) != 1:
            raise self.wrong(f"{name} elements", str(len(found)), "one")
        return found[0]

    def only(self, items: list[ET.Element], kind: str) -> ET.Element:
        found = [item for item in items if self.text(item, "ResourceType") == kind]
        if len(found) != 1:
            raise self.wrong(f"Items with ResourceType {kind}", str(len(found)), "one")
        return found[0]

    def text(self, item: ET.Element, name: str) -> str:
        return (item.findtext(f"{_RASD}{name}") or "").strip()

    def one_of(self, item: ET.Element, allowed: tuple[str, ...]) -> str:
        found = self.text(item, "ResourceSubType")
        if found.lower() not in allowed:
            raise self.wrong("ResourceSubType", found, ", ".join(allowed))
        return found.lower()

    def quantity(self, item: ET.Element, most: int) -> int:
        value = self.number("VirtualQuantity", self.text(item, "VirtualQuantity"))
        if not 1 <= value <= most:
            raise self.wrong("VirtualQuantity", str(value), f"1 to {most}")
        return value

    def number(self, what: str, value: str) -> int:
        # [0-9]: int() alone would take "1_024" and other scripts' digits.
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise self.wrong(what, value, "a whole number")
        return int(value)

    def wrong(self, what: str, value: str, expected: str) -> UserError:
        shown = repr(value if len(value) <= 60 else value[:57] + "...")
        return UserError(f"{self.where}: {what}: {shown}: expected: {expected}")
