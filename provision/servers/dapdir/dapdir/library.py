"""netCDF-C and HDF5 in a process with threads: one lock, and one open handle for each file.

The libraries are not thread-safe.  Besides, HDF5 shares its state between handles of one file:
with user-defined types the process crashes when one of them is closed (netCDF-C 4.10.1, HDF5
2.2.0), and a file overwritten in place would be read through what HDF5 remembers of the old one.
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
    """Hold the libraries; 503 if a hung read holds them."""
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
    """What changes when a file is written to."""
    return status.st_size, status.st_mtime_ns


def acquire(descriptor: int, name: str) -> Handle:
    """The handle of an open file, to be released; errors as netCDF4 raises them, or 503."""
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
        # /proc/self/fd names the very file that was checked, whatever its path is now.
        dataset = netCDF4.Dataset(f"/proc/self/fd/{descriptor}")
    except BaseException:
        os.close(descriptor)
        raise
    dataset.set_auto_maskandscale(False)
    dataset.set_auto_chartostring(False)
    return Handle(dataset, descriptor, stamp)


def release(handle: Handle) -> None:
    """Give back what `acquire` returned; the last one closes the file."""
    with _lock:  # without a timeout: a file must be closed even when its turn comes late
        handle.users -= 1
        if not handle.users:
            status = os.fstat(handle.descriptor)
            del _handles[status.st_dev, status.st_ino]
            handle.dataset.close()
            os.close(handle.descriptor)
