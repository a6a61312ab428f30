"""A hand-edited /etc/hyrax/server.conf: a wrong line is said, and the others count."""

from __future__ import annotations

import json

import pytest

from tests.unit.guest.front_door import FrontDoor
from tests.unit.guest.guest_copy import TREE, Guest

CONF = "etc/hyrax/server.conf"
HYRAX = (TREE.parent / "servers/hyrax/guest/usr/lib/hyrax/settings").read_text()
KEYS = "EMAIL TYPES SYMLINKS HEAP LIMIT_SIZE PROXY"


@pytest.fixture
def vm(guest: Guest) -> Guest:
    guest.write("usr/lib/hyrax/units", "hyrax-bes.service\n")
    guest.write("usr/lib/hyrax/settings", HYRAX)
    return guest


def settings(guest: Guest) -> dict[str, str]:
    """Return what each setting is, as the commands and services read it."""
    _, out, _ = guest.run("usr/bin/hyrax-server", "set")
    rows = (line.split(None, 2) for line in out.splitlines())
    return {row[0]: row[1] for row in rows if row[1] != "-"}


def problems(guest: Guest) -> list[dict[str, str]]:
    _, out, _ = guest.run("usr/bin/hyrax-server", "status", "--json")
    return [link for link in json.loads(out)["links"] if link["link"] == "settings"]


WRONG = [
    ("HEAP=lots", "expected: Java's heap in MB"),
    ("SYMLINKS=maybe", "expected: yes or no: follow symbolic links"),
    ("heap=300", f"expected: KEY=VALUE with one of the keys {KEYS}"),
    ("HEAPP=300", f"expected: KEY=VALUE with one of the keys {KEYS}"),
    ("EMAIL me@example.org", "expected: KEY=VALUE with one of the keys"),
    (" HEAP=300", "expected: KEY=VALUE with one of the keys"),
    ("LIMIT_SIZE=2G\r", "expected: largest answer"),
    ("LIMIT_RATE=fast", "expected: bytes per second"),
    ("x\x1b[31m", "expected: KEY=VALUE"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_a_wrong_line_is_named_and_the_others_count(vm: Guest, line: str, said: str) -> None:
    vm.write(CONF, f"# mine\n\nTYPES=nc:*.dat\n{line}\nANONYMOUS=yes")
    assert settings(vm) == {"types": "nc:*.dat", "anonymous": "yes"}
    (found,) = problems(vm)
    shown = line.replace("\r", "?").replace("\x1b", "?")
    assert found["detail"].startswith(
        f"/etc/hyrax/server.conf, line 4: '{shown}' is not used; {said}"
    )
    assert found["next"] == "sudo nano /etc/hyrax/server.conf; hyrax-server restart"
    status, out, _ = vm.run("usr/bin/hyrax-server", "status")
    assert status == 1
    assert f"! settings               {found['detail']}\n" in out
    vm.run("usr/lib/hyrax-vm/banner")
    assert f"settings:  {found['detail']}"[:200] in vm.read("run/hyrax/issue")


def test_several_wrong_lines_are_counted(vm: Guest) -> None:
    vm.write(CONF, "a\nEMAIL=me@example.org\nb\nc=d\n")
    (found,) = problems(vm)
    assert "line 1: 'a'" in found["detail"]
    assert found["detail"].endswith(" (2 more lines are wrong)")


def test_a_right_file_is_not_mentioned(vm: Guest) -> None:
    for text in ("", "# nothing\n", "HEAP=\n", "EMAIL=me@example.org\nPROXY=192.0.2.1 ::1\n"):
        vm.write(CONF, text)
        assert problems(vm) == []
        vm.run("usr/lib/hyrax-vm/banner")
        assert "settings:" not in vm.read("run/hyrax/issue")
    (vm.root / CONF).unlink()
    assert problems(vm) == []


def test_a_setting_of_the_command_goes_beside_a_wrong_line(vm: Guest) -> None:
    vm.write(CONF, "HEAP=lots\n")
    assert vm.run("usr/bin/hyrax-server", "set", "email", "me@example.org")[0] == 0
    assert vm.read(CONF) == "HEAP=lots\nEMAIL=me@example.org\n"
    # It replaces a wrong line of its own.
    assert vm.run("usr/bin/hyrax-server", "set", "heap", "300")[0] == 0
    assert vm.read(CONF) == "EMAIL=me@example.org\nHEAP=300\n"
    assert problems(vm) == []


def test_the_journal_says_it_when_the_front_door_starts(vm: Guest) -> None:
    vm.write("usr/lib/hyrax/settings", HYRAX)
    door = FrontDoor(vm, behind=9)
    vm.write(CONF, "LIMIT_RATE=fast\nHEAPP=1\nANONYMOUS=yes\n")
    status, _, err = door.write()
    assert (status, err.count("\n")) == (0, 2)
    assert "front-door: /etc/hyrax/server.conf, line 1: 'LIMIT_RATE=fast' is not used; " in err
    assert "front-door: /etc/hyrax/server.conf, line 2: 'HEAPP=1' is not used; " in err
    # nginx has no fault to find: the other settings are used.
    assert not (vm.root / "run/hyrax/front-door.problem").exists()
