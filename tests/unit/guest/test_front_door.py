"""The front door: the guest's own configuration in a real nginx, with a data server behind it."""

from __future__ import annotations

import fcntl
import gzip
import http.client
import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.guest.front_door import ECHO, MIB, SAMPLE, DataServer, FrontDoor, free_port, until
from tests.unit.guest.guest_copy import edit


def test_it_shows_the_landing_page_itself(door: FrontDoor, server: DataServer) -> None:
    server.stop()
    for path in ("/", "/index.html"):
        answer = door.get(path)
        assert (answer.status, answer.text) == (200, "<h1>The landing page</h1>")
        assert answer.headers.get_content_type() == "text/html"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_ipv6_readers_are_answered(door: FrontDoor) -> None:
    connection = http.client.HTTPConnection("::1", door.port, timeout=10)
    connection.request("GET", ECHO)
    found = json.loads(connection.getresponse().read())["headers"]
    connection.close()
    assert found["X-Forwarded-For"] == "::1"
    assert found["Host"] == f"[::1]:{door.port}"
    # An IPv4 address is shown as one.
    assert door.seen(ECHO)["x-forwarded-for"] == "127.0.0.1"


# ---------------------------------------------------------------------- what the server learns


def test_the_server_learns_the_address_that_was_typed(door: FrontDoor) -> None:
    seen = door.seen(ECHO, {"Host": "data.example.org:8443"})
    assert seen["host"] == seen["x-forwarded-host"] == "data.example.org:8443"
    assert (seen["x-forwarded-port"], seen["x-forwarded-proto"]) == ("8443", "http")
    assert door.seen(ECHO, {"Host": "data.example.org"})["x-forwarded-port"] == "80"
    with socket.create_connection(("127.0.0.1", door.port)) as old:
        old.sendall(f"GET {ECHO} HTTP/1.0\r\n\r\n".encode())
        said = b"".join(iter(lambda: old.recv(65536), b""))
    assert json.loads(said.partition(b"\r\n\r\n")[2])["headers"]["Host"] == f"127.0.0.1:{door.port}"


CLAIMS = {
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "data.example.org, inner",
    "Forwarded": "for=198.51.100.9",
}


def test_only_a_proxy_that_is_set_is_believed(door: FrontDoor) -> None:
    seen = door.seen(ECHO, CLAIMS)
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert seen["host"] == f"127.0.0.1:{door.port}"
    assert "forwarded" not in seen
    status, out, _ = door.guest.run(
        "usr/bin/hyrax-server", "set", "proxy", "127.0.0.0/8 2001:db8::/64"
    )
    assert (status, out) == (0, "proxy is now 127.0.0.0/8 2001:db8::/64\n")
    assert "try-reload-or-restart hyrax-front-door.service" in door.guest.read("calls.log")
    door.reload()
    seen = door.seen(ECHO, CLAIMS)
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("198.51.100.7", "https")
    assert seen["host"] == seen["x-forwarded-host"] == "data.example.org"
    assert seen["x-forwarded-port"] == "443"
    # Neither a header nor a page may be made from these.
    odd = door.seen(ECHO, {"X-Forwarded-Host": 'a"b<c>', "X-Forwarded-Proto": "javascript"})
    assert (odd["host"], odd["x-forwarded-proto"]) == (f"127.0.0.1:{door.port}", "http")


@pytest.mark.parametrize(
    "value", ["300.1.1.1", "192.0.2.0/33", "example.org", "192.0.2.1; deny all", "1:2", "::/129"]
)
def test_a_wrong_proxy_is_refused_and_nothing_changes(door: FrontDoor, value: str) -> None:
    assert door.guest.run("usr/bin/hyrax-server", "set", "proxy", "192.0.2.1")[0] == 0
    before = door.guest.state()
    status, out, err = door.guest.run("usr/bin/hyrax-server", "set", "proxy", value)
    assert (status, out) == (2, "")
    assert "is not valid for proxy" in err
    assert err.count("\n") == 1
    assert door.guest.state() == before


# ---------------------------------------------------------------------------- odd requests


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ("/opendap/a.nc.dods?v[0:1:2],w", "/opendap/a.nc.dods?v[0:1:2],w"),
        ("/opendap/a.nc.dods?v%5B0%5D", "/opendap/a.nc.dods?v%5B0%5D"),
        ("/opendap/a%2Fb%25.nc", "/opendap/a%2Fb%25.nc"),
        ("/opendap//x///y.nc?a//b", "/opendap/x/y.nc?a//b"),
        ("//opendap/x//y//z.nc", "/opendap/x/y/z.nc"),
        ("/opendap/{a}|b\\c^`.nc", "/opendap/{a}|b\\c^`.nc"),
        ("/elsewhere/", "/elsewhere/"),
    ],
)
def test_paths_are_passed_on_as_they_are(door: FrontDoor, sent: str, passed_on: str) -> None:
    assert json.loads(door.get(sent).body)["path"] == passed_on


