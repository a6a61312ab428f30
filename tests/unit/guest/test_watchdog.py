"""The watchdog: a data set that hangs is detached and comes back, and the banner follows."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest, edit

AWAY = "run/hyrax/away/sst"


@pytest.fixture
def watchdog(guest: Guest, port: int) -> Iterator[subprocess.Popen[str]]:
    """A guest whose watchdog runs over one data set, ten times as fast as usual."""
    program = guest.root / "usr/lib/hyrax-vm/watchdog"
    for before, after in (
        ("PAUSE=3 ", "PAUSE=0.3 "),
        ("EVERY=5 ", "EVERY=2 "),
        ("DEADLINE=4 ", "DEADLINE=1 "),
        ("with_deadline 12", "with_deadline 1"),
    ):
        edit(program, before, after)
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    process = guest.popen("usr/lib/hyrax-vm/watchdog")
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_it_reports_to_systemd_until_it_hangs(guest: Guest, port: int, tmp_path: Path) -> None:
    program = guest.root / "usr/lib/hyrax-vm/watchdog"
    edit(program, "PAUSE=3 ", "PAUSE=0.1 ")
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        guest.env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        process = guest.popen("usr/lib/hyrax-vm/watchdog")
        try:
            assert "WATCHDOG=1" in (systemd.recv(4096) + systemd.recv(4096)).decode()
            guest.stand_in("systemctl", "exec sleep 60")
            systemd.settimeout(2)
            with pytest.raises(TimeoutError):
                for _ in range(20):
                    systemd.recv(4096)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for_banner(guest: Guest, state: str) -> None:
    end = time.monotonic() + 20
    while f"data sets: sst ({state}" not in (shown := guest.read("run/hyrax/issue")):
        assert time.monotonic() < end, shown
        time.sleep(0.1)


def test_a_file_server_that_goes_away_and_comes_back(
    guest: Guest, port: int, watchdog: subprocess.Popen[str]
) -> None:
    wait_for_banner(guest, "mounted when it is read")
    conf = guest.root / "etc/hyrax/data.d/sst.conf"
    kept = conf.read_text()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        other = closed.getsockname()[1]
    conf.write_text(kept.replace(f":{port}/", f":{other}/"))
    wait_for_banner(guest, "away, 127.0.0.1 does not answer")
    assert not (guest.root / AWAY).exists()
    conf.write_text(kept)
    wait_for_banner(guest, "mounted when it is read")


def test_a_file_server_that_hangs(guest: Guest, watchdog: subprocess.Popen[str]) -> None:
    guest.stand_in("stat", '[ ! -e "$HYRAX_ROOT/hangs" ] || exec sleep 60')
    mounts = guest.read("proc/self/mounts")
    guest.write("proc/self/mounts", f"{mounts}h:/sst /srv/hyrax/data/sst nfs4 ro 0 0\n")
    wait_for_banner(guest, "mounted)")
    guest.write("hangs", "")
    wait_for_banner(guest, "away, 127.0.0.1 does not answer")
    assert (guest.root / AWAY).exists()
    assert "/srv/hyrax/data/sst nfs4" not in guest.read("proc/self/mounts")
    (guest.root / "hangs").unlink()
    wait_for_banner(guest, "mounted when it is read")
    assert not (guest.root / AWAY).exists()
    calls = guest.read("calls.log").splitlines()
    stop = "systemctl stop --job-mode=ignore-dependencies srv-hyrax-data-sst.automount"
    assert calls.count(stop) == 1
    # The second mount is that of add.
    assert calls.count("systemctl start srv-hyrax-data-sst.automount") == 2


def test_one_that_a_reader_waits_for_and_that_cannot_be_mounted(
    guest: Guest, port: int, watchdog: subprocess.Popen[str]
) -> None:
    wait_for_banner(guest, "mounted when it is read")
    guest.write("stalled", "srv-hyrax-data-sst.mount\n")
    # The data set can be mounted: in each of three rounds the reader gets its data.
    end = time.monotonic() + 20
    reset = "systemctl reset-failed srv-hyrax-data-sst.mount"
    while guest.read("calls.log").count(reset) < 3:
        assert not (guest.root / AWAY).exists()
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not (guest.root / AWAY).exists()
    guest.write("mount-says", "mount.nfs4: Connection timed out\n")
    wait_for_banner(guest, "away, 127.0.0.1 does not answer")
    # systemd wakes the waiting reader when it stops the automount, so nobody else unmounts that.
    calls = guest.read("calls.log")
    assert "systemctl stop --job-mode=ignore-dependencies srv-hyrax-data-sst.automount" in calls
    assert "umount " not in calls
    (guest.root / "stalled").unlink()
    (guest.root / "mount-says").unlink()
    wait_for_banner(guest, "mounted when it is read")
    assert not (guest.root / AWAY).exists()
    tries = [line for line in guest.read("calls.log").splitlines() if line.startswith("unshare ")]
    options = f"ro,vers=4,port={port},"
    assert tries and all(options in line and "nofail" not in line for line in tries), tries


def test_what_a_killed_command_has_left_is_put_back(
    guest: Guest, watchdog: subprocess.Popen[str]
) -> None:
    wait_for_banner(guest, "mounted when it is read")
    # `hyrax-data remove` was killed when it had begun.
    (guest.root / "var/lib/hyrax/undo/sst").mkdir()
    end = time.monotonic() + 20
    while list((guest.root / "var/lib/hyrax/undo").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not (guest.root / "etc/hyrax/data.d/sst.conf").exists()
