"""The figures of real runs, from manifests and reports as the stages write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.tools import bench_build, figures

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="2" time="81.5">
<testcase name="test_start[{name}@first]" time="40.25"><properties>
<property name="seconds from power-on to the first DAP answer" value="{start}" />
<property name="CPU seconds of the guest" value="12.5" />
<property name="lines typed on the console" value="3" />
<property name="accelerator" value="tcg" /></properties></testcase>
<testcase name="test_short[{name}@first]" time="0.5" />
</testsuite></testsuites>
"""


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A folder `artifacts/` of two tested images; one took its root file system from the cache."""
    for image, start, stages in (
        ("nfs", 31.2, {"rootfs": 70.5, "disk": 6.0}),
        ("smb", 33, {"rootfs": 0.0, "disk": 7.5}),
    ):
        name = f"hyrax-vm-{image}-dapdir1.0.0-debian12-amd64"
        files = [{"name": f"{name}.zip", "format": "vmx", "size": 203_400_000}]
        manifest = {"name": name, "timings": stages, "files": files}
        (tmp_path / f"{name}.manifest.json").write_text(json.dumps(manifest))
        folder = tmp_path / "reports" / f"{name}.zip"
        folder.mkdir(parents=True)
        (folder / "junit.xml").write_text(JUNIT.format(name=f"{name}.zip", start=start))
        read = {"key": "k", "level": "full" if image == "nfs" else "smoke", "seconds": 600.4}
        (folder / "verdict.json").write_text(json.dumps(read))
    (tmp_path / "reports" / "unit.xml").write_text(JUNIT.format(name="u", start=1))
    return tmp_path


def test_every_origin_gives_its_figures(artifacts: Path) -> None:
    found = {figure.what: figure[1:] for figure in figures.collect(artifacts)}
    assert found == {
        "stage rootfs of one image": ("70.5 s", "manifest: timings"),
        "stage disk of one image": ("6-7.5 s", "manifest: timings"),
        "files of `nfs-dapdir1.0.0-debian12-amd64`": ("vmx 203 MB", "manifest: files"),
        "files of `smb-dapdir1.0.0-debian12-amd64`": ("vmx 203 MB", "manifest: files"),
        "boot test of `nfs-dapdir1.0.0-debian12-amd64.zip`": ("600 s", "verdict: seconds"),
        "smoke boot of `smb-dapdir1.0.0-debian12-amd64.zip`": ("600 s", "verdict: seconds"),
        "accelerator": ("tcg", "boot test: property"),
        "seconds from power-on to the first DAP answer": ("31.2-33", "boot test: property"),
        "`./inv test --unit` (2 tests)": ("82 s", "unit.xml: time"),
    }
    assert figures.table(figures.collect(artifacts)).splitlines()[0].split() == [
        "what",
        "measured",
        "origin",
    ]


def test_builds_are_shown_beside_the_peers(artifacts: Path) -> None:
    case = {"what": "nothing has changed", "made": 2.2, "tested": 3.4, "stages": {}}
    stages = {"server": 40.0, "rootfs": 50.0, "disk": 5.0, "provision": 40.0, "guest": 4.0}
    cold = {"what": "nothing is in the cache", "made": 140.0, "tested": 230.6, "stages": stages}
    report = {"command": "./inv build nfs", "date": "2026-01-31", "cases": [cold, case]}
    (artifacts / "reports" / bench_build.REPORT).write_text(json.dumps(report))
    found = {figure.what: figure.measured for figure in figures.collect(artifacts)}
    assert found["`./inv build nfs`: nothing is in the cache"] == "made 140 s, tested 231 s"
    assert found["`./inv build nfs`: nothing has changed"] == "made 2 s, tested 3 s"
    assert found["rootfs, disk, provision, guest, cold"] == "99 s"
    assert sum("for comparison" in what for what in found) == len(figures.PEERS) == 3


def test_the_slowest_tests_come_first(artifacts: Path) -> None:
    lines = figures.slowest(artifacts).splitlines()
    assert [line.split()[0] for line in lines] == ["seconds", "40.2", "40.2", "0.5", "0.5"]
    assert "hyrax-vm-nfs-dapdir1.0.0-debian12-amd64.zip: test_short[" in "".join(lines)
    costs = [line.split()[1:3] for line in lines]
    assert costs == [["CPU", "typed"], ["12.5", "3"], ["12.5", "3"], ["-", "-"], ["-", "-"]]


def test_only_what_is_between_the_marks_is_written(artifacts: Path, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Title\n\n{figures.BEGIN}old\n{figures.END}\nMeasured by hand.\n")
    found = figures.collect(artifacts)
    figures.write(found, page)
    text = page.read_text()
    assert text.startswith(f"# Title\n\n{figures.BEGIN}Measured on a machine with ")
    assert text.endswith(f"{figures.END}\nMeasured by hand.\n")
    assert "| stage disk of one image | 6-7.5 s | manifest: timings |\n" in text
    assert "old" not in text
    page.write_text("# Title\n")
    with pytest.raises(UserError, match="has no lines '<!-- figures: begin -->'"):
        figures.write(found, page)
    assert page.read_text() == "# Title\n"


def test_nothing_built_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image is built; type: \./inv build"):
        figures.collect(tmp_path)


def test_the_page_of_this_checkout_has_the_marks() -> None:
    text = figures.PAGE.read_text()
    assert text.count(figures.BEGIN) == text.count(figures.END) == 1
