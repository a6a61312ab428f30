"""What the guest's commands print with --json: valid whatever the text, and errors too."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.guest.guest_copy import TREE, Guest
from tests.unit.guest.perl import perl

LIB = TREE / "usr/lib/hyrax-vm"


def json_object(*arguments: str | bytes) -> str:
    status, out, err = perl().run(LIB / "json-object", *arguments)
    assert (status, err) == (0, b"")
    return out.decode()


def sh(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has sourced lib.sh."""
    argv = ["sh", "-c", f". {LIB}/lib.sh; {script}"]
    env = os.environ | {"HYRAX_ROOT": str(TREE)}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=10)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=40).filter(lambda raw: b"\0" not in raw), min_size=1))
def test_any_octets_become_a_valid_string_on_one_line(values: list[bytes]) -> None:
    said = json_object(*(x for i, value in enumerate(values) for x in (f"k{i}", value)))
    assert said.count("\n") == 1
    found = json.loads(said)
    for i, value in enumerate(values):
        # Readers differ in how many U+FFFD replace bytes that are not UTF-8.
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


def of(guest: Guest, *arguments: str, stdin: str = "") -> tuple[int, Any]:
    """Return (exit status, the JSON that hyrax-data prints); it must print one line and no more."""
    status, out, err = guest.data(*arguments, "--json", stdin=stdin)
    assert (err, out.count("\n")) == ("", 1)
    return status, json.loads(out)


def test_each_command(guest: Guest, port: int, http: dict[str, str]) -> None:
    assert of(guest, "list") == (0, [])
    assert of(guest, "status") == (0, [])
    url = f"nfs://127.0.0.1:{port}/it's%20%22%C3%A9"
    (guest.root / "export").mkdir()
    kept: dict[str, object] = {
        "name": "sst",
        "source": url,
        "url": "http://192.0.2.7:8080/opendap/data/sst/",
        "kind": "nfs",
        "user": None,
        "version": "4.1",
        "options": "timeo=100",
        "users": [],
        "hidden": False,
    }
    arguments = ("--as=sst", "--nfs-version=4.1", "--options=timeo=100")
    empty = "the NFS export is empty; files put there later appear by themselves"
    assert of(guest, "add", url, *arguments) == (0, {**kept, "warning": empty})
    assert of(guest, "list") == (0, [kept])
    status, (row,) = of(guest, "status", "sst")
    assert status == 0
    assert {key: row[key] for key in kept} == kept
    assert (row["state"], row["problem"], row["last_access_s"]) == ("waiting", None, None)
    assert set(row) - set(kept) == {
        *("state", "problem", "size_bytes", "used_bytes", "last_access_s", "rtt_ms")
    }
    space = os.statvfs(guest.root)
    assert row["size_bytes"] == space.f_blocks * space.f_frsize
    assert 0 < row["used_bytes"] < row["size_bytes"]
    assert 0 <= row["rtt_ms"] < 100

    guest.write('srv/hyrax/data/sst/a\tb".nc', "x")
    http["/opendap/data/sst/"] = "<html>"
    http["/opendap/data/sst/a%09b%22.nc.dds"] = 'Dataset {\n} "a";\n'
    assert of(guest, "test", "sst") == (
        0,
        {
            "name": "sst",
            "listing": "http://127.0.0.1:8080/opendap/data/sst/",
            "file": 'a\tb".nc',
            "dds_url": "http://127.0.0.1:8080/opendap/data/sst/a%09b%22.nc.dds",
            "dds": 'Dataset {\n} "a";',
        },
    )
    (guest.root / 'srv/hyrax/data/sst/a\tb".nc').unlink()
    assert of(guest, "remove", "sst") == (0, {"name": "sst", "removed": True})
    assert of(guest, "list") == (0, [])


def test_problems_and_mistakes(guest: Guest, port: int, closed_port: int) -> None:
    url = f"nfs://127.0.0.1:{closed_port}/sst"
    before = guest.state()
    status, found = of(guest, "add", url)
    assert status == 1 and set(found) == {"error"} and "refuses connections" in found["error"]
    for arguments in (["add"], ["remove", 'no\x1b"\\'], ["nothing"], [], ["test", "x"]):
        status, found = of(guest, *arguments)
        assert status == 2 and set(found) == {"error"}, arguments
    assert guest.state() == before
    status, found = of(guest, "add", url, "--force")
    assert status == 0 and "tries again whenever somebody reads it" in found["warning"]
    status, (row,) = of(guest, "status")
    assert status == 1 and row["state"] == "away" and "refuses connections" in row["problem"]
    assert [row["size_bytes"], row["used_bytes"], row["rtt_ms"]] == [None] * 3


def test_text_of_a_hostile_file_server(guest: Guest, port: int) -> None:
    """An unreadable file whose name has control characters and invalid UTF-8."""
    name = b'a"\\\n\x1b[2J\xff\xc3\xa9.nc'
    guest.write("forbid-head", "")
    (guest.root / "export").mkdir()
    (guest.root / "export" / os.fsdecode(name)).write_bytes(b"x")
    status, found = of(guest, "add", f"nfs://127.0.0.1:{port}/sst")
    assert status == 0
    assert "may not read 'a\"\\??[2J\ufffdé.nc'" in found["warning"]


def test_users_of_shares_and_folders(guest: Guest) -> None:
    guest.write("srv/hyrax/data/mine/a.nc", "x")
    guest.pretend_access("smb")
    arguments = ("smb://no-such.invalid/sst", "--user", r"SHIP\Jörg", "--later")
    status, found = of(guest, "add", *arguments, stdin="pw")
    assert (status, found["user"], found["kind"]) == (0, r"SHIP\Jörg", "smb")
    assert "pw" not in json.dumps(found)
    rows = of(guest, "list")[1]
    assert [(row["kind"], row["source"]) for row in rows] == [
        ("smb", "smb://no-such.invalid/sst"),
        ("local", "/srv/hyrax/data/mine"),
    ]
    assert (rows[1]["user"], rows[1]["version"], rows[1]["options"]) == (None, None, None)
