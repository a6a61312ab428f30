"""Data files with everything that is difficult in DAP2."""

import os
import socket
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np

Block = np.ndarray[Any, Any]
Format = Literal["NETCDF4", "NETCDF3_64BIT_DATA"]

BIG = (1, 100, 1000, 1000)


def make_classic(path: Path) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.setncatts({"title": "classic", "history": 'say "hi"\\\nand é'})
        for name, length in {"time": None, "lat": 7, "lon": 9, "n": 4, "text": 100}.items():
            file.createDimension(name, length)
        for name, kind, length in (("time", "f8", 6), ("lat", "f4", 7), ("lon", "f4", 9)):
            file.createVariable(name, kind, (name,))[:] = np.arange(length) * 1.25
        sst = file.createVariable("sst", "i2", ("time", "lat", "lon"), fill_value=-9)
        sst.set_auto_maskandscale(False)
        sst.setncatts({"scale_factor": 0.1234567890123, "add_offset": np.float32(0.1)})
        sst.setncatts({"missing_value": np.float64("nan"), "levels": np.arange(3, dtype="i4")})
        sst[:] = np.arange(6 * 7 * 9).reshape(6, 7, 9) - 100
        plain = file.createVariable("plain", "i4", ("n", "lat"))
        plain[:] = np.arange(28).reshape(4, 7) * 100_000
        # A coordinate whose shape is not that of its dimension does not make a Grid.
        file.createVariable("n", "f4", ("n", "lat"))[:] = 0.5
        chars = file.createVariable("chars", "S1", ("n", "text"))
        chars[:] = netCDF4.stringtochar(np.array(["one", "", "x" * 100, "a b"], "S100"))
        file.createVariable("letter", "S1", ())[...] = b"Q"
        file.createVariable("scalar", "f4", ())[...] = 0.1
        signed = file.createVariable("signed", "i1", ("n",))
        signed[:] = [-128, -1, 0, 127]
        unsigned = file.createVariable("unsigned", "i1", ("n",), fill_value=-1)
        unsigned.set_auto_maskandscale(False)
        unsigned._Unsigned = "true"
        unsigned[:] = np.array([0, 127, 128, 254], "u1").view("i1")


KINDS = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8")


def make_types(path: Path) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("x", 10)
        file.createDimension("y", 12)
        file.createDimension("none", None)
        for kind in KINDS:
            values = type_values(kind)
            for name, dimensions, data in (
                (f"v_{kind}", ("x", "y"), values),
                (f"s_{kind}", (), values[3, 4]),
            ):
                variable = file.createVariable(name, kind, dimensions)
                variable.setncattr("limit", values[0, 0])
                variable[...] = data
        filled = file.createVariable("filled", "u2", ("x",), fill_value=65535)
        filled[:9] = np.arange(9) * 7000  # the tenth is never written
        # Stored big-endian, in chunks whose edges are not those of dapdir's blocks
        chunked = file.createVariable(
            "chunked", ">f4", ("x", "y"), endian="big", compression="zlib", chunksizes=(3, 5)
        )
        chunked[:] = type_values("f4")
        file.createVariable("zero", "f4", ("none", "x"))
        string = file.createVariable("string", str, ("x",))
        for i, text in enumerate(strings()):
            string[i] = text
        file.createVariable("one_string", str, ())[...] = "alone"
        colour = file.createEnumType("u1", "colour", {"red": 0, "green": 7})
        enum = file.createVariable("enum", colour, ("x",))
        enum[:] = np.where(np.arange(10) % 3, 7, 0)
        exact = file.createVariable("exact", "i8", ("x",), fill_value=-(2**40))
        exact.set_auto_maskandscale(False)
        exact[:] = 2 ** np.arange(53, 63)
        file.wide, file.huge = np.int64(2**40), np.int64(2**62 + 1)
        complex_ = file.createCompoundType(np.dtype([("a", "f4"), ("b", "i4")]), "pair")
        file.createVariable("compound", complex_, ("x",))
        file.createVariable("ragged", file.createVLType("i4", "row"), ("x",))
        group = file.createGroup("g")
        group.note = "in a group"
        group.createDimension("y", 2)
        inner = group.createVariable("v_i4", "i4", ("x", "y"))
        inner.units = "other"
        inner[:] = np.arange(20).reshape(10, 2)


def strings() -> list[str]:
    return ["", "a", "ab", "abc", "abcd", 'q"uote', "long" * 50, "x y", "tab\there", "end"]


