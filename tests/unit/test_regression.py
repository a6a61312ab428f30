"""A small suite of the same make as `hyrax_regression_tests`, run against a small server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm import regression
from hyraxvm.errors import Failure, UserError

CONFIGURE = """\
AC_INIT(little, 0.0.0, nobody@example.org)
AM_INIT_AUTOMAKE([1.10 foreign])
AC_CONFIG_FILES([Makefile])
AC_CONFIG_TESTDIR([.], [$abs_top_builddir])
AC_OUTPUT
"""
MAKEFILE = """\
check-local: atconfig testsuite
\t./testsuite $(TESTSUITEFLAGS)
testsuite: testsuite.at package.m4
\tautom4te --language=autotest -o $@ $@.at
"""
PACKAGE = "".join(
    f"m4_define([AT_PACKAGE_{name}],[little])\n"
    for name in ("NAME", "TARNAME", "VERSION", "STRING", "BUGREPORT")
)
SUITE = """\
AT_INIT([little])
AT_ARG_OPTION_ARG([hyraxurl],[--hyraxurl=URL],[url=$at_arg_hyraxurl],[url=none])
AT_SETUP([curl nc3/there.dds])
AT_CHECK([curl -sf $url/there.dds], [0], [Dataset
])
AT_CLEANUP
AT_SETUP([curl nc3/missing.dds (again)])
AT_CHECK([curl -sf $url/missing.dds], [0], [ignore])
AT_CLEANUP
AT_SETUP([known to fail])
AT_XFAIL_IF([true])
AT_CHECK([false])
AT_CLEANUP
AT_SETUP([left out])
AT_SKIP_IF([true])
AT_CLEANUP
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/opendap/there.dds" else 404)
        self.end_headers()
        self.wfile.write(b"Dataset\n")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/opendap"
        server.shutdown()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    texts = {"configure.ac": CONFIGURE, "Makefile.am": MAKEFILE, "package.m4": PACKAGE}
    for name, text in {**texts, "testsuite.at": SUITE}.items():
        (folder / name).write_text(text)
    return folder


def test_the_counts_are_those_of_the_suite(checkout: Path, url: str, tmp_path: Path) -> None:
    before = sorted(path.name for path in checkout.iterdir())
    regression.check(checkout)
    found = regression.suite(checkout, url, tmp_path, tmp_path / "log", lambda line: None)
    assert found == regression.Counts(1, 1, 1, ("curl nc3/missing.dds (again)",))
    assert str(found) == "1 passed, 1 failed, 1 failed as expected, 1 skipped"
    # The user's checkout is left as it is.
    assert sorted(path.name for path in checkout.iterdir()) == before


def test_a_suite_that_does_not_build_is_no_result(checkout: Path, tmp_path: Path) -> None:
    (checkout / "testsuite.at").write_text("AT_INIT([little\n")
    with pytest.raises(Failure, match="make"):
        regression.suite(checkout, "http://x", tmp_path, tmp_path / "log", lambda line: None)


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no testsuite\.at"):
        regression.check(tmp_path)


def test_a_missing_tool_is_named(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"needs autoreconf, .* apt-get install autoconf"):
        regression.check(checkout)
