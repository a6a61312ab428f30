"""The data that the tests of dapdir serve, and a server that all of them share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.dapdir.data_files import (
    make_big,
    make_classic,
    make_names,
    make_traps,
    make_types,
    make_wide,
)
from tests.unit.dapdir.running import Server


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dapdir") / "root"
    (path / "sub").mkdir(parents=True)
    (path.parent / "root-sibling").mkdir()
    make_classic(path / "classic.nc")
    make_classic(path / "sub" / "classic.nc")
    make_classic(path.parent / "outside.nc")
    make_classic(path.parent / "root-sibling" / "classic.nc")
    make_types(path / "types.nc")
    make_types(path / "sub" / "types.nc")
    make_names(path / "names.nc")
    make_wide(path / "wide.nc")
    make_big(path / "big3.nc", "NETCDF3_64BIT_DATA")
    make_big(path / "big4.nc", "NETCDF4")
    (path / "notes.txt").write_text("plain text\n")
    (path / "broken.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 500)
    (path / "empty.nc").write_bytes(b"")
    make_traps(path)
    return path


@pytest.fixture(scope="session")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(root, tmp_path_factory.mktemp("log") / "log")
    yield server
    server.stop()
