"""One open data file, and its variables as arrays that are read block by block."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import netCDF4
import numpy as np

from . import blocks
from .errors import RequestError, from_oserror

LOCK_TIMEOUT = 60  # seconds
# Per process; with two workers and the interpreter's own memory the service stays below 300 MB.
BUDGET = blocks.Budget(48 * blocks.MiB)
MAX_ELEMENTS = 2**31 - 1  # DAP2 sends an array's length as a signed 32-bit integer
EXACT = 2**53  # Float64 holds every integer up to here
VLEN_STRING = 64  # bytes; a guess, to bound the number of strings in a block

_MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_lock = threading.Lock()


@contextmanager
def library() -> Iterator[None]:
    """Hold netCDF-C and HDF5, which are not thread-safe; 503 if a hung read holds them."""
    if not _lock.acquire(timeout=LOCK_TIMEOUT):
        raise RequestError(503, "the server is waiting for a file system: try again later")
    try:
        yield
    finally:
        _lock.release()


class Source:
    """An open file; `name` is its URL path, for messages."""

    def __init__(self, descriptor: int, name: str) -> None:
        """Take over an open descriptor; closes it on failure.

        Raises RequestError: 404 if this is no netCDF or HDF5 file, 500 if it is a damaged one, 503.
        """
        self.descriptor = descriptor
        self.name = name
        self._dataset: netCDF4.Dataset | None = None
        try:
            self._version = self._stamp()
            self._probe()
            with library():
                # /proc/self/fd names the very file that was checked, whatever its path is now.
                self._dataset = netCDF4.Dataset(f"/proc/self/fd/{descriptor}")
                self._dataset.set_auto_maskandscale(False)
                self._dataset.set_auto_chartostring(False)
        except OSError as error:
            self.close()
            if error.errno and error.errno > 0:
                raise from_oserror(error, name) from None
            raise RequestError(500, f"{name} is damaged or of an unsupported kind") from None
        except BaseException:
            self.close()
            raise

    @property
    def dataset(self) -> netCDF4.Dataset:
        """The netCDF4 dataset: use it only while holding `library()`."""
        assert self._dataset is not None
        return self._dataset

    @property
    def modified(self) -> float:
        """Time of last modification, in seconds since 1970."""
        return self._version[1] / 1e9

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        dataset, self._dataset = self._dataset, None
        if dataset is not None:
            # Not library(): a file must be closed even when its turn comes late.
            with _lock:
                dataset.close()
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, variable: netCDF4.Variable, slices: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        """Stored values (packed, chars as single bytes)."""
        try:
            with library():
                values = np.asarray(variable[slices] if slices else variable[...])
            # netCDF-C hides the cause; a plain read of the same file tells a file system's trouble.
            if self._stamp() != self._version:
                raise RequestError(503, f"{self.name} was changed while it was read: try again")
            return values
        except (RuntimeError, OSError, IndexError, ValueError) as error:
            try:
                self._probe()
            except OSError as cause:
                raise from_oserror(cause, self.name) from None
            raise RequestError(500, f"{self.name} is damaged: {variable.name}") from error

    def _stamp(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def _probe(self) -> None:
        """Touch the file with plain calls: a hung file system hangs here, where no lock is held."""
        size = os.fstat(self.descriptor).st_size
        head = os.pread(self.descriptor, 8, 0)
        if head[:4] in _MAGIC:
            return
        # HDF5 1.4 file format, II.A: the superblock is at 0, 512, 1024, 2048 ...
        offset = 512
        while head != _HDF5_MAGIC and offset < size:
            head = os.pread(self.descriptor, 8, offset)
            offset *= 2
        if head != _HDF5_MAGIC:
            raise RequestError(404, f"{self.name} is not a netCDF or HDF5 file")
