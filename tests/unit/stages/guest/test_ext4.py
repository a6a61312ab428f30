"""Files written into a real ext4 file system, and read back by other code than wrote them."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import as_root
from hyraxvm.stages.guest.ext4 import FileSystem, Inode
from hyraxvm.stages.provision.guest_tar import GuestFile, link, text_file

DATE = 1_700_000_000
OFFSET = 3 * 2**20
LONG = "/usr/lib/" + 80 * "x"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with a file system in it that has a few files, in a folder with a difficult name."""
    tree = tmp_path / "tree"
    (tree / "etc/systemd").mkdir(parents=True)
    (tree / "etc/motd").write_text("the distribution's\n")
    (tree / "etc/motd").chmod(0o600)
    (tree / "etc/right").write_text("stays\n")
    (tree / "etc/systemd/old").symlink_to("/usr/lib/old")
    (tree / "etc/systemd/turned").symlink_to("/usr/lib/before")
    folder = tmp_path / "what? this"
    folder.mkdir()
    path = folder / "disk.raw"
    make = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", f"offset={OFFSET}", "-d", str(tree)]
    subprocess.run(as_root([*make, str(path), "16M"]), check=True, capture_output=True)
    return path


WANTED = {
    "etc/motd": text_file("ours\n"),
    "etc/right": text_file("stays\n"),
    "etc/sudoers.d/hyrax": GuestFile(b"opendap\n", stat.S_IFREG | 0o440),
    "etc/systemd/turned": link("/usr/lib/after"),
    "etc/systemd/new": link(LONG),
    "usr/lib/hyrax vm/deep/er/program": text_file("#!/bin/sh\n", executable=True),
    "usr/lib/binary": GuestFile(bytes(range(256)) * 40),
    "usr/lib/empty": GuestFile(b""),
}


def unpacked(disk: Path, into: Path) -> Path:
    """Return a folder with all files of the file system."""
    into.mkdir()
    raw = into.parent / "partition"
    raw.write_bytes(disk.read_bytes()[OFFSET:])
    subprocess.run(["debugfs", "-R", f"rdump / {into}", raw], check=True, capture_output=True)
    return into


def inode(disk: Path, name: str) -> str:
    """Return what debugfs shows of a file."""
    argv = ["debugfs", "-R", f'stat "/{name}"', f"{disk.name}?offset={OFFSET}"]
    done = subprocess.run(argv, cwd=disk.parent, check=True, capture_output=True, text=True)
    return done.stdout


def test_files_have_content_owner_mode_and_date(disk: Path, tmp_path: Path) -> None:
    system = FileSystem(disk, OFFSET)
    right = inode(disk, "etc/right")
    system.write(WANTED, ["etc/systemd/old", "etc/systemd/never-was"], DATE)
    system.check()
    tree = unpacked(disk, tmp_path / "out")
    for name, file in WANTED.items():
        path = tree / name
        if stat.S_ISLNK(file.mode):
            assert str(path.readlink()).encode() == file.content
        else:
            assert path.read_bytes() == file.content
        assert path.lstat().st_mode == file.mode
        shown = inode(disk, name)
        assert "User:     0   Group:     0" in shown
        if name != "etc/right":
            assert " mtime: 0x00000000:00000000 " in shown
            assert " ctime: 0x6553f100:00000000 " in shown
    assert inode(disk, "etc/right") == right  # it was as it should be
    assert not (tree / "etc/systemd/old").is_symlink()
    for name in ("usr", "usr/lib/hyrax vm/deep/er", "etc/sudoers.d"):
        assert stat.S_IMODE((tree / name).stat().st_mode) == 0o755
    assert system.entries(["usr/lib"])["usr/lib/binary"] == Inode(stat.S_IFREG | 0o644, 0, 0)


def test_the_same_files_give_the_same_bytes(disk: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.raw"
    twin.write_bytes(disk.read_bytes())
    for path in (disk, twin):
        FileSystem(path, OFFSET).write(WANTED, ["etc/systemd/old"], DATE)
    assert disk.read_bytes() == twin.read_bytes()
    FileSystem(twin, OFFSET).write(WANTED, ["etc/systemd/old"], DATE)
    FileSystem(twin, OFFSET).check()


def test_a_full_file_system_is_a_failure(disk: Path) -> None:
    with pytest.raises(Failure, match="could not write srv/large"):
        FileSystem(disk, OFFSET).write({"srv/large": GuestFile(bytes([1]) * 2**25)}, [], DATE)


def test_a_path_through_a_file_is_a_failure(disk: Path) -> None:
    with pytest.raises(Failure, match=r"could not write etc/motd/x"):
        FileSystem(disk, OFFSET).write({"etc/motd/x": text_file("")}, [], DATE)


def test_a_damaged_file_system_is_found(disk: Path) -> None:
    content = bytearray(disk.read_bytes())
    system = FileSystem(disk, OFFSET)
    system.check()
    subprocess.run(
        ["debugfs", "-w", "-R", "clri /etc/motd", f"{disk.name}?offset={OFFSET}"],
        cwd=disk.parent,
        check=True,
        capture_output=True,
    )
    assert disk.read_bytes() != content
    with pytest.raises(Failure, match="e2fsck: exit status 4"):
        system.check()


def test_what_is_not_a_file_system_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(bytes(2**20))
    with pytest.raises(Failure, match=r"(?s)debugfs: exit status 1: .*Bad magic number"):
        FileSystem(path, 0).entries(["etc"])


@pytest.mark.parametrize("name", ['a"b', "a\nb"])
def test_a_name_that_would_be_a_command_is_refused(disk: Path, name: str) -> None:
    with pytest.raises(Failure, match="takes neither a quotation mark nor a newline"):
        FileSystem(disk, OFFSET).write({name: text_file("")}, [], DATE)
