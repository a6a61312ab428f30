"""An image of an unrelated server: its entrypoint, sandboxed, with another port and data root."""

from __future__ import annotations

import time
from pathlib import Path

from hyraxvm.vm.qemu import HOST, HTTP, SSH
from tests.boot.guest import Guest
from tests.boot.machines import RecordProperty
from tests.boot.nfs import NfsServer
from tests.boot.watching import BACK, GAP, Watch, until
from tests.servers.build import Built

SAMPLE = "/opendap/sample/sst.nc"


def test_the_entrypoint_of_the_image_runs_as_its_user(plain: Guest, files: Built) -> None:
    assert files.image.entrypoint[1:] == ["-m", "http.server", "9000"]
    line = plain.check("ps -eo user,args --no-headers | grep [h]ttp.server")
    assert line.split()[0] == "web"
    assert plain.check("id -u web") == "1000"
    assert plain.check("id -u opendap") != "1000"
    assert plain.check("systemctl is-active hyrax.target") == "active"


def test_its_port_is_passed_on_and_not_open(plain: Guest, samples: Path) -> None:
    assert plain.get(SAMPLE).body == (samples / "sst.nc").read_bytes()
    # Only servers that name a place for the landing page have it.
    assert "Directory listing for /" in plain.get("/").text
    ports = set()
    for line in plain.check("sudo -n ss -H -lnt").splitlines():
        host, _, port = line.split()[3].rpartition(":")
        if not host.startswith("127.") and host != "[::1]":
            ports.add(int(port))
    assert ports == {HTTP, SSH}


def test_it_is_confined(plain: Guest) -> None:
    pid = plain.check("systemctl show --value -p MainPID hyrax-server.service")
    status = plain.check(f"grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/{pid}/status")
    found = dict(line.split(":\t") for line in status.splitlines())
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    # The image has no program that could try to write: the mount options show what it may.
    mounts = plain.check(f"sudo -n cat /proc/{pid}/mountinfo")
    options = {line.split()[4]: line.split()[5] for line in mounts.splitlines()}
    assert options["/content/opendap"].startswith("ro")
    assert options["/"].startswith("ro")
    assert options["/state"].startswith("rw")
    links = plain.check(f"sudo -n nsenter -t {pid} -n ip -o link | cut -d: -f2").split()
    assert links == ["lo"]


def test_a_killed_server_is_back(plain: Guest, record_property: RecordProperty) -> None:
    plain.check("sudo -n pkill -9 -f '[h]ttp.server'")
    record_property("seconds after kill -9", round(until(plain, SAMPLE, 200, 60), 1))


def test_the_image_has_no_shell_and_says_so(plain: Guest) -> None:
    status, said = plain.run("hyrax-server console")
    assert status == 1
    assert "no shell" in said
    status, said = plain.run("hyrax-server set email a@b.example")
    assert status == 1
    assert "has no settings" in said


def test_a_file_server_that_hangs_is_detached_and_comes_back(
    plain: Guest, exports: tuple[NfsServer, NfsServer], record_property: RecordProperty
) -> None:
    one, two = exports
    for name, server in (("one", one), ("two", two)):
        plain.check(f"hyrax-data add nfs://{HOST}:{server.port}/data --as {name}", 300)
        until(plain, f"/opendap/data/{name}/{name}.nc", 200, 60)
    with Watch(plain, SAMPLE) as sample, Watch(plain, "/opendap/data/two/two.nc") as other:
        one.freeze()
        started = time.monotonic()
        until(plain, "/opendap/data/one/one.nc", 404, 90)
        record_property("seconds until it is away", round(time.monotonic() - started, 1))
        one.thaw()
        back = until(plain, "/opendap/data/one/one.nc", 200, 60)
    record_property("longest gap of a sample", round(sample.gap, 1))
    record_property("longest gap of the other data set", round(other.gap, 1))
    record_property("seconds from SIGCONT to the first answer", round(back, 1))
    assert max(sample.gap, other.gap) < GAP
    assert back < BACK
