"""`hyrax-data aggregate`: files that fit are joined by an NcML file; what does not fit is named."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from tests.unit.dapdir.running import Server
from tests.unit.guest.guest_copy import RELEASE, Guest, divert_curl

SPACE = "{http://www.unidata.ucar.edu/namespaces/netcdf/ncml-2.2}"
JOIN = ("aggregate", "sst", "--over", "ocean/*.nc", "--dim", "time")
# What Hyrax answers for an NcML file, which the server of these tests cannot read.
JOINED = """
case $* in *.ncml.dds*)
    [ -e "$HYRAX_ROOT/refuses" ] && answer='Error { code = 500; }' status=500
    while [ $# -gt 0 ]; do [ "$1" != -o ] || out=$2; shift; done
    printf '%s' "${answer:-Dataset {\n    Int32 t[time = 6];\n\\} x;}" >"$out"
    printf %s "${status:-200}"; exit ;;
esac
"""


def write(path: Path, times: int = 2, lats: int = 3, variable: str = "sst") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", times)
        file.createDimension("lat", lats)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(times)
        file.createVariable(variable, "i4", ("time", "lat"))[:] = np.zeros((times, lats))


@pytest.fixture
def files(guest: Guest) -> Path:
    """The folder of a data set with three files."""
    guest.write("etc/hyrax-vm-release", RELEASE.replace("SERVER=dapdir", "SERVER=hyrax"))
    folder = guest.root / "srv/hyrax/data/ocean"
    for number in range(3):
        write(folder / f"sst_{number}.nc")
    return folder


@pytest.fixture
def ocean(guest: Guest, files: Path, tmp_path: Path) -> Iterator[Path]:
    """The same folder; a real server serves it."""
    server = Server(guest.root / "srv/hyrax", tmp_path / "server.log")
    divert_curl(guest, server.port)
    curl = guest.bin / "curl"
    curl.write_text(curl.read_text().replace("exec ", f"{JOINED}exec "))
    yield files
    server.stop()


def test_files_that_fit_are_joined(guest: Guest, ocean: Path) -> None:
    status, said, wrong = guest.data(*JOIN)
    assert (status, wrong) == (0, "")
    assert said == (
        "sst joins 3 files along time, which has 6 values: "
        "http://192.0.2.7:8080/opendap/data/sst.ncml\n"
    )
    path = guest.root / "srv/hyrax/data/sst.ncml"
    assert path.stat().st_mode & 0o777 == 0o644
    root = ET.parse(path).getroot()
    (joined,) = root
    assert joined.attrib == {"type": "joinExisting", "dimName": "time"}
    (scan,) = joined
    assert scan.tag == f"{SPACE}scan"
    assert scan.attrib == {
        "location": "/data/ocean",
        "regExp": r"^.*/[^/]*\.nc$",
        "subdirs": "false",
    }
    # Again, with what was added; its number of times may differ.
    write(ocean / "sst_7.nc", times=9)
    status, said, _ = guest.data("aggregate", "sst", "--json")
    assert status == 0
    assert json.loads(said) == {
        "name": "sst",
        "url": "http://192.0.2.7:8080/opendap/data/sst.ncml",
        "files": 4,
        "length": 6,
    }


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"lats": 4}, "odd.nc does not fit {}: it has 'Int32 sst[time][lat = 4];', "
         "lacks 'Int32 sst[time][lat = 3];'"),
        ({"variable": "salt"}, "odd.nc does not fit {}: it has 'Int32 salt[time][lat = 3];', "
         "lacks 'Int32 sst[time][lat = 3];'"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_named(
    guest: Guest, ocean: Path, odd: dict[str, int], said: str
) -> None:
    for name in ("sst_0", "sst_1", "sst_2"):
        (ocean / f"{name}.nc").rename(ocean / f"a_{name}.nc")
    write(ocean / "odd.nc", **odd)  # type: ignore[arg-type]
    status, _, wrong = guest.data(*JOIN)
    assert status == 1
    assert wrong == f"hyrax-data: {said.format('a_sst_0.nc')}\n"
    assert not (guest.root / "srv/hyrax/data/sst.ncml").exists()


def test_a_file_without_the_dimension_or_without_sense_is_named(guest: Guest, ocean: Path) -> None:
    status, _, wrong = guest.data(*JOIN[:-1], "day")
    assert status == 1
    said = "hyrax-data: sst_0.nc: no variable has the dimension 'day'; its dimensions: lat time\n"
    assert wrong == said
    (ocean / "sst_1.nc").write_text("no netCDF")
    status, _, wrong = guest.data(*JOIN)
    assert status == 1
    assert wrong.startswith("hyrax-data: sst_1.nc: the server cannot read it; see: curl http://")
    assert len(wrong.splitlines()) == 1
    (ocean / "with blank.nc").touch()
    assert "'with blank.nc' cannot be joined; rename it" in guest.data(*JOIN)[2]


def test_what_the_server_refuses_is_taken_back(guest: Guest, ocean: Path) -> None:
    guest.write("refuses", "")
    status, _, wrong = guest.data(*JOIN)
    assert status == 1
    assert "the server does not serve these files as one (HTTP 500)" in wrong
    path = guest.root / "srv/hyrax/data/sst.ncml"
    assert not path.exists()
    path.write_text("as before")
    assert guest.data(*JOIN, "--replace")[0] == 1
    assert path.read_text() == "as before"
    # To check again changes nothing.
    (guest.root / "refuses").unlink()
    assert guest.data(*JOIN, "--replace")[0] == 0
    guest.write("refuses", "")
    kept = path.read_text()
    assert guest.data("aggregate", "sst")[0] == 1
    assert path.read_text() == kept


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "aggregate needs a name"),
        (("x y", "--over", "ocean/*.nc", "--dim", "time"), "cannot be a name"),
        (("x",), "no aggregation is called 'x'; make it with --over and --dim"),
        (("x", "--over"), "--over needs a value"),
        (("x", "--over", "ocean/*.nc"), "'' is not the name of a dimension"),
        (("x", "--over", "*.nc", "--dim", "t"), "'*.nc' names no data set"),
        (("x", "--over", "ocean/../../etc/*", "--dim", "t"), "is not a pattern of files"),
        (("x", "--over", 'ocean/"><x a="*.nc', "--dim", "t"), "is not a pattern of files"),
        (("x", "--over", "o*/a.nc", "--dim", "t"), "* and ? may be only in the last part"),
        (("x", "--over", "sea/*.nc", "--dim", "t"), "no data set is called 'sea'"),
        (("x", "--over", "ocean/*.nc", "--dim", 't"'), "is not the name of a dimension"),
        (("x", "--over", "ocean/a.nc", "ocean/b.nc", "--dim", "t"), "put the pattern between"),
        (("x", "--along", "t"), "'--along' is not an option of aggregate"),
    ],
)
def test_a_mistake_is_one_line(
    guest: Guest, files: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, _, wrong = guest.data("aggregate", *arguments)
    assert status == 2, wrong
    assert said in wrong
    assert len(wrong.splitlines()) == 1


def test_an_aggregation_is_not_overwritten(guest: Guest, ocean: Path) -> None:
    assert guest.data(*JOIN)[0] == 0
    status, _, wrong = guest.data(*JOIN)
    assert (status, wrong) == (
        2,
        "hyrax-data: the aggregation 'sst' exists; to replace it, add --replace\n",
    )


def test_the_embedded_server_cannot_and_says_so(guest: Guest) -> None:
    status, _, wrong = guest.data(*JOIN)
    assert status == 1
    assert wrong.startswith("hyrax-data: aggregate needs Hyrax as the data server")
    assert "dapdir 1.0.0 (embedded default, not Hyrax)" in wrong
    assert len(wrong.splitlines()) == 1
