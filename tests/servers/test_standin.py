"""The units and settings that Hyrax gets, around programs that behave like its own."""

from __future__ import annotations

import http.client
import shlex
import time
from pathlib import Path

import pytest

from hyraxvm.tools import regression
from hyraxvm.vm.qemu import HOST, HTTP, SSH
from tests.boot.guest import Guest
from tests.boot.machines import RecordProperty
from tests.boot.nfs import NfsServer
from tests.boot.watching import BACK, GAP, Watch, until
from tests.servers.build import Built
from tests.unit.tools.little_suite import write_suite

DDS = "/opendap/sample/sst.nc.dds"
ACTIVE = "timeout 60 sh -c 'until systemctl is-active hyrax.target; do sleep 1; done'"
BES, TOMCAT = "hyrax-bes.service", "hyrax-tomcat.service"


def facts(guest: Guest, name: str) -> dict[str, str]:
    answer = guest.get(f"/opendap/{name}")
    assert answer.status == 200, answer.text
    return dict(line.rpartition(" ")[::2] for line in answer.text.splitlines())


def main_pid(guest: Guest, unit: str) -> int:
    return int(guest.check(f"systemctl show --value -p MainPID {unit}"))


def test_the_start_is_measured(hyrax: Guest, record_property: RecordProperty) -> None:
    assert hyrax.first_answer is not None
    record_property("seconds from power-on to the first answer", round(hyrax.first_answer, 1))
    total, used = map(int, hyrax.check("free -m | awk '/^Mem:/ {print $2, $3}'").split())
    record_property("MiB of memory used when idle", used)
    assert 0 < used < total
    said = hyrax.check("systemctl show -p ActiveEnterTimestampMonotonic hyrax.target")
    record_property("hyrax.target", said)


def test_the_archive_of_classes_is_used(hyrax: Guest) -> None:
    archive = "/var/lib/hyrax-tomcat/classes.jsa"
    size, owner = hyrax.check(f"stat -c '%s %U' {archive}").split()
    assert int(size) > 5_000_000
    assert owner == "root"
    assert archive in hyrax.check(f"sudo -n grep jsa /proc/{main_pid(hyrax, TOMCAT)}/maps")


def test_the_bes_is_confined(hyrax: Guest) -> None:
    found = facts(hyrax, "facts")
    assert found["uid"] == "101"
    assert int(found["capabilities"], 16) == 0
    assert found["new_privileges"] == "1"
    assert found["locking"] == "FALSE"
    assert found["write_data"] != "yes"
    assert found["write_etc"] != "yes"
    assert found["write_tmp"] == "yes"


def test_tomcat_is_unprivileged_and_writes_only_where_it_must(hyrax: Guest) -> None:
    found = facts(hyrax, "java")
    assert found["user"] == "tomcat"
    writable = {name.removeprefix("write "): v for name, v in found.items() if "write" in name}
    assert writable == {
        "logs": "true", "work": "true", "temp": "true", "conf": "false",
        "webapps/opendap/WEB-INF/conf/cache": "true",
    }  # fmt: skip
    total = int(hyrax.check("awk '/^MemTotal:/ {print $2}' /proc/meminfo")) / 1024
    assert 0.2 * total < int(found["heap"]) < 0.26 * total


def test_the_settings_are_those_of_an_appliance(hyrax: Guest) -> None:
    found = facts(hyrax, "facts")
    assert found["cache"] == "0"
    answer = hyrax.get("/opendap/facts").text
    assert r"nc:.*\.nc$;nc:.*\.(NC|" in answer
    assert facts(hyrax, "java")["level"] == "sysout:WARN"
    assert facts(hyrax, "java")["olfs"] == "false"
    # The image's own file is as it was shipped.
    own = "/opt/hyrax/home/tomcat/apache-tomcat-10.1/webapps/opendap/WEB-INF/conf/olfs.xml"
    assert "NodeCache" in hyrax.check(f"sudo -n cat {own}")


def test_no_id_is_shared_between_image_and_guest(hyrax: Guest, standin: Built) -> None:
    rows = [line.split(":") for line in hyrax.check("cat /etc/passwd").splitlines()]
    ids = [row[2] for row in rows]
    assert len(ids) == len(set(ids))
    names = {row[0]: int(row[2]) for row in rows}
    assert (names["bes_user"], names["tomcat"]) == (101, 1000)
    assert names["opendap"] not in (101, 1000)
    # Nothing but the server runs with their ids.
    running = hyrax.check("ps -eo user:20,args --no-headers | grep -E '^(bes_user|tomcat) '")
    for line in running.splitlines():
        assert "beslistener" in line or "java" in line, line
    for unit in ("dbus.service", "ssh.service", "systemd-networkd.service"):
        assert hyrax.check(f"systemctl is-active {unit}") == "active"


