"""Large, slow, many and interrupted responses."""

import contextlib
import http.client
import math
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import netCDF4
import numpy as np
import pytest

from tests.unit.dapdir.data_files import BIG, Block, big_row
from tests.unit.dapdir.running import Server

MB = 1_000_000
LIMIT = 250 * MB


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Iterator[Server]:
    """A server of this test alone: the memory of a shared one would prove nothing."""
    server = Server(root, tmp_path / "log")
    yield server
    server.stop()


class Watch(threading.Thread):
    """The peak of the memory (PSS) of all processes of a server."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.peak, self.done = server, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            self.peak = max(self.peak, self.server.memory())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


def planes(response: http.client.HTTPResponse, shape: tuple[int, ...]) -> Iterator[Block]:
    """Yield the planes of a `.dods` response of one float array, as they arrive."""
    head = b""
    while not head.endswith(b"\nData:\n"):
        head += response.read(1)
    assert response.read(8) == np.array([np.prod(shape)] * 2, ">i4").tobytes()
    size = shape[-1] * shape[-2]
    for _ in range(int(np.prod(shape)) // size):
        data = response.read(4 * size)
        assert len(data) == 4 * size
        yield np.frombuffer(data, ">f4").reshape(shape[-2:])
    assert response.read() == b""


def test_idle_memory(own: Server) -> None:
    own.get("/classic.nc.dods")
    assert own.memory() < 90 * MB


@pytest.mark.parametrize("name", ["big3.nc", "big4.nc"])
def test_400_megabytes_in_bounded_memory(own: Server, name: str) -> None:
    with Watch(own) as watch:
        connection = own.connect()
        connection.request("GET", f"/opendap/{name}.dods?v")
        response = connection.getresponse()
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 4 * np.prod(BIG)
        for number, plane in enumerate(planes(response, BIG)):
            expected = big_row(number)
            if number == 99:
                assert plane[999, 999] == 7
                plane = plane[:999]
            assert (plane == expected).all()
        connection.close()
        with netCDF4.Dataset(f"{own.url}/{name}") as file:
            part = file["v"][0:1, 0:100:10, 5:1000:99, 0:1000:333]
            expected = np.stack([big_row(p)[0:1000:333] for p in range(0, 100, 10)])
            np.testing.assert_array_equal(part[0], np.repeat(expected[:, None], 11, axis=1))
    print(f"{name}: peak {watch.peak / MB:.0f} MB")
    assert watch.peak < LIMIT


def test_many_rows_and_inconvenient_chunks_in_bounded_memory(own: Server, root: Path) -> None:
    """A chunk spans all rows: for one row 40 MB must be read, more than the server may hold."""
    shape = (400, 25_000)
    with netCDF4.Dataset(root / "rows.nc", "w") as file:
        file.createDimension("y", shape[0])
        file.createDimension("x", shape[1])
        variable = file.createVariable(
            "v", "f4", ("y", "x"), compression="zlib", complevel=1, chunksizes=(400, 1000)
        )
        for start in range(0, shape[1], 1000):
            block = np.arange(400, dtype="f4")[:, None] * 100 + start // 1000
            variable[:, start : start + 1000] = np.broadcast_to(block, (400, 1000))
    with Watch(own) as watch:
        body = own.get("/rows.nc.dods").body
    values = np.frombuffer(body[-4 * 400 * 25_000 :], ">f4").reshape(shape)
    expected = np.arange(400)[:, None] * 100 + np.repeat(np.arange(25), 1000)
    np.testing.assert_array_equal(values, expected.astype("f4"))
    assert watch.peak < LIMIT


def test_long_strings_in_bounded_memory(own: Server, root: Path) -> None:
    """Only reading shows how long strings are: 150 MB of them must not be read at once."""
    words = [f"{number:04d}" * 25_000 for number in range(1500)]
    with netCDF4.Dataset(root / "words.nc", "w") as file:
        file.createDimension("n", len(words))
        file.createVariable("w", str, ("n",))[:] = np.array(words, object)
    with Watch(own) as watch:
        answer = own.get("/words.nc.dods")
    assert answer.status == 200
    values = answer.body.split(b"\nData:\n", 1)[1]
    length = len(words[0]).to_bytes(4, "big")
    head = len(words).to_bytes(4, "big")
    assert values == head + b"".join(length + word.encode() for word in words)
    assert "Int32 DODS.strlen 100000;" in own.get("/words.nc.das").text
    print(f"long strings: peak {watch.peak / MB:.0f} MB")
    assert watch.peak < LIMIT


def size_of(server: Server, path: str, most: float = math.inf) -> int:
    """Read a response, or at least `most` octets of it; return how many octets were read."""
    connection = server.connect()
    connection.request("GET", f"/opendap{path}")
    response = connection.getresponse()
    assert response.status == 200
    size = 0
    while size < most and (part := response.read(MB)):
        size += len(part)
    connection.close()
    return size


@pytest.fixture(scope="module")
def many(root: Path) -> Path:
    """A file with 24 compressed variables of 4 MiB."""
    with netCDF4.Dataset(root / "many.nc", "w") as file:
        file.createDimension("y", 1024)
        file.createDimension("x", 1024)
        for number in range(24):
            file.createVariable(
                f"v{number}", "f4", ("y", "x"), compression="zlib", complevel=1,
                chunksizes=(512, 512),
            )[:] = number  # fmt: skip
    return root / "many.nc"


def test_32_readers_of_one_file_in_bounded_memory(own: Server, many: Path) -> None:
    """Most of them wait for a reader process; a piece that was sent takes no memory meanwhile."""
    with Watch(own) as watch, ThreadPoolExecutor(32) as pool:
        sizes = list(pool.map(lambda _: size_of(own, f"/{many.name}.dods", 40 * MB), range(32)))
    print(f"32 readers: peak {watch.peak / MB:.0f} MB")
    assert min(sizes) >= 40 * MB
    assert watch.peak < LIMIT
    assert "socket.send() raised exception" not in own.log.read_text()  # to those that have gone


@pytest.mark.usefixtures("many")
def test_many_readers_in_bounded_memory(own: Server, root: Path) -> None:
    """Many variables with chunks, a long row of characters, and a large directory, all at once."""
    with netCDF4.Dataset(root / "row.nc", "w") as file:
        file.createDimension("n", 40_000_000)
        row = file.createVariable(
            "c", "S1", ("n",), compression="zlib", complevel=1, chunksizes=(1_000_000,)
        )
        row[:] = np.full(40_000_000, b"x")
    (root / "many").mkdir()
    for number in range(10_000):
        (root / "many" / f"file-{number:06d}.nc").touch()
    paths = ["/many.nc.dods", "/row.nc.dods", "/many/", "/many/catalog.xml"] * 3
    paths += [f"/many.nc.dods?v{number}" for number in range(10)]
    with Watch(own) as watch, ThreadPoolExecutor(len(paths)) as pool:
        sizes = dict(zip(paths, pool.map(lambda path: size_of(own, path), paths), strict=True))
    print(f"many readers: peak {watch.peak / MB:.0f} MB")
    assert watch.peak < LIMIT
    assert sizes["/many.nc.dods?v3"] > 4 * 1024**2
    assert sizes["/many.nc.dods"] > 24 * 4 * 1024**2
    assert sizes["/row.nc.dods"] > 40_000_000
    assert own.get("/many/").text.count(".nc.dods") == 10_000


def test_sixteen_at_once_are_all_right(server: Server, root: Path) -> None:
    with netCDF4.Dataset(root / "types.nc") as types, netCDF4.Dataset(root / "classic.nc") as file:
        types.set_auto_maskandscale(False)
        file.set_auto_maskandscale(False)
        cases = {
            "/types.nc.dods?chunked[1:2:9][2:3:11]": types["chunked"][1:10:2, 2:12:3].astype(">f4"),
            "/types.nc.dods?v_i4": types["v_i4"][:].astype(">i4"),
            "/sub/types.nc.dods?v_u2": types["v_u2"][:].astype(">u4"),
            "/classic.nc.dods?plain[0:3][0:2:6]": file["plain"][0:4, 0:7:2].astype(">i4"),
            "/sub/classic.nc.dods?sst.sst[2:5]%5B0%5D[0:8]": file["sst"][2:6, 0:1].astype(">i4"),
            "/big4.nc.dods?v[0][10:10:20][3][0:999]": np.stack([big_row(10), big_row(20)]).astype(
                ">f4"
            ),
            "/big3.nc.dods?v[0][40][0:9][0:999]": np.tile(big_row(40), 10).astype(">f4"),
        }
    expected = {path: values.tobytes() for path, values in cases.items()}

    def read(path: str) -> bool:
        answer = server.get(path)
        return answer.status == 200 and answer.body.split(b"\nData:\n", 1)[1][8:] == expected[path]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, list(cases) * 40))


def rest(server: Server) -> None:
    """Wait until the server has made what clients take before they stall."""
    deadline, before = time.monotonic() + 60, -1
    while (now := server.processor_time()) != before:
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.5)


def test_slow_readers_do_not_stop_others(own: Server) -> None:
    """More clients than workers stall, each in the middle of 400 MB."""
    stalled = []
    try:
        for number in range(12):
            client = socket.create_connection(("127.0.0.1", own.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            close = "close" if number % 2 else "keep-alive"
            client.sendall(
                f"GET /opendap/big{3 + number % 2}.nc.dods HTTP/1.1\r\nHost: x\r\n"
                f"Connection: {close}\r\n\r\n".encode()
            )
            stalled.append(client)
        # Others never finish their request
        for _ in range(12):
            client = socket.create_connection(("127.0.0.1", own.port))
            client.sendall(b"GET /opendap/ HTTP/1.1\r\nHo")
            stalled.append(client)
        time.sleep(1)
        rest(own)
        for _ in range(6):
            start = time.monotonic()
            assert own.get("/classic.nc.dods?plain").status == 200
            assert own.get("/").status == 200
            assert time.monotonic() - start < 2
        assert own.memory() < LIMIT
    finally:
        for client in stalled:
            client.close()


def test_clients_that_do_not_close_do_not_stop_others(server: Server) -> None:
    """A server may wait for a client to close, but then not in the way of others."""
    held = []
    try:
        for _ in range(4):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(b"GET /opendap/version HTTP/1.0\r\n\r\n")
            held.append(client)
        time.sleep(0.2)
        start = time.monotonic()
        for _ in range(6):
            assert server.get("/version").status == 200
        assert time.monotonic() - start < 1
    finally:
        for client in held:
            client.close()


def test_clients_that_go_away_leave_nothing_open(server: Server) -> None:
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET /opendap/big3.nc.dods HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(10_000)
        client.close()
    deadline = time.monotonic() + 10
    while "big3.nc" in open_data_files(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def open_data_files(server: Server) -> set[str]:
    """Return the names of the data files that the server's processes have open."""
    found = set()
    for pid in server.processes():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(link.readlink().name)
    return {name for name in found if name.endswith(".nc")}


