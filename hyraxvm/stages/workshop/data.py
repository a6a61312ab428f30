"""The data of the workshop, served at /opendap/workshop/: invented by formulas, public domain.

| file | what learners meet in it |
|---|---|
| sst/sst-YEAR.nc | packed values, and a time axis in twenty files |
| wind.nc | a grid across the date line |
| relief.nc | a large grid, of which a program needs a small part |
| cruise.nc | groups |
| stations.nc, stations.txt | a table: one row for each observation |

`python -m hyraxvm.stages.workshop.data FOLDER` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import netCDF4
import numpy as np

Array = np.ndarray[Any, Any]

YEARS: Final = range(2001, 2021)
FILL: Final = -32768
SST_SCALE, SST_OFFSET = 0.002, 15.0
STATIONS: Final = ("Aarhus", "Brest", "Cadiz", "Duluth", "Esbjerg", "Funchal")
DAYS: Final = 3653  # of the table of stations, from 2011 to 2020
EPOCH: Final = date(2000, 1, 1)
COMMON: Final = {"Conventions": "CF-1.8", "license": "CC0 1.0", "source": "invented by a formula"}

LICENSE: Final = """\
The data in this folder are invented by formulas; none is a measurement.

Whoever made them has dedicated them to the public domain with CC0 1.0 Universal: you can copy,
change and distribute them, even for commercial purposes, without asking.
https://creativecommons.org/publicdomain/zero/1.0/
"""
NCML: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<!-- All years as one data set. Hyrax joins the files; other servers show this text. -->
<netcdf xmlns="http://www.unidata.ucar.edu/namespaces/netcdf/ncml-2.2">
  <aggregation type="joinExisting" dimName="time">
    <scan location="/workshop/sst" regExp="^.*/sst-[0-9]*\\.nc$" subdirs="false"/>
  </aggregation>
</netcdf>
"""


def make_data(folder: Path) -> None:
    """Write the data into a folder, the same bytes every time.

    Raises `OSError`: a file cannot be written.
    """
    (folder / "sst").mkdir(parents=True)
    (folder / "LICENSE.txt").write_text(LICENSE)
    (folder / "sst.ncml").write_text(NCML)
    for year in YEARS:
        _make_sst(folder / "sst" / f"sst-{year}.nc", year)
    _make_wind(folder / "wind.nc")
    _make_relief(folder / "relief.nc")
    _make_cruise(folder / "cruise.nc")
    _make_stations(folder)


def sst(year: int) -> Array:
    """Return degrees Celsius, float64 of shape (12, lat, lon), NaN where land is invented.

    It is warmest at the equator, follows the seasons, and rises by 0.02 degrees a year.
    """
    month = np.arange(12)[:, None, None]
    lat, lon = np.radians(_centres(-90, 90, 180))[:, None], np.radians(_centres(0, 360, 360))
    season = np.sin(lat) * np.cos(2 * np.pi * (month - 7) / 12)
    values: Array = 29 * np.cos(lat) ** 2 - 1.5 + 6 * season + np.sin(3 * lon) * np.cos(lat)
    values += 0.02 * (year - YEARS[0])
    values[:, np.cos(2 * lon) * np.cos(lat) > 0.8] = np.nan
    return values


def _centres(first: float, last: float, count: int) -> Array:
    """Return the middles of `count` equal cells between two edges, float64."""
    edges = np.linspace(first, last, count + 1)
    middles: Array = (edges[:-1] + edges[1:]) / 2
    return middles


def _days(year: int, month: int) -> int:
    return (date(year, month, 15) - EPOCH).days


def _coordinate(
    group: netCDF4.Dataset, name: str, values: Array, units: str, standard_name: str
) -> None:
    """Add a dimension and its coordinate variable."""
    group.createDimension(name, len(values))
    variable = group.createVariable(name, values.dtype, (name,))
    variable.setncatts({"units": units, "standard_name": standard_name})
    variable[:] = values


def _variable(
    group: netCDF4.Dataset,
    name: str,
    values: Array,
    dimensions: tuple[str, ...],
    attributes: Mapping[str, object],
    **options: Any,
) -> None:
    """Add a variable; `values` are as stored, and are not packed again."""
    variable = group.createVariable(name, values.dtype, dimensions, **options)
    variable.set_auto_maskandscale(False)
    variable.setncatts(dict(attributes))
    variable[:] = values


def _degrees(group: netCDF4.Dataset, lat: Array, lon: Array) -> None:
    _coordinate(group, "lat", lat.astype("f4"), "degrees_north", "latitude")
    _coordinate(group, "lon", lon.astype("f4"), "degrees_east", "longitude")


def _make_sst(path: Path, year: int) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.setncatts({**COMMON, "title": f"Sea surface temperature of {year}, invented"})
        days = np.array([_days(year, month) for month in range(1, 13)], dtype="f8")
        _coordinate(file, "time", days, f"days since {EPOCH}", "time")
        _degrees(file, _centres(-90, 90, 180), _centres(0, 360, 360))
        values = sst(year)
        packed = np.round((np.nan_to_num(values) - SST_OFFSET) / SST_SCALE).astype("i2")
        packed[np.isnan(values)] = FILL
        attributes = {
            "standard_name": "sea_surface_temperature",
            "units": "degree_Celsius",
            "scale_factor": SST_SCALE,
            "add_offset": SST_OFFSET,
        }
        _variable(file, "sst", packed, ("time", "lat", "lon"), attributes, fill_value=FILL)


