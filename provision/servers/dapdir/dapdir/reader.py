"""Opens a data file and makes the model of it.

DAP2 has no groups.  Variables and dimensions of groups get their path as a prefix: `/g/x` becomes
`g_x`, as with Hyrax's CF option.  Structures are no way out: clients mix up the attributes of equal
names in them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import netCDF4
import numpy as np

from . import native
from .blocks import BLOCK, Slices, part_at
from .errors import AWAY, RequestError, away, damaged, from_oserror, too_large
from .model import Array, Dataset, Grid, Stored
from .names import STRING_DIMENSION, STRING_LENGTH, client_name, dap_name, text_of

Identity = tuple[int, int, int, int]
"""Device, inode, size, and time of modification in ns of a file."""
Variable: TypeAlias = "netCDF4.Variable[Any]"

_NETCDF3 = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Written by the netCDF and HDF5 libraries for their own use.
_INTERNAL = ("_NCProperties", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict")
# CF attributes with the type of the values: they are converted when the values are.
_TYPED = ("_FillValue", "missing_value", "valid_min", "valid_max", "valid_range")
# netCDF-C cuts strings at 64 bytes unless an attribute gives their length.  For variable-length
# strings only the values show it: they are read for this if a file has at most this many.
_MEASURED_STRINGS = 10_000
_FEW = 16  # strings that are read at once, before it is known how long they are
_EACH = 64  # octets that a string takes besides its own
# HDF5 decompresses whole chunks, and needs both forms of one.
_MAX_CHUNK = 64 * 1024 * 1024


def identity_of(status: os.stat_result) -> Identity:
    """Return what changes when a file is replaced or written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class File:
    """An open data file; `name` is its URL path, for messages."""

    def __init__(self, descriptor: int, name: str) -> None:
        """Take over an open descriptor; close it on failure.

        Raises RequestError: 404 if this is not a netCDF or HDF5 file, 500 if it is a damaged one,
        503 if the file system does not answer.
        """
        self.name = name
        self.descriptor = descriptor
        self.identity = identity_of(os.fstat(descriptor))
        self._dataset: netCDF4.Dataset | None = None
        try:
            self._dataset, omitted = self._open()
            self.model = _Builder(self._dataset, name, omitted).model
            self._measure()
        except (RuntimeError, OSError, ValueError, IndexError, MemoryError) as error:
            failure = self._explained(error)
            self.close()
            raise failure from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> tuple[netCDF4.Dataset, dict[str, str]]:
        # /proc/self/fd names the file that was checked, even if its path now leads elsewhere.
        path = f"/proc/self/fd/{self.descriptor}"
        found = native.survey(path, self.name) if self._is_hdf5() else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types that are left out
            dataset = netCDF4.Dataset(path)
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        if not found:
            return dataset, {}
        known = {_path(group, name) for group in _groups(dataset) for name in group.variables}
        scales = {_path(group, name) for group in _groups(dataset) for name in group.dimensions}
        omitted = {
            # netCDF-C writes a variable under another name if a dimension has its own.
            path: ""
            for path in (p.replace("_nc4_non_coord_", "") for p in found.datasets)
            if path not in known and path not in scales
        }
        return dataset, omitted | found.unreadable

    def _is_hdf5(self) -> bool:
        """Read the head with plain calls, which tell a fault of the file system from damage."""
        head = os.pread(self.descriptor, 8, 0)
        if head[:4] in _NETCDF3:
            return False
        # HDF5 file format, II.A: the superblock is at 0, 512, 1024, 2048 ...
        offset = 512
        while head != _HDF5 and offset < self.identity[2]:
            head = os.pread(self.descriptor, 8, offset)
            offset *= 2
        if head != _HDF5:
            raise RequestError(404, f"{self.name} is not a netCDF or HDF5 file")
        return True

    def _explained(self, error: Exception) -> RequestError:
        """Return the answer to a failure of the library, which hides the cause.

        Its numbers mean anything; a plain read of the file shows a fault of the file system.
        """
        if isinstance(error, MemoryError):
            return too_large(self.name)
        try:
            os.pread(self.descriptor, 8, 0)
        except OSError as cause:
            return from_oserror(cause, self.name)
        if isinstance(error, OSError) and error.errno in AWAY:
            return from_oserror(error, self.name)
        return damaged(self.name)

    def read(self, stored: Stored, part: Slices) -> Any:
        """Return the values as stored: an array (packed, chars as single bytes), or strings.

        Raises RequestError: 500 if the file is damaged, 503 if it was changed or its file system
        does not answer.
        """
        if stored.chunks and np.prod(stored.chunks) * stored.dtype.itemsize > _MAX_CHUNK:
            raise too_large(self.name)
        try:
            if stored.dtype == object:
                values: Any = native.strings(stored.variable, part)
            else:
                values = np.asarray(stored.variable[part] if part else stored.variable[...])
        except (RuntimeError, OSError, IndexError, ValueError, MemoryError) as error:
            raise self._explained(error) from None
        self.check_unchanged()
        return values

    def words(self, array: Array, position: int, room: int) -> list[bytes]:
        """Return strings of an array from `position` on, which take `room` octets, or one.

        Only reading shows how long they are: so few are read first, and then ever more.
        """
        found: list[bytes] = []
        count, size = _FEW, 0
        while position < array.size and size < room:
            part, _ = part_at(position, array.slices, array.stored.chunks, 1, count)
            read: list[bytes] = self.read(array.stored, part)
            for word in read:
                size += len(word) + _EACH
                if found and size > room:
                    return found
                found.append(word)
            position += len(read)
            count = max(1, min(2 * len(read), (room - size) * len(found) // size))
        return found

    def check_unchanged(self) -> None:
        """Raise RequestError 503 if the file was written to since it was opened."""
        try:
            now = identity_of(os.fstat(self.descriptor))
        except OSError:
            raise away(self.name) from None
        if now != self.identity:
            raise RequestError(503, f"{self.name} was changed while it was read: try again")

    def _measure(self) -> None:
        left = _MEASURED_STRINGS
        for array in self.model.arrays():
            if array.stored.dtype == object and array.size <= left:
                left -= array.size
                longest = position = 0
                while position < array.size:
                    words = self.words(array, position, BLOCK)
                    position += len(words)
                    longest = max(longest, *(len(text_of(word).encode()) for word in words))
                array.attributes[STRING_LENGTH] = np.int32(longest)

    def close(self) -> None:
        """Close the file; may be called again."""
        dataset, self._dataset = self._dataset, None
        if dataset:
            dataset.close()
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class _Builder:
    """Makes the `model` of an open file, from metadata only."""

    def __init__(self, dataset: netCDF4.Dataset, name: str, omitted: dict[str, str]) -> None:
        self._names: dict[str, str] = {}  # served name of each variable, by its path
        self._paths: dict[str, str] = {}  # the same the other way round
        self._netcdf4 = dataset.data_model.startswith("NETCDF4")
        groups = list(_groups(dataset))
        variables = {_path(g, n): v for g in groups for n, v in g.variables.items()}
        served = {
            path: v for path, v in variables.items() if path not in omitted and _representable(v)
        }
        for path in served:
            free = _flat(path)
            while free in self._paths:
                free += "_"
            self._names[path], self._paths[free] = free, path
        items = [self._item(path, variable) for path, variable in served.items()]
        # libdap's reader loses its place after an array of length 0, so these come last.
        items.sort(key=lambda item: 0 in item.shape)
        left_out = {**dict.fromkeys(variables, ""), **omitted}
        words = [f"{p} ({w})" if w else p for p, w in left_out.items() if p not in served]
        self.model = Dataset(
            dap_name(name.rsplit("/", 1)[-1]),
            {item.name: item for item in items},
            _globals(groups, words),
        )

    def _item(self, path: str, variable: Variable) -> Array | Grid:
        array = self._array(path, variable)
        maps = [self._map(d) for d in variable.get_dims()]
        # Clients expect neither Grids of strings nor a coordinate that is a Grid over itself.
        found = [m for m in maps if m and m[0] != path]
        if not maps or len(found) < len(maps) or array.type == "String":
            return array
        if 0 in array.shape or len({m[0] for m in found}) < len(found):
            return array
        parts = [array, *(self._array(*m) for m in found)]
        members = {p.name: replace(p, id=f"{array.name}.{p.name}") for p in parts}
        return Grid(members[array.name], members)

    def _map(self, dimension: netCDF4.Dimension) -> tuple[str, Variable] | None:
        """Return the path and the coordinate variable of a dimension; None if it has none."""
        path = _path(dimension.group(), dimension.name)
        variable = dimension.group().variables.get(dimension.name)
        if variable is None or variable.dimensions != (dimension.name,):
            return None
        if self._names.get(path) != _flat(path) or variable.dtype in (str, np.dtype("S1")):
            return None
        return path, variable

    def _array(self, path: str, variable: Variable) -> Array:
        attributes = _attributes(variable)
        dims = [_flat(_path(d.group(), d.name)) for d in variable.get_dims()]
        slices = tuple(slice(0, length, 1) for length in variable.shape)
        dtype = np.dtype("O" if variable.dtype == str else variable.dtype)
        unsigned = str(attributes.get("_Unsigned")).lower() == "true"
        # netCDF-3 has no unsigned bytes: the attribute _Unsigned = "true" marks them.
        if unsigned and dtype.kind == "i" and dtype.itemsize in (1, 8):
            dtype = np.dtype(f"u{dtype.itemsize}")
        chunks = variable.chunking() if self._netcdf4 else None
        width = None
        if dtype == np.dtype("S1"):
            attributes[STRING_LENGTH] = np.int32(variable.shape[-1] if dims else 1)
            if dims:
                width = variable.shape[-1]
                attributes[STRING_DIMENSION] = dims.pop()
                slices = slices[:-1]
        stored = Stored(
            variable, path, dtype, tuple(chunks) if isinstance(chunks, list) else None, width
        )
        if dtype.kind in "iu" and dtype.itemsize == 8:
            attributes.setdefault("_FillValue", default_fill(dtype))
        for name in set(_TYPED) & set(attributes):
            attributes[name] = _converted(dtype, attributes[name])
        if dtype.kind == "u" and dtype.itemsize < 8:
            # netCDF-C reads unsigned integers as signed; xarray and netCDF4 undo that with this.
            attributes["_Unsigned"] = "true"
        elif dtype.kind in "fu":
            attributes.pop("_Unsigned", None)
        if "/" in path:
            attributes["fullnamepath"] = f"/{path}"
        name = self._names[path]
        return Array(name, tuple(dims), slices, stored, attributes, name)


def default_fill(dtype: np.dtype[Any]) -> Any:
    """Return what netCDF puts where nothing was written."""
    return np.dtype(dtype).type(netCDF4.default_fillvals[f"{dtype.kind}{dtype.itemsize}"])


def _converted(dtype: np.dtype[Any], attribute: Any) -> Any:
    """Return an attribute in the type of the served values, if the file's type differs."""
    value = np.asarray(attribute)
    if dtype.kind not in "iuf" or value.dtype.kind not in "iuf":
        return attribute
    if dtype.kind == "u" and value.dtype.kind == "i":
        value = value.astype(dtype.str.replace("u", "i")).view(dtype)
    return value if dtype.itemsize < 8 else value.astype("f8")


def _globals(groups: list[netCDF4.Dataset], omitted: list[str]) -> dict[str, Any]:
    root, *others = groups
    found: dict[str, Any] = {}
    attributes = _attributes(root)
    if omitted:
        attributes["dapdir_omitted"] = ", ".join(omitted)
    for group in others:
        prefix = group.path.strip("/").replace("/", "_")
        attributes |= {f"{prefix}_{name}": v for name, v in _attributes(group).items()}
    if attributes:
        found["NC_GLOBAL"] = attributes
    unlimited = [
        _flat(_path(g, n)) for g in groups for n, d in g.dimensions.items() if d.isunlimited()
    ]
    if len(unlimited) == 1:
        found["DODS_EXTRA"] = {"Unlimited_Dimension": unlimited[0]}
    return found


def _groups(group: netCDF4.Dataset) -> Iterator[netCDF4.Dataset]:
    yield group
    for below in group.groups.values():
        yield from _groups(below)


def _path(group: netCDF4.Dataset, name: str) -> str:
    return f"{group.path}/{name}".lstrip("/")


def _flat(path: str) -> str:
    return dap_name(client_name(path.replace("/", "_")))


def _representable(variable: Variable) -> bool:
    """Return whether DAP2 has a type for the values: not compound, vlen, opaque or complex."""
    kind = variable.datatype
    if variable.dtype == str or isinstance(kind, netCDF4.EnumType):
        return True
    return isinstance(kind, np.dtype) and (kind.kind in "iuf" or kind == np.dtype("S1"))


def _attributes(owner: Any) -> dict[str, Any]:
    found = {}
    for name in owner.ncattrs():
        if name in _INTERNAL:
            continue
        try:
            value = owner.getncattr(name)
            if "\ufffd" in str(value):  # it is not UTF-8
                value = owner.getncattr(name, encoding="latin-1")
            found[name] = value
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError):
            continue  # an attribute of a user-defined type, which DAP2 does not have
    return found
