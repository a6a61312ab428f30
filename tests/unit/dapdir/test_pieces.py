"""A response is the same, however it is cut into pieces: a slow client gets ever smaller ones."""

import os
import random
from collections.abc import Callable, Iterator

import netCDF4
import numpy as np
import pytest
from dapdir import bodies
from dapdir.reader import File

WORDS = [f"{number}:" + number % 7 * 40 * "x" for number in range(500)] + ["y" * 3000]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[File]:
    path = tmp_path_factory.mktemp("pieces") / "f.nc"
    with netCDF4.Dataset(path, "w") as made:
        made.createDimension("n", len(WORDS))
        made.createDimension("one", 1)
        made.createDimension("long", 70_000)
        made.createVariable("words", str, ("n",))[:] = np.array(WORDS, object)
        made.createVariable("a name of some length" * 8, "i2", ("n", "one"))[:] = 1
        made.createVariable("rows", "S1", ("one", "long"))[:] = "z"
        made.createDimension("few", 20)
        values = made.createVariable("values", "f8", ("n", "few"), chunksizes=(7, 13))
        values[:] = np.arange(20 * len(WORDS)).reshape(-1, 20)
    opened = File(os.open(path, os.O_RDONLY), "/f.nc")
    yield opened
    opened.close()


def joined(body: bodies.Body, limit: Callable[[], int]) -> bytes:
    target = memoryview(bytearray(10_000_000))
    cursor: bodies.Cursor | None = bodies.START
    found = b""
    while cursor:
        most = limit()
        data, cursor = body.piece(cursor, most)
        size = bodies.store(data, target)
        assert size <= most
        found += target[:size]
    return found


@pytest.mark.parametrize("made", [bodies.dods, bodies.ascii_values])
@pytest.mark.parametrize("limits", [(700, 1000), (1000, 50_000), (50_000, 50_000)])
def test_pieces_of_any_size(
    file: File,
    made: Callable[[File, object], bodies.Body],
    limits: tuple[int, int],
) -> None:
    body = made(file, file.model)
    rng = random.Random(1)
    whole = joined(body, lambda: 10_000_000)
    assert joined(body, lambda: rng.randint(*limits)) == whole
    if made is bodies.dods:
        lengths = b"".join(
            len(w).to_bytes(4, "big") + w.encode() + bytes(-len(w) % 4) for w in WORDS
        )
        assert lengths in whole
