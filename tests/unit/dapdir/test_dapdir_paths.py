"""Only what lies below the root is served, and no answer tells where the root is."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pytest
from dapdir_files import make_classic
from dapdir_server import PACKAGE
from hypothesis import given, settings
from hypothesis import strategies as st

THREDDS = "{http://www.unidata.ucar.edu/namespaces/thredds/InvCatalog/v1.0}"
XLINK = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture(scope="module", autouse=True)
def traps(root):
    """Things below the root that must not be served, and links that may."""
    (root / ".hidden").mkdir()
    make_classic(root / ".hidden" / "classic.nc")
    make_classic(root / ".dot.nc")
    (root / "out.nc").symlink_to("../outside.nc")
    (root / "absolute.nc").symlink_to(root.parent / "outside.nc")
    (root / "sibling").symlink_to("../root-sibling")
    (root / "passwd.txt").symlink_to("/etc/passwd")
    (root / "to-hidden.nc").symlink_to(".dot.nc")
    (root / "loop.nc").symlink_to("loop.nc")
    (root / "dangling.nc").symlink_to("gone.nc")
    (root / "inside.nc").symlink_to("classic.nc")
    (root / "subdir").symlink_to("sub")
    os.mkfifo(root / "pipe.nc")
    (root / "locked.nc").write_bytes(b"CDF\x01")
    (root / "odd é&<#?.nc").write_bytes((root / "classic.nc").read_bytes())
    (root / os.fsdecode(b"latin-\xe9.nc")).write_bytes((root / "classic.nc").read_bytes())
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(root / "socket.nc"))
    if os.geteuid() == 0:
        os.mknod(root / "device.nc", 0o600 | 0o020000, os.makedev(1, 5))
    return root


def check_refusal(server, path, answer):
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
        "/..%5coutside.nc", "/../root-sibling/classic.nc", "//classic.nc", "/sub//classic.nc",
        "/%2fetc%2fpasswd", "//etc/passwd", "/classic.nc%00", "/%00/classic.nc",
        "/classic.nc%0d%0aX: y", "/.dot.nc", "/.hidden/classic.nc", "/hyrax/../../outside.nc",
        "/out.nc", "/absolute.nc", "/sibling/classic.nc", "/passwd.txt", "/to-hidden.nc",
        "/loop.nc", "/dangling.nc", "/pipe.nc", "/socket.nc", "/device.nc", "/classic.nc/x",
        "/" + "x" * 300, "/" + "x/" * 3000, "/%ff%fe", "/..%c0%af..%c0%afetc/passwd",
    ],
)  # fmt: skip
def test_refused(server, path, suffix):
    check_refusal(server, path, server.get(quote(path, safe="/%\\") + suffix))


@pytest.mark.parametrize(
    "path", ["/../", "/sibling/", "/.hidden/", "/%2e%2e/", "/nope/", "/classic.nc/", "/sub//", "//"]
)
def test_refused_directories(server, path):
    for leaf in ("", "contents.html", "catalog.xml"):
        check_refusal(server, path, server.get(path + leaf))


@settings(deadline=None, max_examples=60)
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
def test_no_path_leads_out(server, parts, last):
    answer = server.get("/" + "/".join([*parts, last]))
    assert answer.status in (200, 302, 400, 403, 404)
    assert str(server.root.parent).encode() not in answer.body
    assert b"outside.nc" not in answer.body or answer.status != 200
    assert b"root:" not in answer.body
    if answer.status == 200 and last == "classic.nc":
        assert all(part in ("sub", "hyrax") for part in parts)


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux only")
def test_links_inside_the_root_work(server):
    whole = server.get("/classic.nc.dods?plain").body.split(b"\nData:\n")[1]
    for path in ("/inside.nc", "/subdir/classic.nc"):
        assert server.get(f"{path}.dods?plain").body.split(b"\nData:\n")[1] == whole


def test_a_link_swapped_all_the_time_never_leads_out(server, root, tmp_path):
    """The race between check and open: one process swaps, many requests try."""
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


def test_permission_denied(root, tmp_path):
    """As an unprivileged user, in this process: the server of the other tests may run as root."""
    code = (
        "import os, sys\n"
        "from dapdir.app import Application\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "def start(status, headers): print(status)\n"
        "app = Application(sys.argv[1])\n"
        "for path in ('/opendap/locked.nc.dds', '/opendap/locked.nc', '/opendap/closed/'):\n"
        "    environ = {'PATH_INFO': path, 'REQUEST_METHOD': 'GET'}\n"
        "    print(b''.join(app(environ, start)).decode())\n"
    )
    base = Path("/tmp") if os.geteuid() == 0 else tmp_path
    place = base / f"dapdir-permission-{os.getpid()}"
    (place / "closed").mkdir(parents=True)
    try:
        place.chmod(0o755)
        (place / "locked.nc").write_bytes(b"CDF\x01")
        (place / "locked.nc").chmod(0)
        (place / "closed").chmod(0)
        result = subprocess.run(
            [sys.executable, "-c", code, str(place)],
            env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    finally:
        (place / "closed").chmod(0o755)
        shutil.rmtree(place)
    assert result.stdout.count("403 Forbidden\n") == 3, result
    assert "permission denied: locked.nc" in result.stdout
    assert str(place) not in result.stdout


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
def test_errors_are_dap_errors_with_the_urls_path_only(server, path, status, words):
    answer = server.get(path)
    assert answer.status == status
    assert answer.text.startswith(f'Error {{\n    code = {status};\n    message = "')
    assert words in answer.text
    assert str(server.root).encode() not in answer.body and b"/proc" not in answer.body
    assert answer.headers["Content-Description"] == "dods_error"


def test_damage_behind_the_header(server, root):
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


def test_methods(server):
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


def test_redirects_and_prefixes(server):
    for sent, location in {
        "/": "/opendap/", "/opendap": "/opendap/", "/opendap/hyrax": "/opendap/hyrax/",
        "/opendap/sub": "/opendap/sub/", "/opendap/hyrax/sub": "/opendap/hyrax/sub/",
    }.items():  # fmt: skip
        answer = server.get(sent, raw=True)
        assert (answer.status, answer.headers["Location"]) == (302, location)
    for path in ("/classic.nc.dds", "/sub/classic.nc.dods?plain", "/classic.nc", "/sub/"):
        assert server.get(path).body == server.get(f"/hyrax{path}").body
    assert server.get("/elsewhere", raw=True).status == 404


def test_headers_carry_its_own_name(server):
    for path in ("/", "/classic.nc.dods", "/nope.nc.dds", "/version", "/classic.nc.ver"):
        headers = server.get(path).headers
        assert headers.get_all("Server") == ["dapdir/1.0.0"]
        assert headers["XDODS-Server"] == "dapdir/1.0.0 (DAP/2.0)"
    assert "dapdir/1.0.0" in server.get("/version").text


def test_download(server, root):
    answer = server.get("/classic.nc")
    assert answer.body == (root / "classic.nc").read_bytes()
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert server.get("/notes.txt").headers["Content-Type"] == "text/plain; charset=utf-8"
    (root / "page.html").write_text("<script>alert(1)</script>")
    answer = server.get("/page.html")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("leaf", ["", "contents.html", "catalog.html"])
def test_html_listing(server, leaf):
    text = server.get(f"/{leaf}").text
    assert "dapdir/1.0.0" in text
    for href in ("./sub/", "./classic.nc.dds", "./classic.nc.dods", "./notes.txt"):
        assert f'href="{href}"' in text
    size = (server.root / "classic.nc").stat().st_size
    assert f">{size:,}<" in text
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert 'name="viewport"' in text
    for trap in (".hidden", ".dot.nc", "pipe.nc", "socket.nc", "device.nc"):
        assert trap not in text
    assert 'href="./odd%20%C3%A9%26%3C%23%3F.nc.dds"' in text and "odd é&amp;&lt;#?.nc" in text
    assert 'href="./latin-%E9.nc.dds"' in text
    assert server.get("/odd%20%C3%A9%26%3C%23%3F.nc.dds").status == 200
    assert server.get("/latin-%E9.nc.dds").status == 200


@pytest.mark.parametrize("base", ["/opendap/", "/opendap/hyrax/"])
def test_catalog_leads_to_every_data_file(server, base):
    found = set()
    todo = [f"{base}catalog.xml"]
    while todo:
        url = todo.pop()
        answer = server.get(url, raw=True)
        assert answer.status == 200, url
        tree = ElementTree.fromstring(answer.body)
        service = tree.find(f"{THREDDS}service")
        assert (service.get("serviceType"), service.get("base")) == ("OPeNDAP", base)
        for dataset in tree.iter(f"{THREDDS}dataset"):
            if dataset.get("urlPath"):
                found.add(dataset.get("urlPath"))
        for reference in tree.iter(f"{THREDDS}catalogRef"):
            href = reference.get(XLINK)
            if "sibling" not in href:
                todo.append(url.rpartition("/")[0] + "/" + href.removeprefix("./"))
    assert {"classic.nc", "sub/classic.nc", "subdir/classic.nc", "types.nc"} <= found
    assert not any(path.startswith(".") or "/." in path for path in found)
    assert server.get(f"{base}{sorted(found)[0]}.dds", raw=True).status in (200, 404, 500)


def test_page_of_a_file(server):
    text = server.get("/sub/classic.nc.html").text
    assert f"{server.url}/sub/classic.nc<" in text
    assert "sst.sst" in text and "time = 6, lat = 7, lon = 9" in text


def test_files_added_replaced_and_removed_are_seen_at_once(server, root, tmp_path):
    import netCDF4

    for value in range(5):
        with netCDF4.Dataset(tmp_path / "new.nc", "w") as file:
            file.createDimension("x", value + 1)
            file.createVariable("v", "i4", ("x",))[:] = value
        (tmp_path / "new.nc").replace(root / "changing.nc")
        for _ in range(4):  # whichever worker answers
            body = server.get("/changing.nc.dods").body
            expected = np.full(value + 1, value, ">i4").tobytes()
            assert body.endswith(expected) and f"[x = {value + 1}]".encode() in body
            assert "changing.nc" in server.get("/").text
    (root / "changing.nc").unlink()
    assert server.get("/changing.nc.dods").status == 404
    assert "changing.nc" not in server.get("/").text


def test_listing_survives_entries_that_vanish_or_fail(root, monkeypatch):
    from dapdir import listing
    from dapdir.tree import Tree

    touched = []

    class Entry:
        def __init__(self, real):
            self.name, self._real = real.name, real
            self.is_symlink, self.is_dir, self.is_file = (
                real.is_symlink, real.is_dir, real.is_file,
            )  # fmt: skip

        def stat(self, follow_symlinks):
            touched.append(self.name)
            raise OSError(116, "Stale file handle")

    entries = [listing.entry_of(Entry(e)) for e in Tree(str(root)).scan([])]
    page = listing.directory_page("/", [e for e in entries if e]).decode()
    assert 'href="./classic.nc.dds"' in page and 'href="./sub/"' in page
    # Directories, which may be mounts of file servers that hang, are not even looked at.
    assert "classic.nc" in touched and not {"sub", "subdir", "sibling"} & set(touched)


def test_ascii(server):
    text = server.get("/classic.nc.ascii?plain[1][0:3:6],letter,chars[2:3]").text
    assert text.splitlines() == [
        "Dataset: classic%2Enc", "plain[0], 700000, 1000000, 1300000",
        f'chars, "{"x" * 100}", "a b"', 'letter, "Q"',
    ]  # fmt: skip
    assert server.get("/classic.nc.asc?scalar").text.endswith("scalar, 0.1\n")
