"""The VMX file: VMware's descriptor of a virtual machine, written and read.

The format is the one that VMware's products write and libvirt's `src/vmx/vmx.c` reads.  Each line
is `key = "value"`.  Keys are compared without case.  In a value, `"`, `|` and control characters
are written as `|` and two hexadecimal digits.  Lines end with LF: VMware writes that on Linux,
macOS and ESXi, all its products read it, and the same input gives the same bytes on every host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import TEMPLATES
from hyraxvm.core.templates import render

TEMPLATE: Final = TEMPLATES / "image.vmx.j2"
SCSI: Final = ("pvscsi", "lsisas1068")
NVME: Final = "nvme"
CONTROLLERS: Final = (*SCSI, NVME)
NIC_MODELS: Final = ("vmxnet3", "e1000e", "e1000")
CONNECTIONS: Final = ("nat", "bridged", "hostonly")
FIRMWARES: Final = ("bios", "efi")
# VMware's own files have some hundred lines; an artifact's descriptor is not longer.
MAX_BYTES: Final = 64 * 1024
MAX_MEMORY_MIB: Final = 1024 * 1024
MAX_CPUS: Final = 128
MAX_DISKS: Final = 15
MAX_NICS: Final = 10

_LINE: Final = re.compile(r'(?P<key>\.?[A-Za-z][\w.:-]*)\s*=\s*"(?P<value>[^"]*)"')
# No separators, drive letters, leading dots or dashes: a name in the folder of the VMX.
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~ -]{0,199}")


@dataclass(frozen=True)
class Nic:
    """One network card: its `model` (of `NIC_MODELS`) and `connection` (of `CONNECTIONS`)."""

    model: str = "vmxnet3"
    connection: str = "nat"


@dataclass(frozen=True)
class VmxDisk:
    """One hard disk: the model of its `controller` (of `CONTROLLERS`) and its `file` name."""

    controller: str
    file: str


@dataclass(frozen=True)
class VmxSpec:
    """What a VMX is rendered from: memory in MiB, disks as file names in their order.

    Disks and NVRAM are in the folder of the VMX.

    Raises:
        UserError: A field has a value that an artifact's descriptor may not have.
    """

    display_name: str
    disks: tuple[str, ...]
    nvram: str
    guest_os: str
    memory_mib: int = 1024
    cpus: int = 2
    firmware: str = "bios"
    controller: str = "pvscsi"
    nics: tuple[Nic, ...] = (Nic(),)

    def __post_init__(self) -> None:
        """Check the fields before a file is written."""
        where = "VMX"
        if not self.display_name.strip() or re.search(r"[\ud800-\udfff]", self.display_name):
            shown = _shown(self.display_name)
            raise UserError(f"{where}: displayName = {shown}: expected: text that is not blank")
        _number(where, "memsize", str(self.memory_mib), 4, MAX_MEMORY_MIB, 4)
        _number(where, "numvcpus", str(self.cpus), 1, MAX_CPUS, 1)
        _one_of(where, "firmware", self.firmware, FIRMWARES)
        _one_of(where, "scsi0.virtualDev", self.controller, CONTROLLERS)
        _count(where, "disks", len(self.disks), MAX_DISKS)
        _count(where, "network cards", len(self.nics), MAX_NICS)
        for file in (*self.disks, self.nvram):
            _file_name(where, "fileName", file)
        for nic in self.nics:
            _one_of(where, "ethernet.virtualDev", nic.model, NIC_MODELS)
            _one_of(where, "ethernet.connectionType", nic.connection, CONNECTIONS)

    @property
    def arm(self) -> bool:
        """Whether the guest is for ARM, as its name shows."""
        return self.guest_os.startswith("arm-")


@dataclass(frozen=True)
class Vmx:
    """What a VMX declares: memory in MiB; `raw` is key, in lower case -> plain value."""

    display_name: str
    guest_os: str
    firmware: str
    memory_mib: int
    cpus: int
    disks: tuple[VmxDisk, ...]
    nics: tuple[Nic, ...]
    raw: Mapping[str, str]


def render_vmx(spec: VmxSpec) -> str:
    """Return the text of the VMX file of `spec`: UTF-8, LF, no byte order mark."""
    return render(TEMPLATE, spec=spec)


def parse_vmx(text: str, where: str = "VMX") -> Vmx:
    """Read a VMX file's text, trusting nothing in it; `where` names the file in errors.

    Raises:
        UserError: One line with the file, the key, the offending value and what is expected.
    """
    raw = _read_keys(text, where)
    disks = tuple(
        VmxDisk(
            _controller(raw, where, bus),
            _file_name(where, f"{key}.fileName", _get(raw, where, f"{key}.fileName")),
        )
        for bus, key in _present_disks(raw, where)
    )
    nics = tuple(_nic(raw, where, key) for key in _present(raw, r"ethernet\d+"))
    _count(where, "disks", len(disks), MAX_DISKS)
    _count(where, "network cards", len(nics), MAX_NICS)
    return Vmx(
        display_name=_get(raw, where, "displayName"),
        guest_os=_get(raw, where, "guestOS"),
        firmware=_one_of(where, "firmware", raw.get("firmware", "bios"), FIRMWARES),
        memory_mib=_number(where, "memsize", _get(raw, where, "memsize"), 4, MAX_MEMORY_MIB, 4),
        cpus=_number(where, "numvcpus", raw.get("numvcpus", "1"), 1, MAX_CPUS, 1),
        disks=disks,
        nics=nics,
        raw=MappingProxyType(raw),
    )


def read_vmx(path: Path) -> Vmx:
    """Read the VMX file at `path`; raises `UserError` as `parse_vmx` does."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        return parse_vmx(data.decode("utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: byte {error.start}: not UTF-8; save it as UTF-8") from None


