"""The boot test of an artifact: pytest over `tests/boot`, with reports."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyraxvm.config.model import FULL, SMOKE
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure, Overdue, UserError
from hyraxvm.core.junit import failures, refuse_skips
from hyraxvm.core.paths import ROOT
from hyraxvm.core.process import run
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats.opening import manifest_path
from hyraxvm.stages.boot_test import verdict

DEADLINE = 3600.0  # seconds, for all machines of a file
MOST_NAMED = 20  # failed tests that the message of a run names
REASON = 200  # characters of each reason
# A test's name in pytest's reports: `test_x[FILE@MACHINE-CASE]@GROUP`.
_NAME = re.compile(r"(\w+)\[\S+?@(\w+)-?(.*)\]@\S+")
# pytest-xdist's line about a test that starts or has ended.
_TEST = re.compile(
    r"(?:\[gw\d+\] \[ *(\d+%)\] (\w+) )?tests/boot/\w+\.py::(\w+)\[\S+?@(\w+)-?(.*)\]@\S+ *"
)


def _short(line: str) -> str:
    """Return what a person sees of a line: share done, result, machine, and test."""
    match = _TEST.fullmatch(line)
    if not match:
        # It is the last line until the first machine is there.
        return "starting the machine" if line.startswith("scheduling tests") else line
    share, outcome, test, machine, case = match.groups()
    state = f"{share:>4} {outcome.lower()} " if share else ""
    return f"{state}on {machine}: {test}" + (f" [{case}]" if case else "")


def _what_failed(artifact: Path, junit: Path) -> str:
    """Return a line for each failed test of a run: its machine, its name and its reason."""
    failed = failures(junit)
    lines = [f"{artifact.name}: {len(failed)} tests failed; report: {junit.parent}"]
    for name, reason in failed[:MOST_NAMED]:
        match = _NAME.fullmatch(name)
        test, machine, case = match.groups() if match else (name, "?", "")
        lines.append(f"on {machine}: {test}{f' [{case}]' if case else ''}: {reason[:REASON]}")
    if more := len(failed[MOST_NAMED:]):
        lines.append(f"and {more} more")
    return "\n    ".join(lines)


def test(
    workspace: Workspace,
    artifact: Path,
    on_line: Callable[[str], None],
    machines: int = 2,
    level: str = FULL,
) -> dict[str, Any]:
    """Boot and exercise one artifact, `machines` VMs at a time; write and return the verdict.

    `level` is one of `LEVELS`.  Raises `UserError`: the file does not exist, or has no manifest;
    `Failure`: a test failed, or was skipped.
    """
    if not artifact.is_file():
        raise UserError(f"{artifact}: no such file; `./inv list` shows what is built")
    if not manifest_path(artifact).is_file():
        raise UserError(
            f"{manifest_path(artifact)}: no such file; the manifest must be beside the artifact"
        )
    folder = verdict.reports(workspace, artifact)
    # Nothing of an earlier run, whose machines and failures would seem to be this one's.
    cache.remove_tree(folder)
    folder.mkdir(parents=True)
    started = time.monotonic()
    # Before the run: a test that is edited during the run was not run.
    tested_key = verdict.key(artifact)
    junit = folder / "junit.xml"
    command = [
        *(sys.executable, "-m", "pytest", str(verdict.TESTS), "-v", "-p", "no:cacheprovider"),
        *("-n", str(machines), "--dist", "loadgroup"),
        *("--artifact", str(artifact.resolve()), "--reports", str(folder)),
        *(["--smoke"] if level == SMOKE else []),
        f"--junitxml={junit}",
        *(f"--html={folder / 'report.html'}", "--self-contained-html"),
    ]
    try:
        run(
            command,
            log=folder / "pytest.log",
            deadline=DEADLINE,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            on_line=lambda line: on_line(_short(line)),
        )
    except Overdue:
        raise
    except Failure as error:
        if not junit.exists():  # pytest itself could not run
            raise
        raise Failure(_what_failed(artifact, junit)) from error
    refuse_skips(junit)
    seconds = round(time.monotonic() - started, 1)
    result = {"key": tested_key, "level": level, "seconds": seconds}
    (folder / verdict.FILE).write_text(json.dumps(result) + "\n")
    return result
