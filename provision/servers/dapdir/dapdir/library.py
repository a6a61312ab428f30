"""Shares netCDF-C and HDF5 between threads: one lock, and one open handle for each file.

The libraries are not thread-safe.  HDF5 also shares its state between handles of one file: with
user-defined types the process crashes when one of them is closed (netCDF-C 4.10.1, HDF5 2.2.0), and
a file overwritten in place would be read with what HDF5 remembers of the old content.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import netCDF4

from .errors import RequestError

LOCK_TIMEOUT = 60  # seconds

Stamp = tuple[int, int]  # size, and time of modification in ns
_lock = threading.Lock()


@contextmanager
def library() -> Iterator[None]:
    """Hold the lock of the libraries; raise RequestError 503 if a hung read holds it."""
    if not _lock.acquire(timeout=LOCK_TIMEOUT):
        raise RequestError(503, "the server is waiting for a file system: try again later")
    try:
        yield
    finally:
        _lock.release()


@dataclass
class Handle:
    """An open file; use `dataset` only while holding `library()`."""

    dataset: netCDF4.Dataset
    descriptor: int
    stamp: Stamp
    users: int = 0


_handles: dict[tuple[int, int], Handle] = {}  # by device and inode; guarded by the lock


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the facts about a file that change when it is written to."""
    return status.st_size, status.st_mtime_ns


def acquire(descriptor: int, name: str) -> Handle:
    """Return the handle of an open file; pass it to `release` later.

    Raises netCDF4's own errors, or RequestError 503.
    """
    status = os.fstat(descriptor)
    key = status.st_dev, status.st_ino
    with library():
        handle = _handles.get(key)
        if handle is None:
            handle = _handles[key] = _open(os.dup(descriptor), stamp_of(status))
        elif handle.stamp != stamp_of(status):
            raise RequestError(503, f"{name} was changed while others read it: try again")
        handle.users += 1
        return handle


def _open(descriptor: int, stamp: Stamp) -> Handle:
    try:
        # /proc/self/fd names the file that was checked, even if its path now leads elsewhere.
        dataset = netCDF4.Dataset(f"/proc/self/fd/{descriptor}")
    except BaseException:
        os.close(descriptor)
        raise
    dataset.set_auto_maskandscale(False)
    dataset.set_auto_chartostring(False)
    return Handle(dataset, descriptor, stamp)


def release(handle: Handle) -> None:
    """Give back a handle of `acquire`; the last user's call closes the file."""
    with _lock:  # without a timeout: the file must be closed, however late
        handle.users -= 1
        if not handle.users:
            status = os.fstat(handle.descriptor)
            del _handles[status.st_dev, status.st_ino]
            handle.dataset.close()
            os.close(handle.descriptor)
