"""pytest's reports as JUnit files: which tests failed, and that skipped tests count as failed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from hyraxvm.core.errors import Failure


def read(junit: Path) -> ET.Element:
    """Return the root of a JUnit file that pytest wrote on this machine."""
    return ET.parse(junit).getroot()  # noqa: S314 - not uploaded by a stranger


def failures(junit: Path) -> list[tuple[str, str]]:
    """Return the name of each test that failed, and the first line of its reason."""
    found = []
    for case in read(junit).iter("testcase"):
        for kind in ("failure", "error"):
            if (trouble := case.find(kind)) is not None:
                reason = trouble.get("message", "").strip() or "no reason"
                found.append((case.get("name", "?"), reason.splitlines()[0]))
    return found


def refuse_skips(junit: Path) -> None:
    """Raise `Failure` if a JUnit file reports skipped tests."""
    suites = read(junit).iter("testsuite")
    skipped = sum(int(suite.get("skipped", "0")) for suite in suites)
    if skipped:
        raise Failure(f"{skipped} tests were skipped, which counts as failed; report: {junit}")
