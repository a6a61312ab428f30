"""Reading zips from strangers, and the VMDKs in them."""

from __future__ import annotations

import shutil
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.formats.shelf import Shelf, refused


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
        (["top/../../evil"], "'top/../../evil': expected: FOLDER/FILE"),
        (["../evil"], "'../evil': expected: FOLDER/FILE"),
        (["/etc/passwd"], "'/etc/passwd': expected: FOLDER/FILE"),
        (["top\\..\\evil"], "expected: FOLDER/FILE"),
        (["C:/evil"], "expected: FOLDER/FILE"),
        (["top/.hidden"], "expected: FOLDER/FILE"),
        (["top/a", "other/b"], "2 top folders; expected: one"),
        (["top/a", "top/A"], "a name occurs twice"),
        (["top/a"], "0 VMX files; expected: one"),
        (["top/a.vmx", "top/b.vmx"], "2 VMX files; expected: one"),
        ([f"top/{n}" for n in range(40)], "40 members; expected: 1 to 32"),
        ([], "0 members"),
    ],
)
def test_a_zip_with_wrong_members(tmp_path: Path, names: list[str], said: str) -> None:
    path = zipped(tmp_path / "x.zip", *((name, b"x") for name in names))
    assert said in refused(path, tmp_path / "into")
    assert not (tmp_path / "evil").exists()


def test_a_zip_with_a_symbolic_link(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", ("top/a", b"/etc"), mode=stat.S_IFLNK | 0o777)
    assert "expected: plain files" in refused(path, tmp_path / "into")


def test_a_zip_larger_than_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "x.zip", ("top/a", b"x"))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(data)
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda where: real(where)._replace(free=2**30))
    assert "set TMPDIR" in refused(path, tmp_path / "into")


def vmx_zip(shelf: Shelf, folder: Path, change: Callable[[Path], None]) -> Path:
    """Return the shelf's zip, packed again after `change` has edited its folder."""
    with zipfile.ZipFile(shelf.path("vmx")) as archive:
        archive.extractall(folder)
    inside = folder / shelf.source.name
    change(inside)
    members = [(f"{inside.name}/{p.name}", p.read_bytes()) for p in inside.iterdir()]
    return zipped(folder / "x.zip", *members)


def test_a_vmx_whose_disk_is_missing(shelf: Shelf, tmp_path: Path) -> None:
    path = vmx_zip(shelf, tmp_path, lambda inside: next(inside.glob("*.vmdk")).unlink())
    assert "the VMX names it, but it is not in the zip" in refused(path, tmp_path / "into")


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
    assert "streamOptimized: expected: monolithicSparse" in said
