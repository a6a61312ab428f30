"""Usage, limits, robots: what the front door's log says, and what it allows."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import time
import urllib.robotparser
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.unit.guest.front_door import MIB, DataServer, until
from tests.unit.guest.guest_copy import Guest
from tests.unit.guest.https_door import HttpsDoor

LOG = "var/log/hyrax-front-door/access.log"
COUNT = "usr/lib/hyrax-vm/usage-count"
MONTH = f"{datetime.now(UTC):%Y-%m}"
READERS = "127.0.0.1"  # the proxy that says who the reader is


@pytest.fixture
def door(guest: Guest, server: DataServer) -> Iterator[HttpsDoor]:
    made = HttpsDoor(guest, server.port)
    for name in ("sst", "rain"):
        guest.write(f"srv/hyrax/data/{name}/a.nc", "")
    made.start()
    yield made
    made.stop()


def put(door: HttpsDoor, key: str, value: str) -> None:
    status, out, err = door.guest.run("usr/bin/hyrax-server", "set", key, value)
    assert status == 0, out + err


def usage(guest: Guest, *options: str) -> list[dict[str, str | int]]:
    status, out, err = guest.run("usr/bin/hyrax-server", "usage", "--json", *options)
    assert (status, err) == (0, "")
    found: list[dict[str, str | int]] = json.loads(out)
    return found


def line(path: str, address: str = "192.0.2.1", status: int = 200, **more: str | int) -> str:
    row = {"time": f"{MONTH}-07T10:00:00+00:00", "address": address, "user": "", "method": "GET",
           "path": path, "status": status, "bytes": 1000, "seconds": 0.5, "agent": "netCDF/4.9",
           **more}  # fmt: skip
    return json.dumps(row, separators=(",", ":")) + "\n"


def test_what_nginx_logs_is_counted(door: HttpsDoor) -> None:
    put(door, "proxy", READERS)
    reader = {"X-Forwarded-For": "198.51.100.7", "User-Agent": 'odd "agent" \\ {}'}
    size = 0
    for path in (
        "/opendap/data/sst/a.nc.dds",
        "/opendap/data/sst/b.nc.dods?v[0:1]",
        "/opendap//data//rain/",
    ):
        size += len(door.get(path, reader).body)
    door.get("/opendap/data/sst/1.bin", {**reader, "X-Forwarded-For": "2001:db8:1:2::3"})
    door.get("/opendap/data/sst/a.nc.dds", {**reader, "User-Agent": "Googlebot/2.1"})
    door.get("/opendap/data/sst/a.nc.dds")  # this machine itself
    log = door.guest.root / LOG
    until(lambda: log.read_text().count("\n") == 5)
    rows = {str(row["dataset"]): row for row in usage(door.guest)}
    assert set(rows) == {"sst", "rain"}
    sst = rows["sst"]
    assert (sst["month"], sst["requests"], sst["clients"], sst["robots"]) == (MONTH, 3, 2, 1)
    assert MIB < int(sst["bytes"]) < MIB + 5000
    assert rows["rain"]["requests"] == 1
    clients = {row["client"]: row["requests"] for row in usage(door.guest, "--by", "client")}
    assert clients == {"198.51.100.7": 3, "2001:db8:1:2::3": 1}
    (status,) = usage(door.guest, "--by=status")
    assert (status["status"], status["requests"], status["errors"]) == ("200", 4, 0)


def test_anonymous_keeps_networks_only(door: HttpsDoor) -> None:
    put(door, "proxy", READERS)
    put(door, "anonymous", "yes")
    for address in ("198.51.100.7", "198.51.100.8", "2001:db8:1:2::3", "2001:db8::9"):
        seen = door.seen("/opendap/data/sst/a.nc.dds", {"X-Forwarded-For": address})
        assert address not in seen.values()
    log = door.guest.root / LOG
    until(lambda: log.read_text().count("\n") == 4)
    assert {json.loads(row)["address"] for row in log.read_text().splitlines()} == {
        "198.51.100.0", "2001:db8:1::", "2001:db8::"
    }  # fmt: skip
    assert usage(door.guest)[0]["clients"] == 3


def test_errors_pages_and_unknown_names(guest: Guest) -> None:
    guest.write("srv/hyrax/data/sst/a.nc", "")
    guest.write("etc/hyrax/data.d/far.conf", "URL=nfs://h/far\n")
    guest.write(LOG, "".join([
        line("/opendap/data/sst/gone.nc", status=404),
        line("/opendap/data/far/a.nc.dds"),
        line("/opendap/data/../etc/passwd", status=404),
        line("/opendap/data/%73st/a.nc.dds"),
        line("/opendap/sample/sst.nc.dds"),
        line("/", agent="AhrefsBot/7.0"),
        line("/wp-login.php", status=404, agent="Mozilla"),
        # nginx writes the rest of the last line later.
        "garbage\n", '{"time":"\n', line("/opendap/data/sst/a.nc")[:-1],
    ]))  # fmt: skip
    rows = {row["dataset"]: row for row in usage(guest)}
    found = {name: (row["requests"], row["errors"], row["robots"]) for name, row in rows.items()}
    assert found == {
        "sst": (2, 1, 0), "far": (1, 0, 0), "sample": (1, 0, 0), "-": (2, 2, 1)
    }  # fmt: skip
    with (guest.root / LOG).open("a") as log:
        log.write("\n")
    assert {row["dataset"]: row["requests"] for row in usage(guest)}["sst"] == 3


def test_each_line_is_counted_once_over_rotations_and_power_cuts(guest: Guest) -> None:
    guest.write("srv/hyrax/data/sst/a.nc", "")
    log = guest.root / LOG
    guest.write(LOG, line("/opendap/data/sst/1") * 10)
    assert usage(guest)[0]["requests"] == 10
    assert usage(guest)[0]["requests"] == 10
    with log.open("a") as file:
        file.write(line("/opendap/data/sst/2") * 5)
    log.rename(f"{log}.1")
    guest.write(LOG, line("/opendap/data/sst/3") * 2)
    assert usage(guest)[0]["requests"] == 17
    # The power fails between the two files that a run writes: the lines are not counted again.
    store = guest.root / "var/lib/hyrax/usage"
    before = (store / "counted").read_text()
    with log.open("a") as file:
        file.write(line("/opendap/data/sst/4") * 3)
    assert usage(guest)[0]["requests"] == 20
    (store / "counted").write_text(before)
    assert usage(guest)[0]["requests"] == 20


def test_a_full_disk_loses_no_count(guest: Guest) -> None:
    guest.write("srv/hyrax/data/sst/a.nc", "")
    guest.write(LOG, line("/opendap/data/sst/1"))
    assert usage(guest)[0]["requests"] == 1
    with (guest.root / LOG).open("a") as file:
        file.write(line("/opendap/data/sst/2"))
    guest.stand_in("sync", "exit 1")
    status, out, err = guest.run("usr/bin/hyrax-server", "usage", "--json")
    assert (status, json.loads(out)[0]["requests"]) == (0, 1)
    assert err.startswith("hyrax-server: the newest requests are not counted: ")
    assert err.count("\n") == 1
    (guest.bin / "sync").unlink()
    assert usage(guest)[0]["requests"] == 2


def test_thirteen_months_are_kept_within_a_bound(guest: Guest) -> None:
    guest.write("srv/hyrax/data/sst/a.nc", "")
    months = [f"{year}-{month:02}" for year in (2025, 2026) for month in range(1, 13)][:15]
    guest.write(
        LOG, "".join(line("/opendap/data/sst/1", time=f"{m}-01T00:00:00+00:00") for m in months)
    )
    rows = usage(guest, "--month", "all")
    assert [row["month"] for row in rows] == months[2:]
    assert usage(guest, "--month", months[-1])[0]["requests"] == 1
    # Many clients: the rest is counted together.
    guest.env["HYRAX_USAGE_ROWS"] = "100"
    with (guest.root / LOG).open("a") as file:
        file.writelines(line("/opendap/data/sst/1", f"2001:db8:{n:x}::1") for n in range(1000))
    (row,) = usage(guest)
    assert (row["requests"], row["clients"]) == (1000, 101)
    kept = guest.root / f"var/lib/hyrax/usage/{MONTH}.gz"
    assert gzip.decompress(kept.read_bytes()).count(b"\n") == 102


def test_the_forms_agree(guest: Guest) -> None:
    guest.write("srv/hyrax/data/sst/a.nc", "")
    guest.write(LOG, line("/opendap/data/sst/1", bytes=1_500_000) + line("/"))
    rows = usage(guest)
    text = guest.run("usr/bin/hyrax-server", "usage", "--csv")[1]
    assert [{k: str(v) for k, v in row.items()} for row in rows] == list(
        csv.DictReader(text.splitlines())
    )
    table = guest.run("usr/bin/hyrax-server", "usage")[1].splitlines()
    assert table[0].split() == [
        "MONTH",
        "DATASET",
        "REQUESTS",
        "BYTES",
        "CLIENTS",
        "ERRORS",
        "ROBOTS",
    ]
    assert table[1].split() == [MONTH, "sst", "1", "1.5", "MB", "1", "0", "0"]
    for wrong in (["--month", "May"], ["--by", "colour"], ["--fly"], ["--month"]):
        status, out, err = guest.run("usr/bin/hyrax-server", "usage", *wrong)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_page_shows_it_only_if_wanted(door: HttpsDoor) -> None:
    door.guest.write(LOG, line("/opendap/data/sst/1"))
    assert door.guest.run("usr/lib/hyrax-vm/landing")[0] == 0
    assert json.loads(door.get("/usage").body)["path"] == "/usage"  # the data server's own
    assert 'href="/usage"' not in door.get("/").text
    put(door, "usage-page", "yes")
    page = door.get("/usage")
    assert page.headers.get_content_type() == "text/html"
    assert "<td>sst</td>" in page.text
    assert "192.0.2.1" not in page.text
    assert '<a href="/usage">' in door.get("/").text
    put(door, "usage-page", "default")
    assert json.loads(door.get("/usage").body)["path"] == "/usage"
    assert 'href="/usage"' not in door.get("/").text


def test_the_log_is_rotated_with_what_is_counted(guest: Guest) -> None:
    """The real logrotate with the guest's file."""
    guest.write("srv/hyrax/data/sst/a.nc", "")
    guest.write(LOG, line("/opendap/data/sst/1") * 250_000)
    text = guest.read("etc/logrotate.d/hyrax-front-door").replace(
        "/var/log", f"{guest.root}/var/log"
    )
    text = text.replace("/usr/lib/hyrax-vm", f"{guest.root}/usr/lib/hyrax-vm")
    text = "\n".join(
        row for row in text.splitlines() if not row.strip().startswith(("su ", "create "))
    )
    guest.write("rotate.conf", text)
    (guest.root / "rotate.conf").chmod(0o644)
    command = [
        "/usr/sbin/logrotate",
        "-s",
        str(guest.root / "state"),
        str(guest.root / "rotate.conf"),
    ]
    done = subprocess.run(command, env=guest.env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (guest.root / f"{LOG}.1").exists()
    assert "systemctl kill --signal=USR1" in guest.read("calls.log")
    guest.write(LOG, line("/opendap/data/sst/1"))
    assert usage(guest)[0]["requests"] == 250_001


# ------------------------------------------------------------------------------ limits, robots


def test_a_download_is_slowed_down(door: HttpsDoor) -> None:
    put(door, "limit-rate", "1m")
    began = time.monotonic()
    assert len(door.get("/opendap/3.bin").body) == 3 * MIB
    assert 1.8 < time.monotonic() - began < 10
    put(door, "limit-rate", "default")
    began = time.monotonic()
    assert len(door.get("/opendap/3.bin").body) == 3 * MIB
    assert time.monotonic() - began < 1.8


def test_too_many_requests_get_503_and_the_name_of_who_is_asked(door: HttpsDoor) -> None:
    door.guest.write("usr/lib/hyrax/settings", "EMAIL .+ hyrax-front-door.service who is asked\n")
    put(door, "email", "data@example.org")
    put(door, "limit-requests", "5/m")
    put(door, "proxy", READERS)
    reader = {"X-Forwarded-For": "198.51.100.7"}
    answers = [door.get("/opendap/echo", reader) for _ in range(9)]
    assert [answer.status for answer in answers] == [200] * 6 + [503] * 3
    assert answers[-1].headers["Retry-After"] == "10"
    assert answers[-1].text == (
        "Too many requests at the same time. Try again in some seconds, with fewer at once. "
        "This server answers at most 5 a minute of one reader. Ask data@example.org.\n"
    )
    assert door.get("/opendap/echo", {"X-Forwarded-For": "198.51.100.8"}).status == 200
    assert door.get("/", reader).status == 200


@pytest.mark.parametrize(
    ("key", "value"),
    [("limit-rate", "fast"), ("limit-rate", "0m"), ("limit-requests", "5"),
     ("limit-requests", "5/h"),
     ("anonymous", "maybe"), ("usage-page", "on")],
)  # fmt: skip
def test_a_wrong_limit_is_refused(guest: Guest, key: str, value: str) -> None:
    before = guest.state()
    status, out, err = guest.run("usr/bin/hyrax-server", "set", key, value)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"'{value}' is not valid for {key}; expected: " in err
    assert guest.state() == before


def test_robots_see_catalogs_and_fetch_no_data(door: HttpsDoor) -> None:
    text = door.get("/robots.txt").text
    parser = urllib.robotparser.RobotFileParser()
    parser.parse(text.splitlines())
    assert str(parser.crawl_delay("any")) == "10"
    # The standard library's parser knows no wildcards (RFC 9309, 2.2.3).
    rules = [
        row.split(": ", 1) for row in text.splitlines() if row.startswith(("Allow", "Disallow"))
    ]

    def allowed(path: str) -> bool:
        found = [("", "Allow")]
        for kind, rule in rules:
            pattern = re.escape(rule).replace(r"\*", ".*").replace(r"\$", "$")
            if re.match(pattern, path):
                found.append((rule, kind))
        return max(found, key=lambda each: (len(each[0]), each[1] == "Allow"))[1] == "Allow"

    for path in ("/", "/opendap/", "/opendap/data/sst/", "/opendap/data/sst/contents.html",
                 "/opendap/data/catalog.xml", "/opendap/data/sst/a.nc.html",
                 "/opendap/data/sst/a.nc.das"):  # fmt: skip
        assert allowed(path), path
    for path in ("/opendap/data/sst/a.nc", "/opendap/data/sst/a.nc.dods",
                 "/opendap/data/sst/a.nc.ascii",
                 "/opendap/data/sst/a.nc.dods?v[0:1]", "/opendap/data/sst/a.nc.dap",
                 "/opendap/data/sst/a.h5"):  # fmt: skip
        assert not allowed(path), path
    door.guest.write("etc/hyrax/robots.txt", "User-agent: *\nDisallow: /\n")
    door.reload()
    assert door.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