def test_acknowledgements_on_the_loopback_are_not_delayed(hyrax: Guest) -> None:
    assert " quickack 1" in hyrax.check("ip route get 127.0.0.1")


def test_only_the_service_and_ssh_listen(hyrax: Guest) -> None:
    open_ports: set[int] = set()
    local: set[int] = set()
    for line in hyrax.check("sudo -n ss -H -lnt").splitlines():
        host, _, port = line.split()[3].rpartition(":")
        loopback = host.startswith("127.") or host in ("[::1]", "[::ffff:127.0.0.1]")
        (local if loopback else open_ports).add(int(port))
    assert open_ports == {HTTP, SSH}
    assert 10022 in local
    assert 8005 not in local


def test_only_libraries_with_something_in_them_are_searched(hyrax: Guest) -> None:
    # Tags of a library are found, and no other library has been opened for them.
    assert facts(hyrax, "java")["tags"] == "work"
    conf = hyrax.check("cat /etc/hyrax/context.xml")
    assert 'tldScan="tags.jar"' in conf
    assert 'pluggabilityScan="logback-classic.jar"' in conf
    assert "was scanned for TLDs" not in hyrax.check(f"sudo -n journalctl --no-pager -u {TOMCAT}")


def test_values_come_through_unchanged(hyrax: Guest, samples: Path) -> None:
    for name in ("sst.nc", "elevation.h5"):
        expected = (samples / name).read_bytes()
        answer = hyrax.get(f"/opendap/sample/{name}.raw")
        assert answer.text.encode("latin-1") == expected


def test_links_are_followed_only_when_the_administrator_says_so(hyrax: Guest) -> None:
    hyrax.check("sudo -n ln -sf sst.nc /srv/hyrax/sample/link.nc")
    hyrax.check("sudo -n ln -sf /etc/passwd /srv/hyrax/sample/passwd.nc")
    for name in ("link.nc.raw", "passwd.nc.raw"):
        assert hyrax.get(f"/opendap/sample/{name}").status in (403, 404)
    pid = main_pid(hyrax, TOMCAT)
    assert "symlinks is now yes" in hyrax.check("hyrax-server set symlinks yes")
    until(hyrax, "/opendap/sample/link.nc.dds", 200, 60)
    # Tomcat, which starts slowly, has not been restarted; the image's passwd is not the guest's.
    assert main_pid(hyrax, TOMCAT) == pid
    assert "opendap" not in hyrax.get("/opendap/sample/passwd.nc.raw").text
    hyrax.check("hyrax-server set symlinks no")
    until(hyrax, "/opendap/sample/link.nc.dds", 403, 60)
    hyrax.check("sudo -n rm /srv/hyrax/sample/link.nc /srv/hyrax/sample/passwd.nc")


def test_the_landing_page_needs_no_tomcat(hyrax: Guest) -> None:
    hyrax.check(f"sudo -n systemctl stop {TOMCAT}")
    try:
        assert "standin 0.1.0.2 (not Hyrax)" in hyrax.get("/").text
        assert hyrax.get(DDS).status == 503
    finally:
        hyrax.check("hyrax-server restart", 300)
    # What an image has at Tomcat's / is not shown.
    assert [hyrax.get(path).status for path in ("/index.jsp", "/WEB-INF/web.xml")] == [404, 404]


def test_tomcat_learns_who_asks_and_what_was_typed(hyrax: Guest) -> None:
    found = facts(hyrax, "java")
    assert found["url"] == hyrax.url("java")
    assert found["client"] == HOST
    # So does its log.
    logs = "/var/log/hyrax-tomcat"
    seen = f"until grep -q '^{HOST} .*/opendap/java' {logs}/*access_log*.txt; do sleep 1; done"
    hyrax.check(f"sudo -n timeout 60 sh -c {shlex.quote(seen)}", 90)


