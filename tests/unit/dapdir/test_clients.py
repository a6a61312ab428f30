"""What real clients read, compared with the file on disk."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray
from pydap.client import open_url

from tests.unit.dapdir.data_files import KINDS, strings, type_values
from tests.unit.dapdir.running import Server

SUBSETS = [
    (slice(None), slice(None), slice(None)),
    (slice(1, 6, 2), slice(0, 7, 3), slice(2, 9, 5)),
    (slice(5, 6), slice(6, 7), slice(8, 9)),
    (slice(0, 6, 5), slice(3, 4), slice(None)),
]


@pytest.fixture(scope="module")
def classic(root: Path) -> Iterator[netCDF4.Dataset]:
    with netCDF4.Dataset(root / "classic.nc") as file:
        file.set_auto_maskandscale(False)
        file.set_auto_chartostring(False)
        yield file


def remote(url: str) -> netCDF4.Dataset:
    file = netCDF4.Dataset(url)
    file.set_auto_maskandscale(False)
    file.set_auto_chartostring(False)
    return file


@pytest.mark.parametrize("prefix", ["", "/hyrax"])
def test_netcdf_c_reads_every_value_of_a_classic_file(
    server: Server, classic: netCDF4.Dataset, prefix: str
) -> None:
    with remote(f"{server.url}{prefix}/sub/classic.nc") as file:
        assert set(file.variables) == set(classic.variables)
        for name, variable in classic.variables.items():
            np.testing.assert_array_equal(file[name][...], variable[...], err_msg=name)
            if name != "signed":  # which is Int16 in DAP2
                assert file[name].dtype == variable.dtype
            if name != "letter":  # netCDF-C gives every string a dimension, even of length 1
                assert file[name].dimensions == variable.dimensions


@pytest.mark.parametrize("subset", SUBSETS)
def test_subsets(
    server: Server, classic: netCDF4.Dataset, subset: tuple[slice, slice, slice]
) -> None:
    expected = classic["sst"][subset]
    with remote(f"{server.url}/classic.nc") as file:
        np.testing.assert_array_equal(file["sst"][subset], expected)
    dataset = open_url(f"{server.url}/classic.nc", protocol="dap2")
    np.testing.assert_array_equal(dataset["sst"]["sst"].data[subset], expected)
    np.testing.assert_array_equal(
        dataset["plain"].data[1:4:2, 0:7:3], classic["plain"][1:4:2, 0:7:3]
    )


def test_netcdf_c_sees_the_attributes(server: Server, classic: netCDF4.Dataset) -> None:
    with remote(f"{server.url}/classic.nc") as file:
        assert file.title == "classic"
        assert file.history == classic.history == 'say "hi"\\\nand é'
        for name in ("scale_factor", "add_offset", "_FillValue"):
            value = file["sst"].getncattr(name)
            assert value == classic["sst"].getncattr(name)
            assert value.dtype == classic["sst"].getncattr(name).dtype
        assert np.isnan(file["sst"].missing_value)
        assert file["sst"].levels.tolist() == [0, 1, 2]


def test_xarray_decodes_like_the_file_itself(server: Server, root: Path) -> None:
    with (
        xarray.open_dataset(f"{server.url}/classic.nc", engine="netcdf4") as remote_,
        xarray.open_dataset(root / "classic.nc", engine="netcdf4") as local,
    ):
        for name in ("sst", "plain", "unsigned", "chars", "letter", "scalar", "time"):
            np.testing.assert_array_equal(remote_[name].values, local[name].values, err_msg=name)
        assert remote_["unsigned"].values[:3].tolist() == [0, 127, 128]
        subset = {"time": slice(0, 6, 2), "lon": slice(1, 9, 3)}
        np.testing.assert_array_equal(
            remote_["sst"].isel(subset).values, local["sst"].isel(subset).values
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_type(server: Server, kind: str) -> None:
    served = {"i1": "i2", "i8": "f8", "u8": "f8"}
    values = type_values(kind)
    with netCDF4.Dataset(f"{server.url}/types.nc") as file:
        # netCDF-C reads unsigned integers as signed; netCDF4 corrects that if _Unsigned says so.
        file.set_auto_mask(False)
        variable = file[f"v_{kind}"]
        assert variable[:].dtype == served.get(kind, kind)
        np.testing.assert_array_equal(variable[:], values)
        np.testing.assert_array_equal(variable[1:10:4, 2:12:3], values[1:10:4, 2:12:3])
        assert file[f"s_{kind}"][...] == values[3, 4]
        assert variable.limit == values[0, 0]
    dataset = open_url(f"{server.url}/types.nc", protocol="dap2")
    np.testing.assert_array_equal(dataset[f"v_{kind}"].data[:], values)
    if kind != "u1":  # pydap's client misreads a single Byte of any server: see getdap below
        assert np.asarray(dataset[f"s_{kind}"].data[()]).item() == values[3, 4].item()


def test_strings_groups_enums_and_what_dap2_cannot_hold(server: Server) -> None:
    with remote(f"{server.url}/types.nc") as file:
        assert netCDF4.chartostring(file["string"][:]).tolist() == strings()
        assert netCDF4.chartostring(file["string"][2:9:3]).tolist() == strings()[2:9:3]
        assert netCDF4.chartostring(file["one_string"][:]).tolist() == "alone"
        assert file["enum"][:].tolist() == [0, 7, 7] * 3 + [0]
        np.testing.assert_array_equal(file["g_v_i4"][:], np.arange(20).reshape(10, 2))
        assert file["g_v_i4"].units == "other"
        assert not hasattr(file["v_i4"], "units")
        np.testing.assert_array_equal(file["chunked"][:], type_values("f4"))
        np.testing.assert_array_equal(file["exact"][:], 2.0 ** np.arange(53, 63))
        assert file["exact"].getncattr("_FillValue") == -(2.0**40)
        assert not {"compound", "ragged"} & set(file.variables)
        assert file.dapdir_omitted == "compound, ragged"
        assert (file.wide, file.huge) == (2.0**40, str(2**62 + 1))
        assert file.g_note == "in a group"
        assert "_NCProperties" not in file.ncattrs()
    dataset = open_url(f"{server.url}/types.nc", protocol="dap2")
    words = [word.decode() for word in np.asarray(dataset["string"].data[:])]
    assert words == strings()


def test_a_wrong_64_bit_integer_is_an_error_not_a_number(server: Server) -> None:
    for query in ("", "?wide", "?wide[0:1]", "?scalar"):
        for kind in ("dods", "ascii"):
            answer = server.get(f"/wide.nc.{kind}{query}")
            assert answer.status == 500
            assert "64-bit integer" in answer.text
    assert server.get("/wide.nc.dods?wide[0]").body[-8:] == np.array([2**63], ">f8").tobytes()


def getdap(url: str, constraint: str) -> str:
    text = subprocess.run(
        ["getdap", "-D", "-c", constraint, url], capture_output=True, text=True, timeout=60
    ).stdout
    return text.split("The data:", 1)[1]


def test_getdap(server: Server, classic: netCDF4.Dataset) -> None:
    url = f"{server.url}/classic.nc"
    text = getdap(url, "plain[1:2:3][0:3:6]")
    numbers = [int(n) for n in re.findall(r"-?\d+", text.split(" = {", 1)[1])]
    assert numbers == classic["plain"][1:4:2, 0:7:3].ravel().tolist()
    text = getdap(url, "sst[5][0:6:6][8],letter,signed,chars")
    assert f"{{{{{classic['sst'][5, 0, 8]}}},{{{classic['sst'][5, 6, 8]}}}}}" in text
    assert 'String letter = "Q";' in text
    assert "= {-128, -1, 0, 127};" in text
    assert f'= {{"one", "", "{"x" * 100}", "a b"}};' in text


def test_getdap_reads_a_whole_file_with_an_empty_variable(server: Server) -> None:
    text = getdap(f"{server.url}/types.nc", "string,zero,v_i2,one_string,s_u1")
    assert f"Byte s_u1 = {type_values('u1')[3, 4]};" in text
    assert "Float32 zero[none = 0][x = 10] = {};" in text
    assert str(type_values("i2")[9, 11]) in text
    assert 'String one_string = "alone";' in text


def test_ncdump(server: Server, classic: netCDF4.Dataset) -> None:
    text = subprocess.run(
        ["ncdump", "-v", "plain,sst", f"{server.url}/classic.nc"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "time = UNLIMITED ; // (6 currently)" in text
    for name in ("plain", "sst"):
        found = re.search(rf"\n {name} =\n(.*?) ;", text, re.DOTALL)
        assert found
        values = found[1].replace("_", str(classic["sst"].getncattr("_FillValue")))
        assert [int(v) for v in values.split(",")] == classic[name][:].ravel().tolist()


def test_names_that_need_escaping(server: Server) -> None:
    expected = {
        "with%20space": 0, "dot%2Eted": 1, "a%5B0%5D": 2, "t%40b%3Ale": 3, "per%2520cent": 4,
        "q%27%7E%21%2A-_": 5,
    }  # fmt: skip
    dataset = open_url(f"{server.url}/names.nc", protocol="dap2")
    assert set(dataset.keys()) == set(expected)
    for name, i in expected.items():
        values = np.array([i, 100 * i], ">i4").tobytes()
        encoded = name.replace("%", "%25")
        for sent in (f"{name}[0:2:2]", f"{encoded}[0:2:2]", f"{encoded}%5B0:2:2%5D"):
            answer = server.get(f"/names.nc.dods?{sent}")
            assert (answer.status, answer.body[-8:]) == (200, values), sent
        if "%5B" not in name:  # pydap takes brackets in a name for those of a hyperslab
            assert dataset[name].data[0:3:2].tolist() == [i, 100 * i]
    with remote(f"{server.url}/names.nc") as file:
        assert len(file.variables) == 6
        for i, variable in enumerate(file.variables.values()):
            assert variable[:].tolist() == [i, 10 * i, 100 * i]
            assert variable.getncattr("an%20attribute") == "with a name"


def test_fill_values_of_unsigned_integers(server: Server) -> None:
    with xarray.open_dataset(f"{server.url}/types.nc", engine="netcdf4") as dataset:
        expected = np.where(np.arange(10) == 9, np.nan, np.arange(10) * 7000.0)
        np.testing.assert_array_equal(dataset["filled"].values, expected)


def test_many_small_answers_on_a_connection_wait_for_no_acknowledgement(server: Server) -> None:
    """Else each takes the client's delayed acknowledgement: 40 ms (Linux TCP_DELACK_MIN)."""
    connection, took = server.connect(), []
    for _ in range(60):
        began = time.monotonic()
        connection.request("GET", "/opendap/classic.nc.dods?lat")
        assert connection.getresponse().read()
        took.append(time.monotonic() - began)
    connection.close()
    # Linux acknowledges the first ones at once.
    assert min(took[30:]) < 0.03
