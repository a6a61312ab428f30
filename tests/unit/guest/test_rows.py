"""json-rows: the guest's reader of JSON reads what Python's json module writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.guest.guest_copy import TREE
from tests.unit.guest.perl import perl

TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs"]), max_size=12)
VALUE = st.one_of(TEXT, st.none(), st.integers(), st.booleans(), st.lists(TEXT, max_size=2))
NESTED = st.one_of(VALUE, st.dictionaries(TEXT, VALUE, max_size=2))
ROW = st.fixed_dictionaries({"name": TEXT, "problem": st.none() | TEXT, "x": NESTED})


def rows(text: str, *keys: str) -> tuple[int, list[list[str]]]:
    program = TREE / "usr/lib/hyrax-vm/json-rows"
    status, out, err = perl().run(program, *keys, given=text.encode())
    assert err == b""
    return status, [line.split("\x1f") for line in out.decode().split("\n")[:-1]]


@settings(max_examples=60)
@given(st.lists(ROW, max_size=3), st.sampled_from([None, 1]))
def test_what_is_asked_for_and_nothing_else(
    found: list[dict[str, object]], indent: int | None
) -> None:
    text = json.dumps(found, ensure_ascii=False, indent=indent)
    expected = [[row["name"], row["problem"] or "", ""] for row in found]
    assert rows(text, "name", "problem", "absent") == (0, expected)


def test_no_character_breaks_a_line() -> None:
    assert rows('[{"a": "x\\ny\\u001f\\tz\\u00e9"}]', "a") == (0, [["x y? z?"]])


@pytest.mark.parametrize("text", ["", '{"error": "x"}', "hyrax-data: no"])
def test_what_is_no_array_is_told(text: str) -> None:
    assert rows(text, "a") == (1, [])
