"""The page at /: the administrator's page, or else links to the data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dapdir.running import Server, refusal

PAGE = "<!DOCTYPE html><html lang='en'><title>Ozean</title><p>Wärme</p></html>\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def welcoming(root: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(root, tmp_path_factory.mktemp("log") / "log", workers=1, home=home)
    yield server
    server.stop()


@pytest.fixture
def page(home: Path) -> Iterator[Path]:
    (home / "index.html").write_text(PAGE)
    yield home / "index.html"
    (home / "index.html").unlink()


@pytest.mark.parametrize("path", ["/", "/index.html", "/?utm=1"])
def test_the_page_is_shown(welcoming: Server, page: Path, path: str) -> None:
    answer = welcoming.get(path, raw=True)
    assert (answer.status, answer.text) == (200, PAGE)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Last-Modified"].endswith(" GMT")
    # The page loads only what is in it or on this server, and no other site may frame it.
    policy = answer.headers.get_all("Content-Security-Policy")
    assert policy == ["default-src 'self' data: 'unsafe-inline'; frame-ancestors 'none'"]
    head = welcoming.get(path, "HEAD", raw=True)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(PAGE.encode()))


def test_a_replaced_page_is_seen_at_once(welcoming: Server, page: Path) -> None:
    assert welcoming.get("/", raw=True).text == PAGE
    new = page.with_suffix(".new")
    new.write_text("<p>new</p>")
    new.replace(page)
    assert welcoming.get("/", raw=True).text == "<p>new</p>"


def test_nothing_else_of_its_directory_is_served(welcoming: Server, page: Path) -> None:
    (page.parent / "other.html").write_text("other")
    for path in ("/other.html", "/index.html/", "/./index.html", "/home/", "/favicon.ico"):
        assert welcoming.get(path, raw=True).status == 404


def test_the_data_stay_where_they_are(welcoming: Server, server: Server, page: Path) -> None:
    for path in ("/", "/classic.nc.dds", "/sub/", "/classic.nc.dods?plain"):
        mine, other = welcoming.get(path), server.get(path)
        assert (mine.status, mine.body) == (other.status, other.body)
        assert mine.headers["Content-Security-Policy"] == other.headers["Content-Security-Policy"]
    assert "Cache-Control" not in welcoming.get("/").headers


def test_without_a_page_the_data_are_shown(welcoming: Server, server: Server) -> None:
    for each in (welcoming, server):
        answer = each.get("/", raw=True)
        assert (answer.status, answer.headers["Location"]) == (302, "/opendap/")
    assert server.get("/index.html", raw=True).status == 404


def test_a_directory_that_is_not_there_is_refused_at_the_start(root: Path) -> None:
    said = refusal(root, DAPDIR_HOME="/nowhere")
    assert said == "dapdir: DAPDIR_HOME='/nowhere' is not a directory\n"
