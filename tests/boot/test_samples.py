"""The service as readers see it: listings, the samples, and what is refused."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import netCDF4
import pytest
import xarray

from tests.boot.capabilities import Capabilities
from tests.boot.clients import CLIENTS, DIGITS, readings
from tests.boot.data import SAMPLES, Case, assert_same, local
from tests.boot.guest import Guest

THREDDS = "{http://www.unidata.ucar.edu/namespaces/thredds/InvCatalog/v1.0}"
FILES = {"sst.nc", "stations.nc", "elevation.h5"}


class Links(HTMLParser):
    """The absolute paths that a page at `path` links to."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__()
        self._path = path
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            # Browsers strip the address; Hyrax puts newlines behind it.
            self.found.add(urljoin(self._path, (dict(attrs).get("href") or "").strip()))


def addresses(catalog: ET.Element) -> dict[str, str]:
    """Return name -> path of each data set that DAP clients can open (THREDDS, InvCatalog 1.0)."""
    services = {s.get("name"): s for s in catalog.iter(f"{THREDDS}service")}
    found = {}
    for dataset in catalog.iter(f"{THREDDS}dataset"):
        for access in dataset.findall(f"{THREDDS}access"):
            service = services[access.get("serviceName")]
            if service.get("serviceType") == "OPeNDAP":
                base, path = service.get("base") or "", access.get("urlPath") or ""
                found[dataset.get("name") or ""] = f"{base.rstrip('/')}/{path.lstrip('/')}"
    return found


@pytest.mark.parametrize("prefix", ["/opendap/", "/opendap/hyrax/"])
def test_the_listing_leads_to_every_sample(guest: Guest, prefix: str) -> None:
    root = guest.get(prefix)
    assert root.status == 200
    assert root.headers.get_content_type() == "text/html"
    links = Links(prefix, root.text).found
    assert {link.removesuffix("contents.html") for link in links} >= {f"{prefix}sample/"}
    inside = guest.get(f"{prefix}sample/")
    links = Links(f"{prefix}sample/", inside.text).found
    for name in FILES:
        views = {link for link in links if link.startswith(f"{prefix}sample/{name}")}
        assert views
        assert {guest.get(view).status for view in views} == {200}


@pytest.mark.parametrize("prefix", ["/opendap/", "/opendap/hyrax/"])
def test_the_thredds_catalog_names_every_sample(
    guest: Guest, server: Capabilities, prefix: str
) -> None:
    if "catalog.xml" not in server.catalogs:
        return
    root = ET.fromstring(guest.get(f"{prefix}catalog.xml").body)
    below = {e.get("{http://www.w3.org/1999/xlink}href") for e in root.iter(f"{THREDDS}catalogRef")}
    targets = {urljoin(f"{prefix}catalog.xml", link or "") for link in below}
    assert f"{prefix}sample/catalog.xml" in targets
    catalog = ET.fromstring(guest.get(f"{prefix}sample/catalog.xml").body)
    found = addresses(catalog)
    assert found.keys() >= FILES
    assert guest.get(f"{found['sst.nc']}.dds").text.startswith("Dataset {")


@pytest.mark.parametrize(("client", "case"), readings(SAMPLES), ids=str)
def test_sample_values(guest: Guest, samples: Path, client: str, case: Case) -> None:
    found = CLIENTS[client](guest.url(f"sample/{case.file}"), case.variable, case.subset)
    assert_same(found, local(samples, case), DIGITS.get(client, 0))


def test_the_long_prefix_reaches_the_same_values(guest: Guest, samples: Path) -> None:
    case = Case("sst.nc", "sst")
    found = CLIENTS["netcdf4"](guest.url("hyrax/sample/sst.nc"), case.variable, case.subset)
    assert_same(found, local(samples, case))


def test_xarray_decodes_a_sample_as_it_decodes_the_file(guest: Guest, samples: Path) -> None:
    with (
        xarray.open_dataset(guest.url("sample/sst.nc"), engine="netcdf4") as served,
        xarray.open_dataset(samples / "sst.nc", engine="netcdf4") as file,
    ):
        xarray.testing.assert_equal(served.load(), file.load())
        assert served.sst.attrs["units"] == "degree_Celsius"


def test_attributes_are_served(guest: Guest, samples: Path) -> None:
    with (
        netCDF4.Dataset(guest.url("sample/sst.nc")) as served,
        netCDF4.Dataset(samples / "sst.nc") as file,
    ):
        for name in file["sst"].ncattrs():
            assert served["sst"].getncattr(name) == file["sst"].getncattr(name)
        assert served.title == file.title


@pytest.mark.parametrize("path", ["nothing.nc.dds", "sample/nothing.nc.dods", "nowhere/x.nc.das"])
def test_a_missing_file_is_reported_as_missing(
    guest: Guest, server: Capabilities, path: str
) -> None:
    answer = guest.get(f"/opendap/{path}")
    assert answer.status == server.missing
    assert "/srv/" not in answer.text


@pytest.mark.parametrize(
    "constraint", ["sst%5B0:1:12%5D", "sst%5B0", "nosuch", "sst%5B5:1:2%5D", "lat%5B0:0:3%5D"]
)
def test_a_wrong_constraint_is_an_error_and_not_data(
    guest: Guest, server: Capabilities, constraint: str
) -> None:
    answer = guest.get(f"/opendap/sample/sst.nc.dods?{constraint}")
    assert answer.status == server.bad_constraint or (
        server.bad_constraint is None and answer.status >= 400
    )
    assert answer.text.startswith("Error {")
    assert "/srv/" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/opendap/../../../etc/passwd",
        "/opendap/%2e%2e/%2e%2e/etc/passwd",
        "/opendap/sample/..%2f..%2f..%2fetc/passwd",
        "/opendap/hyrax/sample/../../../../etc/hyrax-vm-release",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_data_root_is_served(guest: Guest, path: str) -> None:
    answer = guest.get(path)
    assert answer.status in (400, 403, 404)
    assert b"root:" not in answer.body
    assert b"VERSION=" not in answer.body
