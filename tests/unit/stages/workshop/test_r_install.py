"""R installs from the repository: through the front door of a guest, and from a folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.stages.workshop import packages
from tests.unit.guest.front_door import DataServer, FrontDoor
from tests.unit.guest.guest_copy import Guest, Pattern
from tests.unit.guest.workshop import with_workshop
from tests.unit.stages.workshop.r_packages import files, pack


def r(code: str) -> str:
    """Return what R prints."""
    command = ["R", "--vanilla", "--no-echo", "-e", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A repository's folder, and its URL in a guest."""
    tarballs = tmp_path_factory.mktemp("tarballs")
    needs = "Imports: grid.two (>= 1.0)\n"
    content = files("needs", 7, needs) | {
        "needs/NAMESPACE": b"export(size)\nimportFrom(grid.two, size2)\n",
        "needs/R/size.R": b"size <- function() 100 + size2()\n",
    }
    other = files("grid.two", 5) | {
        "grid.two/NAMESPACE": b"export(size2)\n",
        "grid.two/R/size.R": b"size2 <- function() 5\n",
    }
    guest = with_workshop(
        Guest(tmp_path_factory.mktemp("guest"), Pattern(tmp_path_factory.mktemp("pattern")))
    )
    folder = guest.root / "usr/lib/hyrax/workshop/srv/workshop/www/r"
    made = [pack(tarballs / "r-cran-needs", content), pack(tarballs / "r-cran-grid.two", other)]
    packages.index_r(made, folder)
    behind = DataServer()
    door = FrontDoor(guest, behind.port)
    try:
        door.start()
        yield folder, f"http://127.0.0.1:{door.port}/workshop/r"
    finally:
        door.stop()
        behind.stop()


@pytest.mark.parametrize("where", ["guest", "folder"])
def test_r_installs_a_package_and_what_it_needs(
    repository: tuple[Path, str], tmp_path: Path, where: str
) -> None:
    folder, url = repository
    repos = url if where == "guest" else folder.as_uri()
    r(f'install.packages("needs", repos="{repos}", type="source", lib="{tmp_path}")')
    assert {path.name for path in tmp_path.iterdir()} == {"needs", "grid.two"}
    assert r(f'.libPaths("{tmp_path}"); cat(needs::size())') == "105"


def test_r_finds_what_it_would_write_itself(repository: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = repository
    contrib = folder / "src/contrib"
    for path in contrib.glob("*.tar.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = r(
        f'written <- tools::write_PACKAGES("{tmp_path}", type="source"); '
        f'ours <- read.dcf("{contrib}/PACKAGES"); '
        f'theirs <- read.dcf("{tmp_path}/PACKAGES")[, colnames(ours)]; '
        "cat(written, identical(ours, theirs), dim(ours))"
    )
    assert said == "2 TRUE 2 6"
