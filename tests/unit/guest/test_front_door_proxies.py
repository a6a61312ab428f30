"""The proxies of docs/front-door.md before the front door: each block as it is in the page."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from hyraxvm.core.paths import ROOT
from tests.unit.guest.front_door import SAMPLE, DataServer, FrontDoor, free_port, until
from tests.unit.guest.guest_copy import Guest, Pattern

ECHO = "/opendap/echo?v[0:1:2],w"
APACHE = "/usr/lib/apache2/modules"
NGINX = """\
daemon off; pid {work}/pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;
    uwsgi_temp_path {work}/d; scgi_temp_path {work}/e;
    {block}
}}
"""
MODULES = ("mpm_event", "authz_core", "headers", "proxy", "proxy_http")
HTTPD = "".join(f"LoadModule {name}_module {APACHE}/mod_{name}.so\n" for name in MODULES)
HTTPD += "Listen {port}\nPidFile {work}/pid\nErrorLog {work}/log\nServerName x\n{block}"
CADDY = "{{\n    admin off\n    http_port {port}\n}}\n{block}"


def block(language: str, port: int, *machines: int) -> str:
    """Return an example of the page, for these ports of this machine."""
    page = (ROOT / "docs/front-door.md").read_text()
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    for address, machine in zip(("192.168.1.20:8080", "192.168.1.21:8080"), machines, strict=False):
        assert address in text
        text = text.replace(address, f"127.0.0.1:{machine}")
    listen = {"nginx": "listen 80;", "apache": "*:80>", "haproxy": "bind :80\n"}.get(language)
    if listen:
        assert listen in text
        text = text.replace(listen, listen.replace("80", str(port)))
    return str(text)


@contextmanager
def running(work: Path, language: str, *machines: int) -> Iterator[int]:
    """Run a proxy in front of these ports; yield its port."""
    port = free_port()
    text = block(language, port, *machines)
    conf = work / "conf"
    template = {"nginx": NGINX, "apache": HTTPD, "caddy": CADDY}.get(language, "{block}")
    conf.write_text(template.format(work=work, port=port, block=text))
    command = {
        "nginx": ["nginx", "-e", "stderr", "-c", str(conf)],
        "apache": ["apache2", "-X", "-f", str(conf)],
        "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", str(conf)],
        "haproxy": ["haproxy", "-db", "-f", str(conf)],
    }[language]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(work)}
    with (work / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
    try:
        until(lambda: process.poll() is not None or answers(port), 30)
        assert process.poll() is None, (work / "said").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return get(port, "/")[0] == 200
    return False


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"Host": "data.example.org", **names})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def machine(path: Path, pattern: Pattern) -> Iterator[tuple[FrontDoor, DataServer]]:
    """Run a front door that believes proxies of this machine, with a data server."""
    path.mkdir()
    server = DataServer()
    door = FrontDoor(Guest(path, pattern), server.port)
    try:
        door.guest.write("etc/hyrax/server.conf", "PROXY=127.0.0.1\n")
        door.start()
        assert door.guest.run("usr/lib/hyrax-vm/health", "once")[0] == 0
        yield door, server
    finally:
        door.stop()
        server.stop()


@pytest.mark.parametrize("language", ["nginx", "apache", "caddy", "haproxy"])
def test_the_server_names_what_the_reader_typed(
    language: str, tmp_path: Path, pattern: Pattern
) -> None:
    with machine(tmp_path / "one", pattern) as (door, _):
        ports = [door.port, door.port][: 2 if language == "haproxy" else 1]
        with running(tmp_path, language, *ports) as port:
            query = "w" * 60_000
            for path in (ECHO, f"/opendap/echo?{query}", "/opendap/a%2Fb.nc"):
                status, body = get(port, path, X_Forwarded_For="192.0.2.9")
                seen = json.loads(body)
                assert (status, seen["path"]) == (200, path)
                found = {name.lower(): value for name, value in seen["headers"].items()}
                assert found["host"] == found["x-forwarded-host"] == "data.example.org"
                assert found["x-forwarded-proto"] == "http"
                assert found["x-forwarded-for"] == "127.0.0.1"


def test_one_of_two_machines_is_drained_and_replaced(tmp_path: Path, pattern: Pattern) -> None:
    """A reader reads all the while, and sees no error."""
    with ExitStack() as stack:
        one, first = stack.enter_context(machine(tmp_path / "one", pattern))
        two, second = stack.enter_context(machine(tmp_path / "two", pattern))
        port = stack.enter_context(running(tmp_path, "haproxy", one.port, two.port))
        first.pages[f"{SAMPLE}.das"], second.pages[f"{SAMPLE}.das"] = "one", "two"
        said: list[tuple[int, str]] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                try:
                    status, body = get(port, f"{SAMPLE}.das")
                    said.append((status, body.decode()))
                except OSError as error:
                    said.append((0, repr(error)))
                over.wait(0.02)

        def last() -> set[str]:
            return {words for _, words in said[-20:]}

        reader = threading.Thread(target=read)
        reader.start()
        try:
            until(lambda: last() == {"one", "two"}, 20)
            assert one.guest.run("usr/bin/hyrax-server", "drain")[0] == 0
            until(lambda: len(said) > 20 and last() == {"two"}, 20)
            one.stop()
            one.start()
            assert one.guest.run("usr/bin/hyrax-server", "undrain")[0] == 0
            until(lambda: last() == {"one", "two"}, 20)
        finally:
            over.set()
            reader.join()
        assert {status for status, _ in said} == {200}
