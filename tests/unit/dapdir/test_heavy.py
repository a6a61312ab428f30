"""Files of thousands of variables take much memory: one process at a time has such a file open."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from tests.unit.dapdir.data_files import make_classic
from tests.unit.dapdir.running import Server
from tests.unit.dapdir.test_trouble import links_of

VARIABLES = 4_000  # of 25 kB in memory and more: beyond what a reader may keep


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("heavy")
    with netCDF4.Dataset(place / "a.nc", "w") as file:
        file.createDimension("x", 2)
        made = [file.createVariable(f"v{number}", "i4", ("x",)) for number in range(VARIABLES)]
        for number, variable in enumerate(made):
            variable[:] = number
    shutil.copy(place / "a.nc", place / "b.nc")
    make_classic(place / "light.nc")
    return place


@pytest.fixture
def server(place: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(place, tmp_path / "log")
    yield server
    server.stop()


def ask(server: Server, name: str, number: int) -> None:
    answer = server.get(f"/{name}.nc.dods?v{number}")
    assert answer.status == 200, answer.text
    assert answer.body.endswith(np.full(2, number, ">i4").tobytes())


def holders(server: Server) -> dict[str, list[int]]:
    """Return which processes have which heavy file open."""
    found: dict[str, list[int]] = {"a.nc": [], "b.nc": []}
    for pid in server.processes():
        for name in {link.name for link in links_of(pid)} & set(found):
            found[name].append(pid)
    return found


def test_many_readers_of_two_heavy_files_take_the_memory_of_one(server: Server) -> None:
    idle = server.memory()
    ask(server, "a", 0)
    one = server.memory() - idle
    assert one > 64 * 1024 * 1024  # or this test would prove nothing
    ask(server, "b", 0)  # only now is it known to be heavy too, and closed again
    deadline = time.monotonic() + 20
    while server.memory() > idle + 1.5 * one:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most.append(server.memory())

    with ThreadPoolExecutor(17) as readers:
        readers.submit(watch)
        try:
            list(readers.map(lambda n: ask(server, "ab"[n % 2], n), range(64)))
        finally:
            ended.set()
    assert max(most) < idle + 1.5 * one


def test_a_heavy_file_stays_open_while_others_are_read(server: Server) -> None:
    before = server.processor_time()
    ask(server, "a", 0)
    opening = server.processor_time() - before
    [holder] = holders(server)["a.nc"]
    for number in range(1, 30):
        ask(server, "a", number)
        assert server.get("/light.nc.dds").status == 200
        assert holders(server)["a.nc"] == [holder]
    assert server.processor_time() - before < 3 * opening  # and not 30 times as much


def test_the_other_process_closes_the_file_that_proves_to_be_heavy_too(server: Server) -> None:
    both = threading.Barrier(2)

    def first(name: str) -> None:
        both.wait(30)
        ask(server, name, 1)

    with ThreadPoolExecutor(2) as readers:
        list(readers.map(first, "ab"))
    ask(server, "a", 2)
    found = holders(server)
    assert len(found["a.nc"] + found["b.nc"]) <= 1, found
