"""`hyrax-server https --acme`: real nginx, uacme and clients; pebble is the ACME server."""

from __future__ import annotations

import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guest.front_door import DataServer
from tests.unit.guest.guest_copy import Guest, edit
from tests.unit.guest.https_door import (
    ECHO,
    PEM,
    Certificates,
    HttpsDoor,
    Pebble,
    banner,
    opened,
    use,
)


@pytest.fixture
def door(guest: Guest, server: DataServer) -> Iterator[HttpsDoor]:
    with opened(guest, server.port) as made:
        yield made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    found = Certificates(tmp_path_factory.mktemp("certificates") / "made")
    found.make("good")
    return found


@pytest.fixture
def pebble(door: HttpsDoor, made: Certificates, tmp_path: Path) -> Iterator[Pebble]:
    found = Pebble(tmp_path / "pebble", made, door)
    yield found
    found.stop()


def acme(door: HttpsDoor, pebble: Pebble, host: str, *more: str) -> tuple[int, str, str]:
    return door.https(
        "--acme", host, "--email", "me@example.org", "--directory", pebble.directory, *more
    )


def test_a_certificate_comes_from_an_acme_server_and_is_renewed(
    door: HttpsDoor, pebble: Pebble, tmp_path: Path
) -> None:
    status, out, err = acme(door, pebble, "dap.example.org")
    assert status == 0, err
    assert out.startswith("HTTPS is on: https://dap.example.org/opendap/")
    (tmp_path / "root.pem").write_bytes(pebble.issuer())
    assert door.fetch(ECHO, tmp_path / "root.pem")[0] == 200
    for key in (door.guest.root / "etc/hyrax/https").rglob("*.pem"):
        assert "cert" in key.name or stat.S_IMODE(key.stat().st_mode) in (0o600, 0o400), key
    # Port 80 answers the ACME server, and sends others to HTTPS.
    plain = subprocess.run(
        ["/usr/bin/curl", "-s", "-i", "-H", "Host: dap.example.org", f"http://127.0.0.1:{door.acme_port}{ECHO}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"Location: https://dap.example.org{ECHO}" in plain

    # The timer leaves a good one alone, and renews one that ends soon.
    before = (door.guest.root / PEM).read_text()
    assert door.guest.run("usr/lib/hyrax-vm/certificate")[0] == 0
    assert (door.guest.root / PEM).read_text() == before
    edit(door.guest.root / "usr/lib/hyrax-vm/https.sh", "RENEW_DAYS=33 ", "RENEW_DAYS=9999 ")
    status, _, err = door.guest.run("usr/lib/hyrax-vm/certificate")
    assert status == 0, err
    after = (door.guest.root / PEM).read_text()
    assert after != before
    assert door.fetch(ECHO, tmp_path / "root.pem")[0] == 200

    # One that cannot be renewed is served on, and the banner says why.
    pebble.stop()
    status, _, err = door.guest.run("usr/lib/hyrax-vm/certificate")
    assert (status, err.count("\n")) == (1, 1)
    assert "the certificate for dap.example.org is not renewed" in err
    assert (door.guest.root / PEM).read_text() == after
    assert door.fetch(ECHO, tmp_path / "root.pem")[0] == 200


@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
def test_a_domain_that_does_not_lead_here_changes_nothing(
    door: HttpsDoor, made: Certificates, pebble: Pebble, on: bool
) -> None:
    if on:
        assert use(door, made, "good")[0] == 0
    before = door.guest.state()
    door.guest.stand_in("getent", "echo '240.0.0.1 STREAM x'")
    status, out, err = acme(door, pebble, "away.example.org")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "no certificate for away.example.org: " in err
    assert "away.example.org leads to 240.0.0.1, this VM is 192.0.2.7: port 80 there must" in err
    assert door.guest.state() == before
    assert door.get(ECHO).status == 200
    if on:
        assert door.fetch(ECHO, made.folder / "ca.pem")[0] == 200
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", door.acme_port)).close()


def test_later_means_that_the_timer_gets_it(door: HttpsDoor, pebble: Pebble) -> None:
    status, out, err = acme(door, pebble, "dap.example.org", "--later")
    assert (status, err) == (0, "")
    assert out.startswith("HTTPS begins as soon as dap.example.org has a certificate")
    assert "there is no certificate yet" in banner(door)
    assert door.guest.run("usr/lib/hyrax-vm/certificate")[0] == 0
    assert door.fetch(ECHO)[0] == 200
    assert "https:     https://dap.example.org/opendap/\n" in banner(door)
