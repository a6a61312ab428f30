"""Debugging sections read as zeros in the squashfs, and programs run as before."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyraxvm.stages.server import elf, oci
from hyraxvm.stages.server.image_tree import merge
from hyraxvm.stages.server.trim import trim
from tests.unit.stages.server.image_maker import Entry, hard, program, write_layer

SOURCE = '#include <stdio.h>\nint main(void) { return puts("it runs") < 0; }\n'


@pytest.fixture(scope="module")
def debugged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    work = tmp_path_factory.mktemp("elf")
    (work / "x.c").write_text(SOURCE)
    # -g3 adds every macro of the headers.
    subprocess.run(["gcc", "-g3", "-O1", "-o", work / "x", work / "x.c"], check=True)
    return (work / "x").read_bytes()


def test_what_only_a_debugger_reads_is_blanked(debugged: bytes, tmp_path: Path) -> None:
    entries = [
        program("usr/bin/x", debugged),
        hard("usr/bin/same", "usr/bin/x"),
        Entry("usr/share/x.nc", b"CDF" + debugged),
    ]
    tree = merge([write_layer(tmp_path / "layer", entries)])
    lines: list[str] = []
    (done,) = trim(tree, [], lines.append)
    assert (done.pattern, done.paths) == ("debugging sections", 1)
    assert done.bytes > 8000
    assert "trim debugging sections: 0.0 MB in 1 files" in lines
    image, out = tmp_path / "x.squashfs", tmp_path / "out"
    oci.squash(tree, image, tmp_path / "log")
    argv = ["unsquashfs", "-q", "-no-progress", "-d", str(out), str(image)]
    subprocess.run(argv, check=True, capture_output=True)
    made = (out / "usr/bin/x").read_bytes()
    assert len(made) == len(debugged)
    changed = sum(a != b for a, b in zip(made, debugged, strict=True))
    assert 0 < changed <= done.bytes
    ran = subprocess.run([out / "usr/bin/same"], capture_output=True, text=True, check=True)
    assert ran.stdout == "it runs\n"
    argv = ["readelf", "--wide", "--section-headers", str(out / "usr/bin/x")]
    assert ".debug_macro" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    # A file that is not a program stays unchanged, whatever is in it.
    assert (out / "usr/share/x.nc").read_bytes() == b"CDF" + debugged
    assert tree.read("/usr/bin/x") == made


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1))
def test_a_broken_one_is_left_alone(rest: bytes, count: int, table: int) -> None:
    head = bytearray(64)
    head[: len(elf.MAGIC)] = elf.MAGIC
    struct.pack_into("<Q", head, 40, table)
    struct.pack_into("<HHH", head, 58, 64, count, count // 2)
    content = bytes(head) + rest
    tree = merge([])
    tree.write("/x", content)
    with tree.nodes["x"].open() as stream:
        spans = elf.debugging(stream, len(content))
    assert all(start + length <= len(content) for start, length in spans)


def test_a_section_that_is_loaded_stays(debugged: bytes, tmp_path: Path) -> None:
    """A section with such a name may be loaded into memory: the flag decides, not the name."""
    (table,) = struct.unpack_from("<Q", debugged, 40)
    (count,) = struct.unpack_from("<H", debugged, 60)
    loaded = bytearray(debugged)
    for number in range(count):
        struct.pack_into("<Q", loaded, table + 64 * number + 8, elf.LOADED)
    path = tmp_path / "x"
    path.write_bytes(loaded)
    with path.open("rb") as stream:
        assert elf.debugging(stream, len(loaded)) == ()
    path.write_bytes(debugged)
    with path.open("rb") as stream:
        assert elf.debugging(stream, len(debugged))


def test_what_is_blanked_takes_no_room(tmp_path: Path) -> None:
    tree = merge([])
    tree.write("/x", random.Random(1).randbytes(3_000_000))
    sizes = []
    for spans in ((), ((4096, 2_900_000),)):
        tree.nodes["x"].blank = spans
        oci.squash(tree, tmp_path / "x.squashfs", tmp_path / "log")
        sizes.append((tmp_path / "x.squashfs").stat().st_size)
    assert sizes[0] > 3_000_000
    assert sizes[1] < 300_000