def _make_wind(path: Path) -> None:
    """Write winds of 60 days on a grid of half degrees, from 120 degrees east to 120 west."""
    lat, lon = _centres(-40, 40, 160), _centres(120, 240, 240)
    day = np.arange(60)[:, None, None]
    y, x = np.radians(lat)[:, None], np.radians(lon)
    fields = {
        "eastward_wind": -7 * np.cos(3 * y) + 2 * np.sin(4 * x - day / 5),
        "northward_wind": -3 * np.sin(2 * y) + 2 * np.cos(4 * x - day / 5),
    }
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts({**COMMON, "title": "Wind over the Pacific, invented"})
        days = np.arange(60) + float(_days(2020, 1))
        _coordinate(file, "time", days, f"days since {EPOCH}", "time")
        _degrees(file, lat, lon)
        for name, values in fields.items():
            attributes = {"standard_name": name, "units": "m s-1"}
            stored = np.round(values, 2).astype("f4")
            shape = ("time", "lat", "lon")
            _variable(file, name, stored, shape, attributes, chunksizes=(1, 160, 240))


def _make_relief(path: Path) -> None:
    """Write metres on a global grid of a twelfth of a degree, compressed in chunks."""
    lat, lon = _centres(-90, 90, 2160), _centres(-180, 180, 4320)
    y, x = np.radians(lat)[:, None], np.radians(lon)
    metres = -3500 + 3000 * np.cos(2 * x) * np.cos(y) + 1500 * np.sin(5 * y) * np.cos(3 * x)
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts({**COMMON, "title": "Relief of the earth, invented"})
        _degrees(file, lat, lon)
        attributes = {"standard_name": "height_above_mean_sea_level", "units": "m"}
        options = {"compression": "zlib", "complevel": 1, "chunksizes": (240, 480)}
        stored = np.round(metres).astype("i2")
        _variable(file, "height", stored, ("lat", "lon"), attributes, **options)


def _make_cruise(path: Path) -> None:
    """Write a ship's track, and in groups what two of its instruments have seen."""
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts({**COMMON, "title": "Cruise of an invented ship"})
        stop = np.arange(40)
        _coordinate(file, "time", stop + float(_days(2019, 6)), f"days since {EPOCH}", "time")
        along = {"units": "degrees_north", "standard_name": "latitude"}
        _variable(file, "lat", (50 - stop / 2).astype("f4"), ("time",), along)
        along = {"units": "degrees_east", "standard_name": "longitude"}
        _variable(file, "lon", (-10 - stop / 4).astype("f4"), ("time",), along)
        depth = np.arange(0, 2000, 10, dtype="f4")
        for name, variable, units, surface, fall in (
            ("ctd", "sea_water_temperature", "degree_Celsius", 16.0, 600.0),
            ("optics", "chlorophyll", "mg m-3", 2.0, 80.0),
        ):
            group = file.createGroup(name)
            _coordinate(group, "depth", depth, "m", "depth")
            values = surface * np.exp(-depth / fall) + stop[:, None] / 20
            shape = ("time", "depth")
            _variable(group, variable, values.astype("f4"), shape, {"units": units})


def _make_stations(folder: Path) -> None:
    """Write a table with one row a day and station, and its first year as text."""
    day = np.repeat(np.arange(DAYS), len(STATIONS))
    station = np.tile(np.arange(len(STATIONS)), DAYS)
    time = (day + (date(2011, 1, 1) - EPOCH).days).astype("i4")
    mean, swing = 14.0 - 1.5 * station, 5.0 + station
    celsius = np.round(mean - swing * np.cos(2 * np.pi * (day - 20) / 365.25), 1).astype("f4")
    with netCDF4.Dataset(folder / "stations.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.setncatts({**COMMON, "title": "Daily means of stations, invented"})
        file.createDimension("row", len(day))
        file.createDimension("name_length", 8)
        names = np.array(STATIONS, dtype="S8")[station]
        attributes = {"long_name": "name of the station"}
        letters = netCDF4.stringtochar(names)
        _variable(file, "station", letters, ("row", "name_length"), attributes)
        units = {"standard_name": "time", "units": f"days since {EPOCH}"}
        _variable(file, "time", time, ("row",), units)
        air = {"standard_name": "air_temperature", "units": "degree_Celsius"}
        _variable(file, "temperature", celsius, ("row",), air)
    rows = [
        f"{STATIONS[s]},{date.fromordinal(EPOCH.toordinal() + int(t))},{c:.1f}\n"
        for s, t, c in zip(station, time, celsius, strict=True)
    ]
    table = "station,date,temperature\n" + "".join(rows[: 365 * len(STATIONS)])
    # Hyrax takes *.csv for data sets, and does not hand out a data set's file.
    (folder / "stations.txt").write_text(table)


if __name__ == "__main__":
    make_data(Path(sys.argv[1]))
