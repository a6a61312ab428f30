"""Running programs: output, deadlines, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.config.arch import AMD64
from hyraxvm.core import cancel, process
from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import ROOT
from hyraxvm.stages.disk import stage as disk
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import embedded
from hyraxvm.stages.server import stage as server


def gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_output_is_logged_and_handed_on_line_by_line(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    process.run(["sh", "-c", "echo one; echo two >&2"], log=log, deadline=10, on_line=lines.append)
    assert lines == ["one", "two"]
    assert log.read_text().endswith("one\ntwo\n")


def test_a_failure_quotes_the_last_lines_and_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        process.run(["sh", "-c", "seq 100; exit 7"], log=tmp_path / "log", deadline=10)
    message = str(caught.value)
    assert "exit status 7" in message
    assert str(tmp_path / "log") in message
    assert "    100" in message
    assert "    50\n" not in message


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no-such-program"):
        process.run(["no-such-program"], log=tmp_path / "log", deadline=10)


def test_the_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "sleep 60 & echo $!; wait"
    with pytest.raises(Failure, match="not done after"):
        process.run(["sh", "-c", script], log=tmp_path / "log", deadline=0.5, on_line=lines.append)
    assert gone(int(lines[0]))


def test_an_exception_of_the_reader_ends_the_program(tmp_path: Path) -> None:
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(
            ["sh", "-c", "echo $$; sleep 60"], log=tmp_path / "log", deadline=60, on_line=on_line
        )
    assert gone(pids[0])


def test_a_killed_build_takes_its_programs_along(tmp_path: Path) -> None:
    code = (
        "from hyraxvm.core.process import run; from pathlib import Path; import sys\n"
        f"run(['sh', '-c', 'echo $$; exec sleep 60'], log=Path({str(tmp_path / 'log')!r}),"
        " deadline=60, on_line=lambda line: print(line, flush=True))"
    )
    build = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert build.stdout is not None
    child = int(build.stdout.readline())
    os.kill(build.pid, signal.SIGKILL)
    build.wait(10)
    build.stdout.close()
    assert gone(child)


def test_the_mmdebstrap_command_names_no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = images.recipe(images.load(), "nfs")
    argv = rootfs.command(recipe, Path("/config"), Path("/out.tar"), Path("/packages"))
    assert argv[-2:] == [recipe.base.suite, "/out.tar"]
    assert not [word for word in argv if "://" in word]
    assert any(word.startswith("--include=") and "nfs-common" in word for word in argv)
    for euid, mode in ((0, "root"), (1000, "unshare")):
        monkeypatch.setattr(os, "geteuid", lambda euid=euid: euid)
        assert f"--mode={mode}" in rootfs.command(recipe, Path("/c"), Path("/o"), Path("/p"))
        assert (process.as_root(["true"])[0] == "unshare") is (euid != 0)


def test_the_initramfs_and_dpkg_settings(tmp_path: Path) -> None:
    rootfs.write_config(images.recipe(images.load(), "nfs", base="debian-12"), tmp_path)
    options = (tmp_path / "dpkg-options").read_text()
    assert "path-exclude=/lib/modules/*/kernel/sound/*\n" in options
    assert "path-include=/lib/modules/*/kernel/drivers/net/ethernet/intel/*\n" in options
    modules = (tmp_path / rootfs.INITRAMFS_MODULES).read_text().split()
    for driver in ("vmw_pvscsi", "mptsas", "ahci", "nvme", "virtio_blk", "hv_storvsc"):
        assert driver in modules
    assert "MODULES=list" in (tmp_path / rootfs.INITRAMFS_CONF).read_text()


def test_the_package_list_is_read_from_dpkgs_status() -> None:
    text = (
        "Package: b\nStatus: install ok installed\nVersion: 2:1.0-1\nDescription: x\n more: y\n\n"
        "Package: a\nStatus: deinstall ok config-files\nVersion: 1\n\n"
    )
    assert rootfs.parse_status(text) == {"b": "2:1.0-1"}


def test_a_partition_table_that_sfdisk_accepts(tmp_path: Path) -> None:
    raw = tmp_path / "disk"
    with raw.open("wb") as stream:
        stream.truncate(4 * 1024**3)
    table = disk.partition_table(1000, AMD64)
    subprocess.run(["/usr/sbin/sfdisk", "-q", raw], input=table, text=True, check=True)
    dump = process.output(["/usr/sbin/sfdisk", "--dump", str(raw)])
    rows = [line for line in dump.splitlines() if "start=" in line]
    assert [
        kind
        for row in rows
        for kind in (disk.BIOS_BOOT, disk.ESP, AMD64.root_partition)
        if kind in row
    ] == [
        disk.BIOS_BOOT,
        disk.ESP,
        AMD64.root_partition,
    ]


def test_the_embedded_servers_wheels_are_locked() -> None:
    recipe = images.recipe(images.load(), "nfs", "dapdir")
    argv = embedded.pip_command(
        recipe, server.server_folder(recipe) / "requirements.txt", Path("/t")
    )
    assert "--require-hashes" in argv
    assert "--only-binary=:all:" in argv


def test_what_is_read_ahead_comes_in_its_order_and_an_error_last() -> None:
    def source() -> Generator[int, None, None]:
        yield from range(20)
        raise LookupError("over")

    got: list[int] = []
    with pytest.raises(LookupError, match="over"):
        for item in cancel.in_background(source()):
            got.append(item)
    assert got == list(range(20))
    assert list(cancel.in_background(item for item in "abc")) == ["a", "b", "c"]
    assert cancel.call_in_background(lambda: "x") == "x"


def test_what_waits_for_ever_is_left_behind_when_all_is_to_stop() -> None:
    waits, stops = threading.Event(), threading.Event()

    def source() -> Generator[int, None, None]:
        yield 1
        waits.set()
        stops.wait(60)

    read = cancel.in_background(source())
    assert next(read) == 1
    assert waits.wait(10)
    started = time.monotonic()
    with cancel.cancelling():
        with pytest.raises(Failure, match="stopped"):
            next(read)
        with pytest.raises(Failure, match="stopped"):
            cancel.call_in_background(lambda: stops.wait(60))
        with pytest.raises(Failure, match="stopped"):
            cancel.sleep(60)
    assert time.monotonic() - started < 5
    stops.set()


def test_what_nobody_wants_any_more_is_closed() -> None:
    closed = threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    read = cancel.in_background(source())
    assert next(read) == 0
    del read
    assert closed.wait(10)
