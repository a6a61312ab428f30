"""Whole servers in virtual machines: stand-ins that go through the stages of every OCI image.

`pytest tests/servers` takes minutes; `./inv test --servers` runs it and writes its reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.provision.samples import make_samples
from hyraxvm.vm.qemu import Drive, MachineSpec
from tests.boot.guest import Guest
from tests.boot.machines import booted, pytest_runtest_makereport, pytest_runtest_protocol
from tests.boot.nfs import NfsServer
from tests.servers.build import FILES, STANDIN, Built, build, recipe
from tests.servers.images import make_files, make_standin

__all__ = ["pytest_runtest_makereport", "pytest_runtest_protocol"]
DEADLINE = 1200  # seconds for one test, with the boots in it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(DEADLINE))


def _boot(made: Built, scratch: Path) -> Iterator[Guest]:
    machine = made.recipe.machine
    devices = machine.devices["vmx"]
    drive = Drive(devices.disk_controller, made.master, "qcow2")
    spec = MachineSpec((drive,), (devices.nic,), machine.memory_mib, machine.cpus)
    logs = Workspace.here().reports / "servers" / made.recipe.server_name
    with booted(spec.with_overlays(scratch), scratch, logs) as guest:
        guest.wait_ready()
        yield guest


def _say(line: str) -> None:
    print(line)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("standin")
    return build(recipe("standin", make_standin(), **STANDIN), work, _say)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("files")
    return build(recipe("files", make_files(), **FILES), work, _say)


@pytest.fixture(scope="module")
def hyrax(standin: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Boot the stand-in."""
    yield from _boot(standin, tmp_path_factory.mktemp("vm"))


@pytest.fixture(scope="module")
def plain(files: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Boot the plain file server."""
    yield from _boot(files, tmp_path_factory.mktemp("vm"))


@pytest.fixture
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NfsServer, NfsServer]]:
    """Start two file servers, each with one file; they end whatever a test does to them."""
    servers = []
    try:
        for name in ("one", "two"):
            export = tmp_path_factory.mktemp(name)
            for path in (export, *list(export.parents)[:2]):
                path.chmod(0o755)
            (export / f"{name}.nc").write_bytes(name.encode() * 1000)
            servers.append(NfsServer(export, tmp_path_factory.mktemp(f"{name}-ganesha")))
            servers[-1].start()
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.stop()
