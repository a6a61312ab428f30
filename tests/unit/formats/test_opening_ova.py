"""Reading OVAs from strangers: the tar, the manifest, the descriptor."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyraxvm.core.errors import UserError
from hyraxvm.formats import ovf
from tests.unit.formats.shelf import Shelf, refused


def tarred(
    path: Path, *members: tuple[str, bytes], format: int = tarfile.USTAR_FORMAT, **header: object
) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
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
        (["../evil.ovf"], "'../evil.ovf': expected: flat names"),
        (["/etc/evil.ovf"], "expected: flat names"),
        (["a/b.ovf"], "expected: flat names"),
        (["x.ovf", "x.ovf"], "a name occurs twice"),
        (["x.mf", "x.ovf"], "begins with .mf, .ovf; expected: .ovf, .mf"),
        (["x.ovf"], "begins with .ovf; expected: .ovf, .mf"),
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
def test_a_tar_that_is_not_plain(tmp_path: Path, header: dict[str, Any]) -> None:
    path = tarred(tmp_path / "x.ova", ("x.ovf", b"x"), **header)
    assert "expected: plain files, as USTAR stores them" in refused(path, tmp_path / "into")


def parts_of(shelf: Shelf) -> list[tuple[str, bytes]]:
    """Return descriptor, manifest and disk of the shelf's OVA."""
    with tarfile.open(shelf.path("ova")) as archive:
        return [
            (member.name, content.read())
            for member in archive
            if (content := archive.extractfile(member))
        ]


def remade(shelf: Shelf, path: Path, change: Callable[[str], str], resign: bool = True) -> Path:
    """The shelf's OVA with another descriptor and, if asked, the digest of it."""
    (name, old), (mf, manifest), disk = parts_of(shelf)
    new = change(old.decode()).encode()
    assert new != old
    if resign:
        before, after = (hashlib.sha256(data).hexdigest().encode() for data in (old, new))
        manifest = manifest.replace(before, after)
    return tarred(path, (name, new), (mf, manifest), disk)


def test_a_manifest_with_one_changed_digit(shelf: Shelf, tmp_path: Path) -> None:
    descriptor, (mf, old), disk = parts_of(shelf)
    manifest = old.decode()
    at = manifest.rindex("= ") + 2
    digit = "0" if manifest[at] != "0" else "1"
    changed = manifest[:at] + digit + manifest[at + 1 :]
    path = tarred(tmp_path / "x.ova", descriptor, (mf, changed.encode()), disk)
    assert "disk1.vmdk: its SHA-256 is not the one in" in refused(path, tmp_path / "into")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "lists other files than the archive holds"),
        (lambda text: text + text, "line 3: 'SHA256("),
        (lambda text: text.replace("SHA256", "SHA1"), "expected: SHA256(NAME)= DIGEST"),
        (lambda text: text.replace("disk1", "disk2"), "lists other files"),
        (lambda text: "x" * 70_000, "too long"),
    ],
)
def test_a_manifest_of_another_form(
    shelf: Shelf, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    descriptor, (mf, manifest), disk = parts_of(shelf)
    changed = change(manifest.decode()).encode()
    path = tarred(tmp_path / "x.ova", descriptor, (mf, changed), disk)
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
        ("envelope/1", "envelope/2", "expected: Envelope of OVF 1.x"),
        (":InstanceID>5<", ":InstanceID>4<", "InstanceID: '1, 2, 3, 4, 4': expected: each once"),
        (":Parent>3<", ":Parent>1<", "expected: the SCSI controller's InstanceID"),
        ("lsilogicsas", "lsilogic", "ResourceSubType: 'lsilogic': expected: lsilogicsas"),
        (">E1000<", ">PCNet32<", "ResourceSubType: 'PCNet32': expected: e1000"),
        ("ovf:/disk/vmdisk1", "ovf:/disk/other", "expected: ovf:/disk/ and the diskId"),
        ('fileRef="file1"', 'fileRef="file2"', "Disk fileRef: 'file2': expected: the id"),
        ('href="hyrax', 'href="../hyrax', "expected: the plain name of a file"),
        ('href="hyrax', 'href="file:///etc/hyrax', "expected: the plain name of a file"),
        ("#streamOptimized", "#sparse", "Disk format"),
        ('Units="byte"', 'Units="byte * 2^30"', "capacityAllocationUnits: 'byte * 2^30'"),
        ('capacity="4294967296"', 'capacity="4294967295"', "its capacity is not the one"),
        ('capacity="4294967296"', 'capacity="4_294"', "'4_294': expected: a whole number"),
        ('ovf:size="', 'ovf:size="1', "lists other files or sizes than the archive holds"),
        (":VirtualQuantity>2<", ":VirtualQuantity>0<", "'0': expected: 1 to 128"),
        ("byte * 2^20", "byte * 2^10", "AllocationUnits of the memory"),
        ('value="bios"', 'value="coreboot"', "firmware: 'coreboot': expected: bios, efi"),
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
