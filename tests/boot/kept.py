"""The machine of `./inv try`, which goes on running when the tests have ended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyraxvm.vm.kept import KeptMachine
from hyraxvm.vm.qemu import MachineSpec
from tests.boot.guest import Guest
from tests.boot.machines import watched


@contextmanager
def attached(spec: MachineSpec, folder: Path, logs: Path) -> Iterator[Guest]:
    """Use the machine that runs in `folder`; its console and journal go to `logs`."""
    shutil.rmtree(logs, ignore_errors=True)
    with KeptMachine(spec, folder, logs) as running, watched(Guest(running)) as guest:
        yield guest
