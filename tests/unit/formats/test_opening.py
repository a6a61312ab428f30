"""Reading files from strangers: each kind of harm is refused in one line with its reason."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyraxvm.config.arch import DEFAULT
from hyraxvm.core.errors import UserError
from hyraxvm.formats import (
    FORMATS,
    choose,
    disk_images,
    for_images,
    format_of,
    hyperv,
    image_name,
    made_for,
    qcow2,
    vmdk,
)
from hyraxvm.formats.opening import open_artifact
from hyraxvm.vm.qemu import Drive
from tests.unit.formats.shelf import Shelf, refused


def test_each_format_opens_as_the_machines_that_it_is_for(shelf: Shelf, tmp_path: Path) -> None:
    found = {}
    for name in FORMATS:
        (tmp_path / name).mkdir()
        opened = open_artifact(shelf.path(name), tmp_path / name)
        assert opened.format.name == name
        for kind, spec in opened.specs.items():
            assert (spec.memory_mib, spec.cpus) == (1024, 2)
            (drive,) = spec.drives
            assert disk_images.size(drive.path, drive.format) == 4 * 2**30
            found[name, kind] = (spec.firmware, drive.controller, drive.format, spec.nics)
        assert tuple(opened.specs) == FORMATS[name].machines
    assert (
        found.items()
        >= {
            ("vmx", "vmx"): ("bios", "pvscsi", "vmdk", ("vmxnet3",)),
            ("ova", "ovf"): ("bios", "lsisas1068", "vmdk", ("e1000",)),
            ("qcow2", "virtio_blk"): ("bios", "virtio-blk", "qcow2", ("virtio",)),
            ("qcow2", "virtio_scsi"): ("bios", "virtio", "qcow2", ("virtio",)),
            ("hyperv", "generation2"): ("efi", "virtio", "vhdx", ("virtio",)),
            ("hyperv", "generation1"): ("bios", "ide", "vhdx", ("virtio",)),
            ("utm", "utm"): ("efi", "virtio-blk", "qcow2", ("virtio",)),
        }.items()
    )


def test_memory_and_cpus_come_from_the_manifest_where_the_file_has_none(own: Shelf) -> None:
    manifest = own.folder / f"{own.source.name}.manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"memory_mib": 1024', '"memory_mib": 2048'))
    opened = open_artifact(own.path("qcow2"), own.folder)
    assert {spec.memory_mib for spec in opened.specs.values()} == {2048}
    manifest.write_text("{}")
    assert "is not a manifest" in refused(own.path("qcow2"), own.folder / "x")


def test_the_vhdx_is_dense_safe_and_aligned(shelf: Shelf, tmp_path: Path) -> None:
    opened = open_artifact(shelf.path("hyperv"), tmp_path)
    (disk,) = {spec.drives[0].path for spec in opened.specs.values()}
    # A dynamic disk: far smaller than what it holds, even if every byte of it is written.
    assert disk.stat().st_size < 64 * 2**20
    assert disk.stat().st_size % 2**20 == 0
    assert disk_images.size(disk, "vhdx") % 2**20 == 0
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
    with pytest.raises(UserError, match=r"a\.iso: is not an artifact; expected: a name with \.zip"):
        format_of(Path("a.iso"))
    assert [chosen.name for chosen in choose([])] == list(FORMATS)
    assert [chosen.name for chosen in choose(["hyperv", "ova", "ova"])] == ["ova", "hyperv"]
    with pytest.raises(UserError, match="there is no format 'iso'; there are: vmx, ova"):
        choose(["iso"])


@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_every_image_is_dealt_the_first_format_and_every_format_an_image(images: int) -> None:
    dealt = [[each.name for each in hand] for hand in for_images(images)]
    assert len(dealt) == images
    first, *others = (each.name for each in made_for(DEFAULT))
    assert {hand[0] for hand in dealt} == {first}
    assert sorted(name for hand in dealt for name in hand[1:]) == sorted(others)


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file(shelf: Shelf, tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / shelf.path(name).name
    data = shelf.path(name).read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, tmp_path / "into")


@pytest.mark.parametrize("name", ["vmx", "ova", "hyperv", "utm"])
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
        assert "without backing file, data file or encryption" in refused(path, tmp_path / "into")


def test_a_qcow2_is_padded_to_a_whole_cluster(tmp_path: Path) -> None:
    raw, disk = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(random.Random(1).randbytes(70_144) + bytes(range(256)) * 4000)
    convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*convert, raw, disk], check=True)
    assert disk.stat().st_size % 65536  # as qemu-img leaves it
    with pytest.raises(UserError, match="not a multiple of its cluster size"):
        qcow2.inspect(disk)
    qcow2.pad(disk)
    qcow2.inspect(disk)
    size = disk.stat().st_size
    assert size % 65536 == 0
    qcow2.pad(disk)
    assert disk.stat().st_size == size
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, disk], check=True)


def test_a_qcow2_whose_tables_are_damaged(shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    data = bytearray(shelf.path("qcow2").read_bytes())
    (table,) = struct.unpack_from(">Q", data, 40)  # l1_table_offset
    data[table + 3] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refused(path, tmp_path / "into")


@pytest.mark.parametrize(
    "inspect",
    [lambda disk: vmdk.inspect(disk, "monolithicSparse"), qcow2.inspect, hyperv.inspect],
    ids=["vmdk", "qcow2", "vhdx"],
)
def test_a_disk_of_another_kind(inspect: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(2**20))
    with pytest.raises(UserError, match=r"^x: not a "):
        inspect(tmp_path / "x")


def test_a_path_with_a_colon_is_a_path(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("nbd:127.0.0.1:1.qcow2")
    shutil.copy(shelf.path("qcow2"), path)
    (tmp_path / "into").mkdir()
    spec = open_artifact(path, tmp_path / "into").specs["virtio_blk"]
    assert spec.drives == (Drive("virtio-blk", tmp_path / path, "qcow2"),)
