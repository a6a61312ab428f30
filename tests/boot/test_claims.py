"""What the server claims in its `capabilities.toml`, line by line, and what it does not claim."""

from __future__ import annotations

import http.client
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from pydap.client import open_url

from hyraxvm.vm.qemu import HTTP
from tests.boot.capabilities import Capabilities
from tests.boot.data import Case, assert_same, local
from tests.boot.guest import Guest

WHOLE = Case("sst.nc", "sst")


def test_every_claimed_response_is_given(guest: Guest, server: Capabilities) -> None:
    for suffix in server.responses:
        answer = guest.get(f"/opendap/sample/sst.nc{suffix}", timeout=120)
        assert answer.status == 200, suffix
        # The response `.ver` names the server; all others name the variable.
        assert (b"dap" if suffix == ".ver" else b"sst") in answer.body.lower(), suffix


def test_a_response_that_is_not_claimed_is_refused(guest: Guest, server: Capabilities) -> None:
    assert not set(server.refused) & set(server.responses)
    for suffix in server.refused:
        assert guest.get(f"/opendap/sample/sst.nc{suffix}").status >= 400, suffix


def test_the_url_of_the_file_answers_as_claimed_and_head_as_get(
    guest: Guest, server: Capabilities, samples: Path
) -> None:
    answer = guest.get("/opendap/sample/sst.nc")
    if server.file is not None:
        assert answer.status == server.file
    assert (answer.body == (samples / "sst.nc").read_bytes()) == (answer.status == 200)
    asked = http.client.HTTPConnection("127.0.0.1", guest.machine.ports[HTTP], timeout=60)
    try:
        asked.request("HEAD", "/opendap/sample/sst.nc.dds")
        head = asked.getresponse()
        assert head.read() == b""
        assert head.status == 200
    finally:
        asked.close()


def test_values_as_text_are_those_of_the_file(
    guest: Guest, server: Capabilities, samples: Path
) -> None:
    assert set(server.numbers) <= set(server.responses)
    wanted = local(samples, Case("sst.nc", "lat")).tolist()
    for suffix in server.numbers:
        text = guest.get(f"/opendap/sample/sst.nc{suffix}", timeout=120).text
        found = [float(number) for number in re.findall(r"(?<![\w.\]])-?\d+(?:\.\d+)?", text)]
        runs = (found[at : at + len(wanted)] for at in range(len(found) - len(wanted) + 1))
        assert any(run == pytest.approx(wanted, rel=1e-5) for run in runs), f"{suffix}:\n{text}"


def test_every_listing_and_catalog_shows_the_samples(guest: Guest, server: Capabilities) -> None:
    names = {"sst.nc", "stations.nc", "elevation.h5"}
    assert server.listings
    for listing in server.listings:
        answer = guest.get(f"/opendap/sample/{listing}")
        assert (answer.status, answer.headers.get_content_type()) == (200, "text/html"), listing
        assert all(name in answer.text for name in names), listing
    for catalog in server.catalogs:
        answer = guest.get(f"/opendap/sample/{catalog}")
        shown = {str(each.get("name")) for each in ET.fromstring(answer.body).iter()}
        assert names <= shown, catalog


def test_every_netcdf_response_holds_the_values(
    guest: Guest, server: Capabilities, samples: Path, tmp_path: Path
) -> None:
    assert set(server.netcdf) <= set(server.responses)
    for suffix in server.netcdf:
        answer = guest.get(f"/opendap/sample/sst.nc{suffix}", timeout=120)
        (tmp_path / "x.nc").write_bytes(answer.body)
        with netCDF4.Dataset(tmp_path / "x.nc") as file:
            file.set_auto_maskandscale(False)
            assert_same(np.asarray(file["sst"][...]), local(samples, WHOLE))


def test_dap4_is_spoken_where_it_is_claimed(
    guest: Guest, server: Capabilities, samples: Path
) -> None:
    if server.dap4 is None:
        return
    if not server.dap4:
        assert guest.get("/opendap/sample/sst.nc.dmr").status >= 400
        return
    found = open_url(guest.url("sample/sst.nc"), protocol="dap4")["sst"]
    assert_same(np.asarray(found.data[...]), local(samples, WHOLE))


def test_links_lead_only_to_data(guest: Guest, server: Capabilities) -> None:
    sample = "/srv/hyrax/sample"
    guest.check(f"sudo -n ln -s sst.nc {sample}/inside.nc")
    guest.check(f"sudo -n ln -s /etc/passwd {sample}/outside.nc")
    guest.check(f"sudo -n cp {sample}/sst.nc {sample}/.hidden.nc")
    try:
        inside = guest.get("/opendap/sample/inside.nc.dds")
        if server.links is not None:
            assert (inside.status == 200) == server.links
        for name in ("outside.nc", "outside.nc.dds", "outside.nc.dods", "outside.nc.ascii"):
            answer = guest.get(f"/opendap/sample/{name}")
            assert answer.status >= 400
            assert b"root:" not in answer.body
        if server.refuses_hidden:
            assert guest.get("/opendap/sample/.hidden.nc.dds").status >= 400
        assert ".hidden" not in guest.get("/opendap/sample/").text
    finally:
        guest.check(f"sudo -n rm {sample}/inside.nc {sample}/outside.nc {sample}/.hidden.nc")
