"""What the guest's commands print with --json: valid whatever the text, and errors too."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from conftest import TREE
from hypothesis import given, settings
from hypothesis import strategies as st

LIB = TREE / "usr/lib/hyrax-vm"


def json_object(*arguments: str | bytes) -> str:
    done = subprocess.run([LIB / "json-object", *arguments], capture_output=True, timeout=10)
    assert done.stderr == b""
    return done.stdout.decode()


def sh(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has sourced lib.sh."""
    argv = ["sh", "-c", f". {LIB}/lib.sh; LIB={LIB}; {script}"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=40).filter(lambda raw: b"\0" not in raw), min_size=1))
def test_any_octets_become_a_valid_string_on_one_line(values: list[bytes]) -> None:
    said = json_object(*(x for i, value in enumerate(values) for x in (f"k{i}", value)))
    assert said.count("\n") == 1
    found = json.loads(said)
    for i, value in enumerate(values):
        # How many U+FFFD stand for what is not UTF-8 is a matter of taste.
        expected = value.decode(errors="replace")
        assert re.sub("\ufffd+", "?", found[f"k{i}"]) == re.sub("\ufffd+", "?", expected)


@settings(max_examples=60)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was(text: str) -> None:
    said = json_object("text", text)
    assert json.loads(said) == {"text": text}
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in said[:-1])


def test_the_types() -> None:
    arguments = ["s", "1", "a:text", "", "b:text", "x", "c:number", "-12.50", "d:number", "1e3"]
    arguments += ["e:flag", "", "f:flag", "no", "g:json", "[{}]", "h:json", "", "i:number", ""]
    assert json.loads(json_object(*arguments)) == {
        "s": "1",
        "a": None,
        "b": "x",
        "c": -12.5,
        "d": None,
        "e": False,
        "f": True,
        "g": [{}],
        "h": None,
        "i": None,
    }
    assert json_object() == "{}\n"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_array_of_objects(count: int) -> None:
    done = sh(f'for i in $(seq {count}); do json_object name "a,\'$i"; done | json_array')
    assert json.loads(done.stdout) == [{"name": f"a,'{i + 1}"} for i in range(count)]
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("function", "status"), [("fail", 1), ("usage_error", 2)])
def test_errors_in_both_modes(function: str, status: int) -> None:
    words = 'it\'s "no" \\ good'
    done = sh(f"me=tool; {function} 'it'\\''s \"no\" \\ good'")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"tool: {words}\n")
    done = sh(f"json=yes; {function} 'it'\\''s \"no\" \\ good'")
    assert (done.returncode, done.stderr) == (status, "")
    assert json.loads(done.stdout) == {"error": words}
    # It's not taken from the environment.
    done = sh(f"json=yes sh -c '. {LIB}/lib.sh; me=tool; {function} x'")
    assert (done.returncode, done.stderr) == (status, "tool: x\n")
