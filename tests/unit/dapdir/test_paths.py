"""Only files below the root are served, and no answer shows where the root is."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import pytest
from dapdir.errors import RequestError
from dapdir.site import Request, Site
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.dapdir.running import Answer, Server


def check_refusal(server: Server, path: str, answer: Answer) -> None:
    assert answer.status in (403, 404), (path, answer.status, answer.body[:200])
    assert str(server.root.parent).encode() not in answer.body
    assert b"CDF" not in answer.body and b"root:" not in answer.body
    assert b"Float32" not in answer.body


@pytest.mark.parametrize("suffix", ["", ".dds", ".das", ".dods", ".ascii", ".html"])
@pytest.mark.parametrize(
    "path",
    [
        "/../outside.nc", "/%2e%2e/outside.nc", "/..%2foutside.nc", "/%252e%252e%252foutside.nc",
        "/sub/../../outside.nc", "/sub/%2e%2e/classic.nc", "/./classic.nc", "/..\\outside.nc",
        "/..%5coutside.nc", "/../root-sibling/classic.nc", "//../outside.nc",
        "/%2fetc%2fpasswd", "//etc/passwd", "/classic.nc%00", "/%00/classic.nc",
        "/classic.nc%0d%0aX: y", "/.dot.nc", "/.hidden/classic.nc", "/hyrax/../../outside.nc",
        "/out.nc", "/absolute.nc", "/sibling/classic.nc", "/passwd.txt", "/to-hidden.nc",
        "/loop.nc", "/dangling.nc", "/pipe.nc", "/socket.nc", "/device.nc", "/classic.nc/x",
        "/" + "x" * 300, "/" + "x/" * 3000, "/%ff%fe", "/..%c0%af..%c0%afetc/passwd",
    ],
)  # fmt: skip
def test_refused(server: Server, path: str, suffix: str) -> None:
    check_refusal(server, path, server.get(quote(path, safe="/%\\") + suffix))


@pytest.mark.parametrize(
    "path",
    ["/../", "/sibling/", "/.hidden/", "/%2e%2e/", "/nope/", "/classic.nc/", "//../", "//etc/"],
)
def test_refused_directories(server: Server, path: str) -> None:
    for leaf in ("", "contents.html", "catalog.xml"):
        check_refusal(server, path, server.get(path + leaf))


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            ["..", ".", "", "sub", "%2e%2e", "%2E.", "root", "root-sibling", "outside.nc", "%2f",
             "sibling", "\\", "%5c", "hyrax", "..%2f", "%252e", "etc", "passwd", ".hidden", "%00"]
        ),
        max_size=6,
    ),
    st.sampled_from(["outside.nc.dds", "../outside.nc", "passwd", "", "classic.nc"]),
)  # fmt: skip
def test_no_path_leads_out(server: Server, parts: list[str], last: str) -> None:
    answer = server.get("/" + "/".join([*parts, last]))
    assert answer.status in (200, 302, 400, 403, 404)
    assert str(server.root.parent).encode() not in answer.body
    assert b"outside.nc" not in answer.body or answer.status != 200
    assert b"root:" not in answer.body
    if answer.status == 200 and last == "classic.nc":
        assert all(part in ("sub", "hyrax", "", "%2f") for part in parts)


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux only")
def test_links_inside_the_root_work(server: Server) -> None:
    whole = server.get("/classic.nc.dods?plain").body.split(b"\nData:\n")[1]
    for path in ("/inside.nc", "/subdir/classic.nc"):
        assert server.get(f"{path}.dods?plain").body.split(b"\nData:\n")[1] == whole


def test_a_link_swapped_all_the_time_never_leads_out(
    server: Server, root: Path, tmp_path: Path
) -> None:
    """Race the check against the open: one process swaps a link during many requests."""
    code = (
        "import os, sys, itertools\n"
        "os.chdir(sys.argv[1])\n"
        "for i in itertools.count():\n"
        "    os.symlink(['../outside.nc', 'notes.txt'][i % 2], 'swap.tmp')\n"
        "    os.replace('swap.tmp', 'swap.txt')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(root)]) as swapper:
        try:
            seen = set()
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                answer = server.get("/swap.txt")
                seen.add(answer.status)
                assert answer.status == 404 or answer.body == b"plain text\n"
        finally:
            swapper.kill()
    (root / "swap.txt").unlink()
    assert seen == {200, 404}


def in_a_child(work: Callable[[TextIO], None]) -> tuple[str, int]:
    """Return what a child of this process writes, and its status."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writer, "w") as sink:
                work(sink)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as source:
        said = source.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_permission_denied(root: Path, tmp_path: Path) -> None:
    """As an unprivileged user, in a child: the server of the other tests may run as root."""

    def ask(sink: TextIO) -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        site = Site(str(place))
        for path in ("/opendap/locked.nc.dds", "/opendap/locked.nc", "/opendap/closed/"):
            try:
                site.answer(Request(path))
            except RequestError as error:
                sink.write(f"{error.status} {error.message}\n")

    base = Path("/tmp") if os.geteuid() == 0 else tmp_path
    place = base / f"dapdir-permission-{os.getpid()}"
    (place / "closed").mkdir(parents=True)
    try:
        place.chmod(0o755)
        (place / "locked.nc").write_bytes(b"CDF\x01")
        (place / "locked.nc").chmod(0)
        (place / "closed").chmod(0)
        said, status = in_a_child(ask)
    finally:
        (place / "closed").chmod(0o755)
        shutil.rmtree(place)
    assert status == 0, said
    assert said.count("403 permission denied") == 3, said
    assert "permission denied: locked.nc" in said
    assert str(place) not in said


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nope.nc.dds", 404, "no such file or directory: nope.nc"),
        ("/notes.txt.dds", 404, "/notes.txt is not a netCDF or HDF5 file"),
        ("/empty.nc.dods", 404, "/empty.nc is not a netCDF or HDF5 file"),
        ("/broken.nc.das", 500, "/broken.nc is damaged"),
        ("/broken.nc.dods?x", 500, "/broken.nc is damaged"),
        ("/sub.dds", 404, "no such file"),
    ],
)
def test_errors_are_dap_errors_with_the_urls_path_only(
    server: Server, path: str, status: int, words: str
) -> None:
    answer = server.get(path)
    assert answer.status == status
    assert answer.text.startswith(f'Error {{\n    code = {status};\n    message = "')
    assert words in answer.text
    assert str(server.root).encode() not in answer.body and b"/proc" not in answer.body
    assert answer.headers["Content-Description"] == "dods_error"