def test_a_file_replaced_during_a_response_is_not_mixed(
    server: Server, root: Path, tmp_path: Path
) -> None:
    logged = len(server.log.read_text())

    def make(path: Path, value: int) -> None:
        with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
            file.createDimension("y", 40)
            file.createDimension("x", 1_000_000)
            file.createVariable("v", "i2", ("y", "x"))[:] = np.full((40, 1_000_000), value, "i2")

    make(root / "replaced.nc", 1)
    make(tmp_path / "new.nc", 2)
    connection = server.connect()
    connection.request("GET", "/opendap/replaced.nc.dods")
    response = connection.getresponse()
    first = response.read(1000)
    (tmp_path / "new.nc").replace(root / "replaced.nc")
    rest = response.read()
    values = np.frombuffer((first + rest).split(b"\nData:\n", 1)[1][8:], ">i4")
    assert values.size == 40_000_000 and (values == 1).all()
    connection.close()
    assert server.get("/replaced.nc.dods?v[0][0]").body.endswith(b"\0\0\0\2")

    # The file is overwritten in place: the response is cut, and never mixes old and new.
    connection = server.connect()
    connection.request("GET", "/opendap/replaced.nc.dods")
    response = connection.getresponse()
    response.read(1000)
    make(root / "replaced.nc", 3)
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    assert "was changed while it was read" in server.log.read_text()[logged:]


