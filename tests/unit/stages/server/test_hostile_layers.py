"""Layers and images made to cost memory, time or a traceback end in one line, and soon."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import resource
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import embedded, inventory, oci
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.server.image_tree import Tree, merge
from hyraxvm.stages.server.layer import Budget, read_layer
from tests.unit.stages.server.image_maker import Entry, folder, hard, link, program, write_layer
from tests.unit.stages.server.plain_image import recipe

END = bytes(2 * tarfile.BLOCKSIZE)


def header(name: str = "a", size: int = 0, kind: bytes = tarfile.REGTYPE, **more: Any) -> bytes:
    """Return one raw header; `size` may be any number."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def blocks(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def pax(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("x", len(data), kind) + blocks(data)


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(text) + len(str(len(text)))
    length = len(text) + len(str(length))
    return str(length).encode() + text


def sparse(real: int, extended: bool) -> bytes:
    """Return a header of the old GNU type S that stands for `real` bytes."""
    raw = bytearray(header("big", 0, tarfile.GNUTYPE_SPARSE))
    raw[482] = extended
    raw[483:495] = b"\x80" + real.to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


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


def layout_of(work: Path, *packed: bytes, unpacked: bytes = b"", **more: Any) -> Path:
    """Make a layout with layers of these bytes; `more` are the configuration's other keys."""
    layout = work / "layout"

    def blob(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = layout / "blobs/sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"sha256:{digest}"

    diff = f"sha256:{hashlib.sha256(unpacked).hexdigest()}"
    whole = {"os": "linux", "rootfs": {"diff_ids": [diff] * len(packed)}, **more}
    manifest = {
        "config": {"digest": blob(json.dumps(whole).encode())},
        "layers": [{"digest": blob(data)} for data in packed],
    }
    entry = {"digest": blob(json.dumps(manifest).encode())}
    (layout / "index.json").write_text(json.dumps({"manifests": [entry]}))
    return layout


def flattened(layout: Path) -> Tree:
    image = oci.read_image(layout, "amd64")
    return oci.flatten(layout, image, layout.with_name("scratch"), lambda line: None)


GOOD = header("etc/motd", 3) + blocks(b"hi\n") + END
ZSTD = subprocess.run(["zstd", "-q"], input=GOOD, capture_output=True, check=True).stdout


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (flip(gzip.compress(GOOD), 12), r"layer 1: gzip: exit status 1: gzip: stdin: "),
        (gzip.compress(GOOD)[:-9], r"layer 1: gzip: exit status 1: gzip: stdin: unexpected end"),
        (gzip.compress(GOOD) + b"more", r"layer 1: gzip: exit status 2: .*trailing garbage"),
        (zlib.compress(GOOD), r"layer 1: its content is sha256:"),
        (flip(ZSTD, 8), r"layer 1: zstd: exit status 1: "),
        (ZSTD[:-9], r"layer 1: zstd: exit status 1: "),
        (GOOD[:-1], r"layer 1: its content is sha256:"),
    ],
    ids=["gzip", "gzip cut", "gzip and more", "zlib", "zstd", "zstd cut", "plain cut"],
)
def test_damaged_compression_is_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(Failure, match=said) as caught:
        flattened(layout_of(tmp_path, data, unpacked=GOOD))
    assert "\n" not in str(caught.value)


def test_all_layers_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "LAYERS", 3 * len(GOOD))
    data = gzip.compress(GOOD)
    assert flattened(layout_of(tmp_path / "3", data, data, data, unpacked=GOOD)).size() == 3
    with pytest.raises(Failure, match=r"layer 4: has more than .* GB with those below it; refused"):
        flattened(layout_of(tmp_path / "4", data, data, data, data, unpacked=GOOD))
    with pytest.raises(Failure, match="the image has 501 layers; must be at most 500"):
        flattened(layout_of(tmp_path / "501", *[data] * 501, unpacked=GOOD))


