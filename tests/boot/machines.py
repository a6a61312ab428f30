"""Machines that tests boot, and their consoles in the reports of the tests that fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyraxvm.vm.machine import Machine
from hyraxvm.vm.qemu import MachineSpec
from tests.boot.guest import Guest

# What the fixture `record_property` does: it puts a name and a value into the test's report.
RecordProperty = Callable[[str, object], None]

EXTRA = 4 * 2**30  # bytes by which the second copy's disk is larger
_guests: list[Guest] = []  # that run now


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
    """A machine whose console stands in the reports of tests that fail; `logs` gets its journal."""
    # Of an earlier run.
    shutil.rmtree(logs, ignore_errors=True)
    with Machine(spec, folder, logs) as running:
        guest = Guest(running)
        _guests.append(guest)
        try:
            yield guest
        finally:
            guest.keep_journal()
            _guests.remove(guest)
