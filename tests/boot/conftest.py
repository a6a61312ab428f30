"""`pytest tests/boot --artifact FILE` boots the disk in the file and exercises the machine.

The VMX zip is booted as the machine `first`, which has the devices that its descriptor declares.
There are more copies: `second` has a larger disk, `wires` is booted several times with other
network cards and settings, `six` has a network of IPv6 only.  The other formats hold the same disk,
compared when they are made: their machines, one of them with UEFI, are tested for what a format can
change.  For the image of one access kind all machines are booted, for the others the first one of
each format: what the rest test is the same in all images.  A module's tests are for `first` unless
its mark `machines` says otherwise; `restarts` is `second` where there is one.

With `-n 2 --dist loadgroup` (pytest-xdist) two machines run side by side, each in its own process.
The tests of each run in the order that `ORDER` declares.
"""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import disk_images, format_of
from hyraxvm.formats.opening import manifest_path, open_artifact
from hyraxvm.stages.provision.samples import make_samples
from hyraxvm.vm.qemu import choose_accelerator
from tests.boot.capabilities import Capabilities, load
from tests.boot.data import make_data
from tests.boot.fileserver import KINDS, FileServer
from tests.boot.guest import Artifact, Guest
from tests.boot.kept import attached
from tests.boot.machines import (
    EXTRA,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
    ready,
)

# The modules in the order in which a machine runs them.  Later modules find what earlier ones have
# changed: the password, the data set.
ORDER = (
    "test_smoke",
    "test_console",
    "test_claims",
    "test_landing",
    "test_front_door",
    "test_samples",
    "test_data_sets",
    "test_setup",
    "test_workshop",
    "test_smb",
    "test_second_copy",
    "test_restarts",
    "test_end",
    "test_wires",
    "test_ipv6",
    "test_power",
)
DEADLINE = 1200  # seconds for one test, with the boots in it

