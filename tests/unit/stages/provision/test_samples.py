from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hyraxvm.stages.provision import samples


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("samples")
    return {path.name: path for path in samples.make_samples(directory)}


def test_the_same_octets_every_time_and_small(made: dict[str, Path], tmp_path: Path) -> None:
    again = samples.make_samples(tmp_path)
    assert [path.name for path in again] == sorted(made)
    for path in again:
        assert path.read_bytes() == made[path.name].read_bytes()
    assert sum(path.stat().st_size for path in again) < 300_000


def test_sst_is_packed_netcdf3_with_cf_coordinates(made: dict[str, Path]) -> None:
    with netCDF4.Dataset(made["sst.nc"]) as file:
        assert file.data_model == "NETCDF3_CLASSIC"
        assert file.dimensions["time"].isunlimited()
        sst = file["sst"]
        unpacked = sst[:]
        assert unpacked.mask.sum() == samples.TIMES * 3 * 5
        assert unpacked[2, 5, 7] == pytest.approx((200 + 50 - 7) * 0.01 + 10)
        sst.set_auto_maskandscale(False)
        np.testing.assert_array_equal(sst[:], samples.sst_packed())
        np.testing.assert_array_equal(file["lat"][:], samples.latitudes())
        np.testing.assert_array_equal(file["lon"][:], samples.longitudes())
        first = netCDF4.num2date(file["time"][0], file["time"].units)
        assert str(first) == "2001-01-16 06:00:00"


def test_stations_hold_strings_chars_bytes_and_a_scalar(made: dict[str, Path]) -> None:
    with netCDF4.Dataset(made["stations.nc"]) as file:
        assert tuple(file["name"][:]) == samples.STATIONS
        assert tuple(netCDF4.chartostring(file["code"][:])) == samples.CODES
        np.testing.assert_array_equal(file["quality"][:], samples.quality())
        np.testing.assert_array_equal(file["trend"][:], samples.trend())
        assert (file["quality"].dtype, file["trend"].dtype) == ("u1", "i1")
        assert file["count"].shape == () and file["count"][...] == 6


def test_elevation_is_compressed_hdf5(made: dict[str, Path]) -> None:
    assert made["elevation.h5"].read_bytes()[:8] == b"\x89HDF\r\n\x1a\n"
    with netCDF4.Dataset(made["elevation.h5"]) as file:
        assert file["elevation"].chunking() == [40, 80]
        np.testing.assert_array_equal(file["elevation"][:], samples.elevation())


def test_readme_names_every_file(made: dict[str, Path]) -> None:
    text = made["README.txt"].read_text(encoding="utf-8")
    assert all(name in text for name in made if name != "README.txt")
