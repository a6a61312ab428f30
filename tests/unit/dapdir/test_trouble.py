"""Files that crash, hang or exhaust a reader process, and file systems that fail or hang."""

import asyncio
import contextlib
import errno
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, Protocol

import h5py
import netCDF4
import numpy as np
import pytest
from dapdir.errors import RequestError
from dapdir.pool import BUDGET, FILE_SERVER, TICK, Pool, Process
from dapdir.settings import Settings
from dapdir.site import IDLE, Request, Site
from dapdir.worker import HEADER, MAX_PIECE, Reader, Task

from tests.unit.dapdir.data_files import make_classic, make_endless
from tests.unit.dapdir.running import Server

PATIENCE = 4


class Ask(Protocol):
    """Answers a request for `path`, below /opendap, with the status and the body."""

    def __call__(self, path: str, query: str = "") -> tuple[int, str]: ...


@pytest.fixture
def ask(root: Path) -> Iterator[Ask]:
    """What a reader process does, in this process: no machine has failing file systems ready."""
    with mmap.mmap(-1, HEADER + MAX_PIECE) as shared:
        own = Reader(shared, str(root), Settings())

        def ask(path: str, query: str = "") -> tuple[int, str]:
            task = Task(Request(f"/opendap{path}", query), None, False, MAX_PIECE, {})
            reply = own.do(task)
            if reply.error:
                return reply.error.status, reply.error.message
            return reply.status, shared[HEADER : HEADER + reply.size].decode("latin-1")

        yield ask
        own._site.close()
        own._target.release()


CODES = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENODEV, errno.EREMOTEIO]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", ["open", "fstat", "pread", "scandir"])
def test_a_file_server_that_fails_is_said_to(
    ask: Ask, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_args: object, **_options: object) -> NoReturn:
        raise OSError(code, os.strerror(code), str(root / "classic.nc"))

    monkeypatch.setattr(os, call, fail)
    path = "/sub/" if call == "scandir" else "/sub/classic.nc.dods"
    status, text = ask(path)
    monkeypatch.undo()
    assert status == 503
    assert "file system that holds" in text and "sub/" in text
    assert str(root) not in text
    assert ask("/sub/classic.nc.dods")[0] == 200


@pytest.mark.parametrize(
    ("cause", "expected", "words"),
    [
        (None, 500, "/classic.nc is damaged"),
        (OSError(errno.ESTALE, "Stale file handle"), 503, "does not answer"),
    ],
)
def test_trouble_in_the_middle_of_reading(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, cause: OSError | None, expected: int, words: str
) -> None:
    """netCDF-C says only that something failed; dapdir reads the file to find out what."""

    def fails(_array: object) -> NoReturn:
        if cause:
            monkeypatch.setattr(os, "pread", probe)
        raise RuntimeError("NetCDF: HDF error")

    def probe(*_: object) -> NoReturn:
        assert cause
        raise cause

    assert ask("/classic.nc.dds")[0] == 200
    monkeypatch.setattr(np, "asarray", fails)
    status, text = ask("/classic.nc.dods", "plain")
    assert status == expected and words in text


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_stays_open(root: Path) -> None:
    before = open_files()
    with mmap.mmap(-1, HEADER + MAX_PIECE) as shared:
        own = Reader(shared, str(root), Settings())
        for path in ("classic.nc.dods", "types.nc.dods", "broken.nc.dds", "notes.txt.dds",
                     "classic.nc.html", "classic.nc", "", "nope/", "types.nc.ver"):  # fmt: skip
            for query in ("", "nothing"):
                own.do(Task(Request(f"/opendap/{path}", query), None, False, MAX_PIECE, {}))
        assert open_files() > before
        own._site.close()
        own._target.release()
    assert open_files() == before


