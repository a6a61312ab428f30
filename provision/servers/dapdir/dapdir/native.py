"""Calls netCDF-C and HDF5 directly, for what the netCDF4 package does not offer.

netCDF-C crashes or hangs on some HDF5 files, and follows links into other files.  `survey` finds
that out beforehand.  netCDF4 also refuses strings that are not UTF-8, which `strings` reads.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint, c_void_p
from dataclasses import dataclass, field
from typing import Any

import netCDF4
import numpy as np

from .blocks import Slices, lengths_of
from .errors import RequestError, too_large

# Its libraries are loaded already; symbols are looked up in them too.
_LIB = ctypes.CDLL(sys.modules["netCDF4._netCDF4"].__file__)
for _name, _result, _arguments in (
    ("H5Fopen", c_int64, (c_char_p, c_uint, c_int64)),
    ("H5Fclose", c_int, (c_int64,)),
    ("H5Gopen2", c_int64, (c_int64, c_char_p, c_int64)),
    ("H5Gclose", c_int, (c_int64,)),
    ("H5Dopen2", c_int64, (c_int64, c_char_p, c_int64)),
    ("H5Dclose", c_int, (c_int64,)),
    ("H5Dget_type", c_int64, (c_int64,)),
    ("H5Tget_class", c_int, (c_int64,)),
    ("H5Tget_size", c_size_t, (c_int64,)),
    ("H5Tclose", c_int, (c_int64,)),
    ("H5Dget_create_plist", c_int64, (c_int64,)),
    ("H5Pget_external_count", c_int, (c_int64,)),
    ("H5Pget_layout", c_int, (c_int64,)),
    ("H5Pclose", c_int, (c_int64,)),
    ("H5Oget_info_by_name3", c_int, (c_int64, c_char_p, c_void_p, c_uint, c_int64)),
    ("H5Literate2", c_int, (c_int64, c_int, c_int, c_void_p, c_void_p, c_void_p)),
    ("nc_get_vars_string", c_int, (c_int, c_int, *3 * (c_void_p,), POINTER(c_char_p))),
    ("nc_free_string", c_int, (c_size_t, POINTER(c_char_p))),
    ("nc_set_chunk_cache", c_int, (c_size_t, c_size_t, ctypes.c_float)),
    ("H5garbage_collect", c_int, ()),
):
    getattr(_LIB, _name).restype = _result
    getattr(_LIB, _name).argtypes = _arguments

# H5public.h, H5Opublic.h, H5Lpublic.h, H5Tpublic.h, H5Dpublic.h of HDF5 1.12 and later
_GROUP, _DATASET = 0, 1
_HARD, _SOFT = 0, 1
_INTEGER, _FLOAT = 0, 1
_VIRTUAL = 3
_BASIC = 1
_Visit = ctypes.CFUNCTYPE(c_int, c_int64, c_char_p, POINTER(c_int), c_void_p)

MAX_LINKS = 100_000
MAX_NAME = 256  # NC_MAX_NAME: netCDF4 reads beyond the end of a longer one
CHUNK_CACHE = 1024 * 1024  # bytes for each variable; `blocks` reads few chunks twice


class _Info(ctypes.Structure):
    """The head of H5O_info2_t."""

    _fields_ = (
        ("file", ctypes.c_ulong),
        ("token", ctypes.c_ubyte * 16),
        ("type", c_int),
        ("references", c_uint),
        ("rest", ctypes.c_ubyte * 256),
    )


@dataclass
class Survey:
    """What an HDF5 file holds: the paths of all data sets, and why some cannot be read."""

    datasets: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    links: int = 0


def bound_chunk_cache() -> None:
    """Limit what HDF5 keeps of each variable; netCDF-C's default is 64 MiB."""
    _LIB.nc_set_chunk_cache(CHUNK_CACHE, 521, 0.75)


