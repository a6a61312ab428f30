"""hyrax-data list, status and test, the readiness check and the console banner."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest, divert_curl, edit

DDS = "Dataset {\n    Float32 t[n = 3];\n} a.nc;\n"


def mounted(guest: Guest, name: str, files: dict[str, str]) -> None:
    line = f"h:/x /srv/hyrax/data/{name} nfs4 ro 0 0\n"
    guest.write("proc/self/mounts", guest.read("proc/self/mounts") + line)
    for file, text in files.items():
        guest.write(f"srv/hyrax/data/{name}/{file}", text)


def test_no_data_sets(guest: Guest) -> None:
    assert guest.data("status")[:2] == (
        0,
        "no data sets; add one with: hyrax-data add nfs://HOST/EXPORT\n",
    )
    assert guest.data("list")[:2] == (0, "")


def test_status_of_each_state(guest: Guest, port: int, closed_port: int) -> None:
    good, away = f"nfs://127.0.0.1:{port}/sst", f"nfs://127.0.0.1:{closed_port}/old"
    assert guest.data("add", good)[0] == 0
    header, row = guest.data("status")[1].splitlines()
    assert header.split() == ["NAME", "STATE", "USED/SIZE", "READ", "RTT/ms", "SOURCE"]
    name, state, space, read, rtt, url = row.split()
    assert (name, state, read, url) == ("sst", "waiting", "-", good)
    used, size = space.split("/")
    assert used and size[-1] in "MGT"
    assert 0 <= float(rtt) < 100
    # It used a trial mount: the data set itself was neither mounted nor read.
    assert "sst nfs4" not in guest.read("proc/self/mounts")
    mounted(guest, "sst", {"a.nc": "x"})
    status, out, err = guest.data("status")
    name, state, space, read, _, url = out.splitlines()[1].split()
    assert (status, err, name, state, read, url) == (0, "", "sst", "mounted", "now", good)
    used, size = space.split("/")
    assert used and size[-1] in "MGT"

    assert guest.data("add", away, "--force")[0] == 0
    status, out, _ = guest.data("status")
    assert status == 1
    assert out.splitlines()[1].split() == ["old", "away", "-", "-", away]
    assert f"127.0.0.1 refuses connections on port {closed_port}" in out.splitlines()[2]
    assert guest.data("status", "sst")[0] == 0

    guest.write("forbid-find", "")
    status, out, _ = guest.data("status", "sst")
    assert status == 1 and " unreadable " in out and "user (nobody, uid" in out


@pytest.mark.parametrize("kind", ["mounted", "local"])
def test_it_looks_from_where_the_servers_user_may_be(guest: Guest, port: int, kind: str) -> None:
    """find(1) fails where its user may not be: in the administrator's home directory."""
    if kind == "mounted":
        assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
        mounted(guest, "sst", {"a.nc": "x"})
    else:
        guest.write("srv/hyrax/data/sst/a.nc", "x")
    guest.stand_in("setpriv", '[ "$PWD" = / ] || { echo /home/opendap; exit 1; }')
    status, out, _ = guest.data("status", "sst")
    assert (status, out.splitlines()[1].split()[1]) == (0, kind)


def test_status_does_not_wait_for_a_hung_mount(guest: Guest, port: int) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    mounted(guest, "sst", {})
    guest.stand_in("stat", "sleep 60")
    library = guest.root / "usr/lib/hyrax-vm/data-status.sh"
    edit(library, "with_deadline 5 stat", "with_deadline 1 stat")
    status, out, _ = guest.data("status")
    assert status == 1 and out.splitlines()[1].split()[1] == "hung"
    assert "127.0.0.1 does not answer" in out


def test_test_shows_the_dds_of_one_file(guest: Guest, port: int, http: dict[str, str]) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    mounted(guest, "sst", {".hidden.nc": "x", "readme.txt": "x", "deep/a b%[é.nc": "x"})
    status, _, err = guest.data("test", "sst")
    assert status == 1 and "the listing http://127.0.0.1:8080/opendap/data/sst/ is not" in err
    http["/opendap/data/sst/"] = "<html>"
    status, _, err = guest.data("test", "sst")
    assert status == 1 and "HTTP 404" in err
    dds = "/opendap/data/sst/deep/a%20b%25%5B%C3%A9.nc.dds"
    http[dds] = "hello"
    assert "not with a DDS" in guest.data("test", "sst")[2]
    http[dds] = DDS
    status, out, err = guest.data("test", "sst")
    assert (status, err) == (0, "")
    assert out == (
        "listing: http://127.0.0.1:8080/opendap/data/sst/ (HTTP 200)\n"
        f"DDS:     http://127.0.0.1:8080{dds}\n{DDS}"
    )
    (guest.root / "srv/hyrax/data/sst/deep/a b%[é.nc").unlink()
    status, _, err = guest.data("test", "sst")
    assert status == 1 and "no data file" in err
    guest.write("etc/hyrax/server.conf", "TYPES=nc:*.out h5:run?.x\n")
    guest.write("srv/hyrax/data/sst/run7.x", "x")
    http["/opendap/data/sst/run7.x.dds"] = DDS
    assert "/opendap/data/sst/run7.x.dds\n" in guest.data("test", "sst")[1]


