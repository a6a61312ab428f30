"""Machines that tests boot, and their consoles in the reports of the tests that fail."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyraxvm.tools.figures import COSTS
from hyraxvm.vm.console import ConsoleError
from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import MachineSpec
from tests.boot.guest import Guest

# The type of pytest's fixture `record_property`: it writes a name and a value into the report.
RecordProperty = Callable[[str, object], None]

EXTRA = 4 * 2**30  # bytes by which the second copy's disk is larger
_guests: list[Guest] = []  # the guests that run now
_started: list[Guest] = []  # all guests, those that have ended too
_before = pytest.StashKey[Iterable[float]]()


def _used() -> tuple[float, int]:
    """Return what all guests have used so far: CPU time (s), lines typed on their consoles."""
    return (
        sum(guest.machine.cpu_seconds for guest in _started),
        sum(guest.console.typed for guest in _started),
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Note when each test starts, so that its report shows what it has used."""
    item.stash[_before] = _used()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.when == "teardown":
        # Time in which the guest's CPUs do nothing is spent waiting.
        cpu, turns = (now - then for now, then in zip(_used(), item.stash[_before], strict=True))
        item.user_properties += zip(COSTS, (round(cpu, 1), turns), strict=True)
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
def ready(spec: MachineSpec, size: int, name: str, logs: Path) -> Iterator[Guest]:
    """Boot a machine with a disk of `size` bytes, and wait until its service answers.

    A guest whose emulator fails is booted again, once.
    """
    for attempt in (1, 2):
        with (
            tempfile.TemporaryDirectory(prefix=f"hyrax-vm-{name}-") as folder,
            booted(spec.with_overlays(Path(folder), size), Path(folder), logs) as guest,
        ):
            try:
                guest.wait_ready()
            except ConsoleError:
                if attempt == 2 or not guest.machine.emulator_failed:
                    raise
                warnings.warn(f"{name}: the emulator failed; booted again", stacklevel=1)
                continue
            yield guest
            return


@contextmanager
def watched(guest: Guest) -> Iterator[Guest]:
    """Show the guest's console in the reports of tests that fail; keep its journal at the end."""
    _guests.append(guest)
    _started.append(guest)
    try:
        yield guest
    finally:
        guest.keep_journal()
        _guests.remove(guest)
