"""`./inv verify`: one line for a good file, the reason for a bad one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.formats import FORMATS
from hyraxvm.formats.verify import verify
from tests.unit.formats.shelf import Shelf


def manifest(shelf: Shelf) -> Path:
    return shelf.folder / f"{shelf.source.name}.manifest.json"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        verify(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("vmx", "vmx (BIOS, pvscsi, vmxnet3)"),
        ("ova", "ovf (BIOS, lsisas1068, e1000)"),
        ("qcow2", "virtio_blk (BIOS, virtio-blk, virtio) or virtio_scsi (BIOS, virtio, virtio)"),
        ("hyperv", "generation2 (EFI, virtio, virtio) or generation1 (BIOS, ide, virtio)"),
        ("utm", "utm (EFI, virtio-blk, virtio)"),
    ],
)
def test_a_good_file_is_told_in_one_line(shelf: Shelf, name: str, machine: str) -> None:
    said = verify(shelf.path(name))
    assert said == (
        f"{shelf.path(name)}: {FORMATS[name].title}; 2 CPUs, 1024 MiB, disk of 4 GiB; "
        f"boots as {machine}; SHA-256 as in {manifest(shelf).name} and SHA256SUMS"
    )


def test_manifest_and_checksums_are_checked_too(own: Shelf) -> None:
    assert verify(own.folder / "SHA256SUMS").endswith(
        f"{len(FORMATS) + 1} files, each with its SHA-256"
    )
    assert verify(manifest(own)).endswith(f"{len(FORMATS)} files, each with its SHA-256")
    own.path("qcow2").unlink()
    assert "no such file beside it" in refused(manifest(own))
    assert "no such file beside it" in refused(own.folder / "SHA256SUMS")


def test_a_file_alone_says_that_nobody_vouches_for_it(shelf: Shelf, tmp_path: Path) -> None:
    shutil.copy(shelf.path("ova"), tmp_path)
    assert verify(tmp_path / shelf.path("ova").name).endswith(
        "no manifest and no SHA256SUMS beside it"
    )


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_changed_byte_is_refused_whatever_the_format(own: Shelf, name: str) -> None:
    data = bytearray(own.path(name).read_bytes())
    data[len(data) // 2] ^= 1
    own.path(name).write_bytes(data)
    assert f"{manifest(own).name} says" in refused(own.path(name))


@pytest.mark.parametrize("witness", ["manifest", "SHA256SUMS"])
def test_one_changed_digit_beside_a_file_is_refused(own: Shelf, witness: str) -> None:
    path = manifest(own) if witness == "manifest" else own.folder / witness
    (entry,) = [e for e in own.manifest["files"] if e["format"] == "ova"]
    digest = entry["sha256"]
    changed = ("0" if digest[0] != "0" else "1") + digest[1:]
    text = path.read_text()
    assert digest in text
    path.write_text(text.replace(digest, changed))
    assert f"{path.name} says" in refused(own.path("ova"))
    if witness == "SHA256SUMS":
        assert f"{own.path('ova').name}: its SHA-256 is not the listed one" in refused(path)
    else:
        assert "SHA256SUMS says" in refused(path)


def test_a_file_that_the_lists_do_not_name(own: Shelf) -> None:
    sums = own.folder / "SHA256SUMS"
    lines = sums.read_text().splitlines()
    sums.write_text("\n".join(line for line in lines if not line.endswith(".ova")) + "\n")
    assert "SHA256SUMS beside it does not name it" in refused(own.path("ova"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense\n", "line 1: 'nonsense': expected: DIGEST  NAME"),
        (f"{'0' * 64}  ../x\n", "line 1"),
        ("", "lists no files"),
    ],
)
def test_checksums_of_another_form(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(text)
    assert said in refused(tmp_path / "SHA256SUMS")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1}', '{"files": [{}]}', "[" * 100_000])
def test_a_manifest_of_another_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.manifest.json").write_text(text)
    assert "is not a manifest" in refused(tmp_path / "x.manifest.json")


def test_the_command_tells_of_all_files_and_fails_if_one_is_bad(own: Shelf) -> None:
    bad = own.path("qcow2")
    bad.write_bytes(bad.read_bytes()[:-1])
    done = subprocess.run(
        [sys.executable, "-m", "hyraxvm.cli", "verify", str(bad), str(own.path("ova")), "none.zip"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith(f"{own.path('ova')}: ESXi")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"./inv: {bad}: its SHA-256 is ")
    assert second.startswith("./inv: none.zip: no such file")
