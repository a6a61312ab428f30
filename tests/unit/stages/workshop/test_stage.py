"""The stage: what its key covers, what it packs, and that other images have nothing of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.core.paths import ROOT
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.workshop import content, stage

TABLE = images.load()
MINE = images.recipe(TABLE, "workshop", "dapdir")
LOCAL = images.recipe(TABLE, "local", "dapdir", base=MINE.base_name)
IMAGE = server.preview(MINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files of the checkout that the stages are made from."""
    for name in ("hyraxvm", "packer", "provision", "templates", "docs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    return tmp_path


def keys(recipe: images.Recipe, root: Path) -> dict[str, str]:
    """Return stage -> its key."""
    plan = Plan(recipe, root=root)
    stages = {"workshop": plan.workshop, "disk": plan.disk, "provision": plan.provision(IMAGE)}
    return {"rootfs": plan.rootfs, "server": plan.server, **stages, "guest": plan.guest(IMAGE)}


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("exercises/3-subset.md", {"workshop", "disk", "provision", "guest"}),
        ("requirements.txt", {"workshop", "disk", "provision", "guest"}),
        ("workshop/checks.py", {"workshop", "disk", "provision", "guest"}),
        ("guest/usr/lib/hyrax-vm/setup.d/workshop.sh", {"guest"}),
        ("requirements.in", set()),
    ],
)
def test_an_edit_makes_again_what_has_it_and_nothing_of_other_images(
    checkout: Path, name: str, moved: set[str]
) -> None:
    before, others = keys(MINE, checkout), keys(LOCAL, checkout)
    path = checkout / "provision/workshop" / name
    path.write_text(path.read_text() + "\n")
    after = keys(MINE, checkout)
    assert {key for key, value in before.items() if after[key] != value} == moved
    assert keys(LOCAL, checkout) == others
    assert others["workshop"] == ""


def test_another_source_for_r_makes_the_workshop_again() -> None:
    assert MINE.addition is not None
    clients = MINE.addition.clients
    other = clients.r.model_copy(update={"packages": {"r-cran-ncdf4": "0" * 64}})
    changed = {"clients": clients.model_copy(update={"r": other})}
    recipe = MINE.model_copy(update={"addition": MINE.addition.model_copy(update=changed)})
    before, after = keys(MINE, ROOT), keys(recipe, ROOT)
    moved = {key for key, value in before.items() if after[key] != value}
    assert moved == {"workshop", "disk", "provision", "guest"}


def test_it_shares_system_and_server_with_the_image_for_local_data() -> None:
    mine, local = keys(MINE, ROOT), keys(LOCAL, ROOT)
    assert (mine["rootfs"], mine["server"]) == (local["rootfs"], local["server"])
    assert mine["disk"] != local["disk"]


def test_its_files_are_within_450_mb_and_its_machine_has_memory_for_a_room() -> None:
    assert MINE.budget["vmx"] == 450
    assert MINE.budget["server"] == LOCAL.budget["server"]
    assert (MINE.machine.memory_mib, LOCAL.machine.memory_mib) == (4096, 1024)


def test_all_sources_are_there_and_no_other_is() -> None:
    locks = {stage.WHEELS, stage.CLIENTS, "requirements.in", "clients.in"}
    known = {*locks, "guest", stage.PACKAGE, *content.SOURCES}
    assert {path.name for path in stage.folder(MINE).iterdir()} == known


def test_the_wheels_are_those_that_the_tests_run() -> None:
    """Versions that both lists have are the same, but for what only the notebooks need."""

    def versions(path: Path) -> dict[str, str]:
        lines = [line.split(" ")[0] for line in path.read_text().splitlines() if "==" in line]
        return dict(line.split("==") for line in lines)

    mine = versions(stage.folder(MINE) / "requirements.txt")
    ours = versions(ROOT / "requirements.txt")
    assert {"xarray", "netcdf4", "numpy", "pydap", "matplotlib", "ipykernel"} <= mine.keys()
    assert {name for name in mine.keys() & ours.keys() if mine[name] != ours[name]} == set()
    theirs = versions(stage.folder(MINE) / stage.CLIENTS)
    assert {"xarray", "netcdf4", "tzdata"} <= theirs.keys()
    assert theirs.items() <= mine.items()


def test_only_this_image_is_left_out_of_the_usual_tests() -> None:
    assert [name for name, row in TABLE.image.items() if not row.tested] == ["workshop"]
