"""pytest's reports as JUnit files: skipped tests count as failed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from hyraxvm.core.errors import Failure


def read(junit: Path) -> ET.Element:
    """Return the root of a JUnit file that pytest wrote on this machine."""
    return ET.parse(junit).getroot()  # noqa: S314 - not uploaded by a stranger


def refuse_skips(junit: Path) -> None:
    """Raise `Failure` if a JUnit file reports skipped tests."""
    suites = read(junit).iter("testsuite")
    skipped = sum(int(suite.get("skipped", "0")) for suite in suites)
    if skipped:
        raise Failure(f"{skipped} tests were skipped, which counts as failed; report: {junit}")
