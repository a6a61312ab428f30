"""The stage on a small disk: the same files as if the running system had unpacked and enabled them.

The reference is made by tar and systemctl in a folder, as the system itself would do it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.config.names import RELEASE_FILE
from hyraxvm.core import cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.process import as_root
from hyraxvm.stages.disk.stage import MIB, ROOT_START
from hyraxvm.stages.guest import stage as guest
from hyraxvm.stages.guest import units
from hyraxvm.stages.package.stage import read_release
from hyraxvm.stages.provision import guest_tar
from hyraxvm.stages.server import stage as server

RECIPE = images.recipe(images.load(), "nfs", "dapdir")
IMAGE = server.preview(RECIPE)
SYSTEM = "usr/lib/systemd/system"
LANDING = guest_tar.landing_files(RECIPE)
PRESET = LANDING[units.PRESET].content.decode()
OWN = guest_tar.services(guest_tar.render_units(RECIPE, IMAGE))


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A provisioned system, as far as it matters: units of Debian and of the server, a file."""
    tree = tmp_path_factory.mktemp("system")
    (tree / SYSTEM).mkdir(parents=True)
    (tree / "lib").symlink_to("usr/lib")
    (tree / "etc/systemd/system/timers.target.wants").mkdir(parents=True)
    ours = {Path(name).name for name in LANDING}
    for name in re.findall(r"^(?:enable|disable) (\S+)", PRESET, re.MULTILINE):
        if name not in ours:
            text = "[Service]\nExecStart=/bin/true\n[Timer]\nOnBootSec=1\n"
            section = "timers" if name.endswith(".timer") else "multi-user"
            (tree / SYSTEM / name).write_text(f"{text}[Install]\nWantedBy={section}.target\n")
    for name in ("sysinit.target", "basic.target", "multi-user.target", "timers.target"):
        (tree / SYSTEM / name).write_text("[Unit]\nDescription=of Debian\n")
    for name in ("apt-daily.timer", "fstrim.timer"):  # Debian's packages enable these
        (tree / f"etc/systemd/system/timers.target.wants/{name}").symlink_to(f"/{SYSTEM}/{name}")
    for name, text in guest_tar.render_units(RECIPE, IMAGE).items():
        (tree / SYSTEM / name).write_text(text)
    (tree / "etc/motd").write_text("of Debian\n")
    return tree


@pytest.fixture(scope="module")
def provisioned(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a disk whose root partition holds the system."""
    work = tmp_path_factory.mktemp("provisioned")
    raw, disk = work / "disk.raw", work / "provisioned.qcow2"
    offset = f"offset={ROOT_START * MIB}"
    run(*as_root(["mke2fs", "-q", "-t", "ext4", "-E", offset, "-d", str(tree), str(raw), "24M"]))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
    return disk


def listing(tree: Path) -> dict[str, tuple[int, str]]:
    """Return path -> type with mode, and content or target, of all files and folders."""
    found = {}
    for path in tree.rglob("*"):
        name = str(path.relative_to(tree))
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[name] = mode, str(path.readlink())
        elif path.is_dir():
            found[name] = mode, ""
        else:
            found[name] = mode, path.read_bytes().hex()
    del found["lost+found"]
    return found


def test_the_master_has_the_same_files_as_a_system_that_unpacked_them(
    tree: Path, provisioned: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    master = guest.build(
        StageCache(tmp_path / "cache"), RECIPE, "k" * 64, provisioned, IMAGE,
        tmp_path / "log", said.append,
    )  # fmt: skip
    assert "writing the guest's files" in said
    raw, found = tmp_path / "master.raw", tmp_path / "found"
    run("qemu-img", "convert", "-O", "raw", master, raw)
    found.mkdir()
    device = f"{raw}?offset={ROOT_START * MIB}"
    run("e2fsck", "-f", "-n", device)
    run("debugfs", "-R", f"rdump / {found}", device)

    release = (master.parent / "release.env").read_text()
    expected, packed = tmp_path / "expected", tmp_path / "guest.tar"
    run("cp", "-a", tree, expected)
    (expected / "lost+found").mkdir()
    files = {**LANDING, RELEASE_FILE.lstrip("/"): guest_tar.text_file(release)}
    guest_tar.pack(files, packed)
    run("tar", "--extract", "--preserve-permissions", "--file", packed, "--directory", expected)
    wanted = re.findall(r"^(?:enable|disable) (\S+)", PRESET, re.MULTILINE)
    masked = (expected / units.MASKED).read_text().split()
    for words in (["preset", *wanted], ["mask", *masked], ["enable", *OWN]):
        run("systemctl", f"--root={expected}", "--quiet", *words)
    run("systemctl", f"--root={expected}", "set-default", "multi-user.target")
    assert listing(found) == listing(expected)

    links = {name for name in listing(found) if "/timers.target.wants/" in name}
    assert "etc/systemd/system/timers.target.wants/fstrim.timer" in links
    assert "etc/systemd/system/timers.target.wants/apt-daily.timer" not in links
    assert read_release(found / RELEASE_FILE.lstrip("/"))["IMAGE"] == "nfs"
    owners = set(
        re.findall(r"^/\d+/\d+/(\d+/\d+)/", run("debugfs", "-R", "ls -p /etc", device), re.M)
    )
    assert owners == {"0/0"}


def test_a_unit_with_a_fault_ends_the_build(
    provisioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{SYSTEM}/hyrax-banner.service"
    bad = LANDING[name].content.replace(b"[Service]\n", b"[Service]\nType=nonsense\n")
    broken = {**LANDING, name: guest_tar.GuestFile(bad)}
    monkeypatch.setattr(guest, "landing_files", lambda recipe: broken)
    with pytest.raises(Failure, match=r"hyrax-banner.service:\d+: Failed to parse .*nonsense"):
        guest.build(
            StageCache(tmp_path / "cache"), RECIPE, "k" * 64, provisioned, IMAGE,
            tmp_path / "log", lambda line: None,
        )  # fmt: skip


def test_the_boot_gets_what_its_scripts_read_and_the_rest_lands(tmp_path: Path) -> None:
    (tmp_path / "sst.nc").write_bytes(b"CDF")
    boot = guest_tar.boot_files(RECIPE, IMAGE, tmp_path)
    assert not boot.keys() & LANDING.keys()
    assert {name for name in boot if not name.startswith("usr/")} == {
        "etc/default/grub.d/50-hyrax.cfg",
        "etc/ssh/sshd_config.d/10-hyrax.conf",
        "etc/sudoers.d/hyrax",
        "srv/hyrax/sample/sst.nc",
    }
    assert boot["etc/sudoers.d/hyrax"].mode & 0o777 == 0o440
    assert f"{SYSTEM}/hyrax-server.service" in boot
    assert LANDING["usr/bin/hyrax-data"].mode & 0o777 == 0o755
    hyrax = images.recipe(images.load(), "nfs", "hyrax", "docker://x/y:1", f"sha256:{'ab' * 32}")
    assert guest_tar.landing_files(hyrax) == {}


def test_packing_the_same_files_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        guest_tar.pack(LANDING, tmp_path / name)
    assert cache.file_digest(tmp_path / "a") == cache.file_digest(tmp_path / "b")
