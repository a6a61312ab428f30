"""hyrax-server, and the watchdog of the data sets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import HEAD, Guest

SETTINGS = "EMAIL [a-z]+@[a-z.]+ hyrax-settings.service,hyrax-bes.service who is asked\n"
UPPER = "var/lib/hyrax/overlay/upper"


@pytest.fixture
def served(guest: Guest) -> Guest:
    guest.write("usr/lib/hyrax/units", "hyrax-bes.service\nhyrax-tomcat.service\n")
    guest.write("usr/lib/hyrax/settings", SETTINGS)
    (guest.root / UPPER).mkdir(parents=True)
    (guest.root / "var/lib/hyrax/overlay/work").mkdir()
    return guest


def server(guest: Guest, *arguments: str) -> tuple[int, str, str]:
    return guest.run("usr/bin/hyrax-server", *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "'fly' is not a command"),
        (["fl\x1b[31my"], "'fl?[31my' is not a command"),
        (["status", "now"], "takes nothing"),
        (["logs", "--all"], "'--all' is not an option"),
        (["set", "email"], "takes a key and a value"),
        (["set", "colour", "red"], "'colour' is not a setting; there are: email"),
        (["set", "email", "me"], "'me' cannot be the email; it is: who is asked"),
        (["set", "email", "a@b\nBES.User=root"], "cannot be the email"),
        (["set", "email", "a@b.c;x"], "cannot be the email"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    served: Guest, arguments: list[str], said: str
) -> None:
    before = served.state()
    status, out, err = server(served, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert served.state() == before


def test_help_names_every_command(served: Guest) -> None:
    status, out, _ = server(served, "--help")
    assert status == 0
    for command in ("status", "restart", "logs", "reset", "console", "set"):
        assert f"hyrax-server {command}" in out
    assert max(map(len, out.splitlines())) <= 79
    assert server(served)[0] == 2


def test_a_setting_is_written_once_and_restarts_what_reads_it(served: Guest) -> None:
    for address in ("a@b.c", "d@e.f"):
        assert server(served, "set", "email", address)[:2] == (0, f"email is now {address}\n")
    assert served.read("etc/hyrax/server.conf") == "EMAIL=d@e.f\n"
    calls = served.read("calls.log")
    assert calls.count("systemctl try-restart hyrax-settings.service hyrax-bes.service") == 2
    assert "hyrax-tomcat" not in calls
    assert server(served, "set")[1].split()[:2] == ["email", "d@e.f"]


def test_a_server_without_settings_says_so(served: Guest) -> None:
    (served.root / "usr/lib/hyrax/settings").unlink()
    status, _, err = server(served, "set", "email", "a@b.c")
    assert status == 1
    assert "has no settings" in err


def test_changed_files_are_told_and_reset(served: Guest) -> None:
    served.write(f"{UPPER}/etc/bes/bes.conf", "mine")
    served.write(f"{UPPER}/home/tomcat/t/work/compiled.class", "x")
    status, out, _ = server(served, "status")
    assert status == 1  # nothing answers here
    assert "differ from the shipped ones: 1\n    /opt/hyrax/etc/bes/bes.conf" in out
    status, out, err = server(served, "reset")
    assert status == 1
    assert "nothing was changed" in err
    assert (served.root / UPPER / "etc/bes/bes.conf").exists()
    assert server(served, "reset", "--yes")[0] == 0
    assert list((served.root / UPPER).iterdir()) == []
    calls = [line for line in served.read("calls.log").splitlines() if "systemctl" in line]
    stop, unmount, start = calls[-3:]
    assert "stop hyrax-bes.service hyrax-tomcat.service" in stop
    assert "stop opt-hyrax.mount" in unmount
    assert "start hyrax-bes.service hyrax-tomcat.service hyrax.target" in start


# ------------------------------------------------------------------------------- the watchdog

STAT = r"""
for last; do :; done
name=${last##*/}
[ ! -e "$HYRAX_ROOT/hang-$name" ] || sleep 30
"""
TRIAL = r"""
name=$(ls "$HYRAX_ROOT" | sed -n s/^hang-//p)
[ -z "$name" ] || sleep 30
"""


@pytest.fixture
def watched(guest: Guest) -> Guest:
    """Two mounted data sets; `hang-NAME` in the root lets one hang."""
    for name in ("one", "two"):
        guest.write(f"etc/hyrax/data.d/{name}.conf", f"NAME={name}\nURL=nfs://192.0.2.1/{name}\n")
        path = guest.root / "proc/self/mounts"
        path.write_text(path.read_text() + f"srv:/{name} /srv/hyrax/data/{name} nfs4 ro 0 0\n")
    for name, body in (("stat", STAT), ("unshare", TRIAL)):
        (guest.bin / name).write_text(HEAD + body)
        (guest.bin / name).chmod(0o755)
    script = guest.root / "usr/lib/hyrax-vm/watchdog"
    text = script.read_text()
    assert "PAUSE=3 " in text
    assert "DEADLINE=4 " in text
    text = text.replace("PAUSE=3 ", "PAUSE=0.2 ").replace("DEADLINE=4 ", "DEADLINE=1 ")
    script.write_text(text.replace("with_deadline 12", "with_deadline 1"))
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
    assert "systemctl" not in calls


def test_one_that_hangs_is_detached_the_other_stays_and_it_comes_back(watchdog: Guest) -> None:
    away = watchdog.root / "run/hyrax/away"
    watchdog.write("hang-one", "")
    until((away / "one").exists)
    until(lambda: "released" in watchdog.read("calls.log"))
    mounts = watchdog.read("proc/self/mounts")
    assert "/srv/hyrax/data/one" not in mounts
    assert "/srv/hyrax/data/two" in mounts
    calls = watchdog.read("calls.log")
    assert "umount --lazy --force --no-canonicalize /srv/hyrax/data/one" in calls
    assert "systemctl stop srv-hyrax-data-one.automount" in calls
    assert "data-two" not in calls
    # The other one is looked after meanwhile.
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


def test_one_that_is_removed_while_it_is_away_is_forgotten(watchdog: Guest) -> None:
    watchdog.write("hang-one", "")
    mark = watchdog.root / "run/hyrax/away/one"
    until(mark.exists)
    (watchdog.root / "etc/hyrax/data.d/one.conf").unlink()
    until(lambda: not mark.exists())


def test_nothing_that_is_not_mounted_is_touched(watched: Guest) -> None:
    watched.write("proc/self/mounts", "systemd-1 /srv/hyrax/data/one autofs rw 0 0\n")
    process = watched.popen("usr/lib/hyrax-vm/watchdog")
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "stat" not in watched.read("calls.log")
