"""What is checked last, after all other tests of a machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.boot.clients import CLIENTS, DIGITS
from tests.boot.data import SAMPLES, assert_same, local
from tests.boot.guest import Artifact, Guest
from tests.boot.machines import RecordProperty

pytestmark = pytest.mark.machines("first", "second", "brief")
IDENTITY = {
    "machine-id": "cat /etc/machine-id",
    "ed25519 host key": "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub",
    "ecdsa host key": "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ecdsa_key.pub",
    "DHCP identity": "sudo -n grep -h ^CLIENTID= /run/systemd/netif/leases/*",
}


@pytest.mark.parametrize("client", ["netcdf4", "getdap"])
def test_it_still_answers_with_right_values(guest: Guest, samples: Path, client: str) -> None:
    for case in SAMPLES:
        found = CLIENTS[client](guest.url(f"sample/{case.file}"), case.variable, case.subset)
        assert_same(found, local(samples, case), DIGITS.get(client, 0))


def test_every_copy_has_an_identity_of_its_own(
    guest: Guest, machine: str, artifact: Artifact
) -> None:
    mine = {what: guest.check(command) for what, command in IDENTITY.items()}
    assert min(map(len, mine.values())) >= 16
    kept = Path(guest.machine.logs, "identity.json")
    kept.with_suffix(".new").write_text(json.dumps(mine))
    kept.with_suffix(".new").replace(kept)
    # Machines run side by side; the one that is last here finds the identities of all others.
    for other in artifact.reports.glob("*/identity.json"):
        if other != kept:
            theirs = json.loads(other.read_text())
            assert not set(mine.values()) & set(theirs.values())


def test_the_power_button_switches_it_off_cleanly(
    guest: Guest, record_property: RecordProperty
) -> None:
    guest.login()
    guest.keep_journal()
    record_property("seconds to power off", round(guest.machine.powerdown(60), 1))
    assert not guest.machine.running
    assert "Power down" in guest.console.tail()
