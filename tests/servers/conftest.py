"""Whole servers in virtual machines: stand-ins that take the way of every OCI image.

`pytest tests/servers` needs minutes; `./inv test --servers` runs it with its reports.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "servers"), str(TESTS / "boot"), str(TESTS / "unit")]

from build import FILES, STANDIN, Built, build, recipe
from guest import Guest
from images import make_files, make_standin
from nfs import NfsServer

from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.provision.samples import make_samples
from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import Drive, MachineSpec

_guests: list[Guest] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    if report.failed:
        for guest in _guests:
            report.sections.append((f"console of {guest.machine.logs.name}", guest.console.tail()))
    return report


def _boot(made: Built, scratch: Path) -> Iterator[Guest]:
    machine = made.recipe.machine
    drive = Drive(machine.disk_controller, made.master, "qcow2")
    spec = MachineSpec((drive,), (machine.nic,), machine.memory_mib, machine.cpus)
    logs = Workspace.here().reports / "servers" / made.recipe.server_name
    with VirtualMachine(spec.over(scratch), scratch, logs) as booted:
        guest = Guest(booted)
        _guests.append(guest)
        try:
            guest.wait_ready()
            yield guest
        finally:
            guest.keep_journal()
            _guests.remove(guest)


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
    """The stand-in, booted."""
    yield from _boot(standin, tmp_path_factory.mktemp("vm"))


@pytest.fixture(scope="module")
def plain(files: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The plain file server, booted."""
    yield from _boot(files, tmp_path_factory.mktemp("vm"))


@pytest.fixture
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NfsServer, NfsServer]]:
    """Two file servers, each with one file; whatever a test does to them, they end."""
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
