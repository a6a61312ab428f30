"""`pytest tests/boot --artifact FILE`: boots what is inside the file and exercises it.

Each artifact is booted as two machines: `first` has the devices that its descriptor declares,
`second` is another copy, with UEFI and a larger disk.  A module's tests are for the first one
unless its `MACHINES` says otherwise.  With `-n 2` (pytest-xdist) the machines run side by side,
each in a process of its own, and its tests in the order of their files.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from capabilities import SERVERS, Capabilities
from data import make_data
from guest import Artifact, Guest
from nfs import NfsServer
from xdist.scheduler import LoadScopeScheduling

from hyraxvm import disks
from hyraxvm.errors import Failure
from hyraxvm.machine import Machine
from hyraxvm.paths import REPORTS
from hyraxvm.qemu import HOST
from hyraxvm.samples import make_samples
from hyraxvm.unpack import manifest_path, open_artifact

EXTRA = 4 * 2**30  # bytes by which the second copy's disk is larger
_guests: list[Guest] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("boot tests")
    group.addoption("--artifact", action="append", default=[], metavar="FILE", type=Path)
    group.addoption("--reports", metavar="DIR", type=Path, help=f"default: {REPORTS}/NAME")


def pytest_configure(config: pytest.Config) -> None:
    artifacts = config.getoption("--artifact")
    if not artifacts:
        raise pytest.UsageError("no artifact; name at least one: --artifact FILE")
    for artifact in artifacts:
        for needed in (artifact, manifest_path(artifact)):
            if not needed.is_file():
                raise pytest.UsageError(f"{needed}: no such file")
    # As Ctrl-C does: machines end, journals are kept, scratch files go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    machines = [
        pytest.param(path, machine, id=f"{path.stem}@{machine}")
        for path in metafunc.config.getoption("--artifact")
        for machine in getattr(metafunc.module, "MACHINES", ("first",))
    ]
    metafunc.parametrize(("artifact", "machine"), machines, indirect=True, scope="session")


class MachineScheduling(LoadScopeScheduling):
    """pytest-xdist's way to keep tests in one process: here those of one machine."""

    def _split_scope(self, nodeid: str) -> str:
        return re.findall(r"\[(\S+?@\w+)", nodeid)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> MachineScheduling:
    return MachineScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    if report.failed:
        for guest in _guests:
            report.sections.append((f"console of {guest.machine.logs.name}", guest.console.tail()))
    return report


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def artifact(request: pytest.FixtureRequest) -> Iterator[Artifact]:
    path: Path = request.param
    reports = request.config.getoption("--reports") or REPORTS / path.name
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-artifact-") as folder:
        try:
            opened = open_artifact(path, Path(folder))
        except Failure as failure:
            pytest.exit(str(failure), returncode=2)
        spec = next(iter(opened.specs.values()))
        size = disks.size(spec.drives[0].path, spec.drives[0].format)
        manifest = json.loads(manifest_path(path).read_text())
        yield Artifact(path, spec, opened.folder, manifest, size, reports.resolve())


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> str:
    """Which machine the tests are for: "first" or "second"."""
    return str(request.param)


@pytest.fixture(scope="session")
def guest(artifact: Artifact, machine: str) -> Iterator[Guest]:
    """The artifact, booted as `machine`; its service answers."""
    spec, size = artifact.spec, artifact.disk_bytes
    if machine == "second":
        # Debian's OVMF, unlike VMware's firmware, has no driver for PVSCSI.
        drives = tuple(replace(drive, controller="virtio") for drive in spec.drives)
        spec, size = replace(spec, firmware="efi", drives=drives), size + EXTRA
    logs = artifact.reports / machine
    # Of an earlier run.
    shutil.rmtree(logs, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=f"hyrax-vm-{machine}-") as folder,
        Machine(spec.over(Path(folder), size), Path(folder), logs) as running,
    ):
        guest = Guest(running)
        _guests.append(guest)
        try:
            guest.wait_ready()
            yield guest
        finally:
            guest.keep_journal()
            _guests.remove(guest)


@pytest.fixture(scope="session")
def server(artifact: Artifact) -> Capabilities:
    """What the data server inside the artifact can do."""
    return SERVERS[artifact.manifest["release"]["SERVER"]]


@pytest.fixture(scope="session")
def samples(scratch: Path) -> Path:
    """The samples, made anew on the host."""
    (scratch / "samples").mkdir()
    make_samples(scratch / "samples")
    return scratch / "samples"


@pytest.fixture(scope="session")
def nfs(scratch: Path) -> Iterator[NfsServer]:
    """A running file server with the data of `data.CASES`."""
    export = scratch / "export"
    export.mkdir()
    make_data(export)
    # mkdtemp's 0700 would hide the export from the guest's server.
    scratch.chmod(0o711)
    server = NfsServer(export, scratch / "ganesha")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def added(guest: Guest, nfs: NfsServer) -> str:
    """What `hyrax-data add` says when the data set `ocean` is added on the console."""
    return guest.check(f"hyrax-data add nfs://{HOST}:{nfs.port}/data --as ocean", 120)


@pytest.fixture(scope="session")
def data_set(added: str) -> str:
    """The name of a data set that is there."""
    return "ocean"
