"""Sites as they are in the field: login pages, proxies, ~/.netrc, mirrors, and old lists."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.publish import publisher, signed_index
from hyraxvm.release import index
from tests.unit.publish.downloads import behind, get, left, sign_index
from tests.unit.release.shop import NAME
from tests.unit.store.loopback import Quiet, Rclone, serving

LOGIN = b"<!DOCTYPE html>\n<html><title>Welcome to the hotel</title></html>"


@contextlib.contextmanager
def handled(folder: Path, act: Callable[[Quiet], bool]) -> Iterator[str]:
    """Serve a folder; `act` may answer a request itself, and then returns True."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            if not act(self):
                super().do_GET()

    with serving(folder, Handler) as url:
        yield url


def reply(
    handler: http.server.BaseHTTPRequestHandler,
    data: bytes,
    kind: str = "",
    status: int = 200,
    **headers: str,
) -> bool:
    handler.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)
    return True


def test_nothing_of_netrc_is_sent_even_after_a_redirect(
    own: tuple[str, Path], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    asked: list[str] = []

    def note(handler: Quiet) -> bool:
        asked.append(handler.headers.get("Authorization", ""))
        return False

    with handled(own[1], note) as target:

        def redirect(handler: Quiet) -> bool:
            note(handler)
            return reply(handler, b"", status=302, Location=target + handler.path)

        with handled(own[1], redirect) as url:
            elsewhere = url.replace("//127.0.0.1", "//me:hush@localhost")
            assert get(url, key, tmp_path / "to").stat().st_size > 0
            assert set(asked) == {""}
            asked.clear()
            # Asked for: the password of the URL is for its host only.
            assert get(elsewhere, key, tmp_path / "also").stat().st_size > 0
    assert set(asked) == {f"Basic {base64.b64encode(b'me:hush').decode()}", ""}
    assert asked[1] == ""


def test_a_proxy_of_the_environment_is_used(
    own: tuple[str, Path], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through: list[str] = []

    def proxy(handler: Quiet) -> bool:
        through.append(handler.path)
        handler.path = handler.path.removeprefix("http://downloads.example.org")
        return False

    with handled(own[1], proxy) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        got = get("http://downloads.example.org", key, tmp_path / "to")
    assert got.read_bytes() == (own[1] / "releases/1.0.0" / got.name).read_bytes()
    assert through[0] == "http://downloads.example.org/index.json"


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("index.json", "text/html", 200),
        ("index.json", "", 200),
        ("index.json", "text/html", 511),
        ("SHA256SUMS", "text/plain", 200),
        (f"{NAME}.qcow2", "text/html; charset=utf-8", 200),
    ],
)
def test_a_login_page_is_one_line_and_spoils_nothing(
    own: tuple[str, Path], key: str, tmp_path: Path, name: str, kind: str, status: int
) -> None:
    asked: list[str] = []

    def portal(handler: Quiet) -> bool:
        asked.append(handler.path)
        return handler.path.endswith(name) and reply(handler, LOGIN, kind, status)

    path = own[1] / "releases/1.0.0" / f"{NAME}.qcow2"
    part = tmp_path / "1.0.0" / part_of(path)
    part.parent.mkdir()
    part.write_bytes(path.read_bytes()[:1000])
    with (
        handled(own[1], portal) as url,
        pytest.raises(UserError, match=f"{name}: a web page came instead of the file") as caught,
    ):
        get(url, key, tmp_path, kind="qcow2")
    assert "from 127.0.0.1; if this network wants a login, open any page in a browser" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert sum(one.endswith(name) for one in asked) == 1
    assert part.read_bytes() == path.read_bytes()[:1000]
    assert get(own[0], key, tmp_path, kind="qcow2").read_bytes() == path.read_bytes()


def part_of(path: Path) -> str:
    """Return the name of the file that a download of `path` begins."""
    lines = (path.parent / "SHA256SUMS").read_text().splitlines()
    digest = next(line.split()[0] for line in lines if line.endswith(path.name))
    return f".{path.name}.{digest[:12]}.part"


def test_another_range_than_was_asked_for_is_not_taken(
    own: tuple[str, Path], key: str, tmp_path: Path, quick: None
) -> None:
    path = own[1] / "releases/1.0.0" / f"{NAME}.qcow2"
    data = path.read_bytes()

    def wrong(handler: Quiet) -> bool:
        if "Range" not in handler.headers:
            return False
        span = f"bytes 500-{len(data) - 1}/{len(data)}"
        return reply(handler, data[500:], status=206, Content_Range=span)

    part = tmp_path / "1.0.0" / part_of(path)
    part.parent.mkdir()
    part.write_bytes(data[:1000])
    with (
        handled(own[1], wrong) as url,
        pytest.raises(Failure, match="the server answers another part than was asked for; type"),
    ):
        get(url, key, tmp_path, kind="qcow2")
    assert part.read_bytes() == data[:1000]


def test_a_certificate_that_is_refused_is_said_at_once(
    own: tuple[str, Path], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = tmp_path / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=portal", "-keyout", str(pem)),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", pem)
    accepted: list[str] = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            accepted.append(self.path)
            super().do_GET()

    def answering(*words: object) -> Handler:
        return Handler(*words, directory=str(own[1]))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answering) as web:
        web.socket = context.wrap_socket(web.socket, server_side=True)
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        url = f"https://127.0.0.1:{web.server_port}"
        with pytest.raises(UserError, match="its certificate is refused: self-signed certificate"):
            get(url, key, tmp_path / "to")
        assert accepted == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
        assert get(url, key, tmp_path / "to").stat().st_size > 0
        web.shutdown()


# ------------------------------------------------------------------------------------- mirrors


