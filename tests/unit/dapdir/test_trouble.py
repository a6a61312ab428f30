"""File systems that fail or hang, simulated in this process: no machine has real ones ready."""

import errno
import os
import threading
import time
from pathlib import Path
from typing import NoReturn, Protocol

import pytest
from dapdir import library, source
from dapdir.app import Application


class Ask(Protocol):
    """Answers a request for `path`, below /opendap, with the status and the body."""

    def __call__(self, path: str, query: str = "") -> tuple[int, str]: ...


@pytest.fixture
def ask(root: Path) -> Ask:
    application = Application(str(root))

    def ask(path: str, query: str = "") -> tuple[int, str]:
        seen: list[int] = []
        environ = {"PATH_INFO": f"/opendap{path}", "QUERY_STRING": query, "REQUEST_METHOD": "GET"}
        body = application(environ, lambda status, headers: seen.append(int(status[:3])))
        try:
            return seen[0], b"".join(body).decode("latin-1")
        finally:
            if hasattr(body, "close"):
                body.close()

    return ask


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

    def fails() -> NoReturn:
        if cause:
            monkeypatch.setattr(source.Source, "_probe", probe)
        raise RuntimeError("NetCDF: HDF error")

    def probe(_self: source.Source) -> NoReturn:
        assert cause
        raise cause

    monkeypatch.setattr(source, "library", fails)
    status, text = ask("/classic.nc.dods", "plain")
    assert status == expected and words in text


def test_a_hung_read_delays_others_only_so_long(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LOCK_TIMEOUT", 0.2)
    release = threading.Event()
    held = threading.Event()

    def hang() -> None:
        with library.library():
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    held.wait()
    start = time.monotonic()
    status, text = ask("/classic.nc.dds")
    assert status == 503 and "waiting for a file system" in text
    # A request that needs no data is not delayed.
    assert ask("/")[0] == 200 and ask("/notes.txt")[0] == 200
    assert time.monotonic() - start < 2
    release.set()
    thread.join()
    assert ask("/classic.nc.dds")[0] == 200


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_stays_open(ask: Ask) -> None:
    before = open_files()
    for path in ("/classic.nc.dods", "/types.nc.dods", "/broken.nc.dds", "/notes.txt.dds",
                 "/classic.nc.html", "/classic.nc", "/", "/nope/", "/types.nc.ver"):  # fmt: skip
        for query in ("", "nothing"):
            ask(path, query)
    assert open_files() == before
    assert not library._handles
