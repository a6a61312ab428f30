"""A tiny master, and every format of it, made once by the stage `package`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.formats import FORMATS, Source, disk_images
from hyraxvm.stages.server import stage as server
from tests.unit.formats.shelf import DATE, Shelf, make_master


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    recipe = images.recipe(images.load(), "nfs", "dapdir")
    machine = recipe.machine.model_copy(update={"disk_gib": 4})
    return Source(
        recipe=recipe.model_copy(update={"machine": machine}),
        image=server.preview(recipe),
        master=make_master(tmp_path_factory.mktemp("master") / "master.qcow2"),
        master_key="0123456789abcdef",
        release={"VERSION": "0.1.0", "BUILD_DATE": DATE, "ARCH": "amd64"},
    )


@pytest.fixture(scope="session")
def shelf(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """All formats, made once; tests must not change them."""
    made = Shelf(tmp_path_factory.mktemp("shelf"), source)
    assert disk_images.size(source.master, "qcow2") == 4 * 2**30
    assert made.build() == [made.path(name) for name in FORMATS]
    return made


@pytest.fixture
def own(shelf: Shelf, tmp_path: Path) -> Iterator[Shelf]:
    """A copy of the shelf that a test may change."""
    folder = tmp_path / "shelf"
    subprocess.run(["cp", "-a", "--sparse=always", str(shelf.folder), str(folder)], check=True)
    yield Shelf(folder, shelf.source)
