"""The machine and its file server, each restarted without the other."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyraxvm.vm.qemu import HTTP
from tests.boot.clients import netcdf4
from tests.boot.data import CASES, Case, assert_same, local
from tests.boot.fileserver import KINDS, FileServer
from tests.boot.guest import Artifact, Guest
from tests.boot.machines import RecordProperty
from tests.boot.watching import BACK, GAP, Watch, until

pytestmark = [pytest.mark.machines("restarts"), pytest.mark.access("nfs", "smb")]
SAMPLE = Case("sst.nc", "sst")


def assert_samples(guest: Guest, samples: Path) -> None:
    assert_same(netcdf4(guest.url("sample/sst.nc"), "sst", None), local(samples, SAMPLE))


def assert_data(guest: Guest, data_set: str, files: FileServer) -> None:
    for case in (CASES[0], CASES[5]):
        url = guest.url(f"data/{data_set}/{case.file}")
        assert_same(netcdf4(url, case.variable, case.subset), local(files.export, case))


def wait_until_shown(guest: Guest, data_set: str, banner: str, page: str) -> float:
    """Wait until the banner and the landing page show that state; return the seconds."""
    row = re.compile(rf">{data_set}</a></th>\s*<td><span class=\"\w+\">{page}")
    started = time.monotonic()
    while f"{data_set} ({banner}" not in (shown := guest.check("cat /run/hyrax/issue")) or (
        not row.search(shown := guest.get("/").text)
    ):
        assert time.monotonic() - started < 120, shown
        time.sleep(0.5)
    return round(time.monotonic() - started, 1)


@pytest.fixture(scope="module")
def other(guest: Guest, artifact: Artifact, samples: Path, scratch: Path) -> Iterator[FileServer]:
    """Start another file server; its data set is `other`."""
    scratch.chmod(0o711)
    server = KINDS[artifact.manifest["release"]["ACCESS"]](samples, scratch / "other")
    try:
        server.start()
        server.add(guest, "other")
        yield server
        guest.check("hyrax-data remove other")
    finally:
        server.stop()


def test_a_file_server_that_hangs_is_detached_and_comes_back(
    guest: Guest,
    data_set: str,
    files: FileServer,
    other: FileServer,
    samples: Path,
    record_property: RecordProperty,
) -> None:
    assert_data(guest, data_set, files)
    path = f"/opendap/data/{data_set}/classic.nc.dds"
    until(guest, "/opendap/data/other/sst.nc.dds", 200, 60)
    with watched(guest, record_property):
        files.freeze()
        try:
            # A reader of the hung data set waits; the other readers must not.
            hung = http.client.HTTPConnection("127.0.0.1", guest.machine.ports[HTTP], timeout=5)
            hung.request("GET", f"/opendap/data/{data_set}/modern.nc.dods?temperature")
            started = time.monotonic()
            assert_samples(guest, samples)
            assert guest.get("/opendap/", timeout=10).status == 200
            record_property(
                "seconds to read a sample, file server hung", round(time.monotonic() - started, 1)
            )
            hung.close()
            away = until(guest, path, 404, 120)
            took = wait_until_shown(guest, data_set, "away, 10.0.2.2 does not answer", "away")
            guest.wait_for(f"test -e /run/hyrax/away/{data_set}", 60)
            status, said = guest.run(f"hyrax-data status {data_set}", 60)
            assert status == 1
            assert said.splitlines()[1].split()[1] == "away"
        finally:
            files.thaw()
        back = until(guest, path, 200, 60)
    record_property("seconds until a hung file server is detached", round(away, 1))
    record_property("seconds until banner and page show it, file server hung", took)
    record_property("seconds until it is back, once it answers", round(back, 1))
    assert back < BACK


# The watchdog finds it in the same way with every protocol, so NFS is enough.
@pytest.mark.access("nfs")
def test_a_file_server_that_hangs_while_nobody_reads_is_detached_and_comes_back(
    guest: Guest,
    data_set: str,
    files: FileServer,
    other: FileServer,
    record_property: RecordProperty,
) -> None:
    path = f"/opendap/data/{data_set}/classic.nc.dds"
    until(guest, path, 200, 60)
    until(guest, "/opendap/data/other/sst.nc.dds", 200, 60)
    # This is the state after five minutes without a reader.
    guest.check(f"sudo -n systemctl stop srv-hyrax-data-{data_set}.mount")
    with watched(guest, record_property):
        files.freeze()
        try:
            away = until(guest, path, 404, 120)
            guest.wait_for(f"test -e /run/hyrax/away/{data_set}", 60)
        finally:
            files.thaw()
        back = until(guest, path, 200, 60)
    record_property("seconds until a hung file server is detached", round(away, 1))
    record_property("seconds until it is back, once it answers", round(back, 1))
    assert back < BACK


@contextmanager
def watched(guest: Guest, record_property: RecordProperty) -> Iterator[None]:
    """Read a sample and the other file server's data all the time; no gap may be too long."""
    with (
        Watch(guest, "/opendap/sample/sst.nc.dds") as sample,
        Watch(guest, "/opendap/data/other/sst.nc.dds") as beside,
    ):
        yield
    record_property("longest gap of a sample meanwhile", round(sample.gap, 1))
    record_property("longest gap of another file server's data", round(beside.gap, 1))
    # On a busy machine one answer takes seconds.
    assert min(sample.answers, beside.answers) > 2
    assert max(sample.gap, beside.gap) < GAP


def test_samples_are_served_while_a_file_server_is_off(
    guest: Guest, data_set: str, files: FileServer, samples: Path, record_property: RecordProperty
) -> None:
    assert_data(guest, data_set, files)
    try:
        files.stop()
        assert_samples(guest, samples)

        took = guest.reboot()
        record_property("seconds to reboot, file server away", round(took, 1))
        assert_samples(guest, samples)
        assert guest.get("/opendap/", timeout=10).status == 200
        answer = guest.get(f"/opendap/data/{data_set}/classic.nc.dds", timeout=60)
        assert answer.status >= 400
        status, said = guest.run(f"hyrax-data status {data_set}", 60)
        assert status == 1
        assert "away" in said
        wait_until_shown(guest, data_set, "away", "away")
    finally:
        files.start()

    started = time.monotonic()
    path = f"/opendap/data/{data_set}/classic.nc.dds"
    while guest.get(path).status != 200 and time.monotonic() - started < 90:
        time.sleep(1)
    record_property("seconds until the data are back", round(time.monotonic() - started, 1))
    assert_data(guest, data_set, files)
    took = wait_until_shown(guest, data_set, "mounted", "available")
    record_property("seconds until banner and page show that they are", took)
    guest.check(f"hyrax-data test {data_set}")
    guest.check("sudo -n true")
    assert guest.check("systemctl is-system-running --wait", 120) == "running"
