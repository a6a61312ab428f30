"""When a run of the unit tests counts as passed."""

from __future__ import annotations

from pathlib import Path

from hyraxvm.core.errors import Failure
from hyraxvm.tools import testing


def test_a_skipped_test_counts_as_failed(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text('<testsuites><testsuite tests="3" skipped="0"/></testsuites>')
    testing.refuse_skips(junit)
    junit.write_text('<testsuites><testsuite tests="3" skipped="1"/></testsuites>')
    try:
        testing.refuse_skips(junit)
    except Failure as failure:
        assert "1 tests were skipped" in str(failure)
    else:
        raise AssertionError("a skip was accepted")
