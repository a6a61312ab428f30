"""Layers made at random are refused in one line, or become a sound tree."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import oci
from hyraxvm.stages.server.image_tree import merge
from tests.unit.stages.server.raw_tar import END, blocks, header, pax, record

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
