"""Constraint expressions: right ones against NumPy, wrong ones refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from dapdir import blocks, constraint
from dapdir.errors import RequestError
from dapdir.model import Array, Dataset, Stored
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.dapdir.data_files import Block
from tests.unit.dapdir.running import Server

Hyperslab = tuple[str, slice]
"""A hyperslab's text and the slice that it means."""
Selection = tuple[tuple[slice, ...], tuple[int, ...]]
"""A slice of each dimension, and the lengths of a chunk."""

SST = np.arange(6 * 7 * 9).reshape(6, 7, 9) - 100


@st.composite
def hyperslabs(draw: st.DrawFn, length: int) -> Hyperslab:
    """Generate a hyperslab's text and the slice that it means."""
    start = draw(st.integers(0, length - 1))
    last = draw(st.integers(start, length - 1))
    stride = draw(st.integers(1, length + 2))
    texts = [(f"[{start}:{stride}:{last}]", slice(start, last + 1, stride))]
    texts.append((f"[{start}:{last}]", slice(start, last + 1, 1)))
    texts.append((f"[{start}]", slice(start, start + 1, 1)))
    return draw(st.sampled_from(texts))


def values_of(body: bytes, kind: str, shape: tuple[int, ...]) -> Block:
    data = body.split(b"\nData:\n", 1)[1]
    size = math.prod(shape)
    assert data[:8] == np.array([size, size], ">i4").tobytes()
    return np.frombuffer(data, kind, size, 8).reshape(shape)


@settings(max_examples=40)
@given(st.tuples(*(hyperslabs(n) for n in SST.shape)), st.booleans())
def test_hyperslabs_are_numpys_slices(
    server: Server, slabs: tuple[Hyperslab, ...], encoded: bool
) -> None:
    text = "".join(text for text, _ in slabs)
    if encoded:
        text = text.replace("[", "%5B").replace("]", "%5d")
    expected = SST[tuple(slice_ for _, slice_ in slabs)]
    answer = server.get(f"/classic.nc.dods?sst.sst{text}")
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    np.testing.assert_array_equal(values_of(answer.body, ">i4", expected.shape), expected)


def array_of(name: str, shape: tuple[int, ...]) -> Array:
    slices = tuple(slice(0, length, 1) for length in shape)
    stored = Stored(None, name, np.dtype("f4"), None)
    return Array(name, tuple("xyz"[: len(shape)]), slices, stored, {}, name)


@given(st.text("ab[]:0123,.&()=<>%-+ \t\n\u0663"))
def test_any_text_is_either_right_or_refused(text: str) -> None:
    dataset = Dataset("d", {name: array_of(name, (3, 2)) for name in "ab"})
    try:
        result = constraint.constrain(dataset, text)
    except RequestError as error:
        assert error.status == 400
        return
    for array in result.arrays():
        assert all(1 <= n <= m for n, m in zip(array.shape, (3, 2), strict=True))