def test_an_error_in_mid_stream_cuts_the_response(server: Server, root: Path) -> None:
    """Strings have no Content-Length: a chunked body without its end."""
    with netCDF4.Dataset(root / "late.nc", "w") as file:
        file.createDimension("y", 60)
        file.createDimension("x", 10_000)
        wide = file.createVariable("wide", "i8", ("y", "x"))
        wide[:] = 5
        wide[59, 9999] = 2**53 + 1
        file.createVariable("word", str, ())[...] = "late"
    for query in ("wide", "wide,word"):
        connection = server.connect()
        connection.request("GET", f"/opendap/late.nc.dods?{query}")
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises(http.client.IncompleteRead):
            response.read()
        connection.close()
    assert "Traceback" not in server.log.read_text()


def test_arrays_longer_than_dap2_can_say(server: Server, root: Path) -> None:
    with netCDF4.Dataset(root / "huge.nc", "w") as file:
        file.createDimension("y", 2**16)
        file.createDimension("x", 2**16)
        file.createVariable("v", "u1", ("y", "x"), chunksizes=(1024, 1024), compression="zlib")
    answer = server.get("/huge.nc.dods")
    assert answer.status == 400 and "more than 2147483647 elements" in answer.text
    assert server.get("/huge.nc.dds").status == 200
    assert server.get("/huge.nc.dods?v[0][0:65535]").status == 200


def test_settings_and_signals(root: Path, tmp_path: Path) -> None:
    server = Server(root, tmp_path / "log", workers=1)
    assert len(server.processes()) == 2
    server.stop()
    assert server.process.returncode == 0
    assert "Traceback" not in server.log.read_text()
