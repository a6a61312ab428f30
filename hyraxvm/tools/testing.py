"""The unit tests and the tests of whole servers, as `./inv test` runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.junit import refuse_skips
from hyraxvm.core.workspace import Workspace

NO_TEST: Final = 5  # pytest's exit status where no test is collected
WORKERS: Final = 2  # for each core: the programs of the tests wait about half of their time


def unit_tests(workspace: Workspace, expression: str | None = None) -> None:
    """Run `tests/unit`, or the tests that match pytest's `-k`, on the terminal.

    Raises `Failure`: a test failed, or one was skipped; `UserError`: no test matches.
    """
    workers = WORKERS * (os.cpu_count() or 1)
    _run(workspace, "unit", expression, "-q", "-n", str(workers), "--dist", "loadgroup")


def server_tests(workspace: Workspace, expression: str | None = None) -> None:
    """Run `tests/servers`: stand-ins for servers, built from packages and booted.

    Raises `Failure`: a test failed, or one was skipped; `UserError`: no test matches.
    """
    _run(workspace, "servers", expression, "-v")


def _run(workspace: Workspace, name: str, expression: str | None, *options: str) -> None:
    workspace.reports.mkdir(parents=True, exist_ok=True)
    junit = workspace.reports / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", f"tests/{name}", *options, f"--junitxml={junit}"]
    if expression is not None:
        command += ["-k", expression]
    done = subprocess.run(command, cwd=workspace.root, check=False)
    if done.returncode == NO_TEST and expression is not None:
        raise UserError(
            f"-k {expression!r}: no test in tests/{name} matches; -k takes parts of names"
        )
    if done.returncode != 0:
        raise Failure(f"tests/{name}: exit status {done.returncode}; report: {junit}")
    refuse_skips(junit)
