"""The settings file as TOML: it is read as by other parsers, or refused."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.guest.guest_copy import TREE
from tests.unit.guest.perl import perl

Table = list[str | int | dict[str, object]]
"""A table's name, 1 if there may be many of that name, and its values."""
Problem = tuple[int, str]
"""The number of a line, and what is wrong with it."""
Entries = dict[str, str]
"""Keys, and their values as they are written."""
File = tuple[Entries, list[Entries], str]
"""The entries of a table and of tables of the same name, and what ends a line."""

# Prints as JSON what Toml.pm reads:
# {"tables": [[name, many, {key: value}]], "problems": [[line, words]]}.
DUMP = r"""
use strict; use warnings;
require "$ARGV[0]/Toml.pm";
local $/;
my ($tables, $problems) = Toml::parse(<STDIN>);
sub text { my ($t) = @_; $t =~ s/(["\\\x00-\x1f])/sprintf '\\u%04x', ord $1/ge; qq("$t") }
sub value { my ($v) = @_; ref $v ? '[' . join(',', map { text($_) } @$v) . ']' : text($v) }
sub entries { join ',', map { text($_->{key}) . ':' . value($_->{value}) } @{ $_[0]{entries} } }
my @tables = map { '[' . text($_->{name}) . ",$_->{many},{" . entries($_) . '}]' } @$tables;
my @problems = map { "[$_->[0]," . text($_->[1]) . ']' } @$problems;
print '{"tables":[', join(',', @tables), '],"problems":[', join(',', @problems), ']}';
"""


def read(text: str | bytes) -> tuple[list[Table], list[Problem]]:
    raw = text if isinstance(text, bytes) else text.encode()
    status, out, err = perl().run(dump(), TREE / "usr/lib/hyrax-vm", given=raw)
    assert (status, err) == (0, b"")
    found = json.loads(out)
    return found["tables"], [(line, words) for line, words in found["problems"]]


@functools.cache
def dump() -> Path:
    path = Path(tempfile.mkdtemp(prefix="toml-"), "dump.pl")
    path.write_text(DUMP)
    atexit.register(shutil.rmtree, path.parent)
    return path


def plain(text: str) -> list[Table]:
    """Return what tomllib reads, in Toml.pm's form: values that are not strings, as written."""

    def shown(value: object) -> object:
        if isinstance(value, list):
            return [shown(each) for each in value]
        return str(value).lower() if isinstance(value, (bool, int)) else value

    found: list[Table] = []
    for name, content in tomllib.loads(text).items():
        tables = content if isinstance(content, list) else [content]
        for table in tables:
            values = {key: shown(value) for key, value in table.items()}
            found.append([name, int(isinstance(content, list)), values])
    return found


STRING = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=12
).map(lambda text: json.dumps(text, ensure_ascii=False))
LITERAL = st.from_regex(r"'[^'\x00-\x08\x0a-\x1f\x7f-\x9f]{0,12}'", fullmatch=True)
SCALAR = st.one_of(STRING, LITERAL, st.sampled_from(["true", "false", "0", "42", "-7"]))
ARRAY = st.lists(st.one_of(STRING, LITERAL), max_size=3).flatmap(
    lambda values: st.sampled_from([", ", ",\n  ", " , # more\n"]).map(
        lambda comma: "[" + comma.join(values) + "]"
    )
)
ENTRIES = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True), st.one_of(SCALAR, ARRAY), max_size=4
)
FILE = st.tuples(ENTRIES, st.lists(ENTRIES, max_size=2), st.sampled_from(["\n", "\r\n"]))


def written(file: File) -> str:
    one, many, end = file
    lines = ["# settings", "[one]", *(f"{key} = {value}" for key, value in one.items())]
    for entries in many:
        lines += ["", "[[many]]  # again", *(f"{k} ={v}\t# x" for k, v in entries.items())]
    return "\n".join(lines).replace("\n", end) + end


@given(FILE)
@example(({"a": '"\\u00e9\\\\\\"\\t"'}, [{"a": "[]"}], "\n"))
def test_it_reads_what_the_standard_library_reads(file: File) -> None:
    text = written(file)
    assert read(text) == (plain(text), [])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x = 1.5", "a value must be"),
        ("x = 2026-01-01", "a value must be"),
        ("x = {a = 1}", "a value must be"),
        ("x = yes", "a value must be"),
        ('x = """a"""', "strings of several lines"),
        ('x = "a', 'a string must end with "'),
        ("x = 'a", "a string must end with '"),
        ('x = "a\\q"', "'\\q' is not an escape"),
        ('x = "\\ud800"', "is not a character"),
        ('x = "a" b', "there is something after the end"),
        ("x = [1, [2]]", "arrays in arrays"),
        ('x = ["a" "b"]', "separated by commas"),
        ("x", "neither [table] nor key = value"),
        ("a.b = 1", "neither [table] nor key = value"),
        ("[x", "a table's header"),
        ("[x.y]", "a table's header"),
        ("[[x]", "must end in ]]"),
        ("[top]", "[top] is there twice"),
        ("a = 2", "a is there twice"),
    ],
)
def test_what_it_does_not_read_is_told_with_its_line_and_the_rest_is_read(
    line: str, told: str
) -> None:
    tables, problems = read(f"[top]\na = 1\n{line}\n[rest]\nb = 2\n")
    assert [(number, told in words) for number, words in problems] == [(3, True)], problems
    assert tables == [["top", 0, {"a": "1"}], ["rest", 0, {"b": "2"}]]


def test_keys_below_a_bad_header_belong_to_nobody() -> None:
    tables, problems = read("[vm]\n[net work]\naddress = 'x'\n[rest]\nb = 'y'\n")
    assert tables == [["vm", 0, {}], ["rest", 0, {"b": "y"}]]
    assert [number for number, _ in problems] == [2]


def test_a_file_that_is_not_utf8_and_one_from_windows() -> None:
    assert read(b"[a]\nb = '\xff'\n") == ([], [(1, "the file is not UTF-8")])
    assert read(b"\xef\xbb\xbf[a]\r\nb = 'x'\r\n") == ([["a", 0, {"b": "x"}]], [])
