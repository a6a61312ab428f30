"""The watchdog cuts off a data set that hangs, and nothing else."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.unit.guest.guest_copy import Guest, edit

STAT = r"""
for last; do :; done
name=${last##*/}
[ ! -e "$HYRAX_ROOT/hang-$name" ] || sleep 30
"""
TRIAL = r"""
name=$(ls "$HYRAX_ROOT" | sed -n s/^hang-//p)
[ -z "$name" ] || sleep 30
"""

STALLED = (
    "systemctl list-units --all --plain --no-legend --state=activating,failed "
    "srv-hyrax-data-*.mount"
)


@pytest.fixture
def watched(guest: Guest) -> Guest:
    """A guest with two mounted data sets; a file `hang-NAME` in its root makes one hang."""
    for name in ("one", "two"):
        guest.write(f"etc/hyrax/data.d/{name}.conf", f"NAME={name}\nURL=nfs://127.0.0.1:1/{name}\n")
        path = guest.root / "proc/self/mounts"
        path.write_text(path.read_text() + f"srv:/{name} /srv/hyrax/data/{name} nfs4 ro 0 0\n")
        (guest.root / "srv/hyrax/data" / name).mkdir(parents=True)
    for name, body in (("stat", STAT), ("unshare", TRIAL)):
        guest.stand_in(name, body)
    for before, after in (
        ("PAUSE=3 ", "PAUSE=0.2 "),
        ("DEADLINE=4 ", "DEADLINE=1 "),
        ("with_deadline 12", "with_deadline 1"),
    ):
        edit(guest.root / "usr/lib/hyrax-vm/watchdog", before, after)
    guest.write(
        "usr/lib/hyrax-vm/release-hung", '#!/bin/sh\necho released >>"$HYRAX_ROOT/calls.log"\n'
    )
    (guest.root / "usr/lib/hyrax-vm/release-hung").chmod(0o755)
    return guest


@pytest.fixture
def watchdog(watched: Guest) -> Iterator[Guest]:
    process = watched.popen("usr/lib/hyrax-vm/watchdog")
    try:
        yield watched
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_data_sets_that_answer_are_left_alone(watchdog: Guest) -> None:
    until(lambda: watchdog.read("calls.log").count("stat -f") > 4)
    calls = watchdog.read("calls.log")
    assert "umount" not in calls
    assert set(re.findall("systemctl .*", calls)) == {STALLED}


def test_one_that_hangs_is_detached_the_other_stays_and_it_comes_back(watchdog: Guest) -> None:
    away = watchdog.root / "run/hyrax/away"
    watchdog.write("hang-one", "")
    until((away / "one").exists)
    until(lambda: "released" in watchdog.read("calls.log"))
    mounts = watchdog.read("proc/self/mounts")
    assert "/srv/hyrax/data/one" not in mounts
    assert "/srv/hyrax/data/two" in mounts
    calls = watchdog.read("calls.log")
    assert_cut_off(calls, "one")
    assert "data-two" not in calls
    # Meanwhile, the watchdog takes care of the other one.
    before = calls.count("data/two")
    until(lambda: watchdog.read("calls.log").count("data/two") > before + 2)
    status, out, _ = watchdog.data("status", "one")
    assert status == 1
    assert "away" in out
    assert "comes back by itself" in out
    watchdog.run("usr/lib/hyrax-vm/banner")
    assert "one (away" in watchdog.read("run/hyrax/issue")

    (watchdog.root / "hang-one").unlink()
    until(lambda: not (away / "one").exists())
    until(lambda: "systemctl start srv-hyrax-data-one.automount" in watchdog.read("calls.log"))
    assert watchdog.read("calls.log").count("released") == 1


def assert_cut_off(calls: str, name: str) -> None:
    """Check the order in which a data set is detached.

    Process 1 never unmounts the data of a hung file server itself, so they go first. The automount
    goes before the mount, in a job of its own that waits for no other: systemd stops a mount before
    its automount (job_compare), and readers would wait for a mount that was begun in between.
    """
    unit = f"srv-hyrax-data-{name}"
    steps = re.findall(f"(?:umount|systemctl stop|systemctl reset-failed) .*data.{name}.*", calls)
    assert steps == [
        f"umount --lazy --force --no-canonicalize /srv/hyrax/data/{name}",
        f"systemctl stop --job-mode=ignore-dependencies {unit}.automount",
        f"systemctl stop {unit}.mount",
        f"systemctl reset-failed {unit}.mount",
    ]


def test_a_reader_that_mounts_it_again_meanwhile_stops_nothing(watchdog: Guest) -> None:
    """A mount that is there again is unmounted, before and after the file server comes back."""
    again = "srv:/one /srv/hyrax/data/one nfs4 ro 0 0"
    # It is there when systemd has killed its mount, and again when the trial mount succeeds.
    edit(
        watchdog.bin / "systemctl",
        'case "$1 $2" in',
        f'case "$*" in "stop srv-hyrax-data-one.mount") echo "{again}" >>"$mounts"; exit ;; esac\n'
        'case "$1 $2" in',
    )
    watchdog.write("hang-one", "")
    until(lambda: "released" in watchdog.read("calls.log"))
    assert again not in watchdog.read("proc/self/mounts")
    mounts = watchdog.root / "proc/self/mounts"
    mounts.write_text(mounts.read_text() + again + "\n")
    (watchdog.root / "hang-one").unlink()
    until(lambda: not (watchdog.root / "run/hyrax/away/one").exists())
    assert again not in watchdog.read("proc/self/mounts")
    assert watchdog.read("calls.log").count("umount ") == 3


def test_one_that_is_removed_while_it_is_away_is_forgotten(watchdog: Guest) -> None:
    watchdog.write("hang-one", "")
    mark = watchdog.root / "run/hyrax/away/one"
    until(mark.exists)
    (watchdog.root / "etc/hyrax/data.d/one.conf").unlink()
    until(lambda: not mark.exists())


def test_nothing_that_is_not_mounted_is_touched(watched: Guest) -> None:
    watched.write("proc/self/mounts", "systemd-1 /srv/hyrax/data/one autofs rw 0 0\n")
    process = watched.popen("usr/lib/hyrax-vm/watchdog")
    # In five rounds the watchdog does not look at the data sets.
    until(lambda: watched.read("calls.log").count(STALLED) > 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "stat -f" not in watched.read("calls.log")
