"""`hyrax-server https` with files and self-signed: real nginx, openssl and clients."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.guest.front_door import DataServer
from tests.unit.guest.guest_copy import Guest, Pattern
from tests.unit.guest.https_door import (
    ECHO,
    HERE,
    PEM,
    Certificates,
    HttpsDoor,
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
    found.make("other")
    found.make("elsewhere", "DNS:data.example.org,DNS:*.example.net")
    found.make("ended", begin=-20, end=-2)
    found.make("future", begin=2)
    found.make("short", end=12)
    found.run("ec", "-in", "good.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key")
    found.run("x509", "-in", "good.pem", "-outform", "der", "-out", "good.der")
    found.run("req", "-x509", "-newkey", "rsa:1024", "-noenc", "-subj", "/CN=weak",
              "-addext", f"subjectAltName=IP:{HERE}",
              "-keyout", "weak.key", "-out", "weak.pem")  # fmt: skip
    return found


@pytest.fixture(scope="module")
def served(
    pattern: Pattern, made: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpsDoor]:
    """One front door with the certificate `good`, for tests after which it is as before."""
    server = DataServer()
    try:
        with opened(Guest(tmp_path_factory.mktemp("served"), pattern), server.port) as door:
            assert use(door, made, "good")[0] == 0
            yield door
    finally:
        server.stop()


def handshake(door: HttpsDoor, *options: str) -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{door.https_port}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout + done.stderr


# ------------------------------------------------------------------------ on and off


def test_a_certificate_is_served_and_off_undoes_all_of_it(
    door: HttpsDoor, made: Certificates
) -> None:
    before = door.guest.state()
    with pytest.raises(OSError):
        door.fetch(ECHO)
    status, out, err = use(door, made, "good")
    assert status == 0, err
    assert out.startswith(f"HTTPS is on: https://{HERE}/opendap/, certificate until 20")
    assert err.startswith("hyrax-server: readers' computers must trust the issuer")
    code, body = door.fetch(ECHO, made.folder / "ca.pem")
    seen = json.loads(body)["headers"]
    assert (code, seen["X-Forwarded-Proto"]) == (200, "https")
    assert seen["X-Forwarded-Port"] == str(door.https_port)
    # Port 8080 answers as before.
    assert door.seen(ECHO)["x-forwarded-proto"] == "http"
    assert f"https:     https://{HERE}/opendap/\n" in banner(door)
    said = json.loads(door.https("--json")[1])
    assert (said["method"], said["url"], said["redirect"]) == (
        "files",
        f"https://{HERE}/opendap/",
        False,
    )
    assert (said["days"], said["problem"]) == (89, None)
    assert said["fingerprint"] in handshake_fingerprint(door)

    status, out, _ = door.https("off")
    assert (status, out) == (
        0,
        f"HTTPS is off; data are served at http://{HERE}:{door.port}/opendap/\n",
    )
    with pytest.raises(OSError):
        door.fetch(ECHO)
    assert door.seen(ECHO)["x-forwarded-proto"] == "http"
    assert door.guest.state() == before
    assert json.loads(door.https("--json")[1]) == {"method": None}


def handshake_fingerprint(door: HttpsDoor) -> str:
    shown = re.search("-----BEGIN.*END CERTIFICATE-----", handshake(door), re.S)
    assert shown
    return subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
        input=shown[0],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_key_is_for_nginx_only_and_not_in_the_support_file(
    door: HttpsDoor, made: Certificates, tmp_path: Path
) -> None:
    assert use(door, made, "good")[0] == 0
    pem = door.guest.root / PEM
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    key = (made.folder / "good.key").read_text().split("\n")[1]
    assert key in pem.read_text()
    left = [
        path
        for path in door.guest.root.rglob("*")
        if path.is_file() and key in path.read_text("latin-1")
    ]
    assert left == [pem]
    file = tmp_path / "support.tar.gz"
    assert door.guest.run("usr/bin/hyrax-setup", "support", str(file))[0] == 0
    text = subprocess.run(["tar", "-xzOf", file], capture_output=True, check=True).stdout.decode()
    assert "server.pem" in text
    assert f"METHOD=files\nHOST={HERE}\n" in text
    assert key not in text and "PRIVATE KEY" not in text


@pytest.mark.parametrize(
    ("options", "spoken"),
    [(["-tls1_3"], "TLSv1.3"), (["-tls1_2"], "TLSv1.2"), (["-tls1_1"], None), (["-tls1"], None),
     (["-tls1_2", "-cipher", "AES128-SHA"], None),
     (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], None)],
)  # fmt: skip
def test_only_modern_tls_is_spoken(
    served: HttpsDoor, options: list[str], spoken: str | None
) -> None:
    # Debian's OpenSSL itself refuses old versions above level 0.
    cipher = options if "-cipher" in options else [*options, "-cipher", "ALL:@SECLEVEL=0"]
    said = handshake(served, *cipher)
    if spoken is None:
        assert "alert protocol version" in said or "alert handshake failure" in said
    else:
        assert f"New, {spoken}, Cipher is " in said


def test_http_2_is_spoken_with_https_and_range_and_cors_are_alike(served: HttpsDoor) -> None:
    url = f"https://127.0.0.1:{served.https_port}{ECHO}"
    done = subprocess.run(
        ["/usr/bin/curl", "-s", "-k", "-i", "--http2", url],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert done.stdout.startswith("HTTP/2 200")
    assert "access-control-allow-origin: *" in done.stdout.lower()


def test_redirect_sends_readers_but_not_this_machine_and_not_health(
    door: HttpsDoor, made: Certificates
) -> None:
    assert use(door, made, "good", "--redirect")[0] == 0
    assert door.get(ECHO).status == 200  # the loopback
    door.guest.run("usr/bin/hyrax-server", "set", "proxy", "127.0.0.1")
    reader = {"X-Forwarded-For": "198.51.100.7", "Host": f"data.example.org:{door.port}"}
    answer = door.get(f"{ECHO}?a[0:1]", reader)
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://data.example.org{ECHO}?a[0:1]"
    assert door.get("/health", reader).status in (200, 503)
    assert door.get(ECHO, {**reader, "X-Forwarded-Proto": "https"}).status == 200
    assert door.https("--no-redirect")[0] == 0
    assert door.get(ECHO, reader).status == 200
    assert door.fetch(ECHO, made.folder / "ca.pem")[0] == 200


# ------------------------------------------------------------------------ bad input


WRONG = pytest.mark.parametrize(
    ("cert", "key", "more", "said"),
    [
        ("good.pem", "other.key", [], "does not fit the key"),
        ("ended.pem", "ended.key", [], "the certificate has ended on 20"),
        ("future.pem", "future.key", [], "the certificate begins on 20"),
        ("elsewhere.pem", "elsewhere.key", [], "for data.example.org *.example.net, and this VM"),
        ("good.pem", "good.key", ["--host", "data.example.org"], "192.0.2.7, not for 'data.exa"),
        ("good.pem", "good.key", ["--host", "a;b"], "'a;b' is not a host name"),
        ("good.pem", "locked.key", [], "needs a passphrase"),
        ("good.der", "good.key", [], "not a certificate in PEM form"),
        ("good.pem", "good.pem", [], "is not a private key in PEM form"),
        ("gone.pem", "good.key", [], "is not a file"),
        ("weak.pem", "weak.key", [], "nginx does not accept this: "),
    ],
)


def refuse(
    door: HttpsDoor, made: Certificates, cert: str, key: str, more: list[str], said: str
) -> None:
    """Assert that a wrong certificate is refused in one line, and that nothing changes."""
    before = door.guest.state()
    status, out, err = door.https(
        f"--cert={made.folder / cert}", f"--key={made.folder / key}", *more
    )
    complaints = [line for line in err.splitlines() if "must trust the issuer" not in line]
    assert (status, out, len(complaints)) == (2, "", 1)
    assert said in complaints[0]
    assert door.guest.state() == before
    assert door.get(ECHO).status == 200


@WRONG
def test_a_wrong_certificate_does_not_switch_https_on(
    door: HttpsDoor, made: Certificates, cert: str, key: str, more: list[str], said: str
) -> None:
    refuse(door, made, cert, key, more, said)
    with pytest.raises(OSError):
        door.fetch(ECHO)


@WRONG
def test_with_a_wrong_certificate_the_old_one_is_served_on(
    served: HttpsDoor, made: Certificates, cert: str, key: str, more: list[str], said: str
) -> None:
    refuse(served, made, cert, key, more, said)
    assert served.fetch(ECHO, made.folder / "ca.pem")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cert", "a.pem"], "--cert and --key belong together"),
        (["--cert"], "--cert needs a value"),
        (["--self-signed", "--acme", "a.example.org"], "choose one of"),
        (["--acme", "dap"], "'dap' is not a domain name"),
        (["--acme", "dap.example.org"], "--acme needs --email"),
        (["--acme", "dap.example.org", "--email", "me"], "--acme needs --email"),
        (["--acme", "dap.example.org", "--email", "a@b.c", "--directory", "ftp://x"], "is not an https://"),
        (["--redirect"], "HTTPS is off"),
        (["--fly"], "'--fly' is not an option"),
        (["renew"], "only a certificate from an ACME server"),
        (["off", "now"], "off takes nothing after it"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(guest: Guest, arguments: list[str], said: str) -> None:
    before = guest.state()
    status, out, err = guest.run("usr/bin/hyrax-server", "https", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert guest.state() == before


def test_a_name_that_leads_here_or_that_is_given_is_good(
    door: HttpsDoor, made: Certificates
) -> None:
    assert use(door, made, "elsewhere", "--host", "data.example.org")[0] == 0
    assert json.loads(door.https("--json")[1])["url"] == "https://data.example.org/opendap/"
    assert use(door, made, "elsewhere", "--host", "any.example.net")[0] == 0
    door.guest.stand_in("getent", f'[ "$2" != data.example.org ] || echo "{HERE} STREAM $2"')
    assert use(door, made, "elsewhere")[0] == 0
    assert json.loads(door.https("--json")[1])["url"] == "https://data.example.org/opendap/"


def test_a_certificate_that_ends_soon_is_on_the_banner(door: HttpsDoor, made: Certificates) -> None:
    assert use(door, made, "good")[0] == 0
    assert "the certificate" not in banner(door)
    assert use(door, made, "short")[0] == 0
    assert "the certificate ends on 20" in banner(door)
    row = next(r for r in links(door) if r["link"] == "https")
    assert (row["state"], "ends on" in row["detail"]) == ("ok", True)
    # As time goes by.
    (door.guest.root / PEM).write_text((made.folder / "ended.pem").read_text())
    assert "the certificate has ended on 20" in banner(door)
    assert next(r for r in links(door) if r["link"] == "https")["state"] == "broken"


def links(door: HttpsDoor) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        door.guest.run("usr/bin/hyrax-server", "status", "--json")[1]
    )["links"]
    return found


# ------------------------------------------------------------------------ a self-signed one


def test_a_self_signed_one_is_trusted_by_those_who_have_it(door: HttpsDoor, tmp_path: Path) -> None:
    status, out, err = door.https("--self-signed", "--host", "127.0.0.1")
    assert (status, err) == (0, "")
    said = json.loads(door.https("--json")[1])
    assert said["method"] == "self-signed"
    assert f"Its fingerprint (SHA-256):\n  {said['fingerprint']}\n" in out
    assert said["fingerprint"] in handshake_fingerprint(door)
    # The line that is printed fetches it.
    (line,) = re.findall(r"openssl s_client .*", out)
    subprocess.run(["sh", "-c", f"{line} 2>/dev/null"], cwd=tmp_path, check=True, timeout=20)
    trusted = tmp_path / "hyrax-vm.pem"
    assert door.fetch(ECHO, trusted)[0] == 200
    assert "192.0.2.7" in subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", trusted],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    url = f"https://127.0.0.1:{door.https_port}{ECHO}"
    assert (
        subprocess.run(
            ["/usr/bin/curl", "-sf", "-o", "/dev/null", "--cacert", trusted, url]
        ).returncode
        == 0
    )
    assert subprocess.run(["/usr/bin/curl", "-sf", "-o", "/dev/null", url]).returncode == 60
    before = (door.guest.root / PEM).read_text()
    assert door.guest.run("usr/lib/hyrax-vm/certificate")[0] == 0
    assert (door.guest.root / PEM).read_text() == before


def test_the_settings_file_switches_it_on(door: HttpsDoor) -> None:
    door.guest.write("mine.toml", "[https]\nself_signed = true\nredirect = true\n")
    status, out, err = door.guest.run(
        "usr/bin/hyrax-setup", "apply", str(door.guest.root / "mine.toml")
    )
    assert status == 0, out + err
    said = json.loads(door.https("--json")[1])
    assert (said["method"], said["redirect"]) == ("self-signed", True)
    assert door.fetch(ECHO)[0] == 200
