"""The landing page that the guest writes: states, escaping, names, and what it must not show."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import socket
from html.parser import HTMLParser

import pytest

from tests.unit.guest.guest_copy import RELEASE, TREE, Guest

PAGE = "run/hyrax/www/index.html"
VOID = {"meta", "link"}
LARGEST = 12_000  # bytes, with a few data sets
VM = "http://192.0.2.7:8080"


class Page(HTMLParser):
    """A parser that checks the nesting, and collects the text and the links' targets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.code: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.words = ""
        self._id = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(str(found["id"]))
        if tag == "code":
            self._id = str(found.get("id", ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        self.targets += [str(found[name]) for name in ("href", "src", "action") if name in found]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "code":
            self._id = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data
        if self._id:
            self.code[self._id] = self.code.get(self._id, "") + data
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def answering(guest: Guest) -> Guest:
    """A guest whose data server answers as long as there is no file `sick`."""
    guest.stand_in("curl", '[ ! -e "$HYRAX_ROOT/sick" ]')
    return guest


def landing(guest: Guest) -> str:
    assert guest.run("usr/lib/hyrax-vm/landing") == (0, "", "")
    return guest.read(PAGE)


def add(guest: Guest, name: str, url: str) -> None:
    guest.write(f"etc/hyrax/data.d/{name}.conf", f"NAME={name}\nURL={url}\n")


def states(page: Page) -> dict[str, str]:
    return {row[0]: row[1].strip() for row in page.rows[1:]}


def test_every_state_has_its_words_and_its_url(
    answering: Guest, port: int, closed_port: int
) -> None:
    add(answering, "ocean", f"nfs://127.0.0.1:{port}/ocean")
    add(answering, "sst", f"nfs://127.0.0.1:{port}/sst")
    add(answering, "wind", f"nfs://127.0.0.1:{closed_port}/wind")
    table = answering.read("proc/self/mounts")
    answering.write("proc/self/mounts", f"{table}h:/sst /srv/hyrax/data/sst nfs4 ro 0 0\n")
    (answering.root / "srv/hyrax/data/mine").mkdir(parents=True)
    page = Page(landing(answering))
    assert states(page) == {
        "ocean": "available, the first read takes longer",
        "sst": "available",
        "wind": "away, its file server does not answer",
        "mine": "available",
        "sample": "available, small files to try",
    }
    assert [row[2] for row in page.rows[1:4]] == [
        f"{VM}/opendap/data/{name}/" for name in ("ocean", "sst", "wind")
    ]
    assert "No data set yet" not in page.words


def test_a_detached_data_set_is_away_though_its_port_is_open(answering: Guest, port: int) -> None:
    add(answering, "ocean", f"nfs://127.0.0.1:{port}/ocean")
    answering.write("run/hyrax/away/ocean", "")
    assert states(Page(landing(answering)))["ocean"].startswith("away")


def test_no_data_set_says_what_to_type(answering: Guest) -> None:
    page = Page(landing(answering))
    assert list(states(page)) == ["sample"]
    assert "No data set yet; add one with: hyrax-data add nfs://HOST/EXPORT" in page.words


def test_nothing_of_a_file_server_is_told(answering: Guest) -> None:
    add(answering, "ocean", "smb://secret.example.org/private")
    add(answering, "sst", "nfs://127.0.0.99/export/private")
    text = landing(answering)
    for word in ("secret", "private", "127.0.0.99", "nfs://", "smb://", "/srv/", "eth0"):
        assert word not in text


def test_health_follows_the_server(answering: Guest) -> None:
    assert "The data server answers" in Page(landing(answering)).words
    answering.write("sick", "")
    assert "The data server does not answer yet" in Page(landing(answering)).words


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("hyrax", "Hyrax 1.18.0"),
        ("dapdir", "dapdir 1.18.0 (embedded default, not Hyrax)"),
        ("thredds", "thredds 1.18.0 (not Hyrax)"),
    ],
)
def test_the_server_has_its_own_name(answering: Guest, server: str, shown: str) -> None:
    text = RELEASE.replace("dapdir", server).replace("1.0.0", "1.18.0")
    answering.write("etc/hyrax-vm-release", f"{text}BASE=debian-12\nARCH=amd64\n")
    words = Page(landing(answering)).words
    assert f"Data server{shown}, version" in words
    assert "nfs, debian-12, amd64" in words
    assert "Hyrax VM 0.1.0" in words
    assert "Hyrax" not in words.replace("Hyrax VM", "").replace(shown, "")


