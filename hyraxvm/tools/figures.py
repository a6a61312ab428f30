"""Figures of real runs: read from manifests and reports, written into docs/performance.md.

Nobody copies a number by hand.  The seconds of stages and the sizes of files are in manifests.
What a test measures is a property in its report (pytest's `record_property`).  The seconds of a
boot test are in its verdict.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from hyraxvm.config.model import SMOKE
from hyraxvm.config.names import MANIFEST
from hyraxvm.core import junit as junit_file
from hyraxvm.core.columns import align
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.stages.boot_test import verdict

PAGE: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- figures: begin -->\n"
END: Final = "<!-- figures: end -->\n"
HEADER: Final = ("what", "measured", "origin")
SLOWEST: Final = 30  # tests that `slowest` lists


class Figure(NamedTuple):
    """A row of the table: what was measured, the values with their unit, their origin."""

    what: str
    measured: str
    origin: str


def collect(artifacts: Path) -> list[Figure]:
    """Return the figures of all images in the folder `artifacts`, stages first.

    Raises `UserError`: no image is there.
    """
    manifests = [json.loads(path.read_text()) for path in sorted(artifacts.glob(f"*{MANIFEST}"))]
    if not manifests:
        raise UserError(f"{artifacts}: no image is built; type: ./inv build")
    reports = artifacts / "reports"
    return [
        *_stages(manifests),
        *_sizes(manifests),
        *_verdicts(manifests, reports),
        *_properties(reports),
        *_suites(reports),
    ]


def table(found: list[Figure]) -> str:
    """Return the figures in aligned columns, for a terminal."""
    return align([list(HEADER), *(list(figure) for figure in found)])


def slowest(artifacts: Path) -> str:
    """Return the tests of all reports that took longest, with their seconds, for a terminal."""
    tests = [
        (float(case.get("time", "0")), f"{junit.parent.name}: {case.get('name')}")
        for junit in _reports(artifacts / "reports")
        for case in junit_file.read(junit).iter("testcase")
    ]
    tests.sort(reverse=True)
    return align([["seconds", "test"], *([f"{t:.1f}", name] for t, name in tests[:SLOWEST])])


def write(found: list[Figure], page: Path = PAGE) -> None:
    """Replace what is between the lines `BEGIN` and `END` of a page by a table of the figures.

    Raises `UserError`: the page does not have the two lines.
    """
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page}: has no lines {BEGIN.strip()!r} and {END.strip()!r}; add them")
    rows = [HEADER, ("---",) * len(HEADER), *found]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    new = page.with_name(f".{page.name}")
    new.write_text("".join([before, begin, f"Measured on {machine()}.\n\n", *lines, end, after]))
    new.replace(page)


def machine() -> str:
    """Return in words what decides the figures: cores, memory and system of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "an unknown system")
    return f"a machine with {os.cpu_count()} cores and {memory:.0f} GiB, {system}"


def _stages(manifests: list[dict[str, Any]]) -> Iterator[Figure]:
    # A time of a second or less is that of the cache, not of the stage.
    names = dict.fromkeys(name for found in manifests for name in found.get("timings", {}))
    for name in names:
        took = [found["timings"][name] for found in manifests if found["timings"].get(name, 0) > 1]
        if took:
            yield Figure(f"stage {name} of one image", _range(took, "s"), "manifest: timings")


def _sizes(manifests: list[dict[str, Any]]) -> Iterator[Figure]:
    for found in manifests:
        sizes = ", ".join(f"{e['format']} {e['size'] / 1e6:.0f}" for e in found["files"])
        yield Figure(f"files of {_short(found['name'])}", f"{sizes} MB", "manifest: files")


def _verdicts(manifests: list[dict[str, Any]], reports: Path) -> Iterator[Figure]:
    for found in manifests:
        for entry in found["files"]:
            path = reports / entry["name"] / verdict.FILE
            if path.is_file():
                read = json.loads(path.read_text())
                kind = "smoke boot" if read.get("level") == SMOKE else "boot test"
                what = f"{kind} of {_short(entry['name'])}"
                yield Figure(what, f"{read['seconds']:.0f} s", "verdict: seconds")


def _properties(reports: Path) -> Iterator[Figure]:
    """Yield what boot tests recorded; the same measurement of several files is one row."""
    values: dict[str, list[str]] = {}
    for junit in _reports(reports):
        for node in junit_file.read(junit).iter("property"):
            values.setdefault(node.get("name", ""), []).append(node.get("value", ""))
    for name, texts in sorted(values.items()):
        numbers = [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text)]
        shown = _range(numbers, "") if numbers else ", ".join(sorted(set(texts)))
        yield Figure(name, shown, "boot test: property")


def _suites(reports: Path) -> Iterator[Figure]:
    for name in ("unit", "servers"):
        junit = reports / f"{name}.xml"
        if junit.is_file():
            for suite in junit_file.read(junit).iter("testsuite"):
                took = float(suite.get("time", "0"))
                what = f"`./inv test --{name}` ({suite.get('tests')} tests)"
                yield Figure(what, f"{took:.0f} s", f"{junit.name}: time")


def _reports(reports: Path) -> list[Path]:
    return sorted(reports.glob("*/junit.xml"))


def _range(values: Iterable[float], unit: str) -> str:
    found = sorted(values)
    low, high = f"{found[0]:g}", f"{found[-1]:g}"
    return f"{low if low == high else f'{low}-{high}'} {unit}".strip()


def _short(name: str) -> str:
    return f"`{name.removeprefix('hyrax-vm-')}`"
