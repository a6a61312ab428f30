"""The DAP clients that people use; each reads one variable, whole or in part, as numpy values."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import xarray
from pydap.client import open_url

from tests.boot.data import Case, Slices, as_text

TIMEOUT = 120


def netcdf4(url: str, variable: str, subset: Slices | None) -> np.ndarray:
    """Read with netCDF-C, through netCDF4-python."""
    with netCDF4.Dataset(url) as file:
        file.set_auto_maskandscale(False)
        return as_text(np.asarray(file[variable][subset or ...]))


def with_xarray(url: str, variable: str, subset: Slices | None) -> np.ndarray:
    """Read with xarray; values as stored."""
    with xarray.open_dataset(
        url, engine="netcdf4", mask_and_scale=False, decode_times=False
    ) as file:
        found = file[variable]
        if subset:
            found = found.isel(dict(zip(found.dims, subset, strict=True)))
        return as_text(found.values)


def pydap(url: str, variable: str, subset: Slices | None) -> np.ndarray:
    """Read with pydap's client, which does not use netCDF-C."""
    found = open_url(url, protocol="dap2")[variable]
    if variable in getattr(found, "keys", tuple)():
        found = found[variable]
    return as_text(np.asarray(found.data[subset or ...]))


def ncdump(url: str, variable: str, subset: Slices | None) -> np.ndarray:
    """Read with ncdump; ncgen makes its text a file again."""
    text = _output("ncdump", "-p", "9,17", f"{url}?{constraint(variable, subset)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.nc")
        # -3: text stays a variable of characters, as ncdump shows it, and not of strings.
        subprocess.run(
            ["ncgen", "-3", "-o", str(path)], input=text, text=True, check=True, timeout=TIMEOUT
        )
        return netcdf4(str(path), variable, None)


def getdap(url: str, variable: str, subset: Slices | None) -> np.ndarray:
    """Read with getdap, libdap's own client.

    It prints `TYPE name[dim = n]... = {values};`, for a Grid twice.
    """
    text = _output("getdap", "-D", "-c", constraint(variable, subset), url)
    declared = re.search(rf"\b(\w+) {re.escape(variable)}((?:\[[^\]]*\])*)(?: =|;)", text)
    assert declared, text[:500]
    kind = declared[1]
    shape = [int(n) for n in re.findall(r"= (\d+)\]", declared[2])]
    values = text.split("} " + variable + " = {", 1)[-1].split("  Maps: ", 1)[0]
    if values is text or "Grid" not in text:
        values = text[declared.end() :]
    if kind == "String":
        found = re.findall(r'"((?:[^"\\]|\\.)*)"', values)
        strings = [re.sub(r"\\(.)", r"\1", value) for value in found]
        return np.array(strings, dtype=str).reshape(shape)
    numbers = re.findall(r"-?(?:[\d.]+(?:e[+-]?\d+)?|inf|nan)", values)
    types = {"Byte": "u1", "Int16": "i2", "UInt16": "u2", "Int32": "i4", "UInt32": "u4"}
    parsed = np.array(numbers, dtype=types.get(kind, {"Float32": "f4"}.get(kind, "f8")))
    return parsed.reshape(shape)


CLIENTS: dict[str, Callable[[str, str, Slices | None], np.ndarray]] = {
    "netcdf4": netcdf4,
    "xarray": with_xarray,
    "pydap": pydap,
    "ncdump": ncdump,
    "getdap": getdap,
}


def readings(cases: list[Case]) -> list[tuple[str, Case]]:
    """Return every client with every case that it can read in reasonable time."""
    return [(c, case) for c in CLIENTS for case in cases if c != "ncdump" or not case.many_rows]


# getdap prints six digits.
DIGITS = {"getdap": 1e-5}


def constraint(variable: str, subset: Slices | None) -> str:
    """Return DAP2's constraint expression: [start:stride:last], both ends included."""
    ranges = (f"[{s.start}:{s.step}:{s.stop - 1}]" for s in subset or ())
    return variable + "".join(ranges)


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout
