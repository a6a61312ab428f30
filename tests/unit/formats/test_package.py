"""The stage `package`: when it makes which file, and what it never ships."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from hyraxvm import formats
from hyraxvm.config.model import FULL, SMOKE
from hyraxvm.core import archives
from hyraxvm.core.errors import Failure
from hyraxvm.formats import FORMATS, disk_images
from hyraxvm.stages.package import stage as package
from tests.unit.formats.shelf import Shelf, make_master


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions(shelf: Shelf) -> dict[str, tuple[int, int]]:
    """Return (inode, time) of each file: a new file may get the inode of the old one at once."""
    found = {name: shelf.path(name).stat() for name in FORMATS}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def test_the_manifest_lists_every_file_with_size_and_digest(shelf: Shelf) -> None:
    manifest = shelf.manifest
    assert [entry["format"] for entry in manifest["files"]] == list(FORMATS)
    for entry in manifest["files"]:
        path = shelf.path(entry["format"])
        assert entry["name"] == path.name
        assert (entry["size"], entry["sha256"]) == (path.stat().st_size, digest(path))
    assert manifest["packages"] == {"bash": "5.2"}
    assert manifest["release"] == shelf.source.release


def test_the_manifest_says_which_boot_test_each_file_has_passed(own: Shelf) -> None:
    def tested() -> dict[str, str | None]:
        return {entry["format"]: entry.get("tested") for entry in own.manifest["files"]}

    assert set(tested().values()) == {None}
    package.record_tests(own.folder, {own.path("ova").name: SMOKE, own.path("vmx").name: FULL})
    assert tested() == {"vmx": FULL, "ova": SMOKE, "qcow2": None, "hyperv": None, "utm": None}
    # The better one stays, and the sums are those of the manifest as it is now.
    package.record_tests(own.folder, {own.path("ova").name: FULL, own.path("vmx").name: SMOKE})
    assert tested() == {"vmx": FULL, "ova": FULL, "qcow2": None, "hyperv": None, "utm": None}
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=own.folder, check=True)
    # A file that is made again has passed nothing; the others keep what they have.
    own.path("ova").unlink()
    own.build()
    assert tested() == {"vmx": FULL, "ova": None, "qcow2": None, "hyperv": None, "utm": None}


def test_the_manifest_tells_what_is_inside(shelf: Shelf, tmp_path: Path) -> None:
    for entry in shelf.manifest["files"]:
        (tmp_path / entry["format"]).mkdir()
        chosen = FORMATS[entry["format"]]
        folder = chosen.read(shelf.path(chosen), tmp_path / entry["format"]).folder
        inside = {path.name: digest(path) for path in folder.rglob("*") if path.is_file()}
        assert inside == {item["name"]: item["sha256"] for item in entry["contents"]}


def test_sha256sum_agrees_with_the_set(own: Shelf) -> None:
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=own.folder, capture_output=True, text=True, check=True)
    names = {path.name for path in own.folder.iterdir()} - {"SHA256SUMS", "logs"}
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == names
    with own.path("ova").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"x")
    assert subprocess.run(check, cwd=own.folder, capture_output=True, check=False).returncode == 1


def test_the_same_input_gives_the_same_bytes(shelf: Shelf, tmp_path: Path) -> None:
    again = Shelf(tmp_path, shelf.source)
    again.build("vmx", "ova", "qcow2", "utm")
    for name in ("vmx", "ova", "qcow2", "utm"):
        assert digest(again.path(name)) == digest(shelf.path(name)), name


def test_what_is_up_to_date_is_left_alone(own: Shelf) -> None:
    before, text = versions(own), json.dumps(own.manifest)
    own.build()
    assert versions(own) == before
    assert json.dumps(own.manifest) == text


@pytest.mark.parametrize("harm", ["missing", "changed", "truncated"])
def test_one_file_that_is_not_right_is_made_alone(own: Shelf, harm: str) -> None:
    before = versions(own)
    path = own.path("qcow2")
    whole = digest(path)
    if harm == "missing":
        path.rename(path.with_name("elsewhere"))
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-512] if harm == "truncated" else data[:-1] + b"x")
    own.build()
    changed = {name for name, found in versions(own).items() if found != before[name]}
    assert changed == {"qcow2"}
    assert digest(path) == whole


def test_a_changed_input_of_one_format_makes_it_alone(
    own: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = FORMATS["hyperv"].templates + FORMATS["ova"].templates
    changed = replace(FORMATS["hyperv"], templates=templates)
    monkeypatch.setitem(formats.FORMATS, "hyperv", changed)
    before = versions(own)
    own.build()
    assert {name for name, found in versions(own).items() if found != before[name]} == {"hyperv"}


def test_files_of_another_master_do_not_stay_beside_the_new_ones(own: Shelf) -> None:
    source = replace(own.source, master_key="fedcba9876543210")
    assert own.build("qcow2", source=source) == [own.path("qcow2")]
    assert [name for name in FORMATS if own.path(name).exists()] == ["qcow2"]
    assert [entry["format"] for entry in own.manifest["files"]] == ["qcow2"]
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=own.folder, check=False).returncode == 0


def test_a_disk_that_differs_from_the_master_is_not_shipped(
    own: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_master(tmp_path / "other.qcow2", b"2")
    before = {path.name: digest(path) for path in own.folder.glob("hyrax-vm-*")}
    bad = replace(FORMATS["qcow2"], write=lambda s, t, w, lg: _convert(other, t, lg))
    monkeypatch.setitem(formats.FORMATS, "qcow2", bad)
    own.path("qcow2").unlink()
    with pytest.raises(Failure, match=r"(?s)qemu-img: exit status 1.*Content mismatch"):
        own.build()
    del before[own.path("qcow2").name]
    assert {path.name: digest(path) for path in own.folder.glob("hyrax-vm-*")} == before


def _convert(master: Path, target: Path, log: Path) -> list[Path]:
    disk_images.convert(master, target, "qcow2", "compat=1.1", log)
    return []


def test_a_disk_of_another_size_is_not_shipped(own: Shelf, tmp_path: Path) -> None:
    longer = tmp_path / "longer.qcow2"
    subprocess.run(["cp", str(own.source.master), str(longer)], check=True)
    subprocess.run(["qemu-img", "resize", "-q", str(longer), "+1M"], check=True)
    with pytest.raises(Failure, match="another size than the master"):
        disk_images.compare(own.source.master, longer, "qcow2", tmp_path / "log")


def test_a_file_over_its_budget_is_not_shipped(own: Shelf) -> None:
    recipe = own.source.recipe
    budget = {**recipe.budget, "ova": 1}
    source = replace(own.source, recipe=recipe.model_copy(update={"budget": budget}))
    for name in FORMATS:
        own.path(name).unlink()
    with pytest.raises(Failure) as caught:
        own.build(source=source)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(own.path("ova").name)
    assert "must be at most 1 MB (budget.dapdir.ova in images.toml)" in first
    assert rest == ["nothing was shipped", "largest packages"]
    assert not [name for name in FORMATS if own.path(name).exists()]
    assert not list(own.folder.glob(".*.work"))


def test_one_top_folder_with_deflate_and_the_builds_date(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.bin").write_bytes(bytes(100_000))
    members = [tmp_path / "a.txt", tmp_path / "b.bin"]
    archives.pack_zip(tmp_path / "1.zip", "top", members, "2026-01-02T03:04:06Z")
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["top/a.txt", "top/b.bin"]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_DEFLATED
            assert info.date_time == (2026, 1, 2, 3, 4, 6)
        assert archive.read("top/b.bin") == bytes(100_000)