def type_values(kind: str) -> Block:
    """Values of shape (10, 12), with the extremes of the type where DAP2 can hold them."""
    values = np.arange(120).reshape(10, 12).astype(kind)
    if kind[0] == "f":
        values = values / np.asarray(3, kind)
        values[9, 9], values[9, 10] = np.nan, np.inf
    elif kind[1] == "8":
        values[0, 0], values[9, 11] = 2**53, 2**62
    else:
        values[0, 0], values[9, 11] = np.iinfo(kind).min, np.iinfo(kind).max
    return values


def make_wide(path: Path) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("y", 12)
        file.createVariable("wide", "u8", ("y",))[:] = 2**63 + np.arange(12, dtype="u8")
        file.createVariable("scalar", "i8", ())[...] = -(2**53) - 1


def make_names(path: Path) -> None:
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("x 1", 3)
        for i, name in enumerate(
            ("with space", "dot.ted", "a[0]", "t@b:le", "per%20cent", "q'~!*-_")
        ):
            variable = file.createVariable(name, "i4", ("x 1",))
            variable[:] = [i, 10 * i, 100 * i]
            variable.setncattr("an attribute", "with a name")


def make_big(path: Path, format_: Format) -> None:
    """Make a file of 400 MB, mostly a hole: planes 0, 10, 20 ... hold plane + column / 1000."""
    with netCDF4.Dataset(path, "w", format=format_) as file:
        if format_ != "NETCDF4":
            file.set_fill_off()
        for name, length in zip("tzyx", BIG, strict=True):
            file.createDimension(name, length)
        packed = format_ == "NETCDF4"
        variable = file.createVariable(
            "v",
            "f4",
            tuple("tzyx"),
            compression="zlib" if packed else None,
            complevel=1,
            chunksizes=(1, 5, 250, 250) if packed else None,
            fill_value=0,
        )
        for plane in range(0, 100, 10):
            variable[0, plane] = np.broadcast_to(big_row(plane), (1000, 1000))
        variable[0, 99, 999, 999] = 7


def big_row(plane: int) -> Block:
    row = np.zeros(1000, "f4") if plane % 10 else plane + np.arange(1000, dtype="f4") / 1000
    return row.astype("f4")


def make_traps(root: Path) -> None:
    """Make files below the root that must not be served, and links that may be."""
    (root / ".hidden").mkdir()
    make_classic(root / ".hidden" / "classic.nc")
    make_classic(root / ".dot.nc")
    (root / "out.nc").symlink_to("../outside.nc")
    (root / "absolute.nc").symlink_to(root.parent / "outside.nc")
    (root / "sibling").symlink_to("../root-sibling")
    (root / "passwd.txt").symlink_to("/etc/passwd")
    (root / "to-hidden.nc").symlink_to(".dot.nc")
    (root / "loop.nc").symlink_to("loop.nc")
    (root / "dangling.nc").symlink_to("gone.nc")
    (root / "inside.nc").symlink_to("classic.nc")
    (root / "subdir").symlink_to("sub")
    os.mkfifo(root / "pipe.nc")
    (root / "locked.nc").write_bytes(b"CDF\x01")
    (root / "odd é&<#?.nc").write_bytes((root / "classic.nc").read_bytes())
    (root / os.fsdecode(b"latin-\xe9.nc")).write_bytes((root / "classic.nc").read_bytes())
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(root / "socket.nc"))
    if os.geteuid() == 0:
        os.mknod(root / "device.nc", 0o600 | 0o020000, os.makedev(1, 5))


def make_endless(path: Path) -> None:
    """Make a file that HDF5 2.2.0 never ends reading: one octet in its global heap is wrong."""
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("t", None)
        file.createDimension("y", 20)
        file.createVariable("a", "f4", ("t", "y"))[:] = np.ones((12, 20))
        file.createVariable("s", str, ("y",))[0] = "word"
    data = bytearray(path.read_bytes())
    # HDF5 file format, III.E: a head of 16 octets; then objects, each with an index, at 8 its size,
    # and behind 16 octets its data, padded to 8.  The object 0 is what is free.
    at = data.index(b"GCOL") + 16
    while data[at] or data[at + 1]:
        size = int.from_bytes(data[at + 8 : at + 16], "little")
        at += 16 + -(-size // 8) * 8
    assert data[at + 8]
    data[at + 8] = 0
    path.write_bytes(data)
