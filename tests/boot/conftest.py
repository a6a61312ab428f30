"""`pytest tests/boot --artifact FILE.zip`: boots what is inside the file and exercises it.

Each artifact is booted as two machines: `first` has the devices that its descriptor declares,
`second` is another copy, with UEFI and a larger disk.  A module's tests are for the first one
unless its `MACHINES` says otherwise.  With `-n 2 --dist loadgroup` (pytest-xdist) the machines run
side by side, each in a process of its own, and its tests in the order of their files.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from capabilities import SERVERS, Capabilities
from data import make_data
from fileserver import KINDS, FileServer
from guest import Artifact, Guest

from hyraxvm.errors import Failure
from hyraxvm.machine import Machine
from hyraxvm.paths import REPORTS
from hyraxvm.qemu import MachineSpec
from hyraxvm.samples import make_samples
from hyraxvm.unpack import unpack, virtual_size

EXTRA = 4 * 2**30  # bytes by which the second copy's disk is larger
_guests: list[Guest] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("boot tests")
    group.addoption("--artifact", action="append", default=[], metavar="FILE.zip", type=Path)
    group.addoption("--reports", metavar="DIR", type=Path, help=f"default: {REPORTS}/NAME")


def pytest_configure(config: pytest.Config) -> None:
    artifacts = config.getoption("--artifact")
    if not artifacts:
        raise pytest.UsageError("no artifact; name at least one: --artifact FILE.zip")
    for artifact in artifacts:
        for needed in (artifact, _manifest(artifact)):
            if not needed.is_file():
                raise pytest.UsageError(f"{needed}: no such file")
    config.addinivalue_line(
        "markers", "access(kind, ...): only for artifacts that reach data in one of these ways"
    )
    # As Ctrl-C does: machines end, journals are kept, scratch files go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    machines = [
        # A group stays in one process: no machine is booted twice.
        pytest.param(path, machine, marks=pytest.mark.xdist_group(f"{path.stem}-{machine}"))
        for path in metafunc.config.getoption("--artifact")
        for machine in getattr(metafunc.module, "MACHINES", ("first",))
    ]
    metafunc.parametrize(
        ("artifact", "machine"),
        machines,
        ids=[f"{param.values[0].stem}-{param.values[1]}" for param in machines],
        indirect=True,
        scope="session",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = []
    for item in items:
        assert isinstance(item, pytest.Function)
        access = _read_manifest(item.callspec.params["artifact"])["release"]["ACCESS"]
        if any(access not in mark.args for mark in item.iter_markers("access")):
            others.append(item)
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    if report.failed:
        for guest in _guests:
            report.sections.append((f"console of {guest.machine.logs.name}", guest.console.tail()))
    return report


def _manifest(artifact: Path) -> Path:
    return artifact.with_name(f"{artifact.stem}.manifest.json")


def _read_manifest(artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_manifest(artifact).read_text())
    return found


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def artifact(request: pytest.FixtureRequest) -> Iterator[Artifact]:
    path: Path = request.param
    reports = request.config.getoption("--reports") or REPORTS / path.stem
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-artifact-") as folder:
        try:
            vmx, inside = unpack(path, Path(folder))
        except Failure as failure:
            pytest.exit(str(failure), returncode=2)
        size = virtual_size(inside / vmx.disks[0].file, "vmdk")
        manifest = _read_manifest(path)
        yield Artifact(path, vmx, inside, manifest, size, reports.resolve())


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> str:
    """Which machine the tests are for: "first" or "second"."""
    return str(request.param)


@pytest.fixture(scope="session")
def guest(artifact: Artifact, machine: str) -> Iterator[Guest]:
    """The artifact, booted as `machine`; its service answers."""
    spec, size = MachineSpec.from_vmx(artifact.vmx, artifact.folder), artifact.disk_bytes
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
def files(artifact: Artifact, scratch: Path) -> Iterator[FileServer]:
    """Where the data of `data.CASES` are: a running file server, or the guest's own disk."""
    export = scratch / "export"
    export.mkdir()
    make_data(export)
    # mkdtemp's 0700 would hide the export from the guest's server.
    scratch.chmod(0o711)
    server = KINDS[artifact.manifest["release"]["ACCESS"]](export, scratch / "files")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def added(guest: Guest, files: FileServer) -> str:
    """What `hyrax-data` says when the data set `ocean` is added on the console."""
    return files.add(guest, "ocean")


@pytest.fixture(scope="session")
def data_set(added: str) -> str:
    """The name of a data set that is there."""
    return "ocean"