def test_each_tool_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "UNPACKING", 0.2)
    monkeypatch.setattr(oci, "PACKING", 0.2)
    slow = tmp_path / "bin"
    slow.mkdir()
    for name in ("gzip", "zstd", "tar2sqfs"):
        (slow / name).write_text("#!/bin/sh\nexec sleep 100\n")
        (slow / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:/usr/bin:/bin")
    for name, data in (("gzip", gzip.compress(GOOD)), ("zstd", ZSTD)):
        with pytest.raises(Failure, match=f"layer 1: {name}: not done after 0 s"):
            flattened(layout_of(tmp_path / name, data, unpacked=GOOD))
    # More than a pipe holds: without a reader the writer would wait for ever.
    tree = merge([write_layer(tmp_path / "layer", [Entry("a", bytes(10**6))])])
    with pytest.raises(Failure, match="tar2sqfs: not done after 0 s"):
        oci.squash(tree, tmp_path / "x.squashfs", tmp_path / "log")


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"^tar2sqfs: exit status 1: .*No such file") as caught:
        oci.squash(Tree(), tmp_path / "none/x.squashfs", tmp_path / "log")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "configuration is damaged: maximum recursion"),
        ('{"manifests": [' + '{"a":' * 100_000, "configuration is damaged: maximum recursion"),
        ("1" * 10_000, "configuration is damaged: Exceeds the limit"),
        ("[]", "configuration is damaged"),
        ('{"manifests": [{"digest": 7}]}', "configuration is damaged"),
        ('{"manifests": [{"digest": "sha256:../../x"}]}', "is not a SHA-256 digest"),
        (" " * 5 * 2**20, "is longer than 4194304 bytes; refused"),
        (b"\xff\xfe", "configuration is damaged"),
    ],
    ids=["list", "object", "number", "no object", "no text", "no digest", "long", "no UTF-8"],
)
def test_an_index_that_is_none_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "index.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Failure, match=said) as caught:
        oci.read_image(tmp_path, "amd64")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ([Entry("etc")], "file /etc/hosts cannot be written: 'etc' leads through 'etc', which is"),
        ([link("etc", "etc")], "'etc' leads into a loop of symbolic links"),
        ([link("tmp", "/nowhere/../tmp")], "directory /tmp cannot be made: .* loop of symbolic"),
        ([Entry("proc", b"file")], "directory /proc cannot be made"),
        ([folder("etc/hosts/")], ""),
        ([hard("etc/hosts", "opt/serve")], ""),
    ],
)
def test_odd_trees_are_one_line(tmp_path: Path, layer: list[Entry], said: str) -> None:
    layout = layout_of(tmp_path, config={"Entrypoint": ["/opt/serve"]})
    image = oci.read_image(layout, "amd64")
    tree = merge([write_layer(tmp_path / "layer", [program("opt/serve"), *layer])])
    if not said:
        assert server.describe(recipe("oci:/x", ""), image, tree, {}, []).uid == embedded.UID
        return
    with pytest.raises(Failure, match=said) as caught:
        server.describe(recipe("oci:/x", ""), image, tree, {}, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ([Entry("var/lib/dpkg/status", b"Package: a\nStatus: install ok installed\n")],
         "the image's /var/lib/dpkg: a package has no field 'Version'"),
        ([Entry("var/lib/dpkg/status.d/a", b"Package:\nVersion: 1\n")], ""),
        ([Entry("lib/apk/db/installed", b"P:x\n" * 200_000)], ""),
        ([Entry("etc/os-release", bytes(65 * 2**20))], "os-release has 68 MB; must be at most 67"),
        ([Entry("var/lib/rpm/Packages", b"not a database")], "rpm"),
        ([folder(".dist-info/"), folder("x.dist-info/")], ""),
    ],
)  # fmt: skip
def test_damaged_databases_are_one_line(tmp_path: Path, layer: list[Entry], said: str) -> None:
    tree = merge([write_layer(tmp_path / "layer", layer)])
    if not said:
        assert inventory.packages(tree, tmp_path / "scratch") == {}
        return
    with pytest.raises(Failure, match=said):
        inventory.packages(tree, tmp_path / "scratch")


# -------------------------------------------------------------------------------- made layers

