"""hyrax-setup's menu: the real whiptail on a pseudo-terminal."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest
from tests.unit.guest.terminal import ENTER, ESCAPE, ESCAPE_TWICE, INTERRUPT, Menu

SETTINGS = """\
EMAIL [a-z.]+@[a-z.]+ hyrax-server.service who is asked
TYPES (nc|h5):[a-z*.]+ hyrax-server.service names of data files
"""
# Rows of the main menu.
DATA, NETWORK, PASSWORD, SSH, SERVER, HTTPS, UPGRADES, DIAGNOSE = range(8)


@pytest.fixture
def machine(guest: Guest) -> Guest:
    guest.write("usr/lib/hyrax/settings", SETTINGS)
    guest.write("etc/systemd/system/multi-user.target.wants/hyrax.target", "")
    (guest.root / "home/opendap").mkdir(parents=True)
    return guest


def adding(machine: Guest, answers: dict[str, str]) -> Menu:
    """Open the menu of a machine without data, and describe a data set up to its name."""
    menu = Menu(machine)
    menu.choose("Data are served at http://192.0.2.7:8080/opendap/", DATA)
    menu.choose("There are none yet.", 0)
    for words, answer in answers.items():
        menu.answer(words, answer)
    return menu


def leave(menu: Menu) -> None:
    """Leave the menu from a menu below the main one."""
    menu.press(ESCAPE_TWICE)
    menu.see("Data are served at")
    menu.press(ESCAPE_TWICE)
    assert menu.end() == 0


def test_an_nfs_export_is_added_tested_and_removed(machine: Guest, port: int) -> None:
    before = machine.state()
    host = f"127.0.0.1:{port}"
    menu = adding(
        machine,
        {"The computer that has the data": host, "The folder that it exports": "/sea level/2020"},
    )
    menu.answer("The name of the data set")
    shown = menu.see("Press Enter")
    url = f"nfs://127.0.0.1:{port}/sea%20level/2020"
    assert f"The same by command:\r\n    hyrax-data add {url} --as 2020\r\n" in shown
    assert "http://192.0.2.7:8080/opendap/data/2020/\r\n\r\nDone." in shown
    assert f"NAME=2020\nURL={url}\n" in machine.read("etc/hyrax/data.d/2020.conf")
    menu.press(ENTER)
    menu.choose("Served now (1): 2020", 5)
    menu.answer("Which one do you want to stop")
    menu.answer("Stop serving 2020?")  # "no" is what Enter means
    menu.choose("Served now (1): 2020", 5)
    menu.answer("Which one")
    menu.answer("Stop serving", "\t")
    assert "2020 is no longer served" in menu.answer("Press Enter")
    menu.see("There are none yet.")
    leave(menu)
    assert machine.state() == before


def test_one_that_cannot_be_reached_is_kept_only_if_wanted(
    machine: Guest, closed_port: int
) -> None:
    before = machine.state()
    menu = Menu(machine)
    menu.choose("Data are served", DATA)
    for wanted in (False, True):
        menu.choose("There are none yet.", 0)
        menu.see("The computer that has the data")
        # The second try begins with what was typed in the first.
        menu.press(*([] if wanted else [f"127.0.0.1:{closed_port}"]), ENTER)
        menu.answer("The folder that it exports", *([] if wanted else ["sst"]))
        menu.answer("The name of the data set")
        shown = menu.see("Press Enter")
        assert "refuses connections" in shown
        assert "That did not work." in shown
        assert machine.state() == before
        menu.press(ENTER)
        menu.answer("Keep it", *(["\t"] if wanted else []))
    assert "--as sst --force" in menu.answer("Press Enter")
    menu.see("Served now (1): sst")
    leave(menu)


@pytest.fixture
def curt_port() -> Iterator[int]:
    """A TCP port on 127.0.0.1 that sends nothing and closes the connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_share_asks_for_its_password_and_names_it_nowhere(machine: Guest, curt_port: int) -> None:
    machine.pretend_access("smb")
    host = f"127.0.0.1:{curt_port}"
    menu = adding(
        machine,
        {"The Windows computer": host, "The share": "sst\\2020", "A user who": "SHIP\\me"},
    )
    menu.answer("The name of the data set")
    shown = menu.see("Password of SHIP\\me on 127.0.0.1:")
    command = f"hyrax-data add smb://{host}/sst/2020 --user 'SHIP\\me' --as 2020"
    assert command in shown
    menu.press("topsecret", ENTER)
    # No SMB server listens here.
    assert "That did not work" in menu.answer("Press Enter")
    menu.see("Keep it")
    menu.press(ESCAPE)
    menu.see("There are none")
    leave(menu)
    assert "topsecret" not in machine.read("calls.log")


