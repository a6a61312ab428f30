"""Data on a real file server, or on the guest's own disk, read with real clients."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.vm.machine import free_port
from hyraxvm.vm.qemu import HOST
from tests.boot.clients import CLIENTS, DIGITS, netcdf4, readings
from tests.boot.data import CASES, Case, assert_same, local, make_flow
from tests.boot.fileserver import FileServer
from tests.boot.guest import Artifact, Guest
from tests.boot.machines import RecordProperty
from tests.boot.nfs import NfsServer
from tests.boot.smb import SmbServer
from tests.boot.watching import until

# Seconds for which the guest's mounts cache the attributes of a directory (nfs(5), actimeo).
ATTRIBUTE_CACHE = 5.0


@pytest.mark.access("nfs", "smb")
def test_add_says_where_the_data_are_served(added: str) -> None:
    assert added.splitlines()[-1] == "http://10.0.2.15:8080/opendap/data/ocean/"


@pytest.mark.parametrize(("client", "case"), readings(CASES), ids=str)
def test_values(guest: Guest, data_set: str, files: FileServer, client: str, case: Case) -> None:
    url = guest.url(f"data/{data_set}/{case.file}")
    found = CLIENTS[client](url, case.variable, case.subset)
    assert_same(found, local(files.export, case), DIGITS.get(client, 0))


def test_list_status_and_test_show_the_data_set(
    guest: Guest, data_set: str, files: FileServer
) -> None:
    source = files.source(data_set)
    rows = [line.split() for line in guest.check("hyrax-data list").splitlines()]
    assert [data_set, source] in rows
    rows = [line.split() for line in guest.check("hyrax-data status").splitlines()]
    (row,) = [row for row in rows if row[0] == data_set]
    assert row[1] in files.healthy
    assert row[-1] == source
    said = guest.check(f"hyrax-data test {data_set}")
    assert f"/opendap/data/{data_set}/" in said
    assert "Dataset {" in said


def test_the_banner_names_the_data_set(guest: Guest, data_set: str) -> None:
    deadline = time.monotonic() + 60
    while data_set not in (shown := guest.check("cat /run/hyrax/issue")):
        assert time.monotonic() < deadline, shown
        time.sleep(1)


@pytest.mark.access("nfs", "smb")
def test_the_guest_cannot_write_to_a_writable_file_server(
    guest: Guest, data_set: str, files: FileServer
) -> None:
    status, said = guest.run(f"sudo -n touch /srv/hyrax/data/{data_set}/written")
    assert status == 1
    assert "Read-only file system" in said
    assert not (files.export / "written").exists()
    # The control: through a writable mount the same write succeeds.
    guest.check("sudo -n mkdir -p /run/control")
    mount = f"mount {files.writable} /run/control"
    guest.check(f"sudo -n {mount} && sudo -n touch /run/control/written")
    guest.check("sudo -n umount /run/control")
    assert (files.export / "written").exists()
    (files.export / "written").unlink()


@pytest.mark.access("nfs", "smb")
def test_a_file_added_on_the_file_server_appears(
    guest: Guest, data_set: str, files: FileServer, record_property: RecordProperty
) -> None:
    path = f"/opendap/data/{data_set}/new.nc.dds"
    assert guest.get(path).status == 404
    make_flow(files.export / "new.nc", 7)
    record_property(
        "seconds until a new file appears",
        round(until(guest, path, 200, ATTRIBUTE_CACHE + 30), 1),
    )
    case = Case("new.nc", "flow")
    assert_same(
        netcdf4(guest.url(f"data/{data_set}/new.nc"), "flow", None), local(files.export, case)
    )
    # The clients of newer kernels keep a listing as long as a file's attributes.
    end = time.monotonic() + ATTRIBUTE_CACHE + 30
    while "new.nc" not in guest.get(f"/opendap/data/{data_set}/").text:
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.fixture(scope="module")
def state(guest: Guest, data_set: str) -> str:
    """Return the state in which each command that is refused leaves the guest."""
    return _state(guest)


NFS, SMB, LOCAL = (pytest.mark.access(kind) for kind in ("nfs", "smb", "local"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            "nfs://{host}:{port}/nowhere",
            "does not offer '/nowhere' to this VM; it offers /data, /trouble/",
            marks=NFS,
        ),
        pytest.param("nfs://no-such-host.invalid/data", "is not found; check its", marks=NFS),
        pytest.param("smb://no-such-host.invalid/data", "is not found; check its", marks=SMB),
        pytest.param(
            "nfs://{host}:{port}/trouble/closed",
            "does not offer '/trouble/closed' to this VM; it offers",
            marks=NFS,
        ),
        pytest.param(
            "nfs://{host}:{port}/trouble/private", "may not read '/trouble/private'", marks=NFS
        ),
        pytest.param("nfs://{host}:{closed}/data", "refuses connections on port", marks=NFS),
        pytest.param("nfs://{host}:{http}/data", "accepts connections on port", marks=NFS),
        pytest.param("smb://{host}:{port}/nowhere", "has no share 'nowhere'", marks=SMB),
        pytest.param("smb://{host}:{port}/open/nofolder", "no folder 'nofolder'", marks=SMB),
        pytest.param("smb://{host}:{port}/data", "does not let a guest", marks=SMB),
        pytest.param(
            "//{host}:{port}/data --user 'SHIP\\nobody' --password-file /etc/hostname",
            "refuses the user 'SHIP\\nobody' or the password",
            marks=SMB,
        ),
        pytest.param(
            "//{host}:{port}/data --user somebody --password-file /etc/hostname",
            "does not know the user 'somebody'",
            marks=SMB,
        ),
        pytest.param("smb://{host}:{closed}/data", "refuses connections on port", marks=SMB),
        pytest.param("smb://{host}:{http}/data", "is not an SMB server", marks=SMB),
    ],
)
def test_add_refuses_what_it_cannot_serve_and_changes_nothing(
    guest: Guest, state: str, files: NfsServer | SmbServer, arguments: str, said: str
) -> None:
    # `http` is the forwarded port of the guest's own service: it answers, but not as a file server.
    names = {
        "host": HOST,
        "port": files.port,
        "closed": free_port(0),
        "http": guest.machine.ports[8080],
    }
    status, answer = guest.run(f"hyrax-data add {arguments.format(**names)} --as wrong", 120)
    assert status == 1
    assert said in answer
    assert "Nothing was changed" in answer
    assert _state(guest) == state


# Others are refused in tests/unit/guest: these two need the administrator's rights and the release.
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("remove nobody", "no data set is called 'nobody'"),
        pytest.param("add nfs://{host}/x", "get hyrax-vm-nfs-{server}", marks=SMB),
        pytest.param("add nfs://{host}/x", "get hyrax-vm-nfs-{server}", marks=LOCAL),
        pytest.param("add //{host}/x", "get hyrax-vm-smb-{server}", marks=NFS),
    ],
)
def test_a_wrong_command_is_refused_with_status_2(
    guest: Guest, state: str, artifact: Artifact, arguments: str, said: str
) -> None:
    release = artifact.manifest["release"]
    status, answer = guest.run("hyrax-data " + arguments.format(host=HOST))
    assert status == 2
    assert said.format(server=release["SERVER"] + release["SERVER_VERSION"]) in answer
    assert len(answer.splitlines()) == 1
    assert _state(guest) == state


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("nfs://{host}:{port}/trouble/empty", "the NFS export is empty", marks=NFS),
        pytest.param("smb://{host}:{port}/empty", "the share is empty", marks=SMB),
        pytest.param(
            "nfs://{host}:{port}/trouble/hidden", "may not read 'secret.nc'; on the", marks=NFS
        ),
    ],
)
def test_add_warns_about_empty_or_unreadable_data(
    guest: Guest, files: NfsServer | SmbServer, url: str, said: str
) -> None:
    found = guest.check(f"hyrax-data add {url.format(host=HOST, port=files.port)} --as odd", 120)
    assert said in found
    guest.check("hyrax-data remove odd")


@NFS
def test_an_nfs_version_that_the_server_lacks_is_refused(
    guest: Guest, data_set: str, files: NfsServer, tmp_path: Path
) -> None:
    # With 4.2, newer kernels read garbage from this server.
    assert guest.get(f"/opendap/data/{data_set}/").status == 200
    assert "vers=4.1" in _options_of(guest, data_set)
    old = NfsServer(files.export, tmp_path / "ganesha", minor_versions="0")
    old.start()
    try:
        add = f"hyrax-data add {old.source()} --as old"
        status, said = guest.run(f"{add} --nfs-version 4.2", 120)
        assert status == 1
        assert "does not speak NFS 4.2; leave --nfs-version out" in said
        guest.check(f"{add} --options timeo=100,rsize=65536", 120)
        mounted = _options_of(guest, "old")
        assert {"ro", "vers=4.0", "timeo=100", "rsize=65536", "nosuid", "noexec"} <= mounted
        guest.check("hyrax-data remove old")
    finally:
        old.stop()


def _options_of(guest: Guest, data_set: str) -> set[str]:
    """Return the mount options of a data set on an NFS server."""
    line = guest.check(f"grep ' /srv/hyrax/data/{data_set} nfs4 ' /proc/mounts")
    return set(line.split()[3].split(","))


@pytest.mark.access("nfs", "smb")
def test_status_shows_size_and_last_use_without_being_a_use(
    guest: Guest, data_set: str, files: FileServer
) -> None:
    def status() -> dict[str, Any]:
        said = guest.check(f"hyrax-data status {data_set} --json", 60)
        rows: list[dict[str, Any]] = json.loads(said)
        (row,) = rows
        return row

    assert guest.get(f"/opendap/data/{data_set}/").status == 200
    found = status()
    assert (found["state"], found["problem"], found["last_access_s"]) == ("mounted", None, 0)
    space = os.statvfs(files.export)
    # The client counts in its own unit.
    assert found["size_bytes"] == pytest.approx(space.f_blocks * space.f_frsize, rel=1e-4)
    # Samba counts the blocks that are reserved for root as used.
    least, most = space.f_blocks - space.f_bfree, space.f_blocks - space.f_bavail
    assert 0.95 * least < found["used_bytes"] / space.f_frsize < 1.05 * most
    assert 0 < found["rtt_ms"] < 1000
    # Nobody reads it; the watchdog, which looks at it every few seconds, does not count.
    _unmount_when_idle(guest, data_set, seconds=9)
    assert guest.get(f"/opendap/data/{data_set}/").status == 200
    assert status()["state"] == "mounted"
    guest.check("systemctl is-active hyrax-watchdog")
    # The watchdog mounts it once more if it looks in the moment in which systemd unmounts it.
    for _ in range(2):
        guest.wait_for(f"! grep -q ' /srv/hyrax/data/{data_set} [nc]' /proc/mounts", 90)
        found = status()
        if found["state"] == "waiting":
            break
    assert (found["state"], found["problem"]) == ("waiting", None)
    # The client counts in its own unit.
    assert found["size_bytes"] == pytest.approx(space.f_blocks * space.f_frsize, rel=1e-4)
    time.sleep(3)
    later = status()
    assert later["state"] == "waiting"
    assert 3 <= later["last_access_s"] <= 60
    assert later["last_access_s"] >= found["last_access_s"] + 3
    _unmount_when_idle(guest, data_set, seconds=300)
    assert guest.get(f"/opendap/data/{data_set}/").status == 200
    assert status()["last_access_s"] == 0


@pytest.mark.access("nfs", "smb")
def test_a_removed_data_set_is_gone(guest: Guest, data_set: str, files: FileServer) -> None:
    files.add(guest, "passing", "years")
    assert guest.get("/opendap/data/passing/2001/deep.nc.dds").status == 200
    guest.check("hyrax-data remove passing")
    assert guest.get("/opendap/data/passing/2001/deep.nc.dds").status == 404
    assert "passing" not in _state(guest)
    # The other data set is still served.
    case = CASES[1]
    assert_same(
        netcdf4(guest.url(f"data/{data_set}/{case.file}"), case.variable, case.subset),
        local(files.export, case),
    )


def _unmount_when_idle(guest: Guest, data_set: str, seconds: int) -> None:
    unit = f"srv-hyrax-data-{data_set}"
    guest.check(
        f"cd /etc/systemd/system && sudo -n sed -i s/IdleSec=.*/IdleSec={seconds}/ {unit}.automount"
        f" && sudo -n systemctl stop {unit}.automount {unit}.mount"
        f" && sudo -n systemctl daemon-reload && sudo -n systemctl start {unit}.automount"
    )


def _state(guest: Guest) -> str:
    """Return all that a data set leaves on the system: names, directories, units, mounts."""
    return guest.check(
        "hyrax-data list; ls /srv/hyrax/data /etc/hyrax/data.d /etc/systemd/system;"
        " systemctl list-units --all --plain --no-legend 'srv-hyrax-*.automount' | cut -d ' ' -f 1;"
        " grep -c autofs /proc/mounts"
    )
