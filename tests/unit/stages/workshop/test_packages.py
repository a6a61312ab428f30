"""The package index: pip installs from it, through the front door of a guest."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.stages.workshop import packages
from tests.unit.guest.front_door import DataServer, FrontDoor
from tests.unit.guest.guest_copy import Guest, Pattern
from tests.unit.guest.workshop import with_workshop


def make_wheel(folder: Path, name: str, tag: str = "py3-none-any", needs: str = "") -> Path:
    """Make a wheel of one module, which has the wheel's tag as a constant."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"TAG = {tag!r}\n")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of an index in a guest, and its folder."""
    wheels = tmp_path_factory.mktemp("wheels")
    make_wheel(wheels, "big_grid", needs="small.thing")
    for tag in ("py3-none-any", "py3-none-win_amd64"):
        make_wheel(wheels, "small.thing", tag)
    pattern = Pattern(tmp_path_factory.mktemp("pattern"))
    guest = with_workshop(Guest(tmp_path_factory.mktemp("guest"), pattern))
    folder = guest.root / "usr/lib/hyrax/workshop/srv/workshop/www/packages"
    packages.index(wheels, folder)
    behind = DataServer()
    door = FrontDoor(guest, behind.port)
    try:
        door.start()
        yield f"http://127.0.0.1:{door.port}/workshop/packages/", folder
    finally:
        door.stop()
        behind.stop()


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--isolated", *words, "--no-cache-dir", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_pip_installs_a_package_and_what_it_needs(served: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = served
    done = pip("install", "--index-url", url, "--target", str(tmp_path), "big-grid")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "big_grid.py").exists()
    assert "any" in (tmp_path / "small.thing.py").read_text()


def test_pip_finds_the_wheel_of_another_system(served: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = served
    there = ("--platform", "win_amd64", "--only-binary=:all:", "--no-deps")
    done = pip("download", "--index-url", url, *there, "--dest", str(tmp_path), "small-thing")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["small.thing-1.0-py3-none-win_amd64.whl"]


def test_pip_refuses_a_wheel_that_was_damaged(served: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = served
    wheel = folder / "big-grid/big_grid-1.0-py3-none-any.whl"
    before = wheel.read_bytes()
    wheel.write_bytes(before + b"\0")
    try:
        done = pip("install", "--index-url", url, "--target", str(tmp_path), "big-grid")
    finally:
        wheel.write_bytes(before)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_each_system_gets_the_locked_wheels_for_its_own_tags() -> None:
    clients = images.load().addition["workshop"].clients
    commands = list(packages.commands(clients, Path("/locked.txt"), Path("/to")))
    assert len(commands) == len(clients.platforms) == 3
    for command, tags in zip(commands, clients.platforms.values(), strict=True):
        assert [f"--platform={tag}" for tag in tags] == [w for w in command if "--platform" in w]
        assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(command)
