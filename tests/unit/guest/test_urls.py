"""The parser of nfs:// and smb:// URLs: what it accepts, what it refuses, and fuzzing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.guest.perl import perl

SAFE = "/._~!$&'()*+=:@-"
PARSER = Path(__file__).parents[3] / "provision/guest/usr/lib/hyrax-vm/data-url"


def parse(url: str | bytes, *login: str) -> tuple[int, str, str]:
    status, out, err = perl().run(PARSER, url, *login)
    return status, out.decode(), err.decode("latin-1")


def test_it_is_a_program() -> None:
    done = subprocess.run([PARSER, "nfs://h/x"], capture_output=True, timeout=10)
    assert (done.returncode, *map(bytes.decode, (done.stdout, done.stderr))) == parse("nfs://h/x")
    done = subprocess.run([PARSER, "x"], capture_output=True, timeout=10)
    assert (done.returncode, *map(bytes.decode, (done.stdout, done.stderr))) == parse("x")


@pytest.mark.parametrize(
    ("url", "host", "port", "export"),
    [
        ("nfs://10.0.2.2/export/sst", "10.0.2.2", 2049, "/export/sst"),
        ("NFS://files.example.org:12049/x", "files.example.org", 12049, "/x"),
        ("nfs://nas_1/a%20b", "nas_1", 2049, "/a b"),
        ("nfs://h/100%25", "h", 2049, "/100%"),
        ("nfs://h/%E6%B5%B7", "h", 2049, "/海"),
        ("nfs://h/海", "h", 2049, "/海"),
        ("nfs://h/a:b", "h", 2049, "/a:b"),
        ("nfs://h/", "h", 2049, "/"),
        ("nfs://h//a///b/", "h", 2049, "/a/b"),
        ("nfs://[2001:db8::1]:111/x", "[2001:db8::1]", 111, "/x"),
        ("nfs://[::ffff:10.0.2.2]/x", "[::ffff:10.0.2.2]", 2049, "/x"),
        ("nfs://h:065535/x", None, None, None),
        ("nfs://h:00022/x", "h", 22, "/x"),
        ("nfs://h/..a/b..", "h", 2049, "/..a/b.."),
    ],
)
def test_taken_apart(url: str, host: str | None, port: int, export: str) -> None:
    status, out, _ = parse(url)
    if host is None:
        assert (status, out) == (2, "")
    else:
        place = host if port == 2049 else f"{host}:{port}"
        url = f"nfs://{place}{quote(export, safe=SAFE)}"
        assert (status, out) == (0, f"nfs\n{host}\n{port}\n{export}\n{url}\n\n\n")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not an nfs:// or smb:// URL"),
        ("10.0.2.2:/export", "not an nfs:// or smb:// URL"),
        ("http://h/x", "not an nfs:// or smb:// URL"),
        ("nfs:/h/x", "not an nfs:// or smb:// URL"),
        ("nfs://h", "names no export"),
        ("nfs:///x", "names no host"),
        ("nfs://:2049/x", "names no host"),
        ("nfs://h:0/x", "not a port"),
        ("nfs://h:65536/x", "not a port"),
        ("nfs://h:-1/x", "not a port"),
        ("nfs://h:/x", "not a port"),
        ("nfs://h:1e3/x", "not a port"),
        ("nfs://h:2049;id/x", "not a port"),
        ("nfs://10.0.2.256/x", "not an IPv4 address"),
        ("nfs://10.0.2/x", "not an IPv4 address"),
        ("nfs://10.0.2.010/x", "not an IPv4 address"),
        ("nfs://fe80::1/x", "brackets"),
        ("nfs://[fe80::1/x", "not HOST"),
        ("nfs://[::g]/x", "not an IPv6 address"),
        ("nfs://[10.0.2.2]/x", "not an IPv6 address"),
        ("nfs://-oProxy/x", "not a host name"),
        ("nfs://a..b/x", "not a host name"),
        ("nfs://$(id)/x", "not a host name"),
        ("nfs://a,b/x", "not a host name"),
        ("nfs://user@h/x", "holds '@', but NFS has no user name"),
        ("nfs://h/a/../etc", "path component '..'"),
        ("nfs://h/%2e%2e/etc", "path component '..'"),
        ("nfs://h/..", "path component '..'"),
        ("nfs://h/./x", "path component '.'"),
        ("nfs://h/a%2f..%2fb", "path component '..'"),
        ("nfs://h/a%0aOptions=suid", "control character"),
        ("nfs://h/a%00", "control character"),
        ("nfs://h/a%7f", "control character"),
        ("nfs://h/a%C2%85b", "control character"),
        ("nfs://h/a\nb", "control character"),
        ("nfs://h/a b", "%20"),
        ("nfs://h/a%5c", "backslash"),
        ("nfs://h/a%", "two hexadecimal digits"),
        ("nfs://h/a%zz", "two hexadecimal digits"),
        ("nfs://h/a%ff", "not UTF-8"),
        ("nfs://h/a%20", "ends in a space"),
        ("nfs://h/a?b", "%3F"),
        ("nfs://h/a#b", "%23"),
        ("nfs://h/" + "a" * 2000, "longer than 1024"),
    ],
)
def test_refused_in_one_line(url: str, why: str) -> None:
    status, out, err = parse(url)
    assert (status, out) == (2, "")
    assert why in err
    assert err.count("\n") == 1
    assert err.isascii() and err[:-1].isprintable()


@pytest.mark.parametrize(
    ("arguments", "place", "path", "login"),
    [
        (["smb://h/sst"], "h", "/sst", ("", "")),
        (["SMB://h:4450/sst/"], "h:4450", "/sst", ("", "")),
        (["cifs://h/s%20x"], "h", "/s x", ("", "")),
        ([r"\\h\sst"], "h", "/sst", ("", "")),
        ([r"\\h\My Data\a\b"], "h", "/My Data/a/b", ("", "")),
        (["//h:4450/c$/100%"], "h:4450", "/c$/100%", ("", "")),
        (["smb://me@h/sst"], "h", "/sst", ("me", "")),
        (["smb://SHIP;me@h/sst"], "h", "/sst", ("me", "SHIP")),
        (["smb://h/sst", "me"], "h", "/sst", ("me", "")),
        (["smb://h/sst", r"SHIP\me"], "h", "/sst", ("me", "SHIP")),
        (["smb://h/sst", "SHIP/me"], "h", "/sst", ("me", "SHIP")),
        (["smb://h/sst", "me@ship.example"], "h", "/sst", ("me@ship.example", "")),
        (
            ["smb://h/sst", r"MicrosoftAccount\me+x@example.org"],
            "h",
            "/sst",
            ("me+x@example.org", "MicrosoftAccount"),
        ),
        (["smb://h/sst", "Jörg Æ", "SHIP"], "h", "/sst", ("Jörg Æ", "SHIP")),
    ],
)
def test_shares_and_their_users(
    arguments: list[str], place: str, path: str, login: tuple[str, str]
) -> None:
    host, _, port = place.partition(":")
    url = f"smb://{place}{quote(path, safe=SAFE)}"
    lines = ("smb", host, port or "445", path, url, *login)
    assert parse(*arguments) == (0, "".join(f"{line}\n" for line in lines), "")
    assert parse(url, *login)[:2] == parse(*arguments)[:2]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["smb://h"], "names no share"),
        (["smb://h/"], "names no share"),
        ([r"\\h"], "names no share"),
        ([r"\h\sst"], "lost a backslash to the shell; put it in quotes"),
        ([r"\\h\a\..\b"], "path component '..'"),
        (["smb://[::1]/sst"], "use the host's name"),
        (["smb://h/a,uid=0"], "holds ','"),
        (["smb://h/a%2cuid=0"], "holds ','"),
        (["smb://h/a%5cb"], "backslash"),
        (["//h/a\nb"], "control character"),
        (["smb://me:secret@h/sst"], "do not put the password into the URL"),
        (["nfs://me:secret@h/sst"], "do not put the password into the URL"),
        (["smb://me@h/sst", "you"], "named twice"),
        (["smb://h/sst", r"SHIP\me", "SHIP"], "the domain is named twice"),
        (["smb://h/sst", "", "SHIP"], "--domain needs a user"),
        (["smb://h/sst", "a,b"], "cannot be the name"),
        (["smb://h/sst", "a\nb"], "cannot be the name"),
        (["smb://h/sst", "a", "b\npassword=x"], "cannot be the name"),
        (["smb://h/sst", r"a\b\c"], "cannot be the name"),
    ],
)
def test_shares_refused_in_one_line(arguments: list[str], why: str) -> None:
    status, out, err = parse(*arguments)
    assert (status, out) == (2, "")
    assert why in err and err.count("\n") == 1
    assert "secret" not in err


@settings(max_examples=100)
@given(st.binary(max_size=60).filter(lambda raw: b"\0" not in raw))
def test_whatever_passes_is_harmless_in_a_unit_file(raw: bytes) -> None:
    status, out, err = parse(b"nfs://h/" + raw)
    if status == 0:
        assert out.count("\n") == 7
        export = out.split("\n")[3]
        assert export.startswith("/") and not export.endswith(" ")
        assert all(ord(c) >= 32 and c not in "\\\x7f" for c in export)
        assert ".." not in export.split("/")
    else:
        assert status == 2 and out == "" and err.count("\n") == 1


@settings(max_examples=40)
@given(st.lists(st.text("abcXYZ09._-%,:;'\"$`&|<> é海~", min_size=1), min_size=1, max_size=4))
def test_percent_encoding_round_trips(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    if {".", ".."} & set(parts) or path.endswith(" "):
        return
    for kind, port in {"nfs": 2049, "smb": 445}.items():
        if kind == "smb" and set(path) & set(',:;*?"<>|'):
            continue
        url = f"{kind}://h{quote(path, safe=SAFE)}"
        said = (0, f"{kind}\nh\n{port}\n{path}\n{url}\n\n\n", "")
        assert parse(f"{kind}://h{quote(path)}") == said
        assert parse(url) == said
