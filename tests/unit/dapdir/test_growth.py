"""Time grows no faster than a file and a request do.  Calls are counted, not seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import netCDF4
import pytest
from dapdir import bodies
from dapdir.constraint import constrain
from dapdir.das import das
from dapdir.errors import RequestError
from dapdir.model import dds
from dapdir.reader import File


def opened(folder: Path, count: int, format_: str = "NETCDF4") -> File:
    path = folder / f"{count}-{format_}.nc"
    with netCDF4.Dataset(path, "w", format=format_) as file:  # type: ignore[arg-type]
        file.createDimension("x", 2)
        file.createVariable("x", "f4", ("x",))
        for number in range(count):
            file.createVariable(f"variable {number}", "f4", ("x",)).units = "K"
    return File(os.open(path, os.O_RDONLY), "/f")


def calls(work: Callable[[], object]) -> int:
    """Return how many functions of any kind `work` calls."""
    work()  # what is done once only does not count
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


ASKED: dict[str, Callable[[File, int], object]] = {
    "dds": lambda f, n: dds(f.model),
    "das": lambda f, n: das(f.model),
    "one": lambda f, n: dds(constrain(f.model, f"variable%20{n - 1}")),
    "one encoded": lambda f, n: dds(constrain(f.model, f"variable%2520{n - 1}%5B0%5D")),
    "all": lambda f, n: dds(constrain(f.model, ",".join(f.model.members))),
    "all encoded": lambda f, n: dds(constrain(f.model, "%2C".join(f.model.members))),
    "values": lambda f, n: bodies.dods(f, f.model).piece(bodies.START, 10**6),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, File]:
    folder = tmp_path_factory.mktemp("growth")
    return {count: opened(folder, count) for count in (100, 200, 400)}


@pytest.mark.parametrize("asked", ASKED)
def test_variables(files: dict[int, File], asked: str) -> None:
    few, more, most = (
        calls(lambda f=file, n=count: ASKED[asked](f, n))  # type: ignore[misc]
        for count, file in files.items()
    )
    assert most - more < 2.2 * (more - few) + 50, (few, more, most)


@pytest.mark.parametrize("format_", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_opening(tmp_path: Path, format_: str) -> None:
    def count(number: int) -> int:
        path = tmp_path / f"{number}-{format_}.nc"
        opened(tmp_path, number, format_).close()
        return calls(lambda: File(os.open(path, os.O_RDONLY), "/f").close())

    few, more, most = count(100), count(200), count(400)
    assert most - more < 2.2 * (more - few) + 50, (few, more, most)


@pytest.mark.parametrize(
    "query",
    ["%25" + "25" * 2000, "a." * 2000, "a," * 2000, "[0]" * 2000],
    ids=["percent", "dots", "commas", "brackets"],
)
def test_requests(files: dict[int, File], query: str) -> None:
    def ask(text: str) -> Callable[[], object]:
        def work() -> None:
            with pytest.raises(RequestError):
                constrain(files[100].model, text)

        return work

    few, more = calls(ask(query)), calls(ask(query + query[3:]))
    assert more < 2.2 * few + 1000, (few, more)
