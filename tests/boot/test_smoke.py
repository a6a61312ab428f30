"""The least that shows that a file is good: one boot, one value, the version, a clean power-off.

It is for the person who has changed one line and waits.  What it asks, the other tests ask too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.clients import netcdf4
from tests.boot.data import SAMPLES, assert_same, local
from tests.boot.guest import Artifact, Guest
from tests.boot.machines import RecordProperty

pytestmark = pytest.mark.machines("smoke")


def test_the_first_value_is_right(
    guest: Guest, samples: Path, record_property: RecordProperty
) -> None:
    case = SAMPLES[0]
    found = netcdf4(guest.url(f"sample/{case.file}"), case.variable, case.subset)
    assert_same(found, local(samples, case))
    assert guest.first_answer is not None
    record_property("seconds from power-on to the first DAP answer", round(guest.first_answer, 1))


def test_the_version_file_equals_the_manifest(guest: Guest, artifact: Artifact) -> None:
    assert guest.release() == artifact.manifest["release"]


def test_it_powers_off_cleanly(guest: Guest, record_property: RecordProperty) -> None:
    guest.keep_journal()
    record_property("seconds to power off", round(guest.machine.powerdown(60), 1))
    assert not guest.machine.running
    assert "Power down" in guest.console.tail()