def test_mirrors_are_tried_in_turn(
    own: tuple[str, Path], key: str, tmp_path: Path, quick: None
) -> None:
    """The first is away, the second has changed, the third has nothing, the fourth is right."""
    changed, empty = tmp_path / "changed", tmp_path / "empty"
    shutil.copytree(own[1], changed)
    empty.mkdir()
    sums = changed / "releases/1.0.0/SHA256SUMS"
    sums.write_bytes(sums.read_bytes().replace(b"nfs", b"xfs"))
    said: list[str] = []
    with serving(changed) as second, serving(empty) as third:
        sites = ["http://127.0.0.1:1", second, third, own[0]]
        got = get(sites, key, tmp_path / "to", said=said)
        with pytest.raises(UserError, match=f"{third}/index.json: the server answers 404"):
            get(sites[:3], key, tmp_path / "none")
    assert got.read_bytes() == (own[1] / "releases/1.0.0" / got.name).read_bytes()
    assert [line.rpartition("; trying ")[2] for line in said] == [
        *(f"{second}/", f"{third}/", f"{own[0]}/", said[-1])
    ]
    assert "Connection refused" in said[0]
    assert "SHA256SUMS: is not what key" in said[1]
    assert said[-1].endswith(f"signed by {key}")


def test_a_mirror_continues_what_another_site_has_begun(
    own: tuple[str, Path], web: Rclone, key: str, tmp_path: Path, quick: None
) -> None:
    path = own[1] / "releases/1.0.0" / f"{NAME}.qcow2"
    begins: list[int] = []

    def note(handler: Quiet) -> bool:
        if handler.path.endswith(".qcow2"):
            begin = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            begins.append(begin)
            data = path.read_bytes()
            span = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            return reply(handler, data[begin:], status=206, Content_Range=span)
        return False

    with (
        behind(web, own[0], ("drop", 9_000), *[("drop", 0)] * 50) as first,
        handled(own[1], note) as second,
    ):
        got = get([first, second], key, tmp_path, kind="qcow2")
    assert got.read_bytes() == path.read_bytes()
    assert len(begins) == 1
    assert begins[0] > 0


def test_a_fault_of_this_computer_is_said_once(
    own: tuple[str, Path], key: str, tmp_path: Path
) -> None:
    said: list[str] = []
    (tmp_path / "to").write_text("mine")
    with pytest.raises(UserError, match="name another folder with --to"):
        get([own[0], own[0]], key, tmp_path / "to", said=said)
    assert said == []


# ------------------------------------------------------------------------- old and hidden lists


def dated(path: Path, key: str, days: float) -> str:
    """Sign an index as of some days from now; return that date."""
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    date = when.strftime(publisher.DATE)
    sign_index(path, key, date=date)
    return date


def test_a_site_cannot_lead_back_to_an_older_list(
    own: tuple[str, Path], key: str, tmp_path: Path
) -> None:
    """It shows the list of before a withdrawal, with its true signature."""
    path = own[1] / "index.json"
    old = dated(path, key, -2)
    before = path.read_bytes()
    get(own[0], key, tmp_path / "1")
    text = path.read_text().replace('"withdrawn": ""', '"withdrawn": "loses data"', 1)
    path.write_text(text)
    new = dated(path, key, -1)
    with pytest.raises(UserError, match=r"1\.0\.0 was withdrawn: loses data"):
        get(own[0], key, tmp_path / "2")
    path.write_bytes(before)
    with pytest.raises(UserError) as caught:
        get(own[0], key, tmp_path / "3")
    assert str(caught.value) == (
        f"{own[0]}/index.json: was signed on {old}, but this computer has seen a list of {new}; "
        "the site is out of date, or hides releases; name another with --url"
    )
    assert left(tmp_path / "3") == []
    # Another site with the newer list is then taken.
    (tmp_path / "www").mkdir()
    shutil.copytree(own[1], tmp_path / "www/vm")
    dated(tmp_path / "www/vm/index.json", key, 0)
    with serving(tmp_path / "www") as url:
        assert get([own[0], f"{url}/vm"], key, tmp_path / "4").is_file()
    assert json.loads(signed_index.memory().read_text())[key] > new


def test_a_list_that_nobody_has_renewed_is_noticed(
    own: tuple[str, Path], key: str, tmp_path: Path
) -> None:
    path = own[1] / "index.json"
    for days, told in ((-31, "was signed 31 days ago; ask the maintainers"), (-29, ""), (0.9, "")):
        said: list[str] = []
        dated(path, key, days - 0.01)
        get(own[0], key, tmp_path / str(days), said=said)
        assert len(said) == (2 if told else 1), said
        assert told in said[0]
    said = []
    date = dated(path, key, 2)
    get(own[0], key, tmp_path / "future", said=said)
    assert said[0] == (
        f"{own[0]}/index.json: was signed on {date}, which is in the future; set this computer's "
        "clock"
    )


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, ""])
def test_a_damaged_memory_is_one_line(
    own: tuple[str, Path], key: str, tmp_path: Path, text: str
) -> None:
    path = signed_index.memory()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError, match=r"lists.json: is damaged .*; remove it, and try again"):
        get(own[0], key, tmp_path)


def test_the_date_never_goes_back(key: str) -> None:
    plain = index.make_index(key, [])
    now = datetime.datetime.now(datetime.UTC)
    later = (now + datetime.timedelta(hours=2)).strftime(publisher.DATE)
    assert publisher.signed(plain, later, "").date == later
    assert abs(datetime.datetime.fromisoformat(publisher.signed(plain, "", "").date) - now) < (
        datetime.timedelta(minutes=5)
    )
    with pytest.raises(UserError, match=r"was signed on 2099-.*, which is in the future; set this"):
        publisher.signed(plain, "2099-01-01T00:00:00Z", "s3://x/")
