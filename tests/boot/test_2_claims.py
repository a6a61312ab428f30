"""What the server claims in `capabilities.py`, and its policy for links and hidden files."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
from capabilities import Capabilities
from data import Case, assert_same, local
from guest import Guest
from pydap.client import open_url

WHOLE = Case("sst.nc", "sst")


def test_every_claimed_response_is_given(guest: Guest, server: Capabilities) -> None:
    statuses = {
        suffix: guest.get(f"/opendap/sample/sst.nc{suffix}", timeout=120).status
        for suffix in server.responses
    }
    assert statuses == dict.fromkeys(server.responses, 200)


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
    if not server.dap4:
        assert guest.get("/opendap/sample/sst.nc.dmr").status >= 400
        return
    found = open_url(guest.url("sample/sst.nc"), protocol="dap4")["sst"]
    assert_same(np.asarray(found.data[...]), local(samples, WHOLE))


def test_links_lead_nowhere_but_to_data(guest: Guest, server: Capabilities) -> None:
    sample = "/srv/hyrax/sample"
    guest.check(f"sudo -n ln -s sst.nc {sample}/inside.nc")
    guest.check(f"sudo -n ln -s /etc/passwd {sample}/outside.nc")
    guest.check(f"sudo -n cp {sample}/sst.nc {sample}/.hidden.nc")
    try:
        inside = guest.get("/opendap/sample/inside.nc.dds")
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