def _unquote(value: str) -> str:
    """Undo `hyraxvm.core.templates.vmx_value`, without the quotes."""
    # Byte by byte: an escape may be one byte of a longer UTF-8 character.
    data = re.sub(
        rb"\|([0-9A-Fa-f]{2})",
        lambda match: bytes([int(match.group(1), 16)]),
        value.encode("utf-8", "surrogatepass"),
    )
    return data.decode("utf-8", "replace")


def _read_keys(text: str, where: str) -> dict[str, str]:
    """Return key, in lower case -> plain value."""
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: too long; expected: at most {MAX_BYTES} bytes")
    if text.startswith("\ufeff"):
        raise UserError(f"{where}: starts with a byte order mark; save it as UTF-8 without one")
    raw: dict[str, str] = {}
    for number, line in enumerate(re.split(r"\r?\n", text), 1):
        stripped = line.strip(" \t")
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if not match:
            raise UserError(f'{where}: line {number}: {_shown(line)}: expected: key = "value"')
        key = match["key"].lower()
        if key in raw:
            raise UserError(
                f"{where}: line {number}: {match['key']} = {_shown(_unquote(match['value']))}: "
                f"the key occurs twice; keep one of the lines"
            )
        raw[key] = _unquote(match["value"])
    return raw


def _present(raw: Mapping[str, str], device: str) -> list[str]:
    """Return the devices that match the pattern `device` and are present, in numeric order."""
    found = [
        match[1]
        for key, value in raw.items()
        if (match := re.fullmatch(rf"({device})\.present", key)) and value.lower() == "true"
    ]
    return sorted(found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def _present_disks(raw: Mapping[str, str], where: str) -> list[tuple[str, str]]:
    """Return the controller's key and the disk's key of each disk that is present."""
    for key in _present(raw, r"(?:ide|sata)\d+:\d+"):
        raise UserError(
            f"{where}: {key}.present = 'TRUE': expected: only SCSI or NVMe disks (scsi0:0)"
        )
    disks = []
    for key in _present(raw, r"(?:scsi|nvme)\d+:\d+"):
        bus = key.partition(":")[0]
        if raw.get(f"{bus}.present", "").lower() != "true":
            raise UserError(
                f"{where}: {key} is present without its controller; "
                f'add the line {bus}.present = "TRUE"'
            )
        # A device without a type is a disk; an image has no "cdrom-image" or the like.
        kind = raw.get(f"{key}.devicetype", "scsi-harddisk")
        _one_of(where, f"{key}.deviceType", kind, ("scsi-harddisk", "disk"))
        disks.append((bus, key))
    return disks


def _controller(raw: Mapping[str, str], where: str, bus: str) -> str:
    if bus.startswith(NVME):
        return NVME
    return _one_of(where, f"{bus}.virtualDev", _get(raw, where, f"{bus}.virtualDev"), SCSI)


def _nic(raw: Mapping[str, str], where: str, key: str) -> Nic:
    return Nic(
        _one_of(where, f"{key}.virtualDev", _get(raw, where, f"{key}.virtualDev"), NIC_MODELS),
        # Without the key VMware uses a bridged card.
        _one_of(
            where, f"{key}.connectionType", raw.get(f"{key}.connectiontype", "bridged"), CONNECTIONS
        ),
    )


def _get(raw: Mapping[str, str], where: str, key: str) -> str:
    try:
        return raw[key.lower()]
    except KeyError:
        raise UserError(f"{where}: {key} is missing; add the line {key} = ...") from None


def _one_of(where: str, key: str, value: str, known: tuple[str, ...]) -> str:
    if value.lower() not in known:
        raise UserError(f"{where}: {key} = {_shown(value)}: expected: {', '.join(known)}")
    return value.lower()


def _number(where: str, key: str, value: str, low: int, high: int, step: int) -> int:
    # [0-9]: int() alone would take "1_024" and other scripts' digits.
    number = int(value) if re.fullmatch(r"[0-9]{1,9}", value) else -1
    if not low <= number <= high or number % step:
        multiple = f", a multiple of {step}" if step > 1 else ""
        raise UserError(f"{where}: {key} = {_shown(value)}: expected: {low} to {high}{multiple}")
    return number


def _count(where: str, what: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise UserError(f"{where}: {count} {what}; expected: 1 to {most}")


def _file_name(where: str, key: str, value: str) -> str:
    if not _FILE_NAME.fullmatch(value) or value.endswith((" ", ".")):
        raise UserError(
            f"{where}: {key} = {_shown(value)}: expected: the plain name of a file in the same "
            f"folder (letters, digits, space and . _ + ~ -)"
        )
    return value


def _shown(value: str) -> str:
    """Quote a hostile value for a one-line message: printable and not long."""
    return repr(value if len(value) <= 60 else value[:57] + "...")