def test_test_tries_files_until_the_server_knows_one(
    guest: Guest, port: int, http: dict[str, str]
) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    files = ["MOD021KM.hdf", "other.hdf", "SST.NC"]
    mounted(guest, "sst", dict.fromkeys(files, "x"))
    http["/opendap/data/sst/"] = "<html>"
    for file in files:
        status, _, err = guest.data("test", "sst")
        assert status == 1 and " is not served: HTTP 404; see: hyrax-server logs" in err
        http[f"/opendap/data/sst/{file}.dds"] = DDS
        assert f"/opendap/data/sst/{file}.dds\n" in guest.data("test", "sst")[1]
        del http[f"/opendap/data/sst/{file}.dds"]


def test_test_without_a_server(guest: Guest, port: int, closed_port: int) -> None:
    divert_curl(guest, closed_port)
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    status, _, err = guest.data("test", "sst")
    assert status == 1 and "the data server does not answer on port 8080" in err


def sockets(guest: Guest, *rows: str) -> None:
    """Return the kernel's table of TCP sockets."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
    text = "".join(f"   {n}: {row} 00000000:00000000 00:00000000\n" for n, row in enumerate(rows))
    guest.write("proc/net/tcp", head + text)


SSH, HTTP = "00000000:0016 00000000:0000 0A", "00000000:1F90 00000000:0000 0A"
SERVER = "0100007F:1F91 00000000:0000 0A"


def test_a_port_is_waited_for(guest: Guest) -> None:
    # Rows as from the kernel: a listener on another port, a connection from the port and one to it.
    sockets(guest, SSH, "0100007F:1F90 0100007F:D431 01", "0100007F:D431 0100007F:1F90 01")
    status, _, err = guest.run("usr/lib/hyrax-vm/wait-port", "8080", "1")
    assert status == 1 and "nothing listens on port 8080 after 1 s" in err
    sockets(guest, SSH, HTTP)
    assert guest.run("usr/lib/hyrax-vm/wait-port", "8080", "1")[0] == 0
    assert guest.run("usr/lib/hyrax-vm/wait-port", "22", "1")[0] == 0


def test_a_real_port_is_seen(guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        guest.write("proc/net/tcp", Path("/proc/net/tcp").read_text())
        assert guest.run("usr/lib/hyrax-vm/wait-port", str(port), "1")[0] == 0
    guest.write("proc/net/tcp", Path("/proc/net/tcp").read_text())
    assert guest.run("usr/lib/hyrax-vm/wait-port", str(port), "1")[0] == 1


def test_ready_when_the_server_answers(guest: Guest, http: dict[str, str]) -> None:
    # The front door alone answers nothing: the data server must listen too.
    sockets(guest, SSH, HTTP)
    assert guest.run("usr/lib/hyrax-vm/wait-ready", "1")[0] == 1
    sockets(guest, SSH, HTTP, SERVER)
    assert guest.run("usr/lib/hyrax-vm/wait-ready", "1")[0] == 0
    del http["/opendap/version"]
    status, _, err = guest.run("usr/lib/hyrax-vm/wait-ready", "1")
    assert status == 1 and "no answer from http://127.0.0.1:8080/opendap/version in 1 s" in err


def banner(guest: Guest) -> str:
    status, out, err = guest.run("usr/lib/hyrax-vm/banner")
    assert (status, out, err) == (0, "", "")
    text = guest.read("run/hyrax/issue")
    assert text.isascii() and "\\" not in text and max(map(len, text.splitlines())) <= 80
    return text


def test_banner(guest: Guest, http: dict[str, str]) -> None:
    assert banner(guest) == (
        "\n"
        "Hyrax VM 0.1.0, image nfs\n"
        "server:    dapdir 1.0.0 (embedded default, not Hyrax), ready\n"
        "address:   192.0.2.7 (eth0)\n"
        "data at:   http://192.0.2.7:8080/opendap/\n"
        "data sets: none; add one with: hyrax-data add nfs://HOST/EXPORT\n"
        "log in as: opendap / opendap      then type: hyrax-setup (a menu)\n"
        "\n"
    )
    calls = guest.read("calls.log").count("agetty --reload")
    banner(guest)
    assert guest.read("calls.log").count("agetty --reload") == calls == 1


def test_the_banner_compares_the_password_again_when_it_has_changed(
    guest: Guest, http: dict[str, str]
) -> None:
    hashes = [
        subprocess.run(
            ["openssl", "passwd", "-6", word], capture_output=True, text=True, check=True
        ).stdout.strip()
        for word in ("opendap", "another")
    ]
    for hashed, shown in (*zip(hashes, ("opendap / opendap", "opendap"), strict=True),) * 2:
        guest.write("etc/shadow", f"opendap:{hashed}:20000::::::\n")
        for _ in range(2):
            assert f"log in as: {shown}      then type" in banner(guest)
    # The second banner of each round has not read the hashes again.
    guest.write("usr/lib/hyrax-vm/password-changed", "#!/bin/sh\nexit 1\n")
    assert "log in as: opendap      then type" in banner(guest)


def test_banner_of_trouble(guest: Guest, port: int, closed_port: int) -> None:
    divert_curl(guest, closed_port)
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    assert guest.data("add", "--force", f"nfs://127.0.0.1:{closed_port}/old")[0] == 0
    guest.write("addresses", "")
    text = banner(guest)
    assert "not ready yet" in text
    assert "none: the network adapter eth0 is not switched on yet" in text
    guest.write("sys/class/net/eth0/carrier", "0\n")
    assert "none: the network adapter eth0 is not connected" in banner(guest)
    assert "data sets: old (away, 127.0.0.1 does not answer)\n" in text
    assert "           sst (mounted when it is read)\n" in text
    guest.write("sys/class/net/eth0/carrier", "1\n")
    assert "none: no answer to DHCP on eth0" in banner(guest)


@pytest.mark.parametrize(
    ("server", "shown"),
    [("hyrax", "Hyrax 1.0.0, "), ("thredds", "thredds 1.0.0 (not Hyrax), ")],
)
def test_banner_names_the_server(guest: Guest, server: str, shown: str) -> None:
    release = guest.read("etc/hyrax-vm-release").replace("SERVER=dapdir", f"SERVER={server}")
    guest.write("etc/hyrax-vm-release", release)
    assert f"server:    {shown}" in banner(guest)


@pytest.mark.parametrize(
    ("ended", "read", "seconds"),
    [
        ("", "-", None),
        ("0", "-", None),
        ("89960000000", "now", 40),
        ("86000000000", "66m", 4000),
        ("72000000000", "5h", 18000),
    ],
)
def test_how_long_ago_it_was_read(
    guest: Guest, port: int, ended: str, read: str, seconds: int | None
) -> None:
    """The time of the unmount is in microseconds since the boot, which was 90000 s ago."""
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    guest.write("show---property=ActiveExitTimestampMonotonic", f"{ended}\n")
    assert guest.data("status")[1].splitlines()[1].split()[3] == read
    (found,) = json.loads(guest.data("status", "--json")[1])
    assert found["last_access_s"] == seconds


def test_a_data_set_that_cannot_be_mounted_any_more(guest: Guest, port: int) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/sst")[0] == 0
    guest.write("mount-says", "mount.nfs4: access denied by server while mounting h:/x\n")
    status, out, _ = guest.data("status")
    assert status == 1 and out.splitlines()[1].split()[1] == "refused"
    assert "does not let this VM (192.0.2.7) mount '/sst'" in out.splitlines()[2]
    guest.write("mount-says", "mount.nfs4: Connection timed out\n")
    status, out, _ = guest.data("status")
    assert status == 1 and out.splitlines()[1].split()[1] == "hung"
    (guest.root / "mount-says").unlink()
    wants = guest.root / "etc/systemd/system/multi-user.target.wants"
    (wants / "srv-hyrax-data-sst.automount").unlink()
    status, out, _ = guest.data("status")
    assert status == 1 and out.splitlines()[1].split()[1] == "off"
    assert "type: sudo systemctl start srv-hyrax-data-sst.automount" in out


def test_settings_that_a_power_cut_has_emptied(guest: Guest, port: int) -> None:
    for name in ("good", "cut"):
        assert guest.data("add", f"nfs://127.0.0.1:{port}/{name}")[0] == 0
    guest.write("etc/hyrax/data.d/cut.conf", "")
    status, out, _ = guest.data("status")
    rows = out.splitlines()
    assert status == 1
    assert (rows[1].split()[:2], rows[3].split()[:2]) == (["cut", "off"], ["good", "waiting"])
    assert "type: hyrax-data remove cut; and add it again" in rows[2]
    assert "cut (its settings cannot be read)" in banner(guest)
    assert guest.data("remove", "cut")[0] == 0


def test_the_banner_asks_a_file_server_once(guest: Guest, closed_port: int) -> None:
    for name in ("a", "b", "c"):
        url = f"nfs://127.0.0.1:{closed_port}/{name}"
        assert guest.data("add", url, "--later")[0] == 0
    probe = '#!/bin/sh\necho "probe $*" >>"$HYRAX_ROOT/calls.log"\nsed "s/$/ silent/"\n'
    guest.write("usr/lib/hyrax-vm/tcp-probe", probe)
    before = guest.read("calls.log").count("probe ")
    assert banner(guest).count("(away, 127.0.0.1 does not answer)") == 3
    assert guest.read("calls.log").count("probe ") == before + 1


def test_a_folder_whose_name_cannot_be_one_is_told(guest: Guest) -> None:
    guest.write("srv/hyrax/data/My Data/a.nc", "x")
    for command in ("list", "status"):
        _, _, err = guest.data(command)
        assert "the folder 'My Data' is not a data set; rename it" in err


def quick_state(guest: Guest, name: str) -> str:
    script = f'. "$HYRAX_ROOT/usr/lib/hyrax-vm/lib.sh"; quick_state {name}; say "$state"'
    argv = ["sh", "-c", script]
    return subprocess.run(argv, env=guest.env, capture_output=True, text=True).stdout.strip()


# Those for which a number is given are plain: the shell parses them itself.
PLACES = {
    "nfs://10.0.2.2:40123/data": 40123,
    "nfs://10.0.2.2/export/sst": 2049,
    "nfs://files.example.org:64999/x": 64999,
    "nfs://h:1/a:b": 1,
    "smb://nas/share/a.b_c-d": 445,
    "smb://nas:999/share": 999,
    "nfs://h:65535/x": None,
    "nfs://h:65536/x": None,
    "nfs://h:0/x": None,
    "nfs://h:x/x": None,
    "nfs://h:1:2/x": None,
    "nfs://h:/x": None,
    "nfs:///x": None,
    "nfs://[2001:db8::1]:1049/x": None,
    "nfs://h/a%20b": None,
    "nfs://h/a%2": None,
    "nfs://h/a b": None,
    "nfs://h/a/../b": None,
    "nfs://h/..": None,
    "nfs://h//x": None,
    "ftp://h/x": None,
    "": None,
}


def test_a_plain_url_is_parsed_as_by_the_parser_and_without_it(guest: Guest) -> None:
    for url, port in PLACES.items():
        script = '. "$HYRAX_ROOT/usr/lib/hyrax-vm/lib.sh"; parse_place "$1" && say "$host" "$port"'
        argv = ["sh", "-c", script, "sh", url]
        done = subprocess.run(argv, env=guest.env, capture_output=True, text=True)
        status, out, _ = guest.run("usr/lib/hyrax-vm/data-url", url)
        assert (done.returncode == 0) == (status == 0), url
        assert done.stdout.split() == out.splitlines()[1:3], url
        if port is not None:
            env = {**guest.env, "HYRAX_ROOT": str(guest.root)}
            script = script.replace("parse_place", "LIB=/nowhere; parse_place")
            argv = ["sh", "-c", script, "sh", url]
            done = subprocess.run(argv, env=env, capture_output=True, text=True)
            assert done.stdout.split()[1:] == [str(port)], url


def test_status_and_banner_agree(guest: Guest, port: int, closed_port: int) -> None:
    assert guest.data("add", f"nfs://127.0.0.1:{port}/open")[0] == 0
    assert guest.data("add", f"nfs://127.0.0.1:{port}/open", "--as=detached")[0] == 0
    assert guest.data("add", f"nfs://127.0.0.1:{port}/open", "--as=mounted")[0] == 0
    assert guest.data("add", f"nfs://127.0.0.1:{closed_port}/x", "--as=closed", "--force")[0] == 0
    assert guest.data("add", f"nfs://127.0.0.1:{closed_port}/x", "--as=cut", "--force")[0] == 0
    guest.write("run/hyrax/away/detached", "")
    mounted(guest, "mounted", {})
    # The file server of a mounted data set is switched off.
    mounted(guest, "cut", {})
    guest.write("srv/hyrax/data/mine/a.nc", "x")
    states = {row["name"]: row["state"] for row in json.loads(guest.data("status", "--json")[1])}
    assert states == {
        "open": "waiting",
        "detached": "away",
        "mounted": "mounted",
        "closed": "away",
        "cut": "away",
        "mine": "local",
    }
    assert {name: quick_state(guest, name) for name in states} == states
