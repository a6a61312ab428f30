"""The page at /: what it says about this machine, and its examples, run as they are."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hyraxvm.vm.qemu import HTTP
from tests.boot.guest import Artifact, Guest

# Without an event, a timer writes the page again about once a minute.
REFRESHED = 120.0


class Page(HTMLParser):
    """The page as a browser shows it that came from `origin`; without `origin`, as it was sent."""

    def __init__(self, text: str, origin: str = "") -> None:
        super().__init__()
        self._origin = origin
        self._code = ""
        self._in_origin = False
        self.code: dict[str, str] = {}
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.links.append(found["href"] or "")
        if tag == "code":
            self._code = found.get("id") or ""
        self._in_origin = found.get("class") == "origin"

    def handle_endtag(self, tag: str) -> None:
        self._in_origin = False
        if tag == "code":
            self._code = ""

    def handle_data(self, data: str) -> None:
        text = self._origin if self._origin and self._in_origin else data
        self.words += text
        if self._code:
            self.code[self._code] = self.code.get(self._code, "") + text


def page_with(guest: Guest, words: str) -> Page:
    """Wait until the page matches the pattern `words`; return the page."""
    deadline = time.monotonic() + REFRESHED
    while True:
        answer = guest.get("/")
        assert answer.status == 200
        assert answer.headers.get_content_type() == "text/html"
        page = Page(answer.text, guest.machine.url)
        if re.search(words, page.words):
            return page
        assert time.monotonic() < deadline, page.words
        time.sleep(1)


@pytest.fixture(scope="module")
def page(guest: Guest) -> Page:
    return page_with(guest, "The data server answers")


@pytest.fixture
def code(page: Page, request: pytest.FixtureRequest) -> str:
    """Return the example that the test is named after."""
    return page.code[request.node.originalname.removeprefix("test_the_example_in_")]


@pytest.fixture(scope="module")
def stored(samples: Path) -> list[int]:
    """Return the values that each example reads, as stored."""
    with netCDF4.Dataset(samples / "sst.nc") as file:
        file.set_auto_maskandscale(False)
        return [int(value) for value in file["sst"][:, 18, 36]]


def run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_this_machine_is(guest: Guest, page: Page, artifact: Artifact) -> None:
    release = artifact.manifest["release"]
    assert f"Hyrax VM {release['VERSION']}" in page.words
    assert f"{release['IMAGE']}, {release['BASE']}, {release['ARCH']}" in page.words
    shown = re.findall(r"Data server(.*), version", page.words)
    assert release["SERVER_VERSION"] in shown[0]
    assert release["SERVER"] in shown[0].lower()
    assert ("not Hyrax" in shown[0]) == (release["SERVER"] != "hyrax")
    address = guest.check("ip -o -4 address show scope global | sed 's|/.*||' | awk '{print $4}'")
    assert f"http://{address}:{HTTP}/opendap/sample/" in Page(guest.get("/").text).words
    assert guest.get("/index.html").body == guest.get("/").body


def test_its_links_lead_to_the_data(guest: Guest, page: Page) -> None:
    links = [link for link in page.links if not link.startswith("#")]
    assert {"/opendap/", "/opendap/catalog.xml", "/opendap/sample/"} <= set(links)
    assert {link: guest.get(link).status for link in links} == dict.fromkeys(links, 200)


def test_a_data_set_is_shown_with_its_url(guest: Guest, data_set: str) -> None:
    url = f"{guest.machine.url}/opendap/data/{data_set}/"
    found = page_with(guest, rf"{data_set}\s+available[a-z, ]*\s+{re.escape(url)}")
    assert f"/opendap/data/{data_set}/" in found.links
    assert "No data set yet" not in found.words


def test_the_example_in_python(code: str, stored: list[int], tmp_path: Path) -> None:
    said = run(sys.executable, "-c", code, cwd=tmp_path)
    found = np.array(said.strip("[] \n").split(), float)
    np.testing.assert_allclose(found, np.array(stored) * 0.01 + 10, atol=0.005)
    assert f"from {found[0]:.2f} to {found[-1]:.2f}" == "from 11.44 to 22.44"


def test_the_example_in_c(code: str, stored: list[int], tmp_path: Path) -> None:
    (tmp_path / "sst.c").write_text(code)
    command = re.findall(r"\A/\* (cc .*) \*/\n", code)[0]
    run("sh", "-c", f"{command} -Wall -Wextra -Werror", cwd=tmp_path)
    found = [float(line) for line in run("./sst", cwd=tmp_path).splitlines()]
    np.testing.assert_allclose(found, np.array(stored) * 0.01 + 10, atol=0.005)


def test_the_example_in_ncdump(code: str, stored: list[int], tmp_path: Path) -> None:
    said = run("sh", "-eu", "-c", code, cwd=tmp_path)
    header, values = said.split("\ndata:\n")
    assert "short sst(time, lat, lon) ;" in header
    found = re.findall(r"\n sst =([\s\d,-]+);", values)[0]
    assert [int(value) for value in found.split(",")] == stored


def test_the_example_in_curl(code: str, stored: list[int], tmp_path: Path) -> None:
    said = run("sh", "-eu", "-c", code, cwd=tmp_path)
    assert said.startswith("Dataset {")
    found = re.findall(r"^sst(?:\.sst)?\[.*\], (-?\d+)$", said, re.MULTILINE)
    assert [int(value) for value in found] == stored