def test_head_is_answered_though_the_server_refuses_it(hyrax: Guest) -> None:
    asked = http.client.HTTPConnection("127.0.0.1", hyrax.machine.ports[HTTP], timeout=60)
    try:
        asked.request("HEAD", DDS)
        head = asked.getresponse()
        assert (head.status, head.read()) == (200, b"")
    finally:
        asked.close()


def test_settings_are_checked_and_take_effect(hyrax: Guest) -> None:
    for wrong in ("set email nonsense", "set nothing 1", "set symlinks maybe", "set heap 1; ls"):
        status, said = hyrax.run(f"hyrax-server {wrong.replace(';', '%3b')}")
        assert status == 2, said
        assert len(said.splitlines()) == 1
    assert "email is now me@example.org" in hyrax.check("hyrax-server set email me@example.org")
    until(hyrax, DDS, 200, 60)
    assert "ask email:me@example.org" in hyrax.get("/opendap/sample/nothing.nc").text
    assert "me@example.org" in hyrax.check("hyrax-server set")


@pytest.mark.parametrize("victim", ["beslistener", "besdaemon"])
def test_a_killed_bes_is_back_in_seconds_and_tomcat_goes_on(
    hyrax: Guest, victim: str, record_property: RecordProperty
) -> None:
    pid = main_pid(hyrax, TOMCAT)
    hyrax.check(f"sudo -n pkill -9 -o -f 'bin/[b]{victim[1:]}'")
    took = until(hyrax, DDS, 200, 60)
    record_property(f"seconds after kill -9 of {victim}", round(took, 1))
    assert main_pid(hyrax, TOMCAT) == pid
    assert hyrax.check(
        "timeout 60 sh -c 'until systemctl is-active hyrax.target; do sleep 1; done'"
    )


def test_a_killed_tomcat_comes_back_and_the_target_shows_it(
    hyrax: Guest, record_property: RecordProperty
) -> None:
    bes = main_pid(hyrax, BES)
    hyrax.check(f"sudo -n kill -9 {main_pid(hyrax, TOMCAT)}")
    time.sleep(2)
    assert hyrax.run("systemctl is-active hyrax.target").output.strip() != "active"
    took = until(hyrax, DDS, 200, 240)
    record_property("seconds after kill -9 of java", round(took, 1))
    assert main_pid(hyrax, BES) == bes
    hyrax.check(ACTIVE, 90)


def test_the_administrator_edits_and_resets(hyrax: Guest) -> None:
    assert "differ from the shipped ones: 0" in hyrax.check("hyrax-server status")
    conf = "/opt/hyrax/etc/bes/bes.conf"
    hyrax.check(f"echo '# mine' | sudo -n tee -a {conf}")
    said = hyrax.check("hyrax-server status")
    assert "differ from the shipped ones: 1" in said
    assert conf in said
    assert "# mine" in hyrax.check(f"tail -n 1 {conf}")
    status, said = hyrax.run("hyrax-server reset </dev/null")
    assert status == 1
    assert "nothing was changed" in said
    hyrax.check("hyrax-server reset --yes", 300)
    assert "# mine" not in hyrax.check(f"cat {conf}")
    assert until(hyrax, DDS, 200, 240) < 240
    assert "answers at http" in hyrax.check("hyrax-server status")


def test_logs_are_shown_and_bounded(hyrax: Guest) -> None:
    assert "/sample/sst.nc.dds" in hyrax.check("hyrax-server logs")
    hyrax.check("sudo -n logrotate --force /etc/logrotate.d/hyrax")
    assert int(hyrax.check("stat -c %s /var/log/hyrax-bes/bes.log")) == 0
    assert hyrax.get(DDS).status == 200
    assert DDS.removeprefix("/opendap") in hyrax.check("cat /var/log/hyrax-bes/bes.log")
    # Logs are rotated every hour, so requests cannot make them grow without limit.
    logs = "/var/log/hyrax-tomcat"
    access = hyrax.check(f"sudo -n sh -c 'ls -t {logs}/*access_log*.txt'").splitlines()[0]
    hyrax.check(f"sudo -n sh -c 'head -c 9000000 /dev/zero >>{access}'")
    assert hyrax.check("systemctl is-enabled logrotate.timer") == "enabled"
    assert "*-*-* *:00:00" in hyrax.check("systemctl show -p TimersCalendar logrotate.timer")
    hyrax.check("sudo -n systemctl start logrotate.service")
    assert int(hyrax.check(f"sudo -n stat -c %s {access}")) < 1_000_000
    assert hyrax.get(DDS).status == 200
    # Tomcat continues to write, some seconds later.
    seen = f"until grep -a -q sst.nc.dds {access}; do sleep 1; done"
    hyrax.check(f"sudo -n timeout 40 sh -c '{seen}'")


