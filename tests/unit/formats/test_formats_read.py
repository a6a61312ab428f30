"""Reading what nobody vouches for: every kind of harm is refused in one line with its reason."""

from __future__ import annotations

import hashlib
import io
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import Shelf

from hyraxvm import disks, ovf
from hyraxvm.errors import UserError
from hyraxvm.formats import FORMATS, choose, format_of, image_name
from hyraxvm.qemu import Drive
from hyraxvm.unpack import open_artifact


def refused(path: Path, into: Path) -> str:
    into.mkdir(exist_ok=True)
    with pytest.raises(UserError) as caught:
        open_artifact(path, into)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    return message


# --- what is right ----------------------------------------------------------------------------


def test_each_format_opens_as_the_machines_that_it_is_for(shelf: Shelf, tmp_path: Path) -> None:
    found = {}
    for name in FORMATS:
        (tmp_path / name).mkdir()
        opened = open_artifact(shelf.path(name), tmp_path / name)
        assert opened.format.name == name
        for kind, spec in opened.specs.items():
            assert (spec.memory_mb, spec.cpus) == (1024, 2)
            (drive,) = spec.drives
            assert disks.size(drive.path, drive.format) == 4 * 2**30
            found[name, kind] = (spec.firmware, drive.controller, drive.format, spec.nics)
    assert found == {
        ("vmx", "vmx"): ("bios", "pvscsi", "vmdk", ("vmxnet3",)),
        ("ova", "ovf"): ("bios", "lsisas1068", "vmdk", ("e1000",)),
        ("qcow2", "virtio_blk"): ("bios", "virtio-blk", "qcow2", ("virtio",)),
        ("qcow2", "virtio_scsi"): ("bios", "virtio", "qcow2", ("virtio",)),
        ("hyperv", "generation2"): ("efi", "virtio", "vhdx", ("virtio",)),
        ("hyperv", "generation1"): ("bios", "ide", "vhdx", ("virtio",)),
    }


def test_memory_and_cpus_come_from_the_manifest_where_the_file_has_none(own: Shelf) -> None:
    manifest = own.folder / f"{own.source.name}.manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"memory_mib": 1024', '"memory_mib": 2048'))
    opened = open_artifact(own.path("qcow2"), own.folder)
    assert {spec.memory_mb for spec in opened.specs.values()} == {2048}
    manifest.write_text("{}")
    assert "is no manifest" in refused(own.path("qcow2"), own.folder / "x")


def test_the_vhdx_is_dense_safe_and_aligned(shelf: Shelf, tmp_path: Path) -> None:
    opened = open_artifact(shelf.path("hyperv"), tmp_path)
    (disk,) = {spec.drives[0].path for spec in opened.specs.values()}
    # Dynamic: far smaller than the disk in it, also where every byte is written.
    assert disk.stat().st_size < 64 * 2**20
    assert disk.stat().st_size % 2**20 == 0
    assert disks.size(disk, "vhdx") % 2**20 == 0
    (script,) = opened.folder.glob("*.ps1")
    text = script.read_bytes()
    assert text.isascii()
    assert text.count(b"\r\n") == text.count(b"\n")
    for wanted in (b"-Generation $Generation", b"MicrosoftUEFICertificateAuthority"):
        assert wanted in text
    assert f"'{disk.name}'".encode() in text


def test_names_tell_the_format() -> None:
    assert format_of(Path("a-amd64.zip")).name == "vmx"
    assert format_of(Path("a-amd64-hyperv.zip")).name == "hyperv"
    assert image_name(Path("d/a-amd64-hyperv.zip")) == "a-amd64"
    with pytest.raises(UserError, match=r"a\.iso: is no artifact; their names end with \.zip"):
        format_of(Path("a.iso"))
    assert [chosen.name for chosen in choose([])] == list(FORMATS)
    assert [chosen.name for chosen in choose(["hyperv", "ova", "ova"])] == ["ova", "hyperv"]
    with pytest.raises(UserError, match="there is no format 'iso'; there are: vmx, ova"):
        choose(["iso"])


# --- any format -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file(shelf: Shelf, tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / shelf.path(name).name
    data = shelf.path(name).read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, tmp_path / "into")


