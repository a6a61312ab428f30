"""OPeNDAP's own regression suite (`hyrax_regression_tests`) against a booted artifact.

The suite is autotools': `autoreconf`, `configure`, `make check`, with the server's URL in
`--hyraxurl=`.  It reads the files that the BES installs under `data/`: those in a directory `data`
of the checkout, else those that the server's image holds.
"""

from __future__ import annotations

import http.server
import os
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import run
from hyraxvm.formats.opening import open_artifact
from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import HOST

DEADLINE = 3600.0  # seconds
BOOT = 300.0  # seconds
DATA = "/srv/hyrax/data"  # in the guest
TOOLS = ("autoreconf", "automake", "make", "curl", "getdap", "getdap4")


@dataclass(frozen=True)
class Counts:
    """How many tests had which result; `failures` are the names of those that failed."""

    passed: int
    expected_failures: int
    skipped: int
    failures: tuple[str, ...]
    passes: tuple[str, ...] = field(default=(), compare=False)  # the names of those that passed

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.passed} passed, {len(self.failures)} failed, "
            f"{self.expected_failures} failed as expected, {self.skipped} skipped"
        )


@dataclass(frozen=True)
class Difference:
    """How a result differs from a baseline, by the names of tests."""

    worse: tuple[str, ...]  # failed here only
    better: tuple[str, ...]  # failed in the baseline only
    not_run: tuple[str, ...]  # failed in the baseline, neither passed nor failed here

    def __str__(self) -> str:
        """One line for each kind, or one line."""
        kinds = {"worse": self.worse, "better": self.better, "not run": self.not_run}
        lines = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        return "\n".join(lines) or "the same tests fail as in the baseline"


def read_baseline(path: Path) -> frozenset[str]:
    """Read the names of tests that fail elsewhere, for example without a virtual machine.

    The file has one name a line, with or without the suite's number before it (`6: NAME`); what
    begins with `#` is a comment.  Raises `UserError`: it cannot be read, or names no test.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from error
    names = [re.sub(r"^\d+:\s*", "", line) for line in lines if line and line[0] != "#"]
    for name in names:
        if not re.fullmatch(r"\S+ \S+", name):
            raise UserError(
                f"{path}: {name[:80]!r} is not the name of a test; expected: for example "
                "'curl nc3/fnoc1.nc.dds', one a line"
            )
    return frozenset(names)


def difference(found: Counts, baseline: frozenset[str]) -> Difference:
    """Compare a result with a baseline."""
    failed, passed = set(found.failures), set(found.passes)
    return Difference(
        tuple(name for name in found.failures if name not in baseline),
        tuple(name for name in found.passes if name in baseline),
        tuple(sorted(baseline - failed - passed)),
    )


def check(checkout: Path) -> None:
    """Raise `UserError` if this is not a checkout of the suite, or a tool is missing."""
    if not (checkout / "testsuite.at").is_file():
        raise UserError(
            f"{checkout}: is not a checkout of hyrax_regression_tests: it has no testsuite.at"
        )
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise UserError(
            f"the regression suite needs {', '.join(missing)}; type: "
            "apt-get install autoconf automake make curl libdap-bin"
        )


def suite(
    checkout: Path, url: str, work: Path, log: Path, on_line: Callable[[str], None]
) -> Counts:
    """Run a copy of the checkout against `url`; return the counts, also if tests fail.

    Raises `Failure`: the suite cannot be built, or did not run to its end.
    """
    log.unlink(missing_ok=True)
    copy = work / "regression"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    (copy / "conf").mkdir(exist_ok=True)  # an empty directory is in no git repository
    for command in (["autoreconf", "-if"], ["./configure"]):
        run(command, log=log, deadline=DEADLINE, cwd=copy, on_line=on_line)
    lines: list[str] = []

    def collect(line: str) -> None:
        lines.append(line)
        on_line(line)

    command = ["make", "check", f"TESTSUITEFLAGS=--hyraxurl={url}"]
    failed: Failure | None = None
    env = {**os.environ, "no_proxy": "127.0.0.1"}
    try:
        run(command, log=log, deadline=DEADLINE, cwd=copy, env=env, on_line=collect)
    except Failure as failure:
        failed = failure  # tests that fail are a result; a suite that did not run is not
    if (details := copy / "testsuite.log").is_file():
        shutil.copy(details, log.with_name(details.name))
    found = counts(lines)
    if "## Test results. ##" not in lines or not (found.passed or found.failures):
        raise failed or Failure(f"the regression suite ran no test; log: {log}")
    return found


def counts(lines: list[str]) -> Counts:
    """Read the output of a GNU Autotest suite: `NUMBER: NAME  RESULT` for each test."""
    pattern = r"\s*\d+: (.+?)\s+(ok|FAILED|expected failure|skipped|UNEXPECTED PASS)\b"
    results = [(found[1], found[2]) for line in lines if (found := re.match(pattern, line))]
    kinds = [kind for _, kind in results]
    bad = tuple(name for name, kind in results if kind in ("FAILED", "UNEXPECTED PASS"))
    good = tuple(name for name, kind in results if kind == "ok")
    return Counts(len(good), kinds.count("expected failure"), kinds.count("skipped"), bad, good)


def place_data(command: Callable[[str], str], checkout: Path) -> None:
    """Put the suite's files where it looks for them: `/opendap/data/`.

    `command` runs a command in the guest and returns its output.  Raises `Failure`: neither the
    checkout nor the image has them.
    """
    if (checkout / "data").is_dir():
        with _served(checkout / "data") as url:
            command(f"curl -sf {url} | sudo -n tar -x --no-same-owner --no-overwrite-dir -C {DATA}")
    else:
        held = "/opt/hyrax/usr/share/hyrax/data"
        if command(f"sudo -n sh -c 'ls {held} 2>/dev/null | wc -l'").strip() == "0":
            raise Failure(
                f"the server's image has no {held.removeprefix('/opt/hyrax')}; "
                f"copy /usr/share/hyrax/data of the server's OCI image to {checkout / 'data'}"
            )
        # Readable for all by root's umask; data sets beside them stay unchanged.
        command(f"sudo -n cp -r --no-preserve=ownership,mode {held}/. {DATA}/")


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Yield the URL at which a guest gets a tar of the files in the folder."""
    with tempfile.TemporaryFile() as tar:
        with tarfile.open(fileobj=tar, mode="w") as packed:
            for path in sorted(folder.iterdir()):
                packed.add(path, path.name, filter=_readable)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tar.seek(0)
                self.send_response(200)
                self.end_headers()
                shutil.copyfileobj(tar, self.wfile)

            def log_message(self, *arguments: object) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://{HOST}:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()


def against(artifact: Path, checkout: Path, folder: Path, on_line: Callable[[str], None]) -> Counts:
    """Boot an artifact and run the suite against it; the logs go to `folder`.

    Raises `Failure`: it does not boot, or the suite does not run; `UserError`: see `check`.
    """
    check(checkout)
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-regression-") as scratch:
        work = Path(scratch)
        (work / "artifact").mkdir()
        spec = open_artifact(artifact, work / "artifact").spec
        with VirtualMachine(
            spec.with_overlays(work / "disk"), work / "disk", folder / "regression"
        ) as machine:
            console = machine.console
            console.login("opendap", "opendap", BOOT)
            console.check("sudo -n systemctl start hyrax.target", BOOT)
            place_data(lambda text: console.check(text, 300), checkout)
            url = f"{machine.url}/opendap"
            return suite(checkout, url, work, folder / "regression.log", on_line)
