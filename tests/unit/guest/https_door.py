"""The front door with HTTPS: certificates, and a `systemctl` that reloads the real nginx."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.unit.guest.front_door import FrontDoor, free_port, until
from tests.unit.guest.guest_copy import STAND_INS, Guest, edit

# The address of the guest's stand-in for `ip`.
HERE = "192.0.2.7"
ECHO = "/opendap/echo"
PEM = "etc/hyrax/https/server.pem"
# A reload is over when no old worker accepts connections any more.
RELOAD = r"""case "$*" in
*try-reload-or-restart*hyrax-front-door*)
    pid=$(cat "$HYRAX_ROOT/run/hyrax-front-door/nginx.pid" 2>/dev/null) || exit 0
    old=$(cat "/proc/$pid/task/$pid/children")
    "$HYRAX_ROOT/usr/lib/hyrax-vm/front-door" && kill -HUP "$pid" || exit 1
    for each in $old; do
        until ! [ -e /proc/$each ] || grep -q 'shutting' /proc/$each/cmdline; do sleep 0.02; done
    done 2>/dev/null
    exit 0 ;;
*is-active*hyrax-front-door*) [ -f "$HYRAX_ROOT/run/hyrax-front-door/nginx.pid" ]; exit ;;
esac
"""


class HttpsDoor(FrontDoor):
    """A front door whose ports 443 and 80 are free ports of this machine."""

    def __init__(self, guest: Guest, behind: int) -> None:
        super().__init__(guest, behind)
        self.https_port, self.acme_port = free_port(), free_port()
        library = guest.root / "usr/lib/hyrax-vm/lib.sh"
        edit(library, "\nHTTPS_PORT=443 ", f"\nHTTPS_PORT={self.https_port} ")
        edit(library, "\nHTTP_PORT=80 ", f"\nHTTP_PORT={self.acme_port} ")
        guest.stand_in("systemctl", RELOAD + STAND_INS["systemctl"])

    def https(self, *arguments: str) -> tuple[int, str, str]:
        return self.guest.run("usr/bin/hyrax-server", "https", *arguments)

    def fetch(
        self, path: str, trusted: Path | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Fetch a path over HTTPS; without `trusted`, any certificate will do."""
        context = ssl.create_default_context(cafile=str(trusted) if trusted else None)
        context.check_hostname = False  # it is for another address than 127.0.0.1
        if trusted is None:
            context.verify_mode = ssl.CERT_NONE
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.https_port}{path}", headers=headers or {}
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def opened(guest: Guest, behind: int) -> Iterator[HttpsDoor]:
    """Start a front door before the data server on the port `behind`, and stop it at the end."""
    door = HttpsDoor(guest, behind)
    try:
        door.start()
        yield door
    finally:
        door.stop()


class Certificates:
    """An issuer, and certificates of it, made by openssl in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.run("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=Issuer",
                 "-days", "3650", "-addext", "keyUsage=critical,keyCertSign",
                 "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        (folder / "index").touch()
        (folder / "ca.conf").write_text(
            "[ca]\ndefault_ca = one\n[one]\ndatabase = index\nnew_certs_dir = .\n"
            "rand_serial = yes\n"
            "default_md = sha256\npolicy = any\ncopy_extensions = copy\nunique_subject = no\n"
            "x509_extensions = issued\n[any]\ncommonName = supplied\n"
            # Python 3.13 and newer want it.
            "[issued]\nauthorityKeyIdentifier = keyid:always\n"
        )

    def run(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30
        )

    def make(self, name: str, hosts: str = f"IP:{HERE}", begin: int = -1, end: int = 90) -> Path:
        """Make NAME.pem and NAME.key, valid from `begin` to `end` days from now."""
        self.run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                 "-noenc", "-subj", f"/CN={name}", "-addext", f"subjectAltName={hosts}",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        now = datetime.now(UTC)
        dates = [f"{now + timedelta(days=day):%Y%m%d%H%M%SZ}" for day in (begin, end)]
        self.run("ca", "-batch", "-notext", "-config", "ca.conf", "-cert", "ca.pem",
                 "-keyfile", "ca.key", "-startdate", dates[0], "-enddate", dates[1],
                 "-in", f"{name}.csr", "-out", f"{name}.pem")  # fmt: skip
        return self.folder / f"{name}.pem"


def use(door: HttpsDoor, made: Certificates, name: str, *more: str) -> tuple[int, str, str]:
    folder = made.folder
    return door.https("--cert", str(folder / f"{name}.pem"), "--key", f"{folder / name}.key", *more)


def banner(door: HttpsDoor) -> str:
    door.guest.run("usr/lib/hyrax-vm/banner")
    return door.guest.read("run/hyrax/issue")


class Pebble:
    """Debian's pebble, an ACME server for tests, and its DNS server.

    All names lead to 127.0.0.1; away.example.org leads to nowhere. uacme trusts pebble's own
    certificate in a mount namespace of its own: its libcurl has a fixed list of issuers.
    """

    def __init__(self, folder: Path, made: Certificates, door: HttpsDoor) -> None:
        folder.mkdir()
        made.make("pebble", "DNS:localhost,IP:127.0.0.1")
        port, management, self.dns, control = (free_port() for _ in range(4))
        self.directory = f"https://127.0.0.1:{port}/dir"
        self.root = f"https://127.0.0.1:{management}/roots/0"
        config = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(made.folder / "pebble.pem"),
            "privateKey": str(made.folder / "pebble.key"),
            "httpPort": door.acme_port,
            "tlsPort": door.https_port,
        }
        (folder / "config.json").write_text(json.dumps({"pebble": config}))
        self.trusted = made.folder / "ca.pem"
        dns = ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{self.dns}", "-defaultIPv6", "",
               "-http01", "", "-https01", "", "-tlsalpn01", "",
               "-management", f"127.0.0.1:{control}"]  # fmt: skip
        acme = ["pebble", "-config", str(folder / "config.json"), "-strict",
                "-dnsserver", f"127.0.0.1:{self.dns}"]  # fmt: skip
        quick = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        self.processes = [
            subprocess.Popen(
                command, env=quick, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for command in (dns, acme)
        ]
        until(lambda: self.answers(self.directory))
        away = json.dumps({"host": "away.example.org.", "addresses": ["240.0.0.1"]}).encode()
        until(lambda: self.answers(f"http://127.0.0.1:{control}/add-a", away))
        new = "-r " if os.geteuid() else ""
        door.guest.stand_in(
            "uacme",
            f"exec /usr/bin/unshare {new}-m /bin/sh -c '/usr/bin/mount --bind {self.trusted} "
            '/etc/ssl/certs/ca-certificates.crt && exec /usr/bin/uacme "$@"\' uacme "$@"',
        )

    def answers(self, url: str, data: bytes | None = None) -> bool:
        context = ssl.create_default_context(cafile=str(self.trusted))
        try:
            with urllib.request.urlopen(url, data, context=context, timeout=5):
                return True
        except OSError:
            return False

    def issuer(self) -> bytes:
        """Return the root certificate of what pebble issues."""
        context = ssl.create_default_context(cafile=str(self.trusted))
        with urllib.request.urlopen(self.root, context=context, timeout=5) as answer:
            return bytes(answer.read())

    def stop(self) -> None:
        for each in self.processes:
            each.kill()
            each.wait()