def test_a_setting_of_the_server(machine: Guest) -> None:
    menu = Menu(machine)
    menu.choose("Data are served", SERVER)
    menu.answer("who is asked")
    menu.answer("email: who is asked", "nobody")
    assert "'nobody' is not valid for email; expected: who is asked" in menu.answer("Press Enter")
    menu.answer("names of data files")
    menu.answer("email:", "me@example.org")
    shown = menu.see("Press Enter")
    assert "hyrax-server set email me@example.org\r\n" in shown
    assert "email is now me@example.org" in shown
    assert machine.read("etc/hyrax/server.conf") == "EMAIL=me@example.org\n"
    menu.press(ENTER)
    menu.choose("me@example.org: who is asked", 1)
    menu.answer("types:", "nc:*.dat")
    # Quoted, so that it can be pasted into a shell.
    assert "hyrax-server set types 'nc:*.dat'\r\n" in menu.answer("Press Enter")
    menu.choose("nc:*.dat: names", 1)
    menu.answer("types:", "\x7f" * 8)
    assert "types is now the default" in menu.answer("Press Enter")
    menu.see("names of data files")
    leave(menu)
    assert machine.read("etc/hyrax/server.conf") == "EMAIL=me@example.org\n"


def test_a_key_is_let_in_and_taken_away(machine: Guest, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@pc", "-f", tmp_path / "key"],
        check=True,
    )
    key = (tmp_path / "key.pub").read_text().strip()
    menu = Menu(machine)
    menu.choose("Data are served", SSH)
    menu.choose("SSH accepts keys only", 2)
    menu.answer("The public key", key)
    shown = menu.see("Press Enter").replace("\r\n", "")
    assert f"hyrax-setup ssh-key add '{key}'" in shown
    assert "this key may log in now: SHA256:" in shown
    assert machine.read("home/opendap/.ssh/authorized_keys") == f"{key}\n"
    menu.press(ENTER)
    menu.choose("SSH accepts keys only", 3)
    menu.answer("Which key do you want to remove")
    assert "may not log in any more" in menu.see("Press Enter")
    assert machine.read("home/opendap/.ssh/authorized_keys") == ""
    menu.press(ENTER)
    menu.see("SSH accepts")
    leave(menu)


def test_a_wrong_address_is_told_and_changes_nothing(machine: Guest) -> None:
    before = machine.state()
    menu = Menu(machine)
    menu.choose("Data are served", NETWORK)
    menu.choose("Addresses: 192.0.2.7", 2)
    menu.answer("The address and, after", "10.0.0.300/24")
    menu.answer("The gateway", "10.0.0.1")
    menu.answer("The name servers")
    shown = menu.see("Press Enter")
    assert "hyrax-network static 10.0.0.300/24 --gateway 10.0.0.1 --dns 10.0.0.1\r\n" in shown
    assert "10.0.0.300" in shown.split("--dns", 1)[1]
    assert "That did not work" in shown
    menu.press(ENTER)
    menu.see("Addresses:")
    leave(menu)
    assert machine.state() == before


def test_the_password_is_set_by_passwd(machine: Guest) -> None:
    menu = Menu(machine)
    menu.choose("Data are served", PASSWORD)
    menu.answer("Set the password of opendap now?", "\t")
    shown = menu.see("Press Enter")
    assert "passwd" in shown and "Done." in shown
    menu.press(ENTER)
    menu.see("Data are served")
    menu.press(ESCAPE)
    assert menu.end() == 0
    assert "passwd" in machine.read("calls.log")


