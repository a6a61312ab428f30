"""The nfs:// URL parser: what it takes, what it refuses in one line, and its fuzzing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PARSER = Path(__file__).parents[3] / "provision/guest/usr/lib/hyrax-vm/nfs-url"


def parse(url: str | bytes) -> tuple[int, str, str]:
    done = subprocess.run([PARSER, url], capture_output=True, timeout=10)
    return done.returncode, done.stdout.decode(), done.stderr.decode("latin-1")


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
        assert (status, out) == (0, f"{host}\n{port}\n{export}\n")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not an nfs:// URL"),
        ("10.0.2.2:/export", "not an nfs:// URL"),
        ("http://h/x", "not an nfs:// URL"),
        ("nfs:/h/x", "not an nfs:// URL"),
        ("smb://h/share", "SMB share"),
        (r"\\host\share", "SMB share"),
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
        ("nfs://user@h/x", "no user name"),
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


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60).filter(lambda raw: b"\0" not in raw))
def test_whatever_passes_is_harmless_in_a_unit_file(raw: bytes) -> None:
    status, out, err = parse(b"nfs://h/" + raw)
    if status == 0:
        assert out.count("\n") == 3
        export = out.split("\n")[2]
        assert export.startswith("/") and not export.endswith(" ")
        assert all(ord(c) >= 32 and c not in "\\\x7f" for c in export)
        assert ".." not in export.split("/")
    else:
        assert status == 2 and out == "" and err.count("\n") == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abcXYZ09._-%,:;'\"$`&|<> é海~", min_size=1), min_size=1, max_size=4))
def test_percent_encoding_round_trips(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    if {".", ".."} & set(parts) or path.endswith(" "):
        return
    assert parse("nfs://h" + quote(path)) == (0, f"h\n2049\n{path}\n", "")