def test_a_request_line_of_64_kb_is_passed_on(door: FrontDoor) -> None:
    query = "v" * (65536 - len(f"GET {ECHO}? HTTP/1.1\r\n"))
    assert json.loads(door.get(f"{ECHO}?{query}").body)["path"] == f"{ECHO}?{query}"
    assert door.get(f"{ECHO}?{query * 2}").status == 414


def test_head_is_passed_on_or_asked_as_get(door: FrontDoor) -> None:
    answer = door.get(ECHO, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    head = int(answer.headers["Content-Length"])
    assert head == len(door.get(ECHO).body) + len("HEAD") - len("GET")
    # The OLFS refuses HEAD.
    door.guest.write("usr/lib/hyrax/front-door", "head_method=GET\n")
    door.reload()
    answer = door.get(ECHO, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == head - 1
    assert json.loads(door.get(ECHO, method="POST").body)["method"] == "POST"


def test_pages_of_other_sites_may_read_the_data(door: FrontDoor) -> None:
    answer = door.get(ECHO, {"Origin": "https://two.example"})
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]
    asked = {"Origin": "https://two.example", "Access-Control-Request-Headers": "x-one, range"}
    answer = door.get(ECHO, asked, method="OPTIONS")
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Headers"] == "x-one, range"
    assert "HEAD" in answer.headers["Access-Control-Allow-Methods"]


def test_text_is_compressed_for_those_who_ask(door: FrontDoor, server: DataServer) -> None:
    server.pages["/opendap/long.das"] = "Attributes {}\n" * 1000
    answer = door.get("/opendap/long.das", {"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.body) < 1000
    assert gzip.decompress(answer.body).decode() == server.pages["/opendap/long.das"]
    assert door.get("/opendap/long.das").text == server.pages["/opendap/long.das"]
    data = door.get("/opendap/1.bin", {"Accept-Encoding": "gzip"})
    assert (data.headers["Content-Encoding"], data.body) == (None, bytes(MIB))


def test_a_server_that_is_away_is_said_to_be_away(closed: FrontDoor, server: DataServer) -> None:
    closed.start()
    server.status = 503
    assert closed.get(ECHO).text.startswith("{")  # its own words
    server.stop()
    answer = closed.get(ECHO)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    assert answer.text == "The data server does not answer yet. Try again in a minute.\n"
    back = DataServer(port=server.port)
    assert closed.get(ECHO).status == 200
    back.stop()


def test_the_log_has_a_line_of_bounded_length_for_each_answer(door: FrontDoor) -> None:
    door.get(ECHO)  # of this machine itself
    door.guest.run("usr/bin/hyrax-server", "set", "proxy", "127.0.0.1")
    door.reload()
    reader = {"User-Agent": "a" * 1000, "X-Forwarded-For": "198.51.100.7"}
    door.get(f'{ECHO}?"\\{"x" * 50_000}', reader)
    log = door.guest.root / "var/log/hyrax-front-door/access.log"
    until(lambda: log.read_text() != "")
    (line,) = [json.loads(row) for row in log.read_text().splitlines()]
    assert line["path"].startswith(f'{ECHO}?"\\xxx')
    assert (line["status"], line["method"], line["address"]) == (200, "GET", "198.51.100.7")
    assert len(log.read_text()) < 1000


# ---------------------------------------------------------------------- /health and draining


def health(door: FrontDoor) -> tuple[int, str]:
    answer = door.get("/health")
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status, answer.text


def test_health_follows_the_values_of_the_samples(door: FrontDoor, server: DataServer) -> None:
    assert health(door) == (503, "the data server is starting\n")
    once = ("usr/lib/hyrax-vm/health", "once")
    assert door.guest.run(*once)[0] == 0
    assert health(door) == (200, "data are served\n")
    (values,) = (path for path in server.pages if ".ascii" in path)
    right = server.pages[values]
    for wrong in ("sst.sst[sst.lat=0], 145\n", "Error {"):
        server.pages[values] = wrong
        assert door.guest.run(*once)[0] == 0
        assert health(door) == (503, "the data server does not serve its samples\n")
        server.pages[values] = right
        assert door.guest.run(*once)[0] == 0
        assert health(door)[0] == 200


def test_health_is_looked_at_again_and_again(door: FrontDoor, server: DataServer) -> None:
    script = door.guest.root / "usr/lib/hyrax-vm/health"
    edit(script, "PAUSE=10", "PAUSE=0.1")
    (values,) = (path for path in server.pages if ".ascii" in path)
    right = server.pages[values]
    loop = subprocess.Popen([script], env=door.guest.env)
    try:
        until(lambda: health(door)[0] == 200)
        # Another process of the script, such as that of `hyrax-server drain`, has seen a fault.
        server.pages[values] = "Error {"
        assert door.guest.run("usr/lib/hyrax-vm/health", "once")[0] == 0
        server.pages[values] = right
        until(lambda: health(door)[0] == 200)
        server.pages[values] = "Error {"
        until(lambda: health(door) == (503, "the data server does not serve its samples\n"))
    finally:
        loop.terminate()
        loop.wait(20)
    assert health(door)[0] == 503


def test_a_drained_server_serves_on(door: FrontDoor) -> None:
    door.guest.run("usr/lib/hyrax-vm/health", "once")
    assert door.guest.run("usr/bin/hyrax-server", "drain")[0] == 0
    status, reason = health(door)
    assert status == 503
    assert reason.startswith("this server is drained since 20")
    assert door.get(f"{SAMPLE}.dds").status == 200
    assert "drained:   since 20" in door.guest.read("run/hyrax/issue")
    said = json.loads(door.guest.run("usr/bin/hyrax-server", "status", "--json")[1])
    assert said["drained"].startswith("20")
    status, out, _ = door.guest.run("usr/bin/hyrax-server", "undrain")
    assert (status, out) == (0, "/health: data are served\n")
    assert health(door)[0] == 200


def test_a_look_that_began_while_drained_does_not_undo_undrain(door: FrontDoor) -> None:
    door.guest.run("usr/lib/hyrax-vm/health", "once")
    door.guest.write("var/lib/hyrax/drained", "2026-01-01T00:00:00Z\n")
    folder = door.guest.root / "run/hyrax/health"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        look = subprocess.Popen([door.guest.root / "usr/lib/hyrax-vm/health", "once"],
                                env=door.guest.env)  # fmt: skip
        until(lambda: Path(f"/proc/{look.pid}/fd/9").exists())
        (door.guest.root / "var/lib/hyrax/drained").unlink()
    assert look.wait(20) == 0
    assert health(door) == (200, "data are served\n")


# ------------------------------------------------------------------------- settings and reload


def test_a_bad_file_of_the_administrator_changes_nothing(door: FrontDoor) -> None:
    door.guest.write("etc/hyrax/nginx.d/mine.conf", "location /mine { return 200 mine; }\n")
    door.reload()
    assert door.get("/mine").text == "mine"
    door.guest.write("etc/hyrax/nginx.d/mine.conf", "locaton /mine { return 200 mine; }\n")
    status, _, err = door.write()
    assert status == 1
    assert err == 'front-door: unknown directive "locaton" in server-site-mine.conf:1\n'
    assert door.get("/mine").text == "mine"
    said = json.loads(door.guest.run("usr/bin/hyrax-server", "status", "--json")[1])
    (row,) = [row for row in said["links"] if row["link"] == "front door"]
    assert row["state"] == "broken"
    assert "locaton" in row["detail"]


def test_a_boot_with_a_bad_file_serves_data_without_it(closed: FrontDoor) -> None:
    closed.guest.write("etc/hyrax/nginx.d/mine.conf", "locaton /mine {}\n")
    status, _, err = closed.write()
    assert (status, err.count("\n")) == (0, 1)
    (closed.guest.root / "etc/hyrax/nginx.d/mine.conf").unlink()
    assert "locaton" in closed.guest.read("run/hyrax/front-door.problem")
    closed.start()
    assert closed.get(ECHO).status == 200
    assert not (closed.guest.root / "run/hyrax/front-door.problem").exists()


def test_a_reload_does_not_end_a_download(door: FrontDoor) -> None:
    with door.connect() as slow:
        slow.sendall(b"GET /opendap/4.bin HTTP/1.0\r\n\r\n")
        got = len(slow.recv(65536))
        door.reload()
        assert door.get(ECHO).status == 200
        while piece := slow.recv(65536):
            got += len(piece)
    assert got > 4 * MIB


def test_a_port_that_is_taken_does_not_make_the_test_fail(door: FrontDoor) -> None:
    """`front-door` tests while nginx itself has the port."""
    assert free_port() != door.port
    assert door.write() == (0, "", "")
