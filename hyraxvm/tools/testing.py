"""The unit tests and linters, as `./inv test` runs them."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import REPORTS, ROOT


def unit_tests() -> None:
    """Run `tests/unit` with its output on the terminal.

    Raises `Failure`: a test failed, or one was skipped.
    """
    _run("unit", "-q", "-n", "auto")


def server_tests() -> None:
    """Run `tests/servers`: stand-ins for servers, built from packages and booted.

    Raises `Failure`: a test failed, or one was skipped.
    """
    _run("servers", "-v")


def _run(name: str, *options: str) -> None:
    REPORTS.mkdir(parents=True, exist_ok=True)
    junit = REPORTS / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", f"tests/{name}", *options, f"--junitxml={junit}"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise Failure(f"tests/{name}: exit status {done.returncode}; report: {junit}")
    refuse_skips(junit)


def refuse_skips(junit: Path) -> None:
    """Raise `Failure` when a JUnit file tells of skipped tests: nobody has asked for that."""
    # Written by pytest a moment ago, not somebody's upload.
    suites = ET.parse(junit).getroot().iter("testsuite")  # noqa: S314
    skipped = sum(int(suite.get("skipped", "0")) for suite in suites)
    if skipped:
        raise Failure(f"{skipped} tests were skipped, which counts as failed; report: {junit}")
