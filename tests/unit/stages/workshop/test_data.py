"""The data of the workshop, read with other libraries than the one that wrote them."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from hyraxvm.core.cache import file_digest
from hyraxvm.stages.workshop import data as made


def test_they_are_the_same_every_time(data: Path, tmp_path: Path) -> None:
    made.make_data(tmp_path / "again")
    files = sorted(path.relative_to(data) for path in data.rglob("*") if path.is_file())
    assert len(files) == len(made.YEARS) + 7
    for name in files:
        assert file_digest(tmp_path / "again" / name) == file_digest(data / name), name


def test_they_are_large_enough_to_subset_and_small_enough_to_ship(data: Path) -> None:
    total = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    assert 50e6 < total < 200e6


def test_their_licence_goes_with_them(data: Path) -> None:
    assert "CC0 1.0" in (data / "LICENSE.txt").read_text()
    for path in data.rglob("*.nc"):
        with xarray.open_dataset(path) as file:
            assert file.attrs["license"] == "CC0 1.0", path


@pytest.mark.parametrize("year", [made.YEARS[0], made.YEARS[-1]])
def test_packed_values_unpack_to_what_the_formula_says(data: Path, year: int) -> None:
    with xarray.open_dataset(data / f"sst/sst-{year}.nc", engine="scipy") as file:
        assert file.sst.encoding["dtype"] == np.int16
        np.testing.assert_allclose(file.sst, made.sst(year), atol=made.SST_SCALE * 0.51)
        assert 0.05 < float(file.sst.isnull().mean()) < 0.5


def test_the_years_join_to_one_time_axis(data: Path) -> None:
    paths = sorted((data / "sst").glob("*.nc"))
    files = [xarray.open_dataset(path, engine="scipy") for path in paths]
    joined = xarray.concat(files, "time", data_vars="minimal")
    assert joined.sizes["time"] == 12 * len(made.YEARS)
    months = joined.time.values.astype("datetime64[M]").astype(int)
    assert set(np.diff(months)) == {1}
    yearly = joined.sst.mean(("time", "lat", "lon"))
    assert 10 < float(yearly) < 25
    rise = float((files[-1].sst - files[0].sst.values).mean())
    assert rise == pytest.approx(0.02 * (len(made.YEARS) - 1), abs=0.002)


def test_the_wind_crosses_the_date_line(data: Path) -> None:
    with xarray.open_dataset(data / "wind.nc", engine="netcdf4") as file:
        lon = file.lon.values
        assert (lon.min() < 180 < lon.max()) and set(np.diff(lon)) == {0.5}


def test_the_cruise_has_groups(data: Path) -> None:
    with h5py.File(data / "cruise.nc") as file:
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
        assert groups == ["ctd", "optics"]
        assert file["ctd/sea_water_temperature"].shape == (40, 200)
        assert float(file["ctd/sea_water_temperature"][0, 0]) == 16.0


def test_the_table_has_a_row_for_each_day_and_station(data: Path) -> None:
    with xarray.open_dataset(data / "stations.nc", engine="scipy") as file:
        assert file.temperature.dims == ("row",)
        assert file.sizes["row"] == made.DAYS * len(made.STATIONS)
        first = [name.decode() for name in file.station.values[: len(made.STATIONS)]]
        with (data / "stations.txt").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 365 * len(made.STATIONS)
        text = [float(row["temperature"]) for row in rows]
        np.testing.assert_allclose(file.temperature[: len(rows)], text, atol=1e-6)
    assert first == list(made.STATIONS) == [row["station"] for row in rows[: len(first)]]
    assert (rows[0]["date"], rows[-1]["date"]) == ("2011-01-01", "2011-12-31")
