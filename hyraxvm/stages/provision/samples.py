"""The sample files that every image serves at /opendap/sample/: small, invented, public domain.

Their values follow the formulas below, so a client's result can be checked by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

Array = np.ndarray[Any, Any]

TIMES = 12
LATITUDES = 37
LONGITUDES = 72
STATIONS = ("Aarhus", "Brest", "Cadiz", "Duluth", "", "Funchal")
CODES = ("AAR", "BRE", "CAD", "DUL", "E", "FUN")
SST_FILL = -32767
SST_SCALE = 0.01
SST_OFFSET = 10.0

README = """Samples of Hyrax VM
===================

Small files to try clients with.  Every value is invented by a formula; none is a measurement.
They are in the public domain (CC0 1.0): do with them what you like.

sst.nc        "sea surface temperature": netCDF-3, 12 months on a 5 degree grid, packed into
              16-bit integers (scale_factor, add_offset), one corner of the grid missing
stations.nc   six "stations": netCDF-4 with strings, character arrays, signed and unsigned bytes,
              and a scalar
elevation.h5  "elevation": HDF5, compressed in chunks, without coordinates
"""


def sst_packed() -> Array:
    """Return sst as stored, int16 of shape (time, lat, lon): 100 * t + 10 * y - x by index.

    One corner, `[:, :3, :5]`, is missing (`SST_FILL`).
    """
    time, lat, lon = np.ogrid[:TIMES, :LATITUDES, :LONGITUDES]
    packed: Array = (100 * time + 10 * lat - lon).astype("i2")
    packed[:, :3, :5] = SST_FILL
    return packed


def latitudes() -> Array:
    """Return degrees north, float32 of shape (lat,): -90 to 90."""
    return np.linspace(-90, 90, LATITUDES, dtype="f4")


def longitudes() -> Array:
    """Return degrees east, float32 of shape (lon,): 0 to 355."""
    return np.arange(0, 360, 5, dtype="f4")


def days() -> Array:
    """Return days since 2001-01-01, float64 of shape (time,): the middle of 12 equal months."""
    middle: Array = np.arange(TIMES) * 30.5 + 15.25
    return middle


def elevation() -> Array:
    """Return metres, float32 of shape (120, 240): a parabola along y minus one along x.

    Every value is exact in float32.
    """
    y, x = np.ogrid[:120, :240]
    metres: Array = ((y * (120 - y) - x * (240 - x) / 4) / 2).astype("f4")
    return metres


def quality() -> Array:
    """Return unsigned bytes of shape (station,): 0, 51, ... 255."""
    return np.arange(0, 256, 51, dtype="u1")


def trend() -> Array:
    """Return signed bytes of shape (station,): -100, -60, ... 100."""
    return np.arange(-100, 101, 40, dtype="i1")


def make_samples(directory: Path) -> list[Path]:
    """Write the samples into an existing directory, the same bytes every time.

    Return the files, sorted by name.  Raises `OSError`: one cannot be written.
    """
    readme = directory / "README.txt"
    readme.write_text(README, encoding="utf-8")
    return sorted(
        [
            _make_sst(directory / "sst.nc"),
            _make_stations(directory / "stations.nc"),
            _make_elevation(directory / "elevation.h5"),
            readme,
        ]
    )


def _make_sst(path: Path) -> Path:
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.setncatts(
            {
                "title": "Sample: sea surface temperature, invented",
                "Conventions": "CF-1.8",
                "license": "CC0 1.0",
            }
        )
        file.createDimension("time", None)
        file.createDimension("lat", LATITUDES)
        file.createDimension("lon", LONGITUDES)
        coordinates = {
            "time": ("f8", days(), "time", "days since 2001-01-01 00:00:00", "T"),
            "lat": ("f4", latitudes(), "latitude", "degrees_north", "Y"),
            "lon": ("f4", longitudes(), "longitude", "degrees_east", "X"),
        }
        for name, (kind, values, standard_name, units, axis) in coordinates.items():
            variable = file.createVariable(name, kind, (name,))
            variable.setncatts({"standard_name": standard_name, "units": units, "axis": axis})
            variable[:] = values
        sst = file.createVariable("sst", "i2", ("time", "lat", "lon"), fill_value=SST_FILL)
        sst.set_auto_maskandscale(False)
        sst.setncatts(
            {
                "standard_name": "sea_surface_temperature",
                "units": "degree_Celsius",
                "scale_factor": SST_SCALE,
                "add_offset": SST_OFFSET,
            }
        )
        sst[:] = sst_packed()
    return path


def _make_stations(path: Path) -> Path:
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts({"title": "Sample: stations, invented", "license": "CC0 1.0"})
        file.createDimension("station", len(STATIONS))
        file.createDimension("code_length", 3)
        name = file.createVariable("name", str, ("station",))
        name.long_name = "name of the station"
        for index, value in enumerate(STATIONS):
            name[index] = value
        code = file.createVariable("code", "S1", ("station", "code_length"))
        code.long_name = "code of the station"
        code[:] = netCDF4.stringtochar(np.array(CODES, dtype="S3"))
        for variable, kind, values in (("quality", "u1", quality()), ("trend", "i1", trend())):
            file.createVariable(variable, kind, ("station",))[:] = values
        count = file.createVariable("count", "i4", ())
        count.long_name = "number of stations"
        count[...] = len(STATIONS)
    return path


def _make_elevation(path: Path) -> Path:
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("y", 120)
        file.createDimension("x", 240)
        variable = file.createVariable(
            "elevation", "f4", ("y", "x"), compression="zlib", chunksizes=(40, 80)
        )
        variable.setncatts({"units": "m", "long_name": "elevation, invented"})
        variable[:] = elevation()
    return path
