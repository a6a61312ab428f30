"""The machines of a boot test side by side: how pytest-xdist groups tests, and reading its output.

No machine is booted: a small suite with the same marks and names runs under the same options.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from hyraxvm.core.paths import ROOT
from hyraxvm.stages.boot_test import stage

CONFTEST = """
import pytest

def pytest_generate_tests(metafunc):
    metafunc.parametrize(("artifact", "machine"), [
        pytest.param("x-1.0.zip", name, id=f"x-1.0.zip@{name}",
                     marks=pytest.mark.xdist_group(f"x-1.0.zip@{name}"))
        for name in ("first", "second")
    ], indirect=True, scope="session")

@pytest.fixture(scope="session")
def artifact(request):
    return request.param

@pytest.fixture(scope="session", autouse=True)
def machine(request):
    return request.param
"""
TESTS = """
import pytest

@pytest.mark.parametrize("case", ["a-b", "c [d]"])
def test_cases(artifact, case):
    pass

def test_plain(artifact):
    pass
"""


def test_each_machine_stays_in_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "boot"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST)
    for name in ("test_one.py", "test_two.py"):
        (folder / name).write_text(TESTS)
    argv = [sys.executable, "-m", "pytest", "tests/boot", "-v", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(
        [*argv, "-p", "xdist", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # the others take seconds
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("[gw")]
    assert len(lines) == 12
    seen = {re.sub(r".*\[x-1.0.zip@(\w+).*", r"\1", line): set[str]() for line in lines}
    for line in lines:
        seen[re.sub(r".*\[x-1.0.zip@(\w+).*", r"\1", line)].add(line[:5])
    assert {name: len(workers) for name, workers in seen.items()} == {"first": 1, "second": 1}
    # The line that a person sees.
    short = {re.sub(r"^ *\d+% ", "", stage._short(line)) for line in lines}
    assert short == {
        f"passed on {machine}: {test}"
        for machine in ("first", "second")
        for test in ("test_cases [a-b]", "test_cases [c [d]]", "test_plain")
    }
    assert "starting the machine" in {stage._short(line) for line in done.stdout.splitlines()}


def test_the_tests_run_in_a_declared_order() -> None:
    from tests.boot.conftest import ORDER

    found = {path.stem for path in (ROOT / "tests" / "boot").glob("test_*.py")}
    assert found == set(ORDER)
    assert len(ORDER) == len(found)
