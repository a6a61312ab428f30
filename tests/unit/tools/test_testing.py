"""When a run of the unit tests counts as passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm.core import junit as junit_file
from hyraxvm.core.errors import Failure


def test_a_skipped_test_counts_as_failed(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text('<testsuites><testsuite tests="3" skipped="0"/></testsuites>')
    junit_file.refuse_skips(junit)
    junit.write_text('<testsuites><testsuite tests="3" skipped="1"/></testsuites>')
    with pytest.raises(Failure, match="1 tests were skipped"):
        junit_file.refuse_skips(junit)
