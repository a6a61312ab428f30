"""A small suite like `hyrax_regression_tests`, run against a real DAP server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.tools import regression
from tests.unit.dapdir.running import Server
from tests.unit.tools.little_suite import write_suite

DDS = "Dataset {\n    Int32 t[n = 3];\n} small%2Enc;\n"
TESTS = {
    "nc3/small.nc.dds": "RESPONSE([%s])",
    "nc3/small.nc.dods": "VALUES([%s])",
    "nc3/changed.nc.dds": "RESPONSE([%s])",
    "nc3/gone.nc.dods": "VALUES([%s])",
    "nc3/known.nc.dds": "RESPONSE([%s],[xfail])",
    "nc3/mended.nc.dds": "RESPONSE([%s],[xfail])",
    "left out": "AT_SETUP([%s])\nAT_SKIP_IF([true])\nAT_CLEANUP",
}
INPUTS = {
    "nc3/small.nc.dds": ("data/nc/small.nc.dds", DDS),
    "nc3/small.nc.dods": ("data/nc/small.nc.dods", "2, 4, 8\n"),
    "nc3/changed.nc.dds": ("data/nc/small.nc.dds", DDS.replace("n = 3", "n = 4")),
    "nc3/gone.nc.dods": ("data/nc/gone.nc.dods", "2, 4, 8\n"),
    "nc3/known.nc.dds": ("data/nc/gone.nc.dds", DDS),
    "nc3/mended.nc.dds": ("data/nc/small.nc.dds", DDS),
}


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "root/data/nc"
    folder.mkdir(parents=True)
    with netCDF4.Dataset(folder / "small.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("n", 3)
        file.createVariable("t", "i4", ("n",))[:] = np.array([2, 4, 8])
    server = Server(tmp_path / "root", tmp_path / "dapdir.log")
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "checkout", TESTS, INPUTS)


def test_the_counts_are_those_of_the_suite(
    checkout: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server is on this machine, so no proxy must be used.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    before = sorted(path.name for path in checkout.iterdir())
    regression.check(checkout)
    found = regression.suite(checkout, url, tmp_path, tmp_path / "log", lambda line: None)
    bad = ("curl nc3/changed.nc.dds", "curl nc3/gone.nc.dods", "curl nc3/mended.nc.dds")
    assert found == regression.Counts(2, 1, 1, bad)
    assert str(found) == "2 passed, 3 failed, 1 failed as expected, 1 skipped"
    # The user's checkout stays unchanged; the log of a failed test is kept.
    assert sorted(path.name for path in checkout.iterdir()) == before
    details = (tmp_path / "testsuite.log").read_text()
    assert "<     Int32 t[n = 4];\n---\n>     Int32 t[n = 3];" in details


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("testsuite.at", "AT_INIT([little\n", "make"),
        ("configure.ac", "AC_INIT([little],[0],[x])\nAC_MSG_ERROR([no compiler])\n", "configure"),
        ("configure.ac", "AC_INIT([little\n", "autoreconf"),
        ("testsuite.at", "AT_INIT([little])\n", "invalid variable name: [`']--hyraxurl'"),
        ("Makefile.am", "AUTOMAKE_OPTIONS = foreign\ncheck-local:\n\ttrue\n", "ran no test"),
    ],
    ids=["no suite", "configure fails", "not autoconf's", "empty", "nothing to check"],
)
def test_a_suite_that_does_not_run_is_no_result(
    checkout: Path, tmp_path: Path, file: str, text: str, said: str
) -> None:
    (checkout / file).write_text(text)
    with pytest.raises(Failure, match=said):
        regression.suite(checkout, "http://x", tmp_path, tmp_path / "log", lambda line: None)


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no testsuite\.at"):
        regression.check(tmp_path)


def test_a_missing_tool_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"needs autoreconf, .* apt-get install autoconf"):
        regression.check(checkout)


def test_files_of_the_checkout_go_where_the_suite_looks_for_them(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands for the guest run here, in a temporary directory."""
    (checkout / "data/nc").mkdir(parents=True)
    (checkout / "data/nc/a.nc").write_bytes(b"x" * 5000)
    (checkout / "data/nc/a.nc").chmod(0o600)
    target = tmp_path / "srv"
    target.mkdir()

    def command(text: str) -> str:
        words = text.replace("sudo -n ", "").replace(regression.DATA, str(target))
        words = words.replace("10.0.2.2", "127.0.0.1")
        with os.popen(words) as stream:
            output = stream.read()
        return output

    regression.place_data(command, checkout)
    assert (target / "nc/a.nc").read_bytes() == b"x" * 5000
    assert [path.name for path in target.iterdir()] == ["nc"]
    assert (target / "nc/a.nc").stat().st_mode & 0o777 == 0o644


def test_an_image_without_the_files_says_what_to_do(checkout: Path) -> None:
    with pytest.raises(Failure, match=r"has no /usr/share/hyrax/data; copy .* to .*/data"):
        regression.place_data(lambda text: "0\n", checkout)


def test_a_baseline_turns_the_result_into_a_difference(tmp_path: Path) -> None:
    lines = [
        "  1: curl nc3/a.dds                 ok",
        "  2: curl nc3/b.dds                 FAILED (testsuite.at:2)",
        "  3: CURL nc3/c.dap                 FAILED (testsuite.at:3)",
        "  4: curl nc3/d.dds                 skipped (testsuite.at:4)",
        "  5: curl nc3/e.dds                 expected failure (testsuite.at:5)",
        "  6: curl nc3/f.dds                 ok",
    ]
    found = regression.counts(lines)
    path = tmp_path / "baseline"
    path.write_text("# natively\n\n3: CURL nc3/c.dap \ncurl nc3/f.dds\n4: curl nc3/d.dds\n")
    compared = regression.difference(found, regression.read_baseline(path))
    assert compared == regression.Difference(
        ("curl nc3/b.dds",), ("curl nc3/f.dds",), ("curl nc3/d.dds",)
    )
    assert str(compared).splitlines() == [
        "worse: curl nc3/b.dds", "better: curl nc3/f.dds", "not run: curl nc3/d.dds",
    ]  # fmt: skip
    path.write_text("curl nc3/b.dds\nCURL nc3/c.dap\n")
    same = regression.difference(found, regression.read_baseline(path))
    assert (same.worse, same.better, same.not_run) == ((), (), ())
    assert str(same) == "the same tests fail as in the baseline"
    # Without a baseline, each failure counts.
    assert regression.difference(found, frozenset()).worse == found.failures


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("passed 164\nsuite failed here\n", "is not the name of a test")],
)
def test_a_wrong_baseline_is_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "baseline"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        regression.read_baseline(path)
    assert "\n" not in str(caught.value)
