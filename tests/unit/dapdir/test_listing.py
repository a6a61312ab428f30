"""Listings, catalogs, pages and text."""

import os
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree

import netCDF4
import numpy as np
import pytest
from dapdir import bodies, listing
from dapdir.tree import Tree
from siphon.catalog import TDSCatalog

from tests.unit.dapdir.running import Server

THREDDS = "{http://www.unidata.ucar.edu/namespaces/thredds/InvCatalog/v1.0}"
XLINK = "{http://www.w3.org/1999/xlink}href"


@pytest.mark.parametrize("leaf", ["", "contents.html", "catalog.html"])
def test_html_listing(server: Server, leaf: str) -> None:
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
def test_catalog_leads_to_every_data_file(server: Server, base: str) -> None:
    found: set[str] = set()
    todo = [f"{base}catalog.xml"]
    while todo:
        url = todo.pop()
        answer = server.get(url, raw=True)
        assert answer.status == 200, url
        tree = ElementTree.fromstring(answer.body)
        service = tree.find(f"{THREDDS}service")
        assert service is not None
        assert (service.get("serviceType"), service.get("base")) == ("OPeNDAP", base)
        for dataset in tree.iter(f"{THREDDS}dataset"):
            if path := dataset.get("urlPath"):
                found.add(path)
        for reference in tree.iter(f"{THREDDS}catalogRef"):
            href = reference.attrib[XLINK]
            if "sibling" not in href:
                todo.append(url.rpartition("/")[0] + "/" + href.removeprefix("./"))
    assert {"classic.nc", "sub/classic.nc", "subdir/classic.nc", "types.nc"} <= found
    assert not any(path.startswith(".") or "/." in path for path in found)
    assert server.get(f"{base}{sorted(found)[0]}.dds", raw=True).status in (200, 404, 500)


def test_page_of_a_file(server: Server) -> None:
    text = server.get("/sub/classic.nc.html").text
    assert f"{server.url}/sub/classic.nc<" in text
    assert "sst.sst" in text and "time = 6, lat = 7, lon = 9" in text


def test_files_added_replaced_and_removed_are_seen_at_once(
    server: Server, root: Path, tmp_path: Path
) -> None:
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


def test_listing_survives_entries_that_vanish_or_fail(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []

    def stat(name: str, **_options: object) -> NoReturn:
        touched.append(name)
        raise OSError(116, "Stale file handle")

    descriptor = os.open(root, os.O_RDONLY)
    try:
        found = Tree(str(root)).scan(descriptor)
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", stat)
            entries = [listing.entry_of(entry, descriptor) for entry in found]
    finally:
        os.close(descriptor)
    body = listing.directory_page("/", len(entries), lambda number: entries[number])
    pieces, after = body.piece(bodies.START, 1_000_000)
    page = b"".join(piece for piece in pieces if isinstance(piece, bytes)).decode()
    assert after is None
    assert 'href="./classic.nc.dds"' in page and 'href="./sub/"' in page
    # Directories, which may be mounts of file servers that hang, are not even looked at.
    assert "classic.nc" in touched and not {"sub", "subdir", "sibling"} & set(touched)


def test_siphon_finds_urls_that_open(server: Server) -> None:
    catalog = TDSCatalog(f"{server.url}/catalog.xml")
    urls = catalog.datasets["classic.nc"].access_urls
    with netCDF4.Dataset(urls["OPENDAP"]) as file:
        assert file["plain"][1, 2] == 900_000


def test_ascii(server: Server) -> None:
    text = server.get("/classic.nc.ascii?plain[1][0:3:6],letter,chars[2:3]").text
    assert text.splitlines() == [
        "Dataset: classic%2Enc", "plain[0], 700000, 1000000, 1300000",
        f'chars, "{"x" * 100}", "a b"', 'letter, "Q"',
    ]  # fmt: skip
    assert server.get("/classic.nc.asc?scalar").text.endswith("scalar, 0.1\n")
