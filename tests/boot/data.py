"""The files on the file server, what tests read from them, and how they compare values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Case:
    """A variable of a file, whole or in part."""

    file: str
    variable: str
    subset: Slices | None = None
    # ncdump sends one request for each row; under emulation that takes minutes.
    many_rows: bool = False

    def __str__(self) -> str:
        ranges = ",".join(f"{s.start}:{s.stop}:{s.step}" for s in self.subset or ())
        return f"{self.file}-{self.variable}" + (f"[{ranges}]" if ranges else "")


def part(*ranges: tuple[int, int, int]) -> Slices:
    """Return Python's slices of (start, stop, step)."""
    return tuple(slice(*r) for r in ranges)


# Cases of the data set.
CASES = [
    Case("classic.nc", "sst"),
    Case("classic.nc", "sst", part((1, 6, 2), (0, 9, 4), (3, 11, 3))),
    Case("classic.nc", "sst", part((5, 6, 1), (8, 9, 1), (10, 11, 1))),
    Case("classic.nc", "label"),
    Case("modern.nc", "temperature", many_rows=True),
    Case("modern.nc", "temperature", part((0, 24, 7), (59, 60, 1), (0, 80, 11))),
    Case("modern.nc", "station"),
    Case("modern.nc", "depth"),
    Case("grid.h5", "height"),
    Case("grid.h5", "height", part((1, 30, 9), (2, 40, 13))),
    Case("years/2001/deep.nc", "flow", part((0, 12, 5))),
]
# Cases of the samples that every image has.
SAMPLES = [
    Case("sst.nc", "sst", many_rows=True),
    Case("sst.nc", "sst", part((0, 12, 5), (1, 37, 9), (0, 72, 7))),
    Case("sst.nc", "time"),
    Case("stations.nc", "name"),
    Case("stations.nc", "code"),
    Case("stations.nc", "quality"),
    Case("stations.nc", "trend"),
    Case("stations.nc", "count"),
    Case("elevation.h5", "elevation", part((0, 120, 17), (3, 240, 23))),
]


def make_data(root: Path) -> None:
    """Write the files of `CASES`; everybody may read them, as on a file server."""
    rng = np.random.default_rng(20090101)
    with netCDF4.Dataset(root / "classic.nc", "w", format="NETCDF3_CLASSIC") as file:
        for name, length in {"time": None, "lat": 9, "lon": 11, "n": 4, "letters": 8}.items():
            file.createDimension(name, length)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(6) / 4
        file.createVariable("lat", "f4", ("lat",))[:] = np.linspace(-80, 80, 9)
        file.createVariable("lon", "f4", ("lon",))[:] = np.linspace(0, 350, 11)
        sst = file.createVariable("sst", "i2", ("time", "lat", "lon"), fill_value=-9999)
        sst.set_auto_maskandscale(False)
        sst.setncatts({"scale_factor": 0.01, "add_offset": 5.0, "units": "degree_Celsius"})
        packed = rng.integers(-3000, 3000, (6, 9, 11)).astype("i2")
        packed[:, 0, :3] = -9999
        sst[:] = packed
        label = file.createVariable("label", "S1", ("n", "letters"))
        label[:] = netCDF4.stringtochar(np.array(["north", "east", "", "westward"], "S8"))
    with netCDF4.Dataset(root / "modern.nc", "w", format="NETCDF4") as file:
        for name, length in {"time": None, "y": 60, "x": 80, "station": 5}.items():
            file.createDimension(name, length)
        temperature = file.createVariable(
            "temperature", "f4", ("time", "y", "x"), compression="zlib", chunksizes=(5, 16, 16)
        )
        temperature[:] = rng.integers(-4000, 4000, (24, 60, 80)) / 64
        station = file.createVariable("station", str, ("station",))
        for index, value in enumerate(["Reykjavik", "", 'with "quotes"', "a b  c", "end"]):
            station[index] = value
        file.createVariable("depth", "f8", ())[...] = -1234.5
    with netCDF4.Dataset(root / "grid.h5", "w", format="NETCDF4") as file:
        file.createDimension("row", 30)
        file.createDimension("column", 40)
        file.createVariable("height", "f8", ("row", "column"))[:] = (
            rng.integers(-9999, 9999, (30, 40)) / 8
        )
    deep = root / "years" / "2001"
    deep.mkdir(parents=True)
    make_flow(deep / "deep.nc", 1)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def make_flow(path: Path, factor: int) -> None:
    """Write a small netCDF-3 file atomically: `flow`, int32, month * `factor`."""
    new = path.with_name(f".{path.name}.new")
    with netCDF4.Dataset(new, "w", format="NETCDF3_64BIT_OFFSET") as file:
        file.createDimension("month", 12)
        file.createVariable("flow", "i4", ("month",))[:] = np.arange(12) * factor
    new.chmod(0o644)
    new.replace(path)


def local(root: Path, case: Case) -> np.ndarray:
    """Return the values of `case` as stored in the host's file; text as an array of str."""
    with netCDF4.Dataset(root / case.file) as file:
        file.set_auto_maskandscale(False)
        return as_text(np.asarray(file[case.variable][case.subset or ...]))


def as_text(values: np.ndarray) -> np.ndarray:
    """Return characters and octets as an array of str, numbers as they are."""
    if values.dtype.kind == "O":
        return values.astype(str)
    if values.dtype == np.dtype("S1") and values.ndim:
        values = np.asarray(netCDF4.chartostring(values, encoding="bytes"))
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8")
    return values


def assert_same(found: np.ndarray, expected: np.ndarray, digits: float = 0) -> None:
    """Compare shapes and values: exactly, or floats to a relative error of `digits`."""
    # netCDF-C reads an unsigned DAP byte as a signed one with the same bits.
    if (found.dtype, expected.dtype) == (np.dtype("i1"), np.dtype("u1")):
        found = found.view("u1")
    assert found.shape == expected.shape
    assert found.dtype.kind in ("U" if expected.dtype.kind == "U" else "iuf")
    if expected.dtype.kind == "f" and digits:
        np.testing.assert_allclose(found, expected, rtol=digits, atol=0)
    else:
        np.testing.assert_array_equal(found, expected)
