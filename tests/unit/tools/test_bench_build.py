"""The bench of builds: the copy that it builds in, its edits, and what it reads from a build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Context

from hyraxvm.config.arch import DEFAULT
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import made_for
from hyraxvm.tasks import upkeep
from hyraxvm.tools import bench_build

# In place of the command line: prints what a build prints, and notes the state that it saw.
STAND_IN = """
import os, sys
from pathlib import Path
cache = Path(os.environ["XDG_CACHE_HOME"])
cache.mkdir(exist_ok=True)
runs = len(list(cache.iterdir()))
seen = [Path("provision/guest/usr/bin/hyrax-data").read_text().count("one line more"),
        Path("images.toml").read_text().count('"tree"')]
(cache / f"run{runs}").write_text(f"{sys.argv[1:]} {seen}")
if "broken" in sys.argv:
    sys.exit("./inv: disk full")
print("[   0.1 s] rootfs ...")
print("[  50.1 s] rootfs done in 50.0 s")
print("[  55.0 s] disk done in 4.9 s")
print(f"[  99.5 s] package done in {runs}.5 s")
print("[ 140.0 s] smoke boot of a.zip done in 40.0 s")
print("[ 141.0 s] smoke boot of a.ova done in 41.0 s")
print("stages: rootfs 50.0 s")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A checkout with a stand-in for the command line."""
    root = tmp_path / "root"
    for name in ("images.toml", bench_build.SCRIPT):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "hyraxvm").mkdir()
    (root / "hyraxvm/__init__.py").touch()
    (root / "hyraxvm/cli.py").write_text(STAND_IN)
    (root / ".gitignore").write_text("artifacts/\n")
    (root / "artifacts").mkdir()
    (root / "artifacts/large").touch()
    subprocess.run(["git", "init", "-q", root], check=True)
    return Workspace(root, root / "artifacts", StageCache(tmp_path / "cache"))


def test_each_case_sees_its_edits_and_the_cache_of_the_cases_before(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = bench_build._build

    def build(what: str, checkout: Path, cache: Path, words: list[str]) -> bench_build.Case:
        case = real(what, checkout, cache, words)
        seen.extend(sorted(path.read_text() for path in cache.iterdir())[len(seen) :])
        assert not (checkout / "artifacts").exists()
        return case

    monkeypatch.setattr(bench_build, "_build", build)
    said: list[str] = []
    report = bench_build.measure(workspace, ["nfs"], said.append)
    assert seen == [f"['build', 'nfs'] {state}" for state in ([0, 0], [0, 0], [1, 0], [1, 1])]
    assert said[0].startswith("nothing is in the cache: made after 100 s, tested after ")
    assert [case.made for case in report.cases] == [99.5] * 4
    assert report.cases[2].stages == {
        "rootfs": 50.0, "disk": 4.9, "package": 2.5, "smoke boot": 41.0,
    }  # fmt: skip
    assert bench_build.read(workspace.reports) == report
    lines = bench_build.table(report).splitlines()
    assert lines[0].split() == ["changed", "made", "tested", "stages"]
    assert lines[3].startswith("one line of a guest file")
    # The checkout itself has no edit.
    assert "one line more" not in (workspace.root / bench_build.SCRIPT).read_text()


def test_without_a_format_all_are_built_that_this_architecture_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[list[str]] = []

    def measure(_workspace: Workspace, words: list[str], _say: object) -> bench_build.Report:
        timed.append(words)
        return bench_build.Report(command="", date="2000-01-01", cases=[])

    monkeypatch.setattr(bench_build, "measure", measure)
    upkeep.bench.body(Context(), ["build"], [])
    assert timed == [["nfs", *(w for f in made_for(DEFAULT) for w in ("--format", f.name))]]


def test_a_build_that_fails_is_a_failure_and_keeps_no_report(workspace: Workspace) -> None:
    with pytest.raises(Failure, match=r"nothing is in the cache: .*broken: \./inv: disk full"):
        bench_build.measure(workspace, ["broken"], print)
    assert bench_build.read(workspace.reports) is None


def test_a_report_of_another_version_is_no_report(tmp_path: Path) -> None:
    (tmp_path / bench_build.REPORT).write_text('{"cases": 3}')
    assert bench_build.read(tmp_path) is None


def test_what_is_to_be_measured_is_checked_first() -> None:
    for words, message in (
        (["bench", "build", "--image", "nsf"], "nsf"),
        (["bench", "build", "--format", "iso"], "iso"),
        (["bench", "build", "--format", "utm"], "format 'utm' is not made for amd64"),
        (["bench", "biuld"], "expected: build, transfer, serve, report or slowest"),
    ):
        argv = [sys.executable, "-m", "hyraxvm.cli", *words]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
