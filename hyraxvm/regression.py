"""OPeNDAP's own regression suite (`hyrax_regression_tests`) against a booted artifact.

The suite is autotools': `autoreconf`, `configure`, `make check`, with the server's URL in
`--hyraxurl=`.  It reads the files that the BES installs under `data/`, which its image holds.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyraxvm.command import run
from hyraxvm.errors import Failure, UserError
from hyraxvm.machine import Machine
from hyraxvm.unpack import open_artifact

DEADLINE = 3600.0  # seconds
BOOT = 300.0  # seconds
TOOLS = ("autoreconf", "automake", "make", "curl", "getdap", "getdap4")


@dataclass(frozen=True)
class Counts:
    """Tests by their result; `failures` are the names of those that failed."""

    passed: int
    expected_failures: int
    skipped: int
    failures: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.passed} passed, {len(self.failures)} failed, "
            f"{self.expected_failures} failed as expected, {self.skipped} skipped"
        )


def check(checkout: Path) -> None:
    """Raise `UserError` when this is no checkout of the suite, or a tool is missing."""
    if not (checkout / "testsuite.at").is_file():
        raise UserError(f"{checkout}: is no checkout of hyrax_regression_tests: no testsuite.at")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise UserError(
            f"the regression suite needs {', '.join(missing)}; type: "
            "apt-get install autoconf automake make curl libdap-bin"
        )


def suite(
    checkout: Path, url: str, work: Path, log: Path, on_line: Callable[[str], None]
) -> Counts:
    """Run a copy of the checkout against `url`; returns the counts, whatever they are.

    Raises `Failure`: it cannot be built, or did not run to its end.
    """
    log.unlink(missing_ok=True)
    copy = work / "regression"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    for command in (["autoreconf", "-if"], ["./configure"]):
        run(command, log=log, deadline=DEADLINE, cwd=copy, on_line=on_line)
    lines: list[str] = []

    def collect(line: str) -> None:
        lines.append(line)
        on_line(line)

    command = ["make", "check", f"TESTSUITEFLAGS=--hyraxurl={url}"]
    failed: Failure | None = None
    try:
        run(command, log=log, deadline=DEADLINE, cwd=copy, on_line=collect)
    except Failure as failure:
        failed = failure  # tests that fail are a result; a suite that did not run is not
    found = counts(lines)
    if "## Test results. ##" not in lines or not (found.passed or found.failures):
        raise failed or Failure(f"the regression suite ran no test; log: {log}")
    return found


def counts(lines: list[str]) -> Counts:
    """Read what a GNU Autotest suite prints: `NUMBER: NAME  RESULT` for each test."""
    pattern = r"\s*\d+: (.+?)\s+(ok|FAILED|expected failure|skipped|UNEXPECTED PASS)\b"
    results = [(found[1], found[2]) for line in lines if (found := re.match(pattern, line))]
    kinds = [kind for _, kind in results]
    bad = tuple(name for name, kind in results if kind in ("FAILED", "UNEXPECTED PASS"))
    return Counts(kinds.count("ok"), kinds.count("expected failure"), kinds.count("skipped"), bad)


def place_data(command: Callable[[str], str]) -> None:
    """Put the files that the image holds where the suite looks for them: `/opendap/data/`.

    `command` runs a command in the guest and returns its output.  Raises `Failure`: the image
    holds none.
    """
    data = "/opt/hyrax/usr/share/hyrax/data"
    if command(f"sudo -n sh -c 'ls {data} 2>/dev/null | wc -l'").strip() == "0":
        raise Failure(f"the server's image has no {data}; the suite needs its files")
    command(f"sudo -n cp -r --no-preserve=ownership {data}/. /srv/hyrax/data/")
    command("sudo -n chmod -R a+rX /srv/hyrax/data")


def against(artifact: Path, checkout: Path, folder: Path, on_line: Callable[[str], None]) -> Counts:
    """Boot an artifact, run the suite against it; `folder` receives the logs.

    Raises `Failure`: it does not boot, or the suite does not run; `UserError`: see `check`.
    """
    check(checkout)
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-regression-") as scratch:
        work = Path(scratch)
        (work / "artifact").mkdir()
        spec = open_artifact(artifact, work / "artifact").spec
        with Machine(spec.over(work / "disk"), work / "disk", folder / "regression") as machine:
            console = machine.console
            console.login("opendap", "opendap", BOOT)
            console.check("sudo -n systemctl start hyrax.target", BOOT)
            place_data(lambda text: console.check(text, 120))
            url = f"{machine.url}/opendap"
            return suite(checkout, url, work, folder / "regression.log", on_line)
