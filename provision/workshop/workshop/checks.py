"""Checks of the answers in the workshop's notebooks, against values computed from the files.

Where the notebooks run in the virtual machine, the files are at hand.  On another computer this
file is beside them as workshop.py, and reads the files through the data server:

    WORKSHOP_URL=http://ADDRESS:8080/opendap/workshop jupyter lab
"""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

SERVER = os.environ.get("WORKSHOP_URL", "http://127.0.0.1:8080/opendap/workshop").rstrip("/")
FILES = Path(os.environ.get("WORKSHOP_DATA", "/srv/workshop/data"))
RELATIVE = 1e-3  # how much a right number may differ: answers are rounded
_questions: dict[str, Callable[[], Any]] = {}


class NotYet(Exception):
    """An answer is not right yet; a notebook shows the one line, and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


def url(path: str) -> str:
    """Return the URL of a file of the workshop, such as "wind.nc"."""
    return f"{SERVER}/{path}"


def own_url(name: str) -> str:
    """Return the URL of a file beside this notebook: the data server serves its folder, too."""
    return f"{SERVER.removesuffix('/workshop')}/learners/{Path.cwd().name}/{name}"


def fetch(address: str) -> str:
    """Return what the server answers to a URL, as text; `[` and `]` may be in it."""
    quoted = address.replace("[", "%5B").replace("]", "%5D")
    with urllib.request.urlopen(quoted, timeout=60) as answer:  # noqa: S310 - the server's own
        return str(answer.read().decode())


def is_hyrax() -> bool:
    """Return whether the data server is Hyrax, which joins files on its own."""
    return "bes" in fetch(f"{SERVER.removesuffix('/workshop')}/version").lower()


def check(question: str, answer: Any) -> None:
    """Say that an answer is right; raise `NotYet` with a hint if it is not.

    Raises `KeyError`: there is no such question.
    """
    find = _questions[question]
    if answer is ...:
        raise NotYet(f"put your answer in the place of the dots. {find.__doc__}")
    if not _same(answer, find()):
        raise NotYet(f"{answer!r} is not it. {find.__doc__}")
    print(f"Right: {answer!r}")


def _same(answer: Any, expected: Any) -> bool:
    if isinstance(expected, str):
        return isinstance(answer, str) and answer.strip().casefold() == expected.casefold()
    try:
        values = np.asarray(answer, dtype="f8")
    except (TypeError, ValueError):
        return False
    wanted = np.asarray(expected, dtype="f8")
    return values.shape == wanted.shape and bool(np.allclose(values, wanted, rtol=RELATIVE))


def _question(find: Callable[[], Any]) -> Callable[[], Any]:
    _questions[find.__name__.strip("_")] = find
    return find


def _open(path: str) -> netCDF4.Dataset:
    return netCDF4.Dataset(FILES / path if FILES.is_dir() else url(path))


def _years() -> list[str]:
    """Return the names of the files with sea surface temperatures, sorted."""
    if FILES.is_dir():
        return sorted(path.name for path in (FILES / "sst").glob("sst-*.nc"))
    return sorted(set(re.findall(r"sst-\d+\.nc", fetch(url("sst/catalog.xml")))))


def _sst(year: str = "sst-2001.nc") -> Any:
    """Return a year of temperatures, a masked array of shape (12, lat, lon) in degrees Celsius."""
    with _open(f"sst/{year}") as file:
        return np.ma.asarray(file["sst"][:])


@_question
def files() -> int:
    """Count the files called sst-YEAR.nc in the folder sst."""
    return len(_years())


@_question
def values() -> int:
    """Multiply the lengths of the three dimensions of sst."""
    return int(_sst().size)


@_question
def units() -> str:
    """Look for the attribute units of sst, not of its coordinates."""
    with _open("sst/sst-2001.nc") as file:
        return str(file["sst"].units)


@_question
def stored_type() -> str:
    """Look in the DDS: the type is before the name of each variable."""
    names = {"i1": "Byte", "i2": "Int16", "i4": "Int32", "f4": "Float32", "f8": "Float64"}
    with _open("sst/sst-2001.nc") as file:
        return names[file["sst"].dtype.str[1:]]


@_question
def zero() -> float:
    """Compute stored * scale_factor + add_offset."""
    with _open("sst/sst-2001.nc") as file:
        return float(file["sst"].add_offset)


@_question
def missing() -> int:
    """Look in the DAS for the attribute _FillValue of sst."""
    with _open("sst/sst-2001.nc") as file:
        return int(file["sst"]._FillValue)


@_question
def depths() -> int:
    """Look in the DDS for the length of the dimension depth in the group ctd."""
    with netCDF4.Dataset(FILES / "cruise.nc") if FILES.is_dir() else _open("cruise.nc") as file:
        flat = {name: len(one) for name, one in file.dimensions.items()}
        flat |= {f"{g}_{n}": len(one) for g in file.groups for n, one in file[g].dimensions.items()}
    return next(length for name, length in flat.items() if re.fullmatch("/?ctd.?depth", name))


@_question
def stored() -> int:
    """Read the number after the last comma; it is as stored, so without a decimal point."""
    with _open("sst/sst-2001.nc") as file:
        file.set_auto_maskandscale(False)
        return int(file["sst"][6, 90, 20])


@_question
def celsius() -> float:
    """Multiply the stored number by scale_factor, then add add_offset."""
    return float(_sst()[6, 90, 20])


@_question
def date_line() -> list[int]:
    """Count from 0 to the first and to the last longitude between 170 and 190 degrees."""
    with _open("wind.nc") as file:
        found = np.flatnonzero((file["lon"][:] >= 170) & (file["lon"][:] <= 190))
    return [int(found[0]), int(found[-1])]


@_question
def box() -> float:
    """Select July, lat -5 to 5 and lon 190 to 240, then take the mean, without weights."""
    with _open("sst/sst-2001.nc") as file:
        lat, lon = file["lat"][:], file["lon"][:]
        rows, columns = np.abs(lat) <= 5, (lon >= 190) & (lon <= 240)
        return float(np.ma.asarray(file["sst"][6])[rows][:, columns].mean())


@_question
def strongest() -> float:
    """Take the root of eastward_wind ** 2 + northward_wind ** 2 on day 0, lon 170 to 190."""
    first, last = date_line()
    with _open("wind.nc") as file:
        part = np.s_[0, :, first : last + 1]
        return float(np.hypot(file["eastward_wind"][part], file["northward_wind"][part]).max())


@_question
def deepest() -> float:
    """Select lat 30 to 40 and lon -20 to -10, then take the smallest height."""
    with _open("relief.nc") as file:
        lat, lon = file["lat"][:], file["lon"][:]
        rows = np.flatnonzero((lat >= 30) & (lat <= 40))
        columns = np.flatnonzero((lon >= -20) & (lon <= -10))
        part = file["height"][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(part.min())


@_question
def months() -> int:
    """Count twelve for each file."""
    return 12 * len(_years())


@_question
def rise() -> float:
    """Subtract the mean of the first year from that of the last, over all cells and months."""
    first, *_, last = _years()
    return float(_sst(last).mean() - _sst(first).mean())


@_question
def rows() -> int:
    """Leave out the header of the table."""
    if FILES.is_dir():
        return len((FILES / "stations.txt").read_text().splitlines()) - 1
    return len(fetch(url("stations.txt")).splitlines()) - 1


@_question
def own_units() -> str:
    """Give the variable temperature the attribute units before the file is written."""
    with _open("stations.nc") as file:
        return str(file["temperature"].units)


@_question
def own_mean() -> float:
    """Read the variable temperature through the server, and take the mean of all rows."""
    with _open("stations.nc") as file:
        return float(file["temperature"][: rows()].mean())