@pytest.mark.parametrize("name", ["vmx", "ova", "hyperv"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_changed_byte(shelf: Shelf, tmp_path: Path, name: str, place: float) -> None:
    path = tmp_path / shelf.path(name).name
    data = bytearray(shelf.path(name).read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    said = refused(path, tmp_path / "into")
    assert "damaged" in said or "SHA-256" in said


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=25)
@given(data=st.binary(max_size=2000))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / f"x{FORMATS[name].suffix}"
    path.write_bytes(data)
    refused(path, folder / "into")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "x.ova", tmp_path)


# --- zip --------------------------------------------------------------------------------------


def zipped(path: Path, *members: tuple[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["top/../../evil"], "'top/../../evil': allowed are FOLDER/FILE only"),
        (["../evil"], "'../evil': allowed are FOLDER/FILE only"),
        (["/etc/passwd"], "'/etc/passwd': allowed are"),
        (["top\\..\\evil"], "allowed are FOLDER/FILE only"),
        (["C:/evil"], "allowed are FOLDER/FILE only"),
        (["top/.hidden"], "allowed are FOLDER/FILE only"),
        (["top/a", "other/b"], "2 top folders; allowed is one"),
        (["top/a", "top/A"], "a name occurs twice"),
        (["top/a"], "0 VMX files; allowed is one"),
        (["top/a.vmx", "top/b.vmx"], "2 VMX files; allowed is one"),
        ([f"top/{n}" for n in range(40)], "40 members; allowed are 1 to 32"),
        ([], "0 members"),
    ],
)
def test_a_zip_with_wrong_members(tmp_path: Path, names: list[str], said: str) -> None:
    path = zipped(tmp_path / "x.zip", *((name, b"x") for name in names))
    assert said in refused(path, tmp_path / "into")
    assert not (tmp_path / "evil").exists()


def test_a_zip_with_a_symbolic_link(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", ("top/a", b"/etc"), mode=stat.S_IFLNK | 0o777)
    assert "allowed are plain files" in refused(path, tmp_path / "into")


def test_a_zip_larger_than_the_file_system(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", ("top/a", b"x"))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(data)
    (tmp_path / "into").mkdir()
    real = shutil.disk_usage
    try:
        shutil.disk_usage = lambda where: real(where)._replace(free=2**30)  # type: ignore[assignment]
        assert "set TMPDIR" in refused(path, tmp_path / "into")
    finally:
        shutil.disk_usage = real


def vmx_zip(shelf: Shelf, folder: Path, change: Callable[[Path], None]) -> Path:
    """The shelf's zip, packed anew after `change` of its folder."""
    with zipfile.ZipFile(shelf.path("vmx")) as archive:
        archive.extractall(folder)
    inside = folder / shelf.source.name
    change(inside)
    members = [(f"{inside.name}/{p.name}", p.read_bytes()) for p in inside.iterdir()]
    return zipped(folder / "x.zip", *members)


def test_a_vmx_whose_disk_is_missing(shelf: Shelf, tmp_path: Path) -> None:
    path = vmx_zip(shelf, tmp_path, lambda inside: next(inside.glob("*.vmdk")).unlink())
    assert "the VMX names it, the zip does not hold it" in refused(path, tmp_path / "into")


def test_a_vmdk_that_names_another_file(shelf: Shelf, tmp_path: Path) -> None:
    def change(inside: Path) -> None:
        (disk,) = inside.glob("*.vmdk")
        disk.write_text(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
            'createType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n'
        )

    assert "not a sparse VMDK" in refused(vmx_zip(shelf, tmp_path, change), tmp_path / "into")


def test_a_vmdk_without_capacity_whose_descriptor_names_another_file(
    shelf: Shelf, tmp_path: Path
) -> None:
    def change(inside: Path) -> None:
        (disk,) = inside.glob("*.vmdk")
        data = bytearray(disk.read_bytes())
        data[12:20] = bytes(8)
        disk.write_bytes(data)

    assert "not a sparse VMDK" in refused(vmx_zip(shelf, tmp_path, change), tmp_path / "into")


def test_a_vmdk_of_the_other_products(shelf: Shelf, tmp_path: Path) -> None:
    def change(inside: Path) -> None:
        (disk,) = inside.glob("*.vmdk")
        options = ["-O", "vmdk", "-o", "subformat=streamOptimized"]
        subprocess.run(
            ["qemu-img", "convert", *options, str(shelf.source.master), str(disk)], check=True
        )

    said = refused(vmx_zip(shelf, tmp_path, change), tmp_path / "into")
    assert "streamOptimized: allowed is monolithicSparse" in said


# --- tar --------------------------------------------------------------------------------------


def tarred(path: Path, *members: tuple[str, bytes], **header: object) -> Path:
    with tarfile.open(path, "w", format=header.pop("format", tarfile.USTAR_FORMAT)) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["../evil.ovf"], "'../evil.ovf': allowed are flat names"),
        (["/etc/evil.ovf"], "allowed are flat names"),
        (["a/b.ovf"], "allowed are flat names"),
        (["x.ovf", "x.ovf"], "a name occurs twice"),
        (["x.mf", "x.ovf"], "begins with .mf, .ovf: allowed is .ovf, .mf"),
        (["x.ovf"], "begins with .ovf: allowed is .ovf, .mf"),
        ([f"{n}" for n in range(40)], "40 members"),
    ],
)
def test_a_tar_with_wrong_members(tmp_path: Path, names: list[str], said: str) -> None:
    path = tarred(tmp_path / "x.ova", *((name, b"x") for name in names))
    assert said in refused(path, tmp_path / "into")
    assert not (tmp_path / "evil.ovf").exists()


