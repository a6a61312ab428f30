"""The data of the workshop, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm.stages.workshop.data import make_data


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a data server, with the data in its folder `workshop`."""
    root = tmp_path_factory.mktemp("served")
    make_data(root / "workshop")
    return root


@pytest.fixture(scope="session")
def data(served: Path) -> Path:
    return served / "workshop"
