"""Files made at random, whole and damaged ones."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import netCDF4
import numpy as np
import pytest
from dapdir.names import client_name, dap_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydap.client import open_url

from tests.unit.dapdir.data_files import Block, make_classic, make_names, make_types
from tests.unit.dapdir.running import Server

MUTATIONS = int(os.environ.get("DAPDIR_FUZZ", "150"))  # of all files together; more take longer
PATIENCE = 2

Variable = tuple[str, str, tuple[int, ...], bool]
"""Name, type, shape, and whether it is compressed in chunks."""

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0%"), min_size=1, max_size=8)
NAMES = NAMES.filter(lambda name: name != ".")  # HDF5's name of the group itself
SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)


def variables(kinds: list[str]) -> st.SearchStrategy[list[Variable]]:
    return st.lists(
        st.tuples(NAMES, st.sampled_from(kinds), SHAPES, st.booleans()),
        min_size=1,
        max_size=6,
        unique_by=lambda v: unquote(client_name(v[0])),
    )


def values_of(kind: str, shape: tuple[int, ...], seed: int) -> Block:
    generator = np.random.default_rng(seed)
    if kind == "str":
        words = generator.choice(["", "a", "word", "ä", "日本", "x" * 70], shape)
        return np.array(words, dtype=object)
    if kind[0] == "f":
        special = generator.choice([0, np.nan, np.inf, -1], shape)
        return np.asarray(generator.standard_normal(shape) + special).astype(kind)
    limits = np.iinfo(kind)
    most = min(limits.max, 2**53)
    values = generator.integers(max(limits.min, -most), most, shape, endpoint=True)
    return np.asarray(values).astype(kind)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("random") / "root"
    root.mkdir()
    server = Server(root, root.parent / "log", DAPDIR_PATIENCE=str(PATIENCE))
    yield server
    server.stop()


def write_netcdf(path: Path, found: list[Variable], seed: int) -> None:
    with netCDF4.Dataset(path, "w") as file:
        for number, (name, kind, shape, chunked) in enumerate(found):
            dimensions = [f"d{number}_{i}" for i in range(len(shape))]
            for dimension, length in zip(dimensions, shape, strict=True):
                file.createDimension(dimension, length)
            compressed = chunked and shape and kind != "str"
            variable = file.createVariable(
                f"v{number}{name}" if not name[0].isalnum() else name,
                str if kind == "str" else kind,
                dimensions,
                compression="zlib" if compressed else None,
                chunksizes=[max(1, n // 2) for n in shape] if compressed else None,
            )
            values = values_of(kind, shape, seed + number)
            variable[...] = values if shape else values[()]


def write_hdf5(path: Path, found: list[Variable], seed: int) -> None:
    with h5py.File(path, "w") as file:
        for number, (name, kind, shape, chunked) in enumerate(found):
            values = values_of(kind, shape, seed + number)
            options = {"chunks": True, "compression": 1} if chunked and shape else {}
            dtype = h5py.string_dtype() if kind == "str" else np.dtype(kind).newbyteorder(">")
            file.create_dataset(name, data=values, dtype=dtype, **options)


def check(
    server: Server, path: Path, names: dict[str, str], found: list[Variable], seed: int
) -> None:
    url = f"{server.url}/{path.name}"
    dataset = open_url(url, protocol="dap2")
    with netCDF4.Dataset(url) as remote:
        remote.set_auto_mask(False)
        remote.set_auto_chartostring(False)
        # netCDF-C decodes only a part of what is encoded in names.
        variables = {unquote(name): variable for name, variable in remote.variables.items()}
        assert set(names.values()) == set(variables)
        for number, (name, kind, shape, _) in enumerate(found):
            expected = values_of(kind, shape, seed + number)
            served = variables[names[name]]
            if kind == "str":
                words = netCDF4.chartostring(served[...], encoding="utf-8")
                assert np.asarray(words).ravel().tolist() == expected.ravel().tolist()
                continue
            np.testing.assert_array_equal(served[...], expected)
            part = tuple(slice(0, n, 2) for n in shape)
            np.testing.assert_array_equal(served[part], expected[part])
            if shape and not re.search("%5[BD]", dap_name(names[name])):
                # pydap's client takes brackets in a name for those of a hyperslab.
                other = dataset[dap_name(names[name])].data[:]
                np.testing.assert_array_equal(other, expected)


KINDS = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8", "str"]
OFTEN = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@OFTEN
@given(variables(KINDS), st.integers(0, 10**6))
def test_hdf5_files_at_random(place: Server, found: list[Variable], seed: int) -> None:
    path = place.root / f"h{seed}.h5"
    write_hdf5(path, found, seed)
    check(place, path, {name: client_name(name) for name, *_ in found}, found, seed)


ASCII = st.text("abcXYZ_09 .-+@:", min_size=1, max_size=8).map(lambda name: f"v{name}v")


@OFTEN
@given(
    st.lists(
        st.tuples(ASCII, st.sampled_from(KINDS), SHAPES, st.booleans()),
        min_size=1,
        max_size=6,
        unique_by=lambda v: v[0],
    ),
    st.integers(0, 10**6),
)
def test_netcdf_files_at_random(place: Server, found: list[Variable], seed: int) -> None:
    path = place.root / f"n{seed}.nc"
    write_netcdf(path, found, seed)
    check(place, path, {name: name for name, *_ in found}, found, seed)


def classic(path: Path, format_: str) -> None:
    with netCDF4.Dataset(path, "w", format=format_) as file:  # type: ignore[arg-type]
        file.title = "small"
        file.createDimension("t", None)
        file.createDimension("y", 20)
        file.createVariable("t", "f8", ("t",))[:] = np.arange(12)
        file.createVariable("a", "f4", ("t", "y"), fill_value=-1)[:] = np.arange(240).reshape(
            12, 20
        )
        file.createVariable("c", "S1", ("y",))[:] = b"x"
        file["a"].units = "K"


def chunked(path: Path, **options: Any) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("y", 40)
        file.createDimension("x", 50)
        group = file.createGroup("g")
        for owner in (file, group):
            variable = owner.createVariable("v", "i4", ("y", "x"), chunksizes=(10, 10), **options)
            variable[:] = np.arange(2000).reshape(40, 50)


def plain(path: Path, **options: Any) -> None:
    with h5py.File(path, "w", **options) as file:
        for number in range(12):
            file.create_dataset(f"g{number % 3}/v{number}", data=np.arange(30) * number)
        file["words"] = ["one", "two", "ä" * 30]
        file["g1/v1"].attrs["note"] = "x" * 300
        file["g0"].attrs.create("numbers", np.arange(10))


SMALL: list[Callable[[Path], None]] = [
    *(lambda p, f=f: classic(p, f) for f in ("NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET",
                                             "NETCDF3_64BIT_DATA", "NETCDF4", "NETCDF4_CLASSIC")),
    *(lambda p, o=o: chunked(p, **o) for o in (
        {}, {"compression": "zlib"}, {"compression": "zlib", "shuffle": True}, {"fletcher32": True},
        {"compression": "zstd"}, {"compression": "bzip2"})),
    *(lambda p, o=o: plain(p, **o) for o in (
        {}, {"libver": "latest"}, {"userblock_size": 512}, {"track_order": True},
        {"libver": "earliest"})),
    make_classic, make_types, make_names,
    lambda p: write_hdf5(p, [("s", "str", (4, 4), True), ("i", "i2", (5,), False)], 1),
]  # fmt: skip


def damage(whole: bytes, chance: random.Random) -> bytes:
    data = bytearray(whole)
    if chance.random() < 0.1:
        return bytes(data[: chance.randrange(len(data))])
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        # Metadata are at the beginning; most of the rest is values.
        place = chance.randrange(len(data) if chance.random() < 0.3 else min(len(data), 4096))
        bits = 1 << chance.randrange(8)
        data[place] = chance.choice([data[place] ^ bits, chance.randrange(256), 0, 255])
    return bytes(data)


def test_damaged_files_stop_nobody(place: Server, tmp_path: Path) -> None:
    chance = random.Random(15)
    whole = []
    for number, make in enumerate(SMALL):
        make(tmp_path / f"{number}.nc")
        whole.append((tmp_path / f"{number}.nc").read_bytes())
    make_classic(place.root / "good.nc")
    expected = place.get("/good.nc.dods").body
    slowest, most = 0.0, 0
    for number in range(MUTATIONS):
        name = f"damaged-{number}.nc"
        (place.root / name).write_bytes(damage(chance.choice(whole), chance))
        for suffix in ("dds", "das", "dods", "ascii"):
            started = time.monotonic()
            try:
                answer = place.get(f"/{name}.{suffix}")
                assert answer.status in (200, 404, 500), (number, suffix, answer.text)
            except OSError:
                pass  # cut short: the damage was found behind the head of the response
            slowest = max(slowest, time.monotonic() - started)
        assert place.get("/good.nc.dods").body == expected
        most = max(most, place.memory())
        (place.root / name).unlink()
    print(f"{MUTATIONS} damaged files: {slowest:.1f} s, {most / 1e6:.0f} MB at most")
    assert slowest < 10 * PATIENCE
    assert most < 250_000_000
    assert "Traceback" not in place.log.read_text()
