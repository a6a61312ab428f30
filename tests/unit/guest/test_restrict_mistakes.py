"""`hyrax-data restrict`: what it refuses."""

from __future__ import annotations

import pytest

from tests.unit.guest.guest_copy import Guest


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        ([], "", "needs the name of a data set"),
        (["sst"], "", "needs --user USER or --file FILE"),
        (["gone", "--user", "me"], "correct horse", "no data set is called 'gone'"),
        (["sst", "--user", "a:b"], "correct horse", "'a:b' cannot be a user"),
        (["sst", "--user", "me"], "", "me needs a password"),
        (["sst", "--user", "me"], "short\n", "the password has 5 characters"),
        (["sst", "--user"], "", "--user needs a value"),
        (["sst", "--file", "/gone"], "", "'/gone' has no users"),
        (["sst", "--file", "-"], "me:plain\n", "line 1 of '-' is not USER:HASH"),
        (["sst", "--file", "-"], "me:{PLAIN}secret\n", "line 1 of '-' is not USER:HASH"),
        (["sst", "--remove", "you"], "", "'you' is not a user of sst"),
        (["../sst", "--user", "me"], "correct horse", "cannot be a name"),
        (["sst", "rain", "--user", "me"], "correct horse", "restrict takes one name"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    guest: Guest, arguments: list[str], stdin: str, said: str
) -> None:
    guest.write("srv/hyrax/data/sst/a.nc", "")
    before = guest.state()
    status, out, err = guest.data("restrict", *arguments, stdin=stdin)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert guest.state() == before