def test_escape_goes_back_everywhere_and_changes_nothing(machine: Guest) -> None:
    before, calls = machine.state(), machine.read("calls.log")
    menu = Menu(machine)
    menu.see("Data are served")
    # (row of the main menu, words there, row below, words there)
    for row, words, below, deeper in (
        (DATA, "none yet.", 0, "The computer that"),
        (DATA, "none yet.", 3, "There are none yet."),
        (NETWORK, "Addresses:", 2, "The address and"),
        (NETWORK, "Addresses:", 3, "Addresses of the"),
        (NETWORK, "Addresses:", 4, "The name of this VM"),
        (SSH, "SSH accepts", 2, "The public key"),
        (SSH, "SSH accepts", 3, "There are no keys."),
        (SERVER, "Settings of", 0, "leave this empty for the default"),
        (DIAGNOSE, "Begin with status", 1, "There are none yet."),
    ):
        menu.pick(row)
        menu.choose(words, below)
        menu.see(deeper)
        menu.press(ESCAPE_TWICE)
        menu.see(words)
        menu.press(ESCAPE_TWICE)
        menu.see("Data are served")
    for row, words in ((PASSWORD, "Set the password"), (UPGRADES, "Debian's security upgrades")):
        menu.pick(row)
        menu.see(words)
        menu.press(ESCAPE_TWICE)
        menu.see("Data are served")
    menu.press(ESCAPE)
    assert menu.end() == 0
    assert machine.state() == before
    changing = [line for line in machine.read("calls.log")[len(calls) :].splitlines()]
    assert {line.split()[0] for line in changing} <= {"ip", "systemctl"}
    assert {line.split()[1] for line in changing if line[0] == "s"} == {"is-active"}


def test_ctrl_c_ends_the_command_and_not_the_menu(machine: Guest, port: int) -> None:
    before = machine.state()
    menu = adding(
        machine, {"The computer": f"127.0.0.1:{port}", "The folder that it exports": "sst"}
    )
    machine.write("pause", "^mount")
    menu.answer("The name of the data set")
    menu.see("--as sst")
    deadline = time.monotonic() + 20
    while (machine.root / "pause").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    menu.press(INTERRUPT)
    assert "Interrupted." in menu.see("Press Enter")
    assert machine.state() == before
    menu.press(ENTER)
    menu.see("none yet")
    leave(menu)


@pytest.mark.parametrize(
    ("size", "term"), [((0, 0), "vt220"), ((24, 80), "linux"), ((14, 50), "xterm-something")]
)
def test_sizes_and_kinds_of_terminals(machine: Guest, size: tuple[int, int], term: str) -> None:
    menu = Menu(machine, size, term)
    menu.see("diagnose" if size != (14, 50) else "Leave")
    menu.press(ESCAPE)
    assert menu.end() == 0


@pytest.mark.parametrize(
    ("size", "term", "said"),
    [
        ((10, 80), "vt220", "has 10 lines of 80 characters; the menu needs 14 lines of 50"),
        ((25, 80), "dumb", "this terminal (TERM=dumb) cannot show a menu"),
    ],
)
def test_a_terminal_that_cannot_show_it(
    machine: Guest, size: tuple[int, int], term: str, said: str
) -> None:
    menu = Menu(machine, size, term)
    menu.see(said)
    assert menu.end() == 2


def test_the_first_line_tells_when_nothing_is_served(machine: Guest) -> None:
    (machine.root / "etc/systemd/system/multi-user.target.wants/hyrax.target").unlink()
    menu = Menu(machine)
    menu.see("No data are served now; choose 'diagnose' to see why.")
    menu.press(ESCAPE)
    assert menu.end() == 0


def test_without_a_terminal_it_is_one_line(machine: Guest) -> None:
    status, out, err = machine.run("usr/bin/hyrax-setup")
    assert (status, out) == (2, "")
    assert err == (
        "hyrax-setup: the menu needs a terminal; "
        "for commands that do not, see: hyrax-setup --help\n"
    )
