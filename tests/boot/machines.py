"""Machines that tests boot, and their consoles in the reports of the tests that fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import MachineSpec
from tests.boot.guest import Guest

# The type of pytest's fixture `record_property`: it writes a name and a value into the report.
RecordProperty = Callable[[str, object], None]

EXTRA = 4 * 2**30  # bytes by which the second copy's disk is larger
_guests: list[Guest] = []  # the guests that run now


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for guest in _guests:
            report.sections.append((f"console of {guest.machine.logs.name}", guest.console.tail()))
    return report


@contextmanager
def booted(spec: MachineSpec, folder: Path, logs: Path) -> Iterator[Guest]:
    """Boot a machine, and end it on exit.

    While it runs, the end of its console is added to the report of each test that fails.  Its
    journal is written to `logs`.
    """
    # These are the logs of an earlier run.
    shutil.rmtree(logs, ignore_errors=True)
    with VirtualMachine(spec, folder, logs) as running, watched(Guest(running)) as guest:
        yield guest


@contextmanager
def watched(guest: Guest) -> Iterator[Guest]:
    """Show the guest's console in the reports of tests that fail; keep its journal at the end."""
    _guests.append(guest)
    try:
        yield guest
    finally:
        guest.keep_journal()
        _guests.remove(guest)
