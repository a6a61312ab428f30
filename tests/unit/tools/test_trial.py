"""What `./inv try` puts into a machine; a folder and a local shell stand for the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.provision.guest_tar import UNITS, text_file
from hyraxvm.stages.server import stage as server
from hyraxvm.tools import trial

RECIPE = images.recipe(images.load(), "nfs", "dapdir")
FILES = trial.guest_files(RECIPE, server.preview(RECIPE))
LANDING_PAGE = "usr/lib/hyrax-vm/landing"


class Machine:
    """A folder in which scripts run; systemctl only notes its arguments."""

    def __init__(self, folder: Path) -> None:
        self.root, self.log = folder / "root", folder / "systemctl.log"
        bin = folder / "bin"
        for made in (self.root, bin):
            made.mkdir()
        (bin / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{self.log}\n')
        (bin / "systemctl").chmod(0o755)
        self.path = f"{bin}:{os.environ['PATH']}"
        self.scripts = 0

    def shell(self, script: str, given: bytes) -> str:
        self.scripts += 1
        done = subprocess.run(
            ["sh", "-c", script], input=given, capture_output=True, env={"PATH": self.path}
        )
        if done.returncode:
            raise Failure(done.stderr.decode())
        return done.stdout.decode()

    def put(self, files: dict[str, trial.GuestFile]) -> list[str]:
        return trial.put(self.shell, files, str(self.root))

    def told(self) -> list[str]:
        """Return what systemctl was asked since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.put(FILES)
    machine.told()
    return machine


def test_every_file_of_the_checkout_is_put_in_once(machine: Machine) -> None:
    for name, file in FILES.items():
        path = machine.root / name
        if path.is_symlink():
            assert str(path.readlink()).encode() == file.content
        else:
            assert path.read_bytes() == file.content
        assert path.lstat().st_mode == file.mode
    assert len(FILES) > 80
    before = machine.scripts
    assert machine.put(FILES) == ["the machine has the guest files of this checkout"]
    assert machine.scripts == before + 1
    assert machine.told() == []


def test_a_changed_script_restarts_the_units_that_run_it(machine: Machine) -> None:
    (machine.root / LANDING_PAGE).write_text("edited in the machine")
    assert machine.put(FILES) == [
        f"put in: /{LANDING_PAGE}",
        "restarted, if they ran: hyrax-banner.service, hyrax-ready.service",
    ]
    assert (machine.root / LANDING_PAGE).read_bytes() == FILES[LANDING_PAGE].content
    assert machine.told() == ["try-restart hyrax-banner.service hyrax-ready.service"]


def test_a_changed_unit_is_read_again_and_restarted(machine: Machine) -> None:
    name = f"{UNITS}/hyrax-banner.timer"
    assert machine.put({**FILES, name: text_file("[Timer]\nOnBootSec=7\n")}) == [
        f"put in: /{name}",
        "restarted, if they ran: hyrax-banner.timer",
    ]
    assert machine.told() == ["daemon-reload", "try-restart hyrax-banner.timer"]


def test_the_services_of_a_changed_drop_in_are_restarted(machine: Machine) -> None:
    name, link = "usr/lib/hyrax-vm/sandbox.conf", f"{UNITS}/hyrax-usage.service.d/sandbox.conf"
    restarted = machine.put({**FILES, name: text_file("[Service]\n")})[-1]
    assert {"hyrax-banner.service,", "hyrax-health.service,"} < {*restarted.split()}
    assert machine.told()[0] == "daemon-reload"
    (machine.root / link).unlink()
    (machine.root / link).symlink_to("elsewhere")
    assert machine.put(FILES)[:2] == [f"put in: /{name}", f"put in: /{link}"]
    assert (machine.root / link).resolve() == machine.root / name


def test_a_mode_is_a_change_too(machine: Machine) -> None:
    (machine.root / "usr/bin/hyrax-data").chmod(0o644)
    assert machine.put(FILES) == ["put in: /usr/bin/hyrax-data"]
    assert os.access(machine.root / "usr/bin/hyrax-data", os.X_OK)


def test_what_the_machine_cannot_show_is_said(machine: Machine) -> None:
    changed = {**FILES, trial.MASKED: text_file("rpcbind.socket\n")}
    assert machine.put(changed)[-1].endswith("to see: --fresh")


def test_each_base_and_architecture_has_a_machine_of_its_own(tmp_path: Path) -> None:
    table, workspace = images.load(), Workspace(tmp_path, tmp_path, StageCache(tmp_path))
    systems = [("debian-12", "amd64"), ("debian-13", "amd64"), ("debian-13", "arm64")]
    found = {
        trial.Trial.of(workspace, images.recipe(table, "nfs", base=base, arch=arch)).folder.name
        for base, arch in systems
    }
    assert found == {"nfs-debian12-amd64", "nfs-debian13-amd64", "nfs-debian13-arm64"}
