"""The OVA: checked against the rules of DMTF DSP0243 1.1, and read by other programs."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from hyraxvm.config.bases import GuestOs
from hyraxvm.core.archives import seconds
from hyraxvm.formats import disk_images, ovf, vmdk
from tests.unit.formats.shelf import Shelf

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VSSD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData}"
VMW = "{http://www.vmware.com/schema/ovf}"

SPEC = ovf.OvfSpec(
    name="hyrax-vm-x",
    title='Data & <sea> "ice"',
    version="1.2.3",
    server="dapdir",
    disk_file="hyrax-vm-x-disk1.vmdk",
    disk_bytes=4096,
    capacity=2**34,
    memory_mib=2048,
    cpus=3,
    firmware="bios",
    controller="lsisas1068",
    nic="e1000",
    guest_os=GuestOs(
        vmx="debian10-64",
        vmw="debian10_64Guest",
        ovf=96,
        description="Debian GNU/Linux (64 bit)",
    ),
)


@pytest.fixture(scope="session")
def inside(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the OVA's members, unpacked by tar(1)."""
    folder = tmp_path_factory.mktemp("ova")
    subprocess.run(["tar", "-xf", str(shelf.path("ova")), "-C", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def envelope(inside: Path) -> ET.Element:
    (descriptor,) = inside.glob("*.ovf")
    return ET.parse(descriptor).getroot()


def attributes(element: ET.Element) -> dict[str, str]:
    return {name.rpartition("}")[2]: value for name, value in element.attrib.items()}


# --- the archive ------------------------------------------------------------------------------


def test_5_3_the_archive_is_plain_ustar_descriptor_first_then_manifest(shelf: Shelf) -> None:
    listed = subprocess.run(
        ["tar", "--format=ustar", "--numeric-owner", "--utc", "-tvf", str(shelf.path("ova"))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    name = shelf.source.name
    assert [line.split()[-1] for line in listed] == [
        f"{name}.ovf",
        f"{name}.mf",
        f"{name}-disk1.vmdk",
    ]
    for line in listed:
        assert re.match(r"-rw-r--r-- 0/0 +\d+ 2026-01-02 03:04 ", line), line
    data = shelf.path("ova").read_bytes()
    with tarfile.open(shelf.path("ova")) as archive:
        for member in archive:
            header = data[member.offset : member.offset + 512]
            assert header[257:265] == b"ustar\x0000"
            assert header[156:157] == b"0"
            assert member.mtime == seconds(shelf.source.release["BUILD_DATE"])
    assert not any(data[-1024:])


def test_5_1_the_manifest_has_the_digest_of_each_other_file(inside: Path) -> None:
    (manifest,) = inside.glob("*.mf")
    sums = re.findall(r"^SHA256\(([^)]+)\)= ([0-9a-f]{64})$", manifest.read_text(), re.MULTILINE)
    assert len(sums) == len(manifest.read_text().splitlines())
    assert {name for name, _ in sums} == {p.name for p in inside.iterdir()} - {manifest.name}
    check = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        input="".join(f"{digest}  {name}\n" for name, digest in sums),
        text=True,
        cwd=inside,
        capture_output=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_the_disk_ends_with_the_end_of_stream_marker(inside: Path, tmp_path: Path) -> None:
    (disk,) = inside.glob("*.vmdk")
    assert disk.read_bytes()[-512:] == bytes(512)
    cut = tmp_path / "cut.vmdk"
    cut.write_bytes(b"x" * 1024)
    vmdk.end_stream(cut)
    assert cut.read_bytes() == b"x" * 1024 + bytes(512)
    vmdk.end_stream(cut)
    assert cut.stat().st_size == 1536


@pytest.mark.parametrize("found", [b"1", b"0123456", b"89abcdef"])
def test_the_content_id_is_not_a_random_one(inside: Path, tmp_path: Path, found: bytes) -> None:
    """qemu-img writes it without leading zeros."""
    (disk,) = inside.glob("*.vmdk")
    whole = disk.read_bytes()
    head, cid, tail = whole.partition(b"\nCID=01234567\n")
    assert cid
    other = tmp_path / "x.vmdk"
    short = 8 - len(found)
    at = tail.index(b"\0")
    # As qemu-img writes it: behind the new text is the rest of the longer one before it.
    pad = b"\0" + tail[at - short + 1 : at] if short else b""
    other.write_bytes(head + b"\nCID=" + found + b"\n" + tail[:at] + pad + tail[at:])
    vmdk.identify(other, "0123456789abcdef")
    assert other.read_bytes() == whole


# --- the descriptor ---------------------------------------------------------------------------


def test_7_1_references_name_each_file_once_with_its_size(
    envelope: ET.Element, inside: Path
) -> None:
    files = [attributes(file) for file in envelope.iter(f"{OVF}File")]
    assert len({file["id"] for file in files}) == len(files)
    sizes = {path.name: path.stat().st_size for path in inside.glob("*.vmdk")}
    assert {file["href"]: int(file["size"]) for file in files} == sizes


def test_9_1_disks_have_their_capacity_in_bytes_and_refer_to_files(
    envelope: ET.Element, inside: Path
) -> None:
    ids = {attributes(file)["id"]: attributes(file)["href"] for file in envelope.iter(f"{OVF}File")}
    (disk,) = [attributes(disk) for disk in envelope.iter(f"{OVF}Disk")]
    assert disk["capacityAllocationUnits"] == "byte"
    assert (
        int(disk["capacity"])
        == disk_images.size(inside / ids[disk["fileRef"]], "vmdk")
        == 4 * 2**30
    )
    assert disk["format"].endswith("vmdk.html#streamOptimized")
    head = (inside / ids[disk["fileRef"]]).read_bytes()[:2048]
    assert b'createType="streamOptimized"' in head
    assert b'ddb.adapterType = "lsilogic"' in head


def items(envelope: ET.Element) -> list[dict[str, str]]:
    return [
        {child.tag.removeprefix(RASD): child.text or "" for child in item}
        for item in envelope.iter(f"{OVF}Item")
    ]


def test_8_1_items_have_unique_ids_and_their_parents_exist(envelope: ET.Element) -> None:
    found = items(envelope)
    ids = [item["InstanceID"] for item in found]
    assert len(set(ids)) == len(ids)
    assert envelope.findtext(f".//{VSSD}InstanceID") not in ids
    parents = {item["InstanceID"]: item for item in found}
    (disk,) = [item for item in found if item["ResourceType"] == "17"]
    assert parents[disk["Parent"]]["ResourceType"] == "6"
    assert all("ElementName" in item for item in found)


def test_8_1_the_hardware_is_the_declared_one(envelope: ET.Element, shelf: Shelf) -> None:
    kinds = {item["ResourceType"]: item for item in items(envelope)}
    machine = shelf.source.recipe.machine
    assert len(kinds) == len(items(envelope)) == 5
    assert kinds["3"]["VirtualQuantity"] == str(machine.cpus)
    assert kinds["4"]["VirtualQuantity"] == str(machine.memory_mib)
    assert kinds["4"]["AllocationUnits"] == "byte * 2^20"
    assert kinds["6"]["ResourceSubType"] == "lsilogicsas"
    assert kinds["10"]["ResourceSubType"] == "E1000"
    assert envelope.findtext(f".//{VSSD}VirtualSystemType") == "vmx-13"
    settings = {c.get(f"{VMW}key"): c.get(f"{VMW}value") for c in envelope.iter(f"{VMW}Config")}
    assert settings["firmware"] == "bios"


def test_vmware_children_of_an_item_are_sorted(envelope: ET.Element) -> None:
    for item in envelope.iter(f"{OVF}Item"):
        tags = [child.tag for child in item]
        assert tags == sorted(tags)
        assert len(set(tags)) == len(tags)


def test_9_1_host_resources_name_disks_that_exist(envelope: ET.Element) -> None:
    known = {f"ovf:/disk/{attributes(disk)['diskId']}" for disk in envelope.iter(f"{OVF}Disk")}
    used = {item["HostResource"] for item in items(envelope) if "HostResource" in item}
    assert used == known


def test_9_2_connections_name_networks_that_exist(envelope: ET.Element) -> None:
    known = {attributes(network)["name"] for network in envelope.iter(f"{OVF}Network")}
    assert {item["Connection"] for item in items(envelope) if "Connection" in item} == known


def test_9_every_section_begins_with_info(envelope: ET.Element) -> None:
    sections = [e for e in envelope.iter() if e.tag.endswith("Section") or e.tag == f"{OVF}Product"]
    assert len(sections) >= 6
    for section in sections:
        if section.tag.endswith("Section"):
            assert section[0].tag == f"{OVF}Info"
            assert section[0].text


def test_7_1_attributes_that_a_reader_may_ignore_say_so(envelope: ET.Element) -> None:
    for config in envelope.iter(f"{VMW}Config"):
        assert config.get(f"{OVF}required") == "false"


def test_9_5_product_and_version_are_there(envelope: ET.Element, shelf: Shelf) -> None:
    (product,) = envelope.iter(f"{OVF}ProductSection")
    assert product.findtext(f"{OVF}Version") == shelf.source.release["VERSION"]
    assert "not Hyrax" in (product.findtext(f"{OVF}Product") or "")


def test_8_1_properties_come_with_a_transport_and_none_without(envelope: ET.Element) -> None:
    hardware = envelope.find(f".//{OVF}VirtualHardwareSection")
    assert hardware is not None
    assert hardware.get(f"{OVF}transport") == "com.vmware.guestInfo"
    secret = {
        e.get(f"{OVF}key") for e in envelope.iter(f"{OVF}Property") if e.get(f"{OVF}password")
    }
    assert secret == {"password_hash", "data_password"}
    none = ET.fromstring(ovf.render_ovf(replace(SPEC, properties=())))
    hardware = none.find(f".//{OVF}VirtualHardwareSection")
    assert hardware is not None
    assert f"{OVF}transport" not in hardware.attrib
    key = ovf.Property("hostname", "Host name", "The machine's name")
    root = ET.fromstring(ovf.render_ovf(replace(SPEC, properties=(key,))))
    (found,) = root.iter(f"{OVF}Property")
    assert attributes(found) == {
        "key": "hostname",
        "type": "string",
        "userConfigurable": "true",
        "value": "",
    }
    assert [(child.tag.removeprefix(OVF), child.text) for child in found] == [
        ("Label", "Host name"),
        ("Description", "The machine's name"),
    ]


# --- round trip and foreign readers -----------------------------------------------------------


def test_what_was_written_is_read_back_and_escaped(tmp_path: Path) -> None:
    text = ovf.render_ovf(SPEC)
    assert text.startswith("<?xml ")
    path = tmp_path / "x.ovf"
    path.write_text(text)
    found = ovf.read_ovf(path)
    assert found == ovf.Ovf(
        name="hyrax-vm-x",
        files={"hyrax-vm-x-disk1.vmdk": 4096},
        disk_file="hyrax-vm-x-disk1.vmdk",
        capacity=2**34,
        controller="lsisas1068",
        nics=("e1000",),
        memory_mib=2048,
        cpus=3,
        firmware="bios",
    )
    product = ET.fromstring(text).findtext(f".//{OVF}Product")
    assert product == 'Data & <sea> "ice"; data server: dapdir'


def v2v(*arguments: str) -> dict[str, str]:
    """Return what virt-v2v reads from a descriptor."""
    done = subprocess.run(
        ["virt-v2v", *arguments, "--print-source"],
        env={**os.environ, "LIBGUESTFS_BACKEND": "direct"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pairs = dict(re.findall(r"^ *([\w ]+): *(\S.*?) *$", done.stdout, re.MULTILINE))
    for part in ("disks", "NICs"):
        listed = re.search(rf"^{part}:\n((?:\t.*\n)*)", done.stdout, re.MULTILINE)
        assert listed
        pairs[part] = "; ".join(line.strip() for line in listed[1].splitlines())
    return pairs


def test_virt_v2v_reads_the_ova(shelf: Shelf) -> None:
    said = v2v("-i", "ova", str(shelf.path("ova")))
    assert said["source name"] == shelf.source.name
    assert said["memory"] == f"{1024 * 2**20} (bytes)"
    assert said["nr vCPUs"] == "2"
    assert said["firmware"] == "bios"
    assert said["disks"] == "0 [scsi]"
    assert said["NICs"] == 'Bridge "VM Network" [e1000]'


def test_virt_v2v_refuses_an_ova_with_a_wrong_digest(shelf: Shelf, tmp_path: Path) -> None:
    """Show that virt-v2v does check the manifest, so that its approval means something."""
    bad = tmp_path / "bad.ova"
    data = bytearray(shelf.path("ova").read_bytes())
    at = data.index(b"SHA256(") + 80
    at = data.index(b"= ", at - 60) + 2
    data[at] = ord("0") if data[at] != ord("0") else ord("1")
    bad.write_bytes(data)
    with pytest.raises(AssertionError, match="does not match manifest"):
        v2v("-i", "ova", str(bad))


def test_virt_v2v_reads_the_vmx(shelf: Shelf, tmp_path: Path) -> None:
    subprocess.run(
        ["python3", "-m", "zipfile", "-e", str(shelf.path("vmx")), str(tmp_path)], check=True
    )
    (path,) = tmp_path.glob("*/*.vmx")
    said = v2v("-i", "vmx", str(path))
    assert said["source name"] == shelf.source.name
    assert said["memory"] == f"{1024 * 2**20} (bytes)"
    assert said["nr vCPUs"] == "2"
    assert said["disks"] == "0 [scsi]"
    assert said["NICs"] == 'Network "ethernet0" [vmxnet3]'
