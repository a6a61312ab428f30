"""`hyrax-setup` as a user runs it on the console, its file for support, the server's settings."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import pytest

from hyraxvm.vm.qemu import HOST
from tests.boot.clients import netcdf4
from tests.boot.data import CASES, Case, assert_same, local
from tests.boot.guest import Guest
from tests.boot.machines import RecordProperty
from tests.boot.nfs import NfsServer
from tests.boot.smb import SmbServer

ESCAPE = "\x1b"
PLANTED = "w4ter-mark"


@pytest.mark.access("nfs", "smb")
def test_a_data_set_is_added_in_the_menu(
    guest: Guest, files: NfsServer | SmbServer, added: str, record_property: RecordProperty
) -> None:
    console, place = guest.console, files.source("menu").rpartition("/")[2]
    fields = [f"{HOST}:{files.port}", place, "menu"]
    if files.source("menu").startswith("smb:"):
        fields = [f"{HOST}:{files.port}", "open", "", "menu"]  # as a guest, without a user
    guest.login()
    started = time.monotonic()
    console.send("TERM=vt220 hyrax-setup; echo left''-$?")
    console.expect("Data are served at", 60)
    console.send("")
    console.expect("Serve an? ", 60)
    console.send("")
    for field in fields:
        console.expect("Add data", 60)
        # Ctrl-A and Ctrl-K delete the default in the field.
        console.press(f"\x01\x0b{field}\r")
    said = console.expect("Press Enter to go back to the menu", 120)
    assert f"hyrax-data add {files.source('menu').partition(':')[0]}://{HOST}:" in said
    assert "--as menu" in said
    assert "Done." in said
    console.send("")
    console.expect("Data sets", 60)
    console.press(ESCAPE)
    console.expect("Data are served at", 60)
    console.press(ESCAPE)
    console.expect("left-0", 60)
    # The terminal is back in the state of the shell: Ctrl-C is a signal again.
    assert guest.check("stty -a </dev/ttyS0 | grep -o -w -e '-*isig'") == "isig"
    record_property("seconds to add a data set in the menu", round(time.monotonic() - started, 1))
    case = CASES[0]
    found = netcdf4(guest.url(f"data/menu/{case.file}"), case.variable, case.subset)
    assert_same(found, local(files.export, case))
    guest.check("hyrax-data remove menu")


# This is the same in all images, so one image tests it: the one with a password to hide.
@pytest.mark.access("smb")
def test_the_file_for_support_has_what_helps_and_no_secret(guest: Guest) -> None:
    assert guest.check("hyrax-setup upgrades").startswith("security upgrades: on")
    shadow = guest.check("sudo -n awk -F: '$1 == \"opendap\" {print $2}' /etc/shadow")
    # They are not read on the console, because its log must not have them.
    credentials = "sudo -n cat /etc/hyrax/data.d/*.credentials 2>/dev/null"
    passwords = guest.fetch(f"{credentials} | sed -n s/^password=//p").decode().splitlines()
    guest.check(f"sudo -n sh -c 'umask 077; echo \"password = {PLANTED}\" >/etc/hyrax/x.toml'")
    guest.check(f"logger 'mount -o username=me,password={PLANTED}'")
    said = guest.check("hyrax-setup support /tmp/support.tar.gz", 240)
    assert "\n/tmp/support.tar.gz (" in f"\n{said}"
    assert guest.check("stat -c '%U %a' /tmp/support.tar.gz") == "opendap 600"
    with tarfile.open(fileobj=io.BytesIO(guest.fetch("cat /tmp/support.tar.gz"))) as tar:
        texts = {
            member.name.partition("/")[2]: stream.read().decode()
            for member in tar.getmembers()
            if (stream := tar.extractfile(member))
        }
    guest.check("sudo -n rm /tmp/support.tar.gz /etc/hyrax/x.toml")
    for secret in [PLANTED, shadow, *passwords]:
        assert [name for name, text in texts.items() if secret in text] == []
    assert "username=me,password=(removed)" in texts["journal"]
    assert "Linux version" in texts["kernel"]
    assert "SERVER_VERSION=" in texts["release"]
    assert "Data are served." in texts["server-status"]
    assert "eth0" in texts["network"]
    assert "linux-image-amd64" in texts["packages"]
    assert not [name for name, text in texts.items() if "(no answer within" in text]


@pytest.mark.access("local")
def test_the_administrator_can_add_a_suffix_of_data_files(
    guest: Guest, samples: Path, record_property: RecordProperty
) -> None:
    def offered() -> bool:
        path = "/opendap/data/odd/"
        listed = "sst.odd.dds" in guest.get(path).text
        return listed and guest.get(f"{path}sst.odd.dds").status == 200

    guest.check(
        "mkdir /srv/hyrax/data/odd && cp /srv/hyrax/sample/sst.nc /srv/hyrax/data/odd/sst.odd"
    )
    assert not offered()
    status, said = guest.run("hyrax-server set types 'nc:*.odd;BES.User=root'")
    assert (status, len(said.splitlines())) == (2, 1)
    started = time.monotonic()
    assert guest.check("hyrax-server set types 'nc:*.odd'") == "types is now nc:*.odd"
    guest.wait_ready()
    assert offered()
    record_property("seconds until a new type is served", round(time.monotonic() - started, 1))
    found = netcdf4(guest.url("data/odd/sst.odd"), "sst", None)
    assert_same(found, local(samples, Case("sst.nc", "sst")))
    guest.check("hyrax-server set types default && rm -r /srv/hyrax/data/odd")
    guest.wait_ready()
    assert guest.check("hyrax-server status").endswith("Data are served.")
