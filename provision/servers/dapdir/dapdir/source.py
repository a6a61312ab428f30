"""A data file that a request reads."""

from __future__ import annotations

import os
from typing import Any

import netCDF4
import numpy as np

from .errors import RequestError, from_oserror
from .library import Handle, acquire, library, release, stamp_of

_NETCDF3 = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_HDF5 = b"\x89HDF\r\n\x1a\n"


class Source:
    """An open file; `name` is its URL path, for messages."""

    def __init__(self, descriptor: int, name: str) -> None:
        """Take over an open descriptor; close it on failure.

        Raises RequestError: 404 if this is not a netCDF or HDF5 file, 500 if it is a damaged one,
        503 if the file system does not answer.
        """
        self.name = name
        self._descriptor = descriptor
        self._handle: Handle | None = None
        try:
            self._probe()
            self._handle = acquire(descriptor, name)
        except OSError as error:
            self.close()
            if error.errno and error.errno > 0:
                raise from_oserror(error, name) from None
            # Negative numbers are netCDF-C's own errors.
            raise RequestError(500, f"{name} is damaged or of an unsupported kind") from None
        except RuntimeError:
            self.close()
            raise RequestError(500, f"{name} is damaged or of an unsupported kind") from None
        except BaseException:
            self.close()
            raise

    @property
    def dataset(self) -> netCDF4.Dataset:
        """The netCDF4 dataset; use it only while holding `library()`."""
        assert self._handle is not None
        return self._handle.dataset

    @property
    def modified(self) -> float:
        """The time of the last modification, in seconds since 1970."""
        return os.fstat(self._descriptor).st_mtime

    def close(self) -> None:
        """Close the file; may be called again."""
        handle, self._handle = self._handle, None
        if handle:
            release(handle)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(
        self, variable: netCDF4.Variable[Any], slices: tuple[slice, ...]
    ) -> np.ndarray[Any, Any]:
        """Read the values as stored (packed, chars as single bytes).

        Raises RequestError: 500 if the file is damaged, 503 if it was changed or its file system
        does not answer.
        """
        assert self._handle is not None
        try:
            with library():
                values = np.asarray(variable[slices] if slices else variable[...])
            if stamp_of(os.fstat(self._descriptor)) != self._handle.stamp:
                raise RequestError(503, f"{self.name} was changed while it was read: try again")
            return values
        except (RuntimeError, OSError, IndexError, ValueError):
            # netCDF-C hides the cause; a plain read of the file shows a fault of the file system.
            try:
                self._probe()
            except OSError as cause:
                raise from_oserror(cause, self.name) from None
            raise RequestError(500, f"{self.name} is damaged") from None

    def _probe(self) -> None:
        """Read the head with plain calls: a hung file system hangs here, without the lock."""
        size = os.fstat(self._descriptor).st_size
        head = os.pread(self._descriptor, 8, 0)
        if head[:4] in _NETCDF3:
            return
        # HDF5 file format, II.A: the superblock is at 0, 512, 1024, 2048 ...
        offset = 512
        while head != _HDF5 and offset < size:
            head = os.pread(self._descriptor, 8, offset)
            offset *= 2
        if head != _HDF5:
            raise RequestError(404, f"{self.name} is not a netCDF or HDF5 file")