@pytest.mark.parametrize(
    "query",
    [
        "nothing", "sst.nothing", "plain.x", "sst[0]", "sst[0][0]", "sst[0][0][0][0]",
        "sst[6][0][0]", "sst[0:6][0][0]", "sst[0:1:6][0][0]", "sst[0:0:5][0][0]",
        "sst[3:1:2][0][0]", "sst[-1][0][0]", "sst[0:-1:2][0][0]", "sst[ 0][0][0]",
        "sst[1.0][0][0]", "sst[0x1][0][0]", "sst[+1][0][0]", "sst[1_0][0][0]", "sst[*][0][0]",
        "sst[][0][0]", "sst[0:1:2:3][0][0]", "sst[0][0][0", "sst0][0][0]", "sst[0][0][0]]",
        "sst[0][0][0]x", "sst..sst", ".sst", "sst.", "sst,,time", ",sst", "sst,", "sst sst",
        "sst[99999999999][0][0]", "sst[0][0][18446744073709551616]", "scalar[0]", "letter[0]",
        "sst[0][0][0].sst", "time>3", "sst&time>3", "&time>3", "time=3", "geogrid(sst,1,2,3,4)",
        "sst,mean(sst)", "sst[0:1][0][0],sst.sst", "chars[0][0]", "time[6]", "dap4.ce=/sst",
        "../sst", "sst%00", "%ff", "sst;time", "x" * 60_000, "time" + ",time" * 1500,
        "%25" + "25" * 3900, "a." * 30_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["dods", "dds", "ascii"])
def test_wrong_constraints_are_refused(server: Server, query: str, kind: str) -> None:
    query = query.replace(" ", "%20")
    answer = server.get(f"/classic.nc.{kind}?{query}")
    if query.startswith("time,"):
        assert answer.status == 200  # long, repeated, but right
        return
    assert answer.status == 400, answer.body[:300]
    assert answer.headers["Content-Description"] == "dods_error"
    assert answer.text.startswith('Error {\n    code = 400;\n    message = "')
    assert answer.text.endswith('";\n};\n')


def test_a_request_line_that_is_too_long_is_refused(server: Server) -> None:
    assert server.get(f"/classic.nc.dods?{'x' * 500_000}").status == 400
    assert server.get(f"/classic.nc.dods?{'x' * 530_000}").status == 414


def dds(server: Server, query: str) -> str:
    answer = server.get(f"/classic.nc.dds?{query}")
    assert answer.status == 200
    return " ".join(answer.text.split())


def test_parts_of_a_grid(server: Server) -> None:
    grid = dds(server, "sst[0:1][2][0:4:8],time")
    assert grid == (
        "Dataset { Float64 time[time = 6]; Grid { Array: Int16 sst[time = 2][lat = 1][lon = 3]; "
        "Maps: Float64 time[time = 2]; Float32 lat[lat = 1]; Float32 lon[lon = 3]; } sst; } "
        "classic%2Enc;"
    )
    parts = dds(server, "sst.lat[1:2],sst.sst[0][0][0]")
    assert parts == (
        "Dataset { Structure { Int16 sst[time = 1][lat = 1][lon = 1]; Float32 lat[lat = 2]; } "
        "sst; } classic%2Enc;"
    )
    assert "Structure" in dds(server, "sst.sst")


@pytest.mark.parametrize("query", ["", "&", "time&", "time,time", "sst,sst.sst"])
def test_right_though_unusual(server: Server, query: str) -> None:
    assert server.get(f"/classic.nc.dods?{query}").status == 200


def test_a_grid_carries_its_subset_of_each_map(server: Server) -> None:
    body = server.get("/classic.nc.dods?sst[0:5:5][2][0:4:8]").body
    data = body.split(b"\nData:\n", 1)[1]
    two, one, three, six = (np.array([n, n], ">i4").tobytes() for n in (2, 1, 3, 6))
    assert data == b"".join(
        [
            six, SST[0:6:5, 2:3, 0:9:4].astype(">i4").tobytes(),
            two, np.array([0, 6.25], ">f8").tobytes(),
            one, np.array([2.5], ">f4").tobytes(),
            three, np.array([0, 5, 10], ">f4").tobytes(),
        ]
    )  # fmt: skip


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    slices, chunks = [], []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 12))
        start = draw(st.integers(0, length - 1))
        slices.append(slice(start, draw(st.integers(start, length)), draw(st.integers(1, 4))))
        chunks.append(draw(st.integers(1, 12)))
    return tuple(slices), tuple(chunks)


def parts_of(
    slices: tuple[slice, ...], chunks: tuple[int, ...] | None, itemsize: int, limits: Iterator[int]
) -> Iterator[tuple[slice, ...]]:
    position, size = 0, math.prod(blocks.lengths_of(slices))
    while position < size:
        part, count = blocks.part_at(position, slices, chunks, itemsize, next(limits))
        assert count == math.prod(blocks.lengths_of(part)) > 0
        yield part
        position += count


@given(selections(), st.booleans(), st.lists(st.integers(1, 200), min_size=1))
def test_parts_are_bounded_and_in_order(
    selection: Selection, chunked: bool, limits: list[int]
) -> None:
    slices, chunks = selection
    array = np.arange(12 ** len(slices)).reshape((12,) * len(slices))
    limit = itertools.cycle(limits)
    parts = [array[p] for p in parts_of(slices, chunks if chunked else None, 1, limit)]
    joined = np.concatenate([p.ravel() for p in parts]) if parts else np.empty(0)
    np.testing.assert_array_equal(joined, array[slices].ravel())
    for part, most in zip(parts, itertools.cycle(limits), strict=False):
        assert part.size <= most


@given(selections())
def test_a_part_of_the_wanted_size_reads_each_chunk_once(selection: Selection) -> None:
    slices, chunks = selection
    if any(s.step > 1 for s in slices):
        return
    wanted = max(1, blocks.wanted_bytes(slices, chunks, blocks.BLOCK))
    seen: set[tuple[int, ...]] = set()
    for part in parts_of(slices, chunks, blocks.BLOCK, itertools.repeat(wanted)):
        touched = set(
            itertools.product(
                *(
                    range(s.start // chunk, (s.stop - 1) // chunk + 1)
                    for s, chunk in zip(part, chunks, strict=True)
                )
            )
        )
        assert not touched & seen
        seen |= touched
