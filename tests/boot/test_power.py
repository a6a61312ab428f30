"""Power cuts: the machine comes up by itself, and each setting is the old or the new one.

`--cuts N` runs these tests: their moments are random, and they take minutes.  The machine `wires`
gets one more disk, larger than the file's.  Its power is cut in the first boot, while the disk
grows and the host keys are made, then N times while all settings change all the time.  The seed of
the moments is in the report.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.boot.clients import netcdf4
from tests.boot.data import CASES, assert_same, local
from tests.boot.guest import PASSWORD, Artifact, Guest
from tests.boot.machines import EXTRA, RecordProperty, booted
from tests.boot.nfs import NfsServer

pytestmark = [pytest.mark.machines("wires"), pytest.mark.access("nfs")]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8o7bZ0yqJmtkN3yQbA0ZVbIuM3GZfdlRy7VXn0xG5d power"
# Each runs again and again, with 0 and with 1.
CHANGES = f"""\
forever() {{ (while :; do "$1" 0; "$1" 1; done) >/dev/null 2>&1 & }}
email() {{ hyrax-server set email "a$1@example.org"; }}
name() {{ hyrax-network hostname "power-$1"; }}
network() {{ case $1 in 0) hyrax-network dns 10.0.2.3 ;; 1) hyrax-network dhcp ;; esac; }}
data() {{
    case $1 in 0) folder= ;; 1) folder=/years ;; esac
    hyrax-data add "$URL$folder" --as ocean --replace
}}
more() {{
    case $1 in 0) hyrax-data add "$URL" --as other --later ;; 1) hyrax-data remove other ;; esac
}}
keys() {{
    case $1 in 0) hyrax-setup ssh-key add '{KEY}' ;; 1) hyrax-setup ssh-key remove 1 ;; esac
}}
password() {{ echo opendap:{PASSWORD} | sudo -n chpasswd; }}
logs() {{ sudo -n logrotate --force /etc/logrotate.d/hyrax-front-door; }}
for each in email name network data more keys password logs; do forever $each; done
"""


@pytest.fixture(scope="module")
def seed() -> int:
    return random.randrange(2**32)


@pytest.fixture(scope="module")
def moments(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture(scope="module")
def machine_to_cut(artifact: Artifact, scratch: Path, moments: random.Random) -> Iterator[Guest]:
    """A machine whose power was cut in its first boot."""
    folder = scratch / "power"
    spec = artifact.spec.with_overlays(folder, artifact.disk_bytes + EXTRA)
    with booted(replace(spec, cpus=1), folder, artifact.reports / "power") as guest:
        time.sleep(moments.uniform(5, 40))
        guest.cut_power()
        guest.wait_ready()
        yield guest


def test_it_comes_up_after_a_cut_in_its_first_boot(
    machine_to_cut: Guest, artifact: Artifact, seed: int, record_property: RecordProperty
) -> None:
    record_property("seed of the power cuts", seed)
    guest = machine_to_cut
    check_system(guest)
    size = int(guest.check("df --output=size -B1 / | tail -n 1"))
    assert size > artifact.disk_bytes
    assert len(guest.check("cat /etc/machine-id")) == 32


def test_each_setting_is_the_old_or_the_new_one(
    machine_to_cut: Guest,
    files: NfsServer,
    moments: random.Random,
    pytestconfig: pytest.Config,
    record_property: RecordProperty,
) -> None:
    guest = machine_to_cut
    old = files.source("ocean")
    guest.check(f"hyrax-data add {old} --as ocean", 120)
    guest.check("hyrax-server set email a0@example.org && hyrax-network hostname power-0", 120)
    script = base64.b64encode(f"URL={old}\n{CHANGES}".encode()).decode()
    guest.check(f"echo {script} | base64 -d >~/changes && sync ~/changes")
    took = []
    for _ in range(pytestconfig.getoption("--cuts")):
        guest.check("sh ~/changes")
        time.sleep(moments.uniform(2, 20))
        guest.cut_power()
        started = time.monotonic()
        guest.wait_ready()
        took.append(round(time.monotonic() - started))
        check_system(guest)
        check_settings(guest, files)
    record_property("seconds from power to an answer, after a cut", took)


def check_system(guest: Guest) -> None:
    """Nothing is damaged, nothing has failed, and nobody has to do anything."""
    assert guest.check("systemctl --failed --no-legend --plain") == ""
    for kind in ("ed25519", "ecdsa"):
        key = f"/etc/ssh/ssh_host_{kind}_key"
        guest.check(f"sudo -n ssh-keygen -y -f {key} | cut -d ' ' -f 1,2 >/tmp/public")
        guest.check(f"cut -d ' ' -f 1,2 {key}.pub | cmp - /tmp/public")
    assert guest.check("sudo -n dmesg | grep -c 'EXT4-fs error' || :") == "0"
    assert guest.check("ls /var/lib/hyrax/undo 2>/dev/null || :") == ""


def check_settings(guest: Guest, files: NfsServer) -> None:
    """Check what `CHANGES` has changed; `login` has checked the password."""
    assert guest.check("cat /etc/hyrax/server.conf") in {f"EMAIL=a{i}@example.org" for i in (0, 1)}
    assert guest.check("cat /etc/hostname") in {"power-0", "power-1"}
    assert guest.check("grep -c '^127.0.1.1.power-[01]$' /etc/hosts") == "1"
    network = guest.check("cat /etc/systemd/network/40-hyrax-eth0.network 2>/dev/null || :")
    assert network == "" or "DNS=10.0.2.3" in network.splitlines()
    keys = guest.check("hyrax-setup ssh-key list 2>/dev/null").splitlines()
    assert [line.split()[2] for line in keys] in ([], ["power"])
    sets = dict(line.split() for line in guest.check("hyrax-data list").splitlines())
    urls = {"": files.source("ocean"), "years": files.source("ocean", "years")}
    assert sets.keys() in ({"ocean"}, {"ocean", "other"})
    (folder,) = [folder for folder, url in urls.items() if url == sets["ocean"]]
    # It is served: the data of the one that it is.
    case = CASES[0] if folder == "" else next(c for c in CASES if c.file.startswith("years/"))
    name = case.file.removeprefix(f"{folder}/" if folder else "")
    found = netcdf4(guest.url(f"data/ocean/{name}"), case.variable, case.subset)
    assert_same(found, local(files.export, case))
    if "other" in sets:
        assert guest.get("/opendap/data/other/").status == 200
