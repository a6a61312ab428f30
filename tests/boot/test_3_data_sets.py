"""Data on a real file server, added on the console and read by real clients."""

from __future__ import annotations

import time

import pytest
from clients import CLIENTS, DIGITS, netcdf4, readings
from data import CASES, Case, assert_same, local, make_flow
from guest import Guest
from nfs import NfsServer

from hyraxvm.machine import free_port
from hyraxvm.qemu import HOST

# How long the guest's mounts keep what they know of a directory (nfs(5), actimeo).
ATTRIBUTE_CACHE = 5.0


def test_add_says_where_the_data_are_served(added: str) -> None:
    assert added.splitlines()[-1] == "http://10.0.2.15:8080/opendap/data/ocean/"


@pytest.mark.parametrize(("client", "case"), readings(CASES), ids=str)
def test_values(guest: Guest, data_set: str, nfs: NfsServer, client: str, case: Case) -> None:
    url = guest.url(f"data/{data_set}/{case.file}")
    found = CLIENTS[client](url, case.variable, case.subset)
    assert_same(found, local(nfs.export, case), DIGITS.get(client, 0))


def test_list_status_and_test_tell_of_it(guest: Guest, data_set: str, nfs: NfsServer) -> None:
    export = f"nfs://{HOST}:{nfs.port}/data"
    rows = [line.split() for line in guest.check("hyrax-data list").splitlines()]
    assert [data_set, export] in rows
    rows = [line.split() for line in guest.check("hyrax-data status").splitlines()]
    (row,) = [row for row in rows if row[0] == data_set]
    assert row[1] in ("mounted", "waiting")
    assert row[-1] == export
    said = guest.check(f"hyrax-data test {data_set}")
    assert f"/opendap/data/{data_set}/" in said
    assert "Dataset {" in said


def test_the_banner_names_the_data_set(guest: Guest, data_set: str) -> None:
    assert data_set in guest.check("cat /run/hyrax/issue")


def test_the_guest_cannot_write_although_the_file_server_would_let_it(
    guest: Guest, data_set: str, nfs: NfsServer
) -> None:
    status, said = guest.run(f"sudo -n touch /srv/hyrax/data/{data_set}/written")
    assert status == 1
    assert "Read-only file system" in said
    assert not (nfs.export / "written").exists()
    # The control: without the guest's own care the same write succeeds.
    guest.check("sudo -n mkdir -p /run/control")
    mount = f"mount -t nfs4 -o port={nfs.port} {HOST}:/data /run/control"
    guest.check(f"sudo -n {mount} && sudo -n touch /run/control/written")
    guest.check("sudo -n umount /run/control")
    assert (nfs.export / "written").exists()
    (nfs.export / "written").unlink()


def test_a_file_added_on_the_file_server_appears(
    guest: Guest, data_set: str, nfs: NfsServer, record_property
) -> None:
    path = f"/opendap/data/{data_set}/new.nc.dds"
    assert guest.get(path).status == 404
    make_flow(nfs.export / "new.nc", 7)
    started = time.monotonic()
    while guest.get(path).status != 200 and time.monotonic() - started < ATTRIBUTE_CACHE + 10:
        time.sleep(0.5)
    record_property("seconds until a new file appears", round(time.monotonic() - started, 1))
    case = Case("new.nc", "flow")
    assert_same(
        netcdf4(guest.url(f"data/{data_set}/new.nc"), "flow", None), local(nfs.export, case)
    )
    assert "new.nc" in guest.get(f"/opendap/data/{data_set}/").text


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nfs://{host}:{port}/nowhere", "does not offer '/nowhere'"),
        ("nfs://{host}:{closed}/data", "refuses connections on port {closed}"),
        ("nfs://{host}:{http}/data", "no NFS server"),
    ],
    ids=["wrong export", "closed port", "no NFS server"],
)
def test_what_cannot_be_served_is_refused_in_words_and_leaves_nothing(
    guest: Guest, data_set: str, nfs: NfsServer, url: str, said: str
) -> None:
    # The forwarded port of the guest's own service: something answers, but not NFS.
    names = {
        "host": HOST,
        "port": nfs.port,
        "closed": free_port(0),
        "http": guest.machine.ports[8080],
    }
    before = _state(guest)
    status, answer = guest.run(f"hyrax-data add {url.format(**names)} --as wrong", 120)
    assert status == 1
    assert said.format(**names) in answer
    assert "Nothing was changed" in answer
    assert _state(guest) == before


@pytest.mark.parametrize(
    "arguments",
    ["add nfs://{host}:{port}/data --as ../x", "add ftp://{host}/data", "add", "remove nobody"],
)
def test_a_wrong_command_is_refused_with_status_2(
    guest: Guest, data_set: str, nfs: NfsServer, arguments: str
) -> None:
    before = _state(guest)
    status, said = guest.run("hyrax-data " + arguments.format(host=HOST, port=nfs.port))
    assert status == 2
    assert len(said.splitlines()) == 1
    assert _state(guest) == before


def test_a_removed_data_set_is_gone(guest: Guest, data_set: str, nfs: NfsServer) -> None:
    guest.check(f"hyrax-data add nfs://{HOST}:{nfs.port}/data/years --as passing")
    assert guest.get("/opendap/data/passing/2001/deep.nc.dds").status == 200
    guest.check("hyrax-data remove passing")
    assert guest.get("/opendap/data/passing/2001/deep.nc.dds").status == 404
    assert "passing" not in _state(guest)
    # What is left is served on.
    case = CASES[1]
    assert_same(
        netcdf4(guest.url(f"data/{data_set}/{case.file}"), case.variable, case.subset),
        local(nfs.export, case),
    )


def _state(guest: Guest) -> str:
    """All that a data set leaves on the system: names, directories, units, mounts."""
    return guest.check(
        "hyrax-data list; ls /srv/hyrax/data /etc/systemd/system;"
        " systemctl list-units --all --plain --no-legend 'srv-hyrax-*.automount' | cut -d ' ' -f 1;"
        " grep -c autofs /proc/mounts"
    )
