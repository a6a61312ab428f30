"""A small checkout like OPeNDAP's `hyrax_regression_tests`.

Autotools with Autotest; each test feeds curl a file of options in which the server's URL is filled
in, and compares with a baseline; data responses go through libdap's `getdap`.
"""

from __future__ import annotations

from pathlib import Path

CONFIGURE = """\
AC_PREREQ([2.63])
AC_INIT([little],[0.0.0],[nobody@example.org])
AC_CONFIG_AUX_DIR([conf])
AC_CONFIG_MACRO_DIR([conf])
AM_INIT_AUTOMAKE([1.10])
AC_CONFIG_FILES([Makefile atlocal])
AC_CONFIG_TESTDIR([.],[$abs_top_builddir])
AC_OUTPUT
"""
MAKEFILE = """\
AUTOMAKE_OPTIONS = foreign
check-local: atconfig atlocal testsuite
\t$(SHELL) ./testsuite $(TESTSUITEFLAGS)
testsuite: testsuite.at package.m4
\tautom4te --language=autotest -I $(srcdir) -o $@ $@.at
package.m4: configure.ac
\tprintf 'm4_define([AT_PACKAGE_%s],[little])\\n' NAME TARNAME VERSION STRING BUGREPORT >$@
"""
ATLOCAL = "# What configure knows: @PACKAGE@\n"
HEAD = """\
AT_INIT([little suite])
AT_ARG_OPTION_ARG([hyraxurl],[--hyraxurl=URL],[endpoint=$at_arg_hyraxurl],[endpoint=none])
m4_define([RESPONSE],[AT_SETUP([curl $1])
AT_CHECK([sed "s+@HYRAX_ENDPOINT_URL@+$endpoint+" $abs_srcdir/$1 | curl -sf -K -], [0], [stdout])
AT_CHECK([diff -b -B $abs_srcdir/$1.baseline stdout], [0], [ignore])
AT_XFAIL_IF([test "$2" = xfail])
AT_CLEANUP])
m4_define([VALUES],[AT_SETUP([curl $1])
AT_CHECK([sed "s+@HYRAX_ENDPOINT_URL@+$endpoint+" $abs_srcdir/$1 | curl -sf -K - | getdap -Ms -],
    [0], [stdout])
AT_CHECK([grep -f $abs_srcdir/$1.baseline stdout], [0], [ignore])
AT_CLEANUP])
"""


def write_suite(folder: Path, tests: dict[str, str], inputs: dict[str, tuple[str, str]]) -> Path:
    """Write a checkout.

    `tests` are lines for `testsuite.at`: a test's name -> its macro, with `%s` for the name, or
    text that is taken as it is; `inputs` are their files: name -> (path below the server's URL,
    baseline).
    """
    files = {"configure.ac": CONFIGURE, "Makefile.am": MAKEFILE, "atlocal.in": ATLOCAL}
    lines = [text % name if "%s" in text else text for name, text in tests.items()]
    files["testsuite.at"] = HEAD + "\n".join(lines) + "\n"
    for name, (path, baseline) in inputs.items():
        files[name] = f'url = "@HYRAX_ENDPOINT_URL@/{path}"\n'
        files[f"{name}.baseline"] = baseline
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
