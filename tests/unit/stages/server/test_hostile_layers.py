"""Layers and images made to cost memory, time or a traceback end in one line, and soon."""

from __future__ import annotations

import itertools
import resource
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.stages.server.image_tree import merge
from hyraxvm.stages.server.layer import Budget, read_layer
from tests.unit.stages.server.image_maker import Entry, write_layer
from tests.unit.stages.server.raw_tar import END, blocks, header, pax, record, sparse

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "sparse": (lambda: sparse(2**50, extended=False), "is a sparse file; refused"),
    "sparse without end": (
        lambda: sparse(2**50, extended=True) + (bytes(504) + b"\1" + bytes(7)) * 10_000,
        "is a sparse file; refused",
    ),
    "sparse by pax": (
        lambda: pax(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")) + header(),
        "is a sparse file; refused",
    ),
    "sparse size by pax": (
        lambda: pax(record("GNU.sparse.realsize", str(2**50))) + header(),
        "is a sparse file; refused",
    ),
    "long header": (lambda: header("x", 400 * 10**6, b"x"), "has a header of 400000000 bytes"),
    "long global header": (lambda: header("x", 2**60, b"g"), "has a header of"),
    "negative header": (lambda: header("x", -512, b"x"), "has a header of -512 bytes; refused"),
    "long name": (lambda: header("x", 2**21, b"L"), "has a header of 2097152 bytes; refused"),
    # tarfile looks for "DIGITS hdrcharset=" from each digit on: a minute for a header of 64 KB.
    "digits": (lambda: pax(b"7" * 200_000) + header(), "has a header with a number of over 1000"),
    "headers of headers": (
        lambda: (header("x", 4, b"L") + blocks(b"abc\0")) * 5000 + header(),
        "is not a readable tar",
    ),
    # Each entry gets a copy of the global header.
    "global headers": (
        lambda: (
            pax(record("comment", "v" * 10**6), tarfile.XGLTYPE) + header() * 300
        ),
        "the image has more than 268 MB of names and attributes; refused",
    ),
    "attributes": (
        lambda: pax(b"".join(record(f"k{n}", "v") for n in range(60_000))) + header(),
        "has 60000 attributes; refused",
    ),
    "size by pax": (
        lambda: pax(record("size", str(2**50))) + header("a"),
        "(is longer than the layer|is not a readable tar)",
    ),
    "size for all by pax": (
        lambda: (
            pax(record("size", "10000000"), tarfile.XGLTYPE)
            + b"".join(header(str(n)) for n in range(2001))
            + bytes(10**7)
        ),
        "the image has more than 20 GB of files; refused",
    ),
    "unknown type": (lambda: header("a", 0, b"V"), "has the type b'V', which is not a file's"),
    "owner": (lambda: header("a", uid=2**40), "has the owner 1099511627776:0; refused"),
    "negative owner": (lambda: header("a", gid=-1), "has the owner 0:-1; refused"),
    "long path": (
        lambda: pax(record("path", "a/" * 3000)) + header(),
        "has a path of more than 4095 bytes",
    ),
    "long part": (
        lambda: pax(record("path", "a" * 300)) + header(),
        "has a name of more than 255 bytes",
    ),
    "long target": (
        lambda: pax(record("linkpath", "a/" * 3000)) + header("a", kind=tarfile.SYMTYPE),
        "has a path of more than 4095 bytes",
    ),
    "NUL": (
        lambda: pax(record("linkpath", "a\0b")) + header("a", kind=tarfile.SYMTYPE),
        "has a path with a NUL",
    ),
    "whiteouts": (
        lambda: b"".join(header(f"d/.wh.{n}") for n in range(5001)),
        "the image has more than 5000 entries; refused",
    ),
    "directories": (
        lambda: b"".join(header(f"{n}/" + "d/" * 40) for n in range(200)),
        "the image has more than 5000 entries; refused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_refused_within_seconds(tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    path = tmp_path / "layer 1"
    path.write_bytes(make() + END)
    started = time.process_time()
    with pytest.raises(Failure, match=said) as caught:
        merge([path], Budget(entries=5000))
    assert time.process_time() - started < 20
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_it_is_refused_before_it_costs_memory(tmp_path: Path) -> None:
    """In a process of its own, which may have 512 MB."""
    path = tmp_path / "layer 1"
    with path.open("wb") as stream:
        stream.write(header("x", 400 * 10**6, b"x"))
        stream.truncate(401 * 10**6)  # so that there is something to read
    code = f"""
from pathlib import Path
from hyraxvm.stages.server.image_tree import merge
merge([Path({str(path)!r})])
"""
    limit = 512 * 2**20
    done = subprocess.run(
        ["python3", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert "Failure: layer 1: has a header of 400000000 bytes; refused" in done.stderr


def test_removing_takes_only_as_long_as_what_is_removed(tmp_path: Path) -> None:
    """When each whiteout looked at all paths, this took 40 times as long."""
    count = 10_000
    lower, upper = tmp_path / "layer 1", tmp_path / "layer 2"
    lower.write_bytes(b"".join(header(f"d/{n}") for n in range(count)) + END)
    whiteouts = [header(f"d/.wh.{n}") for n in range(count - 1)]
    opaque = [header("e/.wh..wh..opq")] * count
    upper.write_bytes(b"".join([*whiteouts, *opaque]) + END)
    started = time.process_time()
    tree = merge([lower, upper])
    assert time.process_time() - started < 20
    assert sorted(tree.nodes) == ["d", f"d/{count - 1}", "e"]
    assert tree.listing("/d") == [str(count - 1)]


def test_the_time_and_the_number_of_layers_are_bounded(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "layer 1", [Entry(str(n)) for n in range(10)])
    with pytest.raises(Failure, match="layer 1: is not read after 0 s; refused"):
        read_layer(path, Budget(seconds=0))
    budget = Budget(entries=15)
    read_layer(path, budget)
    with pytest.raises(Failure, match="the image has more than 15 entries; refused"):
        read_layer(path, budget)


NOTED = record("SCHILY.xattr.user.a", "v" * 50)


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        (header("a"), {"entries": 1, "headers": 1, "content": 0}),
        (header("a", 7) + blocks(b"7 bytes"), {"entries": 1, "headers": 1, "content": 7}),
        (header("a") + header("b/c", kind=b"5"), {"entries": 2, "headers": 4, "content": 0}),
        # A directory or a link has no content, whatever its header says.
        (header("a", 9, b"5"), {"entries": 1, "headers": 1, "content": 0}),
        (header("a", 0, b"2", linkname="to"), {"entries": 1, "headers": 3, "content": 0}),
        # The record, the name that it says twice, and its key.
        (
            pax(record("path", "p" * 150)) + header(),
            {"entries": 1, "headers": len(record("path", "p" * 150)) + 150 + 4 + 150, "content": 0},
        ),
        (
            pax(record("SCHILY.xattr.user.a", "v" * 50)) + header("abc"),
            {
                "entries": 1,
                "headers": len(record("SCHILY.xattr.user.a", "v" * 50)) + 3 + 19 + 50,
                "content": 0,
            },
        ),
        (
            pax(NOTED) + header("abc", 7) + blocks(b"7 bytes"),
            {"entries": 1, "headers": len(NOTED) + 3 + 19 + 50, "content": 7},
        ),
        (pax(b"n" * 120 + b"\0", b"L") + header(), {"entries": 1, "headers": 241, "content": 0}),
    ],
    ids=[
        "empty",
        "file",
        "two",
        "directory",
        "link",
        "long path",
        "attribute",
        "both",
        "long name",
    ],
)
def test_each_entry_costs_what_it_has(tmp_path: Path, data: bytes, cost: dict[str, int]) -> None:
    path = tmp_path / "layer 1"
    path.write_bytes(data + END)
    read_layer(path, Budget(**cost))
    for name in cost:
        if cost[name]:
            with pytest.raises(Failure, match="layer 1: the image has more than"):
                read_layer(path, Budget(**{**cost, name: cost[name] - 1}))


def test_directories_that_are_missing_count_too(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "layer 1", [Entry("a/b/c")])
    merge([path], Budget(entries=3, headers=5 + 1 + 3))
    with pytest.raises(Failure, match="'a/b': the image has more than 2 entries; refused"):
        merge([path], Budget(entries=2))
    with pytest.raises(Failure, match="'a/b': the image has more than 0 MB of names and attrib"):
        merge([path], Budget(headers=5 + 1 + 2))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header("n" * 90 + "/" + "n" * 9), ""),
        (pax(record("path", "n" * 255)) + header(), ""),
        (pax(record("path", "n" * 256)) + header(), "has a name of more than 255 bytes"),
        (pax(record("path", "\u00e9" * 128)) + header(), "has a name of more than 255 bytes"),
        (pax(record("path", "n/" * 2047 + "n")) + header(), ""),
        (pax(record("path", "nn" + "/n" * 2047)) + header(), "has a path of more than 4095 bytes"),
        (header("a", uid=2**32 - 1, gid=2**32 - 1), ""),
        (header("a", uid=2**32), "has the owner 4294967296:0"),
        (header("a", gid=2**32), "has the owner 0:4294967296"),
        (pax(b"".join(record(f"k{n}", "v") for n in range(1000))) + header(), ""),
        (pax(b"".join(record(f"k{n}", "v") for n in range(1001))) + header(), "has 1001 attrib"),
        (pax(record("comment", "7" * 1000)) + header(), ""),
        (pax(record("comment", "7" * 1001)) + header(), "has a header with a number of over 1000"),
        (header("a", 512) + bytes(512), ""),
    ],
    ids=itertools.count(),
)
def test_what_is_just_right_is_taken(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "layer 1"
    path.write_bytes(data + END)
    if not said:
        assert len(read_layer(path, Budget())[1]) == 1
        return
    with pytest.raises(Failure, match=said):
        read_layer(path, Budget())