NAMES = st.one_of(
    st.sampled_from(
        [
            *("a", "a/", "a/b", "a/b/c", "b", "./a", "/a", "", ".", "..", "a/..", "../x", "a//b"),
            *(".wh.a", "a/.wh.b", ".wh.", ".wh..wh..opq", "a/.wh..wh..opq", ".wh..wh.plnk"),
            *("a\nb", "\udcff", "x" * 90, "/" * 90),
        ]
    ),
    st.text("ab./\\\n\u00e9", max_size=12),
)
SIZES = st.one_of(
    st.integers(0, 3000),
    st.sampled_from([-1, -512, -(2**40), 511, 512, 513, 2**20, 2**33, 2**50, 2**63, 2**70]),
)
KINDS = st.sampled_from([b"\0", *(bytes([n]) for n in b"0123456 7 xgLKSDMNVX1122")])
KEYS = st.sampled_from(
    [
        *("path", "linkpath", "size", "uid", "gid", "mtime", "hdrcharset", "uname", "comment"),
        *("SCHILY.xattr.user.a", "SCHILY.xattr.system.posix_acl_access", "GNU.sparse.size"),
        *("GNU.sparse.realsize", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.minor"),
    ]
)
VALUES = st.one_of(
    NAMES, SIZES.map(str), st.sampled_from(["inf", "nan", "-inf", "1e400", "BINARY", "1" * 1200])
)
RECORDS = st.lists(st.builds(record, KEYS, VALUES), max_size=4).map(b"".join)
ENTRIES = st.one_of(
    st.builds(
        lambda name, target, kind, size, uid, data: (
            header(name[:90], size, kind, linkname=target[:90], uid=uid) + blocks(data)
        ),
        *(NAMES, NAMES, KINDS, SIZES, st.sampled_from([0, 1000, 2**21, 2**31, 2**40, -5])),
        st.binary(max_size=600),
    ),
    # An ordinary entry, of which most layers have many.
    st.builds(
        lambda name, data: header(name[:90], len(data)) + blocks(data),
        *(NAMES, st.binary(max_size=600)),
    ),
    st.builds(pax, RECORDS, st.sampled_from([b"x", b"g", b"X"])),
    st.builds(pax, st.binary(max_size=40), st.sampled_from([b"x", b"g", b"L", b"K"])),
    st.builds(lambda name: pax(name.encode("utf-8", "surrogateescape") + b"\0", b"L"), NAMES),
)
EDITS = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=3)


def edited(data: bytes, edits: list[tuple[int, int]]) -> bytes:
    raw = bytearray(data)
    for at, value in edits:
        if at < len(raw):
            raw[at] = value
    return bytes(raw)


LAYERS = st.builds(
    lambda entries, end, edits: edited(b"".join(entries) + end, edits),
    *(st.lists(ENTRIES, max_size=8), st.sampled_from([END, b"", bytes(100)]), EDITS),
)


@given(st.lists(LAYERS, min_size=1, max_size=3))
def test_any_layer_is_refused_in_one_line_or_becomes_a_sound_tree(
    tmp_path_factory: pytest.TempPathFactory, made: list[bytes]
) -> None:
    work = tmp_path_factory.mktemp("layers")
    paths = [work / f"layer {number}" for number in range(len(made))]
    for path, data in zip(paths, made, strict=True):
        path.write_bytes(data)
    try:
        tree = merge(paths)
    except Failure as failure:
        assert "\n" not in str(failure)
        return
    size = sum(map(len, made))
    assert 0 <= tree.size() <= size
    for name in tree.nodes:
        assert not {"", ".", ".."} & set(name.split("/"))
        parent, _, last = name.rpartition("/")
        assert not parent or tree.nodes[parent].info.isdir(), name
        assert last in tree.listing(f"/{parent}")
    sink = io.BytesIO()
    tree.write_tar(sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink, errors="surrogateescape") as tar:
        assert sorted(tar.getnames()) == sorted(tree.nodes)
    oci.squash(tree, work / "x.squashfs", work / "log")
    listed = subprocess.run(
        ["unsquashfs", "-quiet", "-stat", str(work / "x.squashfs")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Number of inodes" in listed.stdout
