"""A real QEMU that goes on running after the program that started it, with an empty disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import ROOT
from hyraxvm.vm import kept
from hyraxvm.vm.machine import free_port
from hyraxvm.vm.qemu import HTTP, Drive, MachineSpec

START = """
import sys
from pathlib import Path
from hyraxvm.vm import kept
from hyraxvm.vm.qemu import Drive, MachineSpec
folder = Path(sys.argv[1])
drive = Drive("virtio", folder / "disk.raw", "raw")
spec = MachineSpec(drives=(drive,), nics=("virtio",), memory_mib=64, cpus=1)
kept.start(spec, folder, {8080: int(sys.argv[2]), 22: 0})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose path is longer than the name of a socket may be."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    (folder / "disk.raw").write_bytes(bytes(2**20))
    yield folder
    kept.stop(folder)


def begin(folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", START, str(folder), str(port)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_it_outlives_its_starter_and_its_users_until_it_is_stopped(
    folder: Path, tmp_path: Path
) -> None:
    assert kept.running(folder) is None
    port = free_port(0)
    done = begin(folder, port)
    assert done.returncode == 0, done.stderr
    pid = kept.running(folder)
    assert pid is not None
    spec = MachineSpec((Drive("virtio", folder / "disk.raw", "raw"),), ("virtio",))
    for number in range(2):
        with kept.KeptMachine(spec, folder, tmp_path / f"logs{number}") as machine:
            assert machine.running
            assert machine.ports[HTTP] == port
            assert machine.qmp("query-status")["status"] == "running"
            machine.console.send("typed by nobody")
        assert kept.running(folder) == pid
    assert kept.stop(folder)
    assert kept.running(folder) is None
    assert not kept.stop(folder)
    with pytest.raises(Failure, match="no machine runs there"), machine:
        pass


def test_a_machine_that_cannot_start_says_why(folder: Path) -> None:
    (folder / "disk.raw").unlink()
    done = begin(folder, free_port(0))
    assert done.returncode == 1
    assert "disk.raw" in done.stderr.splitlines()[-1]
    assert kept.running(folder) is None


def test_a_number_that_another_process_has_got_is_not_the_machine(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (folder / "pid").write_text(f"{other.pid}\n")
        (folder / "ports.json").write_text(json.dumps({8080: 1}))
        assert kept.running(folder) is None
        assert not kept.stop(folder)
        assert other.poll() is None
        other.kill()
