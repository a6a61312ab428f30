"""The watch of the data server: one that runs and answers no data is restarted, then less often."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.unit.guest.guest_copy import Guest, edit

BES = "release-hung"
ALL = "systemctl try-restart one.service two.service"


@pytest.fixture
def watch(guest: Guest) -> Iterator[subprocess.Popen[str]]:
    """The watch over a server of two units, which checks a hundred times as often as usual."""
    program = guest.root / "usr/lib/hyrax-vm/server-watch"
    for before, after in (("PAUSE=20 ", "PAUSE=0.05 "), ("START=20 ", "START=8 "),
                          ("LONGEST=96 ", "LONGEST=12 "), ("CALM=30 ", "CALM=5 ")):  # fmt: skip
        edit(program, before, after)
    guest.write("usr/lib/hyrax/units", "one.service\ntwo.service\n")
    guest.stand_in("curl", '[ ! -e "$HYRAX_ROOT/silent" ]')
    guest.stand_in("systemctl", '[ "$1" != is-active ] || [ ! -e "$HYRAX_ROOT/stopped-$3" ]')
    process = guest.popen("usr/lib/hyrax-vm/server-watch")
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def with_hook(guest: Guest) -> None:
    hook = guest.root / "usr/lib/hyrax-vm/release-hung"
    hook.write_text(f'#!/bin/sh\necho {BES} >>"$HYRAX_ROOT/calls.log"\n')
    hook.chmod(0o755)


def checks(guest: Guest) -> int:
    return guest.read("calls.log").count("curl ")


def after(guest: Guest, count: int) -> list[str]:
    """Return the calls so far, once there were this many more checks."""
    wanted, end = checks(guest) + count, time.monotonic() + 20
    while checks(guest) < wanted:
        assert time.monotonic() < end, guest.read("calls.log")
        time.sleep(0.02)
    return guest.read("calls.log").splitlines()


def restarts(calls: list[str]) -> list[tuple[str, int]]:
    """Return each restart, with the number of checks before it."""
    found, count = [], 0
    for call in calls:
        count += call.startswith("curl ")
        if call in (BES, ALL):
            found.append((call, count))
    return found


def test_a_server_that_answers_is_left_alone(guest: Guest, watch: subprocess.Popen[str]) -> None:
    calls = after(guest, 8)
    assert restarts(calls) == []
    asked = "http://127.0.0.1:8081/opendap/version"
    assert all(call.endswith(asked) for call in calls if call.startswith("curl ")), calls


def test_one_that_gives_no_data_is_restarted_after_three_checks_and_then_more_rarely(
    guest: Guest, watch: subprocess.Popen[str]
) -> None:
    with_hook(guest)
    guest.write("silent", "")
    found = restarts(after(guest, 45))
    assert [what for what, _ in found][:4] == [BES, ALL, ALL, ALL]
    assert found[0][1] <= 4
    gaps = [later - earlier for (_, earlier), (_, later) in pairwise(found)]
    assert gaps[:3] == [6, 12, 12]
    # After a calm time, it is again the cheap way first.
    (guest.root / "silent").unlink()
    before = len(restarts(after(guest, 8)))
    guest.write("silent", "")
    assert [what for what, _ in restarts(after(guest, 5))[before:]] == [BES]


def test_without_a_hook_all_units_are_restarted(guest: Guest, watch: subprocess.Popen[str]) -> None:
    guest.write("silent", "")
    assert [what for what, _ in restarts(after(guest, 5))] == [ALL]


def test_two_failed_checks_are_not_three(guest: Guest, watch: subprocess.Popen[str]) -> None:
    # Each third answer is good.
    guest.stand_in(
        "curl",
        '[ $(($(grep -c "^curl " "$HYRAX_ROOT/calls.log") % 3)) -eq 0 ]',
    )
    assert restarts(after(guest, 15)) == []


@pytest.mark.parametrize("why", ["run/hyrax/away/sst", "stopped-two.service"])
def test_it_waits_while_a_data_set_is_away_or_the_server_is_stopped(
    guest: Guest, watch: subprocess.Popen[str], why: str
) -> None:
    guest.write(why, "")
    guest.write("silent", "")
    assert restarts(after(guest, 12)) == []
    (guest.root / why).unlink()
    assert len(restarts(after(guest, 5))) == 1


def test_a_server_that_starts_has_more_time(guest: Guest, watch: subprocess.Popen[str]) -> None:
    guest.write("stopped-hyrax-ready.service", "")
    guest.write("silent", "")
    assert restarts(after(guest, 5)) == []
    assert len(restarts(after(guest, 5))) == 1
