"""`./inv bench build`: how long whoever builds waits, in a copy of this checkout.

The copy has a cache of its own, which begins empty.  Each case is one `./inv build`, as typed; the
edits between them are made in the copy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, Field, ValidationError

from hyraxvm.core.columns import align
from hyraxvm.core.errors import Failure
from hyraxvm.core.process import dying_with_parent, output
from hyraxvm.core.workspace import Workspace

REPORT: Final = "bench-build.json"  # in the folder of reports
SCRIPT: Final = "provision/guest/usr/bin/hyrax-data"  # of the guest, which is edited
PACKAGE: Final = "tree"  # small, without dependencies, and in no image
# The stages that make a raw disk, as other image builders do.
DISK: Final = ("rootfs", "disk", "provision", "guest")
# A line of the build: the seconds since its start, what has ended, and how long that took.
_STAGE: Final = re.compile(
    r"^\[ *([\d.]+) s\] ([\w ]+?)(?: of \S+)? done in ([\d.]+) s$", re.MULTILINE
)


class Case(BaseModel):
    """One build: what had changed, and the seconds until the files were made, and tested."""

    what: str
    made: float
    tested: float
    stages: dict[str, float]


class Report(BaseModel):
    """All cases of one run, and the command that was timed."""

    command: str
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    cases: list[Case]


def measure(workspace: Workspace, words: Sequence[str], say: Callable[[str], None]) -> Report:
    """Time `./inv build WORDS` cold, warm, after an edit of the guest, with one more package.

    The report is kept among the reports.  Raises `Failure`: a build failed; the message has its
    last lines.
    """
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-bench-") as work:
        checkout, cache = Path(work, "checkout"), Path(work, "cache")
        copy(workspace.root, checkout)
        cases = []
        for what, edit in (
            ("nothing is in the cache", None),
            ("nothing has changed", None),
            ("one line of a guest file", _edit_guest),
            ("one more package", _add_package),
        ):
            if edit:
                edit(checkout)
            cases.append(_build(what, checkout, cache, words))
            say(f"{what}: made after {cases[-1].made:.0f} s, tested after {cases[-1].tested:.0f} s")
    command = " ".join(["./inv build", *words])
    report = Report(command=command, date=time.strftime("%Y-%m-%d"), cases=cases)
    workspace.reports.mkdir(parents=True, exist_ok=True)
    (workspace.reports / REPORT).write_text(report.model_dump_json(indent=1) + "\n")
    return report


def read(reports: Path) -> Report | None:
    """Return the report of the last run, or None if there is none that this version can read."""
    try:
        return Report.model_validate_json((reports / REPORT).read_text())
    except (OSError, ValidationError):
        return None


def table(report: Report) -> str:
    """Return the report in aligned columns, for a terminal."""
    rows = [["changed", "made", "tested", "stages"]]
    for case in report.cases:
        stages = ", ".join(f"{name} {took:g}" for name, took in case.stages.items() if took > 1)
        rows.append([case.what, f"{case.made:.0f} s", f"{case.tested:.0f} s", stages])
    return align(rows)


def copy(root: Path, target: Path) -> None:
    """Copy the files that git knows, as they are now, and the new ones that it does not ignore."""
    listed = output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root
    )
    for name in filter(None, listed.split("\0")):
        if (root / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name, follow_symlinks=False)


def _edit_guest(checkout: Path) -> None:
    with (checkout / SCRIPT).open("a") as script:
        script.write("# one line more\n")


def _add_package(checkout: Path) -> None:
    table = checkout / "images.toml"
    text = table.read_text()
    before = '    "initramfs-tools", "zstd",\n'
    if before not in text:
        raise Failure(f"{table}: has no line {before.strip()!r}, to which the bench adds a package")
    table.write_text(text.replace(before, f'{before}    "{PACKAGE}",\n'))


def _build(what: str, checkout: Path, cache: Path, words: Sequence[str]) -> Case:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    started = time.monotonic()
    done = subprocess.run(
        dying_with_parent([sys.executable, "-m", "hyraxvm.cli", "build", *words]),
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    took = time.monotonic() - started
    if done.returncode:
        raise Failure(f"{what}: ./inv build {' '.join(words)}: {done.stdout.strip()[-2000:]}")
    ended: dict[str, float] = {}
    stages: dict[str, float] = {}
    for end, name, seconds in _STAGE.findall(done.stdout):
        ended[name] = float(end)
        stages[name] = max(float(seconds), stages.get(name, 0.0))
    return Case(what=what, made=ended["package"], tested=round(took, 1), stages=stages)