@pytest.mark.parametrize(
    "header",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "x", "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "x"}},
        {"format": tarfile.GNU_FORMAT},
    ],
    ids=["symlink", "hardlink", "device", "pax", "gnu"],
)
def test_a_tar_that_is_not_plain(tmp_path: Path, header: dict[str, object]) -> None:
    path = tarred(tmp_path / "x.ova", ("x.ovf", b"x"), **header)
    assert "allowed are plain files, as USTAR stores them" in refused(path, tmp_path / "into")


# --- OVA --------------------------------------------------------------------------------------


def remade(shelf: Shelf, path: Path, change: Callable[[str], str], resign: bool = True) -> Path:
    """The shelf's OVA with another descriptor and, if asked, the digest of it."""
    with tarfile.open(shelf.path("ova")) as archive:
        parts = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    (name, old), (mf, manifest), disk = parts
    new = change(old.decode()).encode()
    assert new != old
    if resign:
        digests = [hashlib.sha256(data).hexdigest().encode() for data in (old, new)]
        manifest = manifest.replace(*digests)
    return tarred(path, (name, new), (mf, manifest), disk)


def test_a_manifest_with_one_changed_digit(shelf: Shelf, tmp_path: Path) -> None:
    with tarfile.open(shelf.path("ova")) as archive:
        parts = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    manifest = parts[1][1].decode()
    at = manifest.rindex("= ") + 2
    digit = "0" if manifest[at] != "0" else "1"
    changed = manifest[:at] + digit + manifest[at + 1 :]
    path = tarred(tmp_path / "x.ova", parts[0], (parts[1][0], changed.encode()), parts[2])
    assert "disk1.vmdk: its SHA-256 is not the one in" in refused(path, tmp_path / "into")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "names other files than the archive holds"),
        (lambda text: text + text, "line 3: 'SHA256("),
        (lambda text: text.replace("SHA256", "SHA1"), "allowed is SHA256(NAME)= DIGEST"),
        (lambda text: text.replace("disk1", "disk2"), "names other files"),
        (lambda text: "x" * 70_000, "too long"),
    ],
)
def test_a_manifest_of_another_form(
    shelf: Shelf, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    with tarfile.open(shelf.path("ova")) as archive:
        parts = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    manifest = (parts[1][0], change(parts[1][1].decode()).encode())
    path = tarred(tmp_path / "x.ova", parts[0], manifest, parts[2])
    assert said in refused(path, tmp_path / "into")


def test_a_changed_descriptor_is_noticed_before_it_is_read(shelf: Shelf, tmp_path: Path) -> None:
    path = remade(shelf, tmp_path / "x.ova", lambda text: text + "<", resign=False)
    assert ".ovf: its SHA-256 is not the one in" in refused(path, tmp_path / "into")


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<Envelope", f"{ENTITIES}<Envelope", "a document type is not allowed"),
        ("</Envelope>", "", "not well-formed XML"),
        ("envelope/1", "envelope/2", "allowed: Envelope of OVF 1.x"),
        (":InstanceID>5<", ":InstanceID>4<", "InstanceID: '1, 2, 3, 4, 4': allowed: each once"),
        (":Parent>3<", ":Parent>1<", "allowed: the SCSI controller's InstanceID"),
        ("lsilogicsas", "lsilogic", "ResourceSubType: 'lsilogic': allowed: lsilogicsas"),
        (">E1000<", ">PCNet32<", "ResourceSubType: 'PCNet32': allowed: e1000"),
        ("ovf:/disk/vmdisk1", "ovf:/disk/other", "allowed: ovf:/disk/ and the diskId"),
        ('fileRef="file1"', 'fileRef="file2"', "Disk fileRef: 'file2': allowed: the id"),
        ('href="hyrax', 'href="../hyrax', "allowed: the plain name of a file"),
        ('href="hyrax', 'href="file:///etc/hyrax', "allowed: the plain name of a file"),
        ("#streamOptimized", "#sparse", "Disk format"),
        ('Units="byte"', 'Units="byte * 2^30"', "capacityAllocationUnits: 'byte * 2^30'"),
        ('capacity="4294967296"', 'capacity="4294967295"', "its capacity is not the one"),
        ('capacity="4294967296"', 'capacity="4_294"', "'4_294': allowed: a whole number"),
        ('ovf:size="', 'ovf:size="1', "its files and sizes are not those in the archive"),
        (":VirtualQuantity>2<", ":VirtualQuantity>0<", "'0': allowed: 1 to 128"),
        ("byte * 2^20", "byte * 2^10", "AllocationUnits of the memory"),
        ('value="bios"', 'value="coreboot"', "firmware: 'coreboot': allowed: bios, efi"),
        (":ResourceType>17<", ":ResourceType>16<", "Items with ResourceType 17: '0'"),
        ("<VirtualSystem ", '<VirtualSystem ovf:id="x"/><VirtualSystem ', "VirtualSystem elements"),
    ],
)
def test_a_descriptor_that_was_signed_anew(
    shelf: Shelf, tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = remade(shelf, tmp_path / "x.ova", lambda text: text.replace(old, new))
    assert said in refused(path, tmp_path / "into")


@given(st.text(max_size=300))
def test_any_text_is_no_descriptor(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ovf"
    path.write_text(text, errors="replace")
    with pytest.raises(UserError):
        ovf.read_ovf(path)


def test_a_descriptor_without_end(tmp_path: Path) -> None:
    with (tmp_path / "x.ovf").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(UserError, match="too long"):
        ovf.read_ovf(tmp_path / "x.ovf")


# --- qcow2 and VHDX ---------------------------------------------------------------------------


def test_a_qcow2_with_a_backing_file_or_a_data_file(shelf: Shelf, tmp_path: Path) -> None:
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    based, outside, secret = (tmp_path / f"{name}.qcow2" for name in ("based", "outside", "secret"))
    backing = ["-b", str(shelf.source.master), "-F", "qcow2"]
    subprocess.run([*create, *backing, str(based)], check=True)
    data = ["-o", f"data_file={tmp_path / 'raw'}"]
    subprocess.run([*create, *data, str(outside), "1M"], check=True)
    head = bytearray(shelf.path("qcow2").read_bytes())
    head[35] = 1  # crypt_method
    secret.write_bytes(head)
    for path in (based, outside, secret):
        assert "without backing file, data file and encryption" in refused(path, tmp_path / "into")


def test_a_qcow2_whose_tables_are_damaged(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    data = bytearray(shelf.path("qcow2").read_bytes())
    (table,) = struct.unpack_from(">Q", data, 40)  # l1_table_offset
    data[table + 3] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refused(path, tmp_path / "into")


@pytest.mark.parametrize("kind", ["vmdk", "qcow2", "vhdx"])
def test_a_disk_of_another_kind(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(2**20))
    with pytest.raises(UserError, match=r"^x: not a "):
        disks.inspect(tmp_path / "x", kind)


def test_a_path_with_a_colon_is_a_path(shelf: Shelf, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("nbd:127.0.0.1:1.qcow2")
    shutil.copy(shelf.path("qcow2"), path)
    (tmp_path / "into").mkdir()
    spec = open_artifact(path, tmp_path / "into").specs["virtio_blk"]
    assert spec.drives == (Drive("virtio-blk", tmp_path / path, "qcow2"),)