__all__ = ["pytest_runtest_makereport", "pytest_runtest_protocol"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("boot tests")
    group.addoption("--smoke", action="store_true", help="one machine, and only its smoke tests")
    group.addoption("--artifact", action="append", default=[], metavar="FILE", type=Path)
    group.addoption("--kept", metavar="DIR", type=Path, help="use the machine that runs there")
    group.addoption("--cuts", metavar="N", type=int, default=0, help="test N power cuts too")
    group.addoption("--reports", metavar="DIR", type=Path, help="default: in artifacts/reports/")


def pytest_configure(config: pytest.Config) -> None:
    artifacts = config.getoption("--artifact")
    if not artifacts:
        raise pytest.UsageError("no artifact; name at least one: --artifact FILE")
    for artifact in artifacts:
        for needed in (artifact, manifest_path(artifact)):
            if not needed.is_file():
                raise pytest.UsageError(f"{needed}: no such file")
    for mark in (
        "access(kind, ...): only for artifacts that reach data in one of these ways",
        "images(name, ...): only for artifacts of these images",
        "machines(role, ...): only for these: first, second, wires, six, restarts, brief, smoke",
    ):
        config.addinivalue_line("markers", mark)
    # SIGTERM acts like Ctrl-C: machines end, journals are kept, scratch files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    machines = [
        pytest.param(
            path,
            machine,
            id=f"{path.name}@{machine}",
            marks=pytest.mark.xdist_group(f"{path.name}@{machine}"),
        )
        for path in metafunc.config.getoption("--artifact")
        for machine in _machines(path, metafunc.config)
    ]
    metafunc.parametrize(("artifact", "machine"), machines, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    others = [item for item in items if not _is_meant(item, config)]
    items[:] = [item for item in items if item not in others]
    items.sort(key=_place)
    for item in items:
        item.add_marker(pytest.mark.timeout(DEADLINE))
    config.hook.pytest_deselected(items=others)


def _place(item: pytest.Item) -> int:
    """Return the place of a test's module in `ORDER`; within a module the order stays."""
    return ORDER.index(item.path.stem)


def _machines(artifact: Path, config: pytest.Config) -> Sequence[str]:
    if config.getoption("--kept"):
        return ("first",)
    chosen = format_of(artifact)
    machines = ("first", "second", "wires", "six") if chosen.whole_contract else chosen.machines
    # What the others test is the same in all images; the one for NFS needs no password.
    machines = machines if _access(artifact) == "nfs" else machines[:1]
    return machines[:1] if config.getoption("--smoke") else machines


def _is_meant(item: pytest.Item, config: pytest.Config) -> bool:
    """Return whether a test is for its machine and for the access kind of its artifact."""
    assert isinstance(item, pytest.Function)
    machine, artifact = item.callspec.params["machine"], item.callspec.params["artifact"]
    assert isinstance(machine, str)
    assert isinstance(artifact, Path)
    if item.path.stem == "test_power" and not config.getoption("--cuts"):
        return False
    release = _read_manifest(artifact)["release"]
    wanted = item.get_closest_marker("machines")
    return not _roles(artifact, machine, config).isdisjoint(
        wanted.args if wanted else ("first",)
    ) and all(
        release[key] in mark.args
        for key, name in (("ACCESS", "access"), ("IMAGE", "images"))
        for mark in item.iter_markers(name)
    )


def _roles(artifact: Path, machine: str, config: pytest.Config) -> set[str]:
    """Return what a machine of an artifact is tested as."""
    if config.getoption("--smoke"):
        return {"smoke"}
    if not config.getoption("--kept") and not format_of(artifact).whole_contract:
        return {"brief"}
    # The machine that has less to do.
    restarted = "second" if "second" in _machines(artifact, config) else "first"
    return {machine, "restarts"} if machine == restarted else {machine}


def _access(artifact: Path) -> str:
    return str(_read_manifest(artifact)["release"]["ACCESS"])


def _read_manifest(artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(manifest_path(artifact).read_text())
    return found


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def artifact(request: pytest.FixtureRequest) -> Iterator[Artifact]:
    path: Path = request.param
    reports = request.config.getoption("--reports") or Workspace.here().reports / path.name
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-artifact-") as folder:
        opened = open_artifact(path, Path(folder))
        drive = opened.spec.drives[0]
        size = disk_images.size(drive.path, drive.format)
        manifest = _read_manifest(path)
        yield Artifact(path, opened.specs, opened.folder, manifest, size, reports.resolve())


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> str:
    """Return the name of the machine that the tests are for."""
    return str(request.param)


@pytest.fixture(scope="session")
def guest(artifact: Artifact, machine: str, pytestconfig: pytest.Config) -> Iterator[Guest]:
    """Boot the artifact as `machine`, and wait until its service answers."""
    if folder := pytestconfig.getoption("--kept"):
        with attached(artifact.spec, folder, artifact.reports / machine) as guest:
            guest.wait_ready()
            yield guest
        return
    spec, size = artifact.specs.get(machine) or artifact.spec, artifact.disk_bytes
    whole = format_of(artifact.path).whole_contract
    if machine == "second":
        size += EXTRA
    if whole and choose_accelerator(spec.arch).name == "tcg":
        # Two emulated CPUs cost a fifth more time; the other formats have those of the descriptor.
        spec = replace(spec, cpus=1)
    with ready(spec, size, machine, artifact.reports / machine) as guest:
        yield guest


@pytest.fixture(scope="session")
def server(artifact: Artifact) -> Capabilities:
    """Return what the data server inside the artifact claims."""
    return load(artifact.manifest["release"]["SERVER"])


@pytest.fixture(scope="session")
def samples(scratch: Path) -> Path:
    """Make the samples on the host; return their folder."""
    (scratch / "samples").mkdir()
    make_samples(scratch / "samples")
    return scratch / "samples"


@pytest.fixture(scope="session")
def files(artifact: Artifact, scratch: Path) -> Iterator[FileServer]:
    """Start the file server with the data of `data.CASES`; for local data, the guest's disk."""
    export = scratch / "export"
    export.mkdir()
    make_data(export)
    # The server may run as another user; mkdtemp's 0700 would hide the export from it.
    scratch.chmod(0o711)
    server = KINDS[artifact.manifest["release"]["ACCESS"]](export, scratch / "files")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def added(guest: Guest, files: FileServer) -> str:
    """Add the data set `ocean` on the console; return what `hyrax-data` says."""
    return files.add(guest, "ocean")


@pytest.fixture(scope="session")
def data_set(added: str) -> str:
    """Return the name of a data set that has been added."""
    return "ocean"
