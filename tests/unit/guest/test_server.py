"""hyrax-server: settings, changed files, and the links between data and reader."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.unit.guest.guest_copy import TREE, Guest, edit

SETTINGS = "EMAIL [a-z]+@[a-z.]+ hyrax-settings.service,hyrax-bes.service who is asked\n"
SERVERS = TREE.parent / "servers"
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
        (["status", "now"], "status takes nothing after it but --json"),
        (["logs", "--all"], "'--all' is not an option"),
        (["set", "email"], "takes a key and a value"),
        (["set", "colour", "red"], "'colour' is not a setting; expected one of: email"),
        (["set", "email", "me"], "'me' is not valid for email; expected: who is asked"),
        (["set", "email", "a@b\nBES.User=root"], "is not valid for email"),
        (["set", "email", "a@b.c;x"], "is not valid for email"),
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
    assert (
        calls.count("systemctl try-reload-or-restart hyrax-settings.service hyrax-bes.service") == 2
    )
    assert "hyrax-tomcat" not in calls
    assert server(served, "set")[1].split()[:2] == ["email", "d@e.f"]


@pytest.mark.parametrize("value", ["default", ""])
def test_a_setting_goes_back_to_its_default(served: Guest, value: str) -> None:
    served.write("etc/hyrax/server.conf", "OTHER=1\n")
    assert server(served, "set", "Email", "a@b.c")[0] == 0
    assert server(served, "set", "email", value)[:2] == (0, "email is now the default\n")
    assert served.read("etc/hyrax/server.conf") == "OTHER=1\n"
    assert server(served, "set")[1].split()[:2] == ["email", "-"]


def test_check_says_what_is_wrong_and_changes_nothing(served: Guest) -> None:
    before = served.state()
    assert server(served, "set", "email", "a@b.c", "--check") == (0, "", "")
    assert server(served, "set", "--check", "email", "a@b.c") == (0, "", "")
    assert server(served, "set", "email", "nobody", "--check")[0] == 2
    assert served.state() == before


@pytest.mark.parametrize("name", ["dapdir", "hyrax"])
@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("nc:*.dat", True),
        ("nc:*.dat h5:run_??-*.hdx nc:sst", True),
        (" ".join(["nc:*.a"] * 16), True),
        (" ".join(["nc:*.a"] * 17), False),
        ("*.dat", False),
        ("nc:", False),
        ("nc:*.dat;", False),
        ("nc:*.dat$", False),
        ("nc:.*\\.dat", False),
        ("nc:a b", False),
        ("xx:*.dat", False),
        ("nc:*.dat\nBES.User=root", False),
        ("nc:*.dat\tBES.User=root", False),
        ("nc:*.dat # x", False),
        ("nc:" + "a" * 65, False),
        ("nc:'*.dat'", False),
        ("nc:$(id)", False),
        ("nc:[ab]", False),
    ],
)
def test_only_plain_patterns_of_file_names_are_taken(
    served: Guest, name: str, value: str, good: bool
) -> None:
    listed = SERVERS / name / "guest/usr/lib/hyrax/settings"
    served.write("usr/lib/hyrax/settings", listed.read_text())
    status, _, err = server(served, "set", "types", value)
    assert (status, err.count("\n")) == ((0, 0) if good else (2, 1))
    written = served.root / "etc/hyrax/server.conf"
    assert (written.read_text() if written.exists() else "") == (f"TYPES={value}\n" if good else "")


def test_a_server_without_settings_has_those_of_the_front_door(served: Guest) -> None:
    (served.root / "usr/lib/hyrax/settings").unlink()
    status, _, err = server(served, "set", "email", "a@b.c")
    assert status == 2
    assert "'email' is not a setting; expected one of: proxy" in err


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


# -------------------------------------------------------------------------------- the chain


class Answers:
    """A data server on a free port, which the guest uses in place of 8080; it answers `pages`."""

    def __init__(self, guest: Guest) -> None:
        self.pages = {"/health": "ok", "/opendap/sample/sst.nc.dds": "Dataset {"}
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path in pages else 404)
                self.end_headers()
                self.wfile.write(pages.get(self.path, "gone").encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        library = guest.root / "usr/lib/hyrax-vm/lib.sh"
        edit(library, "\nPORT=8080 ", f"\nPORT={self.http.server_port} ")
        edit(library, "\nSERVER_PORT=8081 ", f"\nSERVER_PORT={self.http.server_port} ")

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


UNIT = r"""
case "$*" in
*ActiveState*) cat "$HYRAX_ROOT/unit-state" ;;
*Result*) echo exit-code ;;
*MemoryCurrent*) echo 104857600 ;;
*NRestarts*) echo 3 ;;
esac
"""


@pytest.fixture
def chain(served: Guest) -> Iterator[tuple[Guest, Answers]]:
    """A guest in which the whole chain works, and its data server; each test breaks one link."""
    served.write("usr/lib/hyrax/units", "hyrax-server.service\n")
    served.write("unit-state", "active\n")
    edit(served.bin / "systemctl", "esac\n", f"esac\n{UNIT}")
    answers = Answers(served)
    yield served, answers
    answers.stop()


def broken(guest: Guest) -> dict[str, str]:
    """Return name -> detail of the faults that `hyrax-server status` shows.

    Its two forms, text and JSON, must show the same.
    """
    status, out, _ = server(guest, "status", "--json")
    said = json.loads(out)
    rows = [*said["links"], *said["data_sets"]]
    found = {row.get("link") or row["name"]: row["detail"] for row in rows if row["next"]}
    assert (status, said["broken"]) == (1 if found else 0, len(found))
    again, text, _ = server(guest, "status")
    assert again == status
    for name, detail in found.items():
        assert f"  ! {name:22} {detail}\n" in text
    assert ("Data are served." in text) == (not found)
    assert len(text.splitlines()) <= 24
    return found


def test_all_links_hold(chain: tuple[Guest, Answers]) -> None:
    guest, answers = chain
    guest.write("srv/hyrax/data/mine/a.nc", "x")
    answers.pages["/opendap/data/mine/"] = "<html>"
    assert broken(guest) == {}
    text = server(guest, "status")[1]
    assert "    network                192.0.2.7 (eth0)\n" in text
    assert "hyrax-server.service   memory 100 MB, restarted by itself: 3\n" in text
    assert "    mine                   local, /srv/hyrax/data/mine\n" in text


def test_each_broken_link_is_named(chain: tuple[Guest, Answers], closed_port: int) -> None:
    guest, answers = chain
    guest.write("addresses", "")
    assert broken(guest) == {
        "network": "no address: the network adapter eth0 is not switched on yet"
    }
    guest.write("addresses", "2: eth0    inet 192.0.2.7/24 scope global eth0\n")

    sample = answers.pages.pop("/opendap/sample/sst.nc.dds")
    (detail,) = broken(guest).values()
    assert detail.endswith("/opendap/sample/sst.nc.dds: HTTP 404")
    answers.pages["/opendap/sample/sst.nc.dds"] = sample

    url = f"nfs://127.0.0.1:{closed_port}/sst"
    guest.write("etc/hyrax/data.d/old.conf", f"NAME=old\nURL={url}\n")
    guest.write("srv/hyrax/data/mine/a.nc", "x")
    found = broken(guest)
    assert found["old"].startswith("file server: 127.0.0.1 refuses connections")
    assert found["mine"] == "server: its listing: HTTP 404"
    (guest.root / "etc/hyrax/data.d/old.conf").unlink()
    guest.write("forbid-find", "")
    guest.stand_in("setpriv", "echo /srv/hyrax/data/mine/a.nc")
    assert broken(guest)["mine"].startswith("permission: the data server's user (nobody) may not")

    guest.write("opt/hyrax/etc/os-release", 'NAME="Rocky Linux"\nPLATFORM_ID="platform:el9"\n')
    guest.write("proc/cpuinfo", "flags : fpu sse2 ssse3 sse4_1\n")
    assert "CPU type 'host'" in broken(guest)["processor"]
    guest.write("proc/cpuinfo", "flags : fpu sse2 ssse3 sse4_1 sse4_2 popcnt\n")
    assert "processor" not in broken(guest)

    guest.write("unit-state", "failed\n")
    assert broken(guest)["hyrax-server.service"] == "failed (exit-code)"
    answers.stop()
    found = broken(guest)
    assert found["front door"].endswith("does not answer; hyrax-front-door.service is failed")
    assert "no program listens" in found["data server"]


# ------------------------------------------------------------------------------- the watchdog