def test_a_time_that_no_calendar_has(ask: Ask, root: Path) -> None:
    make_classic(root / "future.nc")
    for seconds in (910692730085, -(2**40)):
        os.utime(root / "future.nc", (seconds, seconds))
        answer = Site(str(root)).answer(Request("/opendap/future.nc.dds"))
        assert answer.status == 200
        assert ask("/")[0] == ask("/future.nc")[0] == ask("/catalog.xml")[0] == 200


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 80 MB; tests must not change it."""
    path = tmp_path_factory.mktemp("long") / "long.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 20_000_000)
        file.createVariable("v", "f4", ("x",))[:] = np.arange(20_000_000, dtype="f4")
    return path


@pytest.fixture
def place(tmp_path: Path, long: Path) -> Path:
    """A root with a good file and one that HDF5 reads without end."""
    (tmp_path / "root" / "data" / "one").mkdir(parents=True)
    (tmp_path / "root" / "data" / "two").mkdir(parents=True)
    (tmp_path / "root" / "sample").mkdir(parents=True)
    for folder in ("data/one", "data/two", "sample"):
        make_classic(tmp_path / "root" / folder / "classic.nc")
    make_endless(tmp_path / "root" / "data" / "one" / "endless.nc")
    (tmp_path / "root" / "data" / "one" / "long.nc").hardlink_to(long)
    return tmp_path / "root"


@pytest.fixture
def guarded(place: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server(place, tmp_path / "log", DAPDIR_PATIENCE=str(PATIENCE))
    yield server
    server.stop()


def test_an_endless_file_stops_nobody(guarded: Server, place: Path) -> None:
    def damaged(_: int) -> None:
        answer = guarded.get("/data/one/endless.nc.dds")
        assert answer.status == 500
        assert "/endless.nc is damaged: reading it took more than 4 seconds" in answer.text

    connection = guarded.connect()
    connection.request("GET", "/opendap/data/one/long.nc.dods", headers={"Connection": "close"})
    response = connection.getresponse()
    head = response.read(1000)
    with ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        waiting = [pool.submit(damaged, number) for number in range(6)]
        slowest, answers = 0.0, 0
        while not all(each.done() for each in waiting):
            before = time.monotonic()
            for folder in ("data/one", "data/two", "sample"):
                assert guarded.get(f"/{folder}/classic.nc.dods?plain").status == 200
                assert guarded.get(f"/{folder}/").status == 200
            slowest, answers = max(slowest, time.monotonic() - before), answers + 1
            assert time.monotonic() - started < 10 * PATIENCE
        for each in waiting:
            each.result()
    assert answers > 2 and slowest < 2 * PATIENCE, (answers, slowest)
    values = np.frombuffer((head + response.read()).split(b"\nData:\n", 1)[1][8:], ">f4")
    np.testing.assert_array_equal(values, np.arange(20_000_000, dtype="f4"))
    connection.close()
    # The file is remembered, until it is another one.
    before = time.monotonic()
    damaged(0)
    assert time.monotonic() - before < PATIENCE
    make_classic(place / "data" / "one" / "endless.nc")
    assert guarded.get("/data/one/endless.nc.dds").status == 200


def test_a_reader_that_dies_stops_nobody(guarded: Server) -> None:
    """Every process but the server is killed again and again; only what it did then fails."""
    failures = 0
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.05):
            for pid in guarded.processes()[1:]:
                os.kill(pid, signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for _ in range(100):
            answer = guarded.get("/sample/classic.nc.dods?plain")
            assert answer.status in (200, 500)
            failures += answer.status == 500
            if failures:
                break
    finally:
        ended.set()
        killer.join()
    assert guarded.get("/data/two/classic.nc.dods?plain").status == 200
    assert guarded.get("/version").status == 200


def test_a_hung_file_system_is_said_to_and_not_remembered(guarded: Server) -> None:
    """A stopped process waits as one does for a file server that hangs: without computing."""
    for pid in guarded.processes()[1:]:
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        hung = [pool.submit(guarded.get, f"/data/one/{n}.dds") for n in ("classic.nc", "long.nc")]
        time.sleep(0.3)
        assert guarded.get("/data/two/classic.nc.dods?plain").status == 200
        assert not any(each.done() for each in hung)
        for each in hung:
            answer = each.result()
            assert answer.status == 503 and "does not answer" in answer.text
    assert guarded.get("/data/one/classic.nc.dds").status == 200


def test_a_reader_that_cannot_close_a_file_keeps_nobody_waiting(guarded: Server) -> None:
    """A file server that hangs delays close(2) too: of a reader that has nothing to do."""
    for name in ("classic.nc", "long.nc"):
        assert guarded.get(f"/data/one/{name}.dds").status == 200
    holding = {
        pid
        for pid in guarded.processes()[1:]
        if any("/data/one/" in str(link) for link in links_of(pid))
    }
    assert holding
    for pid in holding:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(IDLE + 2)
    for number in range(20):  # each has its own usual reader
        started = time.monotonic()
        assert guarded.get(f"/data/two/{number}.nc.dds").status == 404
        assert guarded.get("/data/two/classic.nc.dods?plain").status == 200
        assert time.monotonic() - started < 2
    deadline = time.monotonic() + 3 * PATIENCE
    while holding & {*guarded.processes()}:  # it is ended, as one that hangs when it reads
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_client_that_has_gone_keeps_no_place(place: Path) -> None:
    """A client gives up, and asks again: those requests must not queue for a hung file server."""

    async def ask() -> int:
        pool = Pool(1, str(place), Settings(), 60)
        try:
            request = Request("/opendap/data/one/classic.nc.dds", "")
            (process,) = pool._processes
            pid = process.process.pid
            assert pid
            os.kill(pid, signal.SIGSTOP)
            asking = [pool.make(request, None, False, None, False) for _ in range(5)]
            await asyncio.sleep(0.1)
            assert len(pool._waiting) == 4
            for made in asking:
                pool.drop(made)
            await asyncio.sleep(0.1)
            os.kill(pid, signal.SIGCONT)
            made = pool.make(request, None, False, None, False)
            piece = await asyncio.wait_for(made, 30)
            assert not pool._waiting
            assert pool._left == BUDGET - piece.reply.size
            pool.drop(made)  # its client goes when the piece is there
            assert pool._left == BUDGET
            return piece.reply.status
        finally:
            pool.close()

    assert asyncio.run(ask()) == 200


def test_a_file_server_that_answers_too_late_does_not_make_its_file_a_damaged_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = 0.5

    async def ask() -> None:
        pool = Pool(1, str(place), Settings(), patience)
        try:
            (process,) = pool._processes
            assert process.process.pid
            os.kill(process.process.pid, signal.SIGSTOP)
            request = Request("/opendap/data/one/classic.nc.dds", "")
            with pytest.raises(RequestError, match="does not answer"):
                await asyncio.wait_for(pool.make(request, None, False, None, False), 10)
            assert not pool._condemned
        finally:
            pool.close()

    # It stops waiting in the moment in which it is ended.
    monkeypatch.setattr(Process, "waits", lambda self: self.seconds() < FILE_SERVER * patience)
    asyncio.run(ask())


def test_the_look_after_the_readers_goes_on_after_a_failure(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        pool = Pool(1, str(place), Settings(), 60)
        try:
            monkeypatch.setattr(pool, "_look_after", refuse)
            await asyncio.sleep(3 * TICK)
            assert not pool._ticker.done()
        finally:
            pool.close()

    def refuse() -> NoReturn:
        raise OSError(errno.EAGAIN, "no more processes")

    asyncio.run(ask())
    assert "cannot look after the reader processes" in caplog.text


def test_health_reads_a_sample(guarded: Server, place: Path) -> None:
    answer = guarded.get("/health")
    assert (answer.status, answer.text) == (200, "ok: read classic.nc\n")
    make_endless(place / "sample" / "classic.nc")
    answer = guarded.get("/health")
    assert answer.status == 500 and "more than 4 seconds" in answer.text
    (place / "sample" / "classic.nc").unlink()
    assert guarded.get("/health").status == 200


def test_a_file_that_nobody_reads_is_closed(guarded: Server, place: Path) -> None:
    assert guarded.get("/data/two/classic.nc.dods").status == 200
    assert guarded.get("/data/two/classic.nc").status == 200
    assert guarded.get("/data/two/").status == 200
    deadline = time.monotonic() + 9
    while any("/data/two" in str(link) for link in links(guarded)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def links(server: Server) -> list[Path]:
    return [link for pid in server.processes() for link in links_of(pid)]


def links_of(pid: int) -> list[Path]:
    found = []
    with contextlib.suppress(FileNotFoundError):  # the process has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(link.readlink())
    return found


def test_too_much_memory_is_said_to_be(guarded: Server, place: Path) -> None:
    with netCDF4.Dataset(place / "data" / "one" / "chunk.nc", "w") as file:
        file.createDimension("x", 100_000_000)
        file.createVariable(
            "v", "f4", ("x",), chunksizes=(100_000_000,), compression="zlib", complevel=1
        )[:10] = 1
    answer = guarded.get("/data/one/chunk.nc.dods?v[0:9]")
    assert answer.status == 500 and "too large" in answer.text


def test_a_file_overwritten_in_place_is_read_again(guarded: Server, place: Path) -> None:
    """HDF5 would give what it remembers of the old content as long as that is open."""
    for value in range(5):
        with h5py.File(place / "sample" / "rewritten.h5", "w") as file:
            file[f"v{value}"] = np.full(3, value, "f8")
        assert f"Float64 v{value}[" in guarded.get("/sample/rewritten.h5.dds").text
        body = guarded.get("/sample/rewritten.h5.dods").body
        assert body.endswith(np.full(3, value, ">f8").tobytes())