def test_damage_behind_the_header(server: Server, root: Path) -> None:
    data = (root / "types.nc").read_bytes()
    (root / "cut.nc").write_bytes(data[: len(data) * 2 // 3])
    flipped = bytearray(data)
    flipped[len(data) // 4 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 4)
    (root / "flipped.nc").write_bytes(flipped)
    for name in ("cut.nc", "flipped.nc"):
        answer = server.get(f"/{name}.dods")
        assert answer.status == 500
        assert f"/{name} is damaged" in answer.text
    assert server.get("/classic.nc.dds").status == 200


def test_methods(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = server.get("/classic.nc.dods", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    for path in (
        "/",
        "/classic.nc.dods",
        "/classic.nc.dds",
        "/classic.nc",
        "/catalog.xml",
        "/nope/",
    ):
        head, get = server.get(path, "HEAD"), server.get(path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_redirects_and_prefixes(server: Server) -> None:
    for sent, location in {
        "/": "/opendap/", "/opendap": "/opendap/", "/opendap/hyrax": "/opendap/hyrax/",
        "/opendap/sub": "/opendap/sub/", "/opendap/hyrax/sub": "/opendap/hyrax/sub/",
    }.items():  # fmt: skip
        answer = server.get(sent, raw=True)
        assert (answer.status, answer.headers["Location"]) == (302, location)
    for path in ("/classic.nc.dds", "/sub/classic.nc.dods?plain", "/classic.nc", "/sub/"):
        assert server.get(path).body == server.get(f"/hyrax{path}").body
    assert server.get("/elsewhere", raw=True).status == 404


def test_headers_carry_its_own_name(server: Server) -> None:
    for path in ("/", "/classic.nc.dods", "/nope.nc.dds", "/version", "/classic.nc.ver"):
        headers = server.get(path).headers
        assert headers.get_all("Server") == ["dapdir/1.0.0"]
        assert headers["XDODS-Server"] == "dapdir/1.0.0 (DAP/2.0)"
    assert "dapdir/1.0.0" in server.get("/version").text


def test_download(server: Server, root: Path) -> None:
    answer = server.get("/classic.nc")
    assert answer.body == (root / "classic.nc").read_bytes()
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert server.get("/notes.txt").headers["Content-Type"] == "text/plain; charset=utf-8"
    (root / "page.html").write_text("<script>alert(1)</script>")
    answer = server.get("/page.html")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