@pytest.mark.parametrize(
    ("found", "origin"),
    [
        ("", "http://ADDRESS:8080"),
        ("2: eth0    inet 192.0.2.7/24 scope global eth0\n", VM),
        ("2: eth0    inet6 2001:db8::7/64 scope global\n", "http://[2001:db8::7]:8080"),
    ],
)
def test_urls_have_the_address_of_the_machine(answering: Guest, found: str, origin: str) -> None:
    answering.write("addresses", found)
    page = Page(landing(answering))
    assert len(page.code) == 6
    for name, code in page.code.items():
        assert f"{origin}/opendap/sample/sst.nc" in code, name
    assert page.rows[1][2] == f"{origin}/opendap/sample/"


def test_what_comes_from_the_machine_is_escaped(answering: Guest) -> None:
    hostile = '<script>alert("1")</script>&amp;|\\1@VERSION@'
    facts = {"SERVER": hostile, "VERSION": hostile, "IMAGE": "a|b&c"}
    lines = [f"{key}={shlex.quote(value)}\n" for key, value in facts.items()]
    answering.write("etc/hyrax-vm-release", "".join(lines))
    answering.write(
        "addresses", "2: eth0    inet 192.0.2.7<b>&'|\"/24 brd 192.0.2.255 scope global eth0\n"
    )
    text = landing(answering)
    page = Page(text)
    assert text.count("<script>") == 1
    assert hostile.replace("@VERSION@", "") in page.words.replace("@VERSION@", "")
    assert "a|b&c" in page.words
    assert "http://192.0.2.7<b>&'|\":8080/opendap/sample/sst.nc" in page.code["python"]


def test_the_page_is_sound_and_links_to_itself_only(answering: Guest, closed_port: int) -> None:
    for number in range(4):
        add(answering, f"data-{number}", f"nfs://127.0.0.1:{closed_port}/x")
    text = landing(answering)
    page = Page(text)
    assert not re.search(r"@[A-Z]+@", text)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.code) == {"python", "r", "matlab", "c", "ncdump", "curl"}
    for target in page.targets:
        assert target.startswith(("/opendap/", "data:image/svg+xml,")) or (
            target[0] == "#" and target[1:] in page.ids
        ), target
    assert text.count("<h1>") == 1
    assert '<html lang="en">' in text
    assert len(text.encode()) < LARGEST


def test_its_policy_allows_its_own_style_and_script_and_nothing_else() -> None:
    text = (TREE / "usr/lib/hyrax-vm/landing.html").read_text()
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0]
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        # The hash of the style; if it differs, write this one into the page.
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"\son\w+=|\sstyle=", text)


def test_it_is_replaced_whole_and_only_when_it_changes(answering: Guest) -> None:
    landing(answering)
    page = answering.root / PAGE
    assert page.stat().st_mode & 0o777 == 0o644
    before = page.stat()
    landing(answering)
    assert (page.stat().st_ino, page.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    answering.write("sick", "")
    landing(answering)
    assert page.stat().st_ino != before.st_ino
    assert sorted(path.name for path in page.parent.iterdir()) == ["catalog.xml", "index.html"]
    assert [p.name for p in (answering.root / "run/hyrax").iterdir()] == ["www"]


def test_adding_and_removing_show_at_once(answering: Guest, port: int) -> None:
    assert answering.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    assert "sst" in states(Page(answering.read(PAGE)))
    assert answering.data("remove", "sst")[0] == 0
    assert "sst" not in states(Page(answering.read(PAGE)))


def test_a_page_is_there_before_the_first_one_is_written() -> None:
    lines = (TREE / "usr/lib/tmpfiles.d/hyrax-vm.conf").read_text().splitlines()
    assert "d /run/hyrax/www 0755 root root -" in lines
    (line,) = [line for line in lines if line.startswith(f"f /{PAGE} ")]
    kind, path, mode, user, group, age, content = line.split(" ", 6)
    assert (kind, path, mode, user, group, age) == ("f", f"/{PAGE}", "0644", "root", "root", "-")
    # %, and a backslash, are tmpfiles.d(5)'s own.
    assert not set("%\\") & set(content)
    assert '<a href="/opendap/">' in content


def test_a_file_server_that_swallows_packets_delays_it_by_seconds(answering: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = []
        for _ in range(4):  # the queue is full: a further connection is not answered
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(("127.0.0.1", port))
        try:
            add(answering, "ocean", f"nfs://127.0.0.1:{port}/ocean")
            assert states(Page(landing(answering)))["ocean"].startswith("away")
        finally:
            for each in waiting:
                each.close()
