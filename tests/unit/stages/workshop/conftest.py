"""The data of the workshop, made once, and a server that has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.stages.workshop.data import make_data
from tests.unit.dapdir.running import Server


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a data server, with the data in its folder `workshop`."""
    root = tmp_path_factory.mktemp("served")
    make_data(root / "workshop")
    return root


@pytest.fixture(scope="session")
def data(served: Path) -> Path:
    return served / "workshop"


@pytest.fixture(scope="session")
def server(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(served, tmp_path_factory.mktemp("log") / "log")
    yield running
    running.stop()