def test_leftovers_of_downloads_are_removed_and_caches_kept(hyrax: Guest) -> None:
    inside = f"sudo -n nsenter -m -t {main_pid(hyrax, BES)} --"
    hyrax.check(f"{inside} touch -d '2 hours ago' /tmp/ncAb12Cd /tmp/bes_cache.x; true")
    hyrax.check(f"{inside} chown 101 /tmp/ncAb12Cd /tmp/bes_cache.x; true")
    before = hyrax.check("sudo -n find /tmp /var/tmp -name ncAb12Cd")
    assert before
    hyrax.check("sudo -n systemctl start hyrax-cleanup.service")
    assert hyrax.check("sudo -n find /tmp -name ncAb12Cd") == ""
    assert "bes_cache.x" in hyrax.check("sudo -n find /tmp -name bes_cache.x")
    assert hyrax.check("systemctl is-active hyrax-cleanup.timer") == "active"


def test_a_file_server_that_hangs_is_detached_and_comes_back(
    hyrax: Guest, exports: tuple[NfsServer, NfsServer], record_property: RecordProperty
) -> None:
    one, two = exports
    for name, server in (("one", one), ("two", two)):
        hyrax.check(f"hyrax-data add nfs://{HOST}:{server.port}/data --as {name}", 300)
        until(hyrax, f"/opendap/data/{name}/{name}.nc.dds", 200, 60)
    with Watch(hyrax, DDS) as sample, Watch(hyrax, "/opendap/data/two/two.nc.dds") as other:
        one.freeze()
        started = time.monotonic()
        until(hyrax, "/opendap/data/one/one.nc.dds", 404, 90)
        record_property("seconds until it is away", round(time.monotonic() - started, 1))
        status, said = hyrax.run("hyrax-data status one", 60)
        assert status == 1
        assert "away" in said
        # A listing of the parent directory no longer waits.
        until(hyrax, "/opendap/data/", 200, GAP)
        time.sleep(20)
        one.thaw()
        back = until(hyrax, "/opendap/data/one/one.nc.dds", 200, 60)
    record_property("longest gap of a sample", round(sample.gap, 1))
    record_property("longest gap of the other data set", round(other.gap, 1))
    record_property("seconds from SIGCONT to the first answer", round(back, 1))
    assert sample.answers > 2
    assert max(sample.gap, other.gap) < GAP
    assert back < BACK
    assert "away" not in hyrax.check("hyrax-data status one")


def test_a_regression_suite_finds_the_files_of_the_image(hyrax: Guest, tmp_path: Path) -> None:
    tests = {"nc3/tested.nc.dds": "RESPONSE([%s])", "nc3/gone.nc.dds": "RESPONSE([%s])"}
    inputs = {
        "nc3/tested.nc.dds": ("data/nc/tested.nc.dds", "Dataset {\n} tested.nc;\n"),
        "nc3/gone.nc.dds": ("data/nc/gone.nc.dds", ""),
    }
    checkout = write_suite(tmp_path / "checkout", tests, inputs)
    regression.place_data(hyrax.check, checkout)
    url = hyrax.url("").rstrip("/")
    found = regression.suite(checkout, url, tmp_path, tmp_path / "log", lambda line: None)
    assert found == regression.Counts(1, 0, 0, ("curl nc3/gone.nc.dds",))
    hyrax.check("sudo -n rm -r /srv/hyrax/data/nc")


def test_it_stops_quickly_and_the_machine_too(
    hyrax: Guest, record_property: RecordProperty
) -> None:
    started = time.monotonic()
    hyrax.check("sudo -n systemctl stop hyrax.target", 60)
    hyrax.check(f"timeout 30 sh -c 'while systemctl is-active {BES} {TOMCAT}; do sleep 0.2; done'")
    record_property("seconds to stop", round(time.monotonic() - started, 1))
    assert (
        hyrax.check(f"systemctl show --value -p Result {BES} {TOMCAT}").split() == ["success"] * 2
    )
    hyrax.check("sudo -n systemctl start hyrax.target", 300)
    assert hyrax.get(DDS).status == 200
    assert hyrax.check("systemctl --failed --no-legend --plain") == ""