def give_memory_back() -> None:
    """Give the memory of closed files back to the system."""
    _LIB.H5garbage_collect()
    ctypes.CDLL(None).malloc_trim(0)


def survey(path: str, name: str) -> Survey | None:
    """Walk through an HDF5 file; return None if HDF5 does not open it.

    Raises RequestError 500, with the URL path `name`, for what netCDF-C must not open.
    """
    file = _LIB.H5Fopen(path.encode(), 0, 0)
    if file < 0:
        return None
    found = Survey()
    try:
        _walk(file, b"/", "", (), found, name)
    finally:
        _LIB.H5Fclose(file)
    return found


def _walk(
    at: int, group_name: bytes, path: str, above: tuple[bytes, ...], found: Survey, name: str
) -> None:
    group = _LIB.H5Gopen2(at, group_name, 0)
    links: list[tuple[bytes, int]] = []
    info = _Info()
    try:

        def note(_group: int, link: bytes, kind: Any, _data: object) -> int:
            links.append((link, kind[0]))
            return 0

        visit = _Visit(note)
        if _LIB.H5Literate2(group, 0, 2, None, ctypes.cast(visit, c_void_p), None) < 0:
            return  # damaged: netCDF-C will say so
        found.links += len(links)
        if found.links > MAX_LINKS:
            raise too_large(name)
        for link, kind in links:
            below = f"{path}/{link.decode('utf-8', 'replace')}".lstrip("/")
            if kind not in (_HARD, _SOFT):
                raise RequestError(500, f"{name} cannot be served: {below} leads to another file")
            if len(link) > MAX_NAME:
                raise RequestError(
                    500, f"{name} cannot be served: it has a name of {len(link)} bytes"
                )
            if _LIB.H5Oget_info_by_name3(group, link, byref(info), _BASIC, 0) < 0:
                if kind == _SOFT:
                    raise RequestError(500, f"{name} cannot be served: {below} leads nowhere")
                continue
            token = bytes(info.token)
            if info.type == _GROUP:
                if token in above:
                    raise RequestError(500, f"{name} cannot be served: {below} holds itself")
                _walk(group, link, below, (*above, token), found, name)
            elif info.type == _DATASET:
                found.datasets.append(below)
                if reason := _unreadable(group, link):
                    found.unreadable[below] = reason
    finally:
        _LIB.H5Gclose(group)


def _unreadable(group: int, link: bytes) -> str:
    dataset = _LIB.H5Dopen2(group, link, 0)
    kind, plist = _LIB.H5Dget_type(dataset), _LIB.H5Dget_create_plist(dataset)
    try:
        if _LIB.H5Pget_external_count(plist) > 0 or _LIB.H5Pget_layout(plist) == _VIRTUAL:
            return "its values are in another file"
        # netCDF-C takes these for strings or for other numbers, and may crash.
        number, size = _LIB.H5Tget_class(kind), _LIB.H5Tget_size(kind)
        if (number == _FLOAT and size not in (4, 8)) or (number == _INTEGER and size > 8):
            return f"a number of {8 * size} bits"
        return ""
    finally:
        _LIB.H5Tclose(kind)
        _LIB.H5Pclose(plist)
        _LIB.H5Dclose(dataset)


def strings(variable: netCDF4.Variable[Any], slices: Slices) -> list[bytes]:
    """Read strings without decoding them; raise RuntimeError if netCDF-C fails."""
    counts = lengths_of(slices)
    total = int(np.prod(counts))
    pointers = (c_char_p * total)()
    size = max(1, len(slices))
    status = _LIB.nc_get_vars_string(
        variable._grpid,
        variable._varid,
        (c_size_t * size)(*(s.start for s in slices)),
        (c_size_t * size)(*counts),
        (c_int64 * size)(*(s.step for s in slices)),
        pointers,
    )
    if status:
        raise RuntimeError(f"netCDF-C: {status}")
    found = [pointer or b"" for pointer in pointers]
    _LIB.nc_free_string(total, pointers)
    return found
