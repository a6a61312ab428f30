"""Dead file servers in numbers, a clock that is set back, and names that a terminal would obey."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.unit.guest.guest_copy import Guest, divert_curl

MANY = 30


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of every address of the loopback that drops packets, as a firewall does."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("0.0.0.0", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        # The queue is full: the kernel drops further connections without a word.
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


def test_banner_and_page_are_made_with_many_dead_file_servers(
    guest: Guest, silent: int, port: int, closed_port: int
) -> None:
    for number in range(MANY):
        url = f"nfs://127.0.0.{number + 1}:{silent}/x"
        name = f"n{number}"
        conf = f"NAME={name}\nURL={url}\nLOGIN=\nVERS=4\nOPTIONS=\n"
        guest.write(f"etc/hyrax/data.d/{name}.conf", conf)
    assert guest.data("add", f"nfs://127.0.0.1:{port}/good", "--later")[0] == 0
    divert_curl(guest, closed_port)
    for program in ("banner", "landing"):
        started = time.monotonic()
        assert guest.run(f"usr/lib/hyrax-vm/{program}")[0] == 0
        # Its unit gives both of them a minute, on an emulated processor.
        assert time.monotonic() - started < 15
    shown = guest.read("run/hyrax/issue")
    page = guest.read("run/hyrax/www/index.html")
    assert shown.count("does not answer)") == page.count("away, its file server") == MANY
    assert "good (mounted when it is read)" in shown


def test_a_deadline_does_not_depend_on_the_clock_that_is_set(
    guest: Guest, closed_port: int
) -> None:
    guest.stand_in("date", "echo 1")
    started = time.monotonic()
    status, _, err = guest.run("usr/lib/hyrax-vm/wait-port", str(closed_port), "1")
    assert status == 1 and "nothing listens" in err
    assert guest.run("usr/lib/hyrax-vm/wait-ready", "1")[0] == 1
    assert time.monotonic() - started < 10


HOSTILE = "a\u009b31m\x1b]0;x\x07\u00e9.nc"


def test_a_file_servers_names_do_not_reach_the_terminal(guest: Guest, port: int) -> None:
    guest.write("forbid-head", "")
    guest.write(f"export/{HOSTILE}", "x")
    status, _, err = guest.data("add", f"nfs://127.0.0.1:{port}/sst")
    assert status == 0 and "may not read 'a?31m?]0;x?\u00e9.nc'" in err


def test_what_strangers_have_asked_for_does_not_reach_the_terminal(guest: Guest) -> None:
    guest.write("usr/lib/hyrax/units", "hyrax-server.service\n")
    guest.write("var/log/hyrax-tomcat/access.log", f"GET /{HOSTILE}\tx\n")
    guest.stand_in("journalctl", "")
    _, out, _ = guest.run("usr/bin/hyrax-server", "logs")
    assert "GET /a?31m?]0;x?\u00e9.nc\tx\n" in out
